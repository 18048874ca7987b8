"""The verbs as functions: each takes and returns plain objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from .recipe.convert import typed, typed_with_options
from .recipe.knobs import Resolved, recipe_function, recipe_names, resolve
from .runs.machine import resolve_machine
from .runs.run import Run


def train(recipe: str, run: str | Path, **settings: Any) -> Run:
    """Train by a recipe: begin a run in the folder `run`, or go on with the run that is already there.

    `settings` are the recipe's knobs and, spelled `**{"optimizer.lr": 0.02}`, any of its fields; `workers=2` divides
    the work among processes. Returns the run with its scores, weights and report. Raises RecipeError, WeightsError,
    DataError or EngineError (all ValueErrors) for a mistake in what was given.
    """
    from .launch.launch import launch_and_recipe
    from .launch.launch import train as run_it

    launch, resolved = launch_and_recipe(recipe, settings)
    return run_it(resolved, run, launch)


def evaluate(source: str | Path, **settings: Any) -> Any:
    """Score a run's folder or a weights file; see `trunkline.pipelines.evaluation.evaluate.evaluate` for the settings.

    `launch="ray"` and `workers=4` do it on a pool of workers.
    """
    from .evaluation.evaluate import evaluate as run_it
    from .launch.launch import pool_of

    launch, own = pool_of(settings)
    return run_it(_path_of(source), launch=launch, **typed_with_options(run_it, own))


def convert(kind: Literal["data", "weights"], source: str | Path, **settings: Any) -> Any:
    """Write a data set, or weights, as another tool reads them; `trunkline.pipelines.tools.convert.KINDS` has the settings."""
    from .tools.convert import kind as function_of

    function = function_of(kind)
    return function(source, **typed(function, settings))


def score(
    protocol: Literal["coco", "voc", "masks", "images"], truth: str | Path, results: str | Path, **settings: Any
) -> Any:
    """Score the results of any detector or segmenter, or anybody's upscaled pictures.

    `trunkline.pipelines.score.score.PROTOCOLS` names the function of each protocol, whose docstring lists the settings.
    """
    from .score.score import protocol as function_of

    function = function_of(protocol)
    return function(at_home(truth), at_home(results), **typed(function, settings))


def predict(source: str | Path, inputs: str | Path | Iterable[str | Path], **settings: Any) -> Any:
    """Predict pictures with a model; see `trunkline.pipelines.prediction.predict.stream` for the settings.

    `launch="ray"` and `workers=4` do it on a pool of workers. A word of `trunkline.pipelines.prediction.table.BASELINES` in the
    model's place needs no model.
    """
    from .prediction.predictions import Predictions

    return Predictions(predictions(source, inputs, settings))


def predictions(
    source: str | Path, inputs: str | Path | Iterable[str | Path], settings: dict[str, Any]
) -> Iterator[Any]:
    """Yield what `predict` collects, one file after the other."""
    from .prediction.table import baseline

    if function := baseline(source):
        return function(inputs, **typed(function, settings))
    from .launch.launch import pool_of
    from .prediction.predict import stream

    launch, own = pool_of(settings)
    return stream(_path_of(source), inputs, launch=launch, **typed_with_options(stream, own))


def model(weights: str | Path, **settings: Any) -> Any:
    """Load a model from a run's folder or a weights file: a `Model` in evaluation mode with `.preprocessing`.

    Called with images `(N, C, H, W)` uint8, 0 to 255, it gives every head's predictions by task, in one pass of the trunk; with
    names beside them (`"boxes,pixels"`) those heads' alone.
    """
    from dataclasses import replace

    from trunkline.ground.storage import is_remote

    from .models.opened import bundle_of, folder_of
    from .models.ready import Source, ready

    source = Source(str(_path_of(weights)), **typed(_model, settings))
    named = source.task or source.weights_key
    if not named and (is_remote(source.source) or folder_of(source.source) or bundle_of(source.source)):
        source = replace(source, tasks=("all",))
    return ready(source).model


def _model(
    *,
    task: str = "",
    checkpoint: str = "last",
    ema: bool | None = None,
    device: str = "auto",
    threads: int | None = None,
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    weights_key: str = "",
    classes: tuple[str, ...] = (),
    blend: str = "",
) -> None:
    """Declare the settings of `model`; it is never called."""


def _path_of(source: Any) -> str:
    """Return a run's folder, or the path or name that was given. Raises RecipeError for anything else."""
    path = getattr(source, "path", source)
    if not isinstance(path, (str, Path)):
        raise RecipeError(f"{path!r}: expected a run, or the path or name of weights")
    return at_home(path)


