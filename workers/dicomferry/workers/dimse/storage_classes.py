"""Which storage classes and transfer syntaxes to propose where an archive does not say what it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dicomferry.workers.dimse.wire.contexts import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE

SYNTAXES = (
    EXPLICIT_LE,
    IMPLICIT_LE,
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    DEFLATED_LE,
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, any selection value
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264 High Profile / Level 4.1
    "1.2.840.10008.1.2.4.201",  # HTJ2K, lossless only
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile / Main Level
    "1.2.840.10008.1.2.4.202",  # HTJ2K with RPCL, lossless only
)
"""What is proposed of each class, as far as there is room: what archives keep most, first."""

_ROOT = "1.2.840.10008.5.1.4.1.1"
CLASSES = tuple(
    f"{_ROOT}.{last}"
    for last in (
        "2", "4", "7", "1.1", "1", "6.1", "12.1", "3.1", "1.2", "2.1", "4.1", "20", "128", "88.67", "88.22", "88.33",
        "11.1", "104.1", "77.1.4", "481.1", "481.2", "481.3", "481.5", "66.4", "66", "12.2", "1.3", "77.1.1",
        "88.59", "13.1.3",
    )
)  # fmt: skip
"""Storage classes to propose where nobody knows what there is."""
RARER = tuple(
    f"{_ROOT}.{last}"
    for last in (
        "9.1.1", "9.1.2", "9.1.3", "9.2.1", "9.3.1", "9.4.1", "88.11", "88.34", "88.40", "88.65", "130", "2.2", "4.2",
        "4.3", "6.2", "12.1.1", "12.2.1", "13.1.1", "13.1.2", "67", "66.1", "66.2", "66.3", "66.5", "77.1.2", "77.1.6",
        "77.1.5.1", "77.1.5.4", "104.2", "104.3", "11.2", "481.4", "481.8",
    )
)  # fmt: skip
"""Storage classes that are proposed from the second association on."""
WITHOUT_PIXELS = frozenset(
    f"{_ROOT}.{last}" for last in ("88.67", "88.22", "88.33", "88.59", "11.1", "104.1", "481.3", "481.5", "66")
)
"""What has no pixels, so that nobody compresses it."""

_OF_MODALITY: dict[str, str] = {
    "CR": "1 1.1 7", "DX": "1.1 1.1.1 1 7", "IO": "1.3 1.3.1 7", "PX": "1.1 1 7",
    "MG": "1.2 1.2.1 13.1.3 13.1.4 13.1.5 7", "RG": "1 1.1 7", "CT": "2 2.1 2.2 7 7.4",
    "MR": "4 4.1 4.2 4.3 7 7.4 66", "PT": "128 130 128.1 7", "NM": "20 7", "US": "6.1 3.1 6.2 7 6 3 7.2 7.4",
    "IVUS": "6.1 3.1 7", "XA": "12.1 12.1.1 13.1.1 7", "RF": "12.2 12.2.1 7 7.2 7.4", "ES": "77.1.1 77.1.1.1 7 7.4",
    "GM": "77.1.2 77.1.2.1 7", "SM": "77.1.3 77.1.6 7", "XC": "77.1.4 77.1.4.1 7 7.4", "OP": "77.1.5.1 77.1.5.2 7",
    "OPT": "77.1.5.4 7", "OCT": "14.1 14.2 7", "OAM": "78.7", "OT": "7 7.1 7.2 7.3 7.4 104.1",
    "SC": "7 7.1 7.2 7.3 7.4", "DOC": "104.1 104.2 7",
    "SR": "88.11 88.22 88.33 88.34 88.35 88.40 88.50 88.65 88.67 88.69 88.71", "KO": "88.59",
    "PR": "11.1 11.2 11.3 11.4 11.5", "SEG": "66.4 66.5", "REG": "66.1 66.3", "FID": "66.2", "RWV": "67",
    "RTIMAGE": "481.1", "RTDOSE": "481.2", "RTSTRUCT": "481.3", "RTPLAN": "481.5 481.8",
    "RTRECORD": "481.4 481.6 481.7 481.9", "ECG": "9.1.1 9.1.2 9.1.3 104.1 7", "HD": "9.2.1 9.1.1 9.1.2",
    "EPS": "9.3.1", "AU": "9.4.1 9.4.2", "RESP": "9.6.1", "PLAN": "481.5 481.8", "M3D": "104.3 104.4 104.5",
}  # fmt: skip
"""Modality (PS3.3 C.7.3.1.1.1) -> what its series consist of (PS3.4 B.5), the commonest first."""


def of_modalities(modalities: Iterable[str]) -> list[str] | None:
    """The classes of which series of these modalities consist; None where nothing is known of one of them."""
    found: dict[str, None] = {}
    for modality in modalities:
        if modality not in _OF_MODALITY:
            return None
        found.update(dict.fromkeys(f"{_ROOT}.{last}" for last in _OF_MODALITY[modality].split()))
    return list(found) or None
