"""Scoring the results of any detector by COCO's protocol, as pycocotools does. No model is needed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.repairs import refuse
from ...tasks.scores import mean_over
from ..runs.files import new_file
from ..show import note
from .score import Scored, draw, lines_of

_MOST = 1_000_000  # detections of an image and category


def coco(
    truth: str | Path,
    results: str | Path,
    *,
    masks: bool = False,
    engine: str = "auto",
    max_detections: tuple[int, ...] = (1, 10, 100),
    images: str | Path | None = None,
    plot: str | Path | None = None,
    split: str = "",
    truth_format: str = "auto",
    exif: Literal["stop", "turn", "ignore"] = "stop",
    origin: int = 1,
    rotated: Literal["stop", "enclose"] = "stop",
    annotator: str = "",
    strict: bool = False,
) -> Scored:
    """Compute COCO's twelve numbers, and AP by category, of a detector's results.

    The truth is COCO's annotation file, or a folder or file of another format (YOLO, VOC, LabelMe, Label Studio, CSV). The
    results are COCO's file, a folder of YOLO's text files, a table with scores, or the predictions.jsonl of `predict`.

    masks           score the segmentations; a result's box is not looked at then
    engine          pycocotools (the reference), hotcoco (equal to the last bit, and fast), faster-coco-eval (to 1e-15);
                    auto: hotcoco where it is installed, else pycocotools
    max_detections  of an image and category; AP is at the largest, ARn at each
    images          a text file with the ids or file names of the images to score, one a line; by default all
    plot            a PNG file for the precision/recall curves
    split           of a folder: val where there is one, else all
    truth_format    of a folder or file that is not COCO's; auto: by what lies in it
    exif            labels are of pictures as EXIF turns them (turn), or as they are stored (ignore)
    origin          of a truth in VOC's format: the number of the first pixel, 1 or 0
    rotated         of Label Studio's: take the upright box around a rotated one (enclose)
    annotator       of Label Studio's: whose labels count where several people labelled a picture
    strict          take everything that would be mended in the files as a mistake
    """
    _needs("pycocotools", "msgspec")
    _check_most(max_detections)
    if origin not in (0, 1):
        raise RecipeError(f"origin={origin}: expected 1, or 0")
    from ...tasks.objects.coco_scores import chosen, engine_for, score

    file, engine = new_file(plot, ".png", "plot") if plot else None, chosen(engine)
    said = {"exif": exif, "origin": origin, "rotated": rotated, "annotator": annotator}
    theirs, found = _both((truth, split, truth_format, said), results, masks, images)
    if strict:
        refuse(theirs.warnings)
    engine = engine_for(engine, found)
    scores = score(theirs, found, masks, engine, max_detections)
    theirs.warnings += _remarks(theirs, found, scores, masks)
    for warning in theirs.warnings:
        note(warning)
    settings = {"protocol": "coco", "masks": masks, "engine": engine, "max_detections": [*max_detections]}
    counts = {"images": len(theirs.images.ids), "objects": len(theirs.objects), "detections": len(found)}
    scored = Scored(scores.metrics, scores.categories, settings, counts, _curves(theirs, scores), theirs.warnings)
    if file:
        draw(scored, file, "precision at IoU 0.5")
    return scored


def _both(
    truth: tuple[str | Path, str, str, dict[str, Any]], results: str | Path, masks: bool, images: str | Path | None
) -> tuple[Any, Any]:
    """Read the truth (what, which split, which format, by which settings) and the results, of the chosen images alone."""
    from ...tasks.detection.truth import read_any_truth
    from ...tasks.objects.labels.results import read_any_results

    given, split, form, said = truth
    theirs = read_any_truth(given, masks, split, form, said)
    _name_apart(theirs)
    found = read_any_results(results, theirs, masks)
    if images:
        theirs, found = _subset(theirs, found, images)
    theirs.remarks = [line.partition(" Without it: categories=")[0] for line in theirs.remarks]  # a setting of training
    theirs.warnings += [*theirs.remarks, *found.remarks]
    return theirs, found


def _remarks(theirs: Any, found: Any, scores: Any, masks: bool) -> list[str]:
    """Say over how many classes a mean is, and what almost nothing matches may mean."""
    from ...tasks.objects.hints import FEW, hints, sizes_of

    lines = [] if len(found) else [f"{found.file}: has no result at all"]
    lines += mean_over("AP", scores.categories, "no object in the truth")
    if not masks and (scores.metrics.get("AP50") or 0) < FEW:
        lines += hints(theirs.objects, found, sizes_of(theirs.images))
    return lines


def _curves(theirs: Any, scores: Any) -> dict[str, tuple[Any, Any]]:
    """Give recall and precision at IoU 0.5 of each category that has objects."""
    recalls = [i / 100 for i in range(101)]
    return {
        name: (recalls, scores.curves.precision[0, :, k, 0, -1])
        for k, name in enumerate(theirs.categories[c] for c in sorted(theirs.categories))
        if scores.curves.precision[0, 0, k, 0, -1] > -1
    }


def _check_most(most: tuple[int, ...]) -> None:
    wrong = [f"max_detections={n}: expected 1 to {_MOST:,}" for n in most if not 1 <= n <= _MOST]
    if wrong or not most:
        raise RecipeError(wrong or "max_detections=: expected numbers above 0")


def _name_apart(truth: Any) -> None:
    """Add the id to the names of categories that share one, and warn of it: each is scored apart, by its name."""
    names = [*truth.categories.values()]
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        truth.categories = {i: f"{n} (id {i})" if n in again else n for i, n in truth.categories.items()}
        truth.warnings.append(
            f"{truth.file}: several categories are called {', '.join(again)}: each is scored by its id"
        )


def _subset(truth: Any, found: Any, file: str | Path) -> tuple[Any, Any]:
    from dataclasses import replace

    import numpy as np

    words = lines_of(file)
    ids, names = {str(i): k for k, i in enumerate(truth.images.ids)}, {n: k for k, n in enumerate(truth.images.names)}
    unknown = [w for w in words if w not in ids and w not in names]
    if unknown:
        raise DataError("\n".join(f"{file}: {w!r} is no image of {truth.file}" for w in unknown[:20]))
    rows = np.array(sorted({ids[w] if w in ids else names[w] for w in words}), np.int64)
    kept = truth.images.ids[rows]
    images = replace(
        truth.images, ids=kept, widths=truth.images.widths[rows], heights=truth.images.heights[rows],
        names=[truth.images.names[r] for r in rows],
    )  # fmt: skip
    objects = truth.objects.at(np.isin(truth.objects.image_ids, kept))
    return replace(truth, images=images, objects=objects), found.at(np.isin(found.image_ids, kept))


def _needs(*modules: str) -> None:
    lacking = [name for name in modules if not find_spec(name)]
    if lacking:
        raise RecipeError(f"{' and '.join(lacking)} must be installed for this: pip install 'trunkline[coco]'")
