"""Processes that decode, and how they end."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trunkline.ground.errors import DataError, EngineError

from ...heads.contract import Batch
from .draws import Drawing
from .plan import At

Wanted = tuple[str, list[At]]
"""A batch to be made: whose, and of which samples."""


class _Named(Dataset):
    """The draws of several tasks behind one loader; its processes hold no epoch and no generator of their own."""

    def __init__(self, draws: Mapping[str, Drawing]):
        self.draws = draws

    def __getitems__(self, wanted: Wanted) -> Any:
        task, at = wanted
        try:
            return self.draws[task].batch(at)
        except DataError as error:  # handed over as a value: torch would wrap it in a loader's traceback
            return error


def loaded(draws: Mapping[str, Drawing], lists: Any, loaders: int, pin: bool) -> Iterator[Batch]:
    """Decode the batches of `lists`, in their order, in `loaders` processes (0: in this one).

    With `pin` their tensors are in pinned memory. Raises DataError for a sample that cannot be read, EngineError where a
    process is killed while it hands over a batch.
    """
    loader = DataLoader(
        _Named(draws), batch_sampler=lists, collate_fn=_same, num_workers=loaders, pin_memory=pin,
        prefetch_factor=4 if loaders else None, multiprocessing_context="fork" if loaders and _can_fork() else None,
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
        raise _killed(error, loaders) from None
    finally:  # at once: as long as torch knows of a killed process, every signal of a child raises wherever this process is
        if loaders:
            batches._shutdown_workers()


@contextlib.contextmanager
def decoding(loaders: int) -> Iterator[None]:
    """Raise EngineError where a process that decodes is killed while this context lasts.

    torch raises RuntimeError from a signal handler, so it may come anywhere in the main process: in an update, in a save.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise _killed(error, loaders) from None


def _killed(error: Exception, loaders: int) -> EngineError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return EngineError(
        f"a process that decodes was killed ({first}); mostly memory ran out: set machine.loaders={max(0, loaders // 2)}"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Block SIGTERM until this context ends; processes that begin in it have it blocked from the start, in every thread.

    torch starts threads in a new process before it calls `_leave_signals`. Unblocked, they would take the signal, and the
    process would die of it.
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
    """Ignore Ctrl-C, and end at SIGTERM only where the main process sends it.

    A scheduler sends these signals to the whole group, and the main process saves first.
    """
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
