"""The workers of a run: processes that divide the micro-batches of every update, and how they agree.

One process is a group of one, for which everything here is free.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from trunkline.ground.errors import EngineError

T = TypeVar("T")

BUCKET = 25 * 2**20  # bytes that one collective carries
PATIENCE = timedelta(hours=24)  # for what one worker does while the others wait: reading a data set, say


class LostWorker(RuntimeError):
    """Another worker failed, or is silent: what is wrong stands in its own error, not in this one."""


class Workers:
    """A group of processes, `rank` of `size`; rank 0 leads: it writes the run's folder and speaks to people.

    timeout    seconds that an update's collectives wait for a silent worker before they give up
    """

    def __init__(self, rank: int = 0, size: int = 1, timeout: float = 600.0):
        self.rank, self.size, self.timeout = rank, size, timeout
        self.signal = 0  # the signal that asked this worker to end; 0: none did
        self._asks: set[str] = set()
        self._asked: set[str] = set()
        self.tell: Callable[[dict[str, Any]], None] | None = None  # takes what people are to see; None: shown here
        self._patient: Any = None
        self._watch: Any = None
        if size > 1:
            if {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
                from .watch import Watch

                self._watch = Watch(rank, size, timeout)
            self._patient = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)  # all are here after it
            if self._watch:
                self._watch.start()

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes and speaks."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Return this worker's share of a list: r, r + W, r + 2W, … for rank r of W."""
        return items[self.rank :: self.size]

    def add(self, flat: Tensor, what: str) -> None:
        """Replace a flat tensor by its sum over the workers, in buckets whose order never changes."""
        if self.size == 1 or not flat.numel():
            return
        with self._waiting(what):
            buckets = flat.split(max(1, BUCKET // flat.element_size()))
            for work in [torch.distributed.all_reduce(b, async_op=True) for b in buckets]:
                assert work is not None
                work.wait()

    def agree(self, numbers: list[int], what: str) -> list[int]:
        """Sum a few whole numbers over the workers; what was asked for with `ask` travels along."""
        if self.size == 1:
            return numbers
        sent = torch.tensor([*(name in self._asks for name in ASKS), *numbers], dtype=torch.int64)
        with self._waiting(what):
            torch.distributed.all_reduce(sent)
        heard = sent.tolist()
        self._asked |= {name for name, count in zip(ASKS, heard, strict=False) if count}
        return heard[len(ASKS) :]

    def ask(self, name: str) -> None:
        """Ask all workers for one of ASKS; they all hear of it in the same update."""
        self._asks.add(name)

    def asks(self, name: str) -> bool:
        """Say whether this worker asked for it, whatever the others know yet."""
        return name in self._asks

    def asked(self, name: str) -> bool:
        """Say whether any worker asked for it; between two updates all of them have the same answer."""
        return name in (self._asks if self.size == 1 else self._asked)

    def answered(self, name: str) -> None:
        """Forget a request, as what was asked for is done."""
        self._asks.discard(name)
        self._asked.discard(name)

    def gather(self, value: Any, what: str) -> list[Any]:
        """Gather what each worker says, by rank, on all of them; wait as long as it takes."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        self._patiently(what, torch.distributed.all_gather_object, found, value)
        return found

    def to_lead(self, value: Any, what: str) -> list[Any]:
        """Gather what each worker says, by rank, on the leading one; return an empty list elsewhere."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.leads else None
        self._patiently(what, torch.distributed.gather_object, value, found)
        return found or []

    def from_lead(self, make: Callable[[], T], what: str) -> T:
        """Call `make` on the leading worker and return its result on all of them.

        Where it fails, raise its error there and LostWorker elsewhere.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.leads:
            try:
                told[0] = make()
            except BaseException as error:
                failure, told[1] = error, f"{type(error).__name__}: {error}"
        self._patiently(what, torch.distributed.broadcast_object_list, told, 0)
        if failure:
            raise failure
        if told[1]:
            raise LostWorker(f"the leading worker failed in {what}: {told[1]}")
        return told[0]

    def alike(self, value: Any, what: str) -> None:
        """Raise EngineError on the workers whose value is not the leading one's, and LostWorker on the others."""
        found = self.gather((value, where()), what)
        (lead, place), own = found[0], found[self.rank]
        odd = [f"worker {r} on {host}" for r, (v, host) in enumerate(found) if v != lead]
        if own[0] != lead:
            raise EngineError(f"{what} differ between worker {self.rank} on {where()} and worker 0 on {place}")
        if odd:
            raise LostWorker(f"{what} differ: {', '.join(odd)}")

    def _patiently(self, what: str, collective: Callable[..., None], *args: Any) -> None:
        """Run a collective that may take as long as another worker works. Raises LostWorker where one is silent."""
        if self._watch is None:
            with self._waiting(what):
                collective(*args, group=self._patient)
            return
        failure: list[BaseException] = []

        def run() -> None:
            try:
                collective(*args, group=self._patient)
            except BaseException as error:
                failure.append(error)

        waiting = threading.Thread(target=run, daemon=True)  # the collective itself cannot be given up
        waiting.start()
        while waiting.is_alive():
            waiting.join(0.5)
            if waiting.is_alive() and (silent := self._watch.silent()):
                raise LostWorker(
                    f"worker {self.rank} on {where()} waited in {what} for {', '.join(silent)}, silent for "
                    f"{self.timeout:g} s"
                )
        with self._waiting(what):
            if failure:
                raise failure[0]

    @contextlib.contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            gone = ", ".join(self._watch.gone()) if self._watch else ""
            raise LostWorker(
                f"worker {self.rank} on {where()} waited in {what} for {gone or 'another worker'}, which hangs, failed or "
                f"is gone (after at most {self.timeout:g} s): {first}"
            ) from error

    def close(self) -> None:
        """Stop the watch over the group, whose work is done."""
        if self._watch:
            self._watch.stop()


ASKS = ("stop", "save")
BACKEND = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
ALONE = Workers()


def where() -> str:
    """Return this machine's name, as errors show it."""
    return socket.gethostname()


def join(timeout: float = 600.0) -> Workers:
    """Join the group that the environment names (`RANK`, `WORLD_SIZE`, …, as torchrun sets them), or a group of one.

    A process group that is there already, as Ray Train makes it, is used as it is.
    """
    from torch import distributed

    if not distributed.is_available():
        return Workers()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Workers()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        distributed.init_process_group(BACKEND, timeout=timedelta(seconds=timeout))
    return Workers(distributed.get_rank(), distributed.get_world_size(), timeout)


def leave() -> None:
    """Leave the process group, where there is one."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
