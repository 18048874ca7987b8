"""Checkpoints: folders that are whole or not there. Written beside, synced, renamed; nothing is ever unpickled."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from trunkline.ground.errors import EngineError

LAST, BEST = "last", "best"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, from contiguous copies that share no memory."""
    safetensors.torch.save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, str(path))
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises EngineError with the file's name where it is missing or damaged."""
    try:
        return safetensors.torch.load_file(str(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise EngineError(
            f"{path}: cannot be read as safetensors ({error}); remove its folder to go on from an earlier one"
        ) from None


@dataclass(frozen=True)
class Parts:
    """What of a model is new since a checkpoint was written, and what is gone: prefixes of tensors' names."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def is_new(self, name: str) -> bool:
        """Say whether a tensor is of a new part."""
        return name.startswith(self.new) if self.new else False

    def is_gone(self, name: str) -> bool:
        """Say whether a saved tensor is of a part that is gone."""
        return name.startswith(self.gone) if self.gone else False

    def fitted(self, saved: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out of saved tensors what is gone, and add the model's own for what is new."""
        return {name: tensor for name, tensor in saved.items() if not self.is_gone(name)} | own


SAME = Parts()
"""The parts of a model that is as it was."""


def check_tensors(folder: Path, own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Raise EngineError, with the first differences, where saved tensors have other names or shapes than this model's."""
    wrong = [f"{n} {tuple(own[n].shape)} here, {tuple(saved[n].shape)} there" for n in own.keys() & saved.keys()
             if own[n].shape != saved[n].shape]  # fmt: skip
    wrong += [f"{n} is not in the checkpoint" for n in own.keys() - saved.keys()]
    wrong += [f"{n} is not in this model" for n in saved.keys() - own.keys()]
    if wrong:
        raise EngineError(
            f"{folder} holds another model: {'; '.join(sorted(wrong)[:4])} ({len(wrong)} differences in all)"
        )


def write_text(path: Path, text: str) -> None:
    """Replace a small file as one step: another process, or a crash, sees the old text or the new."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync(path.parent)


def write_checkpoint(root: Path, name: str, fill: Callable[[Path], dict[str, Any]]) -> Path:
    """Write `root/name`: the files that `fill(folder)` writes, and what it returns as `state.json`. Let `last` name it.

    A crash at any moment leaves either no new checkpoint or a whole one, and the one before untouched. Raises
    EngineError where the storage is full or refuses, after removing what was half written.
    """
    beside, final = root / f".{name}.tmp", root / name
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        state = fill(beside)
        (beside / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for file in beside.rglob("*"):
            _sync(file)
        _sync(beside)
        if final.exists():  # the same update once more, after an evaluation or on a request to stop
            shutil.rmtree(root / f".{name}.old", ignore_errors=True)
            final.rename(root / f".{name}.old")
        beside.rename(final)
        _sync(root)
        shutil.rmtree(root / f".{name}.old", ignore_errors=True)
        write_text(root / LAST, name)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        kept = name_of(root, LAST)
        free = shutil.disk_usage(root).free // 2**20 if root.exists() else 0
        raise EngineError(
            f"the checkpoint {final} could not be written: {error} ({free} MiB free there). "
            + (f"The last good one is {root / kept}; " if kept else "There is none before it; ")
            + "make room and run the same command again to go on"
        ) from None
    return final


def name_of(root: Path, pointer: str) -> str | None:
    """Read which checkpoint the file `last` or `best` names; None where it is not there or not whole."""
    try:
        name = (root / pointer).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return name if name and Path(name).name == name and (root / name / "state.json").is_file() else None


def find(root: Path) -> str | None:
    """Find the checkpoint to go on from: the one that `last` names, else the newest whole one, else None.

    A checkpoint whose replacement was cut off is put back first.
    """
    _restore(root)
    return name_of(root, LAST) or max((p.name for p in _whole(root)), key=int, default=None)


def prune(root: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and those that `last` and `best` name; remove what crashes left."""
    spare = {name_of(root, LAST), name_of(root, BEST)}
    newest = sorted(_whole(root), key=lambda p: int(p.name), reverse=True)
    for folder in [p for p in newest[max(1, keep) :] if p.name not in spare] + _broken(root):
        folder.rename(root / f".{folder.name}.tmp")  # so that a crash during the removal leaves no half checkpoint
    for folder in [*root.glob(".*.tmp"), *root.glob(".*.old")]:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def read_state(folder: Path, *needed: str) -> dict[str, Any]:
    """Read the plain part of a checkpoint. Raises EngineError where it is missing, damaged, or lacks what is needed."""
    file = folder / "state.json"
    advice = "remove its folder to go on from an earlier one"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{file}: cannot be read ({error}); {advice}") from None
    lacking = [name for name in needed if not isinstance(state, dict) or name not in state]
    if lacking:
        raise EngineError(f"{file}: is no checkpoint's state ({', '.join(lacking)} missing); {advice}")
    return state


def _whole(root: Path) -> list[Path]:
    return (
        [p for p in root.glob("[0-9]*") if p.name.isdigit() and (p / "state.json").is_file()] if root.is_dir() else []
    )


def _broken(root: Path) -> list[Path]:
    """List folders of checkpoints that lack their state: what is left of a removal that was cut off."""
    return [p for p in root.glob("[0-9]*") if p.is_dir() and p.name.isdigit() and not (p / "state.json").is_file()]


def _restore(root: Path) -> None:
    """Put back a checkpoint whose replacement was cut off between its two renames."""
    for old in root.glob(".*.old") if root.is_dir() else ():
        final = root / old.name[1:].removesuffix(".old")
        if not final.exists():
            old.rename(final)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync a folder: the rename is still one step there
        if not path.is_dir():
            raise error
    finally:
        os.close(descriptor)
