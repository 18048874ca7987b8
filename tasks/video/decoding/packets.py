"""What a packet holds, seen from its first bytes, without decoding: how many pictures are shown, whether decoding can begin.

A table from codec to reader. Codecs that are not in it are counted by decoding, and decoded from the start.
"""

from collections.abc import Callable
from typing import NamedTuple

from .units import Bits, Broken, Sequence, Unit, h264_sequence, h264_unit, hevc_unit, split


class Held(NamedTuple):
    """What a packet holds.

    shown    pictures that are shown; UNKNOWN where its bytes do not tell
    entry    decoding can begin here: this picture and all that are shown later need none before it
    spare    no other picture needs this one
    """

    shown: int
    entry: bool = False
    spare: bool = False


UNKNOWN = -1
_UNKNOWN = Held(UNKNOWN)


class H264:
    """H.264 (ITU-T H.264): a picture where exactly one of its slices is the first; parameter sets only in the header."""

    def __init__(self, header: bytes, size: tuple[int, int]):
        self.length = (header[4] & 3) + 1 if header[:1] == b"\1" and len(header) > 6 else 0
        self.sets = {unit for unit in _sets(header, self.length) if unit[0] & 31 == 7}
        try:
            self.sequences = [h264_sequence(unit) for unit in self.sets]
        except Broken:
            self.sequences = []

    def doubt(self, reordered: int) -> str:
        """Say why packets do not tell how many frames are shown, where their order differs by so many pictures."""
        said: list[Sequence] = self.sequences
        if not said:
            return "its header holds no parameter set"
        if not all(s.frames_only for s in said):
            return "its pictures may be fields"
        if reordered and not all(s.reordered is not None and s.reordered >= reordered for s in said):
            return "its header does not say how pictures are reordered"
        return ""

    def held(self, packet: bytes) -> Held:
        try:
            units = [h264_unit(unit) for unit in split(packet, self.length)]
        except Broken:
            return _UNKNOWN
        slices = [u for u in units if u.kind in (1, 5)]
        others = any(u.kind in (2, 3, 4) or (u.kind == 7 and u.whole not in self.sets) for u in units)
        if others or sum(bool(u.head and u.head[0] & 0x80) for u in slices) != 1:
            return _UNKNOWN
        return Held(1, slices[0].kind == 5 or any(_recovers(u) for u in units), not any(u.needed for u in slices))


def _recovers(unit: Unit) -> bool:
    """Say whether a unit's first message is a point of recovery that is exact, at once, without a broken link (D.1.8)."""
    return unit.kind == 6 and unit.head[:1] == b"\6" and len(unit.head) > 2 and unit.head[2] & 0xE0 == 0xC0


def _sets(header: bytes, length: int) -> list[bytes]:
    """List the parameter sets of an H.264 header: of an avcC box, or behind start codes."""
    if not length:
        return [u for u in split(header, 0) if u]
    found, at, count = [], 6, header[5] & 31
    for _ in range(count):
        size = int.from_bytes(header[at : at + 2])
        found.append(header[at + 2 : at + 2 + size])
        at += 2 + size
    return [u for u in found if u]


class Hevc:
    """HEVC (ITU-T H.265): as H.264; pictures that are not shown, or take others' place, are left to the decoder."""

    def __init__(self, header: bytes, size: tuple[int, int]):
        self.length = (header[21] & 3) + 1 if header[:1] == b"\1" and len(header) > 23 else 0
        self.sets = {u for u in _arrays(header) if u} if self.length else {u for u in split(header, 0) if u}

    def doubt(self, reordered: int) -> str:
        pictures = [u for u in map(hevc_unit, self.sets) if u and u.kind == 34]
        if not pictures:
            return "its header holds no parameter set"
        return "its pictures may be hidden" if any(_hides(u) for u in pictures) else ""

    def held(self, packet: bytes) -> Held:
        try:
            units = [u for u in map(hevc_unit, split(packet, self.length)) if u]
        except Broken:
            return _UNKNOWN
        slices = [u for u in units if u.kind < 32]
        firsts = sum(bool(u.head and u.head[0] & 0x80) for u in slices)
        drops = any(16 <= u.kind <= 23 and u.head[0] & 0x40 for u in slices if u.head)
        other = any(u.kind in (36, 37) or (32 <= u.kind <= 34 and u.whole not in self.sets) for u in units)
        entry = bool(slices) and all(16 <= u.kind <= 21 for u in slices)
        return Held(UNKNOWN if firsts != 1 or drops or other else 1, entry and firsts == 1)


def _hides(unit: Unit) -> bool:
    """Say whether a picture parameter set allows pictures that are not shown (7.3.2.3)."""
    bits = Bits(unit.head)
    try:
        bits.pass_by(2)
        return bool(bits.take(2) & 1)
    except Broken:
        return True


def _arrays(header: bytes) -> list[bytes]:
    found, at = [], 23
    for _ in range(header[22]):
        count, at = int.from_bytes(header[at + 1 : at + 3]), at + 3
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2])
            found.append(header[at + 2 : at + 2 + size])
            at += 2 + size
    return found


