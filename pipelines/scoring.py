"""Scoring a model on a split: every sample once, in the data set's order."""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..cluster.workers import ALONE, Workers
from ..heads.model import Model
from ..tasks.contract import Samples, Scores, Task
from .feed import Ordered
from .show import bar

ROUND = 16  # batches of each worker that come together at once

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def inference(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradients, and autocast where bf16 or fp16 is asked for; the mode is put back."""
    training = model.training
    model.eval()
    cast = torch.autocast(device.type, _DTYPES[precision]) if precision in _DTYPES else contextlib.nullcontext()
    try:
        with torch.inference_mode(), cast:
            yield
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
    with inference(model, precision, device), bar("evaluate", len(samples)) as advance:
        for _ in range(0, batches.count, workers.size * ROUND):
            measured = []
            for batch in itertools.islice(batches.mine, ROUND):
                batch = batch.to(device)
                measured.append(evaluator.measure(batch, task.infer(model, batch)))
                if workers.size == 1:
                    advance(len(batch))
            for records in in_turn(workers.to_lead(measured, "an evaluation")):
                evaluator.add(records)
                kept += records
                if workers.size > 1:
                    advance(len(records))
    return workers.from_lead(evaluator.result, "an evaluation"), kept


def in_turn(shares: list[list[Any]]) -> Iterator[Any]:
    """What the workers made of their shares of a list, in the list's order."""
    for row in itertools.zip_longest(*shares, fillvalue=_NOTHING):
        yield from (item for item in row if item is not _NOTHING)


_NOTHING = object()


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
