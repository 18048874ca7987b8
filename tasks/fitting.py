"""Check that the tensors of a file fit the head that they are copied into."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

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
