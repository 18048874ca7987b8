"""Scoring a model on a split: every sample once, in the data set's order."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..heads.contract import Batch
from ..heads.model import Model
from ..tasks.contract import Samples, Scores, Task
from .show import bar

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
    model: Model, task: Task, samples: Samples, batches: Iterator[Batch], precision: str, title: str = "evaluate"
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of a split and a record for each of its samples, in order."""
    evaluator, kept = task.evaluator(samples), []
    device = next(model.parameters()).device
    with inference(model, precision, device), bar(title, len(samples)) as advance:
        for batch in batches:
            batch = batch.to(device)
            records = evaluator.measure(batch, task.infer(model, batch))
            evaluator.add(records)
            kept += records
            advance(len(batch))
    return evaluator.result(), kept


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
