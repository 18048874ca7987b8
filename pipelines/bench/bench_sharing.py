"""What training together changes: one trunk for three tasks beside a run of each alone, seed by seed."""

import json
import math
import multiprocessing
import os
import resource
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError, RecipeError
from trunkline.ground.storage import at_home

from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved, complete
from ..recipe.limits import check
from ..runs.environment import environment
from ..show import bar
from .bench import positive

METRICS = {"detection": "AP50", "segmentation": "mIoU", "multilabel": "mAP"}
"""The metric of each task that is compared."""
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t at 0.975, by degrees of freedom: half a 95 % interval of a mean over few seeds, in standard errors."""


@dataclass(frozen=True)
class Sharing:
    """By balance and task, what each seed reached alone and together; and the mean relative changes.

    changes  by balance: a mean over the tasks for each seed, (together - alone) / alone
    costs    by run (a task alone, or a balance): the process's processor seconds, None where all were killed in between, and its
             peak memory in MiB; medians over seeds
    """

    pairs: dict[str, dict[str, list[tuple[float, float]]]]
    changes: dict[str, list[float]]
    costs: dict[str, dict[str, float | None]]
    settings: dict[str, Any]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Convert it to a dict for JSON, with means and intervals."""
        return asdict(self) | {"intervals": {name: interval(values) for name, values in self.changes.items()}}

    def __str__(self) -> str:
        lines = [f"together against alone, {len(next(iter(self.changes.values())))} seeds (alone -> together)"]
        for balance, tasks in self.pairs.items():
            lines.append(f"  balance={balance}")
            for task, pairs in tasks.items():
                shown = "  ".join(f"{alone:.3f} -> {joint:.3f}" for alone, joint in pairs)
                low, high = interval([joint - alone for alone, joint in pairs])
                lines.append(f"    {task + ' ' + METRICS[task]:22} {shown}   difference {low:+.3f} to {high:+.3f}")
            low, high = interval(self.changes[balance])
            lines.append(
                f"    mean relative change   {statistics.mean(self.changes[balance]):+.1%} ({low:+.1%} to {high:+.1%})"
            )
        alone = [self.costs[task] for task in METRICS]
        lines.append(
            f"  three runs alone: {_cost([c['seconds'] for c in alone], max(c['peak_mib'] or 0 for c in alone))} at most"
        )
        for balance in self.pairs:
            own = self.costs[balance]
            lines.append(f"  one run together, balance={balance}: {_cost([own['seconds']], own['peak_mib'] or 0)}")
        e = self.environment
        return "\n".join([*lines, f"{e['processor']}, {e['cores']} cores, torch {e['torch']}, {self.settings}"])


def _cost(seconds: Sequence[float | None], peak: float) -> str:
    known = [s for s in seconds if s is not None]
    said = f"{sum(known):,.0f} processor seconds" if len(known) == len(seconds) else "time not known"
    return f"{said}, {peak:,.0f} MiB"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of a few values, by Student's t; of one value it is the value."""
    mean, more = statistics.mean(values), len(values) - 1
    half = QUANTILES.get(more, 1.96) * statistics.stdev(values) / math.sqrt(len(values)) if more else 0.0
    return mean - half, mean + half


def bench_sharing(
    *,
    data: str = "",
    weights: str = "resnet50",
    out: str = "sharing",
    balances: tuple[str, ...] = ("fixed", "uncertainty", "gradient_norm", "famo"),
    seeds: int = 3,
    updates: int = 270,
    size: int = 160,
    batch: int = 4,
    lr: float = 0.005,
    frozen: int = 3,
    threads: int | None = None,
) -> Sharing:
    """Train boxes, masks and labels on VOC's pictures together and each alone, from the same weights and as long.

    Each run sees the same number of its own samples. All settings are those of the recipe joint-voc but for these.

    data      a folder VOC2012 whose lists in ImageSets/Main and ImageSets/Segmentation name the same pictures
    weights   of a classifier: a file, or a published name
    out       the folder for the runs, of about 1 GB each; what is finished there is not trained again, what was stopped goes on
    balances  of the joint runs
    updates   of each run, with `batch` pictures each
    size      the shorter side of the pictures, in pixels
    frozen    stages of the trunk that do not learn
    """
    if not data:
        raise RecipeError(
            "data= is missing: give the folder VOC2012 (JPEGImages, Annotations, SegmentationClass, ImageSets)"
        )
    positive(seeds=seeds, updates=updates, size=size, batch=batch, **({} if threads is None else {"threads": threads}))
    same_pictures(Path(at_home(data)))
    root, work = Path(at_home(out)), {}
    settings = {
        "size": size,
        "updates": updates,
        "batch": batch,
        "lr": lr,
        "frozen": frozen,
        "weights": Path(weights).name,
    }
    same_settings(root, settings | {"data": data, "threads": threads})
    for seed in range(seeds):
        joint = joint_recipe(data, weights, seed, updates, size, batch, lr, frozen, threads)
        work |= {(seed, task): alone(joint, task) for task in METRICS}
        work |= {(seed, balance): complete(replace(joint, balance=balance)) for balance in balances}
    for recipe in work.values():
        check(recipe)
    with bar("bench sharing", len(work), "runs") as advance:
        for (seed, name), recipe in work.items():
            run_apart(recipe, name, root / f"seed-{seed}" / name)
            advance()
    return read(root, seeds, balances, settings)


