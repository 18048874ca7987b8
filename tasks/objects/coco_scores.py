"""COCO's average precision and recall, as pycocotools computes them: hotcoco or pycocotools match the objects.

Protocol: cocodataset.org, "Detection evaluation"; pycocotools' `COCOeval` is the reference.
"""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

from .coco_file import Objects, Truth
from .coco_json import Problems
from .intervals import Matches, gathered, intervals
from .masks import to_code
from .polygons import checked

MAX_DETECTIONS = (1, 10, 100)
AREAS = ("", "s", "m", "l")


@dataclass
class Curves:
    """What an engine gives: `precision` `(10, 101, K, 4, M)` over IoU threshold, recall, category, area and maximum;
    `recall` `(10, K, 4, M)`; -1 where there is no object."""

    precision: np.ndarray
    recall: np.ndarray
    matches: list[Matches] = field(default_factory=list)


@dataclass
class CocoScores:
    """`metrics` by COCO's names; `categories` is AP by name; `curves` for plots; 95 % `intervals`.

    What COCO marks with -1, because there is no object of that size or category, is None here; the curves keep the mark.
    """

    metrics: dict[str, float | None]
    categories: dict[str, float | None]
    curves: Curves
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def score(
    truth: Truth,
    results: Objects,
    masks: bool = False,
    engine: str = "auto",
    max_detections: Sequence[int] = MAX_DETECTIONS,
    resampled: bool = False,
    groups: np.ndarray | None = None,
) -> CocoScores:
    """Compute the twelve numbers of COCO, for boxes or masks, and AP by category.

    AP, AP50, AP75, APs, APm, APl are at the largest of `max_detections` (for each category and image), AR1, AR10, AR100
    at each of them, ARs, ARm, ARl at the largest. `resampled` adds `intervals` of AP and AP50, over images or, with `groups`
    (a number from 0 for each image), over groups of them. Raises DataError for an engine that is not installed and for masks
    that cannot be used.
    """
    run = ENGINES[engine_for(chosen(engine), results)][1]
    rows = np.flatnonzero(np.isin(results.category_ids, list(truth.categories)))  # pycocotools counts no others
    results = results.at(rows)
    limits = sorted(set(max_detections))
    segmentations = None
    if masks:
        problems, theirs = Problems(truth.file), Problems(results.file or "results")
        names = [f"annotation {i}" for i in truth.objects.ids]
        segmentations = (
            checked(truth.objects, truth.images, problems, names),
            checked(results, truth.images, theirs, [f"[{i}]" for i in rows]),
        )
        problems.stop()
        theirs.stop()
    curves = run(truth, results, segmentations, limits, resampled) if len(results) else _nothing(truth, limits)
    metrics = {
        "AP": _mean(curves.precision[:, :, :, 0, -1]),
        "AP50": _mean(curves.precision[0:1, :, :, 0, -1]),
        "AP75": _mean(curves.precision[5:6, :, :, 0, -1]),
    }
    metrics |= {f"AP{area}": _mean(curves.precision[:, :, :, a, -1]) for a, area in enumerate(AREAS) if area}
    metrics |= {f"AR{limit}": _mean(curves.recall[:, :, 0, m]) for m, limit in enumerate(limits)}
    metrics |= {f"AR{area}": _mean(curves.recall[:, :, a, -1]) for a, area in enumerate(AREAS) if area}
    by_id = sorted(truth.categories)
    categories = {truth.categories[c]: _mean(curves.precision[:, :, k, 0, -1]) for k, c in enumerate(by_id)}
    ends = intervals(curves.matches, len(truth.images.ids), groups) if resampled else {}
    return CocoScores(metrics, categories, curves, ends)


def chosen(engine: str) -> str:
    """Return the engine to use; `auto` takes a fast one if installed, else pycocotools.

    Raises DataError for one that is unknown or not installed.
    """
    if engine == "auto":
        engine = next((name for name in FAST if find_spec(ENGINES[name][0])), "pycocotools")
    if engine not in ENGINES:
        raise DataError(f"engine={engine}: unknown; expected auto, {', '.join(ENGINES)}")
    if not find_spec(ENGINES[engine][0]):
        raise DataError(f"engine={engine}: is not installed; pip install 'trunkline[coco]' or {engine}")
    return engine


def engine_for(engine: str, results: Objects) -> str:
    """Return the engine, or pycocotools in place of a fast one that takes no areas beside results' boxes."""
    return "pycocotools" if engine in FAST and len(results.area) else engine


def _mean(cells: np.ndarray) -> float | None:
    """Average the cells that have objects, in pycocotools' order of summation; None where none has."""
    cells = np.ascontiguousarray(cells)
    there = cells[cells > -1]
    return float(np.mean(there)) if there.size else None


def _nothing(truth: Truth, limits: list[int]) -> Curves:
    """Build the curves of no detections at all: 0 for every category with objects, else -1."""
    objects = truth.objects
    ids, ranges = sorted(truth.categories), ((0, 1e10), (0, 1024), (1024, 9216), (9216, 1e10))
    precision = np.full((10, 101, len(ids), 4, len(limits)), -1.0)
    recall = np.full((10, len(ids), 4, len(limits)), -1.0)
    for a, (low, high) in enumerate(ranges):
        there = (objects.crowd == 0) & (objects.area >= low) & (objects.area <= high)
        having = np.isin(ids, objects.category_ids[there])
        precision[:, :, having, a] = 0.0
        recall[:, having, a] = 0.0
    return Curves(precision, recall)


Segmentations = tuple[list[Any], list[Any]] | None
Engine = Callable[[Truth, Objects, Segmentations, list[int], bool], Curves]


