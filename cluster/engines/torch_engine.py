"""The engine for one process or many."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from trunkline.ground.errors import EngineError
from trunkline.ground.measured import MEASURED

from ..checkpoint import SAME, Parts, check_tensors, read_tensors, write_tensors
from ..config import EngineOptions, Learning, Machine
from ..contract import Losses, Report, TooLarge, TooSmall
from ..workers import ALONE, Workers
from .average import MovingAverage, live_tensors
from .balance import Fixed
from .buffers import BufferMeans
from .losses import added, by_part, labelled, loss_weight, of_labelled, part_of, parts_of, weighed
from .memory_format import place
from .optimizer import build_optimizer, load_optimizer, optimizer_tensors
from .schedule import factor
from .sums import GradientSums, foreach, wide
from .tuning import Tuning, keep_memory


class Call(nn.Module):
    """Runs `losses(model, batch)` inside a module's forward, where hooks of sharded engines can see it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, losses: Losses, batch: Any) -> dict[str, Tensor]:
        """Compute the named losses of one micro-batch."""
        return losses(self.model, batch)


@torch.no_grad()
def penalise(parameters: Iterable[Tensor], strength: float) -> None:
    """Add the gradient of `strength` times the sum of absolute weights; 0 at 0. What has no gradient is left alone."""
    pairs = [(p, p.grad) for p in parameters if p.grad is not None]
    if pairs:
        signs = foreach._foreach_sign([p for p, _ in pairs])
        foreach._foreach_add_([gradient for _, gradient in pairs], signs, alpha=strength)


@dataclass(frozen=True)
class Counts:
    """What took part in an update, on all workers together."""

    micro_batches: int
    losses: list[int]  # by loss: in how many micro-batches it was
    used: list[int]  # by parameter: on how many workers it had a gradient
    ran: list[int]  # by owner of buffers: in how many micro-batches it ran


_MOST_CONSTANTS = 256
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether the error means that memory ran out, on the device or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextlib.contextmanager
def _sized(batch: Any, update: int) -> Iterator[None]:
    """Turn torch's errors about a micro-batch's size into TooSmall and TooLarge."""
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        whole, *parts = (len(getattr(b, "ids", ())) for b in (batch, *parts_of(batch)))
        raise TooSmall(update, whole, min(parts)) from None
    except RuntimeError as error:  # torch.OutOfMemoryError is one too
        if not out_of_memory(error):
            raise
        raise TooLarge(update, len(getattr(batch, "ids", ())), str(error).splitlines()[0]) from None


