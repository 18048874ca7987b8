"""Aligned crops of large and small pictures for training; whole pairs for scores."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..samples import Sample
from .options import Options
from .resize import resized_integers, shrunk

REACH = 3  # small pixels around a crop that its own small pixels depend on: the kernel reaches 2, cut at the border


def train_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of training, which draws from torch's default generator alone."""
    return TrainTransform(options)


def eval_transform(options: Options) -> Callable[[Sample], Sample]:
    """Build the transform of scores: the large picture cut to a multiple of the scale, and its small one."""
    return EvalTransform(options)


@dataclass(frozen=True)
class TrainTransform:
    """Squares cut from a pair, each flipped and turned alike.

    `image` becomes `(K, 3, c, c)`, K the number of crops and c the crop's side over the scale, and `hr` `(K, 3, C, C)`: uint8,
    or float32 in 0..255 of pictures of 16 bits.
    """

    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Cut `crops` squares at places where small and large pixels meet."""
        o = self.options
        large, small = _pixels(sample.image), sample.targets.get("lr")
        large = large[: large.shape[0] // o.scale * o.scale, : large.shape[1] // o.scale * o.scale]
        side = o.crop // o.scale
        large, other = _padded(large, o.crop), None if small is None else _padded(_pixels(small), side)
        cuts = []
        for _ in range(o.crops):
            whole = jittered(large, o) if other is None else large
            top, left = (int(torch.randint(length // o.scale - side + 1, (1,))) for length in whole.shape[:2])
            cut = whole[top * o.scale : top * o.scale + o.crop, left * o.scale : left * o.scale + o.crop]
            seen = (
                other[top : top + side, left : left + side]
                if other is not None
                else small_part(whole, top, left, side, o)
            )
            cuts.append(_turned(seen, cut, o))
        image, hr = (torch.stack([_as_input(one) for one in both]) for both in zip(*cuts, strict=True))
        return replace(sample, image=image, targets={"hr": hr})


def jittered(large: np.ndarray, options: Options) -> np.ndarray:
    """Take a part of a large picture `(H, W, C)` resized by a factor between the two of `jitter`: a picture of its own.

    It has room for a crop and the pixels that this depends on, where the picture has it. A factor that would make the picture
    smaller than a crop is raised; without `jitter`, and where the factor is then 1, the picture itself is returned.
    """
    if not options.jitter:
        return large
    low, high = options.jitter
    factor = max(low + (high - low) * float(torch.rand(1)), options.crop / min(large.shape[:2]))
    if factor >= 1:
        return large
    room, s = options.crop + 2 * REACH * options.scale, options.scale
    sides = [min(length, math.ceil(room / factor)) for length in large.shape[:2]]
    y, x = (int(torch.randint(length - side + 1, (1,))) for length, side in zip(large.shape[:2], sides, strict=True))
    height, width = (max(options.crop, round(side * factor / s) * s) for side in sides)
    return resized_integers(large[y : y + sides[0], x : x + sides[1]], height, width, border=options.border)


def small_part(large: np.ndarray, top: int, left: int, side: int, options: Options) -> np.ndarray:
    """Make the small pixels `top` and `left` to `side` further, as they are in the whole small picture.

    `large` is `(H, W, C)`. The kernel reaches a few pixels beyond; at the picture's own border the rule of the border holds.
    """
    s = options.scale
    height, width = large.shape[0] // s, large.shape[1] // s
    y0, y1 = max(0, top - REACH), min(height, top + side + REACH)
    x0, x1 = max(0, left - REACH), min(width, left + side + REACH)
    found = shrunk(large[y0 * s : y1 * s, x0 * s : x1 * s], s, options.border)
    return found[top - y0 : top - y0 + side, left - x0 : left - x0 + side]


@dataclass(frozen=True)
class EvalTransform:
    """The small picture as `image` `(3, h, w)`, uint8 or float32 in 0..255, and the large one, cut, as `hr` `(C, sh, sw)`."""

    options: Options

    def __call__(self, sample: Sample) -> Sample:
        """Cut the large picture, and make the small one where there is none. A picture to predict stays as it was read."""
        if "kind" in sample.targets:
            return replace(sample, image=_as_input(_pixels(sample.image)))
        o = self.options
        large = _pixels(sample.image)
        large = large[: large.shape[0] // o.scale * o.scale, : large.shape[1] // o.scale * o.scale]
        small = sample.targets.get("lr")
        seen = shrunk(large, o.scale, o.border) if small is None else _pixels(small)
        kind = torch.tensor([large.shape[2], 16 if large.dtype == np.uint16 else 8])
        return replace(sample, image=_as_input(seen), targets={"hr": _channels_first(large), "kind": kind})


def _pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _as_input(pixels: np.ndarray) -> Tensor:
    """Convert `(H, W, C)` to `(3, H, W)`: 16 bits to float32 in 0..255, grey to three equal channels."""
    if pixels.dtype == np.uint16:
        pixels = (pixels / np.float64(257)).astype(np.float32)
    return _channels_first(pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2))


def _padded(pixels: np.ndarray, side: int) -> np.ndarray:
    """Reflect a picture at its right and lower border until it has `side` pixels; the border itself is repeated.

    So a large picture and its small one stay aligned.
    """
    more = [(0, max(0, side - length)) for length in pixels.shape[:2]]
    return np.pad(pixels, [*more, (0, 0)], "symmetric") if any(after for _, after in more) else pixels


def _turned(small: np.ndarray, large: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray]:
    across, down, swapped = (
        bool(x < chance)
        for x, chance in zip(torch.rand(3).tolist(), (options.flip, options.turn, options.turn), strict=True)
    )
    both = []
    for one in (small, large):
        one = one[:, ::-1] if across else one
        one = one[::-1] if down else one
        both.append(one.transpose(1, 0, 2) if swapped else one)
    return both[0], both[1]
