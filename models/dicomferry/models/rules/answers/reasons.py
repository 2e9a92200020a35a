"""The rows for what arose on our side: a file, a delivery that did not come, a person's decision."""

from __future__ import annotations

from collections.abc import Mapping

from dicomferry.models.rules.answers.answer import Answer, Category, Rule

_Row = tuple[Rule, str, str | None]

# fmt: off
_FILES: Mapping[str, _Row] = {
    "nothing to do": (Rule.FINAL, "no DICOM file was found there: is the path right, and is -r given for the folders inside?", None),
    "unreadable folder": (Rule.FINAL, "give the user that runs the workers the right to read it, then submit it again", None),
    "not DICOM": (Rule.DONE, "left out; nothing to do", None),
    "DICOMDIR": (Rule.DONE, "left out; its files are sent by themselves", "PS3.10 8.6"),
    "duplicate": (Rule.DONE, "left out; the same object is sent once", None),
    "link loop": (Rule.DONE, "left out; the folder is being walked already", None),
    "not a file": (Rule.DONE, "left out; sockets, pipes and devices are not read", None),
    "unreadable": (Rule.FINAL, "give the user that runs the workers the right to read it, then retry", None),
    "vanished": (Rule.FINAL, "put the file back, then retry", None),
    "dangling link": (Rule.FINAL, "mend or remove the link, then submit again", None),
    "truncated": (Rule.FINAL, "the file ends too early: fetch it again from where it came", "PS3.5 7.1"),
    "changed": (Rule.FINAL, "the file now holds another object: submit again", None),
    "changing": (Rule.AGAIN, "the file is changed while it is sent, each time: let its writer come to an end, then retry", None),
    "conflict": (Rule.FINAL, "two files of one SOP Instance UID differ: decide which is right, submit that one", "PS3.5 9.1"),
    "trailing bytes": (Rule.FINAL, "something that is no part of the data set follows its last element: cut it off, or fetch the file again, then retry", "PS3.10 7.2"),
    "meta differs": (Rule.DONE, "it was sent under the UIDs of its data set; the file meta group, which is not sent, names others: --strict-meta refuses such files", "PS3.10 7.1"),
    "meta mismatch": (Rule.FINAL, "file meta group and data set name different objects: repair the file, or send it without --strict-meta", "PS3.10 7.1"),
    "syntax mismatch": (Rule.FINAL, "the data set is not in the transfer syntax that the file declares: repair the file", "PS3.10 7.1"),
    "bad uid": (Rule.FINAL, "a UID has characters that no UID may have, or more than 64: repair the file; where it is the SOP Instance UID that is long, `submit store --send-odd-uids` sends it all the same", "PS3.5 9.1"),
    "no uid": (Rule.FINAL, "the data set names no SOP class or no SOP instance: repair the file", "PS3.3 C.12.1"),
    "odd length": (Rule.FINAL, "the data set has an odd length, which no encoding allows: repair the file", "PS3.5 7.1.1"),
    "no decoder": (Rule.FINAL, "install what decompresses it where the workers run (`pip install 'dicomferry[transcode]'`), start them anew, then retry", None),
    "not transcodable": (Rule.FINAL, "they take another transfer syntax only, and the file cannot be converted: convert it by hand", None),
    "worker died twice on it": (Rule.FINAL, "sending this file ended a worker process twice: look at the file and the worker's log", None),
}
_QUERIES: Mapping[str, _Row] = {
    "query not offered": (Rule.FINAL, "they do not take this query model: try the other --root", "PS3.8 9.3.3.2"),
    "not encodable": (Rule.FINAL, "name a character set that they know (remote set --charset), or leave the key out", "PS3.5 6.1"),
    "maybe truncated": (Rule.WARNING, "the number looks like a limit of theirs: submit again with narrower keys (a find also with --split)", None),
    "slice still capped": (Rule.FINAL, "they hold more in one minute than they list: narrow the keys, or ask for a higher limit", None),
    "split not possible": (Rule.FINAL, "they do not match on that key: narrow the keys in another way", "PS3.4 C.2.2.2.5"),
    "split leaves gaps": (Rule.FINAL, "studies without a date or time are in no range: ask for those days in parts of another kind, such as PatientID=1*, or for a higher limit there", "PS3.4 C.2.2.2.5"),
    "keys not kept to": (Rule.WARNING, "they list what does not have what was asked for: a retrieve with these keys leaves that out", "PS3.4 C.2.2.2"),
    "listed more than once": (Rule.WARNING, "nothing to do: each is shown and counted once, all answers stay in the record", "PS3.4 C.4.1.1.4"),
    "no unique key": (Rule.FINAL, "the archive showed a match that it gives no unique key of, so nobody can ask for it: ask its administrator", "PS3.4 C.2.2.1.1"),
    "no match": (Rule.FINAL, "the archive has nothing of that: are the keys right, and is it the right archive?", "PS3.4 C.4.1"),
    "nothing there": (Rule.DONE, "nothing matched, and that was to be allowed (--allow-empty)", "PS3.4 C.4.1"),
    "answers undecided": (Rule.HOLD, "see by `submit find` with the same keys what they list. Where that is right: `remote set NAME --trust-answers KEY`, then release; or submit it again with --trust-answers KEY", "PS3.4 C.2.2.2"),
}
_DELIVERIES: Mapping[str, _Row] = {
    "listing not whole": (Rule.FINAL, "`dicomferry jobs retry` lists it again; where its numbers are wrong for good, `dicomferry remote set NAME --numbers ignored`; `dicomferry jobs accept` closes this job as it is", "PS3.4 C.3.4"),
    "listing not whole yet": (Rule.LATER, "the archive says that it has more than it lists: it is listed again after timeouts.settle", "PS3.4 C.3.4"),
    "not delivered": (Rule.FINAL, "the archive was asked more than once and did not send it: its log says why; then retry", "PS3.4 C.4.2"),
    "not delivered yet": (Rule.LATER, "the archive gets time before it is asked once more for what is missing", "PS3.4 C.4.2"),
    "nearline": (Rule.LATER, "the archive has it on slow media and was asked for it, which recalls it; it is looked for again by itself", "PS3.3 C.4.23.1.1"),
    "unavailable": (Rule.FINAL, "the archive lists it and says that it cannot be retrieved: ask its administrator where it is", "PS3.3 C.4.23.1.1"),
    "nothing delivered": (Rule.FINAL, "the archive says that it is done and has sent nothing: its log says why", "PS3.4 C.4.2"),
    "gone at source": (Rule.FINAL, "the archive listed it before and does not any more; nothing to do, unless it should be there", None),
    "incomplete": (Rule.FINAL, "see its instances for what is missing; `dicomferry jobs retry` asks for that once more", None),
    "archive cannot reach us": (Rule.DOUBTFUL, "give its administrator our AE title, host and port, and open the firewall from there; then release", "PS3.4 C.4.2"),
    "archive was rejected here": (Rule.DOUBTFUL, "our storage SCP rejected the association: its log says why and how to allow it; then release", "PS3.8 9.3.4"),
    "context refused here": (Rule.FINAL, "our storage SCP does not take this SOP class or transfer syntax", "PS3.8 9.3.3.2"),
    "already here": (Rule.DONE, "it was in the archive before; --refetch asks for it all the same", None),
    "filed elsewhere": (Rule.FINAL, "it came, and its file names another study or series than the archive lists: is it the right instance? If the archive changes UIDs as it sends: `remote set NAME --coerces study,series`, then retry, which fetches nothing", "PS3.3 C.12.1"),
    "came flawed": (Rule.FINAL, "it came more than once and cannot be used: ask the archive's administrator to look at it there; what came is kept until `dicomferry archive remove --flawed`", "PS3.5 7"),
    "truncated at source": (Rule.WARNING, "its data set ends too early, and came so twice: those are the archive's bytes; ask its administrator", "PS3.5 7.1"),
    "arrived late": (Rule.DONE, "nothing to do", None),
    "grew at source": (Rule.DONE, "more came to the archive while it was retrieved; that was fetched as well", None),
    "to be verified": (Rule.LATER, "it was confirmed; it is looked for at the remote at the end of its chunk", "PS3.4 C.4.1"),
    "not verified": (Rule.FINAL, "it was confirmed, but whether it is there could not be learned: the destination answers no such query, did not answer this one well, or is no remote of the address book; `dicomferry jobs retry` looks again and sends nothing twice", None),
    "not at the destination": (Rule.FINAL, "the archive said that it was sent, and the destination does not list it: look there", None),
    "not found after success": (Rule.FINAL, "the archive took it and does not list it: look there, then retry", "PS3.4 B.2.3"),
}
_HERE: Mapping[str, _Row] = {
    "storage SCP is not running": (Rule.AWAY, "start it with `dicomferry up` or `dicomferry scp`; the retrieve goes on by itself", None),
    "file gone": (Rule.FINAL, "it came, and when its request ended its file was not there any more, or not whole: who or what removes files from the archive? `jobs retry` fetches it again", None),
    "archive out of sight": (Rule.AWAY, "nobody who sees the archive can say what lies in it: is its disk mounted where the workers or the storage SCP run, and is scp.archive right?", None),
    "storage SCP was restarted": (Rule.AWAY, "what may have been lost meanwhile is asked for again", None),
    "disk full": (Rule.AWAY, "the archive's disk is full to its reserve (scp.reserve_bytes): make room there, or give it more; retrieves wait and go on by themselves", None),
    "refused here": (Rule.AWAY, "our storage SCP could not keep what the archive sent: its log says why; it is asked for again", None),
    "no progress": (Rule.BROKEN, "nothing moved for so long that the association was aborted from here: look at both sides' logs", None),
    "internal error": (Rule.BROKEN, "a fault of this program: please report what the worker's log says", None),
    "worker lost": (Rule.LATER, "a worker process died or froze; what it had not recorded is done again by another one", None),
}
_PEOPLE: Mapping[str, _Row] = {
    "cancelled": (Rule.FINAL, "cancelled by a person; `dicomferry jobs retry` brings it back", None),
    "held by a person": (Rule.HOLD, "release it when it may go on", None),
    "not before": (Rule.LATER, "it starts at the time that was asked for", None),
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
