"""Resizing pictures: quickly for training, and to the published pixels for evaluation. Colours that training changes."""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

COLOURS = v2.RandomPhotometricDistort()
"""Random brightness, contrast, saturation, hue and order of channels, as SSD has them (Liu et al. 2016); from torch's
default generator."""


class _InOrder(v2.RandomPhotometricDistort):
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {**super().make_params(flat_inputs), "channel_permutation": None}


COLOURS_IN_ORDER = _InOrder()
"""The same without a change of the channels' order, as mmsegmentation has it."""


def quickly(image: Tensor, size: Sequence[int], how: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
    """Resize an image `(3, H, W)` uint8 to `size` (height, width), antialiased, by torch's vectorised kernel."""
    # channels last and contiguous: that kernel takes nothing else, and is twice as fast
    pixels = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return F.resize(pixels, list(size), how, antialias=True)


def scaled(height: int, width: int, scale: float) -> list[int]:
    """Multiply the sides by `scale`, rounded down to whole pixels as torchvision does, and at least 1."""
    return [max(1, int(side * scale + 1e-6)) for side in (height, width)]


def exactly(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize an image `(3, H, W)` uint8 to `size` (height, width) by Pillow, bilinear and antialiased.

    These are the pixels that published models were scored with.
    """
    picture: Any = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = F.resize(picture, list(size), InterpolationMode.BILINEAR, antialias=True)
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
