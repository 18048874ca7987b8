"""Checks before and during training, so that a mistake is told before it costs time."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.ground.errors import EngineError, Mistake, RecipeError

from ...backbones.contract import Preprocessing
from ...backbones.norm import norm_layer
from ...cluster.contract import TooLarge, TooSmall
from ...cluster.engines.optimizer import try_optimizer
from ...cluster.workers import Workers, where
from ...heads.model import Model
from ...tasks.contract import EVALUATOR, Task, check_has
from ...tasks.data.groups import crossing
from ...tasks.data.repairs import refuse
from ...tasks.samples import Samples
from ..evaluation.changes import CHANGE, single_problems
from ..evaluation.singles import compare_singles
from ..feeding.mixture import Mixture
from ..models.assembly import make_task
from ..recipe.fields import Phase, Recipe, learning_tasks
from ..runs.machine import check_device
from ..runs.run import Run
from .network import network_problems
from .parts import mixture
from .progress import choose_metric
from .session import Session
from .sharing import absent_losses, head_problems, shared_problems

UPDATES_LOOKED_AT = 1000  # to count their micro-batches, which differ in a mixture


def preflight(recipe: Recipe) -> None:
    """Raise RecipeError with everything that is wrong with the machine, the optimizers, the data and the metric, at once.

    What is wrong with a network of timm is said before the data is read.
    """
    problems: list[str] = []
    with _collected(problems):
        check_device(recipe.machine.device)
    own = {f"players.{name}.": player.optimizer for name, player in recipe.players.items()}
    for place, optimizer in {"": recipe.optimizer, **own}.items():
        with _collected(problems, place):
            try_optimizer(optimizer)
    with _collected(problems):
        norm_layer(recipe.network.norm)
    if unfit := network_problems(recipe):  # reading the data may take minutes
        raise RecipeError([*problems, *unfit])
    found = {}
    for name, options in recipe.tasks.items():
        with _collected(problems, f"tasks.{name}: " if len(recipe.tasks) > 1 else ""):
            task = make_task(name, options, Preprocessing())
            training, validation = task.samples("train"), task.samples("val")
            crossing(training, validation, options.group)  # a wrong group= is told here
            if options.strict:
                refuse((*training.remarks(), *validation.remarks()))
            found[name] = (task, training, validation)
    if len(found) == len(recipe.tasks):
        with _collected(problems):
            metric_of(recipe, {name: (task, validation) for name, (task, _, validation) in found.items()})
        problems += head_problems(recipe, {name: task for name, (task, *_) in found.items()})
        problems += shared_problems(recipe, {name: (task, training) for name, (task, training, _) in found.items()})
        if not problems:
            problems += absent_losses(recipe, {name: training for name, (_, training, _) in found.items()})
    if problems:
        raise RecipeError(problems)


@contextlib.contextmanager
def _collected(problems: list[str], place: str = "") -> Iterator[None]:
    """Add a mistake to `problems`; `place` is what stands before the keys that it names."""
    try:
        yield
    except Mistake as error:
        problems.append(f"{place}{error}")


def metric_of(recipe: Recipe, found: Mapping[str, tuple[Task, Samples]]) -> tuple[str, bool]:
    """Choose the metric that names the best checkpoint of these tasks and validation splits; say whether smaller is better.

    Raises RecipeError where no task has it.
    """
    evaluators = {name: task.evaluator(validation) for name, (task, validation) in found.items()}
    for name, evaluator in evaluators.items():
        check_has(evaluator, f"the evaluator of the task {name}", EVALUATOR)
    classes = len(next(iter(found.values()))[1].classes)
    if problems := single_problems(recipe, evaluators):
        raise RecipeError(problems)
    return choose_metric(recipe.evaluation.metric, evaluators, classes, [CHANGE] if recipe.evaluation.single else [])


def check_frozen(recipe: Recipe, model: Model) -> None:
    """Raise RecipeError where a phase freezes more stages than the trunk has, or caches the maps of one that learns."""
    stages: int = model.backbone.stages  # type: ignore[assignment]
    problems = []
    for number, phase in enumerate(recipe.phases):
        if phase.frozen > stages:
            problems.append(f"phases.{number}.frozen={phase.frozen}: this trunk has {stages} stages")
        elif phase.cached and phase.frozen != stages:
            problems.append(
                f"phases.{number}.cached=true needs phases.{number}.frozen={stages}: cached maps do not change"
            )
        if phase.frozen == stages:
            problems += _nothing_learns(recipe, model, number, phase) + _nothing_is_measured(
                recipe, model, number, phase
            )
    if problems:
        raise RecipeError(problems)


def _nothing_learns(recipe: Recipe, model: Model, number: int, phase: Phase) -> list[str]:
    """Say of which tasks that should learn nothing does, where the whole trunk is frozen."""
    reading = _reading_pyramid(model, phase)
    return [
        f"phases.{number}.still={name}: the whole trunk is frozen too, so that nothing of it learns: set "
        f"loss_weights.{name}=0, or leave it out of still"
        for name in phase.still
        if name in learning_tasks(recipe) and name not in reading
    ]


def _reading_pyramid(model: Model, phase: Phase) -> set[str]:
    """Find the tasks whose heads read a pyramid that learns: of a frozen trunk nothing else does."""
    levels = set() if "pyramid" in phase.still else set(getattr(model.backbone, "levels", ()))
    heads: dict[str, Any] = dict(model.heads.items())
    return {name for name, head in heads.items() if levels & set(head.needs)}


def _nothing_is_measured(recipe: Recipe, model: Model, number: int, phase: Phase) -> list[str]:
    """Say where a balance looks at gradients that do not come."""
    if recipe.balance != "gradient_norm" or _reading_pyramid(model, phase) & set(learning_tasks(recipe)):
        return []
    return [
        f"balance=gradient_norm: phases.{number}.frozen={phase.frozen}: the whole trunk is frozen, so that no gradient reaches "
        "it; set balance=fixed, or freeze less"
    ]


def check_lengths(session: Session, state: dict[str, Any] | None) -> None:
    """Raise RecipeError if a finished phase changes length, or a running one is made shorter than the updates already done.

    Also where the model would wait for all of a phase.
    """
    recipe, over = session.recipe, session.progress.over
    for number, phase in enumerate(recipe.phases):
        length = mixture(recipe, session.parts, number, session.progress).length(phase.epochs, phase.updates)
        for part in session.parts.values():
            first, player = next(iter(part.task.players(session.model, phase.players).items()))
            if player.waits >= length:
                raise RecipeError(
                    f"phases.{number} ({phase.name}): has {length} updates, and warmup={player.waits} of the task {part.name} "
                    f"lets the {first} wait for all: make the phase longer, or warmup (of the task's adversarial) smaller"
                )
        if number < len(over) and over[number][0] != length:
            raise RecipeError(
                f"phases.{number}: was to be {over[number][0]} updates long, is over, and cannot be {length} long now: "
                "give its old length again, or start a new run with another --run"
            )
        done = state["engine"]["updates"] if state and number == state["phase"] else 0
        if session.changed[0] and number == len(recipe.phases) - 1 and done >= length:
            raise RecipeError(
                f"tasks.{session.changed[0][0]}: the run is over, so that a task that is added to it would learn nothing: make "
                "its last phase longer, or start a new run with weights=, this run's folder"
            )
        if done > length:
            raise RecipeError(
                f"phases.{number}: {done} updates are done, and it cannot be {length} long now: give its old length again, or "
                "start a new run with another --run"
            )


def tell_singles(session: Session, given: Recipe) -> None:
    """Note what cannot be compared of the runs that `evaluation.single` names, in the recipe as it was given.

    Raises RecipeError where they were scored on other data. The data is all read by now, and nothing is learnt yet.
    """
    found = {name: (part.task, part.validation) for name, part in session.parts.items()}
    before = {line.get("text") for line in session.run.metrics}
    for line in session.workers.from_lead(lambda: compare_singles(given, found), "comparing with single runs"):
        if line not in before:  # which a run that goes on has said
            session.note(line)


def check_phase(session: Session, number: int, phase: Phase, mixed: Mixture) -> None:
    """Check a phase that begins or goes on, and note what it leaves undone; see `divide`."""
    divide(session, mixed)
    _tell_unmeasured(session, number, phase)


def _tell_unmeasured(session: Session, number: int, phase: Phase) -> None:
    """Note which tasks a balance by gradients leaves as they are, where the trunk is frozen and its pyramid learns."""
    model, recipe = session.model, session.recipe
    if recipe.balance != "gradient_norm" or phase.frozen != model.backbone.stages:
        return
    reading = _reading_pyramid(model, phase)
    for name in (name for name in learning_tasks(recipe) if name not in reading):
        session.note(
            f"balance=gradient_norm: phases.{number}.frozen={phase.frozen}: {name} reads only maps that do not learn: "
            "its factor stays 1"
        )


def divide(session: Session, mixed: Mixture) -> None:
    """Check that workers can divide the updates, and note where some of them have nothing to do.

    Raises RecipeError where synchronised batch norm would make them wait for each other without end.
    """
    size, most = session.workers.size, max(_counts(session, mixed))
    if size > most > 0:
        session.note(
            f"{most} micro-batch{'es' if most > 1 else ''} an update for {size} workers: "
            f"{size - most} of them train nothing; a smaller micro_batch gives them something to do"
        )


def _counts(session: Session, mixed: Mixture) -> set[int]:
    """Find the numbers of micro-batches that updates have from the last change of the mixture on; see `divide`."""
    size, first = session.workers.size, max(share.stretches[-1].first for share in mixed.shares)
    counts = {mixed.count(update) for update in range(first, first + UPDATES_LOOKED_AT)}
    if size > 1 and session.recipe.network.norm == "sync" and (odd := [n for n in counts if n % size]):
        raise RecipeError(
            f"network.norm=sync with {size} workers and {odd[0]} micro-batches an update: synchronised batch norm needs "
            "as many on each; choose batch and micro_batch so that the workers divide them"
        )
    return counts


def go_on(session: Session, before: Mixture, now: Mixture) -> None:
    """Check the updates without the task that has ended, and note of which others they take more than they did."""
    _counts(session, now)
    for old, new in zip(before.shares, now.shares, strict=True):
        if new.now > old.now:
            session.note(
                f"{new.task}: from here on an update takes {new.now:.3g} of its batches, on average, in place of "
                f"{old.now:.3g}, so that none is empty"
            )


@contextlib.contextmanager
def in_settings() -> Iterator[None]:
    """Turn an engine's error about a micro-batch's size into an EngineError that names the settings which mend it."""
    try:
        yield
    except TooSmall as error:
        raise EngineError(
            f"{error} (micro_batch=, batch=; of several tasks batches.NAME.micro= and .size=), a larger size=, or "
            "network.norm=frozen or group (of several tasks also norms.NAME=frozen)"
        ) from None
    except TooLarge as error:
        raise EngineError(
            f"memory ran out in update {error.update} with a micro-batch of {error.samples} samples: set "
            f"micro_batch={max(1, error.samples // 2)} (of several tasks batches.NAME.micro=; the update stays a mean over as "
            f"many samples), or micro_batch=auto in a new run, a smaller size=, or network.checkpointing=true. {error.cause}"
        ) from None


def publish(run: Run, workers: Workers) -> None:
    """Bring what the leading worker wrote into the run's folder to the others, where the run is at an address."""
    workers.from_lead(run.push, "sending the run")
    if not workers.leads:
        run.pull()


def shared(run: Run, workers: Workers, patience: float = 5.0) -> None:
    """Raise EngineError where a worker does not see, within `patience` seconds, what the leading one writes into the folder.

    Of a run at an address, the workers that do not lead fetch it instead.
    """
    folder = run.path
    if run.mirror:  # each has a folder of its own
        return None if workers.leads else run.pull()
    if workers.size == 1:
        return

    def write() -> str:
        name = f".seen-{uuid.uuid4().hex}"
        (folder / name).touch()
        return name

    name = workers.from_lead(write, "looking at the run's folder")
    until = time.monotonic() + patience  # for seconds, a network file system may not show a new file
    while not (seen := folder.is_dir() and name in os.listdir(folder)) and time.monotonic() < until:  # noqa: PTH208
        time.sleep(0.25)
    blind = [f"worker {rank} on {node}" for rank, (there, node) in
             enumerate(workers.gather((seen, where()), "looking at the run's folder")) if not there]  # fmt: skip
    if workers.leads:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise EngineError(
            f"{folder}: {', '.join(blind)} cannot see what worker 0 wrote there. The run's folder must lie on storage that "
            "all nodes share under the same path, and so must the data: choose another --run"
        )
