"""Predictions that are files of their own."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ...tasks.images.drawing import contact_sheet
from ...tasks.predicted import Predicted
from .predictions import COLUMNS, SETTINGS, SHEET, begin


class NamedOutput:
    """A folder in which each input file of a `plan` (`(input, file)`, in order) gets a file of its own.

    `predictions.jsonl` has a line for each that was written, and `sheet.png` the first of them. What is there is left as it is;
    `wanted` are the files that are not. A file appears whole or not at all, and a prediction that was killed goes on to the same
    files, lines and sheet. `settings` decide the pictures; they stay in settings.json. Raises RecipeError where that has others,
    or the folder cannot be written.
    """

    def __init__(self, folder: Path, plan: list[tuple[Path, Path]], kind: type[Predicted], settings: dict[str, Any]):
        self.folder, self.plan, self.kind, self._empty = folder, plan, kind, not (folder / SETTINGS).exists()
        self.wanted = {picture: file for picture, file in plan if not (file.exists() or file.is_symlink())}
        self._file = folder / "predictions.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            begin(folder, settings)
            self._written = self._kept()
            self._rewrite()
            self._lines = self._file.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RecipeError(f"out={folder}: cannot be written ({error.strerror}); choose another folder") from None

    def _kept(self) -> list[dict[str, Any]]:
        """Read the lines of what is there; a killed prediction may have left half a line, or one without its file."""
        again, lines = {str(picture) for picture in self.wanted}, []
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        for each in text.split("\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line
                line = json.loads(each)
                if (self.folder / line["made"]).exists() if "made" in line else line["file"] not in again:
                    lines.append(line)
        return lines

    def _rewrite(self) -> None:
        """Put the lines in the plan's order, behind those of other predictions."""
        place = {path: n for n, paths in enumerate(self.plan) for path in paths}
        self._written.sort(
            key=lambda line: place.get(self.folder / line["made"] if "made" in line else Path(line["file"]), -1)
        )
        beside = self._file.with_name(f".{self._file.name}.part")
        beside.write_text("".join(map(_text, self._written)), encoding="utf-8", errors="backslashreplace")
        beside.replace(self._file)

    def add(self, p: Predicted) -> None:
        """Write a prediction's file and its line."""
        if p.error:
            self._note(p.kept())
            return
        target = self.wanted[Path(p.file)]
        beside = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(p.file_content())
            # the line first: where the file is then not there, `_kept` drops it
            self._note({**p.kept(), "made": target.relative_to(self.folder).as_posix()})
            beside.replace(target)
            self._empty = False
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise RecipeError(f"{target}: cannot be written ({error.strerror})") from None

    def _note(self, line: dict[str, Any]) -> None:
        self._written.append(line)
        self._lines.write(_text(line))
        self._lines.flush()

    def close(self) -> None:
        """Order the lines, and draw the sheet of the first pictures. Where none was ever made, other settings may follow."""
        sheet = self.folder / "sheet.png"
        try:
            self._lines.close()
            self._rewrite()
            if self._empty:
                (self.folder / SETTINGS).unlink(missing_ok=True)
            if (self.wanted or not sheet.exists()) and (cells := [(p.small(), p.caption()) for p in self._first()]):
                contact_sheet(cells, columns=COLUMNS).save(sheet)
        except OSError as error:
            raise RecipeError(f"out={self.folder}: cannot be written ({error.strerror})") from None

    def _first(self) -> Iterator[Predicted]:
        made = {self.folder / line["made"]: line for line in self._written if "made" in line}
        for picture, file in [(p, f) for p, f in self.plan if f in made and f.exists()][:SHEET]:
            yield self.kind.from_kept({**made[file], "file": str(picture)}, file.read_bytes())


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
