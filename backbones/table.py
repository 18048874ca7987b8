"""The family: each network a row of four numbers. Imports no torch.

`block` is "basic" or "bottleneck"; `layers` counts the blocks of the four stages; `groups` is ResNeXt's cardinality and
`width_per_group` the channels of one group in the first stage. Sources: He et al. 2016 (table 1), Xie et al. 2017
(table 1), Zagoruyko and Komodakis 2016 (table 10).
"""

import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .super_resolution.names import arch_of
from .video.names import arch_of_clips


def _row(block: str, layers: tuple[int, int, int, int], groups: int = 1, width_per_group: int = 64) -> dict[str, Any]:
    return {"block": block, "layers": layers, "groups": groups, "width_per_group": width_per_group}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": _row("basic", (2, 2, 2, 2)),
    "resnet34": _row("basic", (3, 4, 6, 3)),
    "resnet50": _row("bottleneck", (3, 4, 6, 3)),
    "resnet101": _row("bottleneck", (3, 4, 23, 3)),
    "resnet152": _row("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": _row("bottleneck", (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": _row("bottleneck", (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": _row("bottleneck", (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": _row("bottleneck", (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": _row("bottleneck", (3, 4, 23, 3), 1, 128),
}

SUPER_RESOLUTION: dict[str, dict[str, Any]] = {
    "srresnet": {"blocks": 16, "width": 64, "factors": (2, 3, 4)},
    "msrresnet": {"blocks": 16, "width": 64, "factors": (2, 3, 4)},
    "edsr": {"blocks": 16, "width": 64, "factors": (2, 3, 4, 8)},
    "rrdbnet": {"blocks": 23, "width": 64, "factors": (1, 2, 4, 8)},
}
"""Trunks of stride 1 for super-resolution: blocks and channels as published, and by how much each one's tail enlarges.

Behind a pixel-unshuffle of u the tail enlarges u times the scale. Sources: Ledig et al. 2017, figure 4; BasicSR's MSRResNet,
EDSR (Lim et al. 2017, EDSR-baseline) and RRDBNet (Wang et al. 2018).
"""


def _clips(unit: int = 1, least: int = 1, flat: str = "") -> dict[str, Any]:
    return {"unit": unit, "least": least, "flat": flat}


CLIPS: dict[str, dict[str, Any]] = {
    "r3d_18": _clips(),
    "mc3_18": _clips(),
    "r2plus1d_18": _clips(),
    "c3d": _clips(least=8),
    **{f"i3d_{flat}": _clips(least=2, flat=flat) for flat in ("resnet18", "resnet34", "resnet50", "resnet101")},
    "slowfast_r50": _clips(unit=4, least=4),
    "slowfast_r50_4x16": _clips(unit=8, least=8),
}
"""Trunks for clips: frames that a clip has are a multiple of `unit`, and at least `least`. `flat` is the 2-D network that is
inflated. Sources: Tran et al. 2018, table 1; Tran et al. 2015, figure 3; Carreira and Zisserman 2017; Feichtenhofer et al.
2019, table 1."""
PUBLISHED_CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18")  # torchvision has weights of these
INFLATE = ("centre", "mean")

_SETTINGS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("blocks", "width", "unshuffle"), tuple(SUPER_RESOLUTION)),
    "residual_scale": ("edsr",),
    "inflate": tuple(name for name, row in CLIPS.items() if row["flat"]),
}
SETTINGS = tuple(_SETTINGS_OF)
"""What can be chosen of some trunks, as recipes and `backbone` call it: of those of super-resolution, and of inflated ones."""
SPANDREL = "spandrel:"  # before a file that spandrel opens: for prediction and scoring

STRIDE_IN = ("3x3", "1x1")  # where a bottleneck strides: torchvision's place, and the original network's
NORMS = ("batch", "frozen", "sync", "group")
OUTPUT_STRIDES = (32, 16, 8)
TIMM = "timm:"  # before the name of any network of timm that gives feature maps
PYRAMIDS = ("pool", "conv")

KINDS: tuple[tuple[str, str, bool], ...] = (
    (r"backbone\. roi_heads\.keypoint_predictor\.", "a Keypoint R-CNN of torchvision", False),
    (r"backbone\.fpn\.inner_blocks\.0\.1\. roi_heads\.", "a Faster or Mask R-CNN of torchvision, version 2", False),
    (r"head\.regression_head\.bbox_ctrness\.", "an FCOS of torchvision", False),
    (r"head\.classification_head\.module_list\.", "an SSD of torchvision", False),
    (r"head\.classification_head\.cls_logits\.", "a RetinaNet of torchvision", False),
    (r"classifier\.low_classifier\.", "an LR-ASPP of torchvision", False),
    (r"backbone\.body\. roi_heads\.mask_predictor\.", "a Mask R-CNN of torchvision", True),
    (r"backbone\.body\. roi_heads\.box_predictor\.", "a Faster R-CNN of torchvision", True),
    (r"backbone\. classifier\.0\.convs\.", "a DeepLabV3 of torchvision", True),
    (r"backbone\. classifier\.4\.weight", "an FCN of torchvision", True),
    (r"backbone\. one_stage\.", "a one-stage detector of Trunkline", True),
    (r"backbone\. segmentation_head\.", "a segmenter of Trunkline", True),
    (r"backbone\.body\. sem_seg_head\.", "a segmenter of Trunkline on a pyramid", True),
    (r"(backbone\.bottom_up|proposal_generator)\.", "a detector of Detectron2", False),
    (r"(rpn_head|roi_head)\.", "a two-stage detector of MMDetection", False),
    (r"bbox_head\.", "a one-stage detector of MMDetection", False),
    (r"decode_head\.", "a segmenter of MMSegmentation", False),
    (r"encoder\. decoder\.blocks\.x_", "a U-Net++ of segmentation_models_pytorch", False),
    (r"encoder\. decoder\.blocks\.", "a U-Net of segmentation_models_pytorch", False),
    (r"encoder\. decoder\. segmentation_head\.", "a segmenter of segmentation_models_pytorch", False),
    (r"(class_embed|bbox_embed)\.", "a DETR", False),
    (r"(model\.)*\d+\.(cv\d|conv|m\.\d+|dfl)\.", "a YOLO network", False),
    (
        r"(resnet\.)?embedder\.embedder\.",
        "a ResNet of Hugging Face's transformers, whose tensors have other names",
        False,
    ),
)
"""Networks that are more than a trunk: how names of their tensors begin (each pattern fits one), what they are, and whether
their heads are read here."""

GIVEN = {"features": "trunkline.backbones.video.given:GivenFeatures"}
"""What stands in a trunk's place where features were computed before, by name."""

WRAPPERS = {
    "frames": "trunkline.backbones.video.frames:Frames",
    "tsm": "trunkline.backbones.video.frames:ShiftedFrames",
}
"""What makes a trunk for clips of one for pictures, by name."""

_ADDED: tuple[dict[str, Any], dict[str, Any]] = ({}, {})


def add(backbones: dict[str, Any], wrappers: dict[str, Any]) -> None:
    """Make more backbones, and wrappers around one, known by name in this process."""
    _ADDED[0].update(backbones)
    _ADDED[1].update(wrappers)


def others() -> dict[str, Any]:
    """List backbones beside the family: those of other packages (entry points `trunkline.backbones`), and those added.

    Each value is a callable or its `module:name`. It is called with keywords and gives a backbone. Of `in_channels`,
    `output_stride`, `norm`, `checkpointing` and `zero_init` it takes those that it can use.
    """
    return {e.name: e.value for e in entry_points(group="trunkline.backbones")} | _ADDED[0] | GIVEN


def wrappers() -> dict[str, Any]:
    """List what can stand around a backbone and be one itself: ours, entry points `trunkline.wrappers`, and those added.

    Each value is a callable or its `module:name`. It is called with the backbone, and holds it as `body`.
    """
    return WRAPPERS | {e.name: e.value for e in entry_points(group="trunkline.wrappers")} | _ADDED[1]


def named(arch: str) -> str:
    """Return the name under which an architecture is known: `timm/NAME` is `timm:NAME`, unless there is such a path."""
    slash = TIMM.replace(":", "/")
    return TIMM + arch.removeprefix(slash) if arch.startswith(slash) and not Path(arch).exists() else arch


def is_known(arch: str) -> bool:
    """Say whether there is a backbone of this name; any name that begins with `timm:` or `timm/` counts."""
    arch = named(arch)
    return arch in architectures() or arch.startswith(TIMM) or arch in others()


def architectures() -> list[str]:
    """List the names of this package's own trunks."""
    return [*ARCHITECTURES, *SUPER_RESOLUTION, *CLIPS]


def flat_of(arch: str | None) -> str:
    """Return the 2-D network of which a trunk for clips is inflated; "" for another."""
    return CLIPS[arch]["flat"] if arch in CLIPS else ""


def frames_problem(arch: str | None, frames: int) -> str:
    """Say why a trunk for clips does not take clips of so many frames, and which it takes; "" where it does."""
    row = CLIPS.get(arch or "", _clips())
    unit, least = row["unit"], row["least"]
    if frames >= least and frames % unit == 0:
        return ""
    takes = f"a multiple of {unit} frames" if unit > 1 else f"at least {least} frames"
    near = sorted({max(least, frames // unit * unit), max(least, -(-frames // unit) * unit)})
    return f"{arch}: takes clips of {takes}, and this one has {frames}: give it {' or '.join(map(str, near))}"


def settings_problem(arch: str | None, given: Mapping[str, Any]) -> str:
    """Say which of SETTINGS were given and cannot be read by this trunk, in one line; "" where all can.

    `given` holds what was set, by name; None is not set, nor is an unshuffle of 1.
    """
    wrong = {
        name: value
        for name, value in given.items()
        if arch and value is not None and (name, value) != ("unshuffle", 1) and arch not in _SETTINGS_OF[name]
    }
    if not wrong:
        return ""
    said = ", ".join(
        f"{name}={value if isinstance(value, str) else format(value, 'g')}" for name, value in wrong.items()
    )
    fitting = dict.fromkeys(name for setting in wrong for name in _SETTINGS_OF[setting])
    return f"{said}: is for {', '.join(fitting)}, and the trunk is {arch}; leave it out"


def kind_of(values: Mapping[str, Any]) -> tuple[str, bool]:
    """Say what a network is by its tensors' names, and whether its heads are read here; ("", False): unknown."""
    names = [n for n, v in values.items() if not (n.startswith("classifier.") and len(getattr(v, "shape", ())) == 2)]
    for patterns, what, read in KINDS:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns.split()):
            return what, read
    return "", False


def nearest_arch(tensors: Mapping[str, Any]) -> str | None:
    """Find the network with the same block, blocks per stage, groups and width; None where there is none.

    Trunks of super-resolution, and of clips where they are not inflated, are known by their names alone.
    """
    if other := arch_of(tensors) or arch_of_clips(tensors):
        return other
    layers = tuple(
        len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
    )
    second = tensors.get("layer1.0.conv2.weight")
    if second is None or len(second.shape) not in (4, 5) or not second.shape[1]:
        return None
    bottleneck = "layer1.0.conv3.weight" in tensors
    row = {
        "block": "bottleneck" if bottleneck else "basic",
        "layers": layers,
        "groups": second.shape[0] // second.shape[1],
        "width_per_group": second.shape[1],
    }
    flat = next((name for name, other in ARCHITECTURES.items() if other == row), None)
    if len(second.shape) == 4:
        return flat
    return next((name for name in CLIPS if flat and flat_of(name) == flat), None)
