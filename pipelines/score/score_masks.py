"""Scoring folders of masks, whoever predicted them. No model is needed."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.storage import at_home

from ...heads.contract import VOID
from ...tasks.data.repairs import refuse
from ...tasks.scores import mean_over
from ...tasks.segmentation.formats.encoding import (
    Encoding,
    Mask,
    check_agrees,
    check_not_swapped,
    look_at,
    numbered,
    with_void,
)
from ...tasks.segmentation.formats.layouts import files_below, read_classes
from ..show import bar, note
from .score import Scored, lines_of

_LISTED = 20


def masks(
    truth: str | Path,
    predicted: str | Path,
    *,
    classes: int | str,
    names: str | Path | None = None,
    list: str | Path | None = None,
    void: tuple[int, ...] | None = None,
    absent: Literal["truth", "either"] = "truth",
    boundary: bool = False,
    strict: bool = False,
) -> Scored:
    """Compute mIoU, pixel and mean accuracy of a folder of masks against a folder of true ones.

    The masks are PNGs whose pixels are classes' numbers.

    classes   how many there are, the background among them: numbers from 0 to below it; or the data's classes.txt, whose
              numbers or colours the true masks have, and the others what `evaluate results=` writes for them; where the
              classes have colours, a predicted mask that has them too (RGB, or a palette of them) is read by them
    names     a text file with their names, one a line
    list      a text file with the masks' names, one a line; by default all masks of the true folder, which must all be there
    void      numbers in the true masks whose pixels do not count, whatever was predicted there; none: 255, where every
              class has pixels without it
    absent    truth: the mean is over the classes of the truth; either: over those that either side has (mmsegmentation)
    boundary  boundary IoU too (Cheng et al. 2021)
    strict    take everything that would be mended in the files as a mistake
    """
    import numpy as np

    from ...tasks.segmentation.boundary import boundary_iou
    from ...tasks.segmentation.confusion import scores

    if isinstance(classes, str) and classes.strip().removeprefix("-").isdigit():
        classes = int(classes)
    theirs, ours = (
        _by_file(Path(at_home(classes)), names, void) if isinstance(classes, str) else _by_number(classes, names, void)
    )
    labels = theirs.classes
    pairs = _pairs(Path(truth), Path(predicted), list)
    matrix, edges, warnings = _counts(pairs, theirs, ours, boundary, void)
    if strict:
        refuse(warnings)
    result = scores(matrix, absent)
    metrics = {"mIoU": result.miou, "pixel_accuracy": result.pixel_accuracy, "mean_accuracy": result.mean_accuracy}
    there = matrix.sum(1) > 0
    if boundary:
        metrics["boundary_IoU"] = boundary_iou(edges, there)
    by_class = {n: None if np.isnan(v) else float(v) for n, v in zip(labels, result.iou, strict=True)}
    ignored = [value for value, number in theirs.values.items() if number == VOID]
    settings = {"protocol": "masks", "score": "IoU", "classes": len(labels), "void": ignored, "absent": absent}
    if not list and (more := len(_found(Path(predicted))) - len(pairs)):
        warnings.append(f"{predicted}: {more} masks are of no true one and do not count")
    warnings += mean_over(
        "mIoU and mean_accuracy", by_class, "no pixel in the truth" if absent == "truth" else "no pixel"
    )
    for warning in warnings:
        note(warning)
    counts = {"masks": len(pairs), "pixels": int(matrix.sum())}
    return Scored(metrics, by_class, settings, counts, {}, warnings)


def _by_number(classes: int, names: str | Path | None, void: tuple[int, ...] | None) -> tuple[Encoding, Encoding]:
    """Build the encodings of the true masks and of the others, for classes stored as 0, 1, …

    Raises RecipeError for settings that do not fit together.
    """
    if not 1 <= classes <= 255:
        raise RecipeError(f"classes={classes}: expected 1 to 255, or the data's classes.txt")
    if wrong := [
        f"void={v}: expected {classes} to 255; below stand the classes" for v in void or () if not classes <= v <= 255
    ]:
        raise RecipeError(wrong)
    labels = lines_of(names) if names else [str(n) for n in range(classes)]
    if twice := sorted({n for n in labels if labels.count(n) > 1}):
        raise RecipeError(f"names={names}: has {', '.join(twice)} twice")
    if len(labels) != classes:
        raise RecipeError(
            f"names={names}: has {len(labels)} names for classes={classes}; the data's classes.txt goes to classes="
        )
    theirs = numbered(tuple(labels), void=(VOID,) if void is None else void)
    return replace(theirs, assumed=void is None and classes < VOID + 1), numbered(tuple(labels), void=())


def _by_file(file: Path, names: str | Path | None, void: tuple[int, ...] | None) -> tuple[Encoding, Encoding]:
    """Build the same for classes with the numbers or colours of a file."""
    if names is not None:
        raise RecipeError(f"classes={file}: says the names too; leave names= out")
    if not file.is_file():
        raise RecipeError(f"classes={file}: there is no such file; expected a number, or the data's classes.txt")
    theirs = read_classes(file)
    theirs = with_void(theirs, void) if void else theirs
    return theirs, Encoding(theirs.classes, {number: n for n, number in enumerate(theirs.stored)})


def _counts(
    pairs: list[tuple[Path, Path]], theirs: Encoding, ours: Encoding, boundary: bool, void: tuple[int, ...] | None
) -> tuple[Any, Any, list[str]]:
    """Sum over all pairs: the confusion matrix `(K, K)` and the counts of the boundaries `(K, 2)`, both int64; and remarks.

    Raises DataError with up to 20 wrong masks, and Undecided where 255 in the true ones has two readings.
    """
    import numpy as np

    from ...tasks.segmentation.boundary import boundary_counts
    from ...tasks.segmentation.confusion import confusion
    from ...tasks.segmentation.formats.either import look_at_either
    from ...tasks.segmentation.formats.seen import Seen
    from ...tasks.segmentation.formats.void import lacking, undecided, word_of

    classes = len(theirs.classes)
    matrix, edges = np.zeros((classes, classes), np.int64), np.zeros((classes, 2), np.int64)
    seen, found_in, first, problems = Seen(), Seen(), None, []
    agree = [_Palettes(), _Palettes()]
    declared = replace(theirs, values={value: n for value, n in theirs.values.items() if n != VOID})

    def predicted_mask(file: Path, ignored: Any) -> Mask:
        return look_at_either(file, declared, ours, ignored) if theirs.coloured else look_at(file, ours, ignored)

    with bar("score", len(pairs), "masks") as advance:
        for true, found in pairs:
            try:
                one = agree[0].agreeing(true, look_at(true, theirs))
                other = agree[1].agreeing(found, predicted_mask(found, one.labels == VOID))
                check_not_swapped(agree[0].first, str(found), other.stored, theirs.stored)
                if one.labels.shape != other.labels.shape:
                    sizes = [f"{a.labels.shape[1]} x {a.labels.shape[0]}" for a in (other, one)]
                    raise DataError(f"{found}: is {sizes[0]} pixels; the true mask {true} is {sizes[1]}")
                pixels = np.zeros(256, np.int64)
                matrix += (part := confusion(one.labels, other.labels, classes))
                pixels[:classes], pixels[VOID] = part.sum(1), one.labels.size - part.sum()
                seen.count(pixels, one.stored.form)
                found_in.count(np.zeros(256, np.int64), other.stored.form)
                first = first or (true if pixels[VOID] else None)
                if boundary:
                    edges += boundary_counts(one.labels, other.labels, classes)
            except DataError as error:
                problems.append(str(error))
                if len(problems) == _LISTED:
                    break
            advance()
    if problems:
        raise DataError("\n".join(problems))
    if theirs.assumed and first and (without := lacking(theirs, seen.pixels)):
        raise undecided(theirs, without, str(first))
    remarks = seen.remarks(theirs.classes, f"all {seen.masks} true masks", word_of(theirs, "pairs", void or ()))
    return matrix, edges, remarks + found_in.repairs(f"{seen.masks} predicted masks")


class _Palettes:
    """Holds a set's first palette, with which the others must agree."""

    def __init__(self) -> None:
        self.first: tuple[str, Any] | None = None

    def agreeing(self, file: Path, mask: Mask) -> Mask:
        """Return the mask. Raises DataError where its palette gives a number another colour than the first one does."""
        if self.first is None and mask.stored.palette is not None:
            self.first = (str(file), mask.stored.palette)
        check_agrees(self.first, str(file), mask.stored)
        return mask


