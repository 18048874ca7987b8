"""A detector's results as labelling tools have them: YOLO's text files with scores, tables, and what `predict` writes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from trunkline.ground.errors import DataError

from ...data.below import files_in
from ...data.repairs import Repairs, counted
from ...data.text import text_of
from ..coco_file import Objects, Truth, check_results, read_results, wrong_results
from ..coco_json import Problems
from ..names import Alike
from . import rows
from .labelled import Box, Number, Wrong, box_of_shares, number
from .spelled import TAKEN, whole
from .yolo import pixels_asked

Found = tuple[str, str, float, Box]
"""A picture's name, a class's name, a score, and a box in pixels."""


def read_any_results(given: str | os.PathLike[str], truth: Truth, masks: bool = False) -> Objects:
    """Read results: COCO's file, a folder of YOLO's text files (class, box, score), a table, or `predictions.jsonl`.

    What a detector got wrong stays, as `read_results` says. Raises DataError with every problem.
    """
    path = Path(given)
    repairs = Repairs(str(path))
    if path.is_dir():
        if masks:
            raise DataError(f"{path}: text files have no masks; expected COCO's results")
        return _objects(path, truth, _of_yolo(path, truth, repairs), repairs)
    if path.suffix.lower() in rows.SUFFIX and path.is_file() and not _is_coco(path):
        if masks:
            raise DataError(f"{path}: tables have no masks; expected COCO's results")
        return _objects(path, truth, _of_table(path), repairs)
    return read_results(given, truth, masks)


def _objects(path: Path, truth: Truth, found: Iterator[Found], repairs: Repairs) -> Objects:
    """Look up pictures and classes by their names; a class that the truth lacks is counted, as one of no category."""
    wrong, said = Wrong(), list(found)
    images = _images(truth, path)
    number_of = {name: n for n, name in truth.categories.items()}
    none = max(truth.categories, default=0) + 1
    keys = [images.get(name, images.get(PurePosixPath(name).stem)) for name, _, _, _ in said]
    if None in keys:
        alike = Alike(images)
        again = {name: alike.find(name, repairs) for (name, *_), key in zip(said, keys, strict=True) if key is None}
        keys = [images.get(again.get(name) or "", key) for (name, *_), key in zip(said, keys, strict=True)]
    for name in dict.fromkeys(name for (name, _, _, _), key in zip(said, keys, strict=True) if key is None):
        wrong.append(f"{path}: {name} is not among the pictures of {truth.file}")
    wrong.stop()
    plain = {
        kind: whole(kind) for kind in {kind for _, kind, _, _ in said} - number_of.keys() if whole(kind) in number_of
    }
    if plain:
        repairs.add(TAKEN, "result", sum(kind in plain for _, kind, _, _ in said))
        number_of |= {kind: number_of[own] for kind, own in plain.items()}
    objects = Objects(
        np.array(keys, np.int64), np.array([number_of.get(kind, none) for _, kind, _, _ in said], np.int64),
        np.array([box for _, _, _, box in said], np.float64).reshape(-1, 4),
        scores=np.array([score for _, _, score, _ in said], np.float64), file=str(path),
    )  # fmt: skip
    problems = Problems(path)
    check_results(objects, truth, problems)
    problems.stop()
    objects.remarks = repairs.lines() + wrong_results(objects, truth)
    return objects


def _images(truth: Truth, path: Path) -> dict[str, int]:
    """Number the pictures by their paths, their names, and these without suffix, of each as far as it is one picture's."""
    found: dict[str, set[int]] = {}
    for image, name in zip(truth.images.ids.tolist(), truth.images.names, strict=True):
        file = PurePosixPath(name.replace("\\", "/"))
        for key in {file.as_posix(), file.name, file.stem}:
            found.setdefault(key, set()).add(image)
    return {key: next(iter(ids)) for key, ids in found.items() if len(ids) == 1}


