"""Every example of docs/scu.md, run as it is printed, against Orthanc in the place of dicom.example.com."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import samples
from support.peers import Orthanc
from support.process import LOOPBACK, free_port

DOCS = Path(__file__).parents[2] / "docs" / "scu.md"
EXAMPLES = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("dicomferry scu ")]
HOST = re.compile(r"dicom\.example\.com(?: -p)?(?: \d+)?")


@pytest.fixture(scope="module")
def port_scp() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(port_scp: int) -> Iterator[Orthanc]:
    """It holds one image of one patient, and knows where ACME1 is."""
    with Orthanc(modalities={"ACME1": port_scp}) as server:
        image = samples.dataset(size=8, PatientID="ABCD1234", PatientName="Alpha^Jérôme")
        image.SOPInstanceUID = samples.uid("scu", "example")
        server.upload(samples.write(server.folder / "image.dcm", image).path.read_bytes())
        yield server


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_the_page_runs(line: str, server: Orthanc, port_scp: int, tmp_path: Path) -> None:
    """Exit 0; a find finds, a move brings the file, a query file is written."""
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    for number, name in enumerate(("myfile", "myfile1", "myfile2", "myfile3", "folder/deeper/a")):
        image = samples.dataset(size=8)
        image.SOPInstanceUID = samples.uid("scu", "sent", number)
        samples.write(tmp_path / f"{name}.dcm", image)
    own = LOOPBACK + (" -p" if " -p " in line else "") + f" {server.port}"
    command = HOST.sub(own, line).replace("--port-scp 1234", f"--port-scp {port_scp}")
    program = f'dicomferry() {{ {shlex.quote(sys.executable)} -m dicomferry.cli.main "$@"; }}; {command}'
    environment = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    shell = ["sh", "-c", program]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    if "--find" in line and "8,18=" not in line:
        assert done.stdout.startswith("Find Response: 1\n") and "Alpha^Jérôme" in done.stdout
    assert (tmp_path / "query.dcm").exists() == ("--store-query" in line)
    if "--move" in line:
        assert (tmp_path / f"{samples.uid('scu', 'example')}.dcm").exists()


def test_the_page_has_the_examples_of_every_operation() -> None:
    """Those of gdcmscu's manual page, one and all."""
    assert len(EXAMPLES) >= 15
    assert all(any(f"--{mode} " in line for line in EXAMPLES) for mode in ("echo", "store", "find", "move"))
