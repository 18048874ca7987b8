"""Predictions that are files of their own."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ...tasks.predicted import Predicted
from .predictions import Predictions


class NamedOutput:
    """A folder in which each input file gets a file of its own; predictions.jsonl has a line for each that was written.

    What is there is left as it is. A file appears whole or not at all.
    """

    def __init__(self, folder: Path, wanted: Mapping[Path, Path]):
        self.folder, self.wanted = folder, wanted
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "predictions.jsonl").open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RecipeError(f"out={folder}: cannot be written ({error.strerror}); choose another folder") from None
        self.first = Predictions()

    def add(self, p: Predicted, keep: int) -> None:
        """Write a prediction's file and its line; keep the first `keep` for the sheet."""
        line: dict[str, Any] = p.kept()
        if not p.error:
            target = self.wanted[Path(p.file)]
            _write_new(target, p.file_content())
            line["made"] = target.relative_to(self.folder).as_posix()
            if len(self.first) < keep:
                self.first.append(p)
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.flush()

    def close(self) -> None:
        """Close the lines, and draw the sheet of the first pictures."""
        self._lines.close()
        if self.first:
            self.first.sheet().save(self.folder / "sheet.png")


def _write_new(target: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RecipeError(f"{target}: cannot be written ({error.strerror})") from None
