"""Scoring the result files of any detector: COCO's numbers and VOC's, as the official tools give them. No model is needed."""

import math
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.repairs import Repairs, counted
from ...tasks.scores import mean_over, written
from ..runs.files import new_file
from ..show import bar, note

_COMP4 = "comp4_det_"
_MOST = 1_000_000  # detections of an image and category


@dataclass
class Scored:
    """`metrics` by name, the classes' AP or IoU, a plot's curves (recall and precision by class), and warnings.

    None stands where there is nothing to measure: no object of a size, none of a class.
    """

    metrics: dict[str, float | None]
    classes: dict[str, float | None]
    settings: dict[str, Any]
    counts: dict[str, int]
    curves: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def of_class(self) -> str:
        """The heading of `classes` in a table: AP or IoU."""
        return self.settings.get("score", "AP")

    def to_json(self) -> dict[str, Any]:
        """Put the metrics at the top level under their names, and AP or IoU by class under `classes`."""
        return {
            **self.metrics, "classes": self.classes, "settings": self.settings, "counts": self.counts,
            "warnings": self.warnings,
        }  # fmt: skip


def coco(
    truth: str | Path,
    results: str | Path,
    *,
    masks: bool = False,
    engine: str = "auto",
    max_detections: tuple[int, ...] = (1, 10, 100),
    images: str | Path | None = None,
    plot: str | Path | None = None,
) -> Scored:
    """Compute COCO's twelve numbers, and AP by category, of a result file against an annotation file.

    masks           score the segmentations; a result's box is not looked at then
    engine          pycocotools (the reference), hotcoco (equal to the last bit, and fast), faster-coco-eval (to 1e-15);
                    auto: hotcoco where it is installed, else pycocotools
    max_detections  of an image and category; AP is at the largest, ARn at each
    images          a text file with the ids or file names of the images to score, one a line; by default all
    plot            a PNG file for the precision/recall curves
    """
    _needs("pycocotools", "msgspec")
    wrong = [f"max_detections={n}: expected 1 to {_MOST:,}" for n in max_detections if not 1 <= n <= _MOST]
    if wrong or not max_detections:
        raise RecipeError(wrong or "max_detections=: expected numbers above 0")
    from ...tasks.objects.coco_file import read_results, read_truth
    from ...tasks.objects.coco_scores import chosen, score

    file, engine = new_file(plot, ".png", "plot") if plot else None, chosen(engine)
    theirs = read_truth(truth, masks)
    _name_apart(theirs)
    found = read_results(results, theirs, masks)
    if images:
        theirs, found = _subset(theirs, found, images)
    theirs.warnings += found.remarks
    for warning in theirs.warnings:
        note(warning)
    scores = score(theirs, found, masks, engine, max_detections)
    recalls = [i / 100 for i in range(101)]
    curves = {
        name: (recalls, scores.curves.precision[0, :, k, 0, -1])
        for k, name in enumerate(theirs.categories[c] for c in sorted(theirs.categories))
        if scores.curves.precision[0, 0, k, 0, -1] > -1
    }
    for line in mean_over("AP", scores.categories, "no object in the truth"):
        theirs.warnings.append(line)
        note(line)
    settings = {"protocol": "coco", "masks": masks, "engine": engine, "max_detections": list(max_detections)}
    counts = {"images": len(theirs.images.ids), "objects": len(theirs.objects), "detections": len(found)}
    scored = Scored(scores.metrics, scores.categories, settings, counts, curves, theirs.warnings)
    if file:
        draw(scored, file, "precision at IoU 0.5")
    return scored


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


def lines_of(file: str | Path) -> list[str]:
    """Read the lines of a text file that are not empty. Raises DataError where it has none, or cannot be read."""
    try:
        words = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not any(words):
        raise DataError(f"{file}: names nothing")
    return [w for w in words if w]


