"""Make the index of a file: from its packets where these tell the truth, else by decoding all of it once."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

from trunkline.ground.errors import DataError

from .contract import NO_TIME, Index
from .file import RECODE, Failure, VideoFile, turn_of
from .listing import Listing, list_packets


def make_index(file: VideoFile) -> Index:
    """Make the index of a file that was just opened. Raises DataError where no frame of it decodes.

    Packets are believed only if the first frame that they promise is the first that comes, and undamaged.
    """
    listing = list_packets(file)
    if listing.doubt:
        return count(file, listing, listing.doubt)
    file.reopen("NONE")
    first = _first(file)
    stamps = listing.frames()
    if first is None or first.is_corrupt or first.pts != stamps[0]:
        return count(file, listing, "the first frame is not the one that packets promise")
    return replace(_index(file, listing, stamps, first), spare=listing.spares(stamps))


def recount(file: VideoFile, why: str) -> Index:
    """Make the index by decoding, whatever packets say."""
    file.reopen("NONE")
    return count(file, list_packets(file), why)


def count(file: VideoFile, listing: Listing, why: str) -> Index:
    """Decode all frames of a file and make its index of what came; packets that fail are passed over, and said."""
    file.reopen("NONE")
    stamps: list[int] = []
    failed: list[str] = []
    first, corrupt, number = None, 0, 0
    for packet in file.packets:
        number += bool(packet.size)
        try:
            frames = file.decode(packet)
        except Failure as error:
            failed.append(f"packet {number}: {error.strerror or error}")
            continue
        for frame in frames:
            first = first or frame
            corrupt += frame.is_corrupt
            stamps.append(NO_TIME if frame.pts is None else frame.pts)
    if first is None:
        what = f"none of its {number} packets decodes ({failed[0]})" if failed else "it holds no frame"
        raise DataError(f"{file.name}: {what}; the file is damaged or cut off: leave it out. {RECODE}")
    found = _index(file, listing, np.array(stamps, np.int64), first)
    remarks = [*found.remarks, *_damage(failed, corrupt, len(stamps), number)]
    return replace(found, counted=why, damaged=bool(failed or corrupt), remarks=tuple(remarks))


def _damage(failed: list[str], corrupt: int, frames: int, packets: int) -> list[str]:
    lines = []
    if failed:
        some = f"{len(failed)} of {packets} packets {'do' if len(failed) > 1 else 'does'} not decode (the first, {failed[0]})"
        lines.append(f"{some}: {frames} frames are there, and are numbered without those that are lost")
    if corrupt:
        lines.append(
            f"{corrupt} of {frames} frames decode{'' if corrupt > 1 else 's'} only in part: FFmpeg made up the rest"
        )
    return lines


def _first(file: VideoFile) -> VideoFrame | None:
    """Decode until a first frame comes; None where a packet fails before."""
    try:
        for packet in file.packets:
            for frame in file.decode(packet):
                return frame
    except Failure:
        return None
    return None


def _index(file: VideoFile, listing: Listing, stamps: np.ndarray, first: VideoFrame) -> Index:
    turn, askew = turn_of(first)
    height, width = (first.width, first.height) if turn.swap else (first.height, first.width)
    base = file.stream.time_base or Fraction(1)
    none = np.zeros(0, np.int64)
    index = Index(stamps, none.reshape(0, 3), none, base, Fraction(1), height, width, turn, file.stream.frames or 0)
    index = replace(index, rate=_rate(file, index))
    if index.in_order:
        index = replace(index, places=listing.places(stamps))
    packets = len(listing.stamps)
    cut = f"its container says {index.stated} frames, and packets of {packets} are there: it is cut off"
    disorder = "time stamps are missing or go backwards: the times of its frames are their numbers divided by the rate"
    lines = (file.choice(), askew, cut if packets < index.stated else "", "" if index.in_order else disorder)
    return replace(index, remarks=tuple(line for line in lines if line))


def _rate(file: VideoFile, index: Index) -> Fraction:
    """Return the container's average rate where the frames' times agree with it to a hundredth, else what these say."""
    said = Fraction(file.stream.average_rate or file.stream.guessed_rate or 25)
    if len(index) < 2 or not index.in_order:
        return said
    span = int(index.stamps[-1] - index.stamps[0]) * index.base
    own = (len(index) - 1) / span
    return said if abs(own / said - 1) <= Fraction(1, 100) else own.limit_denominator(100_000)
