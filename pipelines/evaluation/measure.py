"""Scoring a model on a split: every sample once, in the data set's order."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from trunkline.ground.errors import EngineError, RecipeError

from ...cluster.engines.torch_engine import AUTOCAST, out_of_memory
from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from ...heads.model import Model
from ...tasks.contract import Evaluator, Samples, Scores, Task
from ...tasks.scores import metrics_of
from ..feeding.ordered import Ordered
from ..show import bar

T = TypeVar("T")
ROUND = 4  # batches of each worker whose results are collected at once


@contextlib.contextmanager
def inference(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Put the model in evaluation mode, without gradients and with autocast for bf16 and fp16; restore its mode after.

    Autocast casts each weight once while this lasts: do not change weights inside. Raises EngineError where memory runs
    out.
    """
    training = model.training
    model.eval()
    try:
        with _cast_once(model, device, dtype) if (dtype := AUTOCAST.get(precision)) else torch.inference_mode():
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


@contextlib.contextmanager
def _cast_once(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Enter autocast so that it keeps what it casts: it does so for weights that could learn, outside of inference mode."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point() and not p.is_inference()]
    for p in frozen:
        p.requires_grad_(True)
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype):
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def score(
    model: Model, task: Task, samples: Samples, batches: Ordered, precision: str, workers: Workers = ALONE
) -> tuple[Scores, list[dict[str, Any]]]:
    """Score a split: return the scores, on every worker, and a record for each sample, in order, on the leading worker.

    Every worker measures its own batches; the leading one puts the records in the data set's order.
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
    return workers.from_lead(lambda: checked_result(evaluator), "an evaluation"), kept


def checked_result(evaluator: Evaluator) -> Scores:
    """Return an evaluator's scores. Raises RecipeError where it gives a metric that it does not name."""
    scores, names = evaluator.result(), metrics_of(evaluator)
    if unnamed := [name for name in scores.metrics if name not in names]:
        raise RecipeError(
            f"{type(evaluator).__module__}.{type(evaluator).__qualname__} gave the metric {', '.join(unnamed)}, which its "
            f"`metrics` do not name; they name {', '.join(names)}"
        )
    return scores


def in_turn(
    batches: Ordered, compute: Callable[[Batch], T], workers: Workers, what: str, before: Callable[[], Any] = bool
) -> Iterator[T]:
    """Yield what `compute` makes of each batch, in order, on the leading worker; the others yield nothing.

    Every worker iterates, to compute its own batches; the leading one collects all results in rounds. `before` is called
    on every worker before each round.
    """
    each = ROUND if workers.size > 1 else 1
    for _ in range(0, batches.count, workers.size * each):
        before()
        shares = workers.to_lead([compute(batch) for batch in itertools.islice(batches.mine, each)], what)
        for row in itertools.zip_longest(*shares, fillvalue=_NOTHING):
            yield from (item for item in row if item is not _NOTHING)


_NOTHING: Any = object()


def apart(model: Model) -> Model:
    """Copy the model, in evaluation mode, without what learns beside it and without hooks of the original's engine."""
    hooks = [(m, m._forward_hooks) for m in model.modules()]
    for module, _ in hooks:  # an engine's hooks stay with its own model
        module._forward_hooks = type(module._forward_hooks)()
    try:
        left = {id(model.beside): {}, id(model.reading): None}  # a critic is no part of the result
        twin = copy.deepcopy(model, left)
    finally:
        for module, own in hooks:
            module._forward_hooks = own
    return twin.eval()
