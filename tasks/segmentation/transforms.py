"""Scale jitter, crop, flip and colours for pictures with masks, on uint8, by torchvision's v2 transforms."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ..contract import Sample
from ..resizing import COLOURS, exactly, quickly
from .options import Options


def train_transform(options: Options) -> Callable[[Sample], Sample]:
    """What training sees; draws from torch's default generator alone."""
    return TrainTransform(options)


def eval_transform(options: Options) -> Callable[[Sample], Sample]:
    """The picture in its own size, or with its shorter side at `size`; its mask stays as it is."""
    return EvalTransform(options.size)


@dataclass(frozen=True)
class TrainTransform:
    """Colours, then a size, then a crop of at most `crop` x `crop`, then a flip (Chen et al. 2017, section 4.1)."""

    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Image `(3, h, w)` and `mask` `(h, w)`, h and w at most `crop`: what is smaller is padded in the batch, with void."""
        o = self.options
        image, mask = tv_tensors.Image(sample.image), sample.targets["mask"][None]
        if o.photometric:
            image = COLOURS(image)
        height, width = image.shape[-2:]
        low, high = o.jitter
        factor = low + (high - low) * torch.rand(1).item()
        if o.short:
            factor *= o.short / min(height, width)
        size = [max(1, round(height * factor)), max(1, round(width * factor))]
        image, mask = quickly(image, size), F.resize(mask, size, InterpolationMode.NEAREST_EXACT)
        top = int(torch.randint(max(0, size[0] - o.crop) + 1, (1,)))
        left = int(torch.randint(max(0, size[1] - o.crop) + 1, (1,)))
        cut = (slice(None), slice(top, top + o.crop), slice(left, left + o.crop))
        image, mask = image.as_subclass(Tensor)[cut], mask[cut]
        if torch.rand(1).item() < o.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return replace(sample, image=image, targets={"mask": mask[0]})


@dataclass(frozen=True)
class EvalTransform:
    """`eval_transform` as an object that can be sent to a worker."""

    size: int | None

    def __call__(self, sample: Sample) -> Sample:
        """By Pillow, bilinear and antialiased, where a size is asked for."""
        height, width = sample.image.shape[-2:]
        targets = {**sample.targets, "original": (height, width)}
        if not self.size or min(height, width) == self.size:
            return replace(sample, targets=targets)
        scale = self.size / min(height, width)
        size = [max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))]
        return replace(sample, image=exactly(sample.image, size), targets=targets)