def check(data: str | Path, **settings: Any) -> Any:
    """Decode and validate a data set, or a run's; see `trunkline.pipelines.evaluation.check.check` for the settings."""
    from .evaluation.check import check as run_it

    return run_it(_path_of(data), **typed_with_options(run_it, settings))


def recipes() -> dict[str, str]:
    """List the recipes by name, each with the first line of its docstring."""
    return {name: (recipe_function(name).__doc__ or "").strip().partition("\n")[0] for name in sorted(recipe_names())}


@dataclass(frozen=True)
class RecipeFields:
    """Every field of a recipe: (key, value, where it comes from)."""

    name: str
    about: str
    rows: list[tuple[str, Any, str]]

    def to_json(self) -> dict[str, Any]:
        """Return the value and its origin by key."""
        return {key: {"value": value, "from": origin} for key, value, origin in self.rows}


def show(recipe: str, **settings: Any) -> RecipeFields:
    """List every field of a recipe: its value, its origin, and what `auto` becomes on this machine and why."""
    from .recipe.fields import sharing
    from .recipe.tree import walk

    about = (recipe_function(recipe).__doc__ or "").strip()
    try:
        resolved = resolve(recipe, settings)
    except RecipeError as error:
        missing = [p.partition("=")[0] for p in error.problems if "data= is missing" in p]  # of those tasks alone
        if "data" in settings or not missing:
            raise
        resolved = resolve(recipe, {**settings, **dict.fromkeys(missing, "FOLDER")})
    _, why = resolve_machine(resolved.recipe.machine)
    rows = []
    for key, value in walk(resolved.recipe):
        origin = resolved.origin[key]
        if key in why:
            value, reason = why[key]
            origin = f"auto: {reason}"
        if key == "shared_batch" and len(resolved.recipe.tasks) > 1:
            passes = ", ".join("+".join(names) for names in sharing(resolved.recipe))
            origin = f"{origin}; an update's passes of the trunk are of: {passes}"
        if key == "network.weights" and Path(value).is_file():
            origin = f"{origin}; {_in_file(resolved.recipe.network)}"
        rows.append((key, value, origin))
    return RecipeFields(recipe, about, rows)


def _in_file(network: Any) -> str:
    """Read the weights file of a network, and say what is in it."""
    from ..backbones.weights import described
    from .models.bundle import read_bundle
    from .models.opened import weights_of

    bundle = read_bundle(Path(network.weights))
    if bundle and not network.weights_key:
        return f"holds the tasks {', '.join(bundle.recipe.tasks)} on one {bundle.facts.arch}"
    found = weights_of(network.weights, network.backbone, network.stride_in, network.weights_key)
    return described(found) if found else ""


def memory(recipe: str, **settings: Any) -> Any:
    """Estimate a worker's memory, by part and for every ZeRO stage, and list what would make the recipe fit.

    `settings` as for `train`, with `workers=`, `zero=` and `launch=`; the data is read for one sample's shape.
    """
    from .launch.launch import launch_and_recipe
    from .tools.memory_plan import plan

    launch, resolved = launch_and_recipe(recipe, settings)
    return plan(resolved, launch)


def profile(recipe: str, *, profile_updates: int = 6, out: str | Path | None = None, **settings: Any) -> Any:
    """Trace a few updates: the time by part, and how long the engine waits for data. `out` is the trace's file."""
    resolved: Resolved = resolve(recipe, settings)
    from .tools.profiling import profile as run_it

    return run_it(resolved, profile_updates, out)


def demo(folder: str | Path = "demo", **settings: Any) -> dict[str, Run]:
    """Write generated pictures, train a classifier and an upscaler on them, evaluate and report, without a download.

    It takes about five minutes on two cores. With `tasks=("all",)` it trains several tasks on one trunk in their place, in about
    eleven. Returns the runs by their tasks' names; that of several tasks is called `joint`.
    """
    from .tools.demo import demo as run_it

    return run_it(folder, **settings)


def doctor() -> Any:
    """Check whether this installation and machine are fit, with a line for each thing examined."""
    from .tools.doctor import doctor as run_it

    return run_it()


def bench(what: str, **settings: Any) -> Any:
    """Measure Trunkline beside plain loops of other libraries, in interleaved rounds.

    `trunkline.pipelines.bench.bench.BENCHES` lists what can be measured.
    """
    from .bench.bench import options

    function = options(what)
    return function(**typed(function, settings))
