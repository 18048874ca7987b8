"""How the gradients of several tasks agree on the trunk that they share, measured beside the updates and changing none.

For each task the gradient is that of its own loss, without weight and balance, as the mean over its samples in the update.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from trunkline.ground.errors import RecipeError

from ...backbones.contract import within
from ...cluster.contract import Engine
from ...cluster.engines.losses import labelled
from ...cluster.engines.sums import flat_of, foreach, strides_of, views_of, wide
from ...cluster.engines.torch_engine import TorchEngine
from ...heads.contract import Batch
from ...heads.model import Model
from ..recipe.fields import learning_tasks
from .session import Session

Comparing = Callable[[int, Sequence[Batch]], dict[str, float]]
"""From an update's number in the run and this worker's micro-batches to what was measured: empty where it is not its turn."""


def comparing(session: Session, engine: Engine) -> Comparing:
    """Make what compares the tasks' gradients before every update whose number `log.cosines` divides.

    Where the phase has no trunk that learns, a note says so and nothing is measured. Raises RecipeError where players learn
    in turns.
    """
    every, model = session.recipe.log.cosines, session.model
    if not every:
        return lambda number, micro_batches: {}
    if not isinstance(engine, TorchEngine):
        others = ", ".join(model.beside) or "another network"
        raise RecipeError(
            f"log.cosines={every}: compares what the model learns, and {others} learns in turns: set it to 0"
        )
    trunk = [p for p in within(model.backbone).parameters() if p.requires_grad]
    if not trunk:
        session.note(
            f"log.cosines={every}: the trunk is frozen in this phase: no gradient reaches it, and none is compared"
        )
        return lambda number, micro_batches: {}
    tasks = learning_tasks(session.recipe)
    return lambda number, micro_batches: {} if number % every else compare(engine, model, tasks, trunk, micro_batches)


def compare(
    engine: TorchEngine,
    model: Model,
    tasks: Sequence[str],
    trunk: Sequence[nn.Parameter],
    micro_batches: Sequence[Batch],
) -> dict[str, float]:
    """Measure the norm of each task's gradient, `gradient/TASK`, and the cosine of each two, `cosine/TASK/TASK`.

    The same numbers come from every worker; all must call this. A task that no micro-batch of the update has is left out,
    and so is a gradient that is not finite (fp16's may overflow) and a cosine with one that is 0.
    """
    sums = flat_of(trunk, wide(trunk[0])).repeat(len(tasks), 1)
    shares = torch.zeros(len(tasks), dtype=sums.dtype, device=sums.device)
    views = [views_of(row, trunk, strides_of(trunk)) for row in sums]
    with _untouched(engine.device, model):
        for part, gradients in engine.gradients_of(micro_batches, trunk):
            at, share = tasks.index(part.task), labelled(part)
            shares[at] += share
            _add(views[at], gradients, share / engine.scaler.get_scale())
    engine.workers.add(sums.view(-1), "the gradients of each task")
    engine.workers.add(shares, "the gradients of each task")
    there = [number for number, share in enumerate(shares.tolist()) if share]
    means = {tasks[number]: sums[number].div_(shares[number]) for number in there}
    norms = {task: float(torch.linalg.vector_norm(mean)) for task, mean in means.items()}
    norms = {task: norm for task, norm in norms.items() if math.isfinite(norm)}
    found = {f"gradient/{task}": norm for task, norm in norms.items()}
    for one, other in itertools.combinations([task for task, norm in norms.items() if norm], 2):
        cosine = float((means[one] * means[other]).sum()) / (norms[one] * norms[other])
        found[f"cosine/{one}/{other}"] = min(1.0, max(-1.0, cosine))
    return found


def _add(views: list[Tensor], gradients: list[Tensor | None], share: float) -> None:
    """Add the gradients that there are, times `share`."""
    pairs = [(view, found) for view, found in zip(views, gradients, strict=True) if found is not None]
    if pairs:
        foreach._foreach_add_([view for view, _ in pairs], [g.to(v.dtype) for v, g in pairs], alpha=share)


@contextlib.contextmanager
def _untouched(device: torch.device, model: Model) -> Iterator[None]:
    """Keep the generators' states, and what a balance reads of the maps."""
    reading, model.reading = model.reading, None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        model.reading = reading
