"""Workers on this machine: processes that a launcher starts, watches, and ends together."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config import Launch
from .outcome import WorkersStopped, outcome
from .worker import Ending, Job, Place

GRACE = 10.0  # seconds that the others have to end by themselves after one failed


def run(job: Job, launch: Launch, place: Place) -> Any:
    """Run the job on the launch's workers, as `run_local` does."""
    return run_local(job, launch.most, place.logs, place.cores)


def run_local(job: Job, workers: int, logs: Path, cores: int) -> Any:
    """Run the job on `workers` processes that share `cores` of this machine; return what the leading one gives back.

    The leading process writes to this terminal, the others to files in `logs`. Raises EngineError for what a worker
    calls the user's mistake, WorkerFailed for any other error (the one that came first, not what followed from it), and
    WorkersStopped where a signal that was passed on ended them before the job could answer it.
    """
    from torch._C._distributed_c10d import TCPStore

    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as held:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        processes = []
        for rank in range(workers):
            log = held.enter_context((logs / f"worker-{rank}.log").open("w", encoding="utf-8")) if rank else None
            command = [sys.executable, "-m", f"{__package__}.worker", scratch]
            env = _environment(rank, workers, store.port, cores)
            processes.append(
                subprocess.Popen(
                    command, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                )
            )
        with _forwarding(processes) as passed:
            killed = _wait(processes)
        unheard = {-p.returncode for p in processes} & set(passed)
        endings = [_ending(folder, rank, process, killed) for rank, process in enumerate(processes)]
    endings = [replace(e, log=str(logs / f"worker-{e.rank}.log") if e.rank else "") for e in endings]
    if unheard and all(e.lost or not (e.error and e.traceback) for e in endings):
        raise WorkersStopped(unheard.pop())
    return outcome(endings, failed=any(e.error for e in endings))


def _environment(rank: int, workers: int, port: int, cores: int) -> dict[str, str]:
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return {
        **os.environ,
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback,
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
        "TRUNKLINE_CORES": str(max(1, cores // workers)),
    }  # fmt: skip


def _wait(processes: list[subprocess.Popen]) -> set[int]:
    """Wait until all have ended; kill those that still run GRACE seconds after one failed. Return their ranks."""
    failed_at, killed = None, set()
    while any(p.poll() is None for p in processes):
        if failed_at is None and any(p.poll() for p in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            for rank, process in enumerate(processes):
                if process.poll() is None:
                    killed.add(rank)
                    process.kill()
        time.sleep(0.05)
    return killed


def _ending(folder: Path, rank: int, process: subprocess.Popen, killed: set[int]) -> Ending:
    """Read what the worker said of its end, or tell what can be seen of it."""
    from ..workers import where

    file = folder / f"ending-{rank}.json"
    if file.is_file():
        return Ending(**json.loads(file.read_text(encoding="utf-8")))
    code = process.returncode
    how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exited with code {code}"
    advice = "; mostly memory ran out" if code == -signal.SIGKILL else ""
    error = f"{how}{advice}. What was saved stays; the same command goes on from there"
    return Ending(rank, where(), process.pid, time.time(), error=error, lost=rank in killed)


@contextmanager
def _forwarding(processes: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Pass SIGTERM and Ctrl-C on to the workers, which save and end; a second Ctrl-C ends them at once.

    Yields the list of the signals that were passed on.
    """
    passed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield passed
        return

    def forward(signum: int, frame: Any) -> None:
        passed.append(signum)
        for p in processes:
            if p.poll() is None:
                p.send_signal(signal.SIGKILL if passed.count(signal.SIGINT) > 1 else signum)

    before = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield passed
        if passed.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for p in processes:
            if p.poll() is None:
                p.kill()
            if p.stdin:
                p.stdin.close()
