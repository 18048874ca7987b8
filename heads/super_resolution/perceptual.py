"""Perceptual loss: how far apart two pictures are in the maps of a network that does not learn."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from ...backbones.build import backbone
from ...backbones.contract import Preprocessing, WeightsSource
from ...backbones.download import fetch
from ...backbones.files.formats import SUFFIXES, read_file
from ...backbones.files.inside import find
from ...backbones.residual import ResNet
from ...backbones.weights import read_weights
from .adversarial import Perceptual, is_trunks

VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Width and number of the convolutions of each part of VGG-19, each part ended by a pool (Simonyan and Zisserman 2015, E)."""
NAMED = re.compile(r"(vgg19|VGG19_Weights)(\.[A-Z0-9_]+)?")


class VGG(nn.Module):
    """The maps of VGG-19 by name (`conv1_1`, `relu1_1`, … `relu5_4`): pictures, normalised, to those of `layers`.

    It ends with the deepest of them. Parameters are called `features.0.weight`, …, as torchvision's.
    """

    def __init__(self, layers: Mapping[str, float]):
        super().__init__()
        names, parts, before = [], [], 3
        for part, (width, count) in enumerate(VGG19, start=1):
            for number in range(1, count + 1):
                parts += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                names += [f"conv{part}_{number}", f"relu{part}_{number}"]
                before = width
            parts.append(nn.MaxPool2d(2, 2))
            names.append(f"pool{part}")
        if unknown := [name for name in layers if name not in names or name.startswith("pool")]:
            raise WeightsError(
                f"perceptual.layers.{unknown[0]}: VGG-19 has no such map; there are conv1_1, relu1_1, … conv5_4, relu5_4, and "
                "of a trunk c1, c2, …"
            )
        last = max(names.index(name) for name in layers)
        self.features, self.names, self.layers = nn.Sequential(*parts[: last + 1]), names, set(layers)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Compute the maps."""
        found, x = {}, pictures
        for name, part in zip(self.names, self.features, strict=False):
            x = part(x)
            if name in self.layers:
                found[name] = x
        return found


class PerceptualLoss:
    """The weighted sum of distances of maps: `loss(made, truth)`, a scalar, of pictures `(N, 3, H, W)` in 0..1.

    The gradient flows to `made` alone. The network is frozen, in eval mode and in fp32, whatever the model's mode; it is
    no module of the model, so that no checkpoint holds it, and goes to the pictures' device by itself. Under autocast
    its convolutions follow that; the normalisation and the distances are computed in fp32.
    """

    def __init__(self, network: Any, settings: Perceptual, mean: tuple[float, ...], std: tuple[float, ...]):
        self.network = network.requires_grad_(False).eval()
        self.settings = settings
        self._numbers = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)

    def __call__(self, made: Tensor, truth: Tensor) -> Tensor:
        """Compute the loss in fp32 (fp64 for pictures in fp64), times `settings.weight`."""
        own, settings = next(self.network.parameters()), self.settings
        dtype = torch.float64 if made.dtype == torch.float64 else torch.float32
        if own.device != made.device or own.dtype != dtype:
            self.network.to(made.device, dtype)
            self._numbers = tuple(n.to(made.device, dtype) for n in self._numbers)
        with torch.no_grad():
            real = self._maps(truth.to(dtype))
        found = self._maps(made.to(dtype))
        distance = F.l1_loss if settings.criterion == "l1" else F.mse_loss
        scale = settings.rescale if settings.criterion == "l1" else settings.rescale**2
        each = [
            distance(found[name].to(dtype), real[name].to(dtype)) * (settings.weight * weight * scale)
            for name, weight in settings.layers.items()
        ]
        return each[0] if len(each) == 1 else torch.stack(each).sum()

    def _maps(self, pictures: Tensor) -> dict[str, Tensor]:
        mean, std = self._numbers
        return self.network((pictures - mean) / std)


def perceptual_loss(settings: Perceptual) -> PerceptualLoss:
    """Build the loss: over VGG-19's maps, or over a trunk's where its maps are named.

    A trunk's input is normalised by the numbers that came with its weights, VGG-19's by ImageNet's. A name is downloaded
    once into the cache, as all named weights. Raises WeightsError where weights are missing or do not fit.
    """
    if problems := settings.problems():
        raise WeightsError(f"perceptual.{problems[0]}")
    if settings.weights in ("", "none"):
        raise WeightsError(
            "perceptual.weights is not given, and nothing is downloaded unasked: give a file of torchvision's VGG-19 "
            "(vgg19-dcbb9e9d.pth), or vgg19 to download it once (548 MiB); or a trunk's weights, as resnet50.pth, with its maps "
            "as perceptual.layers (c3, c4); or leave the perceptual loss out"
        )
    if is_trunks(next(iter(settings.layers))):
        trunk = _trunk(settings)
        return PerceptualLoss(trunk, settings, trunk.preprocessing.mean, trunk.preprocessing.std)
    network, usual = VGG(settings.layers), Preprocessing()
    _load(network, settings.weights)
    return PerceptualLoss(network, settings, usual.mean, usual.std)


def _trunk(settings: Perceptual) -> Any:
    """Build the trunk of the weights, as far as its deepest map that is compared."""
    weights = read_weights(settings.weights)
    norm = "group" if weights.info.get("trunkline_norm") == "group" else "batch"
    trunk = backbone(weights=weights, norm=norm)
    if absent := [name for name in settings.layers if name not in trunk.channels]:
        raise WeightsError(
            f"perceptual.layers.{absent[0]}: the trunk of {settings.weights} ({trunk.arch}) has no such map; there are "
            f"{', '.join(trunk.channels)}"
        )
    if isinstance(trunk, ResNet):
        deepest = max(int(name[1:]) for name in settings.layers)
        for stage in range(deepest, trunk.stages):
            setattr(trunk, f"layer{stage}", nn.Sequential())  # c5 is of layer4; what lies deeper costs nothing so
    return trunk


def _load(network: VGG, source: str) -> None:
    path = _file(source)
    found = find(read_file(path), source)
    tensors = {**found.rest, **found.tensors}
    own = network.state_dict()
    wrong = [f"{n} {'x'.join(map(str, t.shape))}" for n, t in own.items()
             if n not in tensors or tensors[n].shape != t.shape]  # fmt: skip
    if wrong:
        raise WeightsError(
            f"perceptual.weights={source}: is no VGG-19 of torchvision: {wrong[0]} and {len(wrong) - 1} more of its {len(own)} "
            "tensors are missing or of another shape; for the maps of a trunk give perceptual.layers as c3, c4"
        )
    bad = [n for n in own if not torch.isfinite(tensors[n]).all()]
    if bad:
        raise WeightsError(f"perceptual.weights={source}: {bad[0]} holds values that are not finite; take another file")
    network.load_state_dict({n: tensors[n] for n in own})


def _file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file() or path.suffix in SUFFIXES or not NAMED.fullmatch(source):
        if not path.is_file():
            raise WeightsError(
                f"perceptual.weights={source}: no such file, and no name of VGG-19's weights (vgg19, vgg19.IMAGENET1K_V1)"
            )
        return path
    return fetch(vgg19_source(source))


def vgg19_source(name: str) -> WeightsSource:
    """Find where the weights of VGG-19 come from, of torchvision's own names. Raises WeightsError for an unknown one."""
    from torchvision.models import VGG19_Weights

    tag = name.partition(".")[2] or "DEFAULT"
    if tag not in VGG19_Weights.__members__:
        raise WeightsError(f"perceptual.weights={name}: torchvision has {', '.join(VGG19_Weights.__members__)}")
    url = VGG19_Weights[tag].url
    file = PurePosixPath(urlsplit(url).path).name
    return WeightsSource(name, url, file, file.removesuffix(".pth").rpartition("-")[2])
