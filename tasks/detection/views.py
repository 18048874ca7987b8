"""One picture seen several times: in tiles, mirrored, at several sizes; and what is found put together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ...heads.boxes import BoxPrediction
from ..contract import Sample
from ..images.fit import FitEvaluation
from ..objects.geometry import back
from .options import Options

_EDGE = 2.0  # pixels; a box this near to a tile's inner edge counts as cut off by it
Predict = Callable[[list[Sample]], list[BoxPrediction]]


@dataclass(frozen=True)
class View:
    """A window (left, top, right, bottom) of the picture, mirrored or not, at a multiple of the options' size."""

    window: tuple[int, int, int, int]
    mirrored: bool = False
    scale: float = 1.0


def wanted(options: Options) -> bool:
    """Say whether pictures are seen more than once."""
    return bool(options.tiles or options.flips or options.scales)


def views(height: int, width: int, options: Options) -> Iterator[View]:
    """Yield the whole picture, and its tiles if it is larger than one; each at every scale, and mirrored if asked."""
    windows = [(0, 0, width, height)]
    if options.tiles and max(height, width) > options.tiles:
        windows += tiles(height, width, options.tiles, options.overlap)
    for window in windows:
        for scale in options.scales or (1.0,):
            for mirrored in (False, True) if options.flips else (False,):
                yield View(window, mirrored, scale)


def tiles(height: int, width: int, side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """List evenly spread windows (left, top, right, bottom) that cover the picture.

    They have at most `side` pixels a side and overlap by the share `overlap` at least.
    """

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = 1 + int(np.ceil((length - side) / (side * (1 - overlap))))
        return np.linspace(0, length - side, count).round().astype(int).tolist()

    rows, columns = starts(height), starts(width)
    return [(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def see(sample: Sample, predict: Predict, options: Options) -> BoxPrediction:
    """Predict from all views of a picture in its own size; boxes are in its pixels.

    Of two boxes of a class that overlap by more than `options.nms`, the one with the lower score is dropped. At most
    `options.detections` are kept.
    """
    height, width = sample.image.shape[-2:]
    found = [
        _back(_through(sample, view, predict, options), view, height, width) for view in views(height, width, options)
    ]
    boxes, labels, scores = (
        np.concatenate([getattr(p, name) for p in found]) for name in ("boxes", "labels", "scores")
    )
    tensors = [torch.from_numpy(array) for array in (boxes, scores, labels)]
    kept = batched_nms(tensors[0], tensors[1], tensors[2], options.nms)[: options.detections].numpy()
    masks = None if found[0].masks is None else np.concatenate([p.masks for p in found if p.masks is not None])[kept]
    return BoxPrediction(sample.id, boxes[kept], labels[kept], scores[kept], masks)


def _through(sample: Sample, view: View, predict: Predict, options: Options) -> BoxPrediction:
    left, top, right, bottom = view.window
    part: Tensor = sample.image[:, top:bottom, left:right]
    transform = FitEvaluation(max(1, round(options.size * view.scale)), max(1, round(options.longest * view.scale)))
    seen = transform(replace(sample, image=part.flip(-1) if view.mirrored else part))
    (found,) = predict([seen])
    return replace(found, boxes=back(found.boxes, tuple(seen.image.shape[-2:]), (bottom - top, right - left)))  # type: ignore[arg-type]


def _back(found: BoxPrediction, view: View, height: int, width: int) -> BoxPrediction:
    left, top, right, bottom = view.window
    boxes, masks = found.boxes.astype(np.float32), found.masks
    if view.mirrored:
        boxes = np.stack([right - left - boxes[:, 2], boxes[:, 1], right - left - boxes[:, 0], boxes[:, 3]], 1)
        masks = None if masks is None else masks[:, :, ::-1]
    boxes = boxes + np.array([left, top, left, top], np.float32)
    cut = np.zeros(len(boxes), bool)
    for column, edge, outer in ((0, left, 0), (1, top, 0), (2, right, width), (3, bottom, height)):
        if edge != outer:
            cut |= np.abs(boxes[:, column] - edge) < _EDGE
    kept = ~cut
    return BoxPrediction(
        found.id, boxes[kept], found.labels[kept], found.scores[kept], None if masks is None else masks[kept]
    )
