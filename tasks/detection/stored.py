"""Detectors in files: what they say of themselves, and into which modules their tensors go. Names are torchvision's."""

import json
import re

from torch import nn

from ...backbones.norm import FrozenBatchNorm2d
from ...backbones.pyramid import Pyramid
from ...backbones.weights import Weights
from ..contract import Published
from ..fitting import OLD_PYRAMID, check_fit, copy_with_pyramid, of_another, pyramid_tensors

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
_OLD = (  # names that torchvision had before 0.13, which its published files still have
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
    OLD_PYRAMID,
)
_OLD_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")


def stated_by(weights: Weights) -> Published | None:
    """Read what a file says of the detector that it holds; None where it holds none.

    torchvision's files say nothing: they are known by their tensors' names, and COCO's classes by 91 outputs.
    """
    classes = classes_of(weights)
    if not classes or not any(name.startswith(PREDICTORS) for name in weights.rest):
        return None
    fpn, last = "backbone.fpn.", "backbone.fpn.extra_blocks.p6.weight"
    kind = "conv" if last in weights.rest else "pool" if any(n.startswith(fpn) for n in weights.rest) else "none"
    network = {"pyramid": kind, "norm": "frozen"}
    if said := weights.info.get("trunkline_detection"):
        return Published(json.loads(said), {"classes": list(classes)}, network)
    masks = any(name.startswith("roi_heads.mask_head.") for name in weights.rest)
    options = {"head": "mask_rcnn" if masks else "faster_rcnn", "as_torchvision": True}
    norm = "batch" if _norms_learnt(weights) else "frozen"
    return Published(options, {"classes": list(classes)}, {**network, "norm": norm})


def _norms_learnt(weights: Weights) -> bool:
    """Say whether a detector's norms were torch's, which count their batches and have an epsilon, and never frozen."""
    return any(name.endswith("num_batches_tracked") for name in weights.tensors)


def classes_of(weights: Weights) -> tuple[str, ...]:
    """Return the class names in a detector's file.

    Where it has none, these are COCO's if its predictor has 91 outputs, else ().
    """
    scores = weights.rest.get("roi_heads.box_predictor.cls_score.weight")
    return tuple(weights.classes or ()) or (coco_classes() if scores is not None and len(scores) == 91 else ())


def coco_classes() -> tuple[str, ...]:
    """List the 90 names of COCO by category id from 1, from torchvision's metadata.

    Ids without a category are named as `unused 12`.
    """
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    return tuple(f"unused {i}" if name == "N/A" else name for i, name in enumerate(names, 1))


def load_detector(weights: Weights, pyramid: Pyramid, head: nn.Module, classes: tuple[str, ...]) -> None:
    """Copy a file's pyramid and head; where its classes differ, all but the layers that have an output for each class.

    Of a segmenter's file the head is left out. Raises WeightsError with every tensor that is missing, unexpected or of
    another shape.
    """
    if of_another(weights, "detector", pyramid):
        return
    given = {_new_name(name): tensor for name, tensor in weights.rest.items()}
    same = classes_of(weights) == classes
    if not same:
        given = {name: t for name, t in given.items() if not name.startswith(PREDICTORS)}
    own = pyramid_tensors(pyramid) | head.state_dict()
    wanted = own if same else {name: t for name, t in own.items() if not name.startswith(PREDICTORS)}
    check_fit(weights.source, "detector", given, own, wanted)
    copy_with_pyramid(given, pyramid, head)
    report = pyramid.body.report
    plain = "trunkline_detection" not in weights.info and not _norms_learnt(weights)
    if report is not None:
        report.note = "; ".join(
            filter(
                None,
                [
                    report.note,
                    f"{len(given)} tensors of its detector",
                    "" if same else "new layers for other classes",
                    "assumed: frozen norms without epsilon, as in torchvision's published detectors"
                    if plain and same
                    else "",
                ],
            )
        )


def _new_name(name: str) -> str:
    for pattern, new in _OLD:
        name = pattern.sub(new, name)
    return _OLD_MASK.sub(lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}", name)


def without_epsilon(trunk: nn.Module) -> None:
    """Set the epsilon of the trunk's frozen norms to 0, as in torchvision's published detectors."""
    for module in trunk.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
