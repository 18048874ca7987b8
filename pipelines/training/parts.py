"""The tasks of a run with their data: read, checked, and mixed."""

from collections.abc import Mapping
from dataclasses import dataclass

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.keys import key

from ...cluster.workers import Workers
from ...tasks.contract import Task
from ...tasks.data.fingerprint import compare
from ...tasks.samples import Samples
from ..feeding.plan import Mixture, Plan, Share
from ..recipe.fields import Recipe, batches_of, learning_tasks
from ..runs.run import Run


@dataclass
class Part:
    """One task of a run: its splits, and the folder of its files within a run's (none where it is alone)."""

    name: str
    task: Task
    training: Samples
    validation: Samples
    folder: str = ""

    def shown(self, metric: str) -> str:
        """Return a metric's name; where there are several tasks, as `task/metric`."""
        return f"{self.name}/{metric}" if self.folder else metric


def read_parts(
    tasks: Mapping[str, Task], run: Run, recipe: Recipe, workers: Workers, around: Run | None = None
) -> dict[str, Part]:
    """Read both splits of every task, drop excluded samples, and check that the data has not changed since the run began.

    Of one of several folds, what is excluded stands in the run `around` it. Raises DataError where the data has changed or
    cannot be read.
    """
    parts = {}
    for name, task in tasks.items():
        folder = name if len(tasks) > 1 else ""
        found = {split: task.samples(split) for split in ("train", "val")}
        if recipe.tasks[name].on_bad_sample == "skip":
            found = without_bad(task, run, found, recipe, workers, folder, around)
        digests = {split: samples.fingerprint()["digest"] for split, samples in found.items()}
        workers.alike(digests, "the data that is read")
        workers.from_lead(lambda found=found, folder=folder: compare_data(run, found, folder), "comparing the data")
        parts[name] = Part(name, task, found["train"], found["val"], folder)
    return parts


def without_bad(
    task: Task,
    run: Run,
    found: dict[str, Samples],
    recipe: Recipe,
    workers: Workers,
    folder: str = "",
    around: Run | None = None,
) -> dict[str, Samples]:
    """Leave out of the splits what cannot be decoded; it is found once, and stored in the run."""
    loaders = max(1, int(recipe.machine.loaders))

    def reasons() -> dict[str, str]:
        if (known := run.excluded(folder)) is not None:
            return known
        bad: dict[str, str] = dict((around and around.excluded(folder)) or {})
        for samples in found.values() if around is None else ():
            bad |= dict(samples.excluded) | task.scan(samples, loaders)
        run.keep_excluded(bad, folder)
        return bad

    bad = workers.from_lead(reasons, "decoding the data")
    return {split: samples.without(bad) for split, samples in found.items()}


def compare_data(run: Run, found: Mapping[str, Samples], folder: str = "") -> None:
    """Store a line for each sample as a run begins. Raises DataError where they are others when it goes on."""
    for split, samples in found.items():
        lines = samples.manifest()
        before = run.manifest(split, folder)
        if before is None:
            run.keep_manifest(split, lines, folder)
        elif before != lines:
            raise DataError(
                f"the {split} data{' of ' + folder if folder else ''} changed since {run.shown} began: {compare(before, lines)}. "
                "Put it back, or start a new run with another --run (weights=OLD_RUN keeps what was learnt)"
            )


def micro_of(recipe: Recipe, task: str) -> int:
    """Return how many samples a task's micro-batch has; for `all`, and an `auto` not settled yet, those of its batch."""
    batches = batches_of(recipe, task)
    return batches.micro if isinstance(batches.micro, int) else batches.size


def mixture(recipe: Recipe, parts: Mapping[str, Part], phase: int) -> Mixture:
    """Plan what the updates of a phase take of each task that learns. Raises RecipeError where a batch is too large.

    Where only one task learns, its order and keys are those of a run of that task alone.
    """
    learning = learning_tasks(recipe)
    shares, problems = [], []
    for name in learning:
        apart = [] if len(learning) == 1 else [name]
        seed = key(recipe.seed, "phase", phase, *apart)
        try:
            own = batches_of(recipe, name)
            plan = Plan.over(parts[name].training, own.size, micro_of(recipe, name), seed, own.repeats)
        except RecipeError as error:
            problems += [f"{'tasks.' + name + ': ' if apart else ''}{problem}" for problem in error.problems]
            continue
        shares.append(Share(name, plan, recipe.loss_weights.get(name, 1.0), recipe.mix.get(name, 1.0)))
    if problems:
        raise RecipeError(problems)
    return Mixture(tuple(shares))
