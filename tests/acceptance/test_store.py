"""The main job: a tree with everything that real trees hold goes to an archive, and each file is accounted for."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID

from support import samples
from support.compare import assert_same_object, body
from support.installation import Installation, until
from support.peers import Orthanc, StoreScp, free_port
from support.record import assert_consistent
from support.samples import Sample

from .conftest import Install, on

CLASSES = 140
"""More SOP classes than one association has presentation contexts."""


@dataclass
class Tree:
    """A folder with good and bad files, and what is expected of each."""

    folder: Path
    good: list[Sample] = field(default_factory=list)
    bad: dict[Path, tuple[str, str]] = field(default_factory=dict)
    """Path -> (item's state, its reason)."""
    pad: set[str] = field(default_factory=set)
    """UIDs of deflated data sets of odd length, which get a closing NUL."""

    @property
    def failed(self) -> int:
        return sum(state == "failed" for state, _ in self.bad.values())

    @property
    def skipped(self) -> int:
        return sum(state == "skipped" for state, _ in self.bad.values())


def plain(folder: Path, number: int) -> Tree:
    return Tree(folder, samples.make_tree(folder / "plain", number, name="plain"))


def add_odd_good_ones(tree: Tree) -> None:
    """Files that are unusual, and to be sent as they are."""
    folder = tree.folder / "odd"
    tree.good += [
        samples.big_endian(folder / "big endian.dcm"),
        samples.implicit(folder / "implicit"),
        samples.deflated(folder / "deflated.dcm"),
        samples.deflated(folder / "deflated odd.dcm", "deflated odd", odd=True),
        samples.private_sop_class(folder / "private.dcm"),
        samples.without_meta(folder / "without-meta"),
        samples.rle(folder / "rle.dcm"),
        samples.jpeg_baseline(folder / "jpeg.dcm"),
        samples.jpeg2000(folder / "jpeg 2000.dcm"),
        samples.mr_instance(samples.non_utf8_name(folder), study="non-UTF-8 name"),
        samples.mr_instance(folder / "a name\nof two lines.dcm", study="newline"),
        samples.mr_instance(folder / ("x" * 251 + ".dcm"), study="longest name"),
        samples.mr_instance(folder.joinpath(*["deep"] * 60, "deep.dcm"), study="deep"),
    ]
    tree.pad.add(tree.good[-10].sop_instance_uid)
    outside = tree.folder.parent / "outside"
    tree.good.append(samples.mr_instance(outside / "linked.dcm", study="linked"))
    (tree.folder / "link to a file").symlink_to(outside / "linked.dcm")
    for number in range(CLASSES):
        ds = samples.dataset(size=8, SOPClassUID=UID(f"{samples.PRIVATE_SOP_CLASS}.{number}"))
        ds.SOPInstanceUID = UID(samples.uid("class", number))
        tree.good.append(samples.write(tree.folder / "classes" / f"{number}.dcm", ds))


def add_bad_ones(tree: Tree) -> None:
    """Every kind of file that cannot be sent, each with the reason that its item has to name."""
    folder = tree.folder / "bad"

    def bad(path: Path, state: str, reason: str) -> None:
        tree.bad[path] = (state, reason)

    bad(samples.text_file(folder / "readme.txt"), "skipped", "not DICOM")
    (folder / "empty").touch()
    bad(folder / "empty", "skipped", "not DICOM")
    bad(samples.dicomdir(folder / "DICOMDIR"), "skipped", "DICOMDIR")
    os.mkfifo(folder / "pipe")
    bad(folder / "pipe", "skipped", "not a file")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    bad(folder / "socket", "skipped", "not a file")
    (folder / "loop").symlink_to(folder)
    bad(folder / "loop", "skipped", "link loop")
    (folder / "self").symlink_to("self")
    bad(folder / "self", "failed", "dangling link")
    (folder / "dangling").symlink_to("nowhere")
    bad(folder / "dangling", "failed", "dangling link")
    if Path("/proc/self/mem").exists():
        # A file that even root can open and not read: EIO.
        (folder / "unreadable").symlink_to("/proc/self/mem")
        bad(folder / "unreadable", "failed", "unreadable")
    if os.geteuid():
        for name in ("no right to read.dcm", "no right to enter"):
            path = folder / name
            samples.mr_instance(path if path.suffix else path / "1.dcm", study=name)
            path.chmod(0)
            bad(path, "failed", "unreadable")
    bad(samples.truncated(folder / "truncated.dcm").path, "failed", "truncated")
    tree.good.append(samples.meta_mismatch(folder / "meta.dcm"))
    bad(samples.syntax_mismatch(folder / "syntax.dcm").path, "failed", "syntax mismatch")
    bad(odd_length(folder / "odd-length.dcm").path, "failed", "odd length")
    first = tree.good[0]
    bad(samples.same_again(first, folder / "zz duplicate.dcm").path, "skipped", "duplicate")
    bad(samples.altered(tree.good[1], folder / "zz conflict.dcm").path, "failed", "conflict")
    # The walk is bytewise: these come behind the first ones only in a folder behind theirs.
    for name in ("zz duplicate.dcm", "zz conflict.dcm"):
        later = tree.folder / "zz" / name
        later.parent.mkdir(exist_ok=True)
        (folder / name).rename(later)
        tree.bad[later] = tree.bad.pop(folder / name)


def odd_length(path: Path) -> Sample:
    """Its last value has an odd length, which PS3.5 7.1.1 forbids, and so has the whole data set."""
    ds = samples.dataset(size=8)
    ds.SOPInstanceUID = UID(samples.uid("odd length"))
    odd = b"\xe1\x7f\x11\x10OB\0\0\x03\0\0\0abc"
    return samples.write(path, ds, body=samples.encoded(ds, "1.2.840.10008.1.2.1") + odd)


def send(installation: Installation, tree: Tree, remote: str, *, code: int) -> dict[str, Any]:
    """`submit store -r --wait`, and the job that comes of it."""
    done = installation.run(
        "submit", "store", remote, tree.folder, "-r", "--wait", "--timeout", 1200, code=code, seconds=1300
    )
    job_id = int(done.stdout)
    sentence = next(line for line in done.stderr.splitlines() if line.startswith(f"job {job_id}:") and "proven" in line)
    assert f"{len(tree.good):,} of {len(tree.good) + tree.failed:,} proven at" in sentence, sentence
    return installation.show(job_id)


def check(installation: Installation, job: dict[str, Any], tree: Tree, arrived: set[str]) -> None:
    """State, counts, and each item's own line; the same UIDs at both ends."""
    assert job["state"] == ("incomplete" if tree.failed else "succeeded")
    assert job["planned"] and job["verified"] == "uids"
    assert job["items"] == {
        "total": len(tree.good) + len(tree.bad),
        "pending": 0,
        "succeeded": len(tree.good),
        "warning": 0,
        "failed": tree.failed,
        "skipped": tree.skipped,
        "cancelled": 0,
    }
    assert (job["expected"], job["received"], job["missing"]) == (
        len(tree.good) + tree.failed,
        len(tree.good),
        tree.failed,
    )
    items = installation.items(job["id"])
    succeeded = [item for item in items if item["state"] == "succeeded"]
    assert {item["sop_instance_uid"] for item in succeeded} == samples.uids(tree.good) == arrived
    assert {item["status"] for item in succeeded} == {"0x0000"}
    listed = {item["path"]: (item["state"], item["reason"]) for item in items if item["state"] != "succeeded"}
    assert listed == {str(path): expected for path, expected in tree.bad.items()}
    for item in items:
        if item["state"] == "failed":
            assert item["advice"], item
    lines = installation.run("jobs", "items", job["id"], "--state", "failed").stdout
    for path, (state, reason) in tree.bad.items():
        if state == "failed":
            assert any(str(path) in line and reason in line for line in lines.splitlines())


@pytest.mark.parametrize("number", [1500, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1500)])])
def test_a_tree_with_everything_goes_to_storescp(
    number: int, install: Install, storescp: StoreScp, tmp_path: Path
) -> None:
    """Exit 1 for what failed; what arrived is byte for byte what lay in the files."""
    installation, record = install()
    tree = plain(tmp_path / "tree", number)
    add_odd_good_ones(tree)
    add_bad_ones(tree)
    with installation.up():
        job = send(installation, tree, f"STORESCP@127.0.0.1:{storescp.port}", code=1)
    received = storescp.received()
    check(installation, job, tree, set(received))
    assert storescp.stores() == len(tree.good)
    for sample in tree.good:
        sent = body(sample.path) + (b"\0" if sample.sop_instance_uid in tree.pad else b"")
        assert body(received[sample.sop_instance_uid]) == sent, sample
    assert_consistent(record)


