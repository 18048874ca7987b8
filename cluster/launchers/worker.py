"""One worker: joins its group, calls a function that is named by a dotted path, and says how that ended."""

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError

from ..workers import LostWorker, Workers, join, leave, where


@dataclass(frozen=True)
class Job:
    """What a worker is to do: `call` (`module:function`) with `args`, which are JSON, and its group."""

    call: str
    args: dict[str, Any]
    timeout: float = 600.0


Event = dict[str, Any]
"""What a worker tells people: `kind` is bar or note (trunkline/ground/progress.py), start or ending."""


@dataclass(frozen=True)
class Place:
    """Where a launcher works.

    logs     this machine's folder for what workers say
    storage  a folder or an address for the same, as all machines see it
    cores    how many this machine has for its workers
    show     is called with each event that people are to see
    """

    logs: Path
    storage: str
    cores: int
    show: Callable[[Event], None]


@dataclass(frozen=True)
class Ending:
    """How one worker ended: a result, or an error with the place where to look."""

    rank: int
    node: str
    pid: int
    time: float
    result: Any = None
    error: str = ""
    mistake: bool = False  # the user's: starting again would fail the same way
    lost: bool = False  # follows from another worker's error
    traceback: str = ""
    log: str = ""  # the file that holds what the worker said


def perform(job: Job, attend: Callable[[Workers], Any] = bool) -> Ending:
    """Do the job in the group that the environment names, and return how it ended; raises nothing but exits.

    `attend` is given the group before the work begins.
    """
    rank, error = int(os.environ.get("RANK", "0")), {}
    result = None
    try:
        module, name = job.call.split(":")
        call: Callable[..., Any] = getattr(importlib.import_module(module), name)
        workers = join(job.timeout)
        attend(workers)
        result = call(job.args, workers)
        workers.close()
    except Exception as failure:
        error = {"error": str(failure), "mistake": isinstance(failure, EngineError), "lost": isinstance(failure, LostWorker),
                 "traceback": "".join(traceback.format_exception(failure))}  # fmt: skip
        if not error["mistake"] and not error["lost"]:
            error["error"] = f"{type(failure).__name__}: {failure}"
    if not error:
        leave()  # after an error the others may hang: the process just ends
    return Ending(rank, where(), os.getpid(), time.time(), result, **error)


def first_cause(endings: list[Ending]) -> Ending | None:
    """Find the first error, before all that follow from another worker's error; None where there is no error."""
    failed = sorted((e for e in endings if e.error), key=lambda e: (e.lost, e.time))
    return failed[0] if failed else None


def main(folder: Path) -> None:
    """Run a worker process of the local launcher: the job and its ending are files in the launcher's folder."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the job listens for it: no traceback
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    ending = perform(Job(**json.loads((folder / "job.json").read_text(encoding="utf-8"))))
    beside = folder / f".ending-{ending.rank}.tmp"
    beside.write_text(json.dumps(asdict(ending)), encoding="utf-8")
    beside.replace(folder / f"ending-{ending.rank}.json")
    if ending.traceback and ending.rank:  # into its log; the launcher tells the leading one's
        print(ending.traceback, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if ending.error else 0)  # threads of a broken group would keep the process


def _end_with_launcher() -> None:
    """End this process when the launcher is gone, which holds the other end of stdin."""
    while os.read(0, 4096):  # the descriptor: a process forked meanwhile would wait for the lock of sys.stdin's buffer
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
