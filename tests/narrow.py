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


def slim_pool(body: Any) -> Pyramid:
    """A pyramid for two-stage heads of 32 channels in place of 256; give `network.pyramid=none` beside it."""
    return Pyramid(body, "pool", 32)


def slim_conv(body: Any) -> Pyramid:
    """The same for one-stage heads."""
    return Pyramid(body, "conv", 32)