def _of_yolo(folder: Path, truth: Truth, repairs: Repairs) -> Iterator[Found]:
    """Read text files called after pictures: a class's number, x, y, width, height as shares, and a score a line."""
    wrong = Wrong()
    files = [name for name in files_in(folder, (".txt",)) if PurePosixPath(name).name != "classes.txt"]
    if not files:
        raise DataError(
            f"{folder}: has no text file; expected a file a picture, a line a result: class, x, y, width, height, score"
        )
    names, images = [*truth.categories.values()], _images(truth, folder)
    sizes = {
        i: (w, h)
        for i, w, h in zip(
            *(c.tolist() for c in (truth.images.ids, truth.images.widths, truth.images.heights)), strict=True
        )
    }
    unknown = max(names, key=len, default="") + "?"
    asked: list[str] = []
    for file in files:
        stem = PurePosixPath(file).stem
        width, height = sizes.get(images.get(stem, -1), (1, 1))
        if stem in images and not width * height:
            raise DataError(
                f"{folder / file}: {truth.file} does not say the size of its picture, which shares of it need"
            )
        for n, line in enumerate(text_of(folder / file).splitlines(), 1):
            if not (words := line.split()):
                continue
            numbers, said = _line(words)
            if said:
                wrong.append(f"{folder / file}: line {n}: {said}")
            else:
                kind, cx, cy, w, h, score = numbers
                asked.append(pixels_asked(numbers[1:5]) and f"{folder / file}: line {n}: {pixels_asked(numbers[1:5])}")
                repairs.add("classes written as 1.0 taken as 1", "line", not words[0].lstrip("-").isdigit())
                name = names[int(kind)] if 0 <= kind < len(names) else unknown
                yield stem, name, float(score), box_of_shares(cx, cy, w, h, width, height)
    if len(pixels := list(filter(None, asked))) > len(asked) / 2:  # fewer are a detector's wrong boxes
        wrong.append(f"{pixels[0]} ({len(pixels)} of {counted(len(asked), 'result')})")
    wrong.stop()


def _line(words: list[str]) -> tuple[list[Number], str]:
    """Read a line's numbers: a class, a box in shares, and a score; and what is wrong with them."""
    try:
        numbers = [number(word) for word in words]
    except (ValueError, ArithmeticError):
        return [], f"{' '.join(words)[:60]!r}: expected numbers"
    if len(numbers) != 6:
        return [], f"{counted(len(numbers), 'number')}; expected class, x, y, width, height, score"
    if not np.isfinite(float(numbers[0])) or numbers[0] != int(numbers[0]):
        return [], f"the class {words[0]} is no whole number; expected class, x, y, width, height, score"
    return numbers, ""


def _of_table(file: Path) -> Iterator[Found]:
    """Read a table with columns of files, labels, boxes and scores; or lines of `predictions.jsonl`."""
    wrong = Wrong()
    if file.suffix.lower() == ".jsonl" and "boxes" in (first := _first(file)) and "scores" in first:
        for line in text_of(file).splitlines():
            said = json.loads(line)
            for box, label, score in zip(
                said.get("boxes", ()), said.get("labels", ()), said.get("scores", ()), strict=True
            ):
                yield said["file"], label, score, tuple(box)
        return
    columns = rows.columns_of(file)
    if not (columns.label and columns.score and (columns.corners or columns.sides)):
        raise DataError(f"{file}: results need columns of files, labels, boxes and scores")
    for row in rows.rows_of(file, columns, wrong):
        if row.box is None:
            continue
        if row.score is None or not row.label:
            wrong.append(f"{file}: line {row.line}: a box without a {'score' if row.label else 'label'}")
        else:
            yield row.file, row.label, row.score, row.box
    wrong.stop()


def _first(file: Path) -> dict[str, object]:
    line = next((line for line in text_of(file).splitlines() if line.strip()), "{}")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_coco(file: Path) -> bool:
    return file.suffix.lower() == ".jsonl" and "image_id" in _first(file)
