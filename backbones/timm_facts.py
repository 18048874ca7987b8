"""What a network of timm can be as a trunk: found on the meta device, where a forward pass computes shapes alone."""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from trunkline.ground.errors import WeightsError

from .contract import Sizes
from .table import OUTPUT_STRIDES, TIMM

_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
"""What timm's networks are asked for so that they take pictures of other sizes than their own, best first."""
_UNITS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256)
_NEAR = (256, 192)  # pixels: multiples near them are tried
_SMALL, _LARGE = (32, 16, 8, 4), (*range(48, 129, 16), *range(160, 257, 32))  # pixels that may be the smallest size


class CannotDilate(WeightsError):
    """The network has no maps of the output stride that was asked for; `own` is the output stride as it is."""

    def __init__(self, name: str, asked: int, deepest: int, others: list[int]) -> None:
        self.own = deepest if deepest in OUTPUT_STRIDES else 32
        self.said = f"{name}: its deepest map has stride {deepest}, and timm cannot dilate it to {asked}"
        works = " or ".join(map(str, [self.own, *others]))
        super().__init__(f"{self.said}: set network.output_stride={works} (output_stride={works} in Python)")


@dataclass(frozen=True)
class Facts:
    """How timm makes a network whose maps are asked for.

    options  of `timm.create_model`
    strides  of the maps that it gives, as the network is without dilation
    sizes    which pictures it takes
    """

    options: dict[str, Any]
    strides: tuple[int, ...]
    sizes: Sizes


@lru_cache(maxsize=64)
def facts_of(name: str, output_stride: int = 32) -> Facts:
    """Find how timm makes the network `timm:NAME` with maps of this output stride. No random number is drawn.

    Raises WeightsError for a name that timm does not know and for a network without maps, CannotDilate where it has no
    maps of that output stride.
    """
    plain = name.removeprefix(TIMM)
    _check_known(name, plain)
    with torch.random.fork_rng(devices=[]):
        options, net, sizes = _buildable(name, plain)
        strides = tuple(int(stride) for stride in net.feature_info.reduction())
        if output_stride not in (32, strides[-1]):
            options = {**options, "output_stride": output_stride}
            dilated = _dilated(plain, options, strides)
            if dilated is None:
                tries = [s for s in OUTPUT_STRIDES if s not in (32, output_stride) and s < strides[-1]]
                others = [s for s in tries if _dilated(plain, {**options, "output_stride": s}, strides)]
                raise CannotDilate(name, output_stride, strides[-1], others)
            sizes = dilated
        return Facts(options, strides, sizes)


def create(plain: str, **options: Any) -> Any:
    """Make timm's network that gives its maps, with random weights."""
    import timm

    return timm.create_model(plain, features_only=True, pretrained=False, **options)


def channels_last(net: Any) -> bool:
    """Read from the network whether its maps have their channels last. Raises WeightsError for what is no map."""
    layout = str(getattr(getattr(net, "output_fmt", "NCHW"), "value", "NCHW"))
    if layout not in ("NCHW", "NHWC"):
        raise WeightsError(f"timm gives features of the layout {layout}; expected maps, NCHW or NHWC")
    return layout == "NHWC"


def _check_known(name: str, plain: str) -> None:
    """Refuse a name that is not in timm's table: others would make it look at the hub, or at a folder."""
    import timm

    if not timm.is_model(plain.partition(".")[0]):
        near = get_close_matches(plain, timm.list_models(), 5, 0.3)
        raise WeightsError(f"{name}: timm has no such network; it has, for example, {', '.join(near) or 'resnet18'}")


def _own_size(plain: str) -> tuple[int, int]:
    import timm

    config = timm.get_pretrained_cfg(plain)
    height, width = config.input_size[-2:] if config else (224, 224)
    return int(height), int(width)


def _buildable(name: str, plain: str) -> tuple[dict[str, Any], Any, Sizes]:
    """Find the first of the options with which the network is made and takes some size, and which sizes it takes."""
    reason = ""
    for options in _ANY_SIZE:
        try:
            with torch.device("meta"):
                net = create(plain, **options).eval()
        except Exception as error:  # timm's networks refuse an option, or maps, with errors of every kind
            reason = str(error)
            continue
        channels_last(net)
        if (sizes := _sizes(net, _own_size(plain))) is not None:
            return options, net, sizes
        reason = "it takes no square pictures"
    raise WeightsError(f"{name}: timm gives no feature maps of it ({reason}); take another network")


def _dilated(plain: str, options: dict[str, Any], strides: tuple[int, ...]) -> Sizes | None:
    """Find which sizes the dilated network takes; None where timm's does not dilate to that stride."""
    try:
        with torch.device("meta"):
            net = create(plain, **options).eval()
    except Exception:  # as above
        return None
    wanted = [min(stride, options["output_stride"]) for stride in strides]
    same = [int(stride) for stride in net.feature_info.reduction()] == wanted
    return _sizes(net, _own_size(plain)) if same else None


def _takes(net: Any, size: tuple[int, int]) -> bool:
    """Say whether the network takes pictures of this height and width, and its maps follow them."""
    try:
        with torch.inference_mode():
            maps: list[Tensor] = net(torch.empty(1, getattr(net, "in_chans", 3), *size, device="meta"))
    except Exception:  # networks refuse a size with errors of every kind
        return False
    last = channels_last(net)
    for x, stride in zip(maps, net.feature_info.reduction(), strict=True):
        sides = x.shape[1:3] if last else x.shape[2:]
        steps = [side / stride for side in size]  # unpadded convolutions leave up to three places out
        if any(not max(1, 0.9 * n - 3) <= got <= n + 1 for n, got in zip(steps, sides, strict=True)):
            return False
    return True


def _sizes(net: Any, own: tuple[int, int]) -> Sizes | None:
    """Find what both sides must be a multiple of, and about the smallest size; where only its own size works, that.

    None where neither does, or where its own size is no square.
    """
    unit = next((unit for unit in _UNITS if _takes(net, _odd_multiples(unit))), None)
    if unit is None:
        return Sizes(least=own[0], most=own[0]) if own[0] == own[1] and _takes(net, own) else None
    if _takes(net, (unit, unit)):
        return Sizes(unit, unit)
    smaller = list(takewhile(lambda side: _takes(net, (side, side)), (side for side in _SMALL if not side % unit)))
    larger = (side for side in _LARGE if not side % unit and _takes(net, (side, side)))
    return Sizes(unit, smaller[-1] if smaller else next(larger, -(-max(_NEAR) // unit) * unit))


def _odd_multiples(unit: int) -> tuple[int, int]:
    """Return two different sizes near those that are usual: multiples of `unit`, and of no larger power of two times it."""
    height, width = (max(1, side // unit) | 1 for side in _NEAR)
    return (height if height != width else height + 2) * unit, width * unit
