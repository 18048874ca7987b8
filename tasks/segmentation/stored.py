"""Segmenters in files: what they say of themselves, and into which modules their tensors go."""

import json
from typing import Any

from ...backbones.contract import Backbone
from ...backbones.weights import Weights
from ...heads.pixels.pixel_head import PixelHead
from ...heads.pixels.segmentation_trunk import ON_PYRAMID
from ...heads.pixels.semantic_pyramid import KIND, SemanticPyramidHead
from ..contract import Published
from ..fitting import PYRAMID, check_fit, copy_with_pyramid, of_another, pyramid_tensors
from ..options import depth_of

_UNDER = SemanticPyramidHead.under
LAST = ("classifier.4.", "segmentation_head.0.", f"{_UNDER}predictor.", "aux_classifier.4.")
"""The layers that have an output for each class; the last one is trained beside."""
KEPT = ("head", "aux", "view", "size", "longest", "padding")
"""The options that a file states of its segmenter."""
_AUX = "aux_classifier."


def stated(options: Any, palette: tuple[tuple[int, int, int], ...]) -> dict[str, str]:
    """Return what the weights' header says: the options of KEPT and the palette."""
    said = {n: getattr(options, n) for n in KEPT} | {"palette": palette} | depth_of(options)
    return {"trunkline_segmentation": json.dumps(said)}


def stated_by(weights: Weights) -> Published | None:
    """Read what a file says of the segmenter that it holds; None where it holds none.

    torchvision's files say nothing: DeepLabV3 and FCN are known by their tensors' names, those of VOC by their 21
    outputs.
    """
    classes = classes_of(weights)
    if not classes or not any(name.startswith(LAST) for name in weights.rest):
        return None
    facts = {"classes": list(classes)}
    plain = any(name.startswith("classifier.") for name in weights.rest)  # torchvision's, whose output stride is 8
    pyramid = "pool" if any(name.startswith(f"{PYRAMID}fpn.") for name in weights.rest) else "none"
    network = {"norm": "frozen", "output_stride": 8 if plain else 32, "pyramid": pyramid}
    if said := weights.info.get("trunkline_segmentation"):
        found = json.loads(said)
        return Published(found | {"palette": tuple(tuple(colour) for colour in found["palette"])}, facts, network)
    kinds = {"classifier.0.convs.": "deeplabv3", _UNDER: KIND}
    kind = next((k for start, k in kinds.items() if any(name.startswith(start) for name in weights.rest)), "fcn")
    aux = 0.5 if any(name.startswith(_AUX) for name in weights.rest) else 0.0
    return Published({"head": kind, "aux": aux}, facts, network)


def classes_of(weights: Weights) -> tuple[str, ...]:
    """Return the class names of a segmenter's file; VOC's where it has none and its last layer has 21 outputs."""
    last = weights.rest.get("classifier.4.weight")
    return tuple(weights.classes or ()) or (voc_classes() if last is not None and len(last) == 21 else ())


def voc_classes() -> tuple[str, ...]:
    """Read the 21 names of VOC's segmentation, the background first, from torchvision's metadata."""
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

    names = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    return tuple(name.strip("_") for name in names)


def load_segmenter(weights: Weights, trunk: Backbone, head: PixelHead, classes: tuple[str, ...]) -> None:
    """Copy a file's head, and the pyramid that it stands on; where its classes differ, all but the last layers.

    The auxiliary FCN is left out if only the file has one, and starts anew if only the head has one. Of a
    detector's file the head is left out. Raises WeightsError with every tensor that is missing, unexpected or of another shape.
    """
    if of_another(weights, "segmenter", trunk):
        return
    own, notes = head.published(head.state_dict()), []
    on_pyramid = head.kind in ON_PYRAMID
    if on_pyramid:
        own = pyramid_tensors(trunk) | own
    given = dict(weights.rest)
    wanted = dict(own)
    if classes_of(weights) != classes:
        notes.append("new layers for other classes")
        given, wanted = ({n: t for n, t in some.items() if not n.startswith(LAST)} for some in (given, wanted))
    beside = [any(name.startswith(_AUX) for name in some) for some in (given, wanted)]
    if beside[0] != beside[1]:
        notes.append("the FCN beside left out" if beside[0] else "a new FCN beside")
        given, wanted = ({n: t for n, t in some.items() if not n.startswith(_AUX)} for some in (given, wanted))
    check_fit(weights.source, "head", given, own, wanted)
    copy_with_pyramid(given, trunk, head, head.under)
    report = getattr(trunk, "report", None)
    if report is not None:
        what = "pyramid and head" if on_pyramid else "head"
        report.note = "; ".join(filter(None, [report.note, f"{len(given)} tensors of its {what}", *notes]))
