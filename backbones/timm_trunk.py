"""Any network of timm that gives feature maps, as a trunk: `timm:convnext_atto`."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from .contract import Features, Preprocessing
from .table import TIMM
from .timm_facts import channels_last, create, facts_of


class TimmTrunk(nn.Module):
    """timm's `features_only` network: images `(N, C, H, W)`, normalised float, to maps named by their strides.

    The map of stride 2 is `c1`, of 4 `c2` and so on; another stride has the name of the nearest of these. A network that
    begins at 4 has no `c1`; one whose maps have one stride has a single map, the deepest. `norm` is "batch" or "frozen";
    frozen batch norms keep their numbers. Pictures of a size that the network does not take are padded with zeros, right
    and below, to the next that it takes (`sizes`), and the maps cut to the picture. Parameter names are those of timm's
    feature network behind `net.`.

    Raises WeightsError for a name that timm does not know, a network that gives no maps, or an output stride that it has
    not; in the forward pass for a picture that is too large.
    """

    def __init__(self, name: str, in_channels: int = 3, output_stride: int = 32, norm: str = "batch") -> None:
        super().__init__()
        plain = name.removeprefix(TIMM)
        if norm not in ("batch", "frozen"):
            raise WeightsError(f"norm={norm}: networks of timm take batch or frozen")
        facts = facts_of(name, output_stride)
        net = create(plain, in_chans=in_channels, **facts.options)
        self.net, self.sizes, self._channels_last = net, facts.sizes, channels_last(net)
        self._levels = tuple(round(math.log2(stride)) for stride in facts.strides)
        self._maps = _last_of_each(self._levels)
        strides, channels = net.feature_info.reduction(), net.feature_info.channels()
        self.channels = {name: int(channels[at]) for name, at in self._maps.items()}
        self.strides = {name: int(strides[at]) for name, at in self._maps.items()}
        self.time_strides: dict[str, int] = {}
        self.dilates = True  # whether another output stride may be tried
        self._frozen = 0
        self.arch, self.stride_in, self.norm = name, "3x3", norm
        self.preprocessing = preprocessing_of(plain)
        self.classes: tuple[str, ...] | None = None
        self.report: object | None = None
        self.freeze(0)

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse, channels second."""
        height, width = images.shape[-2:]
        below, right = self.sizes.padded(height) - height, self.sizes.padded(width) - width
        if below < 0 or right < 0:
            raise WeightsError(f"{self.arch}: takes {self.sizes}; this picture has {width} x {height}")
        found = self.net(F.pad(images, (0, right, 0, below)) if below or right else images)
        maps = {name: found[at] for name, at in self._maps.items()}
        if self._channels_last:
            maps = {name: x.permute(0, 3, 1, 2).contiguous() for name, x in maps.items()}
        if not (below or right):
            return maps
        return {n: x[..., : -(-height // self.strides[n]), : -(-width // self.strides[n])] for n, x in maps.items()}

    @property
    def remarks(self) -> list[str]:
        """Say what of the network is not used, and which pictures are padded; empty where all of it is as usual."""
        found = []
        if left := len(self._levels) - len(self._maps):
            last = ", ".join(f"{name} of stride {self.strides[name]}" for name in self._maps)
            found.append(f"{self.arch}: {left} of its {len(self._levels)} maps left out; used are {last}")
        if str(self.sizes) != "any size":
            found.append(f"{self.arch}: takes {self.sizes}; smaller pictures are padded right and below")
        return found

    @property
    def stages(self) -> int:
        """How many parts can be frozen."""
        return 5

    @property
    def frozen(self) -> int:
        """How many of five parts are frozen."""
        return self._frozen

    def freeze(self, stages: int) -> "TimmTrunk":
        """Freeze the first `stages` of five parts (the layers up to `c1`, `c2`, … `c5`), and thaw the rest.

        Raises WeightsError for a number out of range; where timm's network does not say which layers belong to which
        map, for any but 0 and 5.
        """
        parts = self._parts()
        if not 0 <= stages <= 5 or (parts is None and stages not in (0, 5)):
            raise WeightsError(
                f"frozen={stages}: expected 0 or 5 for {self.arch}" + ("" if parts is None else ", or between")
            )
        self._frozen = stages
        for number, module in self._numbered():
            module.requires_grad_(number > stages)
        for norm in self._fixed_norms():
            norm.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "TimmTrunk":
        """Set the mode as in torch, but keep frozen parts in eval mode."""
        super().train(mode)
        for number, module in self._numbered():
            if number <= self._frozen:
                module.eval()
        for norm in self._fixed_norms():
            norm.eval()
        return self

    def _fixed_norms(self) -> list[nn.Module]:
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
        return [m for m in self.modules() if isinstance(m, kinds)] if self.norm == "frozen" else []

    def _parts(self) -> dict[str, int] | None:
        """Say which part each layer belongs to; None where the network does not say what it returns."""
        returned = getattr(self.net, "return_layers", None)
        if not isinstance(returned, dict):
            return None
        found, at = {}, 0
        for child, _ in self.net.named_children():
            found[child] = min(max(self._levels[at], 1), self.stages)
            at = min(at + (child in returned), len(self._levels) - 1)
        return found

    def _numbered(self) -> list[tuple[int, nn.Module]]:
        parts = self._parts()
        return [
            (parts[name] if parts else 5 if self._frozen == 5 else 6, module)
            for name, module in self.net.named_children()
        ]

    def own_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a file's tensors to the names here, and leave out those that match none.

        timm's feature networks have the whole one behind `model.` or `body.`, or have `_` where it has its first dot.
        """
        own, found = self.state_dict(), {}
        for name, tensor in tensors.items():
            flat = name.replace(".", "_", 1)
            others = (name, f"net.{name}", f"net.{flat}", f"net.model.{name}", f"net.body.{name}")
            if other := next((other for other in others if other in own), None):
                found[other] = tensor
        return found


def _last_of_each(levels: tuple[int, ...]) -> dict[str, int]:
    """Name the maps `c1`, `c2`, … by the logarithms of their strides; of several with one name the last, with its position.

    A map in the picture's own size has no name.
    """
    return {f"c{level}": at for at, level in enumerate(levels) if level > 0}


def preprocessing_of(name: str) -> Preprocessing:
    """Read the numbers that timm states for a network; the default ones where it states none."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return Preprocessing()
    size = int(cfg.input_size[-1])
    kind = cfg.interpolation if cfg.interpolation in ("bilinear", "bicubic") else "bilinear"
    return Preprocessing(tuple(cfg.mean), tuple(cfg.std), size, round(size / (cfg.crop_pct or 0.875)), kind)
