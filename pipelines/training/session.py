"""What a training run holds while it goes on: model, data, scores so far, and when to save, evaluate and stop."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...cluster import checkpoint
from ...cluster.config import Launch
from ...cluster.engines.torch_engine import Engine, Report
from ...cluster.workers import Workers
from ...heads.model import Model
from ...tasks.contract import Samples, Scores, Task
from ..evaluation.measure import apart, score
from ..feeding.feed import Cache, Draws, Ordered, Plan, Turn, in_order
from ..models.build import Facts
from ..recipe.fields import Recipe
from ..runs.run import Metrics, Run
from ..show import note, scores_line


class Stopped(Exception):
    """The run was asked to end; it goes on when started again. `signum` says by what, `update` what is saved (or 0)."""

    def __init__(self, signum: int, run: Run, update: int):
        self.signum, self.update = signum, update
        where = f"at update {update} and saved" if update else "before there was anything to save"
        super().__init__(f"stopped {where}; the same command goes on with {run.shown}")


@dataclass
class Session:
    """Everything that stands between two updates, besides the engine.

    Every worker has one; that of the worker that leads writes the run's folder, and has `metrics`.
    """

    run: Run
    recipe: Recipe
    task: Task
    model: Model
    facts: Facts
    training: Samples
    validation: Samples
    metrics: Metrics | None
    state: dict[str, Any]  # phase, phases that are over, scores so far, best, evaluations without a better one
    workers: Workers
    launch: Launch
    caches: dict[str, Cache] = field(default_factory=dict)
    twin: Model | None = None  # the model that evaluates, apart from the one that an engine trains
    done: int = 0  # updates in the newest checkpoint
    last_scores: tuple[int, Scores, list[dict[str, Any]]] | None = None
    lower_is_better: bool = False  # the metric that names the best checkpoint
    loss: str = ""  # of the last line, for the progress bar
    _unwritten: tuple[Report, int, dict[str, Any]] | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return torch.device(self.recipe.machine.device)

    def say(self, kind: str, update: int, **line: Any) -> None:
        """A line of `metrics.jsonl`."""
        if self.metrics:
            self.metrics.add(
                {"kind": kind, "phase": self.state["phase"], "update": update, **line, "time": time.time()}
            )

    def note(self, text: str) -> None:
        """A line for people, now and in the report."""
        note(text)
        self.say("note", self.done, text=text)

    def log(self, report: Report, turn: Turn, done: int, plan: Plan, seconds: float) -> None:
        """Keep what an update did, and write what the one before did: its numbers are here by now, without a wait."""
        self.flush()
        line = {"epoch": (turn.update + 1) / plan.per_epoch, "lr": report.lr,
                "images_per_second": plan.batch / seconds, "wait": turn.waited / seconds}  # fmt: skip
        self._unwritten = (report, done, line)

    def flush(self) -> None:
        """Write what is kept, every `log.every` updates. Raises EngineError at a loss that is not finite."""
        if self._unwritten is None:
            return
        (report, done, line), self._unwritten = self._unwritten, None
        report.check()
        numbers = report.numbers()
        self.loss = f"loss {numbers['total']:.4f}"
        if done % self.recipe.log.every and done != self.state["total"]:
            return
        line = {"loss": numbers["total"], "losses": {k: numbers[k] for k in report.losses}, **line}
        if report.grad_norm is not None:
            line["grad_norm"] = numbers["grad_norm"]
        if report.skipped:
            line["skipped"] = True
        self.say("train", done, **line)

    def evaluate(self, engine: Engine, done: int, epoch: float) -> bool:
        """Score the validation split with the averaged weights where there are any; True if it is the best so far."""
        self.flush()
        averaged = self.recipe.average.decay > 0
        model = self.apart_from(engine, averaged)
        precision = self.recipe.evaluation.precision
        scores, records = score(model, self.task, self.validation, self.batches(self.workers), precision, self.workers)
        self.last_scores = (done, scores, records)
        metric = self.recipe.evaluation.metric
        value, best = scores.metrics[metric], self.state["best"]
        better = best is None or (value < best["value"] if self.lower_is_better else value > best["value"])
        if better:
            self.state["best"] = {"update": done, "value": value, "metric": metric}
        self.state["stale"] = 0 if better else self.state["stale"] + 1
        entry = {"metrics": scores.metrics, "intervals": scores.intervals, "weights": "ema" if averaged else "raw"}
        self.state["scores"].append({"update": done, "metrics": scores.metrics})
        self.say("eval", done, epoch=epoch, split="val", **entry)
        note(f"update {done}, epoch {epoch:g}: {scores_line(scores)}")
        return better

    def apart_from(self, engine: Engine | None = None, averaged: bool = False) -> Model:
        """The model that evaluates, with the engine's weights: an engine may divide those of the one that it trains."""
        if self.twin is None:
            self.twin = apart(self.model)
        if engine:
            self.twin.load_state_dict(engine.weights(averaged=averaged))
        return self.twin

    def batches(self, workers: Workers) -> Ordered:
        """The validation split in order, divided among these workers."""
        size = self.recipe.evaluation.batch
        if "val" in self.caches:
            return self.caches["val"].in_order(size, workers)
        draws = Draws(self.task, self.validation, self.recipe.seed, training=False)
        return in_order(draws, size, int(self.recipe.machine.workers), self.device.type == "cuda", workers)

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to end: the same answer on every worker between two updates."""
        return self.workers.asked("stop")

    def stopped(self, done: int) -> Stopped:
        """What to raise then."""
        return Stopped(self.workers.signal or signal.SIGTERM, self.run, done)

    def end_if_asked(self) -> None:
        """Raise Stopped if any worker was asked to end; all of them call it at the same point."""
        self.workers.agree([], "whether to end")
        if self.stopping:
            raise self.stopped(self.done)

    def out_of_patience(self) -> bool:
        """Whether early stopping ends the phase here."""
        patience = self.recipe.evaluation.patience
        return bool(patience) and self.state["stale"] >= patience

    def due(self, done: int) -> bool:
        """Whether a checkpoint is due by time (on the leading worker's clock) or by updates."""
        c = self.recipe.checkpoints
        if c.minutes and self.workers.leads and time.monotonic() - self._saved_at > 60 * c.minutes:
            self.workers.ask("save")
        return self.workers.asked("save") or bool(c.updates and done % c.updates == 0)

    def save(self, engine: Engine, done: int, best: bool = False) -> None:
        """Write a checkpoint; `best` also points at it. All workers call it, one writes."""
        self.flush()
        if self.workers.leads:
            self._write(engine, done, best)
        else:
            engine.save(None)
        self.workers.answered("save")
        self._saved_at, self.done = time.monotonic(), done

    def _write(self, engine: Engine, done: int, best: bool) -> None:
        root = self.run.checkpoints

        def fill(folder: Path) -> dict[str, Any]:
            state = {"update": done, "engine": engine.save(folder), "facts": asdict(self.facts), **self.state}
            frozen = [n for n, p in self.model.named_parameters() if not p.requires_grad]
            return {**state, "frozen": frozen, "recipe": self.run.recipe}

        path = checkpoint.write_checkpoint(root, f"{done:06d}", fill)
        if best:
            checkpoint.write_text(root / checkpoint.BEST, path.name)
        checkpoint.prune(root, self.recipe.checkpoints.keep)
        self.run.push()


@contextlib.contextmanager
def listening(session: Session) -> Iterator[None]:
    """While it lasts, SIGTERM and Ctrl-C ask the run to end after its update; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = False

    def ask(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked, session.workers.signal = True, signum
        session.workers.ask("stop")

    before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
