"""The tasks of a run with their data: read, checked, and mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.keys import key

from ...cluster.workers import Workers
from ...tasks.contract import Task
from ...tasks.data.fingerprint import compare
from ...tasks.samples import Samples
from ..feeding.joint import Joint
from ..feeding.mixture import Member, Mixture, Share, stretches
from ..feeding.plan import Plan
from ..recipe.fields import Recipe, batches_of, sharing
from ..runs.run import Run
from .progress import Progress


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


def mixture(recipe: Recipe, parts: Mapping[str, Part], phase: int, progress: Progress | None = None) -> Mixture:
    """Plan what the updates of a phase take of each task that learns. Raises RecipeError where a batch is too large.

    Where only one task learns, its order and keys are those of a run of that task alone. Tasks that share batches have
    the order and keys of the first of them. With mixing=ratios a task has `mix` batches an update. With proportional there
    are as many batches an update as there are tasks (or groups), on average; each one's part is `mix` times the number n
    of batches that its data fills, taken as n ** (1 / temperature). With round_robin an update has one batch of one task,
    which comes `mix` times in a row. Of the phase that goes on, `progress` says which tasks began later or ended before:
    `stretches` says what the others take then.
    """
    now = progress if progress and progress.phase == phase else Progress()
    groups, plans, problems = sharing(recipe), [], []
    named = orders(recipe, now)
    for names in groups:
        apart = [names[0]] if named[names[0]] else []
        seed = key(recipe.seed, "phase", phase, *apart)
        own = batches_of(recipe, names[0])
        size, micro, repeats = own.size, micro_of(recipe, names[0]), own.repeats
        try:
            joint = Joint.of([parts[name].training for name in names])
            plans.append((names, joint, Plan(joint.count, size, micro, seed, joint.units, joint.groups, repeats)))
        except RecipeError as error:
            problems += [
                f"{'tasks.' + names[0] + ': ' if len(groups) > 1 else ''}{problem}" for problem in error.problems
            ]
    if problems:
        raise RecipeError(problems)
    takes, in_turns = _takes(recipe, [plan for *_, plan in plans]), recipe.mixing == "round_robin"
    spans = [(now.begun.get(names[0], 0), now.ended.get(names[0])) for names in groups]
    shares = []
    for (names, joint, plan), take, own in zip(plans, takes, stretches(takes, spans, in_turns), strict=True):
        weights = {name: recipe.loss_weights.get(name, 1.0) for name in names}
        members = tuple(Member(n, weights[n], rows) for n, rows in zip(names, joint.rows, strict=True))
        average = take / sum(takes) if in_turns else take
        several = members if len(names) > 1 else ()
        shares.append(Share("+".join(names), plan, weights[names[0]], average, several, own))
    return Mixture(tuple(shares))


def orders(recipe: Recipe, progress: Progress) -> dict[str, bool]:
    """Say, by the first of the tasks that share batches, whether the order of their samples is drawn with its name."""
    groups = sharing(recipe)
    return {names[0]: progress.named.get(names[0], len(groups) > 1) for names in groups}


def _takes(recipe: Recipe, plans: Sequence[Plan]) -> list[float]:
    """Find how many batches an update takes of each share, on average; in turns: how many updates it has in a row."""
    mix = [recipe.mix.get(names[0], 1.0) for names in sharing(recipe)]
    if recipe.mixing != "proportional":
        return mix
    parts = [m * (p.seen / p.batch) ** (1 / recipe.temperature) for m, p in zip(mix, plans, strict=True)]
    takes = [part * len(parts) / sum(parts) for part in parts]
    least = min(1.0, max(takes))  # of many equal ones, rounding may leave all below 1, and the first update empty
    return [take / least for take in takes]
