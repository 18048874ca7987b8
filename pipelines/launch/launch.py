"""From `--launch` and `--workers` to a group of workers that runs a verb."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError, RecipeError
from trunkline.ground.names import load_named
from trunkline.ground.storage import absolute

from ...cluster.config import Launch
from ...cluster.launchers.table import LAUNCHERS
from ..recipe import plugin
from ..recipe.demo_data import whole_paths
from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved, resolve
from ..recipe.plain import to_plain
from ..runs.claiming import refuse_strangers
from ..runs.run import Run
from .settings import launch_of, names, of_training


def launch_and_recipe(recipe: str, settings: dict[str, Any]) -> tuple[Launch, Resolved]:
    """Make the launch and the recipe that a training's settings ask for. Raises RecipeError with the problems of both."""
    problems, found = [], None
    try:
        found, settings = launch_of(settings)
    except RecipeError as error:
        problems, settings = error.problems, {k: v for k, v in settings.items() if k not in names()}
    try:
        resolved = resolve(recipe, settings, also=names())
    except RecipeError as error:
        raise RecipeError(problems + error.problems) from None
    if found is None:
        raise RecipeError(problems)
    return found, resolved


def pool_of(settings: dict[str, Any]) -> tuple[Launch | None, dict[str, Any]]:
    """Make the launch of a verb that a pool of workers can do (None: it is done here); return it and the other settings.

    Raises RecipeError where settings are of training alone, or the launcher has no pool for these workers.
    """
    launch, own = launch_of(settings)
    if idle := [k for k in settings if k in of_training()]:
        raise RecipeError([f"{k}={settings[k]}: is of training alone; leave it out here" for k in idle])
    if LAUNCHERS[launch.launch].pool:
        if missing := launch.own.missing():
            raise RecipeError(missing)
        return launch, own
    if launch.workers != 1:
        having = {name: row.called for name, row in LAUNCHERS.items() if row.pool}
        raise RecipeError(
            f"workers={settings['workers']}: workers for this verb come from {' or '.join(having.values())}: add "
            + " or ".join(f"launch={name}" for name in having)
        )
    return None, own


def train(resolved: Resolved, path: str | Path, launch: Launch) -> Run:
    """Train on the launch's workers, or in this process where a single worker needs no launcher."""
    if problems := _problems(resolved.recipe, launch):
        raise RecipeError(problems)
    row = LAUNCHERS[launch.launch]
    if row.alone and launch.workers == 1:
        from ..training.folds import run_recipe as run_it

        return run_it(resolved, path, launch=launch)
    from ...cluster.launchers.outcome import WorkersStopped
    from ...cluster.launchers.worker import Job, Place
    from ..runs.machine import cores
    from ..training.session import Stopped

    run = Run(absolute(path))
    refuse_strangers(run)
    there = run.path.exists()
    args = {"name": resolved.name, "given": _plain(resolved.given), "resolved": to_plain(whole_paths(resolved.recipe)),
            "plugins": plugin.texts(plugin.file_of(resolved.name)), "run": run.shown,
            "launch": dataclasses.asdict(launch)}  # fmt: skip
    job = Job("trunkline.pipelines.launch.worker:train", args, launch.timeout)
    try:
        with _shown() as show:  # every machine sees the run's folder, so the logs lie there
            result = load_named(row.run)(job, launch, Place(run.logs, f"{run.shown}/logs", cores(), show))
    except WorkersStopped as stopped:
        raise Stopped(stopped.signum, run, run.saved) from None
    except EngineError:
        if not there:  # a mistake leaves no folder behind
            run.vanish()
        raise
    if result["stopped"]:
        raise Stopped(result["stopped"], run, result["update"])
    run.pull(result=True)
    return run


@contextmanager
def _shown() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that shows workers' events here; it does not touch the terminal before the first one."""
    from trunkline.ground.progress import Retold

    retold: list[Retold] = []
    with ExitStack() as held:

        def show(event: dict[str, Any]) -> None:
            if not retold:
                retold.append(held.enter_context(Retold()))
            retold[0](_in_words(event))

        yield show


def _in_words(event: dict[str, Any]) -> dict[str, Any]:
    """Turn an event that tells of a worker's start or failure into a note; return every other event as it is."""
    if event["kind"] == "start":
        workers = f"{event['size']} worker{'s' if event['size'] > 1 else ''}, the leading one on {event['node']}"
        return {"kind": "note", "text": workers if event["group"] == 1 else f"started again: {workers}"}
    if event["kind"] == "ending" and event["error"] and not event["mistake"]:
        text = (
            event["error"] if event["lost"] else f"worker {event['rank']} on {event['node']} failed: {event['error']}"
        )
        return {"kind": "note", "text": f"{text.splitlines()[0]} (log: {event['log']})"}
    return event


def _problems(recipe: Recipe, launch: Launch) -> list[str]:
    """List what the launch cannot give of what the recipe asks for."""
    if missing := launch.own.missing():
        return [missing]
    found = [
        problem
        for workers in dict.fromkeys((launch.least, launch.most))
        for engine in launch.engines.values()
        for optimizer in (recipe.optimizer, *(player.optimizer for player in recipe.players.values()))
        for problem in engine.refusals(optimizer, recipe.machine, workers, len(recipe.tasks))
    ]
    return list(dict.fromkeys(found))


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(given, default=str))
