"""Files that a command is asked to write."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home


def new_file(out: str | Path, suffix: str = "", key: str = "out") -> Path:
    """Check that a new file can be written, make its folder, and return its path.

    Raises RecipeError where something stands there already, it cannot be written, or its name does not end in `suffix`.
    """
    path = Path(at_home(out))
    if suffix and path.suffix != suffix:
        raise RecipeError(f"{key}={out}: expected a name that ends in {suffix}")
    if path.exists() or path.is_symlink():
        raise RecipeError(
            f"{key}={out}: is there already; nothing is written over: choose another name, or remove it first"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # what cannot be written is told before the work
        path.unlink()
    except OSError as error:
        raise RecipeError(f"{key}={out}: cannot be written ({error.strerror}); choose another place") from None
    return path


def new_folder(path: str | Path, key: str) -> Path:
    """Check that a new folder can be made and return its path. Raises RecipeError where it cannot, or exists already."""
    folder = Path(at_home(path))
    if folder.exists() or folder.is_symlink():
        raise RecipeError(
            f"{key}={path}: is there already; nothing is written over: choose another name, or remove it first"
        )
    try:
        folder.mkdir(parents=True)  # what cannot be written is told before the work
        folder.rmdir()
    except OSError as error:
        raise RecipeError(f"{key}={path}: cannot be written ({error.strerror}); choose another place") from None
    return folder


def write_folder(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write a new folder with these files, by their names below it; it appears once all of them are written."""
    beside = folder.with_name(f".{folder.name}.part")  # may be left by a process that was killed
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, content in files.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        (beside / name).write_bytes(content.encode() if isinstance(content, str) else content)
    beside.rename(folder)


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON line for each sample's record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
