"""Check that the tensors of a file fit the head that they are copied into."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from ..backbones.contract import within
from ..backbones.pyramid import pyramid_of
from ..backbones.weights import Weights, check_floating

_LISTED = 10


def check_fit(
    source: str, kind: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Check that tensors fit.

    Raises WeightsError listing those of `wanted` that are missing, and those that `own` lacks or has in another shape; and
    for integers where `own` is floating.
    `kind` is what the file `source` holds, in a word: detector, head.
    """
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not of this {kind}" for name in given if name not in own]
    problems += [
        f"{name} is of shape {tuple(t.shape)}, here {tuple(own[name].shape)}"
        for name, t in given.items()
        if name in own and t.shape != own[name].shape
    ]
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise WeightsError(f"{source}: its {kind} does not fit:\n  " + "\n  ".join(problems[:_LISTED] + more))
    check_floating(source, given, own)


PYRAMID = "backbone."
"""What the names of a pyramid's tensors begin with in a published file, as in torchvision's detectors."""


OLD_PYRAMID = (
    re.compile(r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$"),
    r"backbone.fpn.\1_blocks.\2.0.\3",
)
"""Names that a pyramid's tensors had in torchvision before 0.13, and what they are called now."""
HEADS = {
    "detector": ("roi_heads.", "rpn.", "one_stage."),
    "segmenter": ("classifier.", "aux_classifier.", "segmentation_head.", "sem_seg_head."),
}
"""How the names of heads' tensors begin in files, by what these heads are."""


def pyramid_tensors(backbone: Any) -> dict[str, Tensor]:
    """Name a pyramid's own tensors, without its trunk's, as a published file does; there are none where there is no pyramid."""
    pyramid = pyramid_of(backbone)
    if pyramid is None:
        return {}
    return {f"{PYRAMID}{name}": t for name, t in pyramid.state_dict().items() if not name.startswith("body.")}


def copy_with_pyramid(given: Mapping[str, Tensor], backbone: Any, head: nn.Module, under: str = "") -> None:
    """Copy tensors into a pyramid, and the others into the head, before whose names `under` stands in the file.

    `check_fit` has looked for missing tensors, and for those of neither.
    """
    own = {n.removeprefix(PYRAMID): t for n, t in given.items() if n.startswith(PYRAMID)}
    if own:
        (pyramid_of(backbone) or backbone).load_state_dict(own, strict=False)
    head.load_state_dict(
        {n.removeprefix(under): t for n, t in given.items() if not n.startswith(PYRAMID)}, strict=False
    )


def of_another(weights: Weights, kind: str, backbone: Any) -> bool:
    """Say whether a file holds a head of another kind than this one, in a word of HEADS.

    Then its head is left out, its pyramid is taken where the one here is of the same shape, and the report says both.
    """
    here = {other for other, starts in HEADS.items() if any(name.startswith(starts) for name in weights.rest)}
    if kind in here or not here:
        return False
    own = pyramid_tensors(backbone)
    old, new = OLD_PYRAMID
    given = {old.sub(new, name): t for name, t in weights.rest.items() if name.startswith(f"{PYRAMID}fpn.")}
    same = {name: t.shape for name, t in own.items()} == {name: t.shape for name, t in given.items()}
    taken = given if same else {}
    check_floating(weights.source, taken, own)
    copy_with_pyramid(taken, backbone, nn.Identity())
    if report := getattr(within(backbone), "report", None):
        pyramid = f", {len(taken)} tensors of its pyramid" if taken else ", without its pyramid" if given else ""
        said = f"a new {kind}, as the file has a {' and a '.join(here)}{pyramid}"
        report.note = "; ".join(filter(None, [report.note, said]))
    return True


def copy_head(weights: Weights | None, task: str, head: nn.Module) -> bool:
    """Copy a file's head of this task into `head`, all of it. Return whether the file has one.

    For heads that are published under their own names. Raises WeightsError with the tensors that do not fit.
    """
    if weights is None or weights.info.get("trunkline_task") != task:
        return False
    own = head.state_dict()
    check_fit(weights.source, "head", weights.rest, own, own)
    head.load_state_dict(weights.rest)
    return True
