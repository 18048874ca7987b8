"""What a worker of a group does: the pipelines' own verbs, from JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trunkline.ground import progress
from trunkline.ground.errors import DataError, EngineError, RecipeError, WeightsError

from ...cluster.workers import Workers
from ..recipe import plugin
from ..recipe.knobs import Resolved
from ..recipe.plain import from_plain
from .settings import launch_from


@contextmanager
def mistakes_as_engine_errors() -> Iterator[None]:
    """Turn a user's mistake of any kind into an EngineError, the one kind that launchers know."""
    try:
        yield
    except (RecipeError, WeightsError, DataError) as error:
        raise EngineError(str(error)) from error


def train(args: dict[str, Any], workers: Workers) -> dict[str, Any]:
    """Train by the resolved recipe in the run's folder. Raises EngineError for a user's mistake of any kind.

    Return the signal that `stopped` the run (0: none) and, where one did, the `update` at which it was saved.
    """
    from ..training.folds import run_recipe as run_it
    from ..training.session import Stopped

    progress.console.quiet = not workers.leads
    progress.tell = workers.tell if workers.leads else None
    try:
        with mistakes_as_engine_errors():
            plugin.load_all(args["plugins"])
            recipe = from_plain(args["resolved"])
            run_it(Resolved(args["name"], args["given"], recipe, {}), args["run"], workers, launch_from(args["launch"]))
    except Stopped as stopped:
        return {"stopped": stopped.signum, "update": stopped.update}
    return {"stopped": 0}
