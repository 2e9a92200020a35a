"""The data set of a file in another transfer syntax, always on a copy.

Only a peer that takes nothing else needs this, so pydicom parses and writes. Values pass through as bytes and are
never decoded: what a person typed, or a device wrote against its VR's rules, arrives as it was. Between Implicit
and Explicit VR Little Endian values have the same bytes; of big endian ones the words are turned (PS3.5 7.3).
"""

from __future__ import annotations

import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dicomferry.models.rules.errors import UnusableFile
from dicomferry.models.rules.reason import Reason
from dicomferry.workers.files.elements import HEADER_SIZES, UNDEFINED, BadElement, DataEnded, describe, walk
from dicomferry.workers.files.part10 import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, UNCOMPRESSED, Header

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder

IN_MEMORY = 32 << 20
"""Bytes of a data set that stay in memory; a longer one goes to a temporary file."""

_TARGETS = (IMPLICIT_LE, EXPLICIT_LE)
_TWO, _FOUR, _EIGHT = ("AT", "OW", "SS", "US"), ("FL", "OF", "OL", "SL", "UL"), ("FD", "OD", "OV", "SV", "UV")
_WORDS = {vr: size for size, vrs in ((2, _TWO), (4, _FOUR), (8, _EIGHT)) for vr in vrs}
_PIXEL_REPRESENTATION = 0x00280103
_PIXEL_DATA = 0x7FE00010
# Where frames begin and end among fragments (PS3.3 C.7.6.3): without these, no meaning.
_OF_FRAGMENTS = (0x7FE00001, 0x7FE00002, 0x7FE00003)
_LOSSY_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


def reencode(path: bytes | int, header: Header, target: str, *, in_memory: int = IN_MEMORY) -> BinaryIO:
    """The file's data set, without meta group, in `target`: Implicit or Explicit VR Little Endian.

    `path` may be an open descriptor, which stays open: its file is read even if another one has taken the path since.

    The source may be in any uncompressed syntax. Every value stays as it is; group lengths go (retired, PS3.5
    7.2), and private elements without a known VR become UN (PS3.5 6.2.2). Returns a file at position 0 that the
    caller closes. Raises UnusableFile "not transcodable" with pydicom's own words; OSError.
    """
    _check_target(target)
    if header.transfer_syntax_uid not in UNCOMPRESSED:
        raise UnusableFile(
            Reason.NOT_TRANSCODABLE, f"{header.transfer_syntax_uid} is compressed; only --transcode decompresses"
        )
    with _explained(target), open(path, "rb", closefd=not isinstance(path, int)) as file:
        file.seek(header.data_offset)
        return _written(_parsed(file, header.transfer_syntax_uid, target, in_memory), target, in_memory)


def decompress(path: bytes | int, header: Header, target: str = EXPLICIT_LE, *, in_memory: int = IN_MEMORY) -> BinaryIO:
    """The file's data set with its pixel data decompressed, in `target`; else as `reencode`.

    The SOP Instance UID stays: what was asked for is this instance at the peer. So does what the data set says of
    lossy compression, which no decompression undoes. Memory holds the compressed object and one frame; the rest
    goes to temporary files. Raises UnusableFile "no decoder" where one exists but is not installed, "not
    transcodable"; OSError.
    """
    _check_target(target)
    syntax = header.transfer_syntax_uid
    if syntax in UNCOMPRESSED:
        return reencode(path, header, target, in_memory=in_memory)
    with _explained(target), open(path, "rb", closefd=not isinstance(path, int)) as file, ExitStack() as pixels:
        decoder = _decoder(syntax)
        file.seek(header.data_offset)
        # Every compressed syntax is Explicit VR Little Endian around its pixels (PS3.5 A.4).
        data_set = _parsed(file, EXPLICIT_LE, EXPLICIT_LE, in_memory)
        for item in _items(data_set):
            # Icons may be compressed or not, which their length tells (PS3.5 A.4).
            own = item._dict.get(BaseTag(_PIXEL_DATA))
            if isinstance(own, RawDataElement) and own.length == UNDEFINED:
                _unpack(item, decoder, pixels)
        explicit = _written(data_set, EXPLICIT_LE, in_memory)
        if target == EXPLICIT_LE:
            return explicit
        with explicit:
            return _written(_parsed(explicit, EXPLICIT_LE, target, in_memory), target, in_memory)


def obstacle(syntax: str) -> UnusableFile | None:
    """What keeps files of a compressed syntax from being decompressed here; None where nothing does."""
    try:
        _decoder(syntax)
    except UnusableFile as error:
        return error
    return None


def _decoder(syntax: str) -> Decoder:
    """What decompresses this syntax; raises UnusableFile."""
    from pydicom.pixels import get_decoder

    name = UID(syntax, 0).name
    try:
        decoder = get_decoder(UID(syntax, 0))
    except NotImplementedError:
        raise UnusableFile(Reason.NOT_TRANSCODABLE, f"{name} cannot be decompressed here") from None
    if not (decoder.is_available and find_spec("numpy")):
        lacking = "; ".join(decoder.missing_dependencies) or "numpy"
        raise UnusableFile(Reason.NO_DECODER, f"nothing is installed that decompresses {name} ({lacking})")
    return decoder


def _items(data_set: Dataset) -> Iterator[Dataset]:
    """The data set itself and the items of its sequences, however deep."""
    yield data_set
    for tag, element in list(data_set._dict.items()):
        if element.VR == "SQ":
            for item in cast(Any, data_set[tag].value):
                yield from _items(item)


