"""Detectors in files: what they say of themselves, and into which modules their tensors go. Names are torchvision's."""

import json
import re
from typing import Any

from torch import Tensor, nn

from ...backbones.norm import FrozenBatchNorm2d
from ...backbones.pyramid import Pyramid
from ...backbones.weights import Weights
from ..fitting import check_fit

PREDICTORS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.", "one_stage.classes.")
KEPT = (
    "head",
    "size",
    "longest",
    "score",
    "nms",
    "detections",
    "as_torchvision",
)  # options that a file states of its detector
_PYRAMID = "backbone."
_OLD = (  # names that torchvision had before 0.13, which its published files still have
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
    (re.compile(r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$"), r"backbone.fpn.\1_blocks.\2.0.\3"),
)
_OLD_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")


def stated_options(weights: Weights) -> dict[str, Any] | None:
    """The options that the weights' detector was made with; None where they hold none."""
    if not weights.classes or not any(name.startswith(PREDICTORS) for name in weights.rest):
        return None
    said = weights.info.get("trunkline_detection")
    if said:
        return json.loads(said)
    masks = any(name.startswith("roi_heads.mask_head.") for name in weights.rest)
    return {"head": "mask_rcnn" if masks else "faster_rcnn", "as_torchvision": True}


def load_detector(weights: Weights, pyramid: Pyramid, head: nn.Module, classes: tuple[str, ...]) -> None:
    """Copy a file's pyramid and head; of other classes all but the layers that have an output for each of them.

    Raises WeightsError with every tensor that is missing, unexpected or of another shape.
    """
    given = {_new_name(name): tensor for name, tensor in weights.rest.items()}
    same = tuple(weights.classes or ()) == classes
    if not same:
        given = {name: t for name, t in given.items() if not name.startswith(PREDICTORS)}
    own = {f"{_PYRAMID}{name}": t for name, t in pyramid.state_dict().items() if not name.startswith("body.")}
    own |= head.state_dict()
    wanted = own if same else {name: t for name, t in own.items() if not name.startswith(PREDICTORS)}
    check_fit(weights.source, "detector", given, own, wanted)
    _copy(pyramid, {n.removeprefix(_PYRAMID): t for n, t in given.items() if n.startswith(_PYRAMID)})
    _copy(head, {n: t for n, t in given.items() if not n.startswith(_PYRAMID)})
    report = pyramid.body.report
    if report is not None:
        report.note = "; ".join(
            filter(
                None,
                [report.note, f"{len(given)} tensors of its detector", "" if same else "new layers for other classes"],
            )
        )


def _new_name(name: str) -> str:
    for pattern, new in _OLD:
        name = pattern.sub(new, name)
    return _OLD_MASK.sub(lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}", name)


def _copy(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    module.load_state_dict(tensors, strict=False)  # what is missing was looked at


def without_epsilon(trunk: nn.Module) -> None:
    """torchvision's published detectors have frozen norms without epsilon."""
    for module in trunk.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
