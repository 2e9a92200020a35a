"""The words that say why: stable, kept on record and printed, each with its row in the table of answers.

These are the words that this program itself finds. What a peer's status means has its words in `answers.statuses`
alone; wherever both may come, a reason is a plain string.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item, an attempt, a chunk or a job is as it is. The advice that belongs to each is in `answers`."""

    def __repr__(self) -> str:
        return repr(self.value)  # as the plain word, in logs and messages too

    # A file of ours, before or while it is sent.
    NOTHING_TO_DO = "nothing to do"
    UNREADABLE_FOLDER = "unreadable folder"
    NOT_DICOM = "not DICOM"
    DICOMDIR = "DICOMDIR"
    DUPLICATE = "duplicate"
    LINK_LOOP = "link loop"
    NOT_A_FILE = "not a file"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    DANGLING_LINK = "dangling link"
    TRUNCATED = "truncated"
    CHANGED = "changed"
    CHANGING = "changing"
    CONFLICT = "conflict"
    TRAILING_BYTES = "trailing bytes"
    META_DIFFERS = "meta differs"
    META_MISMATCH = "meta mismatch"
    SYNTAX_MISMATCH = "syntax mismatch"
    BAD_UID = "bad uid"
    NO_UID = "no uid"
    ODD_LENGTH = "odd length"
    NO_DECODER = "no decoder"
    NOT_TRANSCODABLE = "not transcodable"
    WORKER_DIED_TWICE_ON_IT = "worker died twice on it"

    # A query.
    QUERY_NOT_OFFERED = "query not offered"
    NOT_ENCODABLE = "not encodable"
    MAYBE_TRUNCATED = "maybe truncated"
    SLICE_STILL_CAPPED = "slice still capped"
    SPLIT_NOT_POSSIBLE = "split not possible"
    SPLIT_LEAVES_GAPS = "split leaves gaps"
    KEYS_NOT_KEPT_TO = "keys not kept to"
    LISTED_MORE_THAN_ONCE = "listed more than once"
    NO_UNIQUE_KEY = "no unique key"
    NO_MATCH = "no match"
    NOTHING_THERE = "nothing there"
    ANSWERS_UNDECIDED = "answers undecided"

    # A retrieve, and what is looked for where it went.
    LISTING_NOT_WHOLE = "listing not whole"
    LISTING_NOT_WHOLE_YET = "listing not whole yet"
    NOT_DELIVERED = "not delivered"
    NOT_DELIVERED_YET = "not delivered yet"
    NEARLINE = "nearline"
    UNAVAILABLE = "unavailable"
    NOTHING_DELIVERED = "nothing delivered"
    GONE_AT_SOURCE = "gone at source"
    INCOMPLETE = "incomplete"
    ARCHIVE_CANNOT_REACH_US = "archive cannot reach us"
    ARCHIVE_WAS_REJECTED_HERE = "archive was rejected here"
    CONTEXT_REFUSED_HERE = "context refused here"
    ALREADY_HERE = "already here"
    FILED_ELSEWHERE = "filed elsewhere"
    CAME_FLAWED = "came flawed"
    TRUNCATED_AT_SOURCE = "truncated at source"
    ARRIVED_LATE = "arrived late"
    GREW_AT_SOURCE = "grew at source"
    TO_BE_VERIFIED = "to be verified"
    NOT_VERIFIED = "not verified"
    NOT_AT_THE_DESTINATION = "not at the destination"
    NOT_FOUND_AFTER_SUCCESS = "not found after success"

    # This installation.
    STORAGE_SCP_IS_NOT_RUNNING = "storage SCP is not running"
    FILE_GONE = "file gone"
    ARCHIVE_OUT_OF_SIGHT = "archive out of sight"
    STORAGE_SCP_WAS_RESTARTED = "storage SCP was restarted"
    DISK_FULL = "disk full"
    REFUSED_HERE = "refused here"
    NO_PROGRESS = "no progress"
    INTERNAL_ERROR = "internal error"
    WORKER_LOST = "worker lost"

    # A person's decision.
    CANCELLED = "cancelled"
    HELD_BY_A_PERSON = "held by a person"
    NOT_BEFORE = "not before"

    # What keeps an association from opening, or ends it.
    UNREACHABLE = "unreachable"
    CONNECTION_CLOSED = "connection closed"
    TLS_EXPECTED = "TLS expected"
    NO_DICOM_ANSWER = "no DICOM answer"
    CONNECTION_LOST = "connection lost"
    RELEASED_EARLY = "released early"
    PROTOCOL_VIOLATION = "protocol violation"
    CONTEXT_REFUSED = "context refused"
    FAILURE = "failure"
    NO_ANSWER = "no answer"
    NO_FIRST_ANSWER = "no first answer"
    NO_ANSWER_TO_A_STORE = "no answer to a store"
    WENT_SILENT = "went silent"
    NO_GOODBYE = "no goodbye"
    REJECTED_WITHOUT_A_REASON = "rejected without a reason"
    APPLICATION_CONTEXT_NOT_SUPPORTED = "application context not supported"
    CALLING_AE_TITLE_NOT_RECOGNIZED = "calling AE title not recognized"
    CALLED_AE_TITLE_NOT_RECOGNIZED = "called AE title not recognized"
    REJECTED = "rejected"
    PROTOCOL_VERSION_NOT_SUPPORTED = "protocol version not supported"
    REJECTED_FOR_NOW = "rejected for now"
    ABORTED = "aborted"
    ABORTED_UNRECOGNIZED_PDU = "aborted: unrecognized PDU"
    ABORTED_UNEXPECTED_PDU = "aborted: unexpected PDU"
    ABORTED_UNRECOGNIZED_PDU_PARAMETER = "aborted: unrecognized PDU parameter"
    ABORTED_UNEXPECTED_PDU_PARAMETER = "aborted: unexpected PDU parameter"
    ABORTED_INVALID_PDU_PARAMETER = "aborted: invalid PDU parameter"

    # A remote that is used no more than it may be: its hours, and how much of it.
    WINDOW = "window"
    LIMIT = "limit"

    # Words of a peer's status by which a rule of ours goes.
    ALREADY_THERE = "already there"
    MOVE_DESTINATION_UNKNOWN = "move destination unknown"
