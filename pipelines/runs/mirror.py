"""A run whose folder is at an address (`s3://…`): worked on in a folder of this process, and sent there.

Object stores replace single files as one step, and nothing else. So a checkpoint's `state.json` is sent last, and removed
first: without it the checkpoint does not exist.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from trunkline.ground import storage

LEAVE = ("logs/", "report.html", "predictions/", "tensorboard/")  # not needed to go on with a run
_STATE = "state.json"


class Mirror:
    """The address of a run, and the folder of this process that stands for it until the process ends."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self.folder = Path(tempfile.mkdtemp(prefix="trunkline-run-"))
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of each file that is the same there as here
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    def pull(self, leave: tuple[str, ...] = LEAVE) -> None:
        """Fetch all but what begins with `leave`: recipe, the data's manifests, features, and the checkpoints that are whole."""
        try:
            there = [e.name for e in storage.files_below(self.address)]
        except FileNotFoundError:
            return
        whole = {name.rpartition("/")[0] for name in there if name.endswith(f"/{_STATE}")}
        for name in there:
            folder = name.rpartition("/")[0]
            half = folder.startswith("checkpoints/") and folder not in whole
            if half or name.startswith(leave):
                continue
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f".{file.name}.tmp")
            beside.write_bytes(storage.read(storage.join(self.address, name)))
            beside.replace(file)
            self._sent[name] = _mark(file)

    def push(self) -> None:
        """Send what changed here, and remove there what is gone here; cut off at any moment, it leaves whole checkpoints."""
        here = {f.relative_to(self.folder).as_posix(): _mark(f) for f in self.folder.rglob("*") if f.is_file()}
        here = {name: mark for name, mark in here.items() if not any(p.startswith(".") for p in name.split("/"))}
        changed = sorted((n for n in here if self._sent.get(n) != here[n]), key=lambda n: (_turn(n), n))
        for state in {f"{n.rpartition('/')[0]}/{_STATE}" for n in changed if _turn(n) == 1} & self._sent.keys():
            self._remove(state)
            changed += [state] if state not in changed else []
        for name in sorted(changed, key=lambda n: (_turn(n), n)):
            storage.send(self.folder / name, storage.join(self.address, name))
            self._sent[name] = here[name]
        for name in sorted(self._sent.keys() - here.keys(), key=lambda n: (not n.endswith(_STATE), n)):
            self._remove(name)

    def _remove(self, name: str) -> None:
        storage.remove(storage.join(self.address, name))
        del self._sent[name]


def _turn(name: str) -> int:
    """Say when a file is sent: 0 most files, 1 a checkpoint's tensors, 2 its state, 3 what points at it."""
    if not name.startswith("checkpoints/"):
        return 0
    return 3 if name.count("/") == 1 else 2 if name.endswith(_STATE) else 1


def _mark(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
