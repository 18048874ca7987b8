"""Resizing, flips, jitter and colours for pictures with boxes and masks, on uint8, by torchvision's v2 transforms."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ..contract import Sample
from ..images.resizing import COLOURS, exactly, quickly
from ..objects.geometry import resized
from .options import Options

_LEAST = 1.0  # pixels: what a crop leaves of a box must be wider and higher


def box_tensor(corners: Tensor, size: tuple[int, int]) -> Any:
    """Wrap boxes `(n, 4)` x1, y1, x2, y2 so that they know the (height, width) of their picture."""
    kind: Any = tv_tensors.BoundingBoxes
    return kind(corners, format="XYXY", canvas_size=size)


def train_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of training, which draws from torch's default generator alone."""
    return TrainTransform(options)


def eval_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of evaluation: it resizes by Pillow, bilinear and antialiased.

    The shorter side becomes `size`, or less where the longer one would be above `longest`.
    """
    return EvalTransform(options.size, options.longest)


@dataclass(frozen=True)
class TrainTransform:
    """Colours, then a size (one of `sizes`, or `jitter` and a crop of `size` x `size`), then a flip."""

    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Change a sample at random; `boxes` becomes an fp32 tensor.

        Objects that a crop cuts to a width or height of at most one pixel are gone.
        """
        o = self.options
        image, targets = tv_tensors.Image(sample.image), dict(sample.targets)
        if o.photometric:
            image = COLOURS(image)
        height, width = image.shape[-2:]
        if o.jitter:
            image, targets = _jittered(image, targets, o)
        else:
            size = o.sizes[int(torch.randint(len(o.sizes), (1,)))] if o.sizes else o.size
            image, targets = _resized(image, targets, resized(height, width, size, o.longest))
        if torch.rand(1).item() < o.flip:
            image = F.horizontal_flip(image)
            targets |= {name: F.horizontal_flip(targets[name]) for name in ("boxes", "masks") if name in targets}
        return _plain(replace(sample, image=image, targets=targets))


@dataclass(frozen=True)
class EvalTransform:
    """`eval_transform` as an object that can be sent to a loader."""

    size: int
    longest: int

    def __call__(self, sample: Sample) -> Sample:
        """Resize the image alone, and keep its own (height, width) as `original`, the only target.

        Truth and predictions are compared in pixels of the original picture.
        """
        height, width = sample.image.shape[-2:]
        size = resized(height, width, self.size, self.longest)
        return replace(sample, image=exactly(sample.image, size), targets={"original": (height, width)})


def as_it_is(sample: Sample) -> Sample:
    """Keep the picture in its own size, with `original` as its only target: its views are resized one by one."""
    height, width = sample.image.shape[-2:]
    return replace(sample, targets={"original": (height, width)})


def _resized(image: Tensor, targets: dict[str, Any], size: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
    moved = {name: F.resize(targets[name], list(size)) for name in ("boxes", "masks") if name in targets}
    return quickly(image, size), {**targets, **moved}


def _jittered(image: Tensor, targets: dict[str, Any], o: Options) -> tuple[Tensor, dict[str, Any]]:
    """Apply large-scale jitter (Ghiasi et al. 2021, section 3): resize at random, then crop `size` at random."""
    low, high = o.jitter
    height, width = image.shape[-2:]
    scale = low + (high - low) * torch.rand(1).item()
    scale *= min(o.size / height, o.size / width)
    image, targets = _resized(image, targets, (max(1, int(height * scale)), max(1, int(width * scale))))
    height, width = image.shape[-2:]
    top = int(torch.randint(max(0, height - o.size) + 1, (1,)))
    left = int(torch.randint(max(0, width - o.size) + 1, (1,)))
    size = (min(o.size, height), min(o.size, width))
    cut = (top, left, *size)
    image = F.crop(image, *cut)
    moved: dict[str, Any] = {name: F.crop(targets[name], *cut) for name in ("boxes", "masks") if name in targets}
    boxes = F.clamp_bounding_boxes(moved["boxes"])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > _LEAST).all(1)
    targets = {**targets, "boxes": box_tensor(boxes[kept], size), "labels": targets["labels"][kept]}
    if "masks" in moved:
        targets["masks"] = moved["masks"][kept]
    return image, targets


def _plain(sample: Sample) -> Sample:
    """Convert to plain tensors, which can travel between processes; boxes are clipped to their picture."""
    targets = dict(sample.targets)
    height, width = sample.image.shape[-2:]
    if "boxes" in targets:
        corners = targets["boxes"].as_subclass(Tensor).float()
        targets["boxes"] = torch.stack(
            [corners[:, 0::2].clamp(0, width), corners[:, 1::2].clamp(0, height)], 2
        ).flatten(1)
    if "masks" in targets:
        targets["masks"] = targets["masks"].as_subclass(Tensor)
    return replace(sample, image=sample.image.as_subclass(Tensor), targets=targets)