def _unpack(item: Dataset, decoder: Decoder, files: ExitStack) -> None:
    """Put uncompressed pixels in the place of the compressed ones; `files` closes what they lie in meanwhile."""
    spool = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    number = 0
    image: Mapping[str, Any] = {}
    # Without need colours are left as they are: turning YCbCr into RGB rounds.
    for frame, image in decoder.iter_array(item, as_rgb=decoder.UID in _LOSSY_JPEG):  # noqa: B007
        number += 1
        spool.write(frame.tobytes())
    if spool.tell() % 2:
        spool.write(b"\0")
    if not number or spool.tell() >= UNDEFINED:
        raise ValueError(f"{number} frames of {spool.tell()} bytes in all")
    spool.seek(0)
    for tag in _OF_FRAGMENTS:
        item._dict.pop(BaseTag(tag), None)
    item.add(DataElement(_PIXEL_DATA, "OB" if item.BitsAllocated <= 8 else "OW", spool))
    item.PhotometricInterpretation = image["photometric_interpretation"]
    if image["samples_per_pixel"] > 1:
        item.PlanarConfiguration = image["planar_configuration"]


def _check_target(target: str) -> None:
    if target not in _TARGETS:
        raise ValueError(f"{target} is no target of re-encoding")


@contextmanager
def _explained(target: str) -> Iterator[None]:
    """Any way in which pydicom fails on a file, as our one error. Its warnings are about values: not ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, UnusableFile, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnusableFile(Reason.NOT_TRANSCODABLE, f"cannot be written in {target}: {words}") from error


def _parsed(file: BinaryIO, syntax: str, target: str, in_memory: int) -> Dataset:
    """The data set at the file's position, with raw values and the VRs under which `target` may have them."""
    big = syntax == EXPLICIT_BE
    top = read_dataset(_inflated(file, in_memory) if syntax == DEFLATED_LE else file, syntax == IMPLICIT_LE, not big)
    waiting = [(top, b"")]
    while waiting:
        data_set, representation = waiting.pop()
        # Into pydicom's own dictionary: its setter decodes private elements on the way.
        elements = data_set._dict
        own = elements.get(BaseTag(_PIXEL_REPRESENTATION))
        if isinstance(own, RawDataElement) and own.value:
            representation = _turned(own.value, 2) if big else own.value
        for tag, element in list(elements.items()):
            if isinstance(element, RawDataElement):
                vr = _vr(tag, element.VR, representation)
                value = element.value or b""
                # pydicom goes on past damage without a word; what it lost would be lost at the peer.
                if element.length not in (len(value), UNDEFINED):
                    raise ValueError(f"{describe(tag)} ends after {len(value)} of {element.length} bytes")
                if vr == "SQ":
                    _check_items(tag, value, element.is_implicit_VR, big)
                if big and vr in _WORDS:
                    value = _turned(value, _WORDS[vr])
                elements[tag] = element = element._replace(VR=vr, value=value)
            if element.VR == "SQ":
                waiting.extend((item, representation) for item in cast(Any, data_set[tag].value))
        # Said to be in the target's encoding already, or pydicom would decode each value to encode it again.
        data_set.set_original_encoding(target == IMPLICIT_LE, True, data_set._character_set)
    return top


def _check_items(tag: BaseTag, value: bytes, implicit: bool, big: bool) -> None:
    """Raise ValueError unless a sequence's value is made of items from end to end."""
    framed = value + struct.pack(">HHI" if big else "<HHI", 0xFFFE, 0xE0DD, 0)
    size = len(framed)
    try:
        end = walk(framed, 0, lambda pos: framed[pos:], 0, size=size, implicit=implicit, big=big, inside=True)
    except (DataEnded, BadElement):
        end = -1
    if end != size:
        raise ValueError(f"{describe(tag)} is not made of items")


def _vr(tag: BaseTag, vr: str | None, pixel_representation: bytes) -> str:
    """The VR to write: the element's own, else the dictionary's, else UN, which is never wrong."""
    if vr is not None:
        return vr if int.from_bytes(vr.encode("latin-1"), "little") in HEADER_SIZES[False] else "UN"
    if tag.element == 0:
        return "UL"
    if tag.is_private:
        return "LO" if tag.is_private_creator else "UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if " " not in vr:
        return vr
    # OW is lawful wherever it may be chosen; US or SS goes by (0028,0103).
    if "OW" in vr:
        return "OW"
    return "SS" if pixel_representation[:1] == b"\1" else "US"


def _inflated(file: BinaryIO, in_memory: int) -> BinaryIO:
    """What a raw deflate stream holds, in a file of its own."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = _spool(in_memory)
    while block := file.read(1 << 16):
        while block:
            inflated.write(inflater.decompress(block, 1 << 20))
            block = inflater.unconsumed_tail
    inflated.write(inflater.flush())
    inflated.seek(0)
    return inflated


def _turned(value: bytes, width: int) -> bytes:
    """`value` with the bytes of each word of `width` bytes reversed; an odd rest stays as it is."""
    whole = len(value) // width * width
    turned = bytearray(value)
    for place in range(width):
        turned[place:whole:width] = value[width - 1 - place : whole : width]
    return bytes(turned)


def _written(data_set: Dataset, target: str, in_memory: int) -> BinaryIO:
    spool = _spool(in_memory)
    try:
        out = DicomIO(spool)
        out.is_implicit_VR = target == IMPLICIT_LE
        out.is_little_endian = True
        write_dataset(out, data_set)
        spool.seek(0)
        return spool
    except BaseException:
        spool.close()
        raise


def _spool(in_memory: int) -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=in_memory))
