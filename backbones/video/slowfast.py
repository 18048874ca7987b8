"""SlowFast with a ResNet-50: two pathways over the same clip, with lateral connections. Names are PySlowFast's.

Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 3 and table 1.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract import Features
from ..residual import Norm, Staged, recomputed
from .residual3d import check_clips, conv3d

_LAYERS = (3, 4, 6, 3)
_SLOW, _FAST = 64, 8  # channels of the stems: beta is 1/8
_LATERAL = 2  # a lateral connection widens the fast pathway's channels so many times
_TIMES = ((1, 5), (1, 3), (1, 3), (3, 3), (3, 3))
"""Over how many frames convolutions go, of the stem and the four stages, in the slow and in the fast pathway."""


class SlowFast(Staged):
    """Clips `(N, 3, T, H, W)` at the fast rate, normalised float, to the maps of both pathways.

    `c1` to `c5` are the slow pathway's, `(N, C, T/alpha, h, w)`: it sees every alpha-th frame, spread from the first to the
    last; `f1` to `f5` are the fast pathway's, `(N, C/8, T, h, w)`. A map is what its stage gives, before the lateral
    connection is joined to it; `c1` and `f1` are the stems' before their pools. `pooled` names the maps that a head pools,
    each over its own time, and concatenates: `c5` and `f5`, 2048 and 256 channels, in this order.

    alpha   the fast pathway's frames for one of the slow one's
    fusion  frames over which a lateral connection goes

    Raises WeightsError in the forward pass for pictures, and for a number of frames that alpha does not divide.
    """

    pooled = ("c5", "f5")

    def __init__(self, alpha: int, fusion: int, norm: Norm) -> None:
        super().__init__()
        self.alpha = alpha
        widths = [_SLOW, _FAST]
        self.s1 = nn.ModuleDict(
            {
                f"pathway{p}_stem": _stem(width, time, norm)
                for p, (width, time) in enumerate(zip(widths, _TIMES[0], strict=True))
            }
        )
        for number, count in enumerate(_LAYERS, start=2):
            self.add_module(f"s{number - 1}_fuse", _lateral(widths[1], alpha, fusion, norm))
            into = (widths[0] + _LATERAL * widths[1], widths[1])
            widths = [start * 2**number for start in (_SLOW, _FAST)]
            blocks: dict[str, nn.Module] = {}
            for pathway, (before, width, time) in enumerate(zip(into, widths, _TIMES[number - 1], strict=True)):
                for at in range(count):
                    stride = 2 if at == 0 and number > 2 else 1
                    blocks[f"pathway{pathway}_res{at}"] = SlowFastBlock(
                        width if at else before, width, time, stride, norm
                    )
            self.add_module(f"s{number}", nn.ModuleDict(blocks))
        for number in range(1, len(_TIMES) + 1):
            for kind, start, step in (("c", _SLOW, alpha), ("f", _FAST, 1)):
                self.channels[f"{kind}{number}"] = start if number == 1 else start * 2**number
                self.strides[f"{kind}{number}"] = 2 if number == 1 else 2**number
                self.time_strides[f"{kind}{number}"] = step

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse, the slow one of a stage first."""
        check_clips(self.arch, images)
        x, features = [self._slow_frames(images), images], {}
        for number in range(1, len(_TIMES) + 1):
            if number > 1:
                x = self._joined(number, *x)
            x = [self._stage(number, pathway, maps) for pathway, maps in enumerate(x)]
            features |= {f"c{number}": x[0], f"f{number}": x[1]}
        return features

    def _slow_frames(self, clips: Tensor) -> Tensor:
        """Take the slow pathway's frames as PySlowFast does: spread from the first to the last, rounded down."""
        frames = clips.shape[2]
        at = torch.linspace(0, frames - 1, frames // self.alpha, device="cpu").long()
        return clips.index_select(2, at.to(clips.device))

    def _joined(self, number: int, slow: Tensor, fast: Tensor) -> list[Tensor]:
        """Pool what the stems gave, and add the fast pathway's channels to the slow one's, before part `number`."""
        slow, fast = slow.view_as(slow), fast.view_as(fast)  # nodes between the stages, as in `ResNet`
        if number == 2:
            slow, fast = (F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) for x in (slow, fast))
        lateral = self.get_submodule(f"s{number - 1}_fuse")(fast)
        return [torch.cat([slow, lateral], 1), fast.view_as(fast)]

    def _stage(self, number: int, pathway: int, x: Tensor) -> Tensor:
        recompute = number > 1 and self._recomputes(number)
        for name, block in self.get_submodule(f"s{number}").named_children():
            if name.startswith(f"pathway{pathway}_"):
                x = recomputed(block, x) if recompute else block(x)
        return x

    def _parts(self) -> list[list[nn.Module]]:
        """List what can be frozen: a stage with the lateral connection behind it."""
        names = [*([f"s{n}", f"s{n}_fuse"] for n in range(1, len(_TIMES))), [f"s{len(_TIMES)}"]]
        return [[self.get_submodule(name) for name in part] for part in names]


class SlowFastBlock(nn.Module):
    """Tx1x1, 1x3x3, 1x1x1 and a shortcut: `(N, in_channels, T, H, W)` to `(N, channels, T, H/stride, W/stride)`.

    A bottleneck by PySlowFast's names; the stride is in the 1x3x3, and `time` is the first kernel's T.
    """

    def __init__(self, in_channels: int, channels: int, time: int, stride: int, norm: Norm) -> None:
        super().__init__()
        inner = channels // 4
        self.branch1 = self.branch1_bn = None
        if stride != 1 or in_channels != channels:
            self.branch1, self.branch1_bn = conv3d(in_channels, channels, (1, 1, 1), stride), norm(channels)
        self.branch2 = nn.Sequential(
            OrderedDict(
                a=conv3d(in_channels, inner, (time, 1, 1)),
                a_bn=norm(inner),
                a_relu=nn.ReLU(inplace=True),
                b=conv3d(inner, inner, (1, 3, 3), stride),
                b_bn=norm(inner),
                b_relu=nn.ReLU(inplace=True),
                c=conv3d(inner, channels, (1, 1, 1)),
                c_bn=norm(channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(F(x) + x)."""
        out = self.branch2(x)
        out += x if self.branch1 is None or self.branch1_bn is None else self.branch1_bn(self.branch1(x))
        return F.relu(out, inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm whose zero makes the block the identity (or its projection)."""
        return self.branch2.get_submodule("c_bn")


def _stem(width: int, time: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=conv3d(3, width, (time, 7, 7), 2), bn=norm(width), relu=nn.ReLU(inplace=True))
    )


def _lateral(width: int, alpha: int, fusion: int, norm: Norm) -> nn.Sequential:
    """Build what makes the fast pathway's map fit the slow one: a convolution over time with stride alpha. Section 3.4."""
    out = _LATERAL * width
    conv = conv3d(width, out, (fusion, 1, 1), 1, alpha)
    return nn.Sequential(OrderedDict(conv_f2s=conv, bn=norm(out), relu=nn.ReLU(inplace=True)))
