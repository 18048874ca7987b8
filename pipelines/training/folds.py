"""Folds: one run for each, in its turn, and the pooled scores of all. A recipe without folds is one run."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError, RecipeError

from ...backbones.contract import Preprocessing
from ...cluster.config import Launch
from ...cluster.workers import ALONE, Workers
from ...tasks.contract import Task
from ...tasks.data.folds import Folds, divided
from ...tasks.data.groups import group_names
from ...tasks.samples import Samples
from ...tasks.scores import Block, Examples, Picture, Scores, Table, blocks_of, known, metrics_of
from ..evaluation.measure import checked_result
from ..models.assembly import make_task
from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved
from ..recipe.plain import from_plain, to_plain
from ..report.report import write_report
from ..runs.files import write_records
from ..runs.run import Metrics, Run
from ..show import note, scores_line
from .checks import shared
from .finish import add_sources
from .parts import Part, compare_data, without_bad
from .session import Stopped
from .train import begin, train

_DONE = "folds.json"  # which folds are over: a mark of the recipe that each was trained by
_DRAWN = 12  # pictures of all folds together that a report shows


def run_recipe(
    resolved: Resolved, path: str | Path, workers: Workers | None = None, launch: Launch | None = None
) -> Run:
    """Train by a recipe, or go on with it: one run, or where it says `folds` and no `fold`, a run for each of them.

    The run of fold N lies in `path/folds/N` and is a whole run. `path` itself gets the recipe, a record of every sample, and
    their pooled scores and report. Every worker of a group calls this. Raises as `train`.
    """
    options = next(iter(resolved.recipe.tasks.values()), None)
    if options is None or not options.folds or options.fold is not None:
        return train(resolved, path, workers, launch)
    run = Run(path)
    try:
        with contextlib.ExitStack() as held:
            _in_turn(resolved, run, held, workers or Workers(), launch or Launch())
    except OSError as error:
        raise EngineError(
            f"{getattr(error, 'filename', None) or run.shown}: {error}. What was saved stays: make room, or mend the rights "
            "or the path, and run the same command again"
        ) from error
    return run


def _in_turn(resolved: Resolved, run: Run, held: contextlib.ExitStack, workers: Workers, launch: Launch) -> None:
    document = workers.from_lead(lambda: begin(resolved, run, held, launch), "reading the recipe")
    shared(run, workers)
    recipe = from_plain(document["resolved"])
    task = make_task(*next(iter(recipe.tasks.items())), Preprocessing())
    made: list[Samples] = []  # all samples, on the worker that leads

    def look() -> int:
        found = _looked_at(task, run)
        made.append(_usable(task, run, found.whole, recipe))
        _begun(run, recipe, found, document, lambda: task.look(made[0], int(recipe.machine.loaders)))
        return found.count

    count = workers.from_lead(look, "dividing the data")
    runs = []
    for number in range(count):
        one = _of_fold(document, recipe, task.name, number)
        there, mark = Run(run.fold(number)), _mark(one)
        over = workers.from_lead(lambda n=number, mark=mark: _over(run).get(str(n)) == mark, "looking for what is over")
        if over:
            there.pull(result=True)
        else:
            if workers.leads:
                note(f"fold {number} of {count}")
            try:
                there = train(one, run.fold(number), workers, launch, run)
            except Stopped as stopped:
                raise Stopped(stopped.signum, run, stopped.update) from None
            if workers.leads:
                run.write(_DONE, {**_over(run), str(number): mark})
                run.push()
        runs.append(there)
    if workers.leads:
        pool(run, task, made[0], runs)
        run.push()


def _looked_at(task: Task, run: Run) -> Folds:
    """Divide the data, and look at every fold: what is wrong with the last one is told before the first is trained."""
    found = divided(task.whole(), task.options)
    for number in range(found.count):
        for split in ("train", "val"):
            found.split(split, number)
    compare_data(run, {"whole": found.whole})
    return found


def _usable(task: Task, run: Run, whole: Samples, recipe: Recipe) -> Samples:
    """Leave out of all samples what cannot be decoded, where the options say so; it is found once for all folds."""
    if task.options.on_bad_sample != "skip":
        return whole
    return without_bad(task, run, {"whole": whole}, recipe, ALONE)["whole"]


def _begun(run: Run, recipe: Recipe, found: Folds, document: dict[str, Any], look: Callable[[], list[str]]) -> None:
    """Write what the run begins with; at the first start, look at the samples and make notes."""
    run.write("recipe.json", document)
    if any(line["kind"] == "note" for line in run.metrics):
        return
    metrics = Metrics(run, 0, tensorboard=False)
    said = [*found.whole.remarks(), *found.notes, *look()]
    if recipe.evaluation.patience:
        said.append(
            f"evaluation.patience={recipe.evaluation.patience}: each fold stops by the scores of the samples that it is judged "
            "by, so that the pooled scores are too good"
        )
    for line in said:
        note(line)
        metrics.add({"kind": "note", "update": 0, "text": line})


def _of_fold(document: dict[str, Any], recipe: Recipe, task: str, number: int) -> Resolved:
    """Make the recipe of a fold's run: that of all, with `fold`."""
    tasks = {task: replace(recipe.tasks[task], fold=number)}
    given = {**document["knobs"], f"tasks.{task}.fold": number}
    return Resolved(document["recipe"], given, replace(recipe, tasks=tasks), {})


