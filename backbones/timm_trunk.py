"""Any network of timm that gives feature maps, as a trunk: `timm:convnext_atto`."""

from typing import Any

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from .contract import Features, Preprocessing
from .table import TIMM

_NAMES = {2: "c1", 4: "c2", 8: "c3", 16: "c4", 32: "c5"}  # by stride


class TimmTrunk(nn.Module):
    """timm's `features_only` network: images `(N, C, H, W)`, normalised float, to maps named by their strides.

    Maps of stride 2 to 32 are `c1` to `c5`; a network that begins at 4 has no `c1`. `norm` is "batch" or "frozen";
    frozen batch norms keep their numbers. Parameter names are those of timm's feature network behind `net.`. Raises
    WeightsError for a name that timm does not know, or a network that gives no such maps.
    """

    def __init__(self, name: str, in_channels: int = 3, output_stride: int = 32, norm: str = "batch") -> None:
        super().__init__()
        import timm

        plain = name.removeprefix(TIMM)
        if norm not in ("batch", "frozen"):
            raise WeightsError(f"norm={norm}: networks of timm take batch or frozen")
        options: Any = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            net: Any = timm.create_model(plain, features_only=True, pretrained=False, in_chans=in_channels, **options)
        except (RuntimeError, TypeError, AttributeError, AssertionError, ValueError) as error:
            near = timm.list_models(f"*{plain.split('_')[0]}*")[:5]
            raise WeightsError(
                f"{name}: timm gives no feature maps of it ({error}); it has, for example, {', '.join(near) or 'resnet18'}"
            ) from None
        strides = [int(r) for r in net.feature_info.reduction()]
        dilated = output_stride != 32  # then several maps have one stride
        named = list(_NAMES.values())[-len(strides) :] if dilated else [_NAMES.get(stride, "") for stride in strides]
        if not all(named) or len(set(named)) < len(named):
            raise WeightsError(
                f"{name}: its maps have strides of {strides}; expected some of {list(_NAMES)}, each once"
            )
        self.net = net
        self._maps = tuple(named)
        self.channels = dict(zip(named, map(int, net.feature_info.channels()), strict=True))
        self.strides = dict(zip(named, strides, strict=True))
        self.time_strides: dict[str, int] = {}
        self._frozen = 0
        self.arch, self.stride_in, self.norm = name, "3x3", norm
        self.preprocessing = preprocessing_of(plain)
        self.classes: tuple[str, ...] | None = None
        self.report: object | None = None
        self.freeze(0)

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse, channels second."""
        found = self.net(images)
        return {name: self._channels_second(name, x) for name, x in zip(self._maps, found, strict=True)}

    def _channels_second(self, name: str, x: Tensor) -> Tensor:
        count = self.channels[name]
        return x.permute(0, 3, 1, 2).contiguous() if x.shape[1] != count and x.shape[-1] == count else x

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
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)] if self.norm == "frozen" else []

    def _parts(self) -> dict[str, int] | None:
        """Say which part each layer belongs to; None where the network does not say what it returns."""
        returned = getattr(self.net, "return_layers", None)
        if not isinstance(returned, dict):
            return None
        found, number = {}, int(self._maps[0][1:])
        for child, _ in self.net.named_children():
            found[child] = number
            number += child in returned
        return found

    def _numbered(self) -> list[tuple[int, nn.Module]]:
        parts = self._parts()
        return [
            (parts[name] if parts else 5 if self._frozen == 5 else 6, module)
            for name, module in self.net.named_children()
        ]

    def own_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a file's tensors to the names here, and leave out those that match none.

        timm's whole networks have a dot where its feature networks have `_`.
        """
        own, found = self.state_dict(), {}
        for name, tensor in tensors.items():
            for other in (name, f"net.{name}", f"net.{name.replace('.', '_', 1)}"):
                if other in own:
                    found[other] = tensor
                    break
        return found


def preprocessing_of(name: str) -> Preprocessing:
    """Read the numbers that timm states for a network; the default ones where it states none."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return Preprocessing()
    size = int(cfg.input_size[-1])
    kind = cfg.interpolation if cfg.interpolation in ("bilinear", "bicubic") else "bilinear"
    return Preprocessing(tuple(cfg.mean), tuple(cfg.std), size, round(size / (cfg.crop_pct or 0.875)), kind)