def _pairs(truth: Path, predicted: Path, file: str | Path | None) -> list[tuple[Path, Path]]:
    """Pair the masks of one name in both folders.

    Raises DataError naming up to 20 masks that are missing, or where there is none at all.
    """
    true, found = _found(truth), _found(predicted)
    names = [n.removesuffix(".png") for n in lines_of(file)] if file else [*true]
    if not names:
        jpegs = len(files_below(truth, "", (".jpg", ".jpeg")))
        raise DataError(
            f"{truth}: holds no PNG{f', but {jpegs} JPEGs, which change numbers: masks are PNGs' if jpegs else ''}"
        )
    lacking = [f"{folder}/{n}.png: there is no such mask{_instead(folder, n)}" for n in names for folder, there in
               ((truth, true), (predicted, found)) if n not in there]  # fmt: skip
    if lacking:
        more = [f"and {len(lacking) - _LISTED} more"] if len(lacking) > _LISTED else []
        raise DataError("\n".join(lacking[:_LISTED] + more))
    return [(true[n], found[n]) for n in dict.fromkeys(names)]


def _instead(folder: Path, name: str) -> str:
    """Return what a message adds where a JPEG stands in a mask's place, else an empty text."""
    there = any((folder / f"{name}{end}").is_file() for end in (".jpg", ".jpeg", ".JPG"))
    return " (but a JPEG, which changes numbers)" if there else ""


def _found(folder: Path) -> dict[str, Path]:
    """List the PNGs below a folder, in order, by path without suffix. Raises DataError where there is no folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    return {stem: folder / file for stem, file in files_below(folder, ".png").items()}
