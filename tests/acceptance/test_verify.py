"""`submit store --verify` towards a real archive."""

from __future__ import annotations

from pathlib import Path

from support import samples
from support.peers import Orthanc

from .conftest import Install


def test_what_was_stored_is_looked_for(install: Install, orthanc: Orthanc, tmp_path: Path) -> None:
    """Each instance was sent once and found by C-FIND in its series afterwards."""
    tree = samples.make_tree(tmp_path / "tree", 40, size=8)
    installation, _ = install()
    with installation.up():
        remote = f"{orthanc.aet}@127.0.0.1:{orthanc.port}"
        job = installation.show(installation.submit("store", remote, "-r", tmp_path / "tree", "--verify", "--wait"))
    assert (job["state"], job["verified"], job["items"]["succeeded"]) == ("succeeded", "uids", 40)
    assert orthanc.instances() == samples.uids(tree)
    assert {item["attempts"] for item in installation.items(job["id"])} == {1}
