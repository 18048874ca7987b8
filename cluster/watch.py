"""Whether the other workers of a group still do anything: what ends a wait that has no end of its own.

What one worker does while the others wait may take hours (reading a data set, an evaluation), so that no clock says whether
it hangs. Each worker says every second how much time its thread has computed so far; one whose figure stands still for as
long as the group's patience is silent.
"""

import os
import socket
import threading
import time
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import PrefixStore, TCPStore


class Watch:
    """Beats of this worker and of all others, over the store by which the group found together.

    rank, size  of this worker, of the group
    patience    seconds without any computing after which a worker counts as silent
    """

    def __init__(self, rank: int, size: int, patience: float):
        self.rank, self.size, self.patience = rank, size, patience
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        connection = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=60))
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store: Any = PrefixStore(f"watch-{again}", connection)
        self._apart = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # the store is not the leading worker's
        self._clock = _clock()
        self._hosts: list[str] = []
        start = time.monotonic()
        self._beats = [b""] * size
        self._process, self._thread = [start] * size, [start] * size
        self._round, self._number = start, 0
        self._ended = threading.Event()
        self._store.set(f"host-{rank}", socket.gethostname())
        self._store.set(f"beat-{rank}", self._beat())

    def start(self) -> None:
        """Begin to beat, when all workers are made."""
        self._hosts = [h.decode() for h in self._store.multi_get([f"host-{r}" for r in range(self.size)])]
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Stop beating."""
        self._ended.set()

    def silent(self) -> list[str]:
        """List the workers, with their machines, that have computed nothing for longer than the patience; mostly empty.

        Where the store itself does not answer, this is the leading worker if it holds the store, else nobody.
        """
        now = time.monotonic()
        if now - self._round > self.patience:  # the store itself does not answer
            return [] if self._apart or self.rank == 0 else [self._name(0)]
        return [self._name(r) for r, at in enumerate(self._thread) if r != self.rank and now - at > self.patience]

    def gone(self) -> list[str]:
        """List the workers whose process has said nothing for some seconds: stopped, or without any time to compute."""
        now = time.monotonic()
        return [self._name(r) for r, at in enumerate(self._process) if r != self.rank and now - at > 5 * self._period]

    @property
    def _period(self) -> float:
        return min(1.0, self.patience / 4)

    def _name(self, rank: int) -> str:
        return f"worker {rank} on {self._hosts[rank]}"

    def _beat(self) -> str:
        self._number += 1
        return f"{self._number} {time.clock_gettime_ns(self._clock) if self._clock is not None else self._number}"

    def _run(self) -> None:
        keys = [f"beat-{r}" for r in range(self.size)]
        while not self._ended.wait(self._period):
            try:
                self._store.set(keys[self.rank], self._beat())
                found = self._store.multi_get(keys)
            except RuntimeError:  # the store is gone, and with it the group
                return
            self._round = now = time.monotonic()
            for rank, (before, beat) in enumerate(zip(self._beats, found, strict=True)):
                if before != beat:
                    self._process[rank] = now
                if before.partition(b" ")[2] != beat.partition(b" ")[2]:
                    self._thread[rank] = now
            self._beats = found


def _clock() -> int | None:
    """Find the clock of what this thread computes; None where the system has none: then a process that lives is enough."""
    try:
        return time.pthread_getcpuclockid(threading.get_ident())
    except (AttributeError, OSError):
        return None
