"""What a retrieve is expected to bring: asked of the archive by C-FIND before anything is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dicomferry.models import telemetry
from dicomferry.models.documents.job_sums import DEPTHS
from dicomferry.models.record.retrieves.expected import Listed
from dicomferry.models.rules import query, target
from dicomferry.models.rules.answers import lookup
from dicomferry.models.rules.answers.lookup import Rule
from dicomferry.models.rules.errors import ContextNotAccepted, DimseError, DimseFailure
from dicomferry.models.rules.proof import Depth
from dicomferry.models.rules.query import Key, Level
from dicomferry.models.rules.remote import Remote
from dicomferry.models.rules.rounds import Missing
from dicomferry.models.rules.spec import Retrieve
from dicomferry.models.rules.target import Target
from dicomferry.workers.attempts.heartbeat import Heartbeat
from dicomferry.workers.dimse import find, storage_classes
from dicomferry.workers.dimse.requestor import Association, open_association
from dicomferry.workers.finding import resolution, walk
from dicomferry.workers.finding.resolution import KeyTrials, Noted

log = telemetry.logger(__name__)

_BELOW_STUDY = frozenset(f"{query.UNIQUE[level]:08X}" for level in (Level.SERIES, Level.IMAGE))


@dataclass
class Listing:
    """What the archive says it has. `depth` is the least that it told of any target, `why` the reason for less than
    images. `absent` are images that were asked for by their UID and are not listed. `left_out` says which answers were,
    because they contradict the keys.
    """

    targets: list[Target] = field(default_factory=list)
    depth: str = "images"
    why: str | None = None
    instances: list[Listed] = field(default_factory=list)
    absent: list[Listed] = field(default_factory=list)
    availabilities: set[str] = field(default_factory=set)
    left_out: str | None = None
    noted: Noted = field(default_factory=Noted)

    def expected(self, *, ignored: bool = False) -> int | None:
        """How many instances there are to be, those included that the archive says it has and does not list; None
        where nobody says. `ignored`: its numbers count only where it lists nothing.
        """
        if any(one.depth == Depth.UNKNOWN for one in self.targets):
            return None
        number = len(self.absent) + sum(_expected(one, ignored) for one in self.targets)
        return min(number, walk.MOST_NUMBER)


def _expected(one: Target, ignored: bool) -> int:
    listed = one.depth == Depth.IMAGES
    if one.images or (ignored and listed):
        return one.listed
    more = sum((part.said or 0) - part.listed for part in one.inner if part.series)
    return max(one.listed + more, one.count or 0)


@contextmanager
def inquiry(remote: Remote, root: str, heart: Heartbeat) -> Iterator[Association]:
    """An association for C-FIND, which the heartbeat can break."""
    proposal = find.proposal(query.find_model(root))
    with open_association(remote, [proposal], progress=heart.progress) as association:
        heart.on_abort(association.abort)
        try:
            yield association
        finally:
            heart.on_abort(None)


def ask(
    remote: Remote, spec: Retrieve, keys: Sequence[Key], heart: Heartbeat, *, insist: bool, trials: KeyTrials
) -> Listing:
    """What is there of an identifier.

    An archive that does not answer queries, or not down to the images, is taken at its word (`depth`); with `insist`
    its answer must be that it cannot, not only that it could not just now. Raises Fault where the identifier cannot be
    resolved, DimseError and FindStopped as the queries do.
    """
    root, level = spec.root, spec.level
    trusted = remote.trust_answers.union(spec.trust_answers)
    with inquiry(remote, root, heart) as association:
        targets = target.from_keys(level, keys)
        left_out, noted = None, Noted()
        if targets is None or target.says_more(root, level, keys):
            asked = walk.asker(association, query.find_model(root), stop=lambda: heart.stop)
            try:
                found = resolution.resolve(asked, remote, root, Level(level), keys, trials, trusted)
            except resolution.Refused:
                if targets is None:
                    raise
            else:
                left_out, noted = found.left_out.sentence, found.noted
                # Images that are not listed are told of one by one.
                targets = targets if targets and found.targets and level == Level.IMAGE else found.targets
        listing = _listing(association, root, targets or [], lambda: heart.stop, insist=insist)
    listing.noted.add(noted)
    return replace(listing, left_out=left_out or listing.left_out)


def of_targets(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat, *, insist: bool) -> Listing:
    """What is there of targets that are named by unique keys alone; `insist` as in `ask`. Raises what `ask` raises."""
    with inquiry(remote, root, heart) as association:
        return _listing(association, root, targets, lambda: heart.stop, insist=insist)


def again(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat) -> Listing:
    """List again what targets have that are known already. Raises what `ask` raises."""
    return of_targets(remote, root, targets, heart, insist=False)


def changed(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat) -> Listing | None:
    """What is there now; None where it is as much as before, or where the archive does not say. Raises FindStopped."""
    try:
        if is_unchanged(remote, root, targets, heart):
            return None
    except DimseError as error:
        _let_pass(error, heart)
        return None
    return now(remote, root, targets, heart)


def now(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat) -> Listing | None:
    """What is there now; None where the archive does not answer. Raises FindStopped."""
    try:
        return again(remote, root, targets, heart)
    except DimseError as error:
        _let_pass(error, heart)
        return None


def gone(listing: Listing | None, missing: Iterable[Missing]) -> frozenset[int]:
    """The items of those that the archive does not list any more; none where it does not say."""
    if listing is None or (listing.depth != "images" and listing.expected() != 0):
        return frozenset()
    there = {one.kept_key for one in listing.instances}
    return frozenset(one.item_id for one in missing if one.key not in there)


def _let_pass(error: DimseError, heart: Heartbeat) -> None:
    """What comes is here all the same, so a question that got no answer is no failure."""
    if isinstance(error, find.FindStopped):
        raise error
    heart.require_lease()
    log.warning("the archive could not be asked again", error=str(error))


def is_unchanged(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat) -> bool:
    """Whether the archive gives the numbers that it gave before; False where it gives none. Raises what `ask` does."""
    if any(one.images or one.count is None for one in targets):
        return False
    with inquiry(remote, root, heart) as association:
        asked = walk.asker(association, query.find_model(root), stop=lambda: heart.stop)
        for one in targets:
            wanted = (f"{query.RELATED_INSTANCES[one.level]:08X}", "")
            try:
                found = list(walk.walk(asked, root, one.level, (*one.keys(root), wanted)))
            except (DimseFailure, ContextNotAccepted):
                return False
            counts = [answer.answer.first(query.RELATED_INSTANCES[one.level]) for answer in found]
            if counts != [str(one.count)]:
                return False
    return True


def classes(remote: Remote, root: str, targets: Sequence[Target], heart: Heartbeat) -> list[str]:
    """The SOP classes of what is there, where its images are not listed: those that the archive names for the study,
    else those of its modalities; none where it says too little. Raises FindStopped.
    """
    found: dict[str, None] = {}
    try:
        with inquiry(remote, root, heart) as association:
            asked = walk.asker(association, query.find_model(root), stop=lambda: heart.stop)
            for one in targets:
                told = _classes_of(asked, root, one)
                if not told:
                    return []
                found.update(dict.fromkeys(told))
    except DimseError as error:
        _let_pass(error, heart)
        return []
    return list(found)


def _classes_of(asked: find.Ask, root: str, one: Target) -> list[str] | None:
    """The SOP classes of one target: by its studies, else by its series."""
    above = tuple(key for key in one.keys(root) if key[0] not in _BELOW_STUDY)
    told: list[str] = []
    modalities: list[str] = []
    wanted = tuple((f"{tag:08X}", "") for tag in (query.SOP_CLASSES_IN_STUDY, query.MODALITIES_IN_STUDY))
    for study in walk.walk(asked, root, Level.STUDY, (*above, *wanted)):
        named = study.answer.values(query.SOP_CLASSES_IN_STUDY)
        if not named:
            modalities += study.answer.values(query.MODALITIES_IN_STUDY) or [""]
        told += named
    if "" in modalities or not (told or modalities):
        series = tuple(key for key in one.keys(root) if key[0] != f"{query.UNIQUE[Level.IMAGE]:08X}")
        keys = (*series, (f"{query.MODALITY:08X}", ""))
        modalities = [found.answer.first(query.MODALITY) or "" for found in walk.walk(asked, root, Level.SERIES, keys)]
    known = storage_classes.of_modalities(dict.fromkeys(modalities)) if modalities else []
    return None if known is None else [*told, *known]


def _listing(
    association: Association, root: str, targets: Sequence[Target], stop: Callable[[], bool], *, insist: bool
) -> Listing:
    listing = Listing()
    left_out: str | None = None
    for one in targets:
        listed: list[Listed] = []
        count: int | None = 0
        depth, inner = str(Depth.IMAGES), one.inner[:0]
        for found in _answers(association, root, one, stop):
            listed += found.images
            left_out = left_out or found.left_out.sentence
            if found.error and insist and _may_pass(found.error, association.remote):
                raise resolution.refusal(found.error, association.remote)
            listing.availabilities |= found.availabilities
            listing.noted.capped |= found.capped
            depth, inner = min(depth, found.depth, key=DEPTHS.index), inner + found.inner
            listing.why = listing.why or found.why
            count = None if found.count is None or count is None else count + found.count
        uids = {image.uid for image in listed}
        listing.instances += listed
        if depth == Depth.IMAGES:
            listing.absent += [Listed(uid, None, one.study, one.series) for uid in one.images if uid not in uids]
        listing.depth = min(listing.depth, depth, key=DEPTHS.index)
        listing.targets.append(replace(one, count=count, listed=len(listed), depth=depth, inner=inner))
    return replace(listing, left_out=left_out)


class _Answer(walk.Expectation):
    """What is listed of a target, or of some images of it, all of it read."""

    def __init__(self, association: Association, root: str, part: Target, stop: Callable[[], bool]) -> None:
        super().__init__(association, root, part.level, part.keys(root), stop=stop)
        self.images = list(_of(part, self))


def _answers(association: Association, root: str, one: Target, stop: Callable[[], bool]) -> Iterator[_Answer]:
    """The answers of which the list of a target is made.

    A list of UIDs that is refused, or of which not all are listed, proves nothing of the others: some archives take no
    lists, and some answer to the first value of one alone. Each of those is asked for by itself; where the list was
    refused, until that is refused as well.
    """
    for part in _parts(one, association.remote.max_uids):
        found = _Answer(association, root, part, stop)
        there = {image.uid for image in found.images}
        left = [uid for uid in part.images if uid not in there] if len(part.images) > 1 else []
        singles: list[_Answer] = []
        for uid in left:
            singles.append(_Answer(association, root, replace(part, images=(uid,)), stop))
            if found.error and singles[-1].error:
                break
        if not found.error or not singles or singles[-1].error:
            yield found
        yield from (single for single in singles if not single.error)


def _parts(one: Target, most: int) -> Iterator[Target]:
    if not one.images:
        yield one
    for first in range(0, len(one.images), most):
        yield replace(one, images=one.images[first : first + most])


def _of(one: Target, found: Iterable[walk.Instance]) -> Iterator[Listed]:
    """What is listed of a target."""
    for image in found:
        study = image.study_instance_uid or one.study
        series = image.series_instance_uid or one.series
        yield Listed(image.sop_instance_uid, image.sop_class_uid, study, series, image.availability)


def _may_pass(error: DimseFailure | ContextNotAccepted, remote: Remote) -> bool:
    """Whether the archive may answer another time."""
    if not isinstance(error, DimseFailure):
        return False
    return lookup.for_status("find", error.status, remote.quirks).rule in (Rule.CONGESTED, Rule.AGAIN)
