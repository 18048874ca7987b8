"""Every sample of a split once, in the data set's order: what evaluation goes through."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from ...tasks.samples import Samples
from .draws import Draws
from .loader import loaded
from .plan import At


@dataclass
class Ordered:
    """The batches of a whole split in the data set's order: how many there are, and those that are this worker's."""

    count: int
    mine: Iterator[Batch]


def in_order(draws: Draws, batch: int, loaders: int = 0, pin: bool = False, workers: Workers = ALONE) -> Ordered:
    """Go through every sample once, in the data set's order, in batches of up to `batch` samples of one group."""
    lists = ordered_lists(draws.samples, batch)
    mine = list(workers.mine(lists))
    return Ordered(len(lists), loaded({"": draws}, [("", at) for at in mine], min(loaders, len(mine)), pin))


def ordered_lists(samples: Samples, batch: int) -> list[list[At]]:
    """List the samples of each of those batches; they depend on the data set and on `batch` alone."""
    lists: list[list[At]] = []
    groups = samples.groups(False)
    for index in range(len(samples)):
        full = not lists or len(lists[-1]) == batch
        if full or (groups is not None and groups[index - 1] != groups[index]):
            lists.append([])
        lists[-1].append((0, index, 0))
    return lists
