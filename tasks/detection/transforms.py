"""From a detector's options to its views of pictures: whole ones, fitted to a size."""

from dataclasses import replace

from ..contract import Sample
from ..images.fit import FitEvaluation, FitTraining
from .options import Options

PADDED = {"one_stage": 128}  # else 64


def padding_of(options: Options) -> int:
    """Return by what the sides of a batch are padded: the coarsest level's stride, so that every grid is of whole cells.

    The options may say another number; then the cells of coarse levels reach beyond the batch.
    """
    return PADDED.get(options.head, 64) if options.padding is None else options.padding


def train_transform(options: Options) -> FitTraining:
    """Build the transform of training, which draws from torch's default generator alone."""
    o = options
    return FitTraining(o.size, o.longest, o.sizes, o.jitter, o.flip, o.photometric, padding_of(o))


def eval_transform(options: Options) -> FitEvaluation:
    """Build the transform of evaluation: it resizes by Pillow, bilinear and antialiased.

    The shorter side becomes `size`, or less where the longer one would be above `longest`.
    """
    return FitEvaluation(options.size, options.longest, padding_of(options))


def as_it_is(sample: Sample) -> Sample:
    """Keep the picture in its own size, with `original` as its only target: its views are resized one by one."""
    height, width = sample.image.shape[-2:]
    return replace(sample, targets={"original": (height, width)})
