"""What a training run holds while it goes on: model, data, scores so far, and when to save, evaluate and stop."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...cluster import checkpoint
from ...cluster.config import Launch
from ...cluster.contract import Engine, Report
from ...cluster.workers import Workers
from ...heads.model import Model
from ...tasks.scores import Scores, joined, joined_several, known, metrics_of
from ..evaluation.changes import change_said, with_change
from ..evaluation.measure import apart, score
from ..evaluation.together import Evaluated, Together, circles, score_together
from ..feeding.cache import Cache
from ..feeding.draws import Draws
from ..feeding.mixture import Mixture
from ..feeding.ordered import Ordered, in_order
from ..feeding.updates import Update
from ..models.assembly import Facts
from ..recipe.fields import Recipe, learning_tasks
from ..runs.run import Metrics, Run
from ..show import note, scores_lines
from .parts import Part
from .progress import Progress


class Stopped(Exception):
    """The run was asked to end; it goes on when started again. `signum` says by what, `update` what is saved (or 0)."""

    def __init__(self, signum: int, run: Run, update: int):
        self.signum, self.update = signum, update
        where = f"at update {update} and saved" if update else "before there was anything to save"
        super().__init__(f"stopped {where}; the same command goes on with {run.shown}")


Watch = Callable[[int, Mapping[str, float]], list[str]]
"""What is told of a player's update (`Player.watch` in heads/contract.py)."""


