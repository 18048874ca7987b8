"""What a JPEG's header says, read in a few microseconds: enough to know which decoder gives Pillow's pixels."""

from struct import error, unpack_from
from typing import NamedTuple

_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


class JpegHeader(NamedTuple):
    """Stored width and height in pixels, the EXIF orientation (1..8), and whether the file is `plain`.

    Plain: baseline or progressive, 8 bits, grey or three components, and an orientation that is beyond doubt.
    """

    width: int
    height: int
    orientation: int
    plain: bool


def read_jpeg_header(data: bytes | bytearray) -> JpegHeader | None:
    """Read the header from a JPEG file's bytes; None where they do not reach the first scan."""
    frame = None
    exif: list[int | None] = []
    doubtful = False
    at = 2
    try:
        while True:
            if data[at] != 0xFF:
                return None
            while data[at + 1] == 0xFF:  # fill bytes
                at += 1
            marker = data[at + 1]
            if marker in _BARE:
                at += 2
                continue
            length = unpack_from(">H", data, at + 2)[0]
            if marker in _FRAMES:
                doubtful |= frame is not None
                frame = (marker, *unpack_from(">BHHB", data, at + 4))
            elif marker == 0xE1:
                block = bytes(data[at + 4 : at + 2 + length])
                if block.startswith(b"Exif\0\0"):
                    exif.append(_orientation(block[6:]))
                elif b"tiff:Orientation" in block:
                    doubtful = True
            elif marker == 0xDA:
                break
            elif marker == 0xD9:
                return None
            at += 2 + length
    except (IndexError, error):
        return None
    if frame is None:
        return None
    kind, bits, height, width, components = frame
    turned = exif[0] if exif else 1
    plain = kind in (0xC0, 0xC1, 0xC2) and bits == 8 and components in (1, 3) and width > 0 and height > 0
    return JpegHeader(width, height, turned or 1, plain and not doubtful and len(exif) < 2 and turned is not None)


def _orientation(exif: bytes) -> int | None:
    """Read tag 0x0112 of the first directory (EXIF 2.3, 4.6.2).

    It is 1 where there is none, and None where the block is damaged or the tag is invalid or there twice.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    found = []
    try:
        start = unpack_from(order + "I", exif, 4)[0]
        for entry in range(unpack_from(order + "H", exif, start)[0]):
            tag, kind, count, value = unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == 0x0112:
                found.append(value if (kind, count) == (3, 1) else None)
    except error:
        return None
    if not found:
        return 1
    value = found[0]
    return value if len(found) == 1 and value in range(1, 9) else None
