"""The engine: one verb, `update`, which does all of an optimizer step."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from trunkline.ground.errors import EngineError

from ..checkpoint import check_tensors, read_tensors, write_tensors
from ..config import Average, Machine, Optimizer, Schedule
from ..workers import ALONE, LostWorker, Workers
from .average import MovingAverage, live_tensors
from .memory_format import place
from .optimizer import build_optimizer, load_optimizer, optimizer_tensors
from .schedule import factor
from .sums import BufferMeans, GradientSums, wide

Losses = Callable[[nn.Module, Any], dict[str, Tensor]]


@dataclass
class Report:
    """What an update did. `losses` are means over its micro-batches, still on the device (reading one waits for it).

    `own` is the sum of the losses that this worker computed, and `ids` are their samples.
    """

    update: int
    lr: float
    losses: dict[str, Tensor]
    total: Tensor
    own: Tensor
    grad_norm: Tensor | None = None
    skipped: bool = False  # fp16 only: the gradients overflowed, the loss scale was lowered, nothing moved
    ids: list[list[str]] = field(default_factory=list)
    _host: Tensor | None = None
    _arrived: Any = None

    def _numbers(self) -> Tensor:
        norm = [] if self.grad_norm is None else [self.grad_norm.to(self.total)]
        return torch.stack([self.total, self.own, *self.losses.values(), *norm])

    def send(self) -> None:
        """Begin to copy the numbers to the host: reading them then waits for this update, and for none after it."""
        if self.total.device.type == "cuda":
            numbers, self._arrived = self._numbers(), torch.cuda.Event()
            self._host = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def numbers(self) -> dict[str, float]:
        """The losses by name, `grad_norm` where gradients are clipped, `total` and `own`."""
        if self._arrived is not None:
            self._arrived.synchronize()
        total, own, *rest = (self._numbers() if self._host is None else self._host).tolist()
        names = [*self.losses, *([] if self.grad_norm is None else ["grad_norm"])]
        return {**dict(zip(names, rest, strict=True)), "total": total, "own": own}

    def check(self) -> None:
        """Raise EngineError where a loss is not finite, with the samples that it was computed on.

        On the workers that did not compute it: LostWorker.
        """
        numbers = self.numbers()
        if math.isfinite(numbers["total"]):
            return
        if math.isfinite(numbers["own"]):
            raise LostWorker(f"the loss of update {self.update} is not finite on another worker")
        named = ", ".join(f"{k} = {numbers[k]:.4g}" for k in self.losses)
        samples = [i for ids in self.ids for i in ids]
        raise EngineError(
            f"the loss of update {self.update} is not finite ({named}); its weights were not saved. Its {len(samples)} "
            f"samples: {', '.join(samples[:8])}{' …' if len(samples) > 8 else ''}. Try a lower optimizer.lr, "
            "optimizer.clip=1, or precision=fp32; the last good checkpoint stays"
        )


class Engine(Protocol):
    """The same contract for one process, many processes, and DeepSpeed."""

    updates: int

    def update(self, losses: Losses, micro_batches: Sequence[Any]) -> Report: ...
    def save(self, folder: Path | None) -> dict[str, Any]: ...
    def load(self, folder: Path, state: dict[str, Any]) -> None: ...
    def weights(self, averaged: bool = False) -> dict[str, Tensor]: ...
    def close(self) -> None: ...


class Call(nn.Module):
    """Runs `losses(model, batch)` inside a module's forward, where hooks of sharded engines can see it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, losses: Losses, batch: Any) -> dict[str, Tensor]:
        """The named losses of one micro-batch."""
        return losses(self.model, batch)


def summed(named: dict[str, Tensor]) -> Tensor:
    """The losses added up, in fp32 or better."""
    return torch.stack([v if v.dtype == torch.float64 else v.float() for v in named.values()]).sum()


