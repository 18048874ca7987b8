"""What is said of a video: the mean over its views, and over windows of a long one."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from trunkline.ground.errors import DataError

from ...backbones.contract import Features, Preprocessing
from ...heads.classification import ClassPrediction
from ...heads.contract import Batch, Prediction
from ..over_time import Rows
from .decoding.resized import open_resized
from .decoding.video import Video
from .options import Options
from .sampling import pick_within
from .transforms import cropped, pixels

FRAMES = 128  # at most so many frames go through the network at once


@dataclass
class Window:
    """A part of a video: from `start` to `end` in seconds, and its `probabilities` `(K,)` fp32."""

    start: float
    end: float
    probabilities: np.ndarray


@dataclass
class VideoPrediction(ClassPrediction):
    """`probabilities` `(K,)` are the mean over `views` `(V, K)`, fp32; `windows` are those of a video seen over time."""

    views: np.ndarray
    windows: list[Window] = field(default_factory=list)
    remarks: tuple[str, ...] = ()  # what the video's file says


def of_views(model: nn.Module, batch: Batch) -> list[Prediction]:
    """Predict each video of a batch by the mean of its views: a VideoPrediction each.

    `images` are `(N * V, 3, T, H, W)`, the views of a video one after the other. At most FRAMES frames go through the network
    at once. Probabilities are averaged, after the softmax, in fp64.
    """
    if batch.features is not None:
        rows = _probabilities(model.predict(batch))  # type: ignore[operator]
        return [VideoPrediction(name, row, row[None]) for name, row in zip(batch.ids, rows, strict=True)]
    assert batch.images is not None
    views = len(batch.images) // len(batch)
    rows = np.concatenate([_probabilities(model.predict(part)) for part in _parts(batch, views)])  # type: ignore[operator]
    each = rows.reshape(len(batch), views, -1)
    return [VideoPrediction(name, mean(own), own) for name, own in zip(batch.ids, each, strict=True)]


def _parts(batch: Batch, views: int) -> list[Batch]:
    """Divide a batch by views, so that a part has FRAMES frames at most, or a single view."""
    assert batch.images is not None
    size = max(1, FRAMES // batch.images.shape[2])
    names = [name for name in batch.ids for _ in range(views)]
    frames = batch.targets.get("frames")
    parts = []
    for at in range(0, len(names), size):
        own = slice(at, at + size)
        targets = {} if frames is None else {"frames": frames[own]}
        parts.append(Batch(batch.task, names[own], batch.images[own], targets=targets))
    return parts


def _probabilities(predictions: Sequence[Prediction]) -> np.ndarray:
    return np.stack([p.probabilities for p in predictions])  # type: ignore[attr-defined]


def mean(rows: np.ndarray) -> np.ndarray:
    """Average probabilities `(V, K)` over views, in fp64, to `(K,)` fp32; one view stays as it is."""
    return rows[0] if len(rows) == 1 else rows.mean(0, dtype=np.float64).astype(np.float32)


def over_time(
    model: nn.Module,
    task: str,
    address: str,
    preprocessing: Preprocessing,
    options: Options,
    seconds: float,
    device: torch.device,
    features: str = "",
) -> VideoPrediction:
    """Predict a video window by window, with the frames of one window in memory at a time.

    It is divided into equal windows of about `seconds`; one that is shorter than half as much again is one window. With
    `features`, what the head pools is written into that folder.
    """

    net: Any = model

    def see(part: tuple[int, int, float, float], rows: Rows | None) -> Window:
        first, last, start, end = part
        picked = pick_within(first, last, video.count, video.times, options)
        frames = pixels(video.read(picked.indices[0]))
        images = cropped(frames, preprocessing, options).transpose(1, 2).to(device)
        real = torch.from_numpy(np.repeat(picked.real, len(images))).to(device)
        batch = Batch(task, [address] * len(images), images, targets={"frames": real})
        if rows is None:
            return Window(start, end, mean(_probabilities(net.predict(batch))))
        maps, head = net.maps(batch), net.heads[task]
        rows.add(*steps(head.condense(maps), head.time_strides, video.times[picked.indices[0, : picked.real[0]]]))
        return Window(start, end, mean(_probabilities(head.predict(maps, batch))))

    with open_resized(address, options.cached_side, keep=False) as video:
        while True:  # once, unless decoding shows other frames than the packets promised
            count = video.count
            try:
                with Rows(features, address) if features else nullcontext() as rows:
                    found = [see(part, rows) for part in windows(video, options, seconds)]
                    if rows and video.count == count:
                        rows.finish(about_steps(model, task, video, options, found[0].end))
            except DataError:
                if video.count == count:
                    raise
            if video.count == count:
                break
        remarks = tuple(video.remarks)
    each = np.stack([window.probabilities for window in found])
    return VideoPrediction(address, mean(each), each, found, remarks)


def windows(video: Video, options: Options, seconds: float) -> list[tuple[int, int, float, float]]:
    """Divide a video: of each window the first frame, the one behind its last, and its ends in seconds."""
    times = video.times
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / float(video.rate or 1)
    length = float(times[-1]) + last
    span = options.window or (seconds if options.sampling == "segments" else span_of(options, float(video.rate)))
    count = min(max(1, round(length / span)) if span > 0 else 1, len(times))
    ends = np.linspace(0, length, count + 1)
    cuts = np.searchsorted(times, ends[:-1] - 1e-9)
    cuts = np.append(np.maximum.accumulate(cuts), len(times))
    return [
        (int(cuts[i]), max(int(cuts[i]) + 1, int(cuts[i + 1])), float(ends[i]), float(ends[i + 1]))
        for i in range(count)
    ]


def span_of(options: Options, rate: float) -> float:
    """Return how many seconds of a video a view with a stride sees."""
    return options.frames * options.stride / (options.rate or rate or 25.0)


def steps(maps: Features, strides: Mapping[str, int], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a head pools of one window, a row a step `(n, C)` fp32, and the seconds `(n,)` of each.

    `maps` are `(crops, C, T, 1, 1)`, `times` those of the window's real frames. Crops are averaged. Of several maps the one
    with the fewest steps counts: the others are averaged over each of its steps, and joined. A step's time is the mean
    of its frames'; steps behind the last real frame are left out.
    """
    each = [x.mean(0).flatten(1).transpose(0, 1).float() for x in maps.values()]
    fewest, stride = min(map(len, each)), max(strides.values())
    rows = torch.cat([x.unflatten(0, (fewest, -1)).mean(1) for x in each], 1).cpu().numpy()
    seconds = [times[at : at + stride].mean() for at in range(0, len(times), stride)][:fewest]
    return rows[: len(seconds)], np.array(seconds)


def about_steps(model: nn.Module, task: str, video: Video, options: Options, window: float) -> dict[str, Any]:
    """Say what the rows of a file of features are."""
    head: Any = model.heads[task]  # type: ignore[index]
    trunk: Any = model.backbone
    seen = {name: getattr(options, name) for name in ("frames", "sampling", "stride", "rate", "crops")}
    return {
        "trunk": trunk.arch,
        "maps": list(head.needs),
        "frames_a_step": max(head.time_strides.values()),
        **seen,
        "window": round(window, 6),
        "video": {"frames": video.count, "rate": float(video.rate), "last": round(float(video.times[-1]), 6)},
    }
