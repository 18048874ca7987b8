"""Super-resolution's tails: from the maps of a trunk of stride 1 to the enlarged picture. Names are BasicSR's.

Pixel shuffle (Shi et al. 2016) in SRResNet, MSRResNet and EDSR; nearest neighbours and convolutions in RRDBNet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import EngineError, WeightsError

from ...backbones.contract import Features, Preprocessing
from ...backbones.super_resolution.blocks import conv3, small_init
from ...backbones.table import SUPER_RESOLUTION
from ...backbones.weights import Weights
from ..boxes import at_least_fp32
from ..contract import Batch, Prediction

if TYPE_CHECKING:
    import numpy as np

CHARBONNIER_EPS = 1e-12
"""What is added to the squared difference under the root, in 0..1 units (BasicSR's CharbonnierLoss)."""
_LISTED = 10


@dataclass
class Upscaled(Prediction):
    """`picture` is `(3, sH, sW)` float32 in 0..255 units, clamped and not rounded."""

    picture: "np.ndarray"


@dataclass(frozen=True)
class PictureLosses:
    """The weight of each pixel loss in their sum; 0 leaves it out."""

    l1: float = 1.0
    mse: float = 0.0
    charbonnier: float = 0.0


def picture_losses(found: Tensor, truth: Tensor, weighted: PictureLosses) -> dict[str, Tensor]:
    """Compute the losses whose weight is not 0, by name, each times its weight: scalars in fp32.

    `found` and `truth` are `(N, 3, H, W)` floats in 0..1. Each is the mean over all values of the micro-batch: of |d|, of d²,
    and of √(d² + 1e-12) (Lai et al. 2017, section 3.3).
    """
    difference = at_least_fp32(found) - truth.to(torch.promote_types(found.dtype, torch.float32))
    losses: dict[str, Tensor] = {}
    if weighted.l1:
        losses["l1"] = weighted.l1 * difference.abs().mean()
    if weighted.mse:
        losses["mse"] = weighted.mse * difference.square().mean()
    if weighted.charbonnier:
        losses["charbonnier"] = weighted.charbonnier * (difference.square() + CHARBONNIER_EPS).sqrt().mean()
    return losses


class _ToPicture(nn.Module):
    """What every head of super-resolution does with the enlarged picture: its losses and its predictions."""

    needs = ("c2",)
    trunk = ""  # where the trunk's tensors stand in a published file: flat, as the field has them
    weighted = PictureLosses()

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute the pixel losses of one micro-batch; the target `hr` is `(N, 3, sH, sW)`, uint8 or float in 0..255."""
        return picture_losses(self(features, batch), batch.targets["hr"] / 255, self.weighted)

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict an Upscaled for each sample, cut to its own size where the batch states sizes."""
        pictures = at_least_fp32(self(features, batch)).detach().clamp(0, 1).mul(255).float().cpu()
        scale: int = self.scale  # type: ignore[assignment]
        height, width = (side // scale for side in pictures.shape[-2:])
        sizes = [(height, width)] * len(pictures) if batch.sizes is None else batch.sizes.tolist()
        return [
            Upscaled(name, picture[:, : int(h) * scale, : int(w) * scale].numpy())
            for name, picture, (h, w) in zip(batch.ids, pictures, sizes, strict=True)
        ]

    def condense(self, features: Features) -> Features:
        """Keep the map that is read; nothing smaller gives the same picture."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the head's tensors as they are: their names are BasicSR's."""
        return tensors


class UpscalingHead(_ToPicture):
    """The tail of a network: the trunk's `c2` `(N, C, H/u, W/u)` to the picture `(N, 3, H*scale, W*scale)`.

    arch           the trunk's: srresnet, msrresnet, edsr or rrdbnet
    channels       of the trunk's maps by name
    scale          how many times larger the picture becomes
    unshuffle      u, the trunk's stride
    preprocessing  of the trunk's input; the picture is turned back by the same numbers
    weighted       the pixel losses

    Raises WeightsError for a scale that the network has no tail for, and a trunk that is none of these.
    """

    def __init__(
        self,
        arch: str,
        channels: Mapping[str, int],
        scale: int,
        *,
        unshuffle: int = 1,
        preprocessing: Preprocessing,
        weighted: PictureLosses | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.scale, self.unshuffle = arch, scale, unshuffle
        self.weighted = weighted or PictureLosses()
        self.layers: list[str] = []  # in the order of their use; the last gives the picture
        for name, module in _tail(arch, channels["c2"], _factor(arch, scale, unshuffle)):
            self.add_module(name, module)
            self.layers.append(name)
        if arch == "msrresnet":
            small_init(self.modules())
        self._turned_back = any(preprocessing.mean) or any(value != 1 for value in preprocessing.std)
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(preprocessing, name)).view(1, -1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, features: Features, batch: Batch) -> Tensor:
        """Compute the pictures in fp32, in 0..1 units, neither clamped nor rounded.

        Under autocast the last convolution and all after it are computed in fp32. Raises EngineError for a batch without
        images: they say how large the picture is, and MSRResNet adds them, enlarged, to its output.
        """
        if batch.images is None:
            raise EngineError(
                f"{self.arch}: super-resolution reads the pictures themselves: maps cannot be cached for it"
            )
        x = features["c2"]
        for name in self.layers[:-1]:
            x = self.get_submodule(name)(x)
        height, width = (side * self.scale for side in batch.images.shape[-2:])
        with torch.autocast(x.device.type, enabled=False):
            x = self.get_submodule(self.layers[-1])(at_least_fp32(x))[..., :height, :width]
            if self._turned_back:
                x = x * self.get_buffer("std") + self.get_buffer("mean")
            if self.arch == "msrresnet":
                given = batch.images.to(x.dtype) / 255
                x = x + F.interpolate(given, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return x

    def fill(self, weights: Weights) -> None:
        """Copy a file's tail into the head, all of it.

        Raises WeightsError where the file is of another scale, or its tensors are not exactly these.
        """
        stated = int(weights.info.get("trunkline_scale", 0))
        if stated and stated != self.scale:
            raise WeightsError(
                f"{weights.source}: was trained for scale={stated}, and scale={self.scale} was asked for: leave scale= out, "
                f"or give weights of scale {self.scale}"
            )
        own = self.state_dict()
        problems = [f"{name} is missing" for name in own if name not in weights.rest]
        problems += [f"{name} is not of this network" for name in weights.rest if name not in own]
        problems += [f"{name} is of shape {tuple(t.shape)}, here {tuple(own[name].shape)}"
                     for name, t in weights.rest.items() if name in own and t.shape != own[name].shape]  # fmt: skip
        problems += [f"{name} holds values that are not finite"
                     for name, t in weights.rest.items() if not torch.isfinite(t).all()]  # fmt: skip
        if problems:
            more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
            raise WeightsError(
                f"{weights.source}: its tail does not fit {self.arch} x{self.scale}:\n  "
                + "\n  ".join(problems[:_LISTED] + more)
            )
        self.load_state_dict(weights.rest)


class ForeignHead(_ToPicture):
    """Stands on a network of spandrel, which gives the picture itself, as `c2`: `(N, 3, H*scale, W*scale)` in 0..1 units."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, features: Features, batch: Batch) -> Tensor:
        """Return the pictures."""
        return features["c2"]

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Raise WeightsError: these networks are for prediction and scoring."""
        from ...backbones.weights import NO_TRAINING

        raise WeightsError(NO_TRAINING)


def _factor(arch: str, scale: int, unshuffle: int) -> int:
    """Return by how much the tail enlarges."""
    row = SUPER_RESOLUTION.get(arch)
    if row is None:
        raise WeightsError(
            f"backbone={arch}: super-resolution needs a trunk of stride 1: one of {', '.join(SUPER_RESOLUTION)}"
        )
    factor = scale * unshuffle
    if factor not in row["factors"]:
        scales = [str(f // unshuffle) for f in row["factors"] if f % unshuffle == 0]
        behind = f" behind a pixel-unshuffle of {unshuffle}" if unshuffle > 1 else ""
        raise WeightsError(f"scale={scale}: {arch}{behind} enlarges by {_listed(scales)}")
    return factor


def _listed(scales: list[str]) -> str:
    if len(scales) < 2:
        return scales[0] if scales else "no whole number"
    return f"{', '.join(scales[:-1])} or {scales[-1]}"


def _steps(factor: int) -> list[int]:
    """Split a factor into enlargements: 3 is one, all others are powers of 2."""
    return [3] if factor == 3 else [2] * (factor.bit_length() - 1)


def _tail(arch: str, width: int, factor: int) -> list[tuple[str, nn.Module]]:
    """Make a tail's layers by name, in the order of their use; those without tensors have names of our own."""
    if arch in ("srresnet", "edsr"):
        inside: list[nn.Module] = []
        for step in _steps(factor):
            inside += [conv3(width, width * step**2), nn.PixelShuffle(step)]
            inside += [nn.PReLU()] if arch == "srresnet" else []
        last = nn.Conv2d(width, 3, 9, 1, 4) if arch == "srresnet" else conv3(width, 3)
        return [("upsample", nn.Sequential(*inside)), ("conv_last", last)]
    layers: list[tuple[str, nn.Module]] = []
    slope = 0.1 if arch == "msrresnet" else 0.2
    for number, step in enumerate(_steps(factor), start=1):
        if arch == "msrresnet":
            layers += [(f"upconv{number}", conv3(width, width * step**2)), (f"shuffle{number}", nn.PixelShuffle(step))]
        else:
            layers += [(f"nearest{number}", nn.Upsample(scale_factor=step)), (f"conv_up{number}", conv3(width, width))]
        layers.append((f"lrelu{number}", nn.LeakyReLU(slope, inplace=True)))
    layers += [("conv_hr", conv3(width, width)), ("lrelu", nn.LeakyReLU(slope, inplace=True))]
    return [*layers, ("conv_last", conv3(width, 3))]


def receptive_field(trunk: Any, head: Any) -> int | None:
    """Compute how far, in pixels of the input, a pixel of the input can change the output; None where that is not known.

    An output pixel in the square of input pixel p depends on no input beyond p ± the result. It is counted layer by layer:
    each convolution adds half its kernel at its own resolution, and an enlargement divides, rounded outward. Skips are
    shorter than what they skip. Behind a pixel-unshuffle it holds for tiles that begin at multiples of its unit. Unknown is
    it for networks of spandrel, and for group norm, which reads the whole picture.
    """
    if not isinstance(head, UpscalingHead):
        return None
    if getattr(trunk, "norm", "") == "group":
        return None
    behind = [module for name in head.layers for module in head.get_submodule(name).modules()]
    inside = sum(module.kernel_size[0] // 2 for module in trunk.modules() if isinstance(module, nn.Conv2d))
    unit, scale, found = head.unshuffle, head.scale, 0
    for place in range(unit):  # of a pixel in its square of the unshuffle, on the trunk's grid one place
        low, high = _reached(behind, place * scale, place * scale + scale - 1)
        found = max(found, place - (low - inside) * unit, (high + inside) * unit + unit - 1 - place)
    return found


def _reached(layers: list[nn.Module], low: int, high: int) -> tuple[int, int]:
    """Follow the output pixels from `low` to `high` back through a tail, to the places of the trunk's grid that they read."""
    for module in reversed(layers):
        if isinstance(module, nn.Conv2d):
            low, high = low - module.kernel_size[0] // 2, high + module.kernel_size[0] // 2
        elif isinstance(module, nn.PixelShuffle):
            low, high = low // module.upscale_factor, high // module.upscale_factor
        elif isinstance(module, nn.Upsample):
            low, high = low // int(module.scale_factor), high // int(module.scale_factor)  # type: ignore[arg-type]
    return low, high