class Plain:
    """A codec of which nothing but the packets has to be seen."""

    def __init__(self, header: bytes, size: tuple[int, int]):
        pass

    def doubt(self, reordered: int) -> str:
        return ""

    def held(self, packet: bytes) -> Held:
        """Take a packet for one picture, as codecs without loss and of studios have it: each on its own."""
        return Held(1, True)


class Mpeg4(Plain):
    """MPEG-4 part 2: one coded I, P or S picture; B pictures may be packed two in a packet, and are counted by decoding."""

    START = b"\0\0\1\xb6"

    def __init__(self, header: bytes, size: tuple[int, int]):
        blocks = -(-size[0] // 16) * -(-size[1] // 16)
        self.least = len(self.START) + 2 + blocks // 8  # a block takes a bit, or the picture is not coded

    def held(self, packet: bytes) -> Held:
        at = packet.find(self.START)
        if at < 0 or packet.find(self.START, at + 4) >= 0 or len(packet) - at < self.least:
            return Held(UNKNOWN)
        kind = packet[at + 4] >> 6
        return Held(UNKNOWN if kind == 2 else 1, kind == 0)


class Jpeg(Plain):
    """Motion JPEG: a whole picture with its own tables, from its start to its end."""

    def __init__(self, header: bytes, size: tuple[int, int]):
        self.with_codes: bool | None = None

    def held(self, packet: bytes) -> Held:
        scan = packet.find(b"\xff\xda")
        if packet[:2] != b"\xff\xd8" or scan < 0 or packet.rstrip(b"\0")[-2:] != b"\xff\xd9":
            return _UNKNOWN
        codes = 0 <= packet.find(b"\xff\xc4") < scan
        self.with_codes = codes if self.with_codes is None else self.with_codes
        return Held(1, 0 <= packet.find(b"\xff\xdb") < scan and codes == self.with_codes)


class Vp8(Plain):
    """VP8 (RFC 6386, 9.1): the first byte says whether a picture is a key, and whether it is shown."""

    def held(self, packet: bytes) -> Held:
        return Held(packet[0] >> 4 & 1, not packet[0] & 1)


class Vp9(Plain):
    """VP9 (bitstream specification, 6.1, 7.2 and annex B): a packet may hold several frames, of which some are hidden."""

    def held(self, packet: bytes) -> Held:
        frames = _vp9_frames(packet)
        if frames is None:
            return _UNKNOWN
        shown, entry = 0, False
        for number, frame in enumerate(frames):
            if frame >> 6 != 2:
                return _UNKNOWN
            bits = frame << (1 if frame & 0x30 == 0x30 else 0)  # profile 3 has a bit more
            again, kind, seen = bits & 8, bits & 4, bits & 2
            shown += bool(again or seen)
            entry |= number == 0 and not again and not kind
        return Held(shown, entry)


def _vp9_frames(packet: bytes) -> list[int] | None:
    """List the first bytes of a packet's frames; None where its index does not fit it."""
    mark = packet[-1]
    if mark & 0xE0 != 0xC0:
        return [packet[0]]
    count, width = (mark & 7) + 1, (mark >> 3 & 3) + 1
    start = len(packet) - 2 - count * width
    if start < 0 or packet[start] != mark:
        return [packet[0]]
    at, found = 0, []
    for number in range(count):
        where = start + 1 + number * width
        size = int.from_bytes(packet[where : where + width], "little")
        if not size or at + size > start:
            return None
        found.append(packet[at])
        at += size
    return found


class Av1(Plain):
    """AV1 (bitstream specification, 5.3 and 5.9): a packet is a temporal unit."""

    def held(self, packet: bytes) -> Held:
        at, shown, entry, sequence = 0, 0, False, False
        while at < len(packet):
            head = packet[at]
            at += 2 if head & 4 else 1
            size, at = _leb128(packet, at) if head & 2 else (len(packet) - at, at)
            kind = head >> 3 & 15
            if at + size > len(packet) or (kind in (1, 3, 6) and not size) or (kind == 1 and packet[at] & 8):
                return _UNKNOWN
            sequence |= kind == 1
            if kind in (3, 6):
                first = packet[at]
                entry |= not shown and sequence and first >> 4 == 1  # a key that is shown
                shown += bool(first & 0x90)
            at += size
        return Held(shown, entry)


def _leb128(packet: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(packet[at : at + 8]):
        value |= (byte & 127) << 7 * number
        if not byte & 128:
            return value, at + number + 1
    return len(packet), at  # too long for any packet


READERS: dict[str, Callable[[bytes, tuple[int, int]], H264 | Hevc | Plain]] = {
    "h264": H264,
    "hevc": Hevc,
    "mpeg4": Mpeg4,
    "mjpeg": Jpeg,
    "vp8": Vp8,
    "vp9": Vp9,
    "av1": Av1,
    **dict.fromkeys(("ffv1", "huffyuv", "ffvhuff", "png", "prores", "rawvideo"), Plain),
}
