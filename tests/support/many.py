"""Very many very small instances, made by patching bytes: 100,000 take about ten seconds."""

import io
from pathlib import Path

from pydicom import dcmread

from support import samples

_FIRST = 100_000_000


def tiny_instances(folder: Path, number: int, *, per_folder: int = 1000) -> set[str]:
    """`number` MR instances of about 1 KB in folders of `per_folder`; their SOP Instance UIDs."""
    template, uid = _template()
    made = set()
    for index in range(number):
        if index % per_folder == 0:
            where = folder / f"{index // per_folder:05}"
            where.mkdir(parents=True, exist_ok=True)
        own = uid[:-9] + b"%09d" % (_FIRST + index)
        (where / f"{index:07}.dcm").write_bytes(template.replace(uid, own))
        made.add(own.decode())
    return made


def _template() -> tuple[bytes, bytes]:
    uid = samples.uid("tiny", "instance")
    image = dcmread(
        io.BytesIO(
            samples.instance_bytes("MR", 4, sop=uid, series=samples.uid("tiny", "series"), study=samples.uid("tiny"))
        )
    )
    image.Rows = image.Columns = 4
    image.PixelData = bytes(32)
    written = io.BytesIO()
    image.save_as(written)
    content = written.getvalue()
    assert content.count(uid.encode()) == 2
    return content, uid.encode()
