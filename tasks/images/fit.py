"""Whole pictures, fitted to a size: how a detector sees them, and with it every task that shares its batches.

A view is data and a transform: tasks whose views are equal see the same pixels, and one pass of the trunk serves them.
Targets move with their picture by their type: boxes and masks of torchvision's `tv_tensors` (masks of objects `(n, H, W)`,
or a class for every pixel `(H, W)`) are resized, cropped and mirrored; everything else stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ...backbones.contract import Sizes
from ..samples import Sample
from .resizing import COLOURS, exactly, quickly

_LEAST = 1.0  # pixels: what a crop leaves of a box must be wider and higher
Targets = Mapping[str, Any]


def box_tensor(corners: Tensor, size: tuple[int, int]) -> Any:
    """Wrap boxes `(n, 4)` x1, y1, x2, y2 so that they know the (height, width) of their picture."""
    kind: Any = tv_tensors.BoundingBoxes
    return kind(corners, format="XYXY", canvas_size=size)


def resized(height: int, width: int, size: int, longest: int) -> tuple[int, int]:
    """Compute height and width with the shorter side at `size`, or less if the longer would be above `longest`.

    Both are rounded down, as torchvision's `GeneralizedRCNNTransform` does, and at least 1.
    """
    scale = min(size / min(height, width), longest / max(height, width))
    return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))


@dataclass(frozen=True)
class FitTraining:
    """Colours, then a size (one of `sizes`, or `jitter` and a crop of `size` x `size`), then a flip.

    size, longest  pixels of the shorter side, and the most of the longer one
    sizes          shorter sides of which one is taken each time, in place of `size`
    jitter         two scales between which a picture is resized to squares of `size`
    flip           chance of a horizontal flip
    padding        of how many pixels the sides of a batch are multiples: what lies beside a picture's edge, a network sees
    photometric    whether brightness, contrast, saturation and hue change

    It draws from torch's default generator alone.
    """

    size: int
    longest: int
    sizes: tuple[int, ...] = ()
    jitter: tuple[float, ...] = ()
    flip: float = 0.5
    photometric: bool = False
    padding: int = 1

    def __call__(self, sample: Sample) -> Sample:
        """Change a sample at random; see `together`."""
        image, (targets,) = self.together(sample.image, [sample.targets])
        return replace(sample, image=image, targets=targets)

    def together(self, picture: Tensor, several: Sequence[Targets]) -> tuple[Tensor, list[dict[str, Any]]]:
        """Change a picture `(3, H, W)` uint8 at random, and with it the targets that each of several tasks has of it.

        `boxes` becomes an fp32 tensor, clipped to the picture. Objects that a crop cuts to a width or height of at most
        one pixel are gone, with their `labels` and `masks`; what a crop lacks of a picture the batch pads.
        """
        image = COLOURS(tv_tensors.Image(picture)) if self.photometric else picture
        height, width = image.shape[-2:]
        targets = [dict(one) for one in several]
        if self.jitter:
            image, targets = self._jittered(image, targets)
        else:
            size = self.sizes[int(torch.randint(len(self.sizes), (1,)))] if self.sizes else self.size
            image, targets = _resized(image, targets, resized(height, width, size, self.longest))
        if torch.rand(1).item() < self.flip:
            image = F.horizontal_flip(image)
            targets = [_moved(one, F.horizontal_flip) for one in targets]
        return image.as_subclass(Tensor), [_plain(one, tuple(image.shape[-2:])) for one in targets]

    def _jittered(self, image: Tensor, targets: list[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Any]]]:
        """Apply large-scale jitter (Ghiasi et al. 2021, section 3): resize at random, then crop `size` at random."""
        low, high = cast("tuple[float, float]", self.jitter)
        height, width = image.shape[-2:]
        scale = low + (high - low) * torch.rand(1).item()
        scale *= min(self.size / height, self.size / width)
        image, targets = _resized(image, targets, (max(1, int(height * scale)), max(1, int(width * scale))))
        height, width = image.shape[-2:]
        top = int(torch.randint(max(0, height - self.size) + 1, (1,)))
        left = int(torch.randint(max(0, width - self.size) + 1, (1,)))
        cut = (top, left, min(self.size, height), min(self.size, width))
        return F.crop(image, *cut), [_cropped(one, cut) for one in targets]


@dataclass(frozen=True)
class FitEvaluation:
    """Resize by Pillow, bilinear and antialiased: the shorter side at `size`, or less where the longer is above `longest`.

    keeps  names of targets that stay, as they are: truth is compared in pixels of the original picture
    """

    size: int
    longest: int
    padding: int = 1
    keeps: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, sample: Sample) -> Sample:
        """Resize the image alone, and add its own (height, width) as the target `original`."""
        height, width = sample.image.shape[-2:]
        size = resized(height, width, self.size, self.longest)
        kept = {name: sample.targets[name] for name in self.keeps if name in sample.targets}
        return replace(sample, image=exactly(sample.image, size), targets={**kept, "original": (height, width)})


def _moved(targets: Targets, move: Any) -> dict[str, Any]:
    """Apply `move` to what moves with the picture."""
    return {n: move(t) if isinstance(t, tv_tensors.BoundingBoxes | tv_tensors.Mask) else t for n, t in targets.items()}


def _resized(
    image: Tensor, targets: list[dict[str, Any]], size: tuple[int, int]
) -> tuple[Tensor, list[dict[str, Any]]]:
    def move(one: Any) -> Any:
        if one.ndim > 2 or not isinstance(one, tv_tensors.Mask):
            return F.resize(one, list(size))
        whole = F.resize(one.as_subclass(Tensor)[None], list(size), InterpolationMode.NEAREST_EXACT)
        return tv_tensors.Mask(whole[0])  # a class for every pixel

    return quickly(image, size), [_moved(one, move) for one in targets]


def _cropped(targets: dict[str, Any], cut: tuple[int, int, int, int]) -> dict[str, Any]:
    moved = _moved(targets, lambda one: F.crop(one, *cut))
    if "boxes" not in moved:
        return moved
    boxes = F.clamp_bounding_boxes(moved["boxes"])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > _LEAST).all(1)
    of_boxes = {name: moved[name][kept] for name in ("labels", "masks") if name in moved}
    return {**moved, **of_boxes, "boxes": box_tensor(boxes[kept], cut[2:])}


def _plain(targets: dict[str, Any], size: tuple[int, ...]) -> dict[str, Any]:
    """Convert to plain tensors, which can travel between processes; boxes are clipped to their picture."""
    height, width = size
    found = {n: t.as_subclass(Tensor) if isinstance(t, Tensor) else t for n, t in targets.items()}
    if "boxes" in found:
        corners = found["boxes"].float()
        found["boxes"] = torch.stack([corners[:, 0::2].clamp(0, width), corners[:, 1::2].clamp(0, height)], 2).flatten(
            1
        )
    return found


def too_large(sizes: Sizes, side: int, unit: int, task: str) -> list[str]:
    """Say, where it is so, that a trunk does not take pictures of `side` pixels, padded to a multiple of `unit`, of a task."""
    side = -(-side // unit) * unit
    if sizes.padded(side):
        return []
    return [
        f"the trunk takes {sizes}, and {task} sees pictures of up to {side} x {side}: take a trunk of any size, or set "
        f"size= and tasks.{task}.longest= to at most {sizes.most // unit * unit}"
    ]


def padded(images: Sequence[Tensor], unit: int, least: tuple[int, int] = (0, 0)) -> Tensor:
    """Put images `(3, h, w)` uint8 together, each in the upper left, zeros elsewhere: `(N, 3, H, W)`, channels last.

    H and W are the largest sides, at least `least`, rounded up to multiples of `unit`.
    """
    sides = torch.tensor([[*image.shape[-2:]] for image in images] + [list(least)]).amax(0).tolist()
    height, width = (-(-side // unit) * unit for side in sides)
    found = torch.zeros(len(images), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for row, image in zip(found, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return found
