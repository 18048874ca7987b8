"""Predictions that are files of their own."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.images.drawing import contact_sheet
from ...tasks.predicted import Predicted
from ...tasks.super_resolution.files import part_of
from ..show import note
from .predictions import COLUMNS, SETTINGS, SHEET, begin, cells_of

LINES, SHEET_FILE, DRAWN = "predictions.jsonl", "sheet.png", "pictures"
OWN = {
    LINES: "stands a line for each picture",
    SETTINGS: "stands how the pictures were made",
    SHEET_FILE: "the contact sheet is drawn",
    DRAWN: "lies what pictures=true draws",
}
"""The names in its folder that no picture can have, in words that follow `and there`."""
_LISTED = 20


class NamedOutput:
    """A folder in which each input file of a `plan` (`(input, file)`, in order) gets a file of its own.

    `predictions.jsonl` has a line for each that was written, and `sheet.png` the first of them. A line's `source` is the input
    that a file was made of: its path from the root on, and the SHA-256 of its bytes. What is there is left as it is; `wanted` are
    the files that are not. A file appears whole or not at all, and a prediction that was killed goes on to the same files, lines
    and sheet. `settings` decide the pictures; they stay in settings.json. `made` and `failed` count what is added, `drawn` says
    whether `close` drew the sheet. Raises RecipeError where settings.json has others or is missing beside pictures, where a file
    is there that was not made here, of an input with other bytes, or is damaged, and where the folder cannot be written.
    """

    def __init__(self, folder: Path, plan: list[tuple[Path, Path]], kind: type[Predicted], settings: dict[str, Any]):
        self.folder, self.plan, self.kind, self._empty = folder, plan, kind, not (folder / SETTINGS).exists()
        self.wanted = {picture: file for picture, file in plan if not (file.exists() or file.is_symlink())}
        self.made, self.failed, self.drawn = 0, 0, False
        self._file = folder / LINES
        try:
            self._written = self._kept()
            self._check()
            folder.mkdir(parents=True, exist_ok=True)
            begin(folder, settings)
            self._rewrite()
            self._lines = self._file.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RecipeError(f"out={folder}: cannot be written ({error.strerror}); choose another folder") from None

    def _kept(self) -> list[dict[str, Any]]:
        """Read the lines of what is there; a killed prediction may have left half a line, or one without its file."""
        again, lines = {os.path.abspath(picture) for picture in self.wanted}, []  # noqa: PTH100 - a `..` goes too
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        for each in text.split("\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line
                line = json.loads(each)
                if (self.folder / line["made"]).exists() if "made" in line else _place(line) not in again:
                    lines.append(line)
        return lines

    def _check(self) -> None:
        """Raise RecipeError with the planned files that are there and are not what the planned pictures become."""
        lines = {line["made"]: line for line in self._written if "made" in line}
        if lines and self._empty:
            raise RecipeError(
                f"{self.folder / SETTINGS}: is missing, so nothing says how the pictures beside it were made; delete the folder, "
                "or choose another out="
            )
        there = [(picture, file) for picture, file in self.plan if picture not in self.wanted]
        found = [(f, self._wrong(p, f, lines.get(f.relative_to(self.folder).as_posix()))) for p, f in there]
        problems = [f"{file}: {wrong}" for file, wrong in found if wrong]
        if problems:
            more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
            raise RecipeError(problems[:_LISTED] + more)

    def _wrong(self, picture: Path, file: Path, line: dict[str, Any] | None) -> str:
        """Say why a file that is there is not what a picture becomes; "" where it is. `line` is the file's, if it has one."""
        elsewhere = "remove it, or choose another out="
        if line is None:
            return f"is there already, and no line of {LINES} says that it was made here; {elsewhere}"
        if not (source := line.get("source")):
            return f"was made by an earlier version, and its line in {LINES} does not say of which picture; {elsewhere}"
        if damage := self.kind.damage(file, line):
            return f"was made here before, and {damage}; {elsewhere}"
        now = _source(picture)
        if now.get("sha256") == source.get("sha256"):
            return ""
        if now["path"] != source["path"]:
            return f"was made of {source['path']}, and {picture}, another picture, would become it; choose another out="
        try:
            self.kind.from_kept({**line, "file": str(picture)}, file.read_bytes()).small()
        except DataError as error:  # it was whole before, and what was made of it then is still right
            note(f"{error}; {file}, which was made of it before, is left as it is")
            return ""
        return f"was made of {picture} before that picture changed; {elsewhere}"

    def _rewrite(self) -> None:
        """Put the lines in the plan's order, behind those of other predictions."""
        place = {os.path.abspath(path): n for n, paths in enumerate(self.plan) for path in paths}  # noqa: PTH100
        folder = os.path.abspath(self.folder)  # noqa: PTH100
        self._written.sort(
            key=lambda line: place.get(f"{folder}/{line['made']}" if "made" in line else _place(line), -1)
        )
        beside = self._file.with_name(f".{self._file.name}.part")
        beside.write_text("".join(map(_text, self._written)), encoding="utf-8", errors="backslashreplace")
        beside.replace(self._file)

    def add(self, p: Predicted) -> None:
        """Write a prediction's file and its line."""
        if p.error:
            self.failed += 1
            self._note({**p.kept(), "source": _source(Path(p.file))})
            return
        target = self.wanted[Path(p.file)]
        beside = part_of(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(p.file_content())
            # the line first: where the file is then not there, `_kept` drops it
            made = target.relative_to(self.folder).as_posix()
            self._note({**p.kept(), "made": made, "source": _source(Path(p.file))})
            beside.replace(target)
            self._empty = False
            self.made += 1
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise RecipeError(f"{target}: cannot be written ({error.strerror})") from None

    def _note(self, line: dict[str, Any]) -> None:
        self._written.append(line)
        self._lines.write(_text(line))
        self._lines.flush()

    def close(self) -> None:
        """Order the lines, and draw the sheet of the first pictures. Where none was ever made, other settings may follow."""
        sheet = self.folder / SHEET_FILE
        try:
            self._lines.close()
            self._rewrite()
            if self._empty:
                (self.folder / SETTINGS).unlink(missing_ok=True)
            if (self.wanted or not sheet.exists()) and (cells := cells_of(self._first())):
                contact_sheet(cells, columns=COLUMNS).save(sheet)
                self.drawn = True
        except OSError as error:
            raise RecipeError(f"out={self.folder}: cannot be written ({error.strerror})") from None

    def _first(self) -> Iterator[Predicted]:
        made = {self.folder / line["made"]: line for line in self._written if "made" in line}
        for picture, file in [(p, f) for p, f in self.plan if f in made and f.exists()][:SHEET]:
            yield self.kind.from_kept({**made[file], "file": str(picture)}, file.read_bytes())


def _source(picture: Path) -> dict[str, str]:
    """Return what marks an input: its path from the root on, and its digest where it is a file that can be read."""
    path = os.path.abspath(picture)  # noqa: PTH100
    if not picture.is_file():
        return {"path": path}
    try:
        with picture.open("rb") as file:
            return {"path": path, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError:
        return {"path": path}


def _place(line: dict[str, Any]) -> str:
    """Return the path of a line's input from the root on."""
    return os.path.abspath(line.get("source", line).get("path", line["file"]))  # noqa: PTH100


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
