"""What a segmentation head asks of the trunk that it stands on: maps, an output stride, sizes that it can join."""

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from trunkline.ground.errors import WeightsError

from ...backbones.contract import deepest, sizes_of

STRIDES = {"deeplabv3": (8, 16), "deeplabv3plus": (8, 16), "fcn": (8, 16, 32), "unet": (32,), "fpn": (32,),
           "semantic_fpn": (32,)}  # fmt: skip
"""The output strides of the trunk that a head is made for."""
READS = {"deeplabv3": (), "fcn": (), "deeplabv3plus": ("c2",), "fpn": ("c2", "c3", "c4", "c5"),
         "unet": ("c2", "c3", "c4", "c5"), "semantic_fpn": ("p2", "p3", "p4", "p5")}  # fmt: skip
"""The maps that a head cannot do without; those that read `c` maps read the deepest too, and unet `c1`, where there is one."""
ON_PYRAMID = ("semantic_fpn",)
"""Heads that read the maps of a pyramid around the trunk (`backbones/pyramid.py`), of the kind that has `p2`."""
OF_OTHERS = ("deeplabv3plus", "unet", "fpn")
"""Heads whose decoders are segmentation-models-pytorch's."""
PADDED = {"deeplabv3plus": 16, "unet": 32, "fpn": 32, "semantic_fpn": 32}
"""What both sides of a batch's images are divisible by, where a head asks for that."""


def last_of(channels: Mapping[str, int]) -> str:
    """Return the map that a head takes for the deepest: `c5`, or where the trunk has none, its own deepest."""
    return "c5" if "c5" in channels else deepest(channels)


def network_misfits(kind: str, pyramid: str, output_stride: int) -> list[str]:
    """List what a head on a pyramid lacks in a recipe's network, by its settings alone; of other heads nothing."""
    if kind not in ON_PYRAMID:
        return []
    found = [] if pyramid == "pool" else [_no_pyramid(kind, f"network.pyramid={pyramid} has not all of them")]
    return found + ([] if output_stride in STRIDES[kind] else [_wrong_stride(kind, output_stride)])


def _no_pyramid(kind: str, there: str) -> str:
    return (
        f"head={kind} reads the maps {', '.join(READS[kind])} of a pyramid around the trunk, and {there}: set "
        "network.pyramid=pool"
    )


def _wrong_stride(kind: str, output_stride: int) -> str:
    allowed = " or ".join(map(str, STRIDES[kind]))
    return f"head={kind} on a trunk of output stride {output_stride}: set network.output_stride={allowed}"


def check_trunk(
    kind: str, channels: Mapping[str, int], output_stride: int, aux: float = 0.0, dilates: bool = True
) -> None:
    """Raise WeightsError where no head of this kind can stand on a trunk with these maps and this output stride.

    `dilates` says whether the trunk may have another output stride.
    """
    if kind not in STRIDES:
        raise WeightsError(f"head={kind}: expected one of {', '.join(STRIDES)}")
    needed = [*READS[kind], *(["c4"] if aux and "c4" not in READS[kind] else [])]
    if kind in ON_PYRAMID and any(name not in channels for name in needed):
        raise WeightsError(_no_pyramid(kind, f"this trunk has {', '.join(channels)}"))
    if any(name not in channels for name in needed):
        why = f"head={kind}" + (f" with aux={aux:g}" if aux else "")
        raise WeightsError(f"{why} needs the maps {', '.join(needed)}; this trunk has {', '.join(channels)}")
    if output_stride not in STRIDES[kind]:
        allowed = " or ".join(map(str, STRIDES[kind]))
        others = ", ".join(o for o, strides in STRIDES.items() if output_stride in strides and o not in ON_PYRAMID)
        if not dilates:
            other = f"one of head={others}, or another trunk" if others else "another trunk"
            raise WeightsError(f"head={kind} is made for an output stride of {allowed}: take {other}")
        raise WeightsError(_wrong_stride(kind, output_stride))
    if kind in OF_OTHERS and find_spec("segmentation_models_pytorch") is None:
        raise WeightsError(f"head={kind} needs segmentation-models-pytorch: pip install 'trunkline[segmentation]'")


def misfit(kind: str, output_stride: int, sizes: Mapping[str, tuple[int, ...]]) -> str:
    """Say why a decoder that enlarges maps by a whole number cannot join maps of these sizes; "" where it can.

    `sizes` are heights and widths of all the maps that it reads, fine to coarse.
    """
    ratio = {"fpn": 2, "deeplabv3plus": output_stride // 4}.get(kind)
    pairs = pairwise(sizes.values())
    if ratio is None or all(tuple(ratio * side for side in coarse) == tuple(fine) for fine, coarse in pairs):
        return ""
    said = ", ".join(f"{name} {height} x {width}" for name, (height, width) in sizes.items())
    return f"head={kind} joins maps of which each is {ratio} times the next; this trunk gives {said}: take another trunk or head"


def misfits(kind: str, side: int, aux: float, backbone: Any, crop: bool = True) -> list[str]:
    """List why the head cannot be trained on squares of `side` pixels on this trunk, which lies on the meta device.

    `crop` says whether the option of that name chose the side, and is told where the trunk takes none of that size.
    """
    last, unit, sizes = last_of(backbone.channels), PADDED.get(kind, 1), sizes_of(backbone)
    stride = backbone.strides[last]
    try:
        check_trunk(kind, backbone.channels, stride, aux, getattr(backbone, "dilates", True))
    except WeightsError as error:
        return [str(error)]
    side = -(-side // unit) * unit
    if crop and (said := sizes.misfit(side, "crop")):
        return [said]
    joined = (_joined(kind, backbone, (*READS[kind], last), side + more) for more in ((0,) if sizes.most else (0, 32)))
    return [said for said in joined if said][:1]


def _joined(kind: str, backbone: Any, names: tuple[str, ...], side: int) -> str:
    """Compute the shapes of the maps of a square, and say why the head cannot join them."""
    import torch  # what stands above is asked before anything is loaded

    with torch.inference_mode():
        maps = backbone(torch.empty(1, 3, side, side, device="meta"))
    return misfit(kind, backbone.strides[names[-1]], {name: tuple(maps[name].shape[-2:]) for name in names})
