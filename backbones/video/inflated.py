"""A 2-D residual trunk inflated over time (I3D): some of its convolutions see several frames. Names stay torchvision's.

Carreira and Zisserman 2017, section 2.4. Which convolutions, and the pool over time behind the first stage, are PySlowFast's
(its I3D; Wang et al. 2018, "Non-local Neural Networks", table 1, has a sparser one).
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from ..residual import Norm, ResNet
from ..table import INFLATE
from .convolution import Conv3d
from .residual3d import ClipResNet

_STEM = 5
_BLOCKS = {"layer1": (3,), "layer2": (3, 1), "layer3": (3, 1), "layer4": (1, 3)}
"""Over how many frames the first convolution of each block of a stage goes, in turn."""


class RepeatedConv3d(nn.Conv3d):
    """A convolution whose time is padded by repeating the border frames, and its space by zeros: `(N, C, T, H, W)`."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        frames = self.kernel_size[0] // 2
        if frames:
            first, last = input[:, :, :1], input[:, :, -1:]
            input = torch.cat([first] * frames + [input] + [last] * frames, 2)
        padding = (0, int(self.padding[1]), int(self.padding[2]))
        return F.conv3d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def inflated(flat: ResNet, inflate: str, norm: Norm) -> ClipResNet:
    """Make the trunk for clips of a 2-D one, whose blocks it takes and gives new convolutions and norms (`norm` makes them).

    The stem's convolution goes over 5 frames; in each block the first convolution, of a bottleneck 1x1 and of a basic block
    3x3, goes over 3 where `_BLOCKS` says so; all others over 1. Time is padded by zeros with `inflate` "centre", by repeating
    the border frames with "mean". No convolution has a stride in time; a pool behind `layer1` halves it. Raises WeightsError
    for another `inflate`.
    """
    if inflate not in INFLATE:
        raise WeightsError(f"inflate={inflate}: expected one of {', '.join(INFLATE)}")
    kind = RepeatedConv3d if inflate == "mean" else Conv3d
    stem = nn.Sequential(OrderedDict((name, getattr(flat, name)) for name in ("conv1", "bn1", "relu")))
    _over_time(stem, kind, _STEM, norm)
    stages = [getattr(flat, name) for name in _BLOCKS]
    for stage, times in zip(stages, _BLOCKS.values(), strict=True):
        for at, block in enumerate(stage):
            _over_time(block, kind, times[at % len(times)], norm)
    trunk = ClipResNet(stem, stages, nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.MaxPool3d((2, 1, 1), (2, 1, 1)))
    trunk.settings = {"inflate": inflate}
    trunk.stride_in = flat.stride_in
    return trunk


def _over_time(part: nn.Module, kind: type[nn.Conv3d], frames: int, norm: Norm) -> None:
    """Replace convolutions and batch norms in a part by those for clips; `conv1` goes over so many frames."""
    for name, module in list(part.named_modules()):
        if isinstance(module, nn.Conv2d):
            part.set_submodule(name, _conv(module, kind, frames if name == "conv1" else 1))
        elif isinstance(module, nn.BatchNorm2d):
            part.set_submodule(name, norm(module.num_features))


def _conv(flat: nn.Conv2d, kind: type[nn.Conv3d], frames: int) -> nn.Conv3d:
    (high, wide), (down, right), (top, left) = flat.kernel_size, flat.stride, flat.padding
    return kind(
        flat.in_channels,
        flat.out_channels,
        (frames, high, wide),
        (1, down, right),
        (frames // 2, int(top), int(left)),
        groups=flat.groups,
        bias=False,
    )


def inflate_weights(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], inflate: str
) -> tuple[dict[str, Tensor], str]:
    """Give the convolutions of a 2-D network their time: `(O, I, H, W)` to `(O, I, T, H, W)` where the trunk's `own` have it.

    With "centre" the kernel's middle frame is the 2-D one and the others are zero; with "mean" each is the 2-D one divided by
    T. Return the tensors, and what was done, in words; "" where there was nothing to do.
    """
    found, over_time, flat = dict(given), 0, 0
    for name, tensor in given.items():
        if tensor.ndim == 4 and name in own and own[name].ndim == 5:
            frames = own[name].shape[2]
            found[name] = _inflated(tensor.to(own[name].dtype), frames, inflate)
            flat, over_time = flat + 1, over_time + (frames > 1)
    if not flat:
        return found, ""
    how = "in the middle of the kernel" if inflate == "centre" else "repeated and divided by the kernel's frames"
    return (
        found,
        f"{flat} 2-D convolutions inflated, {over_time} of them over several frames: {how} (inflate={inflate})",
    )


def _inflated(tensor: Tensor, frames: int, inflate: str) -> Tensor:
    if inflate == "mean":
        return tensor.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
    found = tensor.new_zeros(*tensor.shape[:2], frames, *tensor.shape[2:])
    found[:, :, frames // 2] = tensor
    return found
