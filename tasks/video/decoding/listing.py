"""The packets of a file, seen without decoding: time stamps, where decoding can begin, and whether they tell the truth."""

from dataclasses import dataclass, field

import numpy as np

from .contract import NO_TIME
from .file import VideoFile
from .packets import READERS, UNKNOWN, Held

CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
"""Those whose packets are whole pictures and that can be gone through by time stamps."""


@dataclass
class Listing:
    """What the packets say, in the file's order.

    stamps    `(n,)` int64, when each is shown; NO_TIME where it says nothing
    orders    `(n,)` int64, when each is decoded
    shown     `(n,)` pictures that it shows, UNKNOWN where that cannot be seen
    entry     `(n,)` whether decoding can begin with it
    spare     `(n,)` whether no other one needs it
    doubt     why they do not tell how many frames a decoder shows; "" where they do
    """

    stamps: np.ndarray
    orders: np.ndarray
    shown: np.ndarray
    entry: np.ndarray
    spare: np.ndarray
    doubt: str = ""
    container: str = field(default="")

    def places(self, frames: np.ndarray) -> np.ndarray:
        """List where decoding of the frames with these time stamps, which ascend, can begin: `(k, 3)` (frame, pts, dts).

        All that is shown at or after such a place must lie behind it in the file.
        """
        seekable = self.container in CONTAINERS and (self.stamps != NO_TIME).all()
        if not seekable or (
            self.container == "avi" and (self.stamps != self.orders).any()
        ):  # its time stamps are made up
            return np.zeros((0, 3), np.int64)
        latest = np.concatenate([[NO_TIME], np.maximum.accumulate(self.stamps)[:-1]])
        at = np.flatnonzero(self.entry & (latest < self.stamps))
        number = np.searchsorted(frames, self.stamps[at])
        there = number < len(frames)
        there[there] = frames[number[there]] == self.stamps[at][there]
        return np.stack([number, self.stamps[at], self.orders[at]], 1)[there].astype(np.int64)

    def spares(self, frames: np.ndarray) -> np.ndarray:
        """List the numbers of the frames, among those with these time stamps, that no other one needs."""
        return np.flatnonzero(np.isin(frames, self.stamps[self.spare]))

    def frames(self) -> np.ndarray:
        """Return the time stamps of the pictures that are shown, in the order shown."""
        return np.sort(self.stamps[self.shown == 1])


def list_packets(file: VideoFile) -> Listing:
    """Read all packets of a file without decoding, and judge whether they tell the truth."""
    make = READERS.get(file.codec)
    reader = make(file.header, file.size) if make else None
    rows: list[tuple[int, int, int, bool, bool]] = []
    flagged = ""
    for packet in file.packets:
        if packet.dts is None and packet.pts is None and not packet.size:
            continue  # what stands for the end
        held = reader.held(bytes(packet)) if reader and packet.size else Held(UNKNOWN)
        if packet.is_corrupt or packet.is_discard or not packet.size:
            flagged = "a packet is cut, empty or outside the edit list"
        stamp, order = (NO_TIME if s is None else s for s in (packet.pts, packet.dts))
        rows.append((stamp, order, held.shown, held.entry and packet.is_keyframe, held.spare))
    columns = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    stamps, orders, shown, entry, spare = (np.array(c, np.int64) for c in columns)
    listing = Listing(stamps, orders, shown, entry > 0, spare > 0, container=file.container.format.name)
    if reader is None:
        listing.doubt = f"packets of {file.codec} are not read here"
    elif listing.container not in CONTAINERS:
        listing.doubt = f"packets of the container {listing.container} are not read here"
    elif listing.container == "avi" and file.codec in ("h264", "hevc"):
        listing.doubt = "an AVI says when a frame is decoded, not when it is shown"
    else:
        listing.doubt = flagged or _doubt(listing) or reader.doubt(_reordered(listing.stamps))
    return listing


def _doubt(listing: Listing) -> str:
    seen = listing.shown == 1
    frames = listing.stamps[seen]
    if not len(frames):
        return "no packet is known to show a picture"
    if (listing.shown == UNKNOWN).any() or (listing.shown > 1).any():
        return "a packet does not hold exactly one picture"
    if (listing.stamps == NO_TIME).any() or len(np.unique(frames)) < len(frames):
        return "time stamps are missing or doubled"
    if not listing.entry[0] or (frames < frames[0]).any():
        return "it does not begin with a key"
    return ""


def _reordered(stamps: np.ndarray) -> int:
    """Count how many pictures at most lie before another in the file and are shown after it."""
    rank = np.argsort(np.argsort(stamps))  # the place of each in the order shown
    later = 0
    for at in np.flatnonzero(np.maximum.accumulate(rank) > rank):
        before = rank[max(0, at - 64) : at]
        later = max(later, int((before > rank[at]).sum()))
    return later