@dataclass
class Session:
    """All of a run's state between two updates, except the engine.

    Every worker has one; only that of the leading worker has `metrics` and writes the run's folder.
    """

    run: Run
    recipe: Recipe
    parts: dict[str, Part]
    model: Model
    facts: Facts
    metrics: Metrics | None
    progress: Progress
    metric: str  # names the best checkpoint
    lower_is_better: bool
    workers: Workers
    launch: Launch
    caches: dict[tuple[str, str], Cache] = field(default_factory=dict)  # by task and split
    around: Run | None = None  # the run of all folds, where this is one of them
    twin: Model | None = None  # the model that evaluates, apart from the one that an engine trains
    done: int = 0  # updates in the newest checkpoint
    changed: tuple[list[str], list[str]] = ([], [])  # the tasks that are new since it, and those that are gone
    last_scores: tuple[int, Evaluated] | None = None
    loss: str = ""  # of the last line, for the progress bar
    watches: dict[str, Watch | None] = field(default_factory=dict)  # by player: who is told of its updates
    _unwritten: tuple[Report, int, dict[str, Any], dict[str, float]] | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return torch.device(self.recipe.machine.device)

    @property
    def unit(self) -> str:
        """What a sample is called: the first task's word."""
        return next(iter(self.parts.values())).task.unit

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The model, and the networks that learn beside it."""
        return {"": self.model, **self.model.beside}

    def say(self, kind: str, update: int, **line: Any) -> None:
        """Write a line of `metrics.jsonl`, on the worker that leads."""
        if self.metrics:
            self.metrics.add(
                {"kind": kind, "phase": self.progress.phase, "update": update, **line, "time": time.time()}
            )

    def note(self, text: str, update: int | None = None) -> None:
        """Show people a line, now and in the report; of no `update`, it is of the newest checkpoint's."""
        note(text)
        self.say("note", self.done if update is None else update, text=text)

    def watch(self) -> None:
        """Let the training splits count what they decode, where they can."""
        for part in self.parts.values():
            if hasattr(part.training, "watch"):
                part.training.watch()  # pyright: ignore[reportAttributeAccessIssue]

    def watched(self, done: int) -> None:
        """Note what the training splits counted since `watch`; every worker calls it in the same update."""
        for part in self.parts.values():
            if hasattr(part.training, "watch"):
                samples: Any = part.training
                states = self.workers.to_lead(samples.seen(), "counting the first epoch")
                for line in samples.watched(states):
                    self.note(f"{part.name}: {line}" if part.folder else line, done)

    def log(
        self, report: Report, update: Update, done: int, mixture: Mixture, seconds: float, beside: Mapping[str, float]
    ) -> None:
        """Keep what an update did, and write what the one before did, whose numbers are ready without a wait.

        `beside` is what was measured beside the update, by name.
        """
        self.flush()
        line = {"epoch": (update.number + 1) / mixture.per_epoch, "lr": report.lr,
                "images_per_second": mixture.batch / seconds, "wait": update.waited / seconds,
                "batch": mixture.batch}  # fmt: skip
        self._unwritten = (report, done, line, dict(beside))

    def flush(self) -> None:
        """Write what `log` kept, every `log.every` updates and after a phase's last. Raises EngineError at a loss not finite."""
        if self._unwritten is None:
            return
        (report, done, line, beside), self._unwritten = self._unwritten, None
        report.check()
        numbers = report.numbers()
        self.loss = "" if report.waited else f"loss {numbers['total']:.4f}"
        self._watch(report)
        if done % self.recipe.log.every and done != self.progress.total:
            return
        self.say("train", done, **_line(report, numbers, beside), **line, **_of_others(report))

    def _watch(self, report: Report) -> None:
        """Tell each player's watch of its update, and note what it says, once in a run."""
        named = dict(zip(self.watches, (report, *report.others.values()), strict=False))
        for name, watch in self.watches.items():
            if watch and name in named and not named[name].waited:
                for line in watch(named[name].update, named[name].numbers()):
                    if not any(m.get("text") == line for m in self.run.metrics):  # also before a resume
                        self.note(line)

    def evaluate(self, engine: Engine, done: int, epoch: float, last: bool = False) -> bool:
        """Score the validation splits, with averaged weights where there are any; say whether it is the best so far.

        A task that is scored at every nth evaluation is left out of the others, but for the `last`. One at which it is no
        task's turn counts as an evaluation, and does nothing else.
        """
        self.flush()
        averaged = self.recipe.average.decay > 0
        turn, nth = len(self.progress.scores) + 1, self.recipe.evaluation.nth
        names = [name for name in self.parts if last or turn % nth.get(name, 1) == 0]
        if not names:
            return self.progress.take(done, {}, self.metric, self.lower_is_better)
        found = self.score(self.apart_from(engine, averaged), self.workers, names)
        self.last_scores = (done, found)
        each = {name: scores for name, (scores, _) in found.items()}
        scores = self.joined(each)
        self._tire(found, engine.updates, done)
        first = [name for name in each if not self._scored(name)]
        better = self.progress.take(done, scores.metrics, self.metric, self.lower_is_better)
        entry = {
            "metrics": known(scores.metrics),
            "intervals": scores.intervals,
            "weights": "ema" if averaged else "raw",
        }
        self.say("eval", done, epoch=epoch, split="val", **entry)
        note(f"update {done}, epoch {epoch:g}:{scores_lines(each)}{change_said(scores)}")
        for line in self.joined({name: each[name] for name in first}).notes if first else ():
            if not self._told(line):
                self.note(line, done)
        return better

    def _scored(self, task: str) -> bool:
        """Say whether an evaluation before this one scored the task."""
        prefix = self.parts[task].shown("")
        return any(name.startswith(prefix) for entry in self.progress.scores for name in entry["metrics"])

    def joined(self, each: dict[str, Scores]) -> Scores:
        """Join the scores of the tasks, with the mean relative change where single runs are named."""
        if len(self.parts) == 1 or not self.recipe.evaluation.single:
            return joined(each) if len(self.parts) == 1 else joined_several(each)
        evaluators = {name: part.task.evaluator(part.validation) for name, part in self.parts.items()}
        return with_change(joined_several(each), self.recipe, evaluators)

    def _tire(self, found: Evaluated, update: int, done: int) -> None:
        """Count the evaluations of tasks that end early; note which learn no more. `update` is the phase's, `done` the run's."""
        for name, patience in self.recipe.evaluation.patience_of.items():
            if name not in found or name not in learning_tasks(self.recipe):
                continue
            part = self.parts[name]
            metric, about = next(iter(metrics_of(part.task.evaluator(part.validation)).items()))
            value = found[name][0].metrics.get(metric)
            if self.progress.tire(name, value, about.better == "lower", patience, update):
                self.note(f"{name}: learns no more: {patience} evaluations without a better {metric}", done)

    def _told(self, line: str) -> bool:
        """Say whether a line was noted before, by this run or by that of all folds, be it with its split before it."""
        notes = [*self.run.metrics, *(self.around.metrics if self.around else ())]
        return any(str(m.get("text", "")).endswith(line) for m in notes)

    def score(self, model: Model, workers: Workers, wanted: Sequence[str] | None = None) -> Evaluated:
        """Score the validation splits of those tasks that are `wanted`; None: of all.

        The records come together on the worker that leads. Tasks that have pictures in common are scored together, with one
        pass of the trunk where they see the same pixels.
        """
        precision, found = self.recipe.evaluation.precision, Evaluated()
        for circle in self._circles:
            names = [name for name in circle if wanted is None or name in wanted]
            if not names:
                continue
            if len(names) == 1 or self.caches:
                for part in (self.parts[name] for name in names):
                    batches = self.batches(part, workers)
                    found[part.name] = score(model, part.task, part.validation, batches, precision, workers)
                continue
            tasks, samples = {n: self.parts[n].task for n in names}, {n: self.parts[n].validation for n in names}
            together = Together(tasks, samples, self.recipe.seed, self.recipe.evaluation.batch)
            batches = together.in_order(int(self.recipe.machine.loaders), self.device.type == "cuda", workers)
            found |= score_together(model, together, batches, precision, workers)
        return {name: found[name] for name in self.parts if name in found}

    @cached_property
    def _circles(self) -> list[list[str]]:
        """The tasks that have pictures of their validation splits in common."""
        return (
            circles({name: part.validation for name, part in self.parts.items()})
            if len(self.parts) > 1
            else [[*self.parts]]
        )

    def apart_from(self, engine: Engine | None = None, averaged: bool = False) -> Model:
        """Return the model that evaluates, with the engine's weights where one is given.

        It is a copy, as an engine may divide the weights of the model that it trains.
        """
        if self.twin is None:
            self.twin = apart(self.model)
        if engine:
            self.twin.load_state_dict(engine.weights(averaged=averaged))
        return self.twin

    def batches(self, part: Part, workers: Workers) -> Ordered:
        """Divide a task's validation split, in order, among these workers."""
        size = self.recipe.evaluation.batch
        if (part.name, "val") in self.caches:
            return self.caches[part.name, "val"].in_order(size, workers)
        draws = Draws(part.task, part.validation, self.recipe.seed, training=False)
        return in_order(draws, size, int(self.recipe.machine.loaders), self.device.type == "cuda", workers)

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to end: the same answer on every worker between two updates."""
        return self.workers.asked("stop")

    def stopped(self, done: int) -> Stopped:
        """Make the exception to raise where the run was asked to end; `done` updates are saved."""
        return Stopped(self.workers.signal or signal.SIGTERM, self.run, done)

    def end_if_asked(self) -> None:
        """Raise Stopped if any worker was asked to end; all workers must call this at the same point."""
        self.workers.agree([], "whether to end")
        if self.stopping:
            raise self.stopped(self.done)

    def out_of_patience(self) -> bool:
        """Say whether early stopping ends the phase here."""
        patience = self.recipe.evaluation.patience
        return (bool(patience) and self.progress.stale >= patience) or self.all_ended

    @property
    def all_ended(self) -> bool:
        """Whether every task that learned learns no more in this phase."""
        return bool(self.progress.ended) and set(learning_tasks(self.recipe)) <= self.progress.ended.keys()

    def due(self, done: int) -> bool:
        """Say whether a checkpoint is due by time (on the leading worker's clock) or by updates."""
        c = self.recipe.checkpoints
        if c.minutes and self.workers.leads and time.monotonic() - self._saved_at > 60 * c.minutes:
            self.workers.ask("save")
        return self.workers.asked("save") or bool(c.updates and done % c.updates == 0)

    def save(self, engine: Engine, done: int, best: bool = False) -> None:
        """Write a checkpoint, also as the best one with `best`. All workers must call this; the leading one writes."""
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
            progress = self.progress.to_json()
            state = {"update": done, "engine": engine.save(folder), "facts": asdict(self.facts), **progress}
            frozen = [n for n, p in self.model.named_parameters() if not p.requires_grad]
            return {**state, "frozen": frozen, "recipe": self.run.recipe}

        path = checkpoint.write_checkpoint(root, f"{done:06d}", fill)
        if best:
            checkpoint.write_text(root / checkpoint.BEST, path.name)
        checkpoint.prune(root, self.recipe.checkpoints.keep)
        self.run.push()


def _line(report: Report, numbers: dict[str, float], beside: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Build what a line of `metrics.jsonl` says of a player's update, and of what was measured beside it."""
    if report.waited:
        return {"waited": True}
    line: dict[str, Any] = {"loss": numbers["total"], "losses": {k: numbers[k] for k in report.losses}}
    if measured := {**{k: numbers[k] for k in report.measured}, **(beside or {})}:
        line["measured"] = measured
    if report.grad_norm is not None:
        line["grad_norm"] = numbers["grad_norm"]
    if report.skipped:
        line["skipped"] = True
    return line


def _of_others(report: Report) -> dict[str, Any]:
    """Build the same for the players that took their turns after the first, each with its learning rate."""
    players = {name: {**_line(r, r.numbers()), "lr": r.lr} for name, r in report.others.items()}
    return {"players": players} if players else {}


@contextlib.contextmanager
def listening(session: Session) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C ask the run to end after its update; a second Ctrl-C ends it at once."""
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
