"""The residual network: two blocks and a trunk that is put together from built parts.

Parameter names are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, ...).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trunkline.ground.errors import WeightsError

from .contract import Features, Preprocessing
from .norm import FrozenBatchNorm2d, statistics_held

Norm = Callable[[int], nn.Module]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1):
    """Build a convolution without bias that keeps the size at stride 1; the norm behind it has the bias."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)


def shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Sequential | None:
    """Build the projection (option B of He et al. 2016, section 3.3), or return None where shapes agree: the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), norm(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `(N, in_channels, H, W)` to `(N, channels, H/stride, W/stride)`.

    `dilations` are two: of the convolution that reads the grid before the stride, and of the one that reads the grid
    after it. They differ only in the first block of a dilated stage. He et al. 2016, figure 5 left.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, norm: Norm, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride, dilations[0])
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, 1, dilations[1])
        self.bn2 = norm(channels)
        self.downsample = shortcut(in_channels, channels, stride, norm)
        self.stride, self.out_channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(F(x) + x)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm whose zero makes the block the identity (or its projection)."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3 (in `groups`), 1x1 and a shortcut: `(N, in_channels, H, W)` to `(N, 4*channels, H/stride, W/stride)`.

    The stride is in the 3x3 ("3x3", torchvision) or in the first 1x1 ("1x1", He et al. 2016): the same shapes, other
    weights. `dilations` as in BasicBlock: a 3x3 behind a strided 1x1 reads the grid after the stride. He et al. 2016,
    figure 5 right; the grouped form of Xie et al. 2017, figure 3c.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        norm: Norm,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        width_per_group: int = 64,
        stride_in: str = "3x3",
    ) -> None:
        super().__init__()
        width = channels * width_per_group // 64 * groups
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        dilation = dilations[1] if stride_in == "1x1" else dilations[0]
        out_channels = channels * self.expansion
        self.conv1 = conv(in_channels, width, 1, first)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, second, dilation, groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out_channels, 1)
        self.bn3 = norm(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride, norm)
        self.stride, self.out_channels = stride, out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(F(x) + x)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm whose zero makes the block the identity (or its projection)."""
        return self.bn3


class Staged(nn.Module):
    """What the trunks of this package share: attributes that others read, and parts that can be frozen, the stem first.

    Plain attributes: `arch`, `stride_in` and `norm` say how it was built, `preprocessing`, `classes` and `report` what
    came with its weights, `checkpointing` whether blocks are recomputed in the backward pass, `settings` what was chosen of
    it besides its name and travels with its weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.time_strides: dict[str, int] = {}
        self.settings: dict[str, Any] = {}
        self._frozen = 0
        self.checkpointing = False
        self.arch: str | None = None
        self.stride_in = "3x3"
        self.norm = "batch"
        self.preprocessing = Preprocessing()
        self.classes: tuple[str, ...] | None = None
        self.report: object | None = None

    @property
    def stages(self) -> int:
        """How many parts can be frozen, the stem among them."""
        return len(self._parts())

    @property
    def frozen(self) -> int:
        """How many stages are frozen: 0 none, 1 the stem, 2 the stem and layer1, ... 5 all."""
        return self._frozen

    def freeze(self, stages: int) -> Self:
        """Freeze the first `stages` parts (0..5, the stem is the first) and thaw the rest; return the trunk.

        Frozen parts have `requires_grad` off and stay in eval mode in `train()`, so that their norms don't move. Raises
        WeightsError for a number out of range.
        """
        parts = self._parts()
        if not 0 <= stages <= len(parts):
            raise WeightsError(f"frozen={stages}: expected 0 (nothing), 1 (the stem), ... {len(parts)} (all)")
        self._frozen = stages
        for number, part in enumerate(parts, start=1):
            for module in part:
                module.requires_grad_(number > stages)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in torch, but keep frozen parts in eval mode."""
        super().train(mode)
        for part in self._parts()[: self._frozen]:
            for module in part:
                module.eval()
        return self

    def _recomputes(self, number: int) -> bool:
        """Say whether part `number` (from 1) is computed again in the backward pass."""
        return self.checkpointing and number > self._frozen and torch.is_grad_enabled()

    def _parts(self) -> list[list[nn.Module]]:
        raise NotImplementedError


