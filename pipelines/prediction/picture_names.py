"""Where pictures that are made of pictures are written: names, subfolders and formats as they are, nothing over another."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.ranges import problems_of

from ...tasks.images.photos import left_out, photos
from ...tasks.predicted import Writing
from ...tasks.super_resolution.files import FORMATS

_LISTED = 20
_LONGEST = 255  # bytes of a name, on almost all file systems


def writing_problems(writing: Writing) -> list[str]:
    """List what pictures cannot be written as: numbers out of range, a suffix that is a folder, an unknown format."""
    unknown = writing.end and writing.end not in FORMATS
    return problems_of(writing) + ([f"ext={writing.end}: expected {', '.join(FORMATS)}"] if unknown else [])


def targets(
    inputs: list[str], out: Path, writing: Writing, reserved: Mapping[str, str] | None = None
) -> list[tuple[Path, Path]]:
    """Plan the files below `out` that the pictures of files, folders and globs become: `(picture, file)`, in order, each once.

    What lies in a subfolder of a folder goes into the same of `out`; a picture that is given by two paths has the first one.
    `reserved` are names in `out` that something else has, each with what that is; a folder's holds for all below it. Raises
    RecipeError for inputs without a picture, names that two pictures would get or that are reserved, what `writing_problems`
    lists, an `out` that is a file or lies in a folder that is read, names of more than 255 bytes, and files in the way:
    folders, links that lead nowhere, and the pictures that are read.
    """
    problems = writing_problems(writing)
    if out.exists() and not out.is_dir():
        problems.append(f"out={out}: is a file; give a folder for the pictures")
    planned: dict[str, tuple[Path, Path]] = {}
    taken: dict[Path, Path] = {}
    for given in inputs:
        folder = Path(given) if Path(given).is_dir() else None
        if folder and (out.absolute() == folder.absolute() or folder.absolute() in out.absolute().parents):
            problems.append(f"out={out}: lies in {given}, which is read; choose a folder beside it")
            continue
        found = [*photos(given)]
        if not found:
            nothing = (
                f"{given}: there is no such file, no picture in that folder, and nothing that this pattern matches"
            )
            problems.append("; ".join(filter(None, [nothing, left_out(given)])))
        for picture in found:
            below = picture.relative_to(folder) if folder else Path(picture.name)
            file = out / below.with_name(below.stem + writing.suffix + (writing.end or below.suffix))
            if _place(first := taken.setdefault(file, picture)) != _place(picture):
                if os.path.realpath(first) == os.path.realpath(picture):
                    continue
                problems.append(f"{first} and {picture}: both would become {file}; give another out= to one of them")
            planned.setdefault(_place(picture), (picture, file))
    plan = [*planned.values()]
    if problems := problems + _in_the_way(plan, out, reserved or {}):
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise RecipeError(problems[:_LISTED] + more)
    return plan


def drawn_name(name: str) -> str:
    """Return the name of a PNG as it is, or cut to 255 bytes; then a digest stands for what is cut."""
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    end = f"-{hashlib.sha256(whole).hexdigest()[:16]}.png"
    return whole[: _LONGEST - len(end)].decode(errors="ignore") + end


def _place(path: Path) -> str:
    """Write a path in one form; a link is a file of its own."""
    return os.path.abspath(path)  # noqa: PTH100 - a `..` goes too


def _in_the_way(plan: list[tuple[Path, Path]], out: Path, reserved: Mapping[str, str]) -> list[str]:
    """List the files that cannot be made where they are planned."""
    problems: list[str] = []
    read: set[str] = set()
    for picture, file in plan:
        below = file.relative_to(out)
        if (length := len(os.fsencode(file.name))) > _LONGEST:
            problems.append(
                f"{picture}: would become a file with a name of {length} bytes, and {_LONGEST} is the most: give a shorter "
                "suffix=, or rename it"
            )
        if what := reserved.get(below.parts[0].lower()):
            remedy = "give suffix=, as _x4" if len(below.parts) == 1 else "give that folder an out= of its own"
            problems.append(f"{picture}: would become {file}, and there {what}; {remedy}")
        elif os.path.lexists(file):
            read = read or {os.path.realpath(p) for p, _ in plan}
            if os.path.realpath(file) in read:
                problems.append(f"{picture}: would become {file}, which is read; choose another out=, or give suffix=")
            elif not file.is_file():
                kind = "a folder" if file.is_dir() else "no file, or a link that leads nowhere"
                problems.append(f"{file}: is {kind}, and {picture} would become it; remove it, or choose another out=")
    return problems
