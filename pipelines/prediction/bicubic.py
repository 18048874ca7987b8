"""Upscaling by bicubic interpolation, with which every model is compared."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.storage import at_home

from ...tasks.data.repairs import counted
from ...tasks.images.photos import left_out
from ...tasks.predicted import Predicted, Writing
from ...tasks.super_resolution.files import Look, Picture, look_at, read_picture, why_not, write_picture
from ...tasks.super_resolution.resize import resized_integers
from ..show import bar, note
from .picture_names import targets, writing_problems
from .predictions import SETTINGS

_LISTED = 20


@dataclass
class Upscaled(Predicted):
    """A picture that was upscaled: the file `out`, its size in pixels, and whether it was written now or there already."""

    columns: ClassVar[tuple[str, ...]] = ("out", "width", "height", "written")
    headings: ClassVar[tuple[str, ...]] = columns

    out: str = ""
    width: int = 0
    height: int = 0
    written: bool = True

    def found(self) -> dict[str, Any]:
        """Return the fields."""
        return {name: getattr(self, name) for name in self.columns}

    def row(self) -> list[str]:
        """Write a cell for each field."""
        return [self.out, str(self.width), str(self.height), "now" if self.written else "before"]

    def caption(self) -> str:
        """Write its name and its size."""
        return f"{Path(self.file).name}: {self.width} x {self.height}"


def bicubic(
    inputs: str | Path | Iterable[str | Path],
    *,
    scale: int,
    out: str | Path,
    suffix: str = "",
    ext: str = "",
    quality: int = 95,
) -> Iterator[Upscaled]:
    """Upscale pictures by MATLAB's bicubic interpolation (a = -0.5), rounded after each pass: the baseline of all tables.

    Each picture stays what it is: name and subfolder, format, 8 or 16 bits, grey, alpha (bicubic too), ICC profile. What is
    there already is kept. A picture that cannot be read becomes a line with its error.

    scale    how many times larger
    out      a folder for the pictures
    suffix   what is put behind each name (_x4)
    ext      another format for all (.png); by default each keeps its own
    quality  of JPEG and WebP, 1 to 100
    """
    problems = [f"scale={scale}: expected a whole number from 2 to 16"] if not 2 <= scale <= 16 else []
    writing = Writing(suffix, ext, quality)
    if not str(out):
        problems.append("out= is missing: give a folder for the pictures")
    if problems := problems + writing_problems(writing):
        raise RecipeError(problems)
    given = [at_home(i) for i in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    folder = Path(at_home(out))
    if (folder / SETTINGS).exists():
        raise RecipeError(f"out={out}: holds pictures that a network made ({SETTINGS} says how); choose another folder")
    plan = targets(given, folder, writing)
    unread = _check(plan, scale)
    for said in (f"{folder}: {line}" for folder in given if (line := left_out(folder))):
        note(said)
    return _upscale(plan, unread, scale, quality, out)


def _check(plan: list[tuple[Path, Path]], scale: int) -> dict[Path, str]:
    """Look at every picture before the first is made; return those that cannot be read, with the reason.

    Raises RecipeError for pictures that their files' formats do not hold, and for files that are there with another size.
    """
    unread: dict[Path, str] = {}
    problems: list[str] = []
    for picture, file in plan:
        try:
            look = _times(look_at(picture), scale)
        except DataError as error:
            unread[picture] = str(error)
            continue
        if wrong := why_not(file, look):
            problems.append(f"{picture}: {wrong} (ext=)")
        elif file.exists() or file.is_symlink():
            problems += _other(file, look)
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise RecipeError(problems[:_LISTED] + more)
    return unread


def _times(look: Look, scale: int) -> Look:
    return replace(look, height=look.height * scale, width=look.width * scale)


def _other(file: Path, wanted: Look) -> list[str]:
    """Say what is wrong with a file that is there already; [] where it may be what would be made."""
    try:
        there = look_at(file)
    except DataError as error:
        return [f"{error} (it is there already, and nothing is written over: remove it, or choose another out=)"]
    if (there.height, there.width) == (wanted.height, wanted.width):
        return []
    return [
        f"{file}: is there already with {there.width} x {there.height} pixels, and would have {wanted.width} x {wanted.height}; "
        "nothing is written over: remove it, or choose another out="
    ]


def _upscale(
    plan: list[tuple[Path, Path]], unread: dict[Path, str], scale: int, quality: int, out: str | Path
) -> Iterator[Upscaled]:
    kept = made = failed = 0
    with bar("upscale", len(plan), "pictures") as advance:
        for picture, file in plan:
            try:
                if picture in unread:
                    raise DataError(unread[picture])
                is_there = file.exists()
                kept += is_there
                look = look_at(file) if is_there else _write(picture, file, scale, quality)
                made += not is_there
                yield Upscaled(str(picture), None, str(file), look.width, look.height, not is_there)
            except DataError as error:
                failed += 1
                yield Upscaled(str(picture), str(error))
            advance()
    said = f" ({counted(kept, 'picture')} were there already and are kept)" if kept else ""
    lost = f"; {counted(failed, 'picture')} failed" if failed else ""
    note(f"wrote {counted(made, 'picture')} into {out}{said}{lost}")


def _write(picture: Path, file: Path, scale: int, quality: int) -> Look:
    read = read_picture(picture)
    planes = [None if p is None else _upscaled(p, scale) for p in (read.pixels, read.alpha)]
    assert planes[0] is not None
    made = Picture(planes[0], planes[1], read.icc, read.format)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(file, made, quality)
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written ({error.strerror}); mend that, or choose another out=") from None
    return made.look


def _upscaled(pixels: Any, scale: int) -> Any:
    return resized_integers(pixels, pixels.shape[0] * scale, pixels.shape[1] * scale)
