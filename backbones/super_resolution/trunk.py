"""Trunks of stride 1: SRResNet, MSRResNet, EDSR and RRDBNet without their tails. Names are BasicSR's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from ..contract import Features, Sizes
from ..norm import norm_layer
from ..residual import conv, recomputed
from ..table import SUPER_RESOLUTION, settings_problem
from .blocks import DenseResidualBlock, NormBlock, PlainBlock, conv3, small_init
from .settings import UNSHUFFLES, usual_preprocessing, usual_scale


class UpscalingTrunk(nn.Module):
    """Images `(N, 3, H, W)`, normalised float, to `{"c1": (N, C, H/u, W/u), "c2": …}`; u is 1 but for a pixel-unshuffle.

    `c1` is the first convolution's output, after its activation where the network has one; `c2` the end of the trunk, after
    the skip over it where the network has one. Sides that u does not divide are padded right and below, by reflection as
    far as the picture reaches and by its last pixel beyond; the maps are those of the padded picture, and a head cuts. All
    images of a batch must have the same size: what is beyond a smaller one would be seen by it.

    arch            srresnet, msrresnet, edsr or rrdbnet
    blocks, width   residual blocks, and channels of the maps; None: as published
    unshuffle       u: 1, 2 or 4 (Shi et al. 2016 backwards; Wang et al. 2021, section 4.1)
    residual_scale  of edsr; None: as published
    norm            a policy of `norm_layer`, of srresnet alone
    checkpointing   blocks are computed again in the backward pass

    Raises WeightsError for a value that is not known.
    """

    stages, stride_in = 2, "3x3"

    def __init__(
        self,
        arch: str,
        blocks: int | None = None,
        width: int | None = None,
        unshuffle: int = 1,
        residual_scale: float | None = None,
        *,
        norm: str = "batch",
        checkpointing: bool = False,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        row = SUPER_RESOLUTION[arch]
        given = {"blocks": blocks, "width": width, "unshuffle": unshuffle, "residual_scale": residual_scale}
        _check(arch, given, norm)
        deep, wide = int(blocks or row["blocks"]), int(width or row["width"])
        scale = usual_scale(arch, deep, wide) if residual_scale is None else float(residual_scale)
        self.settings: dict[str, Any] = {"blocks": deep, "width": wide, "unshuffle": unshuffle}
        if arch == "edsr":
            self.settings["residual_scale"] = scale
        layer = norm_layer(norm) if arch == "srresnet" else None
        self._after = _AFTER[arch]
        self._put_together(arch, layer, zero_init, scale)
        self.channels = {"c1": wide, "c2": wide}
        self.strides = {"c1": unshuffle, "c2": unshuffle}
        self.time_strides: dict[str, int] = {}
        self.sizes, self.checkpointing = Sizes(unit=unshuffle), checkpointing
        self.arch, self.norm, self._frozen = arch, norm, 0
        self.preprocessing = usual_preprocessing(arch)
        self.classes: tuple[str, ...] | None = None
        self.report: object | None = None

    def _put_together(self, arch: str, layer: Callable[[int], nn.Module] | None, zero_init: bool, scale: float) -> None:
        """Make the layers, in the order of their use, with random values: the publishers', srresnet's as the house's."""
        blocks, width, unshuffle = (self.settings[name] for name in ("blocks", "width", "unshuffle"))
        kernel = 9 if arch == "srresnet" else 3
        self.conv_first = nn.Conv2d(3 * unshuffle**2, width, kernel, 1, kernel // 2)
        self.activation: Callable[[Tensor], Tensor] | None = None
        if arch == "msrresnet":
            self.activation = _leaky
        elif arch == "srresnet":
            self.prelu = nn.PReLU()
        if layer:
            body: list[nn.Module] = [NormBlock(width, layer, zero_init) for _ in range(blocks)]
        elif arch == "rrdbnet":
            body = [DenseResidualBlock(width) for _ in range(blocks)]
        else:
            body = [PlainBlock(width, scale) for _ in range(blocks)]
        self.body = nn.Sequential(*body)
        for name in self._after:
            self.add_module(name, _behind(name, width, layer))
        if arch == "msrresnet":
            small_init(self.modules())
        if arch == "srresnet":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Features:
        """Compute both maps."""
        x = self.conv_first(unshuffled(images, self.strides["c1"]))
        if self.activation is not None:
            x = self.activation(x)
        elif self.arch == "srresnet":
            x = self.prelu(x)
        # a node before the body: else three gradients meet in c1, in an order that DeepSpeed's hooks may change
        y = x.view_as(x)
        recompute = self.checkpointing and self._frozen < self.stages and torch.is_grad_enabled()
        for block in self.body:
            y = recomputed(block, y) if recompute else block(y)
        for name in self._after:
            y = self.get_submodule(name)(y)
        return {"c1": x, "c2": x + y if self._after else y}

    @property
    def frozen(self) -> int:
        """How many of the two parts are frozen: 0 none, 1 the first convolution, 2 all."""
        return self._frozen

    @property
    def remarks(self) -> list[str]:
        """Say which pictures are padded; empty where none are."""
        unit = self.sizes.unit
        return [f"{self.arch}: sides that {unit} does not divide are padded by reflection"] if unit > 1 else []

    def freeze(self, stages: int) -> "UpscalingTrunk":
        """Freeze the first `stages` of two parts (the first convolution, the body), and thaw the rest.

        Raises WeightsError for a number out of range.
        """
        if stages not in range(self.stages + 1):
            raise WeightsError(f"frozen={stages}: expected 0 (nothing), 1 (the first convolution) or 2 (all)")
        self._frozen = stages
        for number, part in self._numbered():
            part.requires_grad_(number > stages)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "UpscalingTrunk":
        """Set the mode as in torch, but keep frozen parts in eval mode."""
        super().train(mode)
        for number, part in self._numbered():
            if number <= self._frozen:
                part.eval()
        return self

    def _numbered(self) -> list[tuple[int, nn.Module]]:
        return [(1 if name in ("conv_first", "prelu") else 2, part) for name, part in self.named_children()]


_AFTER = {
    "srresnet": ("conv_body", "bn_body"),
    "msrresnet": (),
    "edsr": ("conv_after_body",),
    "rrdbnet": ("conv_body",),
}
"""The layers behind the body, whose result is added to the first convolution's; without any there is no such skip."""


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


def _behind(name: str, width: int, layer: Callable[[int], nn.Module] | None) -> nn.Module:
    """Make a layer behind the body: a convolution, or of srresnet one without bias and its norm."""
    if layer is None:
        return conv3(width, width)
    return layer(width) if name == "bn_body" else conv(width, width, 3)


def _check(arch: str, given: dict[str, Any], norm: str) -> None:
    problem = settings_problem(arch, given)
    for name in ("blocks", "width"):
        if given[name] is not None and given[name] < 1:
            problem = f"{name}={given[name]}: expected a whole number of at least 1"
    if not problem and given["unshuffle"] not in UNSHUFFLES:
        problem = f"unshuffle={given['unshuffle']}: expected one of {', '.join(map(str, UNSHUFFLES))}"
    if not problem and norm != "batch" and arch != "srresnet":
        problem = f"norm={norm}: {arch} has no norms; leave it out"
    if problem:
        raise WeightsError(problem)


def unshuffled(images: Tensor, unit: int) -> Tensor:
    """Move each square of `unit` pixels into channels: `(N, C, H, W)` to `(N, C*unit², ⌈H/unit⌉, ⌈W/unit⌉)`."""
    return images if unit == 1 else F.pixel_unshuffle(padded(images, unit), unit)


def padded(images: Tensor, unit: int, least: int = 1) -> Tensor:
    """Pad images `(N, C, H, W)` right and below to multiples of `unit` of at least `least` pixels.

    By reflection as far as the picture reaches, and by its last pixel beyond.
    """
    height, width = images.shape[-2:]
    sizes = Sizes(unit=unit, least=least)
    below, right = sizes.padded(height) - height, sizes.padded(width) - width
    if not (below or right):
        return images
    reflected = min(right, width - 1), min(below, height - 1)
    images = F.pad(images, (0, reflected[0], 0, reflected[1]), mode="reflect")
    rest = right - reflected[0], below - reflected[1]
    return F.pad(images, (0, rest[0], 0, rest[1]), mode="replicate") if any(rest) else images
