"""The blocks of super-resolution's trunks: residual without and with norms, and dense. All keep the size.

Parameter names are BasicSR's.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..norm import FrozenBatchNorm2d
from ..residual import conv
from .names import GROWTH

DENSE_SCALE = 0.2
"""What a dense block's result is multiplied by before it is added (Wang et al. 2018, section 3.1)."""


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Build a 3x3 convolution with bias that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, 1, 1)


def small_init(convolutions: Iterable[nn.Module]) -> None:
    """Set convolutions to a tenth of He's values, fan-in, and biases to 0 (Wang et al. 2018, supplementary, section 1)."""
    for module in convolutions:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            with torch.no_grad():
                module.weight.mul_(0.1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PlainBlock(nn.Module):
    """Convolution, ReLU, convolution, times `scale`, plus the input: `(N, C, H, W)` in and out. Lim et al. 2017, figure 2c."""

    def __init__(self, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(width, width), conv3(width, width)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + scale * F(x)."""
        return torch.add(x, self.conv2(self.conv1(x).relu_()), alpha=self.scale)


class NormBlock(nn.Module):
    """Convolution, norm, PReLU, convolution, norm, plus the input: `(N, C, H, W)` in and out. Ledig et al. 2017, figure 4.

    The convolutions have no bias: the norms behind them do. With `zero_init` the block begins as the identity.
    """

    def __init__(self, width: int, norm: Callable[[int], nn.Module], zero_init: bool) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = conv(width, width, 3), norm(width), nn.PReLU()
        self.conv2, self.bn2 = conv(width, width, 3), norm(width)
        if zero_init and not isinstance(self.bn2, FrozenBatchNorm2d):
            nn.init.zeros_(self.bn2.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + F(x)."""
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))


class DenseBlock(nn.Module):
    """Five convolutions, each of which reads the input and all before it: `(N, C, H, W)` in and out.

    Wang et al. 2018, figure 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for number in range(1, 6):
            into = GROWTH if number < 5 else width
            self.add_module(f"conv{number}", conv3(width + GROWTH * (number - 1), into))

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + 0.2 * F(x)."""
        so_far = [x]
        for number in range(1, 5):
            out = self.get_submodule(f"conv{number}")(so_far[0] if number == 1 else torch.cat(so_far, 1))
            so_far.append(nn.functional.leaky_relu(out, 0.2, inplace=True))
        return torch.add(x, self.get_submodule("conv5")(torch.cat(so_far, 1)), alpha=DENSE_SCALE)


class DenseResidualBlock(nn.Module):
    """Three dense blocks in a residual one: `(N, C, H, W)` in and out. Wang et al. 2018, figure 4 (RRDB)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(width), DenseBlock(width), DenseBlock(width)
        small_init(self.modules())

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + 0.2 * F(x)."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=DENSE_SCALE)
