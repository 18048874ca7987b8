"""A look at a whole set of long videos: annotations, and the features that they name, read from end to end."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trunkline.ground.errors import DataError

from ..checked import NONE, SAMPLE, Check
from ..data.file_loaders import run_in_order
from .options import Options
from .reading import read_events, read_whole
from .samples import EventSamples

ALL = "all"  # what is not split


class _Facts(NamedTuple):
    problem: str = ""
    steps: int = 0
    channels: int = 0
    seconds: float = 0.0
    digest: bytes = b""


def check_events(
    root: str | os.PathLike[str],
    form: str = "auto",
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check the events of a folder, and read the features of every video. `counts` are events by split and class.

    Problems: what the reader refuses, features that cannot be read, are of another length than their video, of another width than
    the others, or hold numbers that are not finite. Oddities: events that overlap others of their class, videos without events,
    groups on both sides of the split. Features with the same bytes are listed too.
    """
    result = Check(os.fspath(root), counted="events")
    plain = Options(data=os.fspath(root), format=form, on_bad_sample="skip", **options)  # type: ignore[arg-type]
    try:
        splits = _splits(plain, classes)
    except DataError as error:
        result.problems += [{"file": ".", "what": line.strip()} for line in str(error).splitlines()]
        splits = {}
    videos = [(split, samples, i) for split, samples in splits.items() for i in range(len(samples))]
    for split, samples in splits.items():
        counts = Counter(event.label for video in samples.videos for event in video.events)
        result.counts[split] = {name: counts[name] for name in samples.classes}
        result.oddities += [{"file": split, "what": what} for what in samples.remarks()]
        for name, what in samples.excluded.items():
            result.problem(name, what, SAMPLE)
        for video in samples.videos:
            result.oddities += [{"file": video.name, "what": what} for what in _odd(video)]
    read = partial(_examine, [(samples, i) for _, samples, i in videos])
    facts = run_in_order(read, _Facts, len(videos), loaders, "reading", progress)
    _tell(result, videos, facts)
    result.compare_groups(splits, plain.group)
    result.files = len(videos)
    return result


def _splits(options: Options, classes: Sequence[str] | None) -> dict[str, EventSamples]:
    """Read the splits that are there; a set without any is looked at as one."""
    try:
        return read_events(options, classes)
    except DataError:
        return {ALL: read_whole(options, classes)}


def _odd(video: Any) -> list[str]:
    if not video.events:
        return ["has no events"]
    by_class: dict[str, list[Any]] = defaultdict(list)
    for event in sorted(video.events, key=lambda e: (e.start, e.end)):
        by_class[event.label].append(event)
    pairs = [(a, b) for own in by_class.values() for a, b in pairwise(own) if b.start < a.end]
    return [f"{a.label} from {a.start:g} to {a.end:g} s and from {b.start:g} to {b.end:g} s overlap" for a, b in pairs]


def _examine(videos: Sequence[tuple[EventSamples, int]], number: int) -> _Facts:
    samples, i = videos[number]
    try:
        steps = samples.steps(i)
        if not np.isfinite(steps.array).all():
            return _Facts(f"{samples.source(i)}: holds numbers that are not finite")
    except DataError as error:
        return _Facts(str(error))
    digest = hashlib.blake2b(Path(samples.source(i)).read_bytes(), digest_size=16).digest()
    count, channels = steps.array.shape
    return _Facts("", count, channels, float(steps.clock.times[-1]), digest)


def _tell(result: Check, videos: Sequence[tuple[str, EventSamples, int]], facts: Sequence[_Facts]) -> None:
    good = [fact for fact in facts if not fact.problem]
    width = Counter(fact.channels for fact in good).most_common(1)[0][0] if good else 0
    if good:
        for name, values in (("steps", [f.steps for f in good]), ("seconds", [f.seconds for f in good])):
            result.sizes[name] = (min(values), float(np.median(values)), max(values))
        result.formats = {f"{width} channels": sum(f.channels == width for f in good)}
    same: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for (split, samples, i), fact in zip(videos, facts, strict=True):
        wrong = fact.problem or (f"has {fact.channels} channels, most have {width}" if fact.channels != width else "")
        if wrong:
            result.problem(samples.id(i), wrong, SAMPLE)
            continue
        same[fact.digest].append((split, samples.id(i)))
    result.compare(same)
