"""Batches on a Ray cluster: a pool of actors computes them, their results come back in order, each once."""

import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError

from ..config import Launch
from .code import stage
from .on_ray import connected, prepare
from .ray_options import RayOptions

BLOCK = 4  # items of one of the pool's tasks, at most: these are done again where an actor dies


class Actor:
    """One worker: `call` (`module:function`), given `args`, makes a function from an item to a result, both JSON."""

    def __init__(self, call: str, args: dict[str, Any], cores: int):
        os.environ["TRUNKLINE_CORES"] = str(cores)
        module, name = call.split(":")
        self._problem = ""
        try:
            self._compute = getattr(importlib.import_module(module), name)(args)
        except EngineError as error:
            self._problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the results of some items; a user's mistake is a result too."""
        return {"result": [json.dumps(self._one(json.loads(item))) for item in batch["item"]]}

    def _one(self, item: Any) -> dict[str, Any]:
        if self._problem:
            return {"mistake": self._problem}
        try:
            return {"result": self._compute(item)}
        except EngineError as error:
            return {"mistake": str(error)}


@contextmanager
def pool(call: str, args: dict[str, Any], launch: Launch) -> Iterator[Any]:
    """Open a pool: yields a function from a list of items to an iterator over their results, in order.

    The results of a dead worker's items are computed again by another one. Raises EngineError, at its place in the
    order, for what a worker calls the user's mistake.
    """
    prepare()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # dead actors are reported here
    import ray

    with tempfile.TemporaryDirectory() as scratch, connected(launch, stage(Path(scratch))), _ending_at_once():
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.disable(logging.WARNING)  # what Ray Data says of its plans, whatever its loggers are set to
        try:
            yield lambda items: _results(call, args, launch, items)
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let SIGTERM end the command as it ends other commands: Ray's own handler prints its stack."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _results(call: str, args: dict[str, Any], launch: Launch, items: list[Any]) -> Iterator[Any]:
    import ray

    own: RayOptions = launch.own
    rows = [{"item": json.dumps(item)} for item in items]
    each = min(BLOCK, max(1, len(rows) // launch.most))
    blocks = max(1, -(-len(rows) // each))

    class Bound(Actor):  # Ray warns of arguments that an actor could lose
        def __init__(self) -> None:
            super().__init__(call, args, own.cores)

    computed = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Bound,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=min(launch.least, blocks), max_size=min(launch.most, blocks)),
        num_cpus=own.cpus,
        num_gpus=own.gpus or None,
    )
    for row in computed.iter_rows():
        found = json.loads(row["result"])
        if "mistake" in found:
            raise EngineError(found["mistake"])
        yield found["result"]