def _mark(one: Resolved) -> str:
    return hashlib.blake2b(json.dumps(to_plain(one.recipe), sort_keys=True).encode(), digest_size=16).hexdigest()


def _over(run: Run) -> dict[str, str]:
    return run.read(_DONE) if (run.path / _DONE).is_file() else {}


def pool(run: Run, task: Task, whole: Samples, runs: list[Run]) -> None:
    """Score every sample's one record together, and write records, scores and report.

    Raises RecipeError where the folds' records are not those of all samples, once each.
    """
    records, place = [], {whole.id(i): i for i in range(len(whole))}
    for fold in runs:
        file = fold.records() / "val.jsonl"
        records += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if sorted(record["id"] for record in records) != sorted(place):
        raise RecipeError(
            f"{run.shown}/folds: hold {len(records)} records of {len(place)} samples, each of which should have one: remove the "
            "folder of the fold that was changed, and run the same command again"
        )
    records.sort(key=lambda record: place[record["id"]])
    evaluator = task.evaluator(whole)
    evaluator.add(records)
    scores = checked_result(evaluator)
    saw = "it" if group_names(whole, task.options.group) is None else "its group"
    said = f"pooled over {len(runs)} folds: each sample is scored once, by a model that never saw {saw}"
    scores.notes = (*scores.notes, said)
    add_sources(Part(task.name, task, whole, whole), scores)
    each = [fold.scores for fold in runs]
    scores.details["folds"] = [{n: own[n] for n in ("samples", *scores.metrics) if n in own} for own in each]
    write_records(run.records() / "val.jsonl", records)
    last = {key: each[0][key] for key in ("weights", "data", "recipe")}
    run.write("scores.json", scores.to_json() | {"split": "all folds"} | last)
    run.write("shown.json", {task.name: _shown(run, task, evaluator, scores, runs)})
    write_report(run.path)
    note(f"done: {scores_line(scores)}")
    note(f"  report   {run.shown}/{run.report.name}")


def _shown(run: Run, task: Task, evaluator: Any, scores: Scores, runs: list[Run]) -> dict[str, Any]:
    """Build what `shown.json` says: that of the task's evaluator, and a table of the folds."""
    metrics = metrics_of(evaluator)
    names = [name for name in metrics if name in (scores.headline or known(scores.metrics))]
    rows = tuple(
        (n, own["samples"], *(own.get(name) for name in names)) for n, own in enumerate(scores.details["folds"])
    )
    units = ("", "", *(metrics[name].unit for name in names))
    about = "Each was validated by a model of its own, in the folder folds/ beside this page."
    table = Table("Folds", ("fold", "samples", *(metrics[n].title for n in names)), rows, about, units)
    shutil.rmtree(run.records() / "examples", ignore_errors=True)
    blocks = [_with_drawn(block, runs, run) for block in blocks_of(evaluator, scores)]
    return {
        "unit": task.unit,
        "metrics": {name: asdict(about) for name, about in metrics.items()},
        "blocks": [block.to_json() for block in (table, *blocks)],
    }


def _with_drawn(block: Block, runs: list[Run], run: Run) -> Block:
    """Fill a block of pictures that a model must draw with those that the folds' own reports have in that place.

    They are copied into the run: the folds' runs may lie elsewhere, where the run is at an address.
    """
    if not isinstance(block, Examples) or any(p.file or p.source for p in block.pictures):
        return block
    found: list[Picture] = []
    size = block.size
    for number, fold in enumerate(runs):
        for own in next(iter(fold.read("shown.json").values()))["blocks"]:
            if own["kind"] == block.kind and own["title"] == block.title:
                there = Examples.from_json(own)
                drawn = [p for p in there.pictures if p.file][: -(-_DRAWN // len(runs))]
                found += [replace(p, file=_copied(fold, p.file, run, number)) for p in drawn]
                size = there.size
    return replace(block, pictures=tuple(found), size=size)


def _copied(fold: Run, file: str, run: Run, number: int) -> str:
    """Copy a picture of a fold's run into the run of all folds; return its place there."""
    folder = run.records() / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{number}-{Path(file).name}"
    shutil.copyfile(fold.path / file, copy)
    return copy.relative_to(run.path).as_posix()
