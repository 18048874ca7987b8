"""Residual trunks over time: R3D-18, MC3-18 and R(2+1)D-18. Names are torchvision's.

Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition", sections 3.2 to 3.4 and table 1.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from ..contract import Features
from ..residual import Norm, ResNet
from ..table import frames_problem
from .convolution import Conv3d

Convolution = Callable[[int, int, int, int, Norm], nn.Module]
"""Makes what stands for a 3x3x3 convolution: channels in, between and out, its stride, and norms."""
_WIDTHS = (64, 64, 128, 256, 512)


def check_clips(arch: str | None, clips: Tensor) -> None:
    """Raise WeightsError for pictures in place of clips, and for clips of a number of frames that the trunk does not take."""
    if clips.ndim != 5:
        raise WeightsError(
            f"{arch}: takes clips (N, 3, T, H, W), and this batch is {tuple(clips.shape)}: for pictures take another trunk"
        )
    if said := frames_problem(arch, clips.shape[2]):
        raise WeightsError(said)


def conv3d(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: int = 1, time_stride: int = 1
) -> nn.Conv3d:
    """Build a convolution without bias that keeps the size at stride 1. `kernel` is time, height and width."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return Conv3d(in_channels, out_channels, kernel, (time_stride, stride, stride), padding, bias=False)


class ClipResNet(ResNet):
    """A residual trunk over time: clips `(N, 3, T, H, W)`, normalised float, to `{"c1": (N, C1, T1, H/2, W/2), ...}`.

    It is put together as `ResNet` is, of parts for clips. `time_pool` stands between `layer1` and `layer2` (None: nothing).
    Raises WeightsError in the forward pass for pictures, and for a number of frames that it does not take.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        stages: Sequence[nn.Sequential],
        pool: nn.Module | None = None,
        time_pool: nn.MaxPool3d | None = None,
    ) -> None:
        super().__init__(stem, stages, pool)
        self.timepool = time_pool or nn.Identity()
        steps = [prod(m.stride[0] for m in stem.modules() if isinstance(m, nn.Conv3d))]
        for number, stage in enumerate(stages, start=2):
            pooled = 2 if time_pool and number == 3 else 1
            steps.append(steps[-1] * pooled * prod(int(getattr(block, "time_stride", 1)) for block in stage))
        self.time_strides = dict(zip(self.channels, steps, strict=True))

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse."""
        check_clips(self.arch, images)
        return super().forward(images)

    def _pooled(self, x: Tensor, number: int) -> Tensor:
        return self.timepool(x) if number == 3 else super()._pooled(x, number)


class ClipBlock(nn.Module):
    """Two convolutions over space and time and a shortcut: `(N, in_channels, T, H, W)` to `(N, channels, T/t, H/s, W/s)`.

    `convolution` makes them; `stride` is s, `time_stride` t. Tran et al. 2018, figure 1.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        convolution: Convolution,
        norm: Norm,
        *,
        stride: int = 1,
        time_stride: int = 1,
    ) -> None:
        super().__init__()
        # as many channels between as make the parameters of both kinds the same; the second convolution has the first one's
        between = in_channels * channels * 27 // (in_channels * 9 + channels * 3)
        first = convolution(in_channels, between, channels, stride, norm)
        second = convolution(channels, between, channels, 1, norm)
        self.conv1 = nn.Sequential(first, norm(channels), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, norm(channels))
        self.downsample = None
        if stride != 1 or in_channels != channels:
            projection = conv3d(in_channels, channels, (1, 1, 1), stride, time_stride)
            self.downsample = nn.Sequential(projection, norm(channels))
        self.stride, self.time_stride, self.out_channels = stride, time_stride, channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(F(x) + x)."""
        out = self.conv2(self.conv1(x))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm whose zero makes the block the identity (or its projection)."""
        return self.conv2[1]


def full(in_channels: int, between: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    """Build one 3x3x3 convolution, strided in space and time. Section 3.2."""
    return conv3d(in_channels, channels, (3, 3, 3), stride, stride)


def flat(in_channels: int, between: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    """Build one 1x3x3 convolution: frame by frame. Section 3.3."""
    return conv3d(in_channels, channels, (1, 3, 3), stride)


def factored(in_channels: int, between: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    """Build a 1x3x3 convolution, norm, ReLU and a 3x1x1 convolution. Section 3.4."""
    space = conv3d(in_channels, between, (1, 3, 3), stride)
    time = conv3d(between, channels, (3, 1, 1), 1, stride)
    return nn.Sequential(space, norm(between), nn.ReLU(inplace=True), time)


_CONVOLUTIONS: dict[str, tuple[Convolution, ...]] = {
    "r3d_18": (full, full, full, full),
    "mc3_18": (full, flat, flat, flat),
    "r2plus1d_18": (factored, factored, factored, factored),
}
"""Of the four stages."""


def residual3d(name: str, norm: Norm) -> ClipResNet:
    """Build R3D-18, MC3-18 or R(2+1)D-18 with norms for clips. Their stems keep the time, and there is no pool."""
    stages = []
    for number, ((before, width), convolution) in enumerate(zip(pairwise(_WIDTHS), _CONVOLUTIONS[name], strict=True)):
        stride = 1 if number == 0 else 2
        time_stride = 1 if convolution is flat else stride
        first = ClipBlock(before, width, convolution, norm, stride=stride, time_stride=time_stride)
        stages.append(nn.Sequential(first, ClipBlock(width, width, convolution, norm)))
    return ClipResNet(nn.Sequential(OrderedDict(stem=_stem(name, norm))), stages)


def _stem(name: str, norm: Norm) -> nn.Sequential:
    if name == "r2plus1d_18":
        space, time = conv3d(3, 45, (1, 7, 7), 2), conv3d(45, 64, (3, 1, 1))
        return nn.Sequential(space, norm(45), nn.ReLU(inplace=True), time, norm(64), nn.ReLU(inplace=True))
    return nn.Sequential(conv3d(3, 64, (3, 7, 7), 2), norm(64), nn.ReLU(inplace=True))
