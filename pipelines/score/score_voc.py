"""Scoring the results of any detector by VOC's protocol, as its development kit does. No model is needed."""

import math
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.repairs import Repairs, counted, refuse
from ...tasks.scores import mean_over
from ..runs.files import new_file
from ..show import bar, note
from .score import Scored, draw

_COMP4 = "comp4_det_"


def voc(
    annotations: str | Path,
    results: str | Path,
    *,
    list: str | Path,
    area: bool = False,
    threshold: Literal["port", "devkit"] = "port",
    grid: Literal["port", "exact"] = "port",
    classes: tuple[str, ...] = (),
    origin: int = 1,
    plot: str | Path | None = None,
    strict: bool = False,
) -> Scored:
    """Compute VOC's AP of each class, and their mean, of a folder of `comp4` files against a folder of XML annotations.

    list       the image list (ImageSets/Main/test.txt): what is scored
    area       the rule since 2010, the area under the curve; else the 11 points of 2007
    threshold  port: IoU above 0.5, as the common Python port; devkit: 0.5 or more, as VOC's own kit
    grid       of the 11 points; port: numpy's arange, three of which are a hair too large; exact: tenths
    classes    only these; else every class that has objects
    origin     the number of the first pixel in the annotations: 1 as in VOC, or 0; the results count from 1
    plot       a PNG file for the precision/recall curves
    strict     take everything that would be mended in the files as a mistake
    """
    from ...tasks.objects import voc_file, voc_scores
    from ...tasks.objects.hints import FEW

    file = new_file(plot, ".png", "plot") if plot else None
    names, found, warnings = _annotations(Path(annotations), list, origin)
    truth = voc_scores.truth_by_class(found)
    files = _files(Path(results), truth)
    wanted = [*classes] or [*truth]
    warnings += _unexpected(truth, files, wanted, Path(results))
    if strict:
        refuse(warnings)
    scores, read = {}, {}
    with bar("score", len(wanted), "classes") as advance:
        for name in wanted:
            read[name] = voc_file.read_detections(files[name], names) if name in files else voc_file.NONE
            scores[name] = voc_scores.score_class(truth[name], read[name], area=area, threshold=threshold, grid=grid)
            advance()
    warnings += _odd(read, results)
    by_class = {name: None if math.isnan(s.ap) else s.ap for name, s in scores.items()}
    warnings += mean_over("mAP", by_class, "no object in the truth")
    if (voc_scores.mean(scores) or 0) < FEW:
        warnings += _hints(truth, read, found)
    for warning in warnings:
        note(warning)
    settings: dict[str, Any] = {"protocol": "voc", "iou": 0.5, "rule": "area" if area else "11 points"}
    settings |= {"threshold": threshold} | ({} if area else {"grid": grid})
    counts = {"images": len(names)} | _sums(scores)
    curves = {name: (s.recall, s.precision) for name, s in scores.items()}
    scored = Scored({"mAP": voc_scores.mean(scores)}, by_class, settings, counts, curves, warnings)
    if file:
        draw(scored, file, "precision at IoU 0.5")
    return scored


def _sums(scores: Any) -> dict[str, int]:
    return {what: sum(getattr(one, what) for one in scores.values()) for what in ("objects", "detections")}


def _odd(read: Any, results: str | Path) -> list[str]:
    """Count the detections whose boxes end before they begin."""
    count = sum(int((one.boxes[:, 2:] < one.boxes[:, :2]).any(1).sum()) for one in read.values())
    return (
        [f"{results}: {counted(count, 'box')} that end before they begin: false positives, as in VOC's kit"]
        if count
        else []
    )