@on("postgresql")
@pytest.mark.parametrize("number", [1500, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1500)])])
def test_a_tree_with_everything_goes_to_orthanc(
    number: int, database_url: str, install: Install, orthanc: Orthanc, tmp_path: Path
) -> None:
    """An archive writes what it got in its own way; element by element it is the same."""
    installation, record = install(database_url)
    tree = plain(tmp_path / "tree", number)
    add_odd_good_ones(tree)
    add_bad_ones(tree)
    with installation.up():
        job = send(installation, tree, f"ORTHANC@127.0.0.1:{orthanc.port}", code=1)
    check(installation, job, tree, orthanc.instances())
    for sample in [*tree.good[:number:50], *tree.good[number:]]:
        assert_same_object(sample.path, orthanc.dicom(sample.sop_instance_uid))
    assert_consistent(record)


def test_what_is_skipped_never_changes_the_end(install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """Good files beside text, a DICOMDIR and a duplicate: succeeded, exit 0."""
    installation, record = install()
    tree = plain(tmp_path / "tree", 20)
    tree.bad[samples.text_file(tree.folder / "readme.txt")] = ("skipped", "not DICOM")
    tree.bad[samples.dicomdir(tree.folder / "DICOMDIR")] = ("skipped", "DICOMDIR")
    tree.bad[samples.same_again(tree.good[0], tree.folder / "zz.dcm").path] = ("skipped", "duplicate")
    with installation.up():
        job = send(installation, tree, f"STORESCP@127.0.0.1:{storescp.port}", code=0)
    check(installation, job, tree, set(storescp.received()))
    duplicate = next(item for item in installation.items(job["id"]) if item["reason"] == "duplicate")
    assert duplicate["detail"] == f"duplicate of {tree.good[0].path}"
    assert_consistent(record)


def test_nothing_to_send(install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """An empty folder and one of other files: failed, nothing to do. One of bad files: failed, for their reason."""
    installation, record = install()
    (tmp_path / "nothing").mkdir()
    samples.text_file(tmp_path / "text" / "a.txt")
    samples.dicomdir(tmp_path / "text" / "DICOMDIR")
    samples.truncated(tmp_path / "bad" / "truncated.dcm")
    remote = f"STORESCP@127.0.0.1:{storescp.port}"
    with installation.up():
        for name, reason in {"nothing": "nothing to do", "text": "nothing to do", "bad": "truncated"}.items():
            done = installation.run(
                "submit", "store", remote, tmp_path / name, "-r", "--wait", "--timeout", 300, code=1
            )
            job = installation.show(int(done.stdout))
            assert (job["state"], job["reason"]) == ("failed", reason)
    assert storescp.stores() == 0
    assert_consistent(record)


def test_without_recursion_the_folders_inside_are_left_alone(
    install: Install, storescp: StoreScp, tmp_path: Path
) -> None:
    """Of a folder its own files; files given by name are taken as well, once."""
    installation, _ = install()
    tree = samples.make_tree(tmp_path / "tree", 10, name="inside")
    own = samples.mr_instance(tmp_path / "tree" / "own.dcm", study="own")
    named = tree[3]
    with installation.up():
        installation.run(
            "submit", "store", f"STORESCP@127.0.0.1:{storescp.port}", tmp_path / "tree", named.path, own.path,
            "--wait", "--timeout", 300,
        )  # fmt: skip
    assert set(storescp.received()) == samples.uids([own, named])
    assert storescp.stores() == 2


def test_files_that_change_between_plan_and_sending(install: Install, tmp_path: Path) -> None:
    """Looked at again when they are sent: another object is not sent under the old one's name."""
    installation, record = install()
    tree = Tree(tmp_path / "tree", samples.make_tree(tmp_path / "tree", 30, name="changing"))
    other, gone, longer, short, same = tree.good[3], tree.good[7], tree.good[11], tree.good[15], tree.good[19]
    port = free_port()
    with installation.up():
        job = installation.submit("store", f"STORESCP@127.0.0.1:{port}", tree.folder, "-r")
        # Nobody listens there yet, so everything is planned and nothing sent.
        _until_planned(installation, job)
        installation.run("jobs", "hold", job)
        assert installation.wait_job(job)["state"] == "held"
        samples.mr_instance(other.path, study="another")
        gone.path.unlink()
        ds = samples.dataset(StudyDescription="a longer description than before")
        ds.SOPInstanceUID = UID(longer.sop_instance_uid)
        samples.write(longer.path, ds)
        os.truncate(short.path, short.path.stat().st_size - 1000)
        os.utime(same.path)
        with StoreScp(port=port) as peer:
            installation.run("jobs", "release", job)
            ended = installation.wait_job(job)
            received = peer.received()
            for sample in tree.good:
                if sample.sop_instance_uid in received:
                    assert body(received[sample.sop_instance_uid]) == body(sample.path)
    assert ended["state"] == "incomplete"
    bad = {str(other.path): "changed", str(gone.path): "vanished", str(short.path): "truncated"}
    items = installation.items(job)
    assert {item["path"]: item["reason"] for item in items if item["state"] == "failed"} == bad
    expected = samples.uids(tree.good) - samples.uids([other, gone, short])
    assert set(received) == expected == record.uids(job)
    assert_consistent(record)


def _until_planned(installation: Installation, job: int) -> None:
    until(lambda: installation.show(job)["planned"], "it is planned")
    until(lambda: installation.show(job)["reason"] == "unreachable", "it was tried")


def test_what_failed_is_sent_once_it_is_mended(install: Install, storescp: StoreScp, tmp_path: Path) -> None:
    """`jobs retry` takes what failed, in the plan or at the peer, and nothing that arrived."""
    installation, record = install()
    good: Sequence[Sample] = samples.make_tree(tmp_path / "tree", 20, name="mended")
    short = samples.truncated(tmp_path / "tree" / "truncated.dcm")
    cut = samples.mr_instance(tmp_path / "tree" / "cut.dcm", study="cut")
    bytes_of_it = cut.path.read_bytes()
    cut.path.write_bytes(bytes_of_it[:-100])
    (tmp_path / "tree" / "dangling.dcm").symlink_to(tmp_path / "target.dcm")
    with installation.up():
        job = installation.submit("store", f"STORESCP@127.0.0.1:{storescp.port}", tmp_path / "tree", "-r")
        assert installation.wait_job(job)["state"] == "incomplete"
        assert installation.show(job)["items"]["failed"] == 3
        whole = samples.write(short.path, samples._named("truncated"))
        cut.path.write_bytes(bytes_of_it)
        target = samples.mr_instance(tmp_path / "target.dcm", study="target")
        installation.run("jobs", "retry", job)
        assert installation.wait_job(job)["state"] == "succeeded"
    assert set(storescp.received()) == samples.uids([*good, whole, cut, target]) == record.uids(job)
    assert storescp.stores() == 23
    assert_consistent(record, ends=2)
