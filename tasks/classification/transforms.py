"""Geometry on uint8: the random crop and flip of training, and the published pixels of evaluation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from ...backbones.contract import Preprocessing
from ..contract import Sample
from ..images.resizing import quickly


class Crops(Protocol):
    """The options that say how squares of pictures are taken; `classification.options.Options` says what each means."""

    @property
    def size(self) -> int | None: ...
    @property
    def augment(self) -> bool: ...
    @property
    def scale(self) -> tuple[float, float]: ...
    @property
    def ratio(self) -> tuple[float, float]: ...
    @property
    def flip(self) -> float: ...


def train_transform(preprocessing: Preprocessing, options: Crops) -> Callable[[Sample], Sample]:
    """Build a random crop, resized to a square, and a random flip; or evaluation's transform if not `options.augment`.

    The transform draws from torch's default generator alone. It equals torchvision's v2 `RandomResizedCrop`,
    antialiased, and `RandomHorizontalFlip` on uint8 tensors (Szegedy et al. 2015, "Going deeper with convolutions",
    section 6).
    """
    preprocessing = preprocessing.at(options.size)
    if not options.augment:
        return EvalTransform(preprocessing)
    return TrainTransform(
        preprocessing.size, options.scale, options.ratio, options.flip, InterpolationMode(preprocessing.interpolation)
    )


def eval_transform(preprocessing: Preprocessing) -> Callable[[Sample], Sample]:
    """Build the published transform up to its normalisation.

    It resizes the shorter side to `resize` by Pillow, then crops the central `size` square.
    """
    return EvalTransform(preprocessing)


@dataclass(frozen=True)
class TrainTransform:
    """`train_transform` as an object that can be sent to a loader."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    interpolation: InterpolationMode

    def __post_init__(self) -> None:
        crop = v2.RandomResizedCrop(self.size, self.scale, self.ratio, self.interpolation, antialias=True)
        object.__setattr__(self, "_crop", crop)

    def __call__(self, sample: Sample) -> Sample:
        """Crop, resize and flip the image at random; it becomes `(3, size, size)` uint8."""
        box = self._crop.make_params([sample.image])  # type: ignore[attr-defined]
        top, left = box["top"], box["left"]
        part = sample.image[:, top : top + box["height"], left : left + box["width"]]
        image = quickly(part, [self.size, self.size], self.interpolation)
        if torch.rand(1).item() < self.flip:
            image = image.flip(-1)
        return replace(sample, image=image)


@dataclass(frozen=True)
class EvalTransform:
    """`eval_transform` as an object that can be sent to a loader."""

    preprocessing: Preprocessing

    def __call__(self, sample: Sample) -> Sample:
        """Resize the image and crop its centre; it becomes `(3, size, size)` uint8.

        Smaller images are padded with zeros, as torchvision does.
        """
        p = self.preprocessing
        picture: Any = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        picture = F.resize(picture, [p.resize], InterpolationMode(p.interpolation), antialias=True)
        picture = F.center_crop(picture, [p.size, p.size])
        return replace(sample, image=torch.from_numpy(numpy.array(picture)).permute(2, 0, 1))
