"""Scoring folders of upscaled pictures, whoever made them. No model is needed."""

import os
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from trunkline.ground import storage
from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.below import files_in
from ...tasks.data.repairs import counted
from ...tasks.data.text import text_of
from ...tasks.super_resolution.files import FORMATS, read_picture
from ...tasks.super_resolution.measures.protocol import compare, summary
from ..runs.files import new_file, write_records
from ..show import bar, note
from .score import Scored

_LISTED = 20
_FEW = 5
PREDICTIONS, SHEET, DRAWN = "predictions.jsonl", "sheet.png", "pictures/"  # of `predict`
_SCALES = range(2, 17)  # that a message proposes


def images(
    truth: str | Path,
    upscaled: str | Path,
    *,
    scale: int,
    border: int | None = None,
    grey: Literal["rgb", "own"] = "rgb",
    suffix: str | None = None,
    more: tuple[str, ...] = (),
    out: str | Path | None = None,
) -> Scored:
    """Compute PSNR and SSIM, on Y and on RGB, of a folder of upscaled pictures against the true ones: means over pictures.

    Pictures are paired by their paths without suffix. The truth is cropped to a multiple of the scale, at the right and at the
    bottom; the upscaled picture must have just that size. Alpha is not scored; 16 bits are scored as number / 257.

    scale   how many times larger than its source each upscaled picture is
    border  pixels that do not count on each side; by default as many as the scale
    grey    rgb: grey is repeated to RGB first, as the field does; own: the grey plane itself is the Y (1.32 dB lower)
    suffix  what stands behind the true picture's name in the other's (_x4 for baby_x4.png; empty: nothing); found where there
            is only one
    more    further measures: ms_ssim, haarpsi, gmsd; lpips and dists where their weights are on disk
    out     a new file (.jsonl) for one record a picture
    """
    _check(scale, border, more)
    file = new_file(out, ".jsonl") if out else None
    pairs, warnings = _pairs(os.fspath(truth), os.fspath(upscaled), suffix)
    border = scale if border is None else border
    records = _records(pairs, scale, border, grey, more)
    found = summary([row["scores"] for row in records])
    cropped = [row for row in records if row["cropped"]]
    if cropped:
        warnings.append(
            f"{counted(len(cropped), 'true picture')} of {len(records)} cropped to a multiple of {scale} "
            f"({cropped[0]['file']}: {cropped[0]['cropped']})"
        )
    warnings += found.notes
    for warning in warnings:
        note(warning)
    if file:
        write_records(file, [_line(row) for row in records])
    settings = {"protocol": "images", "scale": scale, "border": border, "grey": grey, "more": [*more]}
    equal = sum(row["scores"]["psnr_rgb"] == float("inf") for row in records)
    counts = {"pictures": len(records), "cropped": len(cropped), "equal": equal}
    return Scored(found.metrics, {}, settings, counts, {}, warnings, found.intervals)


def _check(scale: int, border: int | None, more: tuple[str, ...]) -> None:
    """Raise RecipeError with every setting that is wrong by itself."""
    problems = [f"scale={scale}: expected a whole number from 1 on"] if scale < 1 else []
    problems += [f"border={border}: expected 0 or more pixels"] if border is not None and border < 0 else []
    if more:
        from ...tasks.super_resolution.measures.of_piq import check

        try:
            check(more)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)


