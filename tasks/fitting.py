"""Check that the tensors of a file fit the head that they are copied into."""

from collections.abc import Mapping

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

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
