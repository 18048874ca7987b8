"""What a trunk is to the floors above: images in, named feature maps out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from trunkline.ground.errors import WeightsError as WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Features = dict[str, "Tensor"]


@runtime_checkable
class Backbone(Protocol):
    """What others use of a trunk, or of a wrapper around one (a pyramid, frames of clips).

    channels      of each map by its name, fine to coarse: `c1` (the stem) to `c5`, `p2` … of a pyramid
    strides       pixels of the image that one step of each map is, 1 everywhere for a super-resolution trunk
    time_strides  frames that one step of each map is, for clips; empty where there is no time
    stages        how many parts can be frozen, the stem among them
    arch          its name in the table
    stride_in     where its bottlenecks stride; 3x3 where it has none
    report        what was loaded into it; None for random weights
    """

    channels: dict[str, int]
    strides: dict[str, int]
    time_strides: dict[str, int]
    stages: int
    arch: str
    stride_in: str
    report: Any

    def __call__(self, images: "Tensor") -> Features:
        """Compute the maps of images `(N, C, H, W)` or clips `(N, C, T, H, W)`, normalised float.

        For images they are `{"c1": (N, C1, H/2, W/2), ...}`.
        """
        ...

    def freeze(self, stages: int) -> "Backbone":
        """Freeze the first `stages` parts, norms too, and thaw the rest. Raises WeightsError for a number out of range."""
        ...


def deepest(maps: Mapping[str, Any]) -> str:
    """Return the name of the trunk's own deepest map, of maps by name, fine to coarse: `c5`, or where it ends otherwise.

    Raises WeightsError where it has none.
    """
    own = [name for name in maps if name.startswith("c")]
    if not own:
        raise WeightsError(f"the trunk has the maps {', '.join(maps) or 'none'}; expected c1, c2, … by their strides")
    return own[-1]


STATED = ("channels", "strides", "time_strides", "stages", "stride_in", "freeze")
"""The attributes that a backbone of a plug-in must have; the others are set for it."""


@dataclass(frozen=True)
class Sizes:
    """Which heights and widths a network takes: multiples of `unit`, from `least` to `most` pixels; 0 has no limit.

    A trunk that states them as `sizes` pads what is smaller or between, right and below, and refuses what is larger.
    One that states nothing takes all.
    """

    unit: int = 1
    least: int = 1
    most: int = 0

    def padded(self, side: int) -> int:
        """Return the size to which a side of so many pixels is padded; 0 where it is too large."""
        found = -(-max(side, self.least) // self.unit) * self.unit
        return 0 if self.most and found > self.most else found

    def __str__(self) -> str:
        if self.most == self.least:
            return f"{self.least} x {self.least} pixels"
        words = [f"sides that are multiples of {self.unit}"] if self.unit > 1 else []
        words += [f"sides of at least {self.least} pixels"] if self.least > self.unit else []
        words += [f"sides of at most {self.most} pixels"] if self.most else []
        return " and ".join(words) or "any size"

    def misfit(self, side: int, setting: str) -> str:
        """Say what speaks against pictures of `side` pixels, which `setting` chose, and what to set; "" where nothing does."""
        padded = self.padded(side)
        if padded == side:
            return ""
        near = {padded, self.padded(padded - self.unit)} - {0} if padded else {self.most}
        return f"{setting}={side}: the trunk takes {self}: set {setting}={' or '.join(map(str, sorted(near)))}"


ANY_SIZE = Sizes()


class Around:
    """What stands around a trunk, its `body`, and is one itself: it says of the trunk what the trunk says."""

    body: Any

    @property
    def arch(self) -> str | None:
        """The trunk's name."""
        return self.body.arch

    @property
    def sizes(self) -> Sizes:
        """Which sizes the trunk takes."""
        return sizes_of(self.body)

    @property
    def stages(self) -> int:
        """How many of the trunk's parts can be frozen."""
        return self.body.stages

    @property
    def stride_in(self) -> str:
        """Where the trunk's bottlenecks stride."""
        return self.body.stride_in

    @property
    def report(self) -> Any:
        """What was loaded into the trunk, and into what stands around it."""
        return self.body.report


def within(backbone: Any) -> Any:
    """Return the trunk that wrappers hold as their `body`, or the trunk itself, whose `body` may be some of its layers."""
    body = getattr(backbone, "body", None)
    return within(body) if hasattr(body, "channels") else backbone


def pooled_maps(backbone: Any) -> tuple[str, ...]:
    """Return the maps that a head pools, each over its own time and space, and concatenates in this order.

    They are those that a trunk states as `pooled` (SlowFast: the last map of either pathway), or else its deepest.
    """
    return getattr(within(backbone), "pooled", None) or (deepest(backbone.channels),)


def remarks_of(backbone: Any) -> list[str]:
    """Return what a wrapper and the trunk within it say of how they are used."""
    body = getattr(backbone, "body", None)
    return [*getattr(backbone, "remarks", ()), *(remarks_of(body) if hasattr(body, "channels") else ())]


def sizes_of(backbone: Any) -> Sizes:
    """Return the sizes that a trunk states, or any."""
    return getattr(backbone, "sizes", ANY_SIZE)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become input; travels with the weights.

    `mean` and `std` are in 0..1 units, one number per channel. Evaluation resizes the shorter side to `resize` pixels
    (Pillow's `interpolation`, antialiased) and takes the central `size` x `size` crop. Where `resize_width` is not 0, frames
    of clips become `resize` pixels high and `resize_width` wide instead, whatever their proportion (torchvision's networks
    for clips).
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    resize_width: int = 0

    def at(self, size: int | None) -> "Preprocessing":
        """Return the same for crops of `size` pixels; the shorter side keeps its proportion to the crop."""
        if size is None or size == self.size:
            return self
        wide = self.resize_width and max(size, size * self.resize_width // self.size)
        return replace(self, size=size, resize=max(size, size * self.resize // self.size), resize_width=wide)


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from and what their publisher says of them.

    `file` is the name in the cache; `digest` the SHA-256 in hex or its beginning, as far as it is known beforehand.
    """

    name: str
    url: str
    file: str
    digest: str = ""
    arch: str | None = None
    stride_in: str | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None

    def stated(self) -> dict[str, Any]:
        """List what is known, by field of `Weights`; `info` says where it comes from."""
        known = {key: getattr(self, key) for key in ("arch", "stride_in", "preprocessing", "classes")}
        return {k: v for k, v in known.items() if v is not None} | {"info": {"url": self.url}}
