"""Scoring a model on a split: every sample once, in the data set's order."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from trunkline.ground.errors import EngineError

from ...cluster.engines.torch_engine import AUTOCAST, out_of_memory
from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from ...heads.model import Model
from ...tasks.contract import Samples, Scores, Task
from ..feeding.ordered import Ordered
from ..show import bar

T = TypeVar("T")
ROUND = 4  # batches of each worker that come together at once


@contextlib.contextmanager
def inference(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradients, and autocast where bf16 or fp16 is asked for; the mode is put back."""
    training = model.training
    model.eval()
    cast = torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else contextlib.nullcontext()
    try:
        with torch.inference_mode(), cast:
            yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise EngineError(
            "memory ran out: take fewer pictures at once (batch=, in a training evaluation.batch=), a smaller size=, or a "
            f"segmenter's or detector's tiles=. {str(error).splitlines()[0]}"
        ) from None
    finally:
        model.train(training)


def score(
    model: Model, task: Task, samples: Samples, batches: Ordered, precision: str, workers: Workers = ALONE
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of a split, on every worker, and a record for each of its samples, in order, on the one that leads.

    Every worker measures its own batches; the records come together in the data set's order.
    """
    evaluator, kept = task.evaluator(samples), []
    device = next(model.parameters()).device

    def measure(batch: Batch) -> list[dict[str, Any]]:
        batch = batch.to(device)
        return evaluator.measure(batch, task.infer(model, batch))

    with inference(model, precision, device), bar("evaluate", len(samples), task.unit) as advance:
        for records in in_turn(batches, measure, workers, "an evaluation"):
            evaluator.add(records)
            kept += records
            advance(len(records))
    return workers.from_lead(evaluator.result, "an evaluation"), kept


def in_turn(
    batches: Ordered, compute: Callable[[Batch], T], workers: Workers, what: str, before: Callable[[], Any] = bool
) -> Iterator[T]:
    """What `compute` makes of every batch, in their order, on the worker that leads.

    Every worker computes its share while it goes through this; what the others made comes together round by round;
    `before` is called on all of them before each.
    """
    each = ROUND if workers.size > 1 else 1
    for _ in range(0, batches.count, workers.size * each):
        before()
        shares = workers.to_lead([compute(batch) for batch in itertools.islice(batches.mine, each)], what)
        for row in itertools.zip_longest(*shares, fillvalue=_NOTHING):
            yield from (item for item in row if item is not _NOTHING)


_NOTHING: Any = object()


def apart(model: Model) -> Model:
    """A copy of the model in evaluation mode, apart from the engine that trains the original."""
    hooks = [(m, m._forward_hooks) for m in model.modules()]
    for module, _ in hooks:  # an engine's hooks stay with its own model
        module._forward_hooks = type(module._forward_hooks)()
    try:
        twin = copy.deepcopy(model)
    finally:
        for module, own in hooks:
            module._forward_hooks = own
    return twin.eval()