def _pairs(truth: str, upscaled: str, suffix: str | None) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Pair the pictures of both folders: their common name and both files; and remarks.

    Raises DataError for half a pair, for names that can be paired in two ways, and where there is nothing to pair.
    """
    (true, other), remarks = (_found(truth), _found(upscaled)), []
    readings = _suffixes(true, other) if suffix is None else [suffix]
    if len(readings) > 1:
        shown = " or ".join(f"suffix={end or chr(34) * 2} ({next(iter(true))}{end})" for end in readings)
        raise DataError(f"{upscaled}: the names can be paired in {len(readings)} ways; say which is meant: {shown}")
    end = readings[0] if readings else ""
    lacking = [f"{storage.join(truth, file)}: has no upscaled picture {name}{end}.* in {upscaled}" for name, file in
               true.items() if name + end not in other]  # fmt: skip
    extra = [file for name, file in other.items() if name.removesuffix(end) not in true or not name.endswith(end)]
    if suffix is None:
        lacking += [f"{storage.join(upscaled, file)}: has no true picture in {truth}" for file in extra]
    elif extra:
        what = f"without {end}" if end else "of other names"
        remarks.append(f"{upscaled}: {counted(len(extra), 'picture')} {what} do not count: {', '.join(extra[:_FEW])}")
    if lacking:
        more = [f"and {len(lacking) - _LISTED} more"] if len(lacking) > _LISTED else []
        raise DataError("\n".join(["half a pair:", *lacking[:_LISTED], *more]) if len(lacking) > 1 else lacking[0])
    if end:
        remarks.append(f"paired by the suffix {end}: {next(iter(true.values()))} with {other[next(iter(true)) + end]}")
    return [(n, storage.join(truth, f), storage.join(upscaled, other[n + end])) for n, f in true.items()], remarks


def _suffixes(true: dict[str, str], other: dict[str, str]) -> list[str]:
    """List the ends that lead from every true picture's name to an upscaled one's; the empty one is that of equal names."""
    first = next(iter(true))
    ends = sorted({name.removeprefix(first) for name in other if name.startswith(first)})
    return [end for end in ends if "/" not in end and all(name + end in other for name in true)]


def _found(folder: str) -> dict[str, str]:
    """List a folder's pictures by their paths without suffix.

    Raises DataError where there is no folder, no picture, or two of one name.
    """
    if not storage.is_remote(folder) and not Path(folder).is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found: dict[str, str] = {}
    every = _without_sheet(folder, files_in(folder))
    for file in (f for f in every if PurePosixPath(f).suffix.lower() in FORMATS):
        name = str(PurePosixPath(file).with_suffix(""))
        if name in found:
            raise DataError(f"{folder}: two pictures of one name, {found[name]} and {file}: leave one there")
        found[name] = file
    if not found:
        raise DataError(f"{folder}: holds no picture ({', '.join(FORMATS)})")
    if left := [f for f in every if f not in found.values()]:
        note(f"{folder}: {counted(len(left), 'file')} of other kinds are left out: {', '.join(left[:_FEW])}")
    return found


def _without_sheet(folder: str, files: list[str]) -> list[str]:
    """Leave out what `predict` draws beside the pictures that it makes: its sheet and `pictures/`, unless its lines name them."""
    if PREDICTIONS not in files:
        return files
    lines = text_of(storage.join(folder, PREDICTIONS))
    return [
        file for file in files if not (file == SHEET or file.startswith(DRAWN)) or f'"made": "{file}"' in lines
    ]  # fmt: skip


def _records(
    pairs: list[tuple[str, str, str]], scale: int, border: int, grey: Literal["rgb", "own"], more: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Score all pairs. Raises DataError with up to 20 that are wrong."""
    records, problems = [], []
    with bar("score", len(pairs), "pictures") as advance:
        for name, truth, upscaled in pairs:
            try:
                records.append({"file": name, "truth": truth, "upscaled": upscaled,
                                **_record(truth, upscaled, scale, border, grey, more)})  # fmt: skip
            except DataError as error:
                problems.append(str(error))
                if len(problems) == _LISTED:
                    break
            advance()
    if problems:
        raise DataError("\n".join(problems))
    return records


def _record(
    truth: str, upscaled: str, scale: int, border: int, grey: Literal["rgb", "own"], more: tuple[str, ...]
) -> dict[str, Any]:
    true, found = read_picture(truth).pixels, read_picture(upscaled).pixels
    height, width = (side - side % scale for side in true.shape[:2])
    if found.shape[:2] != (height, width) or not min(height, width):
        raise DataError(f"{upscaled}: {_size_problem(true.shape, found.shape, scale)} ({truth})")
    try:
        scores = compare(true[:height, :width], found, border, grey, more)
    except DataError as error:
        raise DataError(f"{upscaled}: {error}") from None
    is_cropped = true.shape[:2] != (height, width)
    return {"cropped": f"{_size(true.shape)} to {_size(found.shape)}" if is_cropped else "", "scores": scores}


def _size_problem(true: tuple[int, ...], found: tuple[int, ...], scale: int) -> str:
    """Say why an upscaled picture's size is wrong, what was expected, and what would fit."""
    cropped = tuple(side - side % scale for side in true[:2])
    said = f"is {_size(found)} pixels; of its true picture of {_size(true)}, scale={scale} leaves {_size(cropped)}"
    up = tuple(-(-side // scale) * scale for side in true[:2])
    fits = [s for s in _SCALES if tuple(side - side % s for side in true[:2]) == found[:2]]
    resized = "the truth was resized and not cropped: shrink the cropped truth, and upscale that"
    if fits:
        return f"{said}: scale={' or '.join(map(str, fits))} would fit; where {scale} is right, {resized}"
    if found[:2] in (true[:2], up):
        return f"{said}: {resized}"
    if found[:2] == (cropped[1], cropped[0]):
        return f"{said}: its sides are exchanged; turn one of the two"
    if fits := [s for s in _SCALES if tuple(side // s for side in true[:2]) == found[:2]]:
        return f"{said}: it is {fits[0]} times smaller, as the source is; give the folder of the upscaled pictures"
    if tuple(side - side % scale for side in found[:2]) == true[:2] or min(found[0] - up[0], found[1] - up[1]) > 0:
        return f"{said}: it is larger than the truth; the folder of the true pictures is named first"
    return f"{said}: {resized}"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a record to what JSON can hold: a PSNR of infinity is null, beside `equal`."""
    scores = {n: None if v == float("inf") else v for n, v in row["scores"].items()}
    return {**{k: row[k] for k in ("file", "truth", "upscaled", "cropped")}, **scores, "equal": None in scores.values()}
