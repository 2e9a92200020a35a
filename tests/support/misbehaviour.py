"""What archives do instead of what they should: by name, each a `Manners` for the scripted Query/Retrieve peer.

The names are those of docs/misbehaviour.md, where the ending of each stands.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import UID

from support import scripted_peer as peer
from support.qr_messages import CANCELLED, DONE, NOTHING_DONE, REFUSED_IDENTIFIER, UNKNOWN_DESTINATION, WARNING
from support.qr_peer import Manners, QrPeer
from support.qr_retrieval import Retrieval
from support.samples import Sample
from support.scripted_peer import Answer

NO_RESOURCES = 0xA701
UNABLE = 0xC000
UNHEARD_OF = 0xC5A7
SLOWLY = 0.3
"""Seconds between the sub-operations of a slow peer; tests give less for the whole, and more for a pause."""
_JPIP_REFERENCED = "1.2.840.10008.1.2.4.94"

NAMED: dict[str, Manners] = {}


def named(name: str, **manners: object) -> Callable[[Callable[[Retrieval], None]], Callable[[Retrieval], None]]:
    """Registers what a peer does with each retrieve."""

    def register(function: Callable[[Retrieval], None]) -> Callable[[Retrieval], None]:
        NAMED[name] = Manners(retrieve=function, **manners)  # type: ignore[arg-type]
        return function

    return register


def well_but_for(retrieval: Retrieval, kept_back: set[str]) -> None:
    """Hand over everything but these, which count as failed."""
    chosen = [sample for sample in retrieval.wanted if sample.sop_instance_uid not in kept_back]
    retrieval.failed_uids += [uid for uid in wanted_uids(retrieval) if uid in kept_back]
    retrieval.store(chosen)
    retrieval.hang_up()
    retrieval.final()


def wanted_uids(retrieval: Retrieval) -> list[str]:
    return [sample.sop_instance_uid for sample in retrieval.wanted]


def of_others(retrieval: Retrieval) -> list[Sample]:
    """Everything that belongs to other studies than what is wanted."""
    studies = {sample.study_instance_uid for sample in retrieval.wanted}
    return [sample for sample in retrieval.peer.catalogue.samples if sample.study_instance_uid not in studies]


def first_of(held: QrPeer) -> str:
    """The instance with which something is wrong: the third one of the catalogue."""
    return held.catalogue.samples[2].sop_instance_uid


def pause(seconds: float) -> None:
    """Time passes at the peer."""
    threading.Event().wait(seconds)


# --- final answers that are not to be believed ---------------------------------------------------------------------


@named("success with zero sub-operations")
def success_with_zero(retrieval: Retrieval) -> None:
    retrieval.final(DONE)


@named("success, no counters, nothing sent")
def success_without_a_word(retrieval: Retrieval) -> None:
    retrieval.final(DONE, completed=None, failed=None, warning=None)


@named("success with all failed")
def success_with_all_failed(retrieval: Retrieval) -> None:
    retrieval.final(DONE, failed=len(retrieval.wanted))


@named("counters missing")
def counters_missing(retrieval: Retrieval) -> None:
    retrieval.store(report=False)
    retrieval.pending(remaining=None, completed=None, failed=None, warning=None)
    retrieval.hang_up()
    retrieval.final(completed=None, failed=None, warning=None)


@named("counters that decrease")
def counters_decrease(retrieval: Retrieval) -> None:
    for number, sample in enumerate(retrieval.wanted):
        retrieval.store([sample], report=False)
        retrieval.pending(completed=max(3 - number, 0), remaining=number)
    retrieval.hang_up()
    retrieval.final(completed=1)


@named("0xB000 with everything there")
def warning_with_everything(retrieval: Retrieval) -> None:
    retrieval.store()
    retrieval.hang_up()
    retrieval.failed_uids = wanted_uids(retrieval)[:2]
    retrieval.final(WARNING, completed=len(retrieval.wanted) - 2)


@named("0xA702 with everything there")
def nothing_done_with_everything(retrieval: Retrieval) -> None:
    retrieval.store()
    retrieval.hang_up()
    retrieval.failed_uids = wanted_uids(retrieval)
    retrieval.final(NOTHING_DONE, completed=0)


@named("a status that the Standard does not have")
def status_unheard_of(retrieval: Retrieval) -> None:
    retrieval.final(UNHEARD_OF, completed=None, failed=None, warning=None)


@named("final answers announce a data set and send none")
def announces_in_vain(retrieval: Retrieval) -> None:
    retrieval.store()
    retrieval.hang_up()
    retrieval.oddities["CommandDataSetType"] = 1
    retrieval.final()


@named("the list of what failed stands in the command set")
def list_in_the_command_set(retrieval: Retrieval) -> None:
    missing = first_of(retrieval.peer)
    retrieval.store([sample for sample in retrieval.wanted if sample.sop_instance_uid != missing])
    retrieval.failed_uids = [missing]
    retrieval.hang_up()
    retrieval.oddities["FailedSOPInstanceUIDList"] = [missing]
    retrieval.final(failed_list=False)


# --- refusals -------------------------------------------------------------------------------------------------------


@named("0xA801: does not know our AE title")
def does_not_know_us(retrieval: Retrieval) -> None:
    retrieval.final(UNKNOWN_DESTINATION, completed=None, failed=None, warning=None)


@named("0xA701 always")
def out_of_resources(retrieval: Retrieval) -> None:
    retrieval.final(NO_RESOURCES, completed=None, failed=None, warning=None)


@named("0xA701 at first")
def out_of_resources_once(retrieval: Retrieval) -> None:
    if retrieval.nth == 1:
        out_of_resources(retrieval)
    else:
        retrieval.well()


@named("0xC000, no association made")
def cannot_reach_us(retrieval: Retrieval) -> None:
    retrieval.final(UNABLE, completed=None, failed=None, warning=None)


@named("all failed, no association made")
def cannot_reach_us_by_counters(retrieval: Retrieval) -> None:
    retrieval.failed_uids = wanted_uids(retrieval)
    retrieval.final()


@named("IMAGE level of C-MOVE refused")
def image_level_refused(retrieval: Retrieval) -> None:
    if retrieval.level == "IMAGE":
        retrieval.final(REFUSED_IDENTIFIER, completed=None, failed=None, warning=None)
    elif retrieval.nth == 1:
        well_but_for(retrieval, {first_of(retrieval.peer)})
    else:
        retrieval.well()


@named("lists of UIDs refused")
def lists_refused(retrieval: Retrieval) -> None:
    if len(retrieval.uids) > 1:
        retrieval.final(REFUSED_IDENTIFIER, completed=None, failed=None, warning=None)
    elif retrieval.level != "IMAGE":
        well_but_for(retrieval, set(wanted_uids(retrieval)[1::2]))
    else:
        retrieval.well()


def _no_find(held: QrPeer, level: str, answers: list[Dataset]) -> int:
    return UNABLE


def _no_find_at_image(held: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
    return UNABLE if level == "IMAGE" else answers


def _no_find_context(abstract: str, syntaxes: list[str]) -> Answer:
    return (3 if abstract.endswith(".1") and ".5.1.4.1.2." in abstract else 0), syntaxes[0]


def _again_and_again(held: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
    return answers * 5


def _hides_one(held: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
    """Of each series the instance with the greatest UID is not listed; the numbers are right."""
    return sorted(answers, key=lambda one: str(one.SOPInstanceUID))[:-1] if level == "IMAGE" else answers


def _sends_what_it_lists(one: Retrieval) -> None:
    last: dict[str, str] = {}
    for sample in one.peer.catalogue.samples:
        series, uid = sample.series_instance_uid, sample.sop_instance_uid
        last[series] = max(uid, last.get(series, ""))
    one.store([sample for sample in one.wanted if sample.sop_instance_uid not in last.values()])
    one.hang_up()
    one.final()


def _mute_below(held: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset] | int:
    """The study is shown, without a number, and nothing below it."""
    answers = copy.deepcopy(answers) if level == "STUDY" else []
    for one in answers:
        one.NumberOfStudyRelatedInstances = None
    return answers


NAMED["says that it has more than it lists"] = Manners(find=_hides_one, retrieve=_sends_what_it_lists)
NAMED["lists nothing below the study, and no number"] = Manners(find=_mute_below)
NAMED["lists a study once for each of its images"] = Manners(find=_again_and_again)
NAMED["IMAGE level of C-FIND refused"] = Manners(find=_no_find_at_image)
NAMED["C-FIND refused, C-MOVE accepted"] = Manners(find=_no_find)
NAMED["C-FIND has no presentation context"] = Manners(choose=_no_find_context)
NAMED["the association is refused: called AE title"] = Manners(greet=lambda _: [peer.send(peer.rejection(1, 1, 7))])
NAMED["the association is refused at first: busy"] = Manners(
    greet=lambda number: [peer.send(peer.rejection(2, 3, 1))] if number == 1 else None
)
NAMED["TCP accepts only"] = Manners(greet=lambda _: [peer.until_end])


# --- slow media -----------------------------------------------------------------------------------------------------


def said(answers: list[Dataset], word: str) -> list[Dataset]:
    """The answers with this InstanceAvailability."""
    for answer in answers:
        if "InstanceAvailability" in answer:
            answer.InstanceAvailability = word
    return answers


def _back_later(held: QrPeer, level: str, answers: list[Dataset]) -> list[Dataset]:
    """The first retrieve recalls it; it is back when it was looked for twice more."""
    looks = [query for query in held.queries if query.QueryRetrieveLevel == "STUDY"]
    return said(answers, "NEARLINE" if len(looks) < 4 else "ONLINE")


@named("on slow media, back a little later", find=_back_later)
def recalled(retrieval: Retrieval) -> None:
    if retrieval.nth == 1:
        out_of_resources(retrieval)
    else:
        retrieval.well()


@named("on slow media for good", find=lambda _, __, answers: said(answers, "OFFLINE"))
def never_recalled(retrieval: Retrieval) -> None:
    out_of_resources(retrieval)


@named("listed as unavailable", find=lambda _, __, answers: said(answers, "UNAVAILABLE"))
def unavailable(retrieval: Retrieval) -> None:
    retrieval.failed_uids = wanted_uids(retrieval)
    retrieval.final()


# --- breaking off, and waiting for ever -----------------------------------------------------------------------------


@named("aborts midway")
def aborts_midway(retrieval: Retrieval) -> None:
    if len(retrieval.wanted) < 2:
        retrieval.well()
        return
    retrieval.store(retrieval.wanted[: len(retrieval.wanted) // 2])
    retrieval.hang_up()
    retrieval.abort()


@named("aborts at one instance")
def aborts_at_one(retrieval: Retrieval) -> None:
    uids = wanted_uids(retrieval)
    if first_of(retrieval.peer) not in uids:
        retrieval.well()
        return
    retrieval.store(retrieval.wanted[: uids.index(first_of(retrieval.peer))])
    retrieval.hang_up()
    retrieval.abort()


@named("pending for ever")
def pending_for_ever(retrieval: Retrieval) -> None:
    while True:
        retrieval.pending()
        pause(0.05)


@named("pending for ever, until it is cancelled")
def pending_until_cancelled(retrieval: Retrieval) -> None:
    while not retrieval.listen(0.05):
        retrieval.pending()
    retrieval.final(CANCELLED)


@named("silent, and deaf to C-CANCEL")
def silent(retrieval: Retrieval) -> None:
    retrieval.silence()


@named("the final answer never comes, everything arrived")
def no_final_answer(retrieval: Retrieval) -> None:
    retrieval.store()
    retrieval.hang_up()
    retrieval.silence()


@named("slow but alive")
def slow_but_alive(retrieval: Retrieval) -> None:
    for sample in retrieval.wanted:
        pause(SLOWLY)
        retrieval.store([sample], report=False)
    retrieval.hang_up()
    retrieval.final()


# --- what comes, and what does not ----------------------------------------------------------------------------------


@named("the final answer before the stores")
def final_first(retrieval: Retrieval) -> None:
    retrieval.final(completed=len(retrieval.wanted))

    def late(rest: Retrieval) -> None:
        pause(SLOWLY)
        rest.store(report=False)
        rest.hang_up()

    retrieval.afterwards(late)


@named("drops every tenth sub-operation")
def drops_every_tenth(retrieval: Retrieval) -> None:
    dropped = set(wanted_uids(retrieval)[9::10])
    retrieval.store([sample for sample in retrieval.wanted if sample.sop_instance_uid not in dropped])
    retrieval.hang_up()
    retrieval.final(DONE, completed=len(retrieval.wanted))


@named("one instance never comes")
def one_never_comes(retrieval: Retrieval) -> None:
    well_but_for(retrieval, {first_of(retrieval.peer)})


@named("one instance never comes, success said")
def one_never_comes_in_silence(retrieval: Retrieval) -> None:
    missing = first_of(retrieval.peer)
    retrieval.store([sample for sample in retrieval.wanted if sample.sop_instance_uid != missing])
    retrieval.hang_up()
    retrieval.final(DONE, completed=len(retrieval.wanted))


@named("one instance comes only when it is asked for alone")
def one_comes_alone(retrieval: Retrieval) -> None:
    well_but_for(retrieval, {first_of(retrieval.peer)} if len(retrieval.wanted) > 1 else set())


@named("one instance is gone by then")
def one_is_gone(retrieval: Retrieval) -> None:
    gone = first_of(retrieval.peer)
    retrieval.peer.catalogue.remove(gone)
    well_but_for(retrieval, {gone})


@named("duplicates")
def duplicates(retrieval: Retrieval) -> None:
    for sample in retrieval.wanted:
        retrieval.store([sample], report=False)
        retrieval.store([sample])
    retrieval.completed = len(retrieval.wanted)
    retrieval.hang_up()
    retrieval.final()


@named("other patients' objects as well")
def surplus(retrieval: Retrieval) -> None:
    retrieval.store(of_others(retrieval)[:3], report=False)
    retrieval.store()
    retrieval.hang_up()
    retrieval.final()


@named("more of the study than it lists")
def unlisted(retrieval: Retrieval) -> None:
    retrieval.store(retrieval.peer.later, report=False)
    retrieval.store()
    retrieval.completed = len(retrieval.wanted)
    retrieval.hang_up()
    retrieval.final()


@named("a different study than the one asked for")
def different_study(retrieval: Retrieval) -> None:
    retrieval.store(of_others(retrieval))
    retrieval.hang_up()
    retrieval.final()


@named("grows at the source between")
def grows(retrieval: Retrieval) -> None:
    retrieval.store()
    retrieval.hang_up()
    if retrieval.nth == 1:
        retrieval.peer.catalogue.add(retrieval.peer.later)
    retrieval.final()


@named("nothing matches")
def nothing_matches(retrieval: Retrieval) -> None:
    retrieval.final(DONE)


NAMED["nothing matches"] = replace(NAMED["nothing matches"], find=lambda _, __, ___: [])


# --- how it comes ---------------------------------------------------------------------------------------------------


@named("a wrong calling AE title")
def wrong_calling(retrieval: Retrieval) -> None:
    retrieval.store(calling="SOMEONE")
    retrieval.hang_up()
    retrieval.final()


@named("no move originator")
def no_originator(retrieval: Retrieval) -> None:
    retrieval.store(originator=False)
    retrieval.hang_up()
    retrieval.final()


@named("a wrong calling AE title, and no move originator")
def anonymous(retrieval: Retrieval) -> None:
    retrieval.store(calling="SOMEONE", originator=False)
    retrieval.hang_up()
    retrieval.final()


@named("a transfer syntax that our SCP refuses")
def refused_context(retrieval: Retrieval) -> None:
    one = first_of(retrieval.peer)
    retrieval.wanted = [_as_jpip(sample) if sample.sop_instance_uid == one else sample for sample in retrieval.wanted]
    retrieval.store()
    retrieval.hang_up()
    retrieval.final()


def _as_jpip(sample: Sample) -> Sample:
    return replace(sample, transfer_syntax_uid=_JPIP_REFERENCED)


@named("an instance under another UID")
def another_uid(retrieval: Retrieval) -> None:
    one = first_of(retrieval.peer)
    retrieval.store([_renamed(sample) if sample.sop_instance_uid == one else sample for sample in retrieval.wanted])
    retrieval.failed_uids = [one] if retrieval.failed_uids else []
    retrieval.hang_up()
    retrieval.final()


def _renamed(sample: Sample) -> Sample:
    return replace(sample, sop_instance_uid=UID("2.25.4711"))


# --- C-GET alone ----------------------------------------------------------------------------------------------------

OF_GET: dict[str, Manners] = {}
"""What only a C-GET can meet with."""


def _no_roles(retrieval: Retrieval) -> None:
    """Without the roles it must not send: every sub-operation fails."""
    retrieval.failed_uids = wanted_uids(retrieval)
    retrieval.final()


OF_GET["the roles that C-GET needs are not granted"] = Manners(retrieve=_no_roles, roles=False)
OF_GET["C-GET has no presentation context"] = Manners(
    choose=lambda abstract, syntaxes: (3 if abstract.endswith(".2.3") else 0, syntaxes[0])
)
