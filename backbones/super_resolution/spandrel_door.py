"""Any single-image network that spandrel opens, for prediction and scoring: `spandrel:FILE`.

The file is read by this package's own reader, which unpickles nothing; spandrel gets tensors by name. (Its own reader opens
.pth by an unpickler with a short list of names, but runs .pt files as TorchScript programs first.)
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from ..contract import Features, Preprocessing, Sizes
from ..files.formats import Content, read_file
from ..files.pickles import TensorRef
from ..table import SPANDREL
from ..weights import LoadReport
from .trunk import padded

_INSTALL = "pip install spandrel"
_PURPOSES = ("SR", "Restoration")
_REFUSED = {"Inpainting": "fills holes, which needs a mask", "FaceSR": "takes aligned faces alone"}


class ForeignTrunk(nn.Module):
    """A whole network of spandrel in a trunk's place: pictures `(N, 3, H, W)` in 0..1 to `{"c2": (N, 3, H*scale, W*scale)}`.

    The output is in 0..1 units, as the network gives it, not clamped. Pictures of a size that the network does not take are
    padded right and below, by reflection as far as the picture reaches and by its last pixel beyond, and the output is cut.
    A network for grey pictures sees each of the three channels by itself; one for RGBA an opaque picture. `scale`, `sizes`
    (multiples and a minimum), `square` and `about` (its architecture, purpose and tags) say what it is. It does not learn:
    `train()` leaves it in eval mode, and `freeze` takes all of it for frozen.
    """

    stages, stride_in, norm = 0, "3x3", "batch"

    def __init__(self, name: str, descriptor: Any, report: LoadReport) -> None:
        super().__init__()
        self.net: nn.Module = descriptor.model.eval().requires_grad_(False)
        self._call = descriptor._call_fn  # some networks take or give more than a picture
        self.scale, self.in_channels = int(descriptor.scale), int(descriptor.input_channels)
        needs = descriptor.size_requirements
        self.sizes = Sizes(unit=needs.multiple_of, least=max(needs.minimum, 1))
        self.square = bool(needs.square)
        self.about = " ".join([descriptor.architecture.name, descriptor.purpose, *descriptor.tags])
        self.channels, self.strides = {"c2": 3}, {"c2": 1}
        self.time_strides: dict[str, int] = {}
        self.arch, self.report = name, report
        self.preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
        self.classes: tuple[str, ...] | None = None

    def forward(self, images: Tensor) -> Features:
        """Compute the enlarged pictures."""
        height, width = images.shape[-2:]
        least = max(self.sizes.least, max(height, width) if self.square else 0)
        x = padded(images, self.sizes.unit, least)
        if self.in_channels == 1:
            found = self._call(self.net, x.flatten(0, 1)[:, None]).unflatten(0, (len(x), 3))[:, :, 0]
        elif self.in_channels == 4:
            found = self._call(self.net, torch.cat([x, torch.ones_like(x[:, :1])], 1))[:, :3]
        else:
            found = self._call(self.net, x)
        return {"c2": found[..., : height * self.scale, : width * self.scale]}

    @property
    def remarks(self) -> list[str]:
        """Say what the network is, and which pictures are padded."""
        found = [f"{self.arch}: {self.about}, x{self.scale}, opened by spandrel"]
        if str(self.sizes) != "any size" or self.square:
            square = " and equal sides" * self.square
            found.append(f"{self.arch}: takes {self.sizes}{square}; other pictures are padded by reflection")
        if self.in_channels == 1:
            found.append(f"{self.arch}: takes grey pictures; red, green and blue are enlarged each by itself")
        return found

    def train(self, mode: bool = True) -> "ForeignTrunk":
        """Stay in eval mode."""
        return super().train(False)

    def freeze(self, stages: int) -> "ForeignTrunk":
        """Change nothing: all of it is frozen."""
        return self


def load_spandrel(name: str) -> ForeignTrunk:
    """Open `spandrel:FILE`, or FILE.

    Raises WeightsError where spandrel is not installed, for a file that is no weights or that spandrel does not know, and
    for networks other than of super-resolution and restoration.
    """
    file = name.removeprefix(SPANDREL)
    try:
        from spandrel import ModelLoader, UnsupportedModelError, canonicalize_state_dict
    except ImportError as error:
        missing = getattr(error, "name", "") or ""
        lacks = f" lacks {missing}: pip install {missing}" if missing and missing != "spandrel" else f": {_INSTALL}"
        raise WeightsError(f"{SPANDREL}{file}: needs the package spandrel{lacks}") from None
    content = read_file(Path(file).expanduser())
    tensors = canonicalize_state_dict(_plain(content.tree, content))
    try:
        descriptor: Any = ModelLoader().load_from_state_dict(dict(tensors))
    except UnsupportedModelError:
        names = ", ".join(list(tensors)[:4]) or "no tensors by name"
        raise WeightsError(f"{file}: spandrel knows no network with such tensors ({names}, …)") from None
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, AssertionError, TypeError) as error:
        said = str(error).splitlines()[:2]
        raise WeightsError(f"{file}: spandrel cannot build this network ({' '.join(said)[:300]})") from None
    _check(file, descriptor)
    return ForeignTrunk(f"{SPANDREL}{file}", descriptor, LoadReport(len(tensors), len(tensors), Path(file).name))


def _check(file: str, descriptor: Any) -> None:
    """Raise WeightsError for a network of another purpose, or that takes or gives other channels."""
    purpose, arch = descriptor.purpose, descriptor.architecture.name
    if purpose not in _PURPOSES:
        why = _REFUSED.get(purpose, "is of another kind")
        raise WeightsError(
            f"{file}: is {arch}, which {why}; taken are single-image super-resolution and restoration (spandrel's purposes "
            f"{' and '.join(_PURPOSES)})"
        )
    channels = descriptor.input_channels, descriptor.output_channels
    if channels not in ((3, 3), (1, 1), (4, 4), (4, 3)):
        raise WeightsError(
            f"{file}: is {arch} with {channels[0]} channels in and {channels[1]} out; expected RGB, grey or RGBA"
        )


def _plain(node: Any, content: Content) -> dict[str, Any]:
    """Read a file's containers with their tensors; whatever is neither is left out."""
    if not isinstance(node, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found[str(key)] = _plain(value, content)
        elif isinstance(value, Tensor | TensorRef):
            found[str(key)] = content.tensor(value)
    return {key: value for key, value in found.items() if not (isinstance(value, dict) and not value)}