def voc(
    annotations: str | Path,
    results: str | Path,
    *,
    list: str | Path,
    area: bool = False,
    threshold: Literal["port", "devkit"] = "port",
    grid: Literal["port", "exact"] = "port",
    classes: tuple[str, ...] = (),
    plot: str | Path | None = None,
) -> Scored:
    """Compute VOC's AP of each class, and their mean, of a folder of `comp4` files against a folder of XML annotations.

    list       the image list (ImageSets/Main/test.txt): what is scored
    area       the rule since 2010, the area under the curve; else the 11 points of 2007
    threshold  port: IoU above 0.5, as the common Python port; devkit: 0.5 or more, as VOC's own kit
    grid       of the 11 points; port: numpy's arange, three of which are a hair too large; exact: tenths
    classes    only these; else every class that has objects
    plot       a PNG file for the precision/recall curves
    """
    from ...tasks.objects import voc_file, voc_scores

    file = new_file(plot, ".png", "plot") if plot else None
    repairs = Repairs(str(annotations))
    names = voc_file.read_list(list, lambda name: Path(annotations, f"{name}.xml").is_file(), repairs)
    found = voc_file.read_annotations(Path(annotations), names, repairs)
    _turned_round(Path(annotations), names, found)
    truth = voc_scores.truth_by_class(found)
    files = _files(Path(results), truth)
    wanted = [*classes] or [*truth]
    warnings = [line for line in repairs.lines() if "<size>" not in line] + _unexpected(
        truth, files, wanted, Path(results)
    )
    scores: dict[str, Any] = {}
    odd = 0
    with bar("score", len(wanted), "classes") as advance:
        for name in wanted:
            detections = voc_file.read_detections(files[name], names) if name in files else voc_file.NONE
            scores[name] = voc_scores.score_class(truth[name], detections, area=area, threshold=threshold, grid=grid)
            odd += int(((detections.boxes[:, 2:] < detections.boxes[:, :2] - 1).any(1)).sum())
            advance()
    if odd:
        warnings.append(
            f"{results}: {counted(odd, 'box')} that end before they begin: false positives, as in VOC's kit"
        )
    by_class = {name: None if math.isnan(s.ap) else s.ap for name, s in scores.items()}
    warnings += mean_over("mAP", by_class, "no object in the truth")
    for warning in warnings:
        note(warning)
    settings: dict[str, Any] = {"protocol": "voc", "iou": 0.5, "rule": "area" if area else "11 points"}
    settings |= {"threshold": threshold} | ({} if area else {"grid": grid})
    counts = {"images": len(names), "objects": sum(s.objects for s in scores.values())}
    counts["detections"] = sum(s.detections for s in scores.values())
    curves = {name: (s.recall, s.precision) for name, s in scores.items()}
    scored = Scored({"mAP": voc_scores.mean(scores)}, by_class, settings, counts, curves, warnings)
    if file:
        draw(scored, file, "precision at IoU 0.5")
    return scored


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


def draw(scored: Scored, file: Path, label: str) -> None:
    """Draw all classes' precision/recall curves as a PNG: thin lines, their mean thick, the best and worst named."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = {name: ap for name, ap in scored.classes.items() if ap is not None}
    ranked = sorted(values, key=lambda name: -values[name])
    named = ranked if len(ranked) <= 6 else ranked[:3] + ranked[-3:]
    grid, curves = np.linspace(0, 1, 101), []
    for name in ranked:
        recall, precision = (np.asarray(v, float) for v in scored.curves[name])
        reached = _envelope(recall, precision, grid)
        curves.append(reached)
        chosen = name in named
        axes.plot(
            grid, np.where(reached > 0, reached, np.nan), lw=1.4 if chosen else 0.6, color=None if chosen else "0.75",
            zorder=2 if chosen else 1, label=f"{name} {values[name]:.3f}" if chosen else None,
        )  # fmt: skip
    if curves:
        axes.plot(grid, np.mean(curves, 0), color="black", lw=2.4, zorder=3, label="mean of the classes")
        axes.legend(loc="lower left", fontsize=8, frameon=False)
    headline = ", ".join(f"{name} {written(value)}" for name, value in [*scored.metrics.items()][:2])
    axes.set(xlabel="recall", ylabel=label, xlim=(0, 1), ylim=(0, 1.02), title=headline)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=144)


def _envelope(recall: Any, precision: Any, grid: Any) -> Any:
    """Return the best precision at each recall of `grid` or beyond, `(len(grid),)` float; 0 where none reaches it."""
    import numpy as np

    if not len(recall):
        return np.zeros(len(grid))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, grid, "left")
    return np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0.0)


def _needs(*modules: str) -> None:
    lacking = [name for name in modules if not find_spec(name)]
    if lacking:
        raise RecipeError(f"{' and '.join(lacking)} must be installed for this: pip install 'trunkline[coco]'")


PROTOCOLS = {
    "coco": f"{__name__}:coco",
    "voc": f"{__name__}:voc",
    "masks": "trunkline.pipelines.score.score_masks:masks",
}


def protocol(name: str) -> Callable[..., Scored]:
    """Return the function that scores by a protocol. Raises RecipeError for an unknown one."""
    from trunkline.ground.names import load_named, nearest

    if name not in PROTOCOLS:
        raise RecipeError(f"{name!r}: no such protocol{nearest(name, PROTOCOLS)}; expected {', '.join(PROTOCOLS)}")
    return load_named(PROTOCOLS[name])
