"""Faults that attempts meet, as the table of answers judges them, and the policy of the tests about them."""

from __future__ import annotations

from dicomferry.models.rules import errors
from dicomferry.models.rules.answers.lookup import for_error, for_status
from dicomferry.models.rules.retry import RetryPolicy

POLICY = RetryPolicy(first_delay=10, max_delay=600, give_up_after=3600)

UNREACHABLE = for_error(errors.RemoteUnreachable("refused"))
HANGS_UP = for_error(errors.RemoteUnreachable("closed", closed=True))
NO_REASON = for_error(errors.AssociationRejected(1, 1, 1))
CONGESTION = for_error(errors.AssociationRejected(2, 3, 1))
UNKNOWN_CALLER = for_error(errors.AssociationRejected(1, 1, 3))
UNKNOWN_CALLED = for_error(errors.AssociationRejected(1, 1, 7))
ABORTED = for_error(errors.AssociationAborted("abort"))
SILENT = for_error(errors.DimseTimeout("store_answer", 300))
NO_ROOM = for_status("store", 0xA700)
