"""What an engine is fed with: the micro-batches of every update, each with its key."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from .cache import Cache
from .draws import Drawing
from .loader import Wanted, loaded
from .mixture import Mixture, Slot

T = TypeVar("T")


@dataclass
class Update:
    """All that one update needs of this worker: its number from 0, its micro-batches, and the wait for them (seconds)."""

    number: int
    micro_batches: list[Batch]
    waited: float


def share(items: Sequence[T], workers: Workers) -> Sequence[T]:
    """Take this worker's part of an update; where that is empty, the first item, as a stand-in that counts nothing."""
    return workers.mine(items) or items[:1]


class _Lists:
    """This worker's micro-batches from one update to another, as the loader wants them."""

    def __init__(self, mixture: Mixture, first: int, last: int, workers: Workers):
        self.mixture, self.first, self.last, self.workers = mixture, first, last, workers

    def __len__(self) -> int:
        counts = (self.mixture.count(update) for update in range(self.first, self.last))
        return sum(len(share(range(count), self.workers)) for count in counts)

    def __iter__(self) -> Iterator[Wanted]:
        for update in range(self.first, self.last):
            yield from ((slot.task, slot.at) for slot in share(self.mixture.slots(update), self.workers))


def updates(
    draws: Mapping[str, Drawing],
    mixture: Mixture,
    first: int,
    last: int,
    loaders: int = 0,
    pin: bool = False,
    workers: Workers = ALONE,
) -> Iterator[Update]:
    """Go through the updates `first … last - 1`, with this worker's decoded micro-batches, each with its key."""
    batches = loaded(draws, _Lists(mixture, first, last, workers), loaders, pin)
    return _updates(lambda slot: next(batches), mixture, first, last, workers)


def cached_updates(
    caches: Mapping[str, Cache], mixture: Mixture, first: int, last: int, workers: Workers = ALONE
) -> Iterator[Update]:
    """Go through the same updates with micro-batches of cached maps."""
    return _updates(lambda s: caches[s.task].batch([i for _, i, _ in s.at]), mixture, first, last, workers)


def _updates(
    fetch: Callable[[Slot], Batch], mixture: Mixture, first: int, last: int, workers: Workers
) -> Iterator[Update]:
    for number in range(first, last):
        start = time.perf_counter()
        micro = [
            replace(_weighed(fetch(slot), slot), key=slot.key, stand_in=m % workers.size != workers.rank)
            for m, slot in share(list(enumerate(mixture.slots(number))), workers)
        ]
        yield Update(number, micro, time.perf_counter() - start)


def _weighed(batch: Batch, slot: Slot) -> Batch:
    """Tell a batch, or each of its parts, what its loss counts."""
    of = {weight.task: {k: getattr(weight, k) for k in ("loss_weight", "scale", "labelled")} for weight in slot.weights}
    if not batch.parts:
        return replace(batch, **of[batch.task])
    return replace(batch, parts=tuple(replace(part, key=slot.key, **of[part.task]) for part in batch.parts))
