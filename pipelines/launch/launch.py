"""From `--launch` and `--workers` to a group of workers that runs a verb."""

import dataclasses
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from trunkline.ground.errors import EngineError, RecipeError
from trunkline.ground.storage import absolute

from ...cluster.config import OF_RAY, OF_TRAINING, Launch
from ..recipe import plugin
from ..recipe.convert import convert
from ..recipe.demo_data import whole_paths
from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved, resolve
from ..recipe.plain import to_plain
from ..runs.run import Run, refuse_strangers

if TYPE_CHECKING:
    from ...cluster.launchers.worker import Job

_NO_RAY = "launch=ray needs Ray: install it with pip install 'trunkline[cluster]'"
_LEAST = {  # of a number: the bound, whether it is allowed itself, and what is expected
    "timeout": (0, False, "seconds above 0"),
    "cpus": (0, False, "a number of cores above 0"),
    "gpus": (0, True, "0 or more"),
    "grow": (0, False, "seconds above 0"),
    "failures": (-1, True, "a number, or -1 for no end"),
    "preemptions": (-1, True, "a number, or -1 for no end"),
}
FIELDS = tuple(f.name for f in dataclasses.fields(Launch))


def launch_of(settings: dict[str, Any]) -> tuple[Launch, dict[str, Any]]:
    """What of the settings says where workers come from, and the rest. Raises RecipeError with every problem."""
    hints, given, problems = get_type_hints(Launch), {}, []
    for key in FIELDS:
        if key in settings:
            try:
                given[key] = convert(hints[key], settings[key], key)
            except RecipeError as error:
                problems += error.problems
    launch = Launch(**given)
    if launch.launch == "ray" and launch.zero is None:
        launch = dataclasses.replace(launch, zero=0)
    low, high = launch.workers if isinstance(launch.workers, tuple) else (launch.workers, launch.workers)
    if not 1 <= low <= high:
        problems.append(f"workers={settings['workers']}: expected a number above 0, or two with the smaller one first")
    if launch.launch == "local" and low != high:
        problems.append(f"workers={settings['workers']}: a range of workers needs launch=ray")
    if launch.launch == "local":
        problems += [
            f"{key}={settings[key]}: is of Ray alone; add launch=ray, or leave it out" for key in given if key in OF_RAY
        ]
    for key, (least, allowed, what) in _LEAST.items():
        value = getattr(launch, key)
        if not (least < value < math.inf or (allowed and value == least)):
            problems.append(f"{key}={value:g}: expected {what}")
    if problems:
        raise RecipeError(problems)
    return launch, {k: v for k, v in settings.items() if k not in FIELDS}


def launch_and_recipe(recipe: str, settings: dict[str, Any]) -> tuple[Launch, Resolved]:
    """Both halves of a training's settings. Raises RecipeError with the problems of both."""
    problems, found = [], None
    try:
        found, settings = launch_of(settings)
    except RecipeError as error:
        problems, settings = error.problems, {k: v for k, v in settings.items() if k not in FIELDS}
    try:
        resolved = resolve(recipe, settings, also=FIELDS)
    except RecipeError as error:
        raise RecipeError(problems + error.problems) from None
    if found is None:
        raise RecipeError(problems)
    return found, resolved


def pool_of(settings: dict[str, Any]) -> tuple[Launch | None, dict[str, Any]]:
    """The same for verbs that a pool of workers can do; None: they are done here."""
    launch, own = launch_of(settings)
    if idle := [k for k in settings if k in OF_TRAINING]:
        raise RecipeError([f"{k}={settings[k]}: is of training alone; leave it out here" for k in idle])
    if launch.launch == "ray":
        if find_spec("ray") is None:
            raise RecipeError(_NO_RAY)
        return launch, own
    if launch.workers != 1:
        raise RecipeError(f"workers={settings['workers']}: workers for this verb come from Ray: add launch=ray")
    return None, own


def train(resolved: Resolved, path: str | Path, launch: Launch) -> Run:
    """Train on the launch's workers; with one local worker in this process."""
    if problems := _problems(resolved.recipe, launch):
        raise RecipeError(problems)
    if launch.launch == "local" and launch.workers == 1:
        from ..training.train import train as run_it

        return run_it(resolved, path, launch=launch)
    from ...cluster.launchers.local import WorkersStopped
    from ...cluster.launchers.worker import Job
    from ..training.session import Stopped

    run = Run(absolute(path))
    refuse_strangers(run)
    there = run.path.exists()
    args = {"name": resolved.name, "given": _plain(resolved.given), "resolved": to_plain(whole_paths(resolved.recipe)),
            "plugins": plugin.texts(plugin.file_of(resolved.name)), "run": run.shown,
            "launch": dataclasses.asdict(launch)}  # fmt: skip
    job = Job("trunkline.pipelines.launch.worker:train", args, launch.timeout)
    try:
        result = (_on_ray if launch.launch == "ray" else _here)(job, launch, run)
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


def _here(job: "Job", launch: Launch, run: Run) -> Any:
    from ...cluster.launchers.local import run_local
    from ..runs.machine import cores

    assert isinstance(launch.workers, int)
    return run_local(job, launch.workers, run.logs, cores())


def _on_ray(job: "Job", launch: Launch, run: Run) -> Any:
    from trunkline.ground.progress import Retold

    from ...cluster.launchers.on_ray import run_on_ray

    storage = f"{run.shown}/logs"  # all nodes see it, as they see the run
    with Retold() as show:
        return run_on_ray(job, launch, storage, lambda event: show(_in_words(event)))


def _in_words(event: dict[str, Any]) -> dict[str, Any]:
    """What becomes of the workers, as a note."""
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
    """What the launch cannot give of what the recipe asks for."""
    if launch.launch == "ray" and find_spec("ray") is None:
        return [_NO_RAY]
    if launch.zero is None or launch.zero == "none":
        return ["offload=true needs zero=1, 2 or 3"] if launch.offload else []
    if find_spec("deepspeed") is None:
        return [f"zero={launch.zero} needs DeepSpeed: install it with pip install 'trunkline[cluster]'"]
    from ...cluster.engines.zero import refuse

    sizes = launch.workers if isinstance(launch.workers, tuple) else (launch.workers,)
    found = [p for n in sizes for p in refuse(recipe.optimizer, recipe.machine, n, launch.zero, launch.offload)]
    if launch.zero >= 2 and len(recipe.tasks) > 1:
        found.append(
            f"zero={launch.zero}: a mixture of tasks needs zero=0 or zero=1; stages 2 and 3 move a head that has no "
            "micro-batch in an update"
        )
    return list(dict.fromkeys(found))


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(given, default=str))