def same_pictures(data: Path) -> None:
    """Raise RecipeError where not all pictures have masks: a run of masks alone would see more of them than one together."""
    problems = []
    for split in ("train", "val"):
        lists = []
        for kind in ("Main", "Segmentation"):
            file = data / "ImageSets" / kind / f"{split}.txt"
            if file.is_file():
                lists.append(
                    {line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
                )
            else:
                problems.append(f"{file}: is not there; data= is a folder VOC2012")
        if len(lists) == 2 and (other := lists[0] ^ lists[1]):
            problems.append(
                f"data={data}: {split}: {len(lists[0])} pictures are in ImageSets/Main and {len(lists[1])} in "
                f"ImageSets/Segmentation, {len(other)} in one alone; a comparison wants the same in both: give a folder with "
                "lists of the pictures that have boxes and masks"
            )
    if problems:
        raise RecipeError(problems)


def same_settings(root: Path, settings: dict[str, Any]) -> None:
    """Keep the settings beside the runs. Raises RecipeError where the runs that are there had others."""
    file = root / "settings.json"
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if wrong := [
            f"{k}={v}: the runs in {root} have {before.get(k)}" for k, v in settings.items() if before.get(k) != v
        ]:
            raise RecipeError([f"{line}; give that, or another out=" for line in wrong])
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def joint_recipe(
    data: str, weights: str, seed: int, updates: int, size: int, batch: int, lr: float, frozen: int, threads: int | None
) -> Recipe:
    """Make the recipe of all three together, by joint-voc."""
    from ..recipes.published.joint import joint_voc

    recipe = joint_voc(data=data, weights=weights, batch=batch, micro_batch="all", seed=seed)
    small = {"size": size, "longest": 2 * size}
    machine = recipe.machine if threads is None else replace(recipe.machine, threads=threads)
    return replace(
        recipe,
        tasks={name: replace(options, **small) for name, options in recipe.tasks.items()},
        phases=(replace(recipe.phases[0], epochs=None, updates=updates, frozen=frozen),),
        optimizer=replace(recipe.optimizer, lr=lr, clip=10.0),
        evaluation=replace(recipe.evaluation, every=0, times=0),
        machine=machine,
    )


def alone(joint: Recipe, task: str) -> Recipe:
    """Take one task of a joint recipe, with its settings; a pyramid that it does not read is left out."""
    network = replace(joint.network, pyramid="none") if task == "multilabel" else joint.network
    evaluation = replace(joint.evaluation, metric="")
    return replace(
        joint, tasks={task: joint.tasks[task]}, network=network, evaluation=evaluation, shared_batch=(), loss_weights={}
    )


def run_apart(recipe: Recipe, name: str, folder: Path) -> None:
    """Train in a process of its own, unless the run is there; keep its processor seconds and peak of memory in `cost.json`."""
    if (folder / "scores.json").is_file() and (folder / "cost.json").is_file():
        return
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(recipe, name, str(folder)))
    process.start()
    process.join()
    if process.exitcode:
        raise EngineError(
            f"{folder}: its training ended with exit code {process.exitcode}; the same command goes on with it"
        )


def _train(recipe: Recipe, name: str, folder: str) -> None:
    from ..training.train import train

    file, start = Path(folder) / "cost.json", sum(os.times()[:4])
    lost = not file.is_file() and Path(folder).is_dir()  # it was killed: nobody knows what it took
    before = {"seconds": None if lost else 0.0, "peak_mib": 0.0}
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
    try:
        train(Resolved(name, {}, recipe, {}), folder)
    finally:
        if Path(folder).is_dir():
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            cost = {
                "seconds": None if before["seconds"] is None else before["seconds"] + sum(os.times()[:4]) - start,
                "peak_mib": max(before["peak_mib"], peak),
            }
            file.write_text(json.dumps(cost), encoding="utf-8")


def read(root: Path, seeds: int, balances: Sequence[str], settings: dict[str, Any]) -> Sharing:
    """Put the scores and the costs of all runs together."""

    def of(seed: int, name: str, file: str) -> dict[str, Any]:
        return json.loads((root / f"seed-{seed}" / name / file).read_text(encoding="utf-8"))

    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    changes = {}
    for balance in balances:
        pairs[balance] = {
            task: [
                (of(s, task, "scores.json")[metric], of(s, balance, "scores.json")[f"{task}/{metric}"])
                for s in range(seeds)
            ]
            for task, metric in METRICS.items()
        }
        each = [[(b - a) / a for a, b in pairs[balance][task]] for task in METRICS]
        changes[balance] = [statistics.mean(own) for own in zip(*each, strict=True)]
    costs: dict[str, dict[str, float | None]] = {}
    for name in (*METRICS, *balances):
        found = [of(seed, name, "cost.json") for seed in range(seeds)]
        known = {key: [c[key] for c in found if c[key] is not None] for key in ("seconds", "peak_mib")}
        costs[name] = {key: statistics.median(values) if values else None for key, values in known.items()}
    return Sharing(pairs, changes, costs, settings, environment())
