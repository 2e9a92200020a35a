"""The rows for what arose on our side: a file, a delivery that did not come, a person's decision."""

from __future__ import annotations

from collections.abc import Mapping

from dicomferry.models.rules.answers.answer import Answer, Category, Rule
from dicomferry.models.rules.reason import Reason

_Row = tuple[Rule, str, str | None]

# fmt: off
_FILES: Mapping[Reason, _Row] = {
    Reason.NOTHING_TO_DO: (Rule.FINAL, "no DICOM file was found there: is the path right, and is -r given for the folders inside?", None),
    Reason.UNREADABLE_FOLDER: (Rule.FINAL, "give the user that runs the workers the right to read it, then submit it again", None),
    Reason.NOT_DICOM: (Rule.DONE, "left out; nothing to do", None),
    Reason.DICOMDIR: (Rule.DONE, "left out; its files are sent by themselves", "PS3.10 8.6"),
    Reason.DUPLICATE: (Rule.DONE, "left out; the same object is sent once", None),
    Reason.LINK_LOOP: (Rule.DONE, "left out; the folder is being walked already", None),
    Reason.NOT_A_FILE: (Rule.DONE, "left out; sockets, pipes and devices are not read", None),
    Reason.UNREADABLE: (Rule.FINAL, "give the user that runs the workers the right to read it, then retry", None),
    Reason.VANISHED: (Rule.FINAL, "put the file back, then retry", None),
    Reason.DANGLING_LINK: (Rule.FINAL, "mend or remove the link, then submit again", None),
    Reason.TRUNCATED: (Rule.FINAL, "the file ends too early: fetch it again from where it came", "PS3.5 7.1"),
    Reason.CHANGED: (Rule.FINAL, "the file now holds another object: submit again", None),
    Reason.CHANGING: (Rule.AGAIN, "the file is changed while it is sent, each time: let its writer come to an end, then retry", None),
    Reason.CONFLICT: (Rule.FINAL, "two files of one SOP Instance UID differ: decide which is right, submit that one", "PS3.5 9.1"),
    Reason.TRAILING_BYTES: (Rule.FINAL, "something that is no part of the data set follows its last element: cut it off, or fetch the file again, then retry", "PS3.10 7.2"),
    Reason.META_DIFFERS: (Rule.DONE, "it was sent under the UIDs of its data set; the file meta group, which is not sent, names others: --strict-meta refuses such files", "PS3.10 7.1"),
    Reason.META_MISMATCH: (Rule.FINAL, "file meta group and data set name different objects: repair the file, or send it without --strict-meta", "PS3.10 7.1"),
    Reason.SYNTAX_MISMATCH: (Rule.FINAL, "the data set is not in the transfer syntax that the file declares: repair the file", "PS3.10 7.1"),
    Reason.BAD_UID: (Rule.FINAL, "a UID has characters that no UID may have, or more than 64: repair the file; where it is the SOP Instance UID that is long, `submit store --send-odd-uids` sends it all the same", "PS3.5 9.1"),
    Reason.NO_UID: (Rule.FINAL, "the data set names no SOP class or no SOP instance: repair the file", "PS3.3 C.12.1"),
    Reason.ODD_LENGTH: (Rule.FINAL, "the data set has an odd length, which no encoding allows: repair the file", "PS3.5 7.1.1"),
    Reason.NO_DECODER: (Rule.FINAL, "install what decompresses it where the workers run (`pip install 'dicomferry[transcode]'`), start them anew, then retry", None),
    Reason.NOT_TRANSCODABLE: (Rule.FINAL, "they take another transfer syntax only, and the file cannot be converted: convert it by hand", None),
    Reason.WORKER_DIED_TWICE_ON_IT: (Rule.FINAL, "sending this file ended a worker process twice: look at the file and the worker's log", None),
}
_QUERIES: Mapping[Reason, _Row] = {
    Reason.QUERY_NOT_OFFERED: (Rule.FINAL, "they do not take this query model: try the other --root", "PS3.8 9.3.3.2"),
    Reason.NOT_ENCODABLE: (Rule.FINAL, "name a character set that they know (remote set --charset), or leave the key out", "PS3.5 6.1"),
    Reason.MAYBE_TRUNCATED: (Rule.WARNING, "the number looks like a limit of theirs: submit again with narrower keys (a find also with --split)", None),
    Reason.SLICE_STILL_CAPPED: (Rule.FINAL, "they hold more in one minute than they list: narrow the keys, or ask for a higher limit", None),
    Reason.SPLIT_NOT_POSSIBLE: (Rule.FINAL, "they do not match on that key: narrow the keys in another way", "PS3.4 C.2.2.2.5"),
    Reason.SPLIT_LEAVES_GAPS: (Rule.FINAL, "studies without a date or time are in no range: ask for those days in parts of another kind, such as PatientID=1*, or for a higher limit there", "PS3.4 C.2.2.2.5"),
    Reason.KEYS_NOT_KEPT_TO: (Rule.WARNING, "they list what does not have what was asked for: a retrieve with these keys leaves that out", "PS3.4 C.2.2.2"),
    Reason.LISTED_MORE_THAN_ONCE: (Rule.WARNING, "nothing to do: each is shown and counted once, all answers stay in the record", "PS3.4 C.4.1.1.4"),
    Reason.NO_UNIQUE_KEY: (Rule.FINAL, "the archive showed a match that it gives no unique key of, so nobody can ask for it: ask its administrator", "PS3.4 C.2.2.1.1"),
    Reason.NO_MATCH: (Rule.FINAL, "the archive has nothing of that: are the keys right, and is it the right archive?", "PS3.4 C.4.1"),
    Reason.NOTHING_THERE: (Rule.DONE, "nothing matched, and that was to be allowed (--allow-empty)", "PS3.4 C.4.1"),
    Reason.ANSWERS_UNDECIDED: (Rule.HOLD, "see by `submit find` with the same keys what they list. Where that is right: `remote set NAME --trust-answers KEY`, then release; or submit it again with --trust-answers KEY", "PS3.4 C.2.2.2"),
}
_DELIVERIES: Mapping[Reason, _Row] = {
    Reason.LISTING_NOT_WHOLE: (Rule.FINAL, "`dicomferry jobs retry` lists it again; where its numbers are wrong for good, `dicomferry remote set NAME --numbers ignored`; `dicomferry jobs accept` closes this job as it is", "PS3.4 C.3.4"),
    Reason.LISTING_NOT_WHOLE_YET: (Rule.LATER, "the archive says that it has more than it lists: it is listed again after timeouts.settle", "PS3.4 C.3.4"),
    Reason.NOT_DELIVERED: (Rule.FINAL, "the archive was asked more than once and did not send it: its log says why; then retry", "PS3.4 C.4.2"),
    Reason.NOT_DELIVERED_YET: (Rule.LATER, "the archive gets time before it is asked once more for what is missing", "PS3.4 C.4.2"),
    Reason.NEARLINE: (Rule.LATER, "the archive has it on slow media and was asked for it, which recalls it; it is looked for again by itself", "PS3.3 C.4.23.1.1"),
    Reason.UNAVAILABLE: (Rule.FINAL, "the archive lists it and says that it cannot be retrieved: ask its administrator where it is", "PS3.3 C.4.23.1.1"),
    Reason.NOTHING_DELIVERED: (Rule.FINAL, "the archive says that it is done and has sent nothing: its log says why", "PS3.4 C.4.2"),
    Reason.GONE_AT_SOURCE: (Rule.FINAL, "the archive listed it before and does not any more; nothing to do, unless it should be there", None),
    Reason.INCOMPLETE: (Rule.FINAL, "see its instances for what is missing; `dicomferry jobs retry` asks for that once more", None),
    Reason.ARCHIVE_CANNOT_REACH_US: (Rule.DOUBTFUL, "give its administrator our AE title, host and port, and open the firewall from there; then release", "PS3.4 C.4.2"),
    Reason.ARCHIVE_WAS_REJECTED_HERE: (Rule.DOUBTFUL, "our storage SCP rejected the association: its log says why and how to allow it; then release", "PS3.8 9.3.4"),
    Reason.CONTEXT_REFUSED_HERE: (Rule.FINAL, "our storage SCP does not take this SOP class or transfer syntax", "PS3.8 9.3.3.2"),
    Reason.ALREADY_HERE: (Rule.DONE, "it was in the archive before; --refetch asks for it all the same", None),
    Reason.FILED_ELSEWHERE: (Rule.FINAL, "it came, and its file names another study or series than the archive lists: is it the right instance? If the archive changes UIDs as it sends: `remote set NAME --coerces study,series`, then retry, which fetches nothing", "PS3.3 C.12.1"),
    Reason.CAME_FLAWED: (Rule.FINAL, "it came more than once and cannot be used: ask the archive's administrator to look at it there; what came is kept until `dicomferry archive remove --flawed`", "PS3.5 7"),
    Reason.TRUNCATED_AT_SOURCE: (Rule.WARNING, "its data set ends too early, and came so twice: those are the archive's bytes; ask its administrator", "PS3.5 7.1"),
    Reason.ARRIVED_LATE: (Rule.DONE, Reason.NOTHING_TO_DO, None),
    Reason.GREW_AT_SOURCE: (Rule.DONE, "more came to the archive while it was retrieved; that was fetched as well", None),
    Reason.TO_BE_VERIFIED: (Rule.LATER, "it was confirmed; it is looked for at the remote at the end of its chunk", "PS3.4 C.4.1"),
    Reason.NOT_VERIFIED: (Rule.FINAL, "it was confirmed, but whether it is there could not be learned: the destination answers no such query, did not answer this one well, or is no remote of the address book; `dicomferry jobs retry` looks again and sends nothing twice", None),
    Reason.NOT_AT_THE_DESTINATION: (Rule.FINAL, "the archive said that it was sent, and the destination does not list it: look there", None),
    Reason.NOT_FOUND_AFTER_SUCCESS: (Rule.FINAL, "the archive took it and does not list it: look there, then retry", "PS3.4 B.2.3"),
}
_HERE: Mapping[Reason, _Row] = {
    Reason.STORAGE_SCP_IS_NOT_RUNNING: (Rule.AWAY, "start it with `dicomferry up` or `dicomferry scp`; the retrieve goes on by itself", None),
    Reason.FILE_GONE: (Rule.FINAL, "it came, and when its request ended its file was not there any more, or not whole: who or what removes files from the archive? `jobs retry` fetches it again", None),
    Reason.ARCHIVE_OUT_OF_SIGHT: (Rule.AWAY, "nobody who sees the archive can say what lies in it: is its disk mounted where the workers or the storage SCP run, and is scp.archive right?", None),
    Reason.STORAGE_SCP_WAS_RESTARTED: (Rule.AWAY, "what may have been lost meanwhile is asked for again", None),
    Reason.DISK_FULL: (Rule.AWAY, "the archive's disk is full to its reserve (scp.reserve_bytes): make room there, or give it more; retrieves wait and go on by themselves", None),
    Reason.REFUSED_HERE: (Rule.AWAY, "our storage SCP could not keep what the archive sent: its log says why; it is asked for again", None),
    Reason.NO_PROGRESS: (Rule.BROKEN, "nothing moved for so long that the association was aborted from here: look at both sides' logs", None),
    Reason.INTERNAL_ERROR: (Rule.BROKEN, "a fault of this program: please report what the worker's log says", None),
    Reason.WORKER_LOST: (Rule.LATER, "a worker process died or froze; what it had not recorded is done again by another one", None),
}
_PEOPLE: Mapping[Reason, _Row] = {
    Reason.CANCELLED: (Rule.FINAL, "cancelled by a person; `dicomferry jobs retry` brings it back", None),
    Reason.HELD_BY_A_PERSON: (Rule.HOLD, "release it when it may go on", None),
    Reason.NOT_BEFORE: (Rule.LATER, "it starts at the time that was asked for", None),
}
# fmt: on

REASONS: Mapping[str, Answer] = {
    reason: Answer(rule=rule, reason=reason, advice=advice, category=category, clause=clause or "")
    for category, rows in (
        (Category.FILE, _FILES),
        (Category.REQUEST, _QUERIES),
        (Category.DELIVERY, _DELIVERIES),
        (Category.HERE, _HERE),
        (Category.PERSON, _PEOPLE),
    )
    for reason, (rule, advice, clause) in rows.items()
}
"""Every row by its reason word."""
