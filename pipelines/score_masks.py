"""Scoring folders of masks, whoever predicted them. No model is needed."""

from pathlib import Path
from typing import Any, Literal

from ..tasks.contract import DataError
from ..tasks.segmentation.layouts import files_below
from .recipe import RecipeError
from .score import Scored, lines_of
from .show import bar, note

_LISTED = 20


def masks(
    truth: str | Path,
    predicted: str | Path,
    *,
    classes: int,
    names: str | Path | None = None,
    list: str | Path | None = None,
    void: tuple[int, ...] = (255,),
    absent: Literal["truth", "either"] = "truth",
    boundary: bool = False,
) -> Scored:
    """mIoU, pixel and mean accuracy of a folder of masks (PNGs whose pixels are classes' numbers) for a folder of true ones.

    classes   how many there are, the background among them: numbers from 0 to below it
    names     a text file with their names, one a line
    list      a text file with the masks' names, one a line; by default every mask of the true folder, which must all be there
    void      numbers in the true masks whose pixels do not count
    absent    truth: the mean is over the classes that the truth has; either: over those that either side has (mmsegmentation)
    boundary  boundary IoU too (Cheng et al. 2021)
    """
    import numpy as np

    from ..tasks.segmentation.confusion import scores

    if not 1 <= classes <= 255:
        raise RecipeError(f"classes={classes}: expected 1 to 255")
    if wrong := [
        f"void={v}: expected {classes} to 255; below stand the classes" for v in void if not classes <= v <= 255
    ]:
        raise RecipeError(wrong)
    labels = lines_of(names) if names else [str(n) for n in range(classes)]
    if twice := sorted({n for n in labels if labels.count(n) > 1}):
        raise RecipeError(f"names={names}: has {', '.join(twice)} twice")
    if len(labels) != classes:
        raise RecipeError(f"names={names}: has {len(labels)} names for classes={classes}")
    pairs = _pairs(Path(truth), Path(predicted), list)
    matrix, edges = _counts(pairs, classes, void, boundary)
    result = scores(matrix, absent)
    metrics = {"mIoU": result.miou, "pixel_accuracy": result.pixel_accuracy, "mean_accuracy": result.mean_accuracy}
    there = matrix.sum(1) > 0
    if boundary:
        ratio = edges[there, 0] / np.maximum(edges[there, 1], 1)
        metrics["boundary_IoU"] = float(ratio.mean()) if there.any() else -1.0
    by_class = {n: None if np.isnan(v) else float(v) for n, v in zip(labels, result.iou, strict=True)}
    settings = {"protocol": "masks", "score": "IoU", "classes": classes, "void": [*void], "absent": absent}
    warnings = [] if there.any() else [f"{truth}: no pixel has a class"]
    if not list and (more := len(_found(Path(predicted))) - len(pairs)):
        warnings.append(f"{predicted}: {more} masks are of no true one and do not count")
    for warning in warnings:
        note(warning)
    counts = {"masks": len(pairs), "pixels": int(matrix.sum())}
    return Scored(metrics, by_class, settings, counts, {}, warnings)


def _counts(pairs: list[tuple[Path, Path]], classes: int, void: tuple[int, ...], boundary: bool) -> tuple[Any, Any]:
    """The confusion matrix of all pairs, and the counts of their boundaries. Raises DataError with up to 20 wrong masks."""
    import numpy as np

    from ..tasks.segmentation.boundary import boundary_counts
    from ..tasks.segmentation.confusion import confusion
    from ..tasks.segmentation.encoding import numbered, read_mask

    numbers = tuple(str(n) for n in range(classes))
    theirs, ours = numbered(numbers, void=void), numbered(numbers, void=())
    matrix, edges = np.zeros((classes, classes), np.int64), np.zeros((classes, 2), np.int64)
    problems: list[str] = []
    with bar("score", len(pairs), "masks") as advance:
        for true, found in pairs:
            try:
                one, other = read_mask(true, theirs), read_mask(found, ours)
                if one.shape != other.shape:
                    sizes = [f"{a.shape[1]} x {a.shape[0]}" for a in (other, one)]
                    raise DataError(f"{found}: is {sizes[0]} pixels; the true mask {true} is {sizes[1]}")
                matrix += confusion(one, other, classes)
                if boundary:
                    edges += boundary_counts(one, other, classes)
            except DataError as error:
                problems.append(str(error))
                if len(problems) == _LISTED:
                    break
            advance()
    if problems:
        raise DataError("\n".join(problems))
    return matrix, edges


def _pairs(truth: Path, predicted: Path, file: str | Path | None) -> list[tuple[Path, Path]]:
    """The masks of one name in both folders. Raises DataError with every one that is missing, up to 20."""
    true, found = _found(truth), _found(predicted)
    names = [n.removesuffix(".png") for n in lines_of(file)] if file else [*true]
    if not names:
        raise DataError(f"{truth}: holds no PNG")
    lacking = [f"{folder}/{n}.png: there is no such mask" for n in names for folder, there in
               ((truth, true), (predicted, found)) if n not in there]  # fmt: skip
    if lacking:
        more = [f"and {len(lacking) - _LISTED} more"] if len(lacking) > _LISTED else []
        raise DataError("\n".join(lacking[:_LISTED] + more))
    return [(true[n], found[n]) for n in dict.fromkeys(names)]


def _found(folder: Path) -> dict[str, Path]:
    """The PNGs below a folder by their paths without the end, in order."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    return {stem: folder / file for stem, file in files_below(folder, ".png").items()}
