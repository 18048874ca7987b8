"""Trunks for clips in files: known by the names and shapes of their tensors, and how their classifiers are called there.

Imports no torch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

PROJECTION = "head.projection."
"""How names of the classifier begin in PySlowFast's files."""

_SHIFTED = re.compile(r"(?:.*\.)?layer(\d)\.(\d+)\.conv1(?:\.conv)?\.net\.weight")
_OF_TSM = re.compile(r"(.*\.layer\d\.\d+\.conv1)\.net\.weight")
_OF_MMACTION = re.compile(r"((?:.*\.)?)(conv|downsample)(\d?)\.(?:(conv)(?:\.net)?|bn)\.(\w+)")
_BLOCK = re.compile(r"(?:.*\.)?layer(\d)\.(\d+)\.conv1\.")
_UNREAD = (
    (r"layer\d\.\d+\.(nl|block|non_local_block)\.", "has non-local blocks, which are not here"),
    (
        r"layer\d\.\d+\.net\.",
        "shifts whole blocks (shift_place=block); here the residual branch is shifted, as in blockres",
    ),
    (r"layer\d\.net\.\d+\.conv1\.", "pools over time within the network (temporal_pool), which is not here"),
)
SHIFTED_STAGE = 23
"""Blocks of a stage from which every second block of the network is shifted alone, as the authors of TSM do."""


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


def spelled_as_ours(names: dict[str, str], axes: Mapping[str, int]) -> dict[str, str]:
    """Rename a 2-D ResNet of TSM's authors (`conv1.net.weight`) or of mmaction2 (`conv1.conv.weight`, `conv1.bn.weight`).

    `names` map the names in a file without additions to the names as they are, `axes` to how many axes each tensor has.
    Other networks, mmaction2's over time among them, keep their names.
    """
    if any(_OF_TSM.fullmatch(name) for name in names) and not _of_mmaction(names, axes):
        return {_OF_TSM.sub(r"\1.weight", name): own for name, own in names.items()}
    return {_from_mmaction(name): own for name, own in names.items()} if _of_mmaction(names, axes) else names


def _of_mmaction(names: Iterable[str], axes: Mapping[str, int]) -> bool:
    ends = ("layer1.0.conv1.conv.weight", "layer1.0.conv1.conv.net.weight")
    return any(name.endswith(ends) and axes[name] == 4 for name in names)


def _from_mmaction(name: str) -> str:
    found = _OF_MMACTION.fullmatch(name)
    if not found:
        return name
    before, kind, number, conv, last = found.groups()
    if kind == "downsample":
        return f"{before}downsample.{0 if conv else 1}.{last}"
    return f"{before}{'conv' if conv else 'bn'}{number}.{last}"


def frames_in(names: Iterable[str]) -> tuple[str, str]:
    """Say what stands around the trunk of a file of TSM's code or of mmaction2's recognisers, and in a word whose names they are.

    It is `tsm` where convolutions are shifted, `frames` where none is (TSN); ("", "") for other files.
    """
    some = [name.replace("_orig_mod.", "") for name in names]
    theirs = any(".new_fc." in f".{name}" and name.endswith("new_fc.weight") for name in some)
    mmaction = any(name.endswith("cls_head.fc_cls.weight") for name in some)
    if any(_SHIFTED.fullmatch(name) for name in some):
        return "tsm", f"{'mmaction2' if mmaction else 'TSM'}'s names with the temporal shift"
    return ("frames", f"{'mmaction2' if mmaction else 'TSN'}'s names") if theirs or mmaction else ("", "")


def unread_in(names: Iterable[str]) -> str:
    """Say what a network of TSM's kind in a file has that is not here; "" where there is nothing."""
    some = [name.replace("_orig_mod.", "") for name in names]
    shifted = {(int(m[1]), int(m[2])) for name in some if (m := _SHIFTED.fullmatch(name))}
    tsm = shifted or any(name.endswith(("new_fc.weight", "cls_head.fc_cls.weight")) for name in some)
    for pattern, what in _UNREAD if tsm else ():
        if any(re.search(pattern, name) for name in some):
            return what
    blocks = {(int(m[1]), int(m[2])) for name in some if (m := _BLOCK.match(name))}
    step = 2 if max(Counter(stage for stage, _ in blocks).values(), default=0) >= SHIFTED_STAGE else 1
    expected = {(stage, at) for stage, at in blocks if at % step == 0}
    if shifted and shifted != expected:
        return f"shifts {len(shifted)} of its {len(blocks)} blocks, where {len(expected)} are shifted here: it is another network"
    return ""
