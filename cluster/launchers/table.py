"""The launchers that there are: a name, where its function and its options stand, and what it can do. Imports no torch."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from trunkline.ground.names import load_named

from ..config import Launch, LauncherOptions

_HERE = "trunkline.cluster.launchers"


@dataclass(frozen=True)
class Row:
    """Tells where a launcher stands, and what it can do.

    run       `module:function`, called with a Job, the Launch and a Place: runs the job on the launch's workers and gives
              what the leading one gives back
    options   `module:Class` of what this launcher alone is told, a LauncherOptions; imports no torch
    called    its name in messages
    about     what it is, in a few words
    pool      `module:function` for batches without a state, as `pool` below; empty: it has none
    alone     whether a single worker needs no launcher: this process does the work
    elastic   whether the number of workers may be a range
    settings  of an engine, which hold under this launcher where none of them is given and no engine is asked for
    """

    run: str
    options: str | type[LauncherOptions]
    called: str
    about: str
    pool: str = ""
    alone: bool = False
    elastic: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


LAUNCHERS = {
    "local": Row(
        f"{_HERE}.local:run", LauncherOptions, called="this machine", about="processes on this machine", alone=True
    ),
    "ray": Row(
        f"{_HERE}.on_ray:run",
        f"{_HERE}.ray_options:RayOptions",
        called="Ray",
        about="on a Ray cluster",
        pool=f"{_HERE}.ray_pool:pool",
        elastic=True,
        settings={"zero": 0},
    ),
}


def options() -> dict[str, type[LauncherOptions]]:
    """Load the class of each launcher's own options."""
    return {name: load_named(row.options) for name, row in LAUNCHERS.items()}


def pool(call: str, args: dict[str, Any], launch: Launch) -> AbstractContextManager[Any]:
    """Open the launcher's pool of workers, which makes an iterator of results, in order, from a list of items.

    `call` (`module:function`) is called with `args` on each worker and makes a function from an item to a result;
    items, results and `args` are JSON.
    """
    return load_named(LAUNCHERS[launch.launch].pool)(call, args, launch)