def _by_hotcoco(truth: Truth, results: Objects, given: Segmentations, limits: list[int], cells: bool) -> Curves:
    import hotcoco

    images, categories = _header(truth)
    objects = truth.objects
    theirs = hotcoco.COCO.from_arrays(
        images, categories, objects.image_ids, objects.category_ids, objects.boxes,
        ids=objects.ids, area=objects.area, iscrowd=objects.crowd, segmentation=given[0] if given else None,
    )  # fmt: skip
    if given:
        ours = theirs.load_res(_mask_rows(results, given[1]))
    else:
        columns = (results.image_ids, results.boxes, results.scores, results.category_ids)
        ours = theirs.load_res(np.column_stack(columns).astype(np.float64))  # type: ignore[arg-type]
    ev = hotcoco.COCOeval(theirs, ours, "segm" if given else "bbox")
    ev.params.max_dets = limits
    ev.evaluate()
    ev.accumulate()
    found = ev.eval
    assert found is not None
    curves = Curves(np.asarray(found["precision"]), np.asarray(found["recall"]))
    if cells:  # for all areas together only: a quarter of the cells to turn into Python objects
        ev.params.area_rng, ev.params.area_rng_lbl = [[0.0, 1e10]], ["all"]
        ev.evaluate()
        curves.matches = gathered(ev.eval_imgs, truth.images.ids)
    return curves


def _by_pycocotools(truth: Truth, results: Objects, given: Segmentations, limits: list[int], cells: bool) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _by_reference(COCO, COCOeval, truth, results, given, limits, cells)


def _by_faster_coco_eval(
    truth: Truth, results: Objects, given: Segmentations, limits: list[int], cells: bool
) -> Curves:
    from faster_coco_eval import COCO, COCOeval_faster  # pyright: ignore[reportMissingImports]

    return _by_reference(COCO, COCOeval_faster, truth, results, given, limits, cells)


def _by_reference(
    coco: Any, evaluation: Any, truth: Truth, results: Objects, given: Segmentations, limits: list[int], cells: bool
) -> Curves:  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = coco()
        theirs.dataset = _dataset(truth, given[0] if given else None)
        theirs.createIndex()
        rows = _mask_rows(results, _codes(truth, results, given[1])) if given else _box_rows(results)
        ours = theirs.loadRes(rows)
        for row, area in zip(ours.dataset["annotations"], results.area.tolist(), strict=False):
            row["area"] = area
        ev = evaluation(theirs, ours, "segm" if given else "bbox")
        ev.params.maxDets = limits
        with _watched(ev):
            ev.evaluate()
        ev.accumulate()
    curves = Curves(ev.eval["precision"], ev.eval["recall"])
    if cells:
        every = len(ev.params.imgIds)
        areas = len(ev.params.areaRng)
        alike = [ev.evalImgs[k * areas * every : k * areas * every + every] for k in range(len(ev.params.catIds))]
        curves.matches = gathered(itertools.chain.from_iterable(alike), truth.images.ids)
    return curves


@contextlib.contextmanager
def _watched(ev: Any) -> Iterator[None]:
    """Show a progress bar over pycocotools' slow loop."""
    calls, one = itertools.count(1), ev.evaluateImg
    with progress() as shown:
        total = len(ev.params.imgIds) * len(ev.params.catIds) * len(ev.params.areaRng)
        bar = shown.add_task("matching", total=total, unit="cells", say="")

        def counted(*args: Any) -> Any:
            if not next(calls) % 1000:
                shown.update(bar, advance=1000)
            return one(*args)

        ev.evaluateImg = counted
        yield


def _header(truth: Truth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    columns = (truth.images.ids, truth.images.widths, truth.images.heights)
    images = [
        {"id": i, "width": w, "height": h, "file_name": name}
        for i, w, h, name in zip(*(c.tolist() for c in columns), truth.images.names, strict=True)
    ]
    return images, [{"id": i, "name": name} for i, name in truth.categories.items()]


def _dataset(truth: Truth, segmentations: list[Any] | None) -> dict[str, Any]:
    images, categories = _header(truth)
    o = truth.objects
    columns = (o.ids, o.image_ids, o.category_ids, o.boxes, o.area, o.crowd)
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    rows: list[dict[str, Any]] = [
        dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)
    ]
    for row, segmentation in zip(rows, segmentations or (), strict=False):
        row["segmentation"] = segmentation
    return {"images": images, "categories": categories, "annotations": rows}


def _box_rows(results: Objects) -> list[dict[str, Any]]:
    columns = (results.image_ids, results.category_ids, results.boxes, results.scores)
    keys = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


def _codes(truth: Truth, results: Objects, segmentations: list[Any]) -> list[Any]:
    """Compress the segmentations of results, as pycocotools requires."""
    sizes = dict(
        zip(truth.images.ids.tolist(), np.stack([truth.images.heights, truth.images.widths], 1).tolist(), strict=True)
    )
    return [to_code(s, *sizes[i]) for s, i in zip(segmentations, results.image_ids.tolist(), strict=True)]


def _mask_rows(results: Objects, segmentations: list[Any]) -> list[dict[str, Any]]:
    """Build rows without boxes: pycocotools would take the boxes' areas for the masks'."""
    columns = (results.image_ids.tolist(), results.category_ids.tolist(), segmentations, results.scores.tolist())
    keys = ("image_id", "category_id", "segmentation", "score")
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


FAST = ("hotcoco",)  # equal to pycocotools to the last bit, so that one of them may be the default
ENGINES: dict[str, tuple[str, Engine]] = {
    "hotcoco": ("hotcoco", _by_hotcoco),
    "pycocotools": ("pycocotools", _by_pycocotools),
    "faster-coco-eval": ("faster_coco_eval", _by_faster_coco_eval),
}
