"""Run a function for every file in parallel processes. A file that kills its process is named, and the work goes on."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

CHUNK = 16  # items that a process takes at once


F = TypeVar("F")


@dataclass(frozen=True)
class Crash:
    """In place of a result: the process died while it worked on this item."""

    what: str


def run_all(
    work: Callable[[int], Any], count: int, loaders: int | None = None, title: str = "", show: bool = True
) -> Iterator[tuple[int, Any]]:
    """Yield `(i, work(i))`, or `(i, Crash)`, for i in `range(count)`, in the order in which they are done.

    `loaders` processes (None: one a core; 0: this process). `work` should return an expected error in its result: an
    exception ends everything. Raises DataError where a process is killed from outside, mostly for want of memory.
    """
    if loaders is None:
        loaders = available_cores()
    results = _run_here(work, count) if loaders < 1 else _run_processes(work, count, min(loaders, max(1, count)))
    if not show:
        yield from results
        return
    # the first result starts the processes: forked before the bar's own thread exists
    first = next(results, None)
    with progress() as bar:
        task = bar.add_task(title, total=count, unit="files", say="")
        if first is not None:
            bar.advance(task)
            yield first
        for result in results:
            bar.advance(task)
            yield result


def run_in_order(
    work: Callable[[int], F], crashed: Callable[[str], F], count: int, loaders: int | None, title: str, show: bool
) -> list[F]:
    """Return `work(i)` for each i in `range(count)`, as `run_all` does; of a Crash, `crashed` of what it says."""
    found: dict[int, F] = {}
    for i, one in run_all(work, count, loaders, title, show):
        found[i] = crashed(one.what) if isinstance(one, Crash) else one
    return [found[i] for i in range(count)]


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_here(work: Callable[[int], Any], count: int) -> Iterator[tuple[int, Any]]:
    for i in range(count):
        yield i, work(i)


class _Loader:
    """One process, and the items it has been given and not yet answered."""

    def __init__(self, context: Any, work: Callable[[int], Any]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.left: deque[int] = deque()

    def give(self, items: range) -> None:
        self.left.extend(items)
        self.pipe.send(items)

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(work: Callable[[int], Any], pipe: Connection) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    torch.set_num_threads(1)
    while True:
        try:
            items = pipe.recv()
        except EOFError:
            return
        for i in items:
            try:
                pipe.send((True, work(i)))
            except BrokenPipeError:
                return
            except Exception as error:
                pipe.send((False, error))


def _run_processes(work: Callable[[int], Any], count: int, number: int) -> Iterator[tuple[int, Any]]:
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in kinds and os.name == "posix" else None)
    chunks = deque(range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))
    loaders: list[_Loader] = []
    try:
        for _ in range(min(number, len(chunks))):
            loaders.append(_Loader(context, work))
            loaders[-1].give(chunks.popleft())
        while loaders:
            ready = wait([loader.pipe for loader in loaders])
            for loader in [w for w in loaders if w.pipe in ready]:
                try:
                    done, result = loader.pipe.recv()
                except (EOFError, ConnectionResetError):
                    loaders.remove(loader)
                    yield _crashed(loader)
                    if rest := [range(i, i + 1) for i in loader.left]:
                        chunks.extendleft(reversed(rest))
                    if chunks:
                        loaders.append(_Loader(context, work))
                        loaders[-1].give(chunks.popleft())
                    continue
                if not done:
                    raise result
                yield loader.left.popleft(), result
                if not loader.left:
                    if chunks:
                        loader.give(chunks.popleft())
                    else:
                        loaders.remove(loader)
                        loader.end()
    finally:
        for loader in loaders:
            loader.end()


def _crashed(loader: _Loader) -> tuple[int, Crash]:
    loader.process.join()
    code = loader.process.exitcode or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    loader.pipe.close()
    if name in ("SIGKILL", "SIGTERM"):
        raise DataError(
            f"a process that decodes files was ended from outside ({name}); with SIGKILL it is mostly memory that "
            "ran out: use fewer loaders"
        )
    return loader.left.popleft(), Crash(f"the decoder crashed on it ({name})")
