"""From a plan to batches: which samples every update takes, and who decodes them. Nothing here has a state."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trunkline.ground.errors import DataError, EngineError, RecipeError
from trunkline.ground.keys import key, seed_sample

from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from ...tasks.contract import Sample, Samples, Task

WINDOW = 16  # shards, or row groups of them, that are read at a time
T = TypeVar("T")
At = tuple[int, int, int]  # (epoch, index, repeat): all that a sample's augmentation depends on, besides the seed


@dataclass(frozen=True)
class Plan:
    """Which samples the micro-batches of every update take: a pure function of these numbers.

    `units`, a number for each sample, says which samples are read together (shards): an epoch goes through them unit by
    unit, WINDOW at a time, in an order of its own, and mixes the samples of a window. Those with the same
    number in `groups` stand in one micro-batch; what is too little of each for another one stands together.
    """

    samples: int
    batch: int
    micro: int
    seed: int
    units: np.ndarray | None = field(default=None, compare=False)
    groups: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.samples < self.batch:
            raise RecipeError(
                f"batch.size={self.batch} is larger than the {self.samples} training samples: "
                f"set batch={max(min(2, self.samples), self.samples // 2)}"
            )

    @classmethod
    def over(cls, samples: Samples, batch: int, micro: int, seed: int) -> "Plan":
        """The plan over a training split."""
        return cls(len(samples), batch, micro, seed, samples.units(), samples.groups(True))

    @property
    def per_epoch(self) -> int:
        """Updates an epoch; what is left over (`dropped` samples, others in each epoch) waits for another one."""
        return self.samples // self.batch

    @property
    def dropped(self) -> int:
        """Samples that an epoch leaves out because they do not fill an update."""
        return self.samples - self.per_epoch * self.batch

    def length(self, epochs: float | None, updates: int | None) -> int:
        """The number of updates of a phase."""
        return updates if updates is not None else max(1, math.ceil((epochs or 0) * self.per_epoch))

    def micro_batches(self, update: int) -> list[list[At]]:
        """The samples of each micro-batch of an update."""
        epoch, number = divmod(update, self.per_epoch)
        units, groups = _Numbers(self.units), _Numbers(self.groups)
        order = _order(units, groups, self.micro, self.seed, epoch, self.samples, self.per_epoch * self.batch)
        mine = order[number * self.batch : (number + 1) * self.batch]
        return [[(epoch, int(i), 0) for i in mine[m : m + self.micro]] for m in range(0, self.batch, self.micro)]


class _Numbers:
    """An array that a cache can look up: by which one it is."""

    def __init__(self, array: np.ndarray | None):
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Numbers) and self.array is other.array


@lru_cache(maxsize=2)
def _order(
    units: _Numbers, groups: _Numbers, micro: int, seed: int, epoch: int, samples: int, taken: int
) -> np.ndarray:
    draw = np.random.Generator(np.random.PCG64(key(seed, "order", epoch)))
    if units.array is None:
        order = draw.permutation(samples)
    else:
        turn = draw.permutation(int(units.array.max(initial=0)) + 1)  # of each unit
        order = np.lexsort((draw.random(samples), turn[units.array] // WINDOW))
    if groups.array is None:
        return order
    order = order[:taken]  # which ones wait for another epoch is no question of their group
    kinds = groups.array[order]
    parts = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]  # places in the order
    rest = np.sort(np.concatenate([part[len(part) // micro * micro :] for part in parts]))
    batches = np.concatenate([part[: len(part) // micro * micro].reshape(-1, micro) for part in [*parts, rest]])
    return order[batches[np.argsort(batches[:, -1])].ravel()]  # in the order in which they were filled


class Draws(Dataset):
    """Samples by `(epoch, index, repeat)`; its workers hold no epoch and no generator of their own."""

    def __init__(self, task: Task, samples: Samples, seed: int, training: bool):
        self.task, self.samples, self.seed = task, samples, seed
        self.transform = task.transform(training)

    def draw(self, at: At) -> Sample:
        """The sample as that epoch sees it: the same tensor, whoever asks."""
        epoch, index, repeat = at
        sample = self.samples[index]
        seed_sample(key(self.seed, epoch, index, repeat))
        return self.transform(sample)

    def batch(self, at: list[At]) -> Batch:
        """These samples, put together."""
        return self.task.collate([self.draw(a) for a in at])

    def __getitems__(self, at: list[At]) -> Any:
        try:
            return self.batch(at)
        except DataError as error:  # handed over as a value: torch would wrap it in a worker's traceback
            return error


def _loader(draws: Draws, lists: list[list[At]] | Any, decoders: int, pin: bool) -> Iterator[Batch]:
    loader = DataLoader(
        draws, batch_sampler=lists, collate_fn=_same, num_workers=decoders, pin_memory=pin,
        prefetch_factor=4 if decoders else None, multiprocessing_context="fork" if decoders and _can_fork() else None,
        worker_init_fn=_leave_signals,
    )  # fmt: skip
    with _signals_kept():
        batches: Any = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except (ConnectionError, EOFError) as error:  # the main process was fetching a batch from it
        raise _killed(error, decoders) from None
    finally:  # now: while torch knows of a killed process, every signal of any child raises wherever this one stands
        if decoders:
            batches._shutdown_workers()


@contextlib.contextmanager
def decoding(decoders: int) -> Iterator[None]:
    """While loaders are in use: that one of their processes was killed is told as an EngineError.

    torch raises RuntimeError from a signal handler, so wherever the main process happens to stand: an update, a save.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise _killed(error, decoders) from None


