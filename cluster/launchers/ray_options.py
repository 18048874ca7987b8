"""What Ray alone is told, as data. Imports neither torch nor Ray."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from trunkline.ground.ranges import Range, ranged

from ..config import SECONDS, LauncherOptions

CORES = Range(0, math.inf, "a number of cores above 0", low_in=False, high_in=False)
GPUS = Range(0, math.inf, "0 or more", high_in=False)
TIMES = Range(-1, math.inf, "a number, or -1 for no end", high_in=False)


@dataclass(frozen=True)
class RayOptions(LauncherOptions):
    """Holds what Ray alone is told.

    address      host:port of a cluster, or auto; by default one is started on this machine
    cpus, gpus   what a worker reserves; cpus is also its number of threads
    placement    how workers lie on nodes
    failures     how often workers that failed are started again; -1 without end
    preemptions  the same where a node was taken away with notice
    grow         with a range of workers: seconds between looks for room for more
    """

    address: str = ""
    cpus: float = ranged(1.0, CORES)
    gpus: float = ranged(0.0, GPUS)
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = ranged("PACK", of="training")
    failures: int = ranged(3, TIMES, of="training")
    preemptions: int = ranged(-1, TIMES, of="training")
    grow: float = ranged(60.0, SECONDS, of="training")

    @property
    def cores(self) -> int:
        """How many threads a worker computes with."""
        return max(1, int(self.cpus))

    def missing(self) -> str:
        """Say that Ray has to be installed; empty where it is."""
        return "" if find_spec("ray") else "launch=ray needs Ray: install it with pip install 'trunkline[cluster]'"
