"""Features over time as files: of each input a `.npy` with a row a step, and a JSON beside it that says when each was."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np

from trunkline.ground.errors import RecipeError

_LONGEST = 200  # bytes of an input's own name


def name_of(address: str) -> str:
    """Name an input's files: its own name without its end, and a mark of its path, as inputs of two folders may share a name."""
    path = os.path.abspath(address)  # noqa: PTH100 - a `..` goes too
    mark = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
    stem = os.fsencode(Path(path).name if Path(path).is_dir() else Path(path).stem)[:_LONGEST]
    return f"{stem.decode('utf-8', 'ignore')}-{mark}"


class Rows:
    """Writes the rows of one input as they come, so that none stays in memory; a context manager.

    Both files appear when it is finished, the JSON last. Raises RecipeError where the folder cannot be written.
    """

    def __init__(self, folder: str, address: str):
        self.folder, self.address, self.name = Path(folder), address, name_of(address)
        self._times: list[float] = []
        self._width = 0
        self._raw = self.folder / f".{self.name}.part"

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._raw.open("wb")
        except OSError as error:
            raise self._unwritten(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.unlink(missing_ok=True)

    def add(self, rows: np.ndarray, times: np.ndarray) -> None:
        """Add rows `(n, C)` float32 at `times` `(n,)` in seconds. One that is not later than the one before is left out."""
        self._width = rows.shape[1]
        for row, time in zip(np.ascontiguousarray(rows, np.float32), times.tolist(), strict=True):
            if self._times and time <= self._times[-1]:
                continue
            self._times.append(time)
            try:
                self._file.write(row.tobytes())
            except OSError as error:
                raise self._unwritten(error) from None

    def finish(self, about: dict[str, Any]) -> None:
        """Write both files. `about` is what the JSON says besides the input, its file of features and the times."""
        shape = (len(self._times), self._width)
        array, said = (self.folder / f"{self.name}{end}" for end in (".npy", ".json"))
        entry = {
            "file": self.address,
            "features": array.name,
            "shape": shape,
            **about,
            "times": [round(t, 6) for t in self._times],
        }
        try:
            self._file.close()
            beside = self.folder / f".{array.name}.part"
            with beside.open("wb") as out, self._raw.open("rb") as rows:
                np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
                shutil.copyfileobj(rows, out)
            beside.replace(array)
            beside = self.folder / f".{said.name}.part"
            beside.write_bytes(json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            beside.replace(said)
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> RecipeError:
        return RecipeError(f"features={self.folder}: cannot be written ({error.strerror}); choose another folder")
