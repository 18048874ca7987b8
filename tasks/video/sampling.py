"""Which frames stand for a video: by segments, or every n-th from a start. Random in training, fixed in evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trunkline.ground.errors import DataError

from .options import Options

_HAIR = 1e-6
"""Of a frame: what rounding may take from a time that falls on a frame exactly."""


@dataclass(frozen=True)
class Picked:
    """Frames that stand for a video: `indices` `(V, T)` int64, a row a view; of each view the first `real` `(V,)` are its own.

    The others repeat the last frame, where a video ends before a view does.
    """

    indices: np.ndarray
    real: np.ndarray


def at_rate(times: Sequence[float] | np.ndarray, rate: float) -> np.ndarray:
    """Return the indices of the frames that are shown at 0, 1/rate, 2/rate … seconds after the first, `(M,)` int64.

    `times` are those of the frames in seconds, in order. 0 as `rate` keeps each frame once.
    """
    times = np.asarray(times, np.float64)
    if not rate:
        return np.arange(len(times))
    since = times - times[0]
    last = float(np.median(np.diff(times))) if len(times) > 1 else 0.0  # the last frame is shown as long as the others
    count = max(1, int(np.ceil((since[-1] + last) * rate - _HAIR)))
    return np.searchsorted(since * rate, np.arange(count) + _HAIR, side="right") - 1


def random_frames(count: int, times: Sequence[float] | np.ndarray, options: Options) -> Picked:
    """Pick one view at random, from torch's default generator: a frame of each segment, or a start.

    Segment k of T is the part from k/T to (k+1)/T of the video (Wang et al. 2016, section 3.1).
    """
    _not_empty(count)
    if options.sampling == "segments":
        return _of_segments(count, torch.rand(options.frames, dtype=torch.float64).numpy()[None])
    order = at_rate(times, options.rate)
    room = max(0, len(order) - _span(options))
    return _strided(order, [int(torch.randint(room + 1, ()))], options)


def fixed_frames(count: int, times: Sequence[float] | np.ndarray, options: Options) -> Picked:
    """Pick the `clips` views of evaluation: in segments evenly placed frames; or starts spread from the first to the last.

    A single view takes the middle of each segment, or of the video.
    """
    _not_empty(count)
    clips = options.clips
    if options.sampling == "segments":
        within = (np.arange(clips) + 0.5) / clips
        return _of_segments(count, np.repeat(within[:, None], options.frames, 1))
    order = at_rate(times, options.rate)
    room = max(0, len(order) - _span(options))
    starts = [room // 2] if clips == 1 else [int(room * i / (clips - 1) + _HAIR) for i in range(clips)]
    return _strided(order, starts, options)


def pick_within(first: int, last: int, count: int, times: Sequence[float] | np.ndarray, options: Options) -> Picked:
    """Pick one view of the part of a video from frame `first` to before `last`, as `fixed_frames` does of a whole one.

    A view with a stride that is longer than the part reaches out of it on both sides, as far as the video goes.
    """
    if options.sampling == "segments":
        inner = _of_segments(last - first, np.full((1, options.frames), 0.5))
        return Picked(inner.indices + first, inner.real)
    order = at_rate(times, options.rate)
    low, high = np.searchsorted(order, [first, last])
    start = (int(low) + int(high) - _span(options)) // 2
    start = min(max(0, start), max(0, len(order) - _span(options)))
    return _strided(order, [start], options)


def _span(options: Options) -> int:
    return (options.frames - 1) * options.stride + 1


def _of_segments(count: int, within: np.ndarray) -> Picked:
    """Take of each segment the frame at a share of it, `(V, T)` from 0 to below 1."""
    views, frames = within.shape
    at = (np.arange(frames) + within) * count / frames
    return Picked(np.minimum(at.astype(np.int64), count - 1), np.full(views, frames))


def _strided(order: np.ndarray, starts: Sequence[int], options: Options) -> Picked:
    at = np.asarray(starts)[:, None] + np.arange(options.frames) * options.stride
    return Picked(order[np.minimum(at, len(order) - 1)], (at < len(order)).sum(1))


def _not_empty(count: int) -> None:
    if count < 1:
        raise DataError("the video has no frame")