class TorchEngine:
    """One process or many: micro-batches one after another, gradients and buffers averaged by the rules in `sums` and `buffers`.

    Each worker gives `update` its own micro-batches; all workers end with the same weights. `model` is moved to
    `machine.device` and, for fp64, converted; `losses(model, batch)` gives the named losses of one micro-batch. Freeze
    what is to be frozen before the engine is made.
    """

    def __init__(
        self, model: nn.Module, losses: Losses, learning: Learning, machine: Machine, workers: Workers = ALONE
    ):
        self.workers = workers
        self.device = torch.device(machine.device)
        if isinstance(machine.threads, int):
            torch.set_num_threads(machine.threads)
        if self.device.type == "cpu":
            keep_memory()
        torch.use_deterministic_algorithms(machine.deterministic is True)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (costs a tenth of the time)
        place(model, self.device, machine.channels_last is True)
        if machine.precision == "fp64":
            model.double()
        self.model, self.losses, self.learning, self.machine, self.updates = model, losses, learning, machine, 0
        self.optimizer = build_optimizer(model, learning.optimizer)
        self._base = [group["lr"] for group in self.optimizer.param_groups]
        self._call = Call(model).train()
        self._gradients = GradientSums(model, workers, machine.reduction == "exact")
        self._buffers = BufferMeans(model, workers)
        self._tuning = Tuning(self.device, machine.deterministic is True)
        self.balance = Fixed()
        self.measures_norm = False  # whether the gradient's norm is reported where nothing is clipped, too
        self._names: list[str] = []  # of the losses, as they appeared
        self._wide = wide(torch.empty(0, device=self.device))
        self._constants: dict[tuple[float, ...], Tensor] = {}
        average = learning.average
        self.average = MovingAverage(live_tensors(model), average) if average.decay > 0 else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=machine.precision == "fp16")
        self.scaler.scale(torch.zeros((), device=self.device))  # makes its scale, also where no micro-batch ever will

    def update(self, micro_batches: Sequence[Any]) -> Report:
        """Do one optimizer step, in its whole order; the comments say what `DeepSpeedEngine` does otherwise.

        The gradient is a mean over the micro-batches of all workers. Each adds the gradient of its own summed losses,
        times its `scale`. A stand-in, of a worker that has no micro-batch, counts for nothing.
        """
        own = [b for b in micro_batches if not getattr(b, "stand_in", False)]
        self._begin(own, micro_batches)  # DeepSpeed: takes the model over; stages 2, 3: all workers run equally often
        parts: list[dict[str, Tensor]] = []
        self._gradients.begin()
        self._buffers.begin(alone=len(own) == 1 and self.workers.size == 1)
        for number, batch in enumerate(own):
            with _sized(batch, self.updates), self._tuning.of(batch):
                batch = batch.to(self.device)
                named = self._losses_of(batch)  # stages 2 and 3: through DeepSpeed's module
                with record_function("trunkline::backward"):
                    self._backward(weighed(named, batch, self.balance))  # stages 2 and 3: DeepSpeed's, which reduces
                self.balance.took(self.workers.rank + number * self.workers.size, batch)
                self._add_gradients(len(own))  # stages 2 and 3: nothing
                parts.append({name: value.detach() for name, value in named.items()})
        self._even_out(len(own))  # stages 2 and 3: stand-ins, so that no worker waits for another's reduction
        with record_function("trunkline::reduce"):
            counts = self._agree(parts)
            self._finish_gradients(counts)  # stages 2 and 3: nothing
            self._buffers.finish(counts.ran)
            report = self._report(own, parts, counts)
        if self.device.type == "cpu":
            report.check()  # costs nothing here; elsewhere the loop reads it one update later, without a wait
        with record_function("trunkline::step"):
            report.skipped = not self._step(report)  # rates, L1, clipping, step; DeepSpeed: its own step
            if report.skipped:
                self._buffers.undo()
            elif self.average:
                self.average.update()
        if not report.skipped:
            self.balance.finish(counts.micro_batches, report.losses, self.workers)
        report.send()
        self.updates += 1
        return report

    def _losses_of(self, batch: Any) -> dict[str, Tensor]:
        """Compute the named losses of a micro-batch, from the update's first buffers."""
        if not self._call.training:  # walking all modules costs milliseconds
            self._call.train()
        self._buffers.start()
        with record_function("trunkline::forward"), self.autocast():
            named = self._forward(batch)
        self._buffers.take()
        return named

    def gradients_of(
        self, micro_batches: Sequence[Any], parameters: Sequence[Tensor]
    ) -> Iterator[tuple[Any, list[Tensor | None]]]:
        """Yield each task's part of this worker's micro-batches with the gradient of its own loss, neither balanced nor scaled.

        It leaves no trace in the model: no `.grad`, and buffers as they were. Go through it to its end between two updates.
        In fp16 a gradient is multiplied by the scaler's scale. None: the loss does not depend on the parameter.
        """
        with self._buffers.aside():
            for batch in micro_batches:
                if getattr(batch, "stand_in", False):
                    continue
                with _sized(batch, self.updates):
                    batch = batch.to(self.device)
                    for number, part in enumerate(parts_of(batch)):  # a forward each: a compiled one has one backward
                        _, loss = by_part(self._losses_of(batch), batch)[number]
                        found: Sequence[Tensor | None] = [None] * len(parameters)
                        if loss.requires_grad:
                            found = torch.autograd.grad(self.scaler.scale(loss), parameters, allow_unused=True)
                        yield part, list(found)

    def wait(self) -> Report:
        """Let an update pass in which this engine computes nothing; the schedule counts it."""
        nothing = torch.zeros((), dtype=self._wide, device=self.device)
        report = Report(self.updates, self._rate(), {}, nothing, nothing, waited=True)
        report.send()
        self.updates += 1
        return report

    def _begin(self, own: Sequence[Any], micro_batches: Sequence[Any]) -> None:
        """Do nothing, in one process or many."""

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return plain `torch.autocast` for bf16 and fp16, and a context that does nothing for fp32 and fp64."""
        dtype = AUTOCAST.get(self.machine.precision)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def _forward(self, batch: Any) -> dict[str, Tensor]:
        return self._call(self.losses, batch)

    def _backward(self, total: Tensor) -> None:
        self.scaler.scale(total).backward()

    def _add_gradients(self, count: int) -> None:
        """Add up the gradients of one of this worker's `count` micro-batches; if it is the only one of all, they stay."""
        if count > 1 or self.workers.size > 1:
            self._gradients.add()

    def _even_out(self, count: int) -> None:
        """Do nothing, in one process or many."""

    def _agree(self, parts: list[dict[str, Tensor]]) -> "Counts":
        """Count, over all workers, the micro-batches and how often each loss, parameter and buffer took part."""
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
        return Counts(count, named, used, ran)

    def _finish_gradients(self, counts: "Counts") -> None:
        if counts.micro_batches > 1 or self.workers.size > 1:
            self._gradients.finish(counts.micro_batches, counts.used)

    def _report(self, own: Sequence[Any], parts: list[dict[str, Tensor]], counts: "Counts") -> Report:
        """Report the mean of each named loss over the micro-batches that had it, on all workers together."""
        sums = self._loss_sums(own, parts)
        counted = [not n.startswith(MEASURED) for n in self._names]
        own_total = added(sums)
        having = [[part_of(b, n) for b, part in zip(own, parts, strict=True) if n in part] for n in self._names]
        weights = self._numbers(
            sum(loss_weight(p) * labelled(p) for p in each) if counts_it else 0
            for each, counts_it in zip(having, counted, strict=True)
        )
        divisors = self._numbers(sum(map(labelled, each)) for each in having)
        if self.workers.size > 1:
            sums = torch.cat([sums, weights, divisors])
            self.workers.add(sums, "the sum of losses")
            sums, weights, divisors = sums.chunk(3)
        names, there = self._names, [i for i, count in enumerate(counts.losses) if count]
        if len(there) < len(names):  # a loss that no micro-batch of these had
            names = [names[i] for i in there]
            sums, weights, divisors = (torch.stack([each[i] for i in there]) for each in (sums, weights, divisors))
        means = sums / divisors
        total = added(means * (weights / divisors))
        found = dict(zip(names, means.unbind(), strict=True))
        losses = {n: v for n, v in found.items() if not n.startswith(MEASURED)}
        report = Report(self.updates, self._rate(), losses, total, own_total)
        report.measured = {n.removeprefix(MEASURED): v for n, v in found.items() if n not in losses}
        report.measured |= {f"balance/{task}": factor.to(total) for task, factor in self.balance.factors().items()}
        report.ids = [list(getattr(b, "ids", [])) for b in own]
        return report

    def _loss_sums(self, own: Sequence[Any], parts: list[dict[str, Tensor]]) -> Tensor:
        """Sum each named loss over this worker's micro-batches, times what is labelled of each, in fp64; 0 where none had it."""
        having = [
            [
                of_labelled(part[name], part_of(batch, name))
                for batch, part in zip(own, parts, strict=True)
                if name in part
            ]
            for name in self._names
        ]
        if not any(having):
            return torch.zeros(len(having), dtype=self._wide, device=self.device)
        flat = torch.stack([value for values in having for value in values]).to(self._wide)
        if all(len(values) == 1 for values in having):
            return flat
        each = flat.split([len(values) for values in having])
        return torch.cat([one if len(one) == 1 else one.sum(0, keepdim=True) for one in each])

    def _numbers(self, values: Iterable[float]) -> Tensor:
        """Return plain numbers as a tensor on the device; those that come again are there already, without a wait."""
        key = tuple(values)
        if key not in self._constants:
            if len(self._constants) >= _MOST_CONSTANTS:  # where labels are partly there, the numbers are ever others
                self._constants.clear()
            self._constants[key] = torch.tensor(key, dtype=self._wide, device=self.device)
        return self._constants[key]

    def _factor(self) -> float:
        return factor(self.learning.schedule, self.updates, self.learning.total, self.learning.per_epoch)

    def _rate(self) -> float:
        return self.learning.optimizer.lr * self._factor()

    def _set_rates(self, groups: list[dict[str, Any]]) -> None:
        for group, base in zip(groups, self._base, strict=True):
            group["lr"] = base * self._factor()

    def _penalise_and_clip(self, report: Report) -> None:
        config = self.learning.optimizer
        if config.l1:
            penalise([p for p in self._gradients.parameters if p.ndim > 1], config.l1)
        if config.clip:
            together = True if self.device.type == "cpu" else None  # elsewhere torch decides: on a GPU it does so too
            report.grad_norm = nn.utils.clip_grad_norm_(self._gradients.parameters, config.clip, foreach=together)
        elif self.measures_norm:
            gradients = [p.grad for p in self._gradients.parameters if p.grad is not None]
            report.grad_norm = nn.utils.get_total_norm(gradients, foreach=True if self.device.type == "cpu" else None)

    def _step(self, report: Report) -> bool:
        """Move the weights; return False where fp16's gradients overflowed and nothing moved."""
        self.scaler.unscale_(self.optimizer)
        self._set_rates(self.optimizer.param_groups)
        self._penalise_and_clip(report)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return not self.scaler.get_scale() < scale

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Return the model's state dict; with `averaged`, the moving average's values where it has them."""
        state = dict(self.model.state_dict())
        if averaged and self.average:
            state |= self.average.shadow
        return state

    def close(self) -> None:
        """Let go of the model: the next phase's engine takes it over."""
        self._buffers.close()

    def save(self, folder: Path | None) -> dict[str, Any]:
        """Write weights, average and optimizer state as safetensors into `folder`; return the rest as plain data.

        All workers call it; those that write nothing pass None. Raises EngineError where a weight is not finite.
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
            "balance": self.balance.state(),
            "optimizer": plain,
            "average_steps": self.average.steps if self.average else 0,
            "scaler": self.scaler.state_dict(),
        }

    def _optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return optimizer_tensors(self.model, self.optimizer)

    def load(self, folder: Path, state: dict[str, Any], parts: Parts = SAME) -> None:
        """Put back what `save` wrote and returned; `parts` are new since, or gone.

        Raises EngineError where model or trained parameters are others.
        """
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items() if parts.is_new(name)}
        saved = parts.fitted(read_tensors(folder / "model.safetensors"), own)
        check_tensors(folder, self.model.state_dict(), saved)
        self.model.load_state_dict(saved)
        self._load_optimizer(read_tensors(folder / "optimizer.safetensors"), state["optimizer"], parts)
        if self.average:
            self._load_average(parts.fitted(read_tensors(folder / "ema.safetensors"), own), state["average_steps"])
        self.scaler.load_state_dict(state["scaler"])
        self.balance.load(state.get("balance", {}))
        self.updates = state["updates"]

    def _load_optimizer(self, tensors: dict[str, Tensor], plain: dict[str, Any], parts: Parts) -> None:
        load_optimizer(self.model, self.optimizer, tensors, plain, parts)

    def _load_average(self, tensors: dict[str, Tensor], steps: int) -> None:
        assert self.average
        self.average.load(tensors, steps)


def making(options: EngineOptions, units: Sequence[str]) -> Callable[..., TorchEngine]:
    """Return what makes an engine. Options and units change nothing: parameters without a gradient stay where they are."""
    return TorchEngine
