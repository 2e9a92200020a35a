"""The last look at the files by which a request's instances are called here."""

from __future__ import annotations

from dicomferry.models.record.retrieves import second_look
from dicomferry.models.rules.proof import Way
from dicomferry.workers.retrieval.completeness import seen
from dicomferry.workers.retrieval.progress import Progress
from dicomferry.workers.retrieval.situation import Situation


def look(situation: Situation, progress: Progress) -> None:
    """Look at each file by which an instance is called here: one that was removed meanwhile proves nothing.

    An attempt that has asked for nothing has just looked at what it found here, so that is not looked at again. Raises
    OutOfSight, LeaseLost.
    """
    if situation.way is not Way.HERE:
        return
    found = second_look.counted(situation.database, situation.lease)
    if not progress.asked:
        found = [one for one in found if one.instance_id not in progress.looked_at]
    there = {one.item_id for one in seen(situation.sight, found, progress.looked_at)}
    gone = [one for one in found if one.item_id not in there]
    if gone:
        second_look.fail(situation.database, situation.lease, gone)
