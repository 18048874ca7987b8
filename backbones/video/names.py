"""Trunks for clips in files: known by the names and shapes of their tensors, and how their classifiers are called there.

Imports no torch.
"""

from collections.abc import Mapping
from typing import Any

PROJECTION = "head.projection."
"""How names of the classifier begin in PySlowFast's files."""


def arch_of_clips(tensors: Mapping[str, Any]) -> str | None:
    """Find the architecture of a trunk for clips from its tensors' names; None: another one, an inflated one among them.

    The names are torchvision's, PySlowFast's, and for C3D those of the layers in the paper.
    """
    if "s1_fuse.conv_f2s.weight" in tensors:
        return {7: "slowfast_r50", 5: "slowfast_r50_4x16"}.get(_frames(tensors, "s1_fuse.conv_f2s.weight"))
    if {"conv3a.weight", "conv5b.weight"} <= tensors.keys():
        return "c3d"
    if "stem.0.weight" not in tensors:
        return None
    if "layer1.0.conv1.0.3.weight" in tensors:
        return "r2plus1d_18"
    return {3: "r3d_18", 1: "mc3_18"}.get(_frames(tensors, "layer2.0.conv1.0.weight"))


def _frames(tensors: Mapping[str, Any], name: str) -> int:
    """Return over how many frames a convolution goes; 0 where it is none over time."""
    shape = getattr(tensors.get(name), "shape", ())
    return int(shape[2]) if len(shape) == 5 else 0


def classifier_in(names: Mapping[str, str]) -> dict[str, str]:
    """Map `fc.weight` and `fc.bias` to the names in a file of PySlowFast, given by our names; nothing for another file."""
    if "s1_fuse.conv_f2s.weight" not in names:
        return {}
    return {f"fc.{n}": names[PROJECTION + n] for n in ("weight", "bias") if PROJECTION + n in names}


def published_names(arch: str | None, tensors: dict[str, Any]) -> dict[str, Any]:
    """Rename a network's tensors as its publisher has them: the classifier `fc.` of SlowFast is `head.projection.`."""
    if arch is None or not arch.startswith("slowfast"):
        return tensors
    return {PROJECTION + name.removeprefix("fc.") if name in ("fc.weight", "fc.bias") else name: tensor
            for name, tensor in tensors.items()}  # fmt: skip
