"""A look at a whole folder of clips: each is decoded from its first frame to its last."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trunkline.ground.errors import DataError

from ..checked import NONE, SAMPLE, Check
from ..data.file_loaders import run_in_order
from .decoding.looking import every_frame
from .decoding.video import open_video
from .options import Options
from .reading import read_clip_splits, read_whole_clips
from .samples import ClipSamples

ALL = "all"  # what is not split
SHORT = 8  # frames; a clip with fewer is odd
_STILL = 1  # grey level: a clip whose frames differ by no more is a still


class _Facts(NamedTuple):
    problem: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    size: int = 0
    kind: str = ""
    digest: bytes = b""
    odd: tuple[str, ...] = ()


def check_clips(
    root: str | os.PathLike[str],
    form: str = "auto",
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check every clip of class folders, of a table, or of published lists. `counts` are clips by split and class.

    Problems: files that cannot be read, that hold no frame, and a layout that does not fit. Oddities: another number of frames
    than the container says, frames that are damaged, very short clips, clips in which nothing moves, clips that belong
    to one group on both sides of the split. Files with the same bytes are listed too.
    """
    result = Check(os.fspath(root), counted="clips")
    plain = Options(data=os.fspath(root), format=form, on_bad_sample="skip", **options)  # type: ignore[arg-type]
    try:
        splits = _splits(plain, classes)
    except DataError as error:
        result.problems += [{"file": ".", "what": line.strip()} for line in str(error).splitlines()]
        splits = {}
    clips = [(split, samples, i) for split, samples in splits.items() for i in range(len(samples))]
    for split, samples in splits.items():
        counts = np.bincount(samples.labels, minlength=len(samples.classes)).tolist()
        result.counts[split] = dict(zip(samples.classes, counts, strict=True))
        result.oddities += [{"file": split, "what": what} for what in samples.remarks()]
        for name, what in samples.excluded.items():
            result.problem(name, what, SAMPLE)
    sources = [(samples.id(i), os.fspath(samples.source(i))) for _, samples, i in clips]
    facts = run_in_order(partial(_examine, sources), _Facts, len(clips), loaders, "decoding", progress)
    _tell(result, clips, facts)
    result.compare_groups(splits, plain.group)
    result.files = len(clips)
    return result


def _splits(options: Options, classes: Sequence[str] | None) -> dict[str, ClipSamples]:
    """Read the splits that are there; a set without any is looked at as one."""
    try:
        return read_clip_splits(options, classes)
    except DataError:
        if options.format not in ("auto", "folders", "csv"):
            raise
        return {ALL: read_whole_clips(options, classes)}


def _examine(sources: Sequence[tuple[str, str]], number: int) -> _Facts:
    _, address = sources[number]
    try:
        with open_video(address, cache=False) as video:
            lowest = highest = None
            count = 0
            for frame in every_frame(video):
                if frame is None:
                    lowest, highest, count = None, None, 0
                    continue
                grey = frame.mean(2)
                lowest = grey if lowest is None else np.minimum(lowest, grey)
                highest = grey if highest is None else np.maximum(highest, grey)
                count += 1
            moves = highest is not None and lowest is not None and float((highest - lowest).max()) > _STILL
            odd = [*video.remarks, *_odd(count, moves, video.stated)]
            return _Facts("", video.width, video.height, count, *_stored(address), tuple(odd))
    except DataError as error:
        return _Facts(problem=str(error).removeprefix(f"{address}: "))


def _odd(count: int, moves: bool, stated: int) -> list[str]:
    found = []
    if stated and stated != count:
        found.append(f"its container says {stated} frames, and {count} are shown")
    if count < SHORT:
        found.append(f"is very short: {count} frame{'s' if count > 1 else ''}")
    elif not moves:
        found.append("nothing moves: all frames are alike")
    return found


def _stored(address: str) -> tuple[int, str, bytes]:
    """Return the bytes, the kind and a digest of a file, or of a folder of frames."""
    path = Path(address)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    total, size = hashlib.blake2b(digest_size=16), 0
    for file in files:
        with file.open("rb") as data:
            while part := data.read(1 << 20):
                total.update(part)
                size += len(part)
    return size, "frames" if path.is_dir() else path.suffix.lower().lstrip("."), total.digest()


def _tell(result: Check, clips: Sequence[tuple[str, ClipSamples, int]], facts: Sequence[_Facts]) -> None:
    good = [fact for fact in facts if not fact.problem]
    result.measure([(fact.width, fact.height, fact.size) for fact in good])
    if good:
        lengths = [fact.frames for fact in good]
        result.sizes["frames"] = (min(lengths), float(np.median(lengths)), max(lengths))
    result.formats = dict(Counter(fact.kind for fact in good).most_common())
    same: dict[bytes, list[int]] = defaultdict(list)
    for number, ((_, samples, i), fact) in enumerate(zip(clips, facts, strict=True)):
        if fact.problem:
            result.problem(samples.id(i), fact.problem, SAMPLE)
            continue
        result.oddities += [{"file": samples.id(i), "what": what} for what in fact.odd]
        same[fact.digest].append(number)
    for numbers in same.values():
        if len(numbers) > 1:
            _tell_same(result, [clips[n] for n in numbers])


def _tell_same(result: Check, clips: Sequence[tuple[str, ClipSamples, int]]) -> None:
    names = [samples.id(i) for _, samples, i in clips]
    labels = {samples.classes[samples.labels[i]] for _, samples, i in clips}
    if len({split for split, _, _ in clips}) > 1:
        result.leaks.append(names)
    if len(labels) > 1:
        result.conflicts.append(names)
    if len({(split, samples.labels[i]) for split, samples, i in clips}) < len(clips):
        result.repeats.append(names)
