"""H.264 and HEVC: which units a packet holds, and what their headers say of the pictures."""

from collections.abc import Iterator
from typing import NamedTuple

START = b"\0\0\1"


class Unit(NamedTuple):
    """The kind of a NAL unit, whether another picture may need it, and the first bytes behind its header."""

    kind: int
    needed: bool
    head: bytes
    whole: bytes


class Broken(Exception):
    """Bytes that are no whole number of units."""


class Bits:
    """Bits of a unit, read from the left. Raises Broken at their end."""

    def __init__(self, data: bytes):
        plain = data.replace(b"\0\0\3", b"\0\0")  # a byte that keeps start codes out of the data
        self.value, self.left = int.from_bytes(plain), 8 * len(plain)

    def take(self, bits: int) -> int:
        """Read an unsigned number of so many bits."""
        if bits > self.left:
            raise Broken
        self.left -= bits
        return (self.value >> self.left) & ((1 << bits) - 1)

    def golomb(self) -> int:
        """Read an unsigned number in Exp-Golomb code (ITU-T H.264, 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise Broken
        return (1 << zeros) - 1 + self.take(zeros)

    def pass_by(self, numbers: int) -> None:
        """Read numbers in Exp-Golomb code that are of no use here."""
        for _ in range(numbers):
            self.golomb()


def split(data: bytes, length: int) -> Iterator[bytes]:
    """Split a packet into units: each behind its length in so many bytes, or, where that is 0, behind a start code.

    Raises Broken where lengths do not add up to the packet.
    """
    if not length:
        yield from (part.rstrip(b"\0") for part in data.split(START)[1:])
        return
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + length])
        at += length
        if not size or at + size > len(data):
            raise Broken
        yield data[at : at + size]
        at += size


def h264_unit(unit: bytes) -> Unit:
    """Read the header of an H.264 unit (ITU-T H.264, 7.3.1)."""
    if not unit or unit[0] & 0x80:
        raise Broken
    return Unit(unit[0] & 31, bool(unit[0] & 0x60), unit[1:9], unit)


def hevc_unit(unit: bytes) -> Unit | None:
    """Read the header of an HEVC unit (ITU-T H.265, 7.3.1.2); None of a layer above the first, which is not shown."""
    if len(unit) < 2 or unit[0] & 0x80:
        raise Broken
    layer = (unit[0] & 1) << 5 | unit[1] >> 3
    return None if layer else Unit((unit[0] >> 1) & 63, True, unit[2:10], unit)


class Sequence(NamedTuple):
    """What an H.264 sequence parameter set says: whether all pictures are whole frames, and by how many they are reordered.

    `reordered` is None where it does not say.
    """

    frames_only: bool
    reordered: int | None


_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def h264_sequence(unit: bytes) -> Sequence:
    """Read a sequence parameter set (ITU-T H.264, 7.3.2.1.1 and E.1.1). Raises Broken where it is cut."""
    bits = Bits(unit[1:])
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.pass_by(2)
        bits.pass_by(bits.golomb())
    bits.golomb()
    bits.take(1)
    bits.pass_by(2)
    frames_only = bool(bits.take(1))
    if not frames_only:
        return Sequence(False, None)
    bits.take(1)
    if bits.take(1):
        bits.pass_by(4)
    return Sequence(True, _reordered(bits) if bits.take(1) else None)


def _skip_chroma(bits: Bits) -> None:
    if bits.golomb() == 3:
        bits.take(1)
        lists = 12
    else:
        lists = 8
    bits.pass_by(2)
    bits.take(1)
    if bits.take(1):
        for number in range(lists):
            if bits.take(1):
                _skip_list(bits, 16 if number < 6 else 64)


def _skip_list(bits: Bits, size: int) -> None:
    last, following = 8, 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1 >> 1 if code & 1 else -(code >> 1))) & 255
        last = following or last


def _reordered(bits: Bits) -> int | None:
    """Read the usability information up to the number of reordered frames."""
    if bits.take(1) and bits.take(8) == 255:
        bits.take(32)
    if bits.take(1):
        bits.take(1)
    if bits.take(1):
        bits.take(4)
        if bits.take(1):
            bits.take(24)
    if bits.take(1):
        bits.pass_by(2)
    if bits.take(1):
        bits.take(65)
    buffers = [_skip_buffer(bits) for _ in range(2) if bits.take(1)]
    if buffers:
        bits.take(1)
    bits.take(1)
    if not bits.take(1):
        return None
    bits.take(1)
    bits.pass_by(4)
    return bits.golomb()


def _skip_buffer(bits: Bits) -> None:
    count = bits.golomb() + 1
    bits.take(8)
    for _ in range(count):
        bits.pass_by(2)
        bits.take(1)
    bits.take(20)
