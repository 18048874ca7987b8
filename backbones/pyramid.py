"""A feature pyramid around a trunk, which is itself a backbone: `p2` … `p5`, and coarser levels on top.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection", section 3; the levels of one-stage heads as in Lin et
al. 2017, "Focal Loss for Dense Object Detection", section 4.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from trunkline.ground.errors import WeightsError

from .contract import Around, Features
from .table import PYRAMIDS


class Pyramid(Around, nn.Module):
    """Maps of the trunk and of a pyramid on it: images `(N, C, H, W)` to `{"c1": …, "p2": …, "p6": …}`.

    The pyramid's maps have `channels` channels each. `kind` is "pool" (`p2` to `p5`, and `p6` by taking every second
    place of `p5`: two-stage heads) or "conv" (`p3` to `p5`, and `p6` and `p7` by strided 3x3 convolutions from `p5`:
    one-stage heads). Parameter names are torchvision's (`body.…`, `fpn.…`). Raises WeightsError for another kind, or a
    trunk that lacks a map.
    """

    def __init__(self, body: Any, kind: str = "pool", channels: int = 256) -> None:
        super().__init__()
        if kind not in PYRAMIDS:
            raise WeightsError(f"pyramid={kind}: expected one of {', '.join(PYRAMIDS)}")
        if body.time_strides:
            raise WeightsError(
                f"pyramid={kind}: is for pictures, and {body.arch} is a trunk for clips; set pyramid=none"
            )
        self._maps = ("c2", "c3", "c4", "c5")[kind == "conv" :]
        lacking = [name for name in self._maps if name not in body.channels]
        if lacking:
            raise WeightsError(_lacking(body, kind, self._maps))
        extra = LastLevelMaxPool() if kind == "pool" else LastLevelP6P7(channels, channels)
        self.body, self.kind = body, kind
        self.fpn = FeaturePyramidNetwork([body.channels[name] for name in self._maps], channels, extra)
        own = {f"p{name[1:]}": body.strides[name] for name in self._maps}
        for name in ("p6",) if kind == "pool" else ("p6", "p7"):
            own[name] = 2 * max(own.values())
        self.levels = tuple(own)
        self.channels: dict[str, int] = {**body.channels, **dict.fromkeys(own, channels)}
        self.strides: dict[str, int] = {**body.strides, **own}
        self.time_strides: dict[str, int] = dict(body.time_strides)

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, the trunk's first."""
        features: Mapping[str, Tensor] = self.body(images)
        found = self.fpn({name: features[name] for name in self._maps})
        return {**features, **dict(zip(self.levels, found.values(), strict=True))}

    def freeze(self, stages: int) -> "Pyramid":
        """Freeze the trunk's first `stages` parts; the pyramid itself always learns."""
        self.body.freeze(stages)
        return self


def pyramid_of(backbone: Any) -> Pyramid | None:
    """Find the pyramid around a trunk, also within a wrapper that adds no tensors (frames); None where there is none."""
    while getattr(backbone, "transparent", False):
        backbone = backbone.body
    return backbone if isinstance(backbone, Pyramid) else None


def _lacking(body: Any, kind: str, needed: tuple[str, ...]) -> str:
    """Say which maps the trunk has and the pyramid needs, and which other pyramid would do."""
    said = f"pyramid={kind} needs the maps {', '.join(needed)}; {body.arch} has {', '.join(body.channels)}"
    enough = kind == "pool" and all(name in body.channels for name in needed[1:])
    return said + ("; pyramid=conv, of head=one_stage, needs no c2" if enough else ": take another trunk")
