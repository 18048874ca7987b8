"""What becomes of a group of workers: a result, or an error with the first cause, its place and its log."""

import signal
from typing import Any

from trunkline.ground.errors import EngineError

from .worker import Ending, first_cause


class WorkerFailed(RuntimeError):
    """A worker ended with an error that is not the user's mistake; the message has its cause, place and log."""

    ours = True  # something of ours raised it


class WorkerDied(WorkerFailed):
    """A worker was ended from outside: killed, out of memory, its node gone."""

    ours = False


class WorkersStopped(Exception):
    """The workers were asked to end before they listened for it; `signum` says by what."""

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


def outcome(endings: list[Ending], failed: bool, died: str = "") -> Any:
    """Return what the leading worker gave back, or raise the first cause as an error with its place and log.

    `failed` says whether the launcher saw the group fail, `died` what it saw of workers that said nothing of their end.
    """
    cause = first_cause(endings)
    if cause and cause.mistake:
        raise EngineError(cause.error)
    results = [e.result for e in endings if not e.error and e.rank == 0]
    if results and not failed:
        return results[0]
    if cause and not cause.lost:
        log = f"; its log: {cause.log}" if cause.log else ""
        kind = WorkerFailed if cause.traceback else WorkerDied
        place = f"worker {cause.rank} on {cause.node} (process {cause.pid})"
        raise kind(f"{place}: {cause.error}{log}\n{cause.traceback}".rstrip())
    seen = died or (cause.error if cause else "the workers ended without a word")  # nobody failed: one hung, or is gone
    raise WorkerDied(f"{seen}. What was saved stays; the same command goes on from there")
