"""What annotation files say of long videos: their events, with classes and bounds in seconds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trunkline.ground.errors import DataError
from trunkline.ground.names import nearest

from ..data.repairs import Repairs

MOST = 20  # problems that are listed
NEAR = 0.02  # of a video's length, and a second at least: an end that lies so far behind the video's is cut to it


@dataclass(frozen=True)
class Event:
    """What happens from `start` to `end`, in seconds; `score` is a detector's, `where` the file and place that say it."""

    start: float
    end: float
    label: str
    score: float = 0.0
    where: str = ""


@dataclass
class Video:
    """A video by its name, with its events.

    ambiguous  parts of which nobody can say what happens there (THUMOS): start and end in seconds
    duration   in seconds, and `rate` frames a second; 0: not said
    group      what its table says it belongs to; None where nothing says it
    """

    name: str
    events: list[Event] = field(default_factory=list)
    ambiguous: list[tuple[float, float]] = field(default_factory=list)
    duration: float = 0.0
    rate: float = 0.0
    group: str | None = None


@dataclass
class Annotated:
    """The videos of one split, by name, and what is to be said of them.

    `file` is what says them, `problems` are lines, `classes` those that are declared, in their order (None: none are).
    """

    file: str
    videos: dict[str, Video] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def video(self, name: str) -> Video:
        """Return the video of a name, made where it was not there."""
        return self.videos.setdefault(name, Video(name))


def seconds(value: object) -> float:
    """Read a time in seconds. Raises ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r}: expected seconds")
    try:
        found = float(value) if "_" not in str(value) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{value!r}: expected seconds")
    return found


def bounded(found: Annotated, skip: bool) -> list[str]:
    """Check the bounds of all events; cut ends that lie a little behind their video's. Return the problems, a line each.

    With `skip` events that cannot be used are left out, counted in the notes.
    """
    repairs, problems, left_out, doubled = Repairs(found.file), [], 0, 0
    for video in found.videos.values():
        kept = []
        for event in video.events:
            wrong, end = _wrong(event, video.duration), event.end
            if wrong and skip:
                left_out += 1
                continue
            if wrong:
                problems.append(f"{event.where}: {wrong}")
                continue
            if video.duration and end > video.duration:
                repairs.add("ends behind the video's cut to it", "event")
                end = video.duration
            kept.append(Event(event.start, end, event.label, event.score, event.where))
        again = len(kept) - len({(e.label, e.start, e.end) for e in kept})
        doubled += again
        for start, end in video.ambiguous:
            if not start < end:
                problems.append(
                    f"{found.file}: {video.name}: an ambiguous part from {start:g} to {end:g} s: ends before it starts"
                )
        video.events = kept
    if left_out:
        found.notes.append(f"{found.file}: on_bad_event=skip leaves out {left_out} events that cannot be used")
    if doubled:
        found.notes.append(
            f"{found.file}: {doubled} events stand there twice, with the same class and bounds: each counts"
        )
    found.notes += repairs.lines()
    return problems


def _wrong(event: Event, duration: float) -> str:
    """Say why an event's bounds cannot be used; "" where they can."""
    said = f"{event.label} from {event.start:g} to {event.end:g} s"
    if not event.label:
        return f"an event from {event.start:g} to {event.end:g} s has no class"
    if event.end <= event.start:
        return f"{said}: ends before it starts" if event.end < event.start else f"{said}: has no length"
    if event.start < 0:
        return f"{said}: starts before the video"
    if duration and (event.start >= duration or event.end > duration + max(1.0, NEAR * duration)):
        return f"{said}: lies outside the video, which is {duration:g} s long"
    return ""


def outside(video: Video, end: float) -> list[str]:
    """List the events that lie behind the end of a video's features, where nothing else says how long it is."""
    if video.duration:
        return []
    return [f"{e.where}: {wrong}" for e in video.events if (wrong := _wrong(e, end))]


def unlisted(found: Annotated, classes: Sequence[str], where: str) -> list[str]:
    """List the classes of events that `where` has not, each once, at its first place."""
    first: dict[str, str] = {}
    for video in found.videos.values():
        for event in video.events:
            if event.label and event.label not in classes:
                first.setdefault(event.label, event.where)
    return [f"{at}: {label!r}: no class of {where}{nearest(label, classes)}" for label, at in first.items()]


def classes_of(splits: Iterable[Annotated]) -> tuple[str, ...]:
    """Return the classes that are declared, else the sorted ones of all events."""
    splits = list(splits)
    if declared := next((one.classes for one in splits if one.classes is not None), None):
        return declared
    return tuple(sorted({event.label for one in splits for video in one.videos.values() for event in video.events}))


def stop(problems: list[str]) -> None:
    """Raise DataError with the problems, if there are any."""
    if problems:
        more = [f"… and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise DataError("\n".join([*problems[:MOST], *more]))
