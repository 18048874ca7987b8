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
"""Random brightness, contrast, saturation and hue, as SSD has them (Liu et al. 2016); from torch's default generator."""


def quickly(image: Tensor, size: Sequence[int], how: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
    """An image `(3, H, W)` uint8 at `size` H, W, antialiased, by torch's vectorised kernel."""
    # channels last and contiguous: that kernel takes nothing else, and is twice as fast
    pixels = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return F.resize(pixels, list(size), how, antialias=True)


def exactly(image: Tensor, size: Sequence[int]) -> Tensor:
    """The same by Pillow, bilinear and antialiased: the pixels that published models were scored with."""
    picture: Any = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = F.resize(picture, list(size), InterpolationMode.BILINEAR, antialias=True)
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
