"""What is looked at before anything is trained, so that a mistake costs nothing."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

from trunkline.ground.errors import DataError, EngineError, RecipeError, WeightsError

from ...backbones.contract import Preprocessing
from ...backbones.norm import norm_layer
from ...cluster.engines.optimizer import try_optimizer
from ...cluster.workers import Workers, where
from ...tasks.contract import Samples, Task
from ..feeding.feed import Plan
from ..models.build import make_task
from ..recipe.fields import Recipe
from ..runs.machine import check_device
from ..runs.run import Run
from .session import Session


def preflight(recipe: Recipe) -> None:
    """Raise RecipeError with everything that is wrong with the machine, the optimizer, the data and the metric, at once."""
    problems: list[str] = []
    with _collected(problems):
        check_device(recipe.machine.device)
    with _collected(problems):
        try_optimizer(recipe.optimizer)
    with _collected(problems):
        norm_layer(recipe.network.norm)
    for name, options in recipe.tasks.items():
        with _collected(problems):
            task = make_task(name, options, Preprocessing())
            task.samples("train")
            check_metric(recipe, task, task.samples("val"))
    if problems:
        raise RecipeError(problems)


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (RecipeError, WeightsError, DataError, EngineError) as error:
        problems.append(str(error))


def check_metric(recipe: Recipe, task: Task, validation: Samples) -> None:
    """Raise RecipeError where the task has no metric of the name that chooses the best checkpoint."""
    names = task.evaluator(validation).metrics
    if recipe.evaluation.metric not in names:
        raise RecipeError(
            f"evaluation.metric={recipe.evaluation.metric}: the task has no such metric for these "
            f"{len(validation.classes)} classes; there are {', '.join(names)}"
        )


def check_lengths(session: Session, state: dict[str, Any] | None) -> None:
    """Raise RecipeError where a phase is to be of another length than it had, or shorter than it is already."""
    recipe, over = session.recipe, session.state["over"]
    micro = recipe.batch.micro if isinstance(recipe.batch.micro, int) else recipe.batch.size
    plan = Plan.over(session.training, recipe.batch.size, micro, 0)
    for number, phase in enumerate(recipe.phases):
        length = plan.length(phase.epochs, phase.updates)
        if number < len(over) and over[number][0] != length:
            raise RecipeError(
                f"phases.{number}: was to be {over[number][0]} updates long, is over, and cannot be {length} long now: "
                "give its old length again, or start a new run with another --run"
            )
        done = state["engine"]["updates"] if state and number == state["phase"] else 0
        if done > length:
            raise RecipeError(
                f"phases.{number}: {done} updates are done, and it cannot be {length} long now: give its old length again, or "
                "start a new run with another --run"
            )


def divide(session: Session, micro_batches: int) -> None:
    """Say where workers have nothing to do; raise RecipeError where they would wait for each other without end."""
    size = session.workers.size
    if size > 1 and session.recipe.network.norm == "sync" and micro_batches % size:
        raise RecipeError(
            f"network.norm=sync with {size} workers and {micro_batches} micro-batches an update: synchronised batch norm needs "
            "as many on each; choose batch and micro_batch so that the workers divide them"
        )
    if size > micro_batches:
        session.note(
            f"{micro_batches} micro-batch{'es' if micro_batches > 1 else ''} an update for {size} workers: "
            f"{size - micro_batches} of them train nothing; a smaller micro_batch gives them something to do"
        )


def publish(run: Run, workers: Workers) -> None:
    """What the leading worker wrote into the run's folder is there for the others, where it is at an address."""
    workers.from_lead(run.push, "sending the run")
    if not workers.leads:
        run.pull()


def shared(run: Run, workers: Workers, patience: float = 5.0) -> None:
    """Raise EngineError where a worker does not see what the leading one writes into the run's folder."""
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
    until = time.monotonic() + patience  # network file systems remember for seconds what was not there
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
