"""From a video to the frames that a network sees: picked, decoded, resized and cropped, the same for all frames of a view."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from trunkline.ground.errors import DataError

from ...backbones.contract import Preprocessing
from ..contract import Sample
from ..images.decode import HOW_TO_GO_ON
from .decoding.resized import open_resized
from .options import Options
from .sampling import Picked, fixed_frames, random_frames

OVER_TIME = "over_time"
"""A target of samples that are predicted window by window: their frames are read then, a few at a time."""


@dataclass(frozen=True)
class TrainTransform:
    """Frames at random, then one random crop and flip for all of them. Draws from torch's default generator alone."""

    preprocessing: Preprocessing
    options: Options
    flip: float

    def __call__(self, sample: Sample) -> Sample:
        """Decode `(3, T, size, size)` uint8; `frames` counts those that do not repeat the last. Raises DataError."""
        frames, picked, remarks = _seen(sample, self.options.cached_side, partial(random_frames, options=self.options))
        image = self._cut(frames)
        if torch.rand(1).item() < self.flip:
            image = image.flip(-1)
        return _with(sample, image.transpose(0, 1), picked.real[:1], remarks)

    def _cut(self, frames: Tensor) -> Tensor:
        size, o = self.preprocessing.size, self.options
        how = InterpolationMode(self.preprocessing.interpolation)
        if o.short or o.resize:
            to = [int(torch.randint(int(o.short[0]), int(o.short[1]) + 1, ()))] if o.short else list(o.resize)
            frames = resized(frames, to, how, o.antialias)
            frames = _at_least(frames, size)
            top, left = (int(torch.randint(side - size + 1, ())) for side in frames.shape[-2:])
            return frames[..., top : top + size, left : left + size]
        box = v2.RandomResizedCrop(size, o.scale, o.ratio, how, antialias=o.antialias).make_params([frames])
        top, left = box["top"], box["left"]
        part = frames[..., top : top + box["height"], left : left + box["width"]]
        return resized(part, [size, size], how, o.antialias)


@dataclass(frozen=True)
class EvalTransform:
    """The views of evaluation, of one video each: `clips` over time, `crops` of each."""

    preprocessing: Preprocessing
    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Decode `(V, 3, T, size, size)` uint8 and `frames` `(V,)`; what is predicted over time is left as it is."""
        if OVER_TIME in sample.targets:
            return sample
        frames, picked, remarks = _seen(sample, self.options.cached_side, partial(fixed_frames, options=self.options))
        return _with(sample, self.views(frames, picked), np.repeat(picked.real, self.options.crops), remarks)

    def views(self, frames: Tensor, picked: Picked) -> Tensor:
        """Cut the views out of frames `(V * T, 3, H, W)`, those of one clip one after the other."""
        each = cropped(frames, self.preprocessing, self.options)  # (crops, V * T, 3, size, size)
        views, length = picked.indices.shape
        return each.unflatten(1, (views, length)).permute(1, 0, 3, 2, 4, 5).flatten(0, 1)


def train_transform(preprocessing: Preprocessing, options: Options, flip: float) -> Callable[[Sample], Sample]:
    """Build the transform of training: random frames and crops, or evaluation's one view if not `options.augment`."""
    if options.augment:
        return TrainTransform(preprocessing, options, flip)
    return OneView(EvalTransform(preprocessing, replace(options, clips=1, crops=1)))


@dataclass(frozen=True)
class OneView:
    """Evaluation's single view, without the axis of views."""

    inner: EvalTransform

    def __call__(self, sample: Sample) -> Sample:
        """Decode `(3, T, size, size)` uint8."""
        found = self.inner(sample)
        return replace(found, image=found.image[0])


def _seen(sample: Sample, side: int | None, pick: Callable[..., Picked]) -> tuple[Tensor, Picked, tuple[str, ...]]:
    """Decode the frames of a sample that `pick` chooses, `(V * T, 3, H, W)`; return them, what was chosen, the remarks.

    Where decoding shows that the video has other frames than its packets promised, it picks again, with the same random
    numbers: as if that had been known. Raises DataError, which says how to go on.
    """
    state = torch.get_rng_state()
    try:
        with open_resized(sample.source, side) as video:
            while True:
                count, picked = video.count, pick(video.count, video.times)
                try:
                    frames = video.read(picked.indices.ravel())
                except DataError:
                    if video.count == count:
                        raise
                if video.count == count:
                    return pixels(frames), picked, tuple(video.remarks)
                torch.set_rng_state(state)
    except DataError as error:
        raise DataError(f"{str(error).removesuffix(f'; {HOW_TO_GO_ON}')}; {HOW_TO_GO_ON}") from error


def pixels(frames: np.ndarray) -> Tensor:
    """View decoded frames `(n, H, W, 3)` uint8 as `(n, 3, H, W)`; in memory the channels stay last."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def cropped(frames: Tensor, preprocessing: Preprocessing, options: Options) -> Tensor:
    """Resize frames `(n, 3, H, W)` uint8 and crop squares: `(crops, n, 3, size, size)`, the centre or both ends besides.

    The shorter side becomes `preprocessing.resize`, or both sides what that says with a `resize_width`; the options' `resize`
    takes its place. Smaller ones are padded with zeros.
    """
    p, o = preprocessing, options
    to = list(o.resize) or ([p.resize, p.resize_width] if p.resize_width else [p.resize])
    frames = resized(frames, to, InterpolationMode(p.interpolation), o.antialias)
    if o.crops == 1:
        return F.center_crop(frames, [p.size, p.size])[None]
    frames = _at_least(frames, p.size)
    free = [side - p.size for side in frames.shape[-2:]]
    along = 0 if free[0] > free[1] else 1
    found = []
    for share in (0.0, 0.5, 1.0):
        top, left = (round(room * (share if axis == along else 0.5)) for axis, room in enumerate(free))
        found.append(frames[..., top : top + p.size, left : left + p.size])
    return torch.stack(found)


def resized(frames: Tensor, to: list[int], how: InterpolationMode, antialias: bool) -> Tensor:
    """Resize uint8 frames. Without antialiasing they are computed in fp32, then rounded, as torchvision's video presets are."""
    if antialias:
        return F.resize(frames, to, how)
    return F.resize(frames.float(), to, how, antialias=False).round_().clamp_(0, 255).to(torch.uint8)


def _at_least(frames: Tensor, size: int) -> Tensor:
    """Pad frames with zeros on all sides where one is shorter than `size`."""
    height, width = frames.shape[-2:]
    if min(height, width) >= size:
        return frames
    return F.center_crop(frames, [max(height, size), max(width, size)])


def _with(sample: Sample, image: Tensor, real: np.ndarray, remarks: tuple[str, ...]) -> Sample:
    targets = {**sample.targets, "frames": torch.from_numpy(np.asarray(real, np.int64))}
    return replace(sample, image=image, targets=targets, remarks=remarks)
