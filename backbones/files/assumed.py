"""What is assumed of weights whose file does not say it; all of it is told."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..contract import Preprocessing
from ..settings import usual_preprocessing
from ..table import ARCHITECTURES, CLIPS, SUPER_RESOLUTION, TIMM, flat_of
from ..timm_trunk import preprocessing_of

_FOR_CLIPS = {
    "frames": {
        "frames": "clips of 8 frames, one of each of 8 equal parts; frames=16, or stride=8, where it was trained so"
    },
    "tsm": {"shift": "the shift moves an eighth of the channels each way, as published"},
}


def assume(
    stated: dict[str, Any], tensors: Mapping[str, Tensor], wrapper: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Complete what a file states of its network, and return what was assumed, a line for each field.

    `wrapper` is what stands around a trunk for pictures that is one for clips.
    """
    assumed = {}
    if "stride_in" not in stated:
        stated = {**stated, "stride_in": "3x3"}
        if ARCHITECTURES.get(flat_of(stated["arch"]) or stated["arch"], {}).get("block") == "bottleneck":
            assumed["stride_in"] = "stride_in=3x3, torchvision's; the original network's weights need stride_in=1x1"
    if "preprocessing" not in stated and stated["arch"].startswith(TIMM):
        stated = {**stated, "preprocessing": preprocessing_of(stated["arch"].removeprefix(TIMM))}
        assumed["preprocessing"] = f"timm's preprocessing for this network, {_numbers(stated['preprocessing'])}"
    elif "preprocessing" not in stated and stated["arch"] in SUPER_RESOLUTION:
        p = usual_preprocessing(stated["arch"])
        stated = {**stated, "preprocessing": p}
        said = (
            "EDSR's, mean {}, range 255".format(", ".join(f"{m:g}" for m in p.mean))
            if p.mean[0]
            else "none, input 0 to 1"
        )
        assumed["preprocessing"] = f"preprocessing: {said}"
    elif "preprocessing" not in stated and stated["arch"] in CLIPS:
        stated = {**stated, "preprocessing": usual_preprocessing(stated["arch"])}
        assumed["preprocessing"] = (
            f"the preprocessing published with {stated['arch']}, {_numbers(stated['preprocessing'])}"
        )
    elif "preprocessing" not in stated:
        assumed["preprocessing"] = f"torchvision's preprocessing for ImageNet, {_numbers(Preprocessing())}"
    if wrapper:
        assumed |= _FOR_CLIPS["frames"] | (_FOR_CLIPS["tsm"] if wrapper == "tsm" else {})
    of_clips = wrapper or stated["arch"] in CLIPS
    if "classes" not in stated and of_clips and len(tensors.get("fc.weight", ())) == 400:
        from ..sources import kinetics_classes

        stated = {**stated, "classes": kinetics_classes()}
        assumed["classes"] = "Kinetics-400's classes in the alphabet's order, as the classifier has 400 and no names"
    if "classes" not in stated and "fc.weight" in tensors and len(tensors["fc.weight"]) == 1000:
        from ..sources import imagenet_classes

        stated = {**stated, "classes": imagenet_classes()}
        assumed["classes"] = "ImageNet's classes, from torchvision's metadata, as the classifier has 1000 and no names"
    return stated, assumed


def _numbers(p: Preprocessing) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    wide = f" x {p.resize_width}" if p.resize_width else ""
    return f"mean {mean}, std {std}, resize {p.resize}{wide}, crop {p.size}, {p.interpolation}"
