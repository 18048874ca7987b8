"""Two networks of one kind mixed weight by weight: `blend=FILE:0.8`."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from .assembly import Ready
from .foreign import is_foreign

_NAMED = 3  # tensors that a message names


@dataclass(frozen=True)
class Blend:
    """The network that is mixed in, a run's folder or a weights file, and its share of every weight, 0 to 1."""

    source: str
    share: float

    def __str__(self) -> str:
        return f"{self.source}:{self.share:g}"

    def said(self, first: str) -> str:
        """Say whose share is what; `first` is the network that it is mixed into."""
        return f"blend: {self.share:g} of {self.source} and {1 - self.share:g} of {first}, buffers too"


def blend_of(text: str) -> Blend:
    """Read `FILE:SHARE`; a `~` is the home folder. Raises RecipeError for a missing share, and one outside 0 to 1."""
    source, _, share = text.rpartition(":")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not source or not 0 <= number <= 1:
        file = source or ("" if 0 <= number <= 1 else text.strip(":")) or "FILE"
        raise RecipeError(
            f"blend={text}: expected FILE:SHARE, with FILE's share of the weights from 0 to 1, as blend={file}:0.8 "
            "(0.8 of FILE and 0.2 of the network that is named first)"
        )
    return Blend(str(at_home(source)), number)


def refuse_foreign(first: str, blend: Blend) -> None:
    """Raise RecipeError where one of the two networks does not learn here."""
    if foreign := [source for source in (first, blend.source) if is_foreign(source)]:
        raise RecipeError(
            f"blend={blend}: {foreign[0]} is a network of spandrel, whose weights are not mixed here; both must be networks of "
            "this package: a run, or a weights file that is read without spandrel:"
        )


def mix_in(found: Ready, other: Ready, blend: Blend) -> None:
    """Make `found` the blend, and say so in its origin. Raises RecipeError where `other` is another network."""
    if wrong := _differences(found, other):
        raise RecipeError(
            f"blend={blend}: is another network than {found.origin['source']}, and only two of the same are mixed: "
            + "; ".join(wrong)
        )
    mix(found.model, other.model, blend.share)
    found.origin["blend"] = {**other.origin, "source": blend.source, "share": blend.share}


@torch.no_grad()
def mix(model: nn.Module, other: nn.Module, share: float) -> None:
    """Bring each floating tensor of the state dict, buffers too, to (1 - share) of its own and `share` of the other's.

    The sum is made in fp64 and rounded once: 0 leaves the model as it is, and 1 makes it the other. Whole numbers (of batch norm:
    how many batches it saw) stay the model's. Network interpolation of Wang et al. 2018 (ESRGAN, section 3.4).
    """
    theirs = other.state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.cpu().double() * (1 - share) + theirs[name].cpu().double() * share)


def _differences(found: Ready, other: Ready) -> list[str]:
    """Say what the two networks do not share: task, architecture, settings, scale or classes, preprocessing, tensors."""
    first, second = _about(found), _about(other)
    wrong = [f"{key}: {second.get(key)}, not {value}" for key, value in first.items() if value != second.get(key)]
    return wrong or _tensors_apart(found.model, other.model)


def _about(found: Ready) -> dict[str, Any]:
    """Collect what decides a network and what is done with its input, as JSON has it."""
    facts, network = found.facts, found.recipe.network
    said = {
        "task": found.task.name, "architecture": facts.arch, "stride_in": facts.stride_in,
        **{key: getattr(network, key) for key in ("output_stride", "norm", "pyramid", "wrapper")},
        **dict(facts.settings), **found.task.facts, **asdict(found.model.preprocessing),
    }  # fmt: skip
    return json.loads(json.dumps(said, default=str))


def _tensors_apart(model: nn.Module, other: nn.Module) -> list[str]:
    own, theirs = ({n: tuple(t.shape) for n, t in m.state_dict().items()} for m in (model, other))
    wrong = [f"{name} is missing" for name in own if name not in theirs]
    wrong += [f"{name} is one too many" for name in theirs if name not in own]
    wrong += [f"{n} is {theirs[n]}, not {shape}" for n, shape in own.items() if n in theirs and theirs[n] != shape]
    return wrong[:_NAMED] + ([f"and {len(wrong) - _NAMED} tensors more"] if len(wrong) > _NAMED else [])
