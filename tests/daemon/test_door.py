"""The door of the storage SCP: who is let in over which address, how many of them, and what keeps nobody waiting."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

import pytest

from dicomferry.models.record import presence
from dicomferry.models.record.archive import calls
from dicomferry.models.record.remotes import book
from dicomferry.models.rules.errors import AssociationRejected
from dicomferry.models.rules.remote import Remote
from dicomferry.workers.dimse.echo import echo
from support import samples
from support.caller import EXPLICIT, Caller, association
from support.installation import until
from support.scp import storage_scp

from .test_storage_scp import outsider, rejected


def test_one_caller_takes_its_share_and_no_more() -> None:
    """`scp.per_caller`: 2/3/2 for one more of it, and a place for others, from the same address too."""
    with storage_scp(scp__max_associations=6, scp__per_caller=4) as scp, ExitStack() as stack:
        held = [stack.enter_context(association(scp.port)) for _ in range(4)]
        assert rejected("127.0.0.1", scp.port, "TESTER") == (2, 3, 2)
        assert "share" in scp.said("association rejected")[-1]["why"]
        assert rejected("127.0.0.1", scp.port, "PACS") is None
        held[0].release()
        until(lambda: rejected("127.0.0.1", scp.port, "TESTER") is None, "a place is free")


def test_half_of_the_places_are_one_callers_at_most() -> None:
    """Without `scp.per_caller`."""
    with storage_scp(scp__max_associations=6) as scp, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(association(scp.port))
        assert rejected("127.0.0.1", scp.port, "TESTER") == (2, 3, 2)
        assert rejected("127.0.0.1", scp.port, "PACS") is None


def test_title_and_address_may_both_be_asked_for() -> None:
    """scp.accept = "both": an AE title that is printed somewhere opens nothing from another address."""
    host = outsider()
    with storage_scp(scp__host="0.0.0.0", scp__accept="both") as scp:
        book.add(scp.database, "pacs1", f"PACS1@{host}:104")
        book.add(scp.database, "pacs2", "PACS2@192.0.2.1:104")
        until(lambda: rejected(host, scp.port, "PACS1") is None, "the new remote is known")
        assert rejected(host, scp.port, "PACS2") == (1, 1, 3)
        assert rejected(host, scp.port, "STRANGER") == (1, 1, 3)
        assert rejected("127.0.0.1", scp.port, "PACS1") == (1, 1, 3)
        assert "do not belong to one remote" in scp.said("association rejected")[-1]["why"]
        # A health check of this machine asks for verification alone.
        here = f"WHOEVER@127.0.0.1:{scp.port}"
        ours = Remote(name=here, ae_title="FERRY", host="127.0.0.1", port=scp.port, calling_ae_title="WHOEVER")
        assert echo(ours).status == 0
        with pytest.raises(AssociationRejected):
            echo(replace(ours, host=host))


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_all_addresses_of_this_machine_are_listened_on() -> None:
    """scp.host = "::": over IPv6 and over IPv4, and who calls over the latter is on record as such."""
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    host = outsider()
    data = samples.encoded(samples.dataset(size=16), EXPLICIT)
    with storage_scp(scp__host="::") as scp:
        book.add(scp.database, "pacs1", f"PACS1@{host}:104")
        assert rejected("::1", scp.port, "TESTER") is None
        until(lambda: rejected(host, scp.port, "WHOEVER") is None, "its address is known")
        with Caller(scp.port) as caller:
            caller.associate()
            assert caller.store(str(samples.dataset().SOPInstanceUID), data).Status == 0
            caller.release()
        until(lambda: scp.rows("SELECT address FROM arrival") == [("127.0.0.1",)], "it is on record")
        until(
            lambda: {address for (address,) in scp.rows("SELECT address FROM call")} == {"127.0.0.1", "::1", host},
            "so are the calls",
        )


def test_a_mute_name_server_takes_no_sign_of_life() -> None:
    """The sign of life waits for nothing else, and callers that are known by their address come in meanwhile."""
    host = outsider()
    with storage_scp(module="support.mute_names_scp", scp__host="0.0.0.0") as scp:
        book.add(scp.database, "mute", "MUTE@pacs.example:104")
        book.add(scp.database, "pacs1", f"PACS1@{host}:104")
        until(lambda: rejected(host, scp.port, "SOMEBODY") is None, "its address is known")

        def seen() -> datetime | None:
            rows = presence.alive(scp.database)
            return rows[0].seen_at if rows else None

        signs = {until(seen, "it lives")}
        until(lambda: signs.add(seen()) or len(signs) >= 3, "signs of life go on")  # type: ignore[func-returns-value]
        assert calls.living_scps(scp.database)
