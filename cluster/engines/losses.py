"""The losses of a micro-batch: of one task, or of several that share it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trunkline.ground.measured import MEASURED

from .balance import Fixed
from .sums import wide


def summed(named: dict[str, Tensor]) -> Tensor:
    """Add up the losses, in fp32 or better; what is only measured is left out."""
    each = [v if v.dtype == torch.float64 else v.float() for n, v in named.items() if not n.startswith(MEASURED)]
    return each[0] if len(each) == 1 else torch.stack(each).sum()


def added(numbers: Tensor) -> Tensor:
    """Add up the elements of a vector; a single one is its own sum."""
    return numbers[0] if len(numbers) == 1 else numbers.sum()


def parts_of(batch: Any) -> Sequence[Any]:
    """List the tasks' parts of a batch that they share; of any other, itself."""
    return getattr(batch, "parts", ()) or (batch,)


def part_of(batch: Any, name: str) -> Any:
    """Find the part of a batch that gave the loss `task/loss`."""
    parts = parts_of(batch)
    return parts[0] if len(parts) == 1 else next(p for p in parts if name.startswith(f"{p.task}/"))


def loss_weight(part: Any) -> float:
    """Return the weight of the part's task, by which its losses count in the report's total."""
    return getattr(part, "loss_weight", 1.0)


def labelled(part: Any) -> float:
    """Return the share of its micro-batch's samples that the part's losses are means over."""
    return getattr(part, "labelled", 1.0)


def scaled(total: Tensor, part: Any) -> Tensor:
    """Multiply a loss by its `scale`, in the loss's own precision."""
    scale = getattr(part, "scale", 1.0)
    return total if scale == 1.0 else total * scale


def by_part(named: dict[str, Tensor], batch: Any) -> list[tuple[Any, Tensor]]:
    """Add up the losses of each task's part of a micro-batch."""
    parts = parts_of(batch)
    if len(parts) == 1:
        return [(parts[0], summed(named))]
    return [(p, summed({n: v for n, v in named.items() if n.startswith(f"{p.task}/")})) for p in parts]


def weighed(named: dict[str, Tensor], batch: Any, balance: Fixed) -> Tensor:
    """Add up a micro-batch's losses: of each task first, balanced and scaled, then of the tasks."""
    each = [scaled(balance.weigh(getattr(part, "task", ""), own), part) for part, own in by_part(named, batch)]
    return each[0] if len(each) == 1 else torch.stack(each).sum()


def of_labelled(loss: Tensor, part: Any) -> Tensor:
    """Multiply a mean over labelled samples by their share, in fp64 where it is not all."""
    return loss if (share := labelled(part)) == 1.0 else loss.to(wide(loss)) * share