class ResNet(Staged):
    """A residual trunk: images `(N, C, H, W)`, normalised float, to `{"c1": (N, C1, H/2, W/2), ..., "c5": ...}`.

    `stem` is a sequence of named layers that begins with a convolution; `pool` follows it (None: no pool); `stages` are
    sequences of blocks with `stride` and `out_channels`, called `layer1`, `layer2`, ... `c1` is the stem's output
    before the pool, `c2` that of `layer1`. `channels` and `strides` state each map's numbers.
    """

    def __init__(self, stem: nn.Sequential, stages: Sequence[nn.Sequential], pool: nn.Module | None = None) -> None:
        super().__init__()
        self._stem = tuple(name for name, _ in stem.named_children())
        self._stages = tuple(f"layer{i}" for i in range(1, len(stages) + 1))
        for name, part in [*stem.named_children(), *zip(self._stages, stages, strict=True)]:
            self.add_module(name, part)  # the trunk's own layers, so that names are conv1 and not stem.conv1
        self.maxpool = pool or nn.Identity()
        self.channels, self.strides = _shapes(stem, stages, self.maxpool)

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse."""
        x = images
        for name in self._stem:
            x = getattr(self, name)(x)
        features = {"c1": x}
        for number, name in enumerate(self._stages, start=2):
            x = self._pooled(x, number)
            recompute = self._recomputes(number)
            for block in getattr(self, name):
                x = recomputed(block, x) if recompute else block(x)
            features[f"c{number}"] = x
            # a node between the stages: else three gradients may meet in a map, in an order that DeepSpeed's hooks change
            x = x.view_as(x)
        return features

    def _pooled(self, x: Tensor, number: int) -> Tensor:
        """Apply the pool before part `number`, where there is one."""
        return self.maxpool(x) if number == 2 else x

    def _parts(self) -> list[list[nn.Module]]:
        return [[getattr(self, name) for name in self._stem], *([getattr(self, name)] for name in self._stages)]


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """Compute the block's output and keep nothing inside it; the second forward leaves running statistics alone.

    A block may have `again`: it is called in the first forward and gives a context for the second, in which the block sees
    what it saw then.
    """
    if torch.compiler.is_compiling():  # the compiler recomputes by its own graph, where statistics move once
        return checkpoint(block, x, use_reentrant=False)
    again: Any = getattr(block, "again", nullcontext)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _second(block, again())))


@contextmanager
def _second(block: nn.Module, again: AbstractContextManager) -> Iterator[None]:
    with statistics_held(block), again:
        yield


def initialise(trunk: nn.Module, zero_init: bool = True) -> None:
    """Set convolutions to random values (He et al. 2015, fan-out, for ReLU).

    With `zero_init`, set the last norm of each block (its `last_norm`) to zero, unless it is frozen.
    """
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in trunk.modules():
        last = getattr(module, "last_norm", None) if zero_init else None
        if last is not None and not isinstance(last, FrozenBatchNorm2d):
            nn.init.zeros_(last.get_parameter("weight"))


def _shapes(
    stem: nn.Sequential, stages: Sequence[nn.Sequential], pool: nn.Module
) -> tuple[dict[str, int], dict[str, int]]:
    """Find the channels and the strides of the maps, by name."""
    convolutions = [m for m in stem.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    channels = {"c1": convolutions[-1].out_channels}
    strides = {"c1": math.prod(convolution.stride[-1] for convolution in convolutions)}
    stride = strides["c1"] * _of_pool(pool)
    for number, stage in enumerate(stages, start=2):
        for block in stage:
            stride *= int(block.stride)  # type: ignore[arg-type]
        channels[f"c{number}"], strides[f"c{number}"] = int(stage[-1].out_channels), stride  # type: ignore[arg-type]
    return channels, strides


def _of_pool(pool: nn.Module) -> int:
    """Return a pool's stride in space; 1 for what is no pool."""
    stride: Any = pool.stride if isinstance(pool, nn.MaxPool2d | nn.MaxPool3d) else 1
    return stride if isinstance(stride, int) else stride[-1]