def _annotations(folder: Path, file: str | Path, origin: int) -> tuple[Any, Any, Any]:
    """Read the names of a list, and their annotations with pixels counted from 1; and what was mended and is remarked.

    Raises DataError with every problem.
    """
    from ...tasks.objects import voc_file

    repairs = Repairs(str(folder))
    names = voc_file.read_list(file, lambda name: Path(folder, f"{name}.xml").is_file(), repairs)
    found = voc_file.read_annotations(folder, names, repairs)
    _turned_round(folder, names, found)
    _from_1(found, origin)
    lines: list[str] = [line for line in repairs.lines() if "<size>" not in line]
    zeros = sum(0 in one.box[:2] for annotation in found for one in annotation.objects)
    if zeros:
        lines.append(f"{folder}: xmin or ymin is 0 in {counted(zeros, 'box')}, and VOC counts from 1: origin=0 reads boxes that "
                     "are counted from 0")  # fmt: skip
    return names, found, lines


def _from_1(found: Any, origin: int) -> None:
    """Count the annotations' pixels from 1 as the results do. Raises RecipeError for an origin that is neither 1 nor 0."""
    if origin not in (0, 1):
        raise RecipeError(f"origin={origin}: expected 1, or 0")
    for one in (o for annotation in found for o in annotation.objects if not origin):
        one.box = tuple(v + 1 for v in one.box)


def _hints(truth: Any, read: Any, found: Any) -> list[str]:
    """Say how the results would match better than as they stand."""
    import numpy as np

    from ...tasks.objects.coco_file import Objects
    from ...tasks.objects.hints import hints

    def objects(sets: Any) -> Objects:
        boxes = np.concatenate([one.boxes for one in sets.values()])
        kinds = np.repeat(np.arange(len(sets)), [len(one.boxes) for one in sets.values()])
        images = np.concatenate([one.image for one in sets.values()])
        return Objects(images, kinds, np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1))

    if not read:
        return []
    sizes = {i: (a.height, a.width) for i, a in enumerate(found) if a.width}
    return hints(objects({name: truth[name] for name in read}), objects(read), sizes, corners=True)


def _turned_round(folder: Path, names: Any, found: Any) -> None:
    """Raise DataError naming up to 20 objects whose boxes end before they begin."""
    wrong = [
        f"{folder / name}.xml: object {n} ({o.name}): its box {', '.join(f'{v:g}' for v in o.box)} ends before it begins"
        for name, annotation in zip(names, found, strict=True)
        for n, o in enumerate(annotation.objects, 1)
        if o.box[2] < o.box[0] - 1 or o.box[3] < o.box[1] - 1
    ]
    if wrong:
        raise DataError("\n".join(wrong[:20] + ([f"… and {len(wrong) - 20} more"] if len(wrong) > 20 else [])))


def _files(folder: Path, known: Container[str]) -> dict[str, Path]:
    """List the result files of a folder by class: `comp4_det_test_aeroplane.txt`.

    Raises DataError where there is none, or two are of one class.
    """
    from ...tasks.objects.voc_file import of_file_name

    try:
        there = sorted(p for p in folder.iterdir() if p.suffix == ".txt" and p.name.startswith(_COMP4))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if not there:
        raise DataError(f"{folder}: has no {_COMP4}LIST_CLASS.txt file")
    found: dict[str, Path] = {}
    for path in there:
        name = of_file_name(path.stem.removeprefix(_COMP4).partition("_")[2], known)
        if name in found:
            raise DataError(f"{path}: a second file for the class {name!r}, beside {found[name].name}")
        found[name] = path
    return found


def _unexpected(truth: dict[str, Any], files: dict[str, Path], wanted: list[str], results: Path) -> list[str]:
    """List warnings: classes without a file, files whose class no object has. Raises DataError for unknown classes."""
    unknown = [name for name in wanted if name not in truth]
    if unknown:
        raise DataError(f"classes={','.join(unknown)}: no object of the list has it; there are {', '.join(truth)}")
    warnings = [
        f"{results}: no file for the class {name!r}, which has objects: its AP is 0"
        for name in wanted
        if name not in files and not truth[name].difficult.all()
    ]
    return warnings + [
        f"{files[name]}: not scored, no object of the list is a {name!r}" for name in files if name not in truth
    ]
