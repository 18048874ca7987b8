"""A narrow trunk of one basic block a stage, for tests whose subject is not the trunk: fifty times fewer weights than ResNet-18.

Every process that has this folder on its path knows it by name (`narrow.dist-info`), as it would a package's.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

from torch import nn

from trunkline.backbones.build import for_channels, initialise
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.norm import norm_layer
from trunkline.backbones.pyramid import Pyramid
from trunkline.backbones.residual import BasicBlock, ResNet, conv
from trunkline.backbones.video.residual3d import ClipBlock, ClipResNet, conv3d, full

WIDTHS = (32, 32, 32, 64, 64)  # GroupNorm divides them by 32


def narrow(
    in_channels: int = 3,
    output_stride: int = 32,
    norm: str = "batch",
    checkpointing: bool = False,
    zero_init: bool = True,
) -> ResNet:
    layer = norm_layer(norm)
    stem = nn.Sequential(
        OrderedDict(conv1=conv(in_channels, WIDTHS[0], 7, 2), bn1=layer(WIDTHS[0]), relu=nn.ReLU(inplace=True))
    )
    stages, net_stride, dilation = [], 4, 1
    for number, (before, width) in enumerate(pairwise(WIDTHS)):
        stride, first = 1 if number == 0 else 2, dilation
        if net_stride * stride > output_stride:
            dilation, stride = dilation * stride, 1
        net_stride *= stride
        stages.append(nn.Sequential(BasicBlock(before, width, layer, stride=stride, dilations=(first, dilation))))
    trunk = ResNet(stem, stages, nn.MaxPool2d(3, 2, 1))
    trunk.arch, trunk.stride_in, trunk.norm, trunk.checkpointing = "narrow", "3x3", norm, checkpointing
    trunk.preprocessing = for_channels(Preprocessing(), in_channels)
    initialise(trunk, zero_init)
    return trunk


def narrow_clips(norm: str = "batch", zero_init: bool = True) -> ClipResNet:
    """The same over time: one block of R3D a stage; give `network.wrapper=none` beside it."""
    layer = norm_layer(norm, clips=True)
    first = nn.Sequential(conv3d(3, WIDTHS[0], (3, 7, 7), 2), layer(WIDTHS[0]), nn.ReLU(inplace=True))
    stages = [
        nn.Sequential(ClipBlock(before, width, full, layer, stride=stride, time_stride=stride))
        for stride, (before, width) in zip((1, 2, 2, 2), pairwise(WIDTHS), strict=True)
    ]
    trunk = ClipResNet(nn.Sequential(OrderedDict(stem=first)), stages)
    trunk.arch, trunk.norm, trunk.preprocessing = "narrow_clips", norm, Preprocessing()
    initialise(trunk, zero_init)
    return trunk


def slim_pool(body: Any) -> Pyramid:
    """A pyramid for two-stage heads of 32 channels in place of 256; give `network.pyramid=none` beside it."""
    return Pyramid(body, "pool", 32)


def slim_conv(body: Any) -> Pyramid:
    """The same for one-stage heads."""
    return Pyramid(body, "conv", 32)
