"""Predictions for files, folders and globs."""

import csv
import glob
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..tasks.classification.draw import contact_sheet
from ..tasks.contract import DataError, Sample
from ..tasks.images import SUFFIXES, read_image
from .recipe import RecipeError
from .scoring import inference
from .show import bar, note
from .sources import Ready, ready


@dataclass
class Predicted:
    """What a model says of one file: its likeliest classes, best first, or why the file could not be read."""

    file: str
    label: str | None = None
    confidence: float = 0.0
    top: list[tuple[str, float]] = field(default_factory=list)
    error: str | None = None

    def line(self) -> dict[str, Any]:
        """As JSON."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {
            "file": self.file,
            "label": self.label,
            "confidence": self.confidence,
            "top": [list(t) for t in self.top],
        }

    def image(self) -> Any:
        """The picture with its likeliest classes below it."""
        return contact_sheet([_cell(self)], columns=1)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image().save(buffer, "PNG")
        return buffer.getvalue()


class Predictions(list[Predicted]):
    """A list that a notebook shows as a contact sheet."""

    def sheet(self, most: int = 48) -> Any:
        """A contact sheet of the first `most` pictures."""
        return contact_sheet([_cell(p) for p in self if not p.error][:most], columns=6)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG")
        return buffer.getvalue()


def predict(
    source: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    out: str | Path | None = None,
    checkpoint: str = "last",
    ema: bool | None = None,
    size: int | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    batch: int = 32,
    device: str = "auto",
    on_bad_sample: Literal["stop", "skip"] = "skip",
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
) -> Predictions:
    """Name the classes of pictures with a run's folder or a weights file.

    inputs         files, folders (searched for photos) and globs
    top            how many classes a picture
    out            a new folder for predictions.jsonl, predictions.csv and sheet.png
    on_bad_sample  skip: a file that cannot be read becomes a line with its error; stop: it ends the work
    """
    if top < 1 or batch < 1:
        raise RecipeError(f"top={top}, batch={batch}: expected numbers above 0")
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    files = expand(given)
    folder = Path(out) if out else None
    if folder and folder.exists() and any(folder.iterdir() if folder.is_dir() else [1]):
        raise RecipeError(f"out={out}: is there already and not empty; choose another folder")
    found = ready(
        source, checkpoint_name=checkpoint, averaged=ema, device=device, backbone=backbone, stride_in=stride_in,
        options={} if size is None else {"size": size},
    )  # fmt: skip
    result = Predictions()
    with _Writer(folder, top) as writer, bar("predict", len(files)) as advance:
        for predicted in _stream(found, files, top, precision, batch, on_bad_sample):
            result.append(predicted)
            writer.add(predicted)
            advance()
    if folder:
        result.sheet().save(folder / "sheet.png")
        note(f"wrote {folder}/predictions.jsonl, predictions.csv and sheet.png")
    return result


def expand(inputs: Iterable[str | Path]) -> list[Path]:
    """The files that inputs stand for, in order, each once. Raises RecipeError naming every input that finds nothing."""
    files: dict[Path, None] = {}
    wrong = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            own = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()
                   and not any(part.startswith(".") for part in p.relative_to(path).parts)]  # fmt: skip
        elif path.is_file():
            own = [path]
        else:
            own = [p for p in map(Path, sorted(glob.glob(str(given), recursive=True))) if p.is_file()]  # noqa: PTH207
        if not own:
            wrong.append(
                f"{given}: there is no such file, no photo in that folder, and nothing that this pattern matches"
            )
        files |= dict.fromkeys(own)
    if wrong or not files:
        raise RecipeError(wrong or "nothing to predict: give files, folders or globs")
    return list(files)


def _stream(found: Ready, files: list[Path], top: int, precision: str, batch: int, on_bad: str) -> Iterator[Predicted]:
    transform, classes = found.task.transform(False), found.task.facts["classes"]
    device = next(found.model.parameters()).device
    with inference(found.model, precision, device):
        for first in range(0, len(files), batch):
            group: list[Sample | Predicted] = []
            for file in files[first : first + batch]:
                try:
                    group.append(transform(Sample(str(file), file, read_image(file))))
                except DataError as error:
                    if on_bad == "stop":
                        raise
                    group.append(Predicted(str(file), error=str(error)))
            samples = [g for g in group if isinstance(g, Sample)]
            named: dict[str, Any] = {}
            if samples:
                named = {p.id: p for p in found.task.infer(found.model, found.task.collate(samples).to(device))}
            for g in group:
                yield _named(named[g.id], classes, top) if isinstance(g, Sample) else g


def _named(prediction: Any, classes: list[str], top: int) -> Predicted:
    order = (-prediction.probabilities).argsort(kind="stable")[:top]
    best = [(classes[i], float(prediction.probabilities[i])) for i in order]
    return Predicted(prediction.id, best[0][0], best[0][1], best)


class _Writer:
    """Writes lines as they come, so that an interrupted prediction keeps what it has."""

    def __init__(self, folder: Path | None, top: int):
        self.folder, self.top = folder, top

    def __enter__(self) -> "_Writer":
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines = (self.folder / "predictions.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
            self._table = (self.folder / "predictions.csv").open(
                "w", encoding="utf-8", errors="surrogateescape", newline=""
            )
            self._csv = csv.writer(self._table)
            self._csv.writerow(["file", "label", "confidence", "error"])
        return self

    def add(self, p: Predicted) -> None:
        """One prediction."""
        if self.folder:
            self._lines.write(json.dumps(p.line(), ensure_ascii=False) + "\n")
            self._csv.writerow([p.file, p.label or "", f"{p.confidence:.6f}" if p.label else "", p.error or ""])

    def __exit__(self, *_: Any) -> None:
        if self.folder:
            self._lines.close()
            self._table.close()


def _cell(p: Predicted) -> tuple[Any, str]:
    return read_image(p.file), f"{p.label} {p.confidence:.0%}"