PARTS = ("trunkline::forward", "trunkline::backward", "trunkline::reduce", "trunkline::step")
"""The names of an update's parts in a profiler's trace."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so of the device or of the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextlib.contextmanager
def _advice(batch: Any, update: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise EngineError(
            f"batch norm has a single value per channel in a micro-batch of {len(getattr(batch, 'ids', ()))} samples: take at "
            "least two (micro_batch=, batch=), a larger size=, or network.norm=frozen or group"
        ) from None
    except RuntimeError as error:  # torch.OutOfMemoryError is one too
        if not out_of_memory(error):
            raise
        size = len(getattr(batch, "ids", ()))
        raise EngineError(
            f"memory ran out in update {update} with a micro-batch of {size} samples: set micro_batch={max(1, size // 2)} "
            "(the update stays a mean over as many samples), or micro_batch=auto in a new run, a smaller size=, or "
            f"network.checkpointing=true. {str(error).splitlines()[0]}"
        ) from None


class TorchEngine:
    """One process or many: micro-batches one after another, gradients and buffers averaged by the rules in `sums`.

    Each worker gives `update` the micro-batches that are its own, maybe none; all of them end with the same weights.
    `model` is moved to `machine.device` and, for fp64, converted. `total` and `per_epoch` are the phase's updates; the
    schedule is a function of them. What is frozen must be frozen before.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        average: Average,
        machine: Machine,
        *,
        total: int,
        per_epoch: int,
        workers: Workers = ALONE,
    ):
        self.workers = workers
        self.device = torch.device(machine.device)
        if isinstance(machine.threads, int):
            torch.set_num_threads(machine.threads)
        torch.use_deterministic_algorithms(machine.deterministic is True)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (costs a tenth of the time)
        place(model, self.device, machine.channels_last is True)
        if machine.precision == "fp64":
            model.double()
        self.model, self.config, self.schedule, self.machine = model, optimizer, schedule, machine
        self.total, self.per_epoch, self.updates = total, per_epoch, 0
        self.optimizer = build_optimizer(model, optimizer)
        self._base = [group["lr"] for group in self.optimizer.param_groups]
        self._call = Call(model).train()
        self._gradients = GradientSums(model, workers, machine.reduction == "exact")
        self._buffers = BufferMeans(model, workers)
        self._names: list[str] = []  # of the losses, as they appeared
        self.average = MovingAverage(live_tensors(model), average) if average.decay > 0 else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=machine.precision == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """Plain `torch.autocast` for bf16 and fp16; nothing for fp32 and fp64."""
        dtype = _AUTOCAST.get(self.machine.precision)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def update(self, losses: Losses, micro_batches: Sequence[Any]) -> Report:
        """One optimizer step over the micro-batches: the mean of the gradients of each one's own summed losses.

        A micro-batch of `weight` 0 stands in for a worker that has none, and counts nothing.
        """
        micro_batches = [b for b in micro_batches if getattr(b, "weight", 1.0) != 0]
        if not self._call.training:  # walking all modules costs milliseconds
            self._call.train()
        parts: list[dict[str, Tensor]] = []
        self._buffers.begin()
        for batch in micro_batches:
            with _advice(batch, self.updates):
                parts.append(self._forward_backward(losses, batch))
                self._add(len(micro_batches))
        with record_function("trunkline::reduce"):
            report = self._reduce(parts)
            report.ids = [list(getattr(b, "ids", [])) for b in micro_batches]
        if self.device.type == "cpu":
            report.check()  # costs nothing here; elsewhere the loop reads it one update later, without a wait
        with record_function("trunkline::step"):
            self._step(report)
        report.send()
        self.updates += 1
        return report

    def _forward_backward(self, losses: Losses, batch: Any) -> dict[str, Tensor]:
        batch = batch.to(self.device)
        self._buffers.start()
        with record_function("trunkline::forward"), self.autocast():
            named = self._run(losses, batch)
        self._buffers.take()
        total = summed(named)
        weight = getattr(batch, "weight", 1.0)
        with record_function("trunkline::backward"):
            self._backward(total if weight == 1.0 else total * weight)
        return {name: value.detach() for name, value in named.items()}

    def _run(self, losses: Losses, batch: Any) -> dict[str, Tensor]:
        return self._call(losses, batch)

    def _backward(self, total: Tensor) -> None:
        self.scaler.scale(total).backward()

    def _add(self, count: int) -> None:
        """Take the gradients of one of this worker's `count` micro-batches; where it is all there is, they stay."""
        if count > 1 or self.workers.size > 1:
            self._gradients.add()

    def _reduce(self, parts: list[dict[str, Tensor]]) -> Report:
        """Gradients and buffers become their means over the micro-batches of all workers."""
        used, ran = self._gradients.used(), self._buffers.counts
        while True:  # once; twice where a loss appears for the first time
            new = [n for n in dict.fromkeys(n for part in parts for n in part) if n not in self._names]
            named = [sum(n in part for part in parts) for n in self._names]
            count, unknown, *rest = self.workers.agree([len(parts), len(new), *named, *used, *ran], "an update")
            if not unknown:
                break
            for names in self.workers.gather(new, "an update"):
                self._names += [n for n in names if n not in self._names]
        named, used, ran = rest[: len(named)], rest[len(named) : len(named) + len(used)], rest[len(named) + len(used) :]
        self._finish_gradients(count, used)
        self._buffers.finish(ran)
        return self._report(parts, named)

    def _finish_gradients(self, count: int, used: Sequence[int]) -> None:
        if count > 1 or self.workers.size > 1:
            self._gradients.finish(count, used)

    def _report(self, parts: list[dict[str, Tensor]], counts: Sequence[int]) -> Report:
        """The mean of each named loss over the `counts` micro-batches that had it, on all workers together."""
        dtype = wide(torch.empty(0, device=self.device))
        sums = torch.zeros(len(self._names), dtype=dtype, device=self.device)
        for i, name in enumerate(self._names):
            if own := [part[name].to(dtype) for part in parts if name in part]:
                sums[i] = torch.stack(own).sum()
        own_total = sums.sum()
        self.workers.add(sums, "the sum of losses")
        means = {n: sums[i] / count for i, (n, count) in enumerate(zip(self._names, counts, strict=True)) if count}
        total = torch.stack(list(means.values())).sum()
        return Report(self.updates, self.config.lr * self._factor(), means, total, own_total)

    def _factor(self) -> float:
        return factor(self.schedule, self.updates, self.total, self.per_epoch)

    def _set_rates(self, groups: list[dict[str, Any]]) -> None:
        for group, base in zip(groups, self._base, strict=True):
            group["lr"] = base * self._factor()

    def _penalise_and_clip(self, report: Report) -> None:
        if self.config.l1:
            for p in self._gradients.parameters:
                if p.ndim > 1 and p.grad is not None:
                    p.grad.add_(p.detach().sign(), alpha=self.config.l1)
        if self.config.clip:
            report.grad_norm = nn.utils.clip_grad_norm_(self._gradients.parameters, self.config.clip)

    def _step(self, report: Report) -> None:
        self.scaler.unscale_(self.optimizer)
        self._set_rates(self.optimizer.param_groups)
        self._penalise_and_clip(report)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        report.skipped = self.scaler.get_scale() < scale
        self.optimizer.zero_grad(set_to_none=True)
        if report.skipped:
            self._buffers.undo()
        elif self.average:
            self.average.update()

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """The model's state dict; with `averaged`, the moving average's values where it has them."""
        state = dict(self.model.state_dict())
        if averaged and self.average:
            state |= self.average.shadow
        return state

    def close(self) -> None:
        """Let go of the model: the next phase's engine takes it over."""
        self._buffers.close()

    def save(self, folder: Path | None) -> dict[str, Any]:
        """Write weights, average and optimizer state as safetensors into `folder`; return the rest as plain data.

        All workers call it, those that write nothing with None.
        """
        weights = self.weights()
        bad = [n for n, t in weights.items() if t.is_floating_point() and not torch.isfinite(t).all()]
        if bad:
            raise EngineError(
                f"the weights after update {self.updates} are not finite ({bad[0]} and {len(bad) - 1} more); nothing was "
                "saved. Try a lower optimizer.lr, optimizer.clip=1, or precision=fp32; the last good checkpoint stays"
            )
        tensors, plain = self._optimizer_state()
        average = self.weights(averaged=True) if self.average else {}
        if folder:
            write_tensors(folder / "model.safetensors", weights)
            write_tensors(folder / "optimizer.safetensors", tensors)
            if self.average:
                write_tensors(folder / "ema.safetensors", average)
        return {
            "updates": self.updates,
            "optimizer": plain,
            "average_steps": self.average.steps if self.average else 0,
            "scaler": self.scaler.state_dict(),
        }

    def _optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return optimizer_tensors(self.model, self.optimizer)

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Put back what `save` wrote and returned. Raises EngineError where model or recipe are others."""
        saved = read_tensors(folder / "model.safetensors")
        check_tensors(folder, self.model.state_dict(), saved)
        self.model.load_state_dict(saved)
        self._load_optimizer(read_tensors(folder / "optimizer.safetensors"), state["optimizer"])
        if self.average:
            self._load_average(read_tensors(folder / "ema.safetensors"), state["average_steps"])
        self.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]

    def _load_optimizer(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        load_optimizer(self.model, self.optimizer, tensors, plain)

    def _load_average(self, tensors: dict[str, Tensor], steps: int) -> None:
        assert self.average
        self.average.load(tensors, steps)
