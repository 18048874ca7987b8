"""Any trunk for pictures as one for clips: frame by frame, and with the temporal shift inside its residual branches.

Lin et al. 2019, "TSM: Temporal Shift Module for Efficient Video Understanding".
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from ..contract import Around, Features
from ..residual import BasicBlock, Bottleneck
from .names import SHIFTED_STAGE

SHIFT_DIV = 8


class Frames(Around, nn.Module):
    """A trunk for pictures on each frame: clips `(N, C, T, H, W)` to its maps over time, `(N, C, T, h, w)`.

    Pictures `(N, C, H, W)` go through the trunk as they are, so that tasks of clips and of pictures can share it. What it
    states is the trunk's, and every `time_strides` is 1. It adds no tensors: what is published is the trunk's file
    (`transparent`). Raises WeightsError for a trunk that takes clips itself.
    """

    transparent = True

    def __init__(self, body: Any) -> None:
        super().__init__()
        if body.time_strides:
            raise WeightsError(
                f"network.wrapper: {body.arch} takes clips itself, not their frames; set network.wrapper=none"
            )
        self.body = body
        self.channels: dict[str, int] = body.channels
        self.strides: dict[str, int] = body.strides
        self.time_strides = dict.fromkeys(body.channels, 1)

    def forward(self, clips: Tensor) -> Features:
        """Compute all maps, fine to coarse: those of clips over time, those of pictures without it."""
        if clips.ndim == 4:
            return self.body(clips)
        if clips.ndim != 5:
            raise WeightsError(
                f"{self.arch} over frames: takes clips (N, C, T, H, W) or pictures (N, C, H, W), and this is "
                f"{tuple(clips.shape)}"
            )
        count, frames = clips.shape[0], clips.shape[2]
        found: Features = self.body(clips.transpose(1, 2).flatten(0, 1))
        return {name: x.unflatten(0, (count, frames)).transpose(1, 2) for name, x in found.items()}

    def freeze(self, stages: int) -> "Frames":
        """Freeze the trunk's first `stages` parts, and thaw the rest."""
        self.body.freeze(stages)
        return self


class ShiftedFrames(Frames):
    """The same with the temporal shift (TSM): inside each residual branch a quarter of the channels comes from other frames.

    Before a block's first convolution the first eighth of the channels takes the next frame's values, the second eighth those
    of the frame before, and zeros at the clip's ends; the shortcut is not shifted. Of a network that has a stage of 23 blocks
    or more, every second block is shifted. Pictures have no other frames, and nothing of theirs is shifted. It has no
    parameters, and the number of frames may change from call to call. Lin et al. 2019, sections 3 and 4, and its code
    ("blockres").

    Raises WeightsError for a trunk without BasicBlock and Bottleneck (ours or timm's ResNet's).
    """

    def __init__(self, body: Any) -> None:
        super().__init__(body)
        stages = _residual_stages(body)
        if not stages:
            raise WeightsError(
                f"network.wrapper=tsm: shifts the residual branches of BasicBlock and Bottleneck, and {body.arch} has none of "
                f"them (its blocks: {', '.join(_blocks_of(body)) or 'none'}); take a ResNet, or network.wrapper=frames"
            )
        self.shift = Shift()
        step = 2 if any(len(stage) >= SHIFTED_STAGE for stage in stages) else 1
        chosen = [block for stage in stages for block in stage[::step]]
        for block in chosen:
            block.get_submodule("conv1").register_forward_pre_hook(self.shift)
            block.again = self.shift.again  # type: ignore[assignment]
        often = f"every second block ({len(chosen)})"
        many = f"{body.arch}: tsm shifts {often}, as its authors do where a stage has {SHIFTED_STAGE} or more"
        self.remarks = [many] if step > 1 else []

    def forward(self, clips: Tensor) -> Features:
        """Compute all maps, fine to coarse; of pictures without a shift."""
        self.shift.frames = clips.shape[2] if clips.ndim == 5 else 0
        return super().forward(clips)


class Shift:
    """What is called before a block's first convolution, and shifts its input `(N*T, C, h, w)`; `frames` is T, of pictures 0."""

    def __init__(self) -> None:
        self.frames = 1

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Shift the first of a convolution's arguments."""
        return (shifted(args[0], self.frames), *args[1:]) if self.frames else args

    def again(self) -> AbstractContextManager[None]:
        """Return a context with the frames of this moment, for a block that is computed again in the backward pass."""
        return self._with(self.frames)

    @contextmanager
    def _with(self, frames: int) -> Iterator[None]:
        before, self.frames = self.frames, frames
        try:
            yield
        finally:
            self.frames = before


def shifted(x: Tensor, frames: int) -> Tensor:
    """Shift an eighth of the channels of `(N*T, C, h, w)` to the frame before, and the next eighth to the frame behind.

    Channel c of frame t becomes that of frame t + 1 in the first eighth, of t - 1 in the second, and 0 where there is no such
    frame.
    """
    clips = x.unflatten(0, (-1, frames))
    fold = clips.shape[2] // SHIFT_DIV
    found = torch.zeros_like(clips)
    found[:, :-1, :fold] = clips[:, 1:, :fold]
    found[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    found[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return found.flatten(0, 1)


def _residual_stages(body: nn.Module) -> list[list[nn.Module]]:
    """List the blocks that can be shifted, those of one parent together."""
    from timm.models import resnet

    kinds = (BasicBlock, Bottleneck, resnet.BasicBlock, resnet.Bottleneck)
    stages: list[list[nn.Module]] = [
        [m for m in parent.children() if isinstance(m, kinds)] for parent in body.modules()
    ]
    return [stage for stage in stages if stage]


def _blocks_of(body: nn.Module) -> list[str]:
    """Name the classes of a network's blocks: modules of modules that are no layers of torch's and no containers."""
    own = [m for m in body.modules() if not type(m).__module__.startswith("torch.") and any(m.children())]
    return sorted({type(m).__name__ for m in own if "Block" in type(m).__name__ or "ottleneck" in type(m).__name__})
