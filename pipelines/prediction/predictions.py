"""What `predict` gives: objects that show themselves, and files that a stopped prediction goes on with."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.images.drawing import contact_sheet
from ...tasks.predicted import Predicted
from ..show import note
from .picture_names import drawn_name

SHEET = 48  # pictures on a contact sheet
COLUMNS, WIDTH = 6, 200  # of a sheet; pixels of a column
SETTINGS, WEIGHTS = "settings.json", "weights"  # the file, and what in it is a digest
_SHOWN = 200  # letters of a setting in a message
_BESIDE = f".{SETTINGS}.part"


class Predictions(list[Predicted]):
    """A list that a notebook shows as a contact sheet."""

    def sheet(self, most: int = SHEET) -> Any:
        """Draw a contact sheet of the first `most` pictures that could be read."""
        shown = [p for p in self if not p.error][:most]
        across = shown[0].across if shown else 1
        return contact_sheet(cells_of(shown), columns=COLUMNS // across, width=WIDTH * across)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG")
        return buffer.getvalue()


def cells_of(found: Iterable[Predicted]) -> list[tuple[Any, str | list[str]]]:
    """Draw the cells of a contact sheet; a line says which files cannot be read any more, and have none."""
    cells = []
    for p in found:
        try:
            cells.append((p.small(), p.below()))
        except DataError as error:
            note(f"{error}; it has no place on the contact sheet")
    return cells


def _as_read(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back: tuples become lists."""
    return json.loads(json.dumps(settings, default=str))


def begin(folder: Path, settings: dict[str, Any], key: str = "out") -> None:
    """Write the settings of a prediction, whole or not at all.

    `key` is the setting that names the folder. Raises RecipeError where those of another one or damaged ones are there,
    OSError where it cannot.
    """
    there, settings = folder / SETTINGS, _as_read(settings)
    if there.is_file():
        now, before = _flat(settings), _flat(_stored(there))
        keys = [k for k in {**now, **before} if now.get(k) != before.get(k) and k != WEIGHTS]
        wrong = [f"{k}={_short(now.get(k))} now, {_short(before.get(k))} there" for k in keys]
        if now.get(WEIGHTS) != before.get(WEIGHTS):
            wrong.insert(0, f"the weights of {now.get('source')} are others than those that made what is there")
        if wrong:
            raise RecipeError(
                f"{key}={folder}: holds a prediction that was begun with other settings ({'; '.join(wrong)}); give those "
                "again to go on with it, or choose another folder"
            )
        return
    beside = folder / _BESIDE
    beside.write_text(json.dumps(settings), encoding="utf-8")
    beside.replace(there)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings and those within them, by their own names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found


def _short(value: Any) -> str:
    """Return a setting as people write it."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _stored(file: Path) -> dict[str, Any]:
    """Read the settings of a prediction. Raises RecipeError where the file is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RecipeError(
            f"{file}: is damaged, so nothing says how what lies there was made; delete the folder, or choose another out="
        )
    return found


class Output:
    """A folder for predictions.jsonl, predictions.csv and sheet.png, in which an interrupted prediction can go on.

    `settings` decide the predictions; until the end they are kept in `settings.json`. `done` counts the lines that are
    there already. Raises RecipeError where the folder holds something else, or a prediction begun with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], kind: type[Predicted], pictures: bool = False):
        self.folder, self.kind, self.pictures, self.done = folder, kind, pictures, 0
        self._note = folder / SETTINGS
        held = folder.exists() and (not folder.is_dir() or any(f.name != _BESIDE for f in folder.iterdir()))
        if held and not self._note.is_file():
            raise RecipeError(f"out={folder}: is there already and not empty; choose another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            begin(folder, settings)
        except OSError as error:
            raise RecipeError(f"out={folder}: cannot be written ({error.strerror}); choose another folder") from None
        self._lines = (folder / "predictions.jsonl").open("a+b")
        self._keep_whole_lines()
        self._table = (folder / "predictions.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._csv = csv.writer(self._table)
        self._csv.writerow(["file", *kind.columns, "error"])
        self._first, self.drawn = Predictions(), False
        for p in self.lines():
            self._row(p)

    def _keep_whole_lines(self) -> None:
        self._lines.seek(0)
        end = 0
        for line in self._lines:
            if not line.endswith(b"\n"):
                break
            end, self.done = end + len(line), self.done + 1
        self._lines.truncate(end)
        self._lines.seek(0, os.SEEK_END)

    def lines(self) -> Iterator[Predicted]:
        """Read back the predictions that are already written, one after the other."""
        self._lines.flush()
        with (self.folder / "predictions.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield self.kind.from_line(json.loads(line))

    def add(self, p: Predicted) -> None:
        """Write one more prediction, at once, with the files that belong to it; with `pictures`, draw it too."""
        name = drawn_name(f"{self.done:06d}-{Path(p.file).stem}.png")
        for kind, content in ({} if p.error else p.files()).items():
            (self.folder / kind).mkdir(exist_ok=True)
            (self.folder / kind / name).write_bytes(content)
        if self.pictures and not p.error:
            (self.folder / "pictures").mkdir(exist_ok=True)
            drawn = self.folder / "pictures" / name
            try:
                p.image().save(drawn)
                p.write_clip(drawn.with_suffix(".mp4"))
            except DataError as error:  # what was predicted stays
                note(f"{error}; it is not drawn")
        self._lines.write((json.dumps(p.line(), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
        self._lines.flush()
        self.done += 1
        self._row(p)

    def _row(self, p: Predicted) -> None:
        self._csv.writerow([p.file, *([""] * len(p.columns) if p.error else p.row()), p.error or ""])
        if len(self._first) < SHEET and not p.error:
            self._first.append(p)

    def close(self, whole: bool) -> None:
        """Close the files. If all predictions are in (`whole`), remove `settings.json`, and draw the sheet (`drawn`) of any.

        If there are none, remove the files, and the folder where it is then empty.
        """
        self._lines.close()
        self._table.close()
        if not whole and not self.done:  # nothing to go on with
            for name in ("predictions.jsonl", "predictions.csv", SETTINGS):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        if whole:
            self.drawn = bool(self._first)
            if self.drawn:
                self._first.sheet().save(self.folder / "sheet.png")
            self._note.unlink()