def _killed(error: Exception, decoders: int) -> EngineError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return EngineError(
        f"a process that decodes was killed ({first}); mostly memory ran out: set machine.workers={max(0, decoders // 2)}"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """SIGTERM waits meanwhile; processes that begin here have it blocked from their first moment and in every thread.

    torch starts threads in a new process before it calls `_leave_signals`, which would still take the signal, and die of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(_: int) -> None:
    """A scheduler asks the whole group to end: the main process saves first. Who decodes ends when that one says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _same(batch: Any) -> Any:
    return batch


def _can_fork() -> bool:
    import multiprocessing
    import sys

    return (
        sys.platform != "darwin"
        and "fork" in multiprocessing.get_all_start_methods()
        and not torch.cuda.is_initialized()
    )


def _share(items: Sequence[T], workers: Workers) -> Sequence[T]:
    """This worker's part of an update; where that is nothing, the first one, which counts nothing then."""
    return workers.mine(items) or items[:1]


class _Lists:
    """This worker's micro-batches from one update to another, as the loader wants them."""

    def __init__(self, plan: Plan, first: int, last: int, workers: Workers):
        self.plan, self.first, self.last, self.workers = plan, first, last, workers

    def __len__(self) -> int:
        return (self.last - self.first) * len(_share(range(self.plan.batch // self.plan.micro), self.workers))

    def __iter__(self) -> Iterator[list[At]]:
        for update in range(self.first, self.last):
            yield from _share(self.plan.micro_batches(update), self.workers)


@dataclass
class Turn:
    """All that one update needs of this worker, and how long the engine waited for it (seconds)."""

    update: int
    micro_batches: list[Batch]
    waited: float


def turns(
    draws: Draws, plan: Plan, first: int, last: int, decoders: int = 0, pin: bool = False, workers: Workers = ALONE
) -> Iterator[Turn]:
    """The updates `first … last - 1` with this worker's decoded micro-batches, each with its key."""
    batches = _loader(draws, _Lists(plan, first, last, workers), decoders, pin)
    return _turns(lambda at: next(batches), plan, first, last, workers)


def cached_turns(cache: "Cache", plan: Plan, first: int, last: int, workers: Workers = ALONE) -> Iterator[Turn]:
    """The same from cached maps."""
    return _turns(lambda at: cache.batch([index for _, index, _ in at]), plan, first, last, workers)


def _turns(fetch: Callable[[list[At]], Batch], plan: Plan, first: int, last: int, workers: Workers) -> Iterator[Turn]:
    for update in range(first, last):
        start = time.perf_counter()
        micro = [
            replace(fetch(at), key=key(plan.seed, "model", update, m), weight=float(m % workers.size == workers.rank))
            for m, at in _share(list(enumerate(plan.micro_batches(update))), workers)
        ]
        yield Turn(update, micro, time.perf_counter() - start)


@dataclass
class Ordered:
    """The batches of a whole split in the data set's order: how many there are, and those that are this worker's."""

    count: int
    mine: Iterator[Batch]


def in_order(draws: Draws, batch: int, decoders: int = 0, pin: bool = False, workers: Workers = ALONE) -> Ordered:
    """Every sample once, in the data set's order, in batches of samples that can stand together."""
    lists = ordered_lists(draws.samples, batch)
    mine = list(workers.mine(lists))
    return Ordered(len(lists), _loader(draws, mine, min(decoders, len(mine)), pin))


def ordered_lists(samples: Samples, batch: int) -> list[list[At]]:
    """Which samples those batches take: a pure function of the data set."""
    lists: list[list[At]] = []
    groups = samples.groups(False)
    for index in range(len(samples)):
        full = not lists or len(lists[-1]) == batch
        if full or (groups is not None and groups[index - 1] != groups[index]):
            lists.append([])
        lists[-1].append((0, index, 0))
    return lists


@dataclass
class Cache:
    """The maps of a frozen trunk for a whole split, in the data set's order; tensors have one row a sample."""

    task: str
    ids: list[str]
    features: dict[str, Tensor]
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: list[int]) -> Batch:
        """The batch of these samples."""
        at = torch.tensor(indices)
        return Batch(
            self.task,
            [self.ids[i] for i in indices],
            features={n: t[at] for n, t in self.features.items()},
            targets={n: t[at] for n, t in self.targets.items()},
        )

    def in_order(self, batch: int, workers: Workers = ALONE) -> Ordered:
        """Every sample once, in order."""
        lists = [range(first, min(first + batch, len(self))) for first in range(0, len(self), batch)]
        return Ordered(len(lists), (self.batch(list(indices)) for indices in workers.mine(lists)))
