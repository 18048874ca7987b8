"""Pictures with masks as training and evaluation see them: squares cut from them, or whole ones, fitted to a size.

Scale jitter, crop, flip and colours are torchvision's v2 transforms, on uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from trunkline.ground.errors import DataError

from ...heads.contract import VOID
from ..contract import Sample
from ..images.fit import FitEvaluation, FitTraining
from ..images.resizing import COLOURS_IN_ORDER, exactly, quickly, scaled
from .crf import MOST
from .options import Options
from .views import wanted

_TRIES = 11  # the first, and ten more as in mmsegmentation


def train_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of training, which draws from torch's default generator alone."""
    o = options
    if o.view == "crop":
        return TrainTransform(o)
    return FitTraining(*o.fitted, o.sizes, o.scale_jitter, o.flip, o.photometric, o.padding)


def eval_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of evaluation, which leaves the mask alone.

    The picture keeps its own size, or has its shorter side at `size`, with view=fit the longer one at most at `longest`;
    where views are wanted, they resize it themselves.
    """
    if options.view == "fit" and not wanted(options):
        return FitEvaluation(*options.fitted, options.padding, keeps=("mask",))
    return EvalTransform(None if wanted(options) else options.size, MOST if options.crf else 0)


@dataclass(frozen=True)
class TrainTransform:
    """Colours, then a size, then a crop of at most `crop` x `crop`, then a flip (Chen et al. 2017, section 4.1)."""

    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Change colours and size, then crop and flip.

        The image becomes `(3, h, w)` uint8 and `mask` `(h, w)`, h and w at most `crop`; the batch pads smaller ones,
        masks with void.
        """
        o, side = self.options, self.options.crop_side
        image, mask = tv_tensors.Image(sample.image), sample.targets["mask"][None]
        if o.photometric:
            image = COLOURS_IN_ORDER(image)
        height, width = image.shape[-2:]
        low, high = o.scale_jitter or (1.0, 1.0)
        factor = low + (high - low) * torch.rand(1).item()
        if o.short:
            factor *= o.short / min(height, width)
        size = [max(1, round(height * factor)), max(1, round(width * factor))]
        image, mask = quickly(image, size), F.resize(mask, size, InterpolationMode.NEAREST_EXACT)
        for _ in range(_TRIES):
            top = int(torch.randint(max(0, size[0] - side) + 1, (1,)))
            left = int(torch.randint(max(0, size[1] - side) + 1, (1,)))
            cut = (slice(None), slice(top, top + side), slice(left, left + side))
            if o.cat_max_ratio >= 1 or _largest_share(mask[cut]) < o.cat_max_ratio:
                break
        image, mask = image.as_subclass(Tensor)[cut], mask[cut]
        if torch.rand(1).item() < o.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return replace(sample, image=image, targets={"mask": mask[0]})


def _largest_share(mask: Tensor) -> float:
    """Compute the share of the most frequent class among pixels that have a class; 1 where no pixel has one."""
    counts = torch.bincount(mask[mask != VOID].flatten(), minlength=1)
    return float(counts.max() / counts.sum()) if counts.sum() else 1.0


@dataclass(frozen=True)
class EvalTransform:
    """`eval_transform` as an object that can be sent to a loader."""

    size: int | None
    most: int = 0  # pixels of a picture; 0: any

    def __call__(self, sample: Sample) -> Sample:
        """Resize by Pillow, bilinear and antialiased, where a size is asked for.

        The target `original` is the height and width before. Raises DataError where a picture has more than `most`
        pixels.
        """
        height, width = sample.image.shape[-2:]
        if self.most and height * width > self.most:
            raise DataError(
                f"{sample.source}: is {width} x {height} pixels; crf=true takes up to {self.most / 1e6:.0f} million: make it "
                "smaller, or leave the CRF out"
            )
        targets = {**sample.targets, "original": (height, width)}
        if not self.size or min(height, width) == self.size:
            return replace(sample, targets=targets)
        size = scaled(height, width, self.size / min(height, width))
        return replace(sample, image=exactly(sample.image, size), targets=targets)
