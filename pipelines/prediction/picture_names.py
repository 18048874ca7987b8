"""Where pictures that are made of pictures are written: names, subfolders and formats as they are, nothing over another."""

from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.ranges import problems_of

from ...tasks.images.photos import photos
from ...tasks.predicted import Writing
from ...tasks.super_resolution.files import FORMATS

_LISTED = 20


def writing_problems(writing: Writing) -> list[str]:
    """List what pictures cannot be written as: numbers out of range, a suffix that is a folder, an unknown format."""
    unknown = writing.end and writing.end not in FORMATS
    return problems_of(writing) + ([f"ext={writing.end}: expected {', '.join(FORMATS)}"] if unknown else [])


def targets(inputs: list[str], out: Path, writing: Writing) -> list[tuple[Path, Path]]:
    """Plan the files below `out` that the pictures of files, folders and globs become: `(picture, file)`, in order, each once.

    What lies in a subfolder of a folder goes into the same of `out`. Raises RecipeError for inputs without a picture, names that
    two pictures would get, what `writing_problems` lists, and an `out` that lies in a folder that is read.
    """
    problems = writing_problems(writing)
    planned: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for given in inputs:
        folder = Path(given) if Path(given).is_dir() else None
        if folder and (out.absolute() == folder.absolute() or folder.absolute() in out.absolute().parents):
            problems.append(f"out={out}: lies in {given}, which is read; choose a folder beside it")
            continue
        found = [*photos(given)]
        if not found:
            problems.append(
                f"{given}: there is no such file, no picture in that folder, and nothing that this pattern matches"
            )
        for picture in found:
            below = picture.relative_to(folder) if folder else Path(picture.name)
            file = out / below.with_name(below.stem + writing.suffix + (writing.end or below.suffix))
            if taken.setdefault(file, picture).absolute() != picture.absolute():
                problems.append(
                    f"{taken[file]} and {picture}: both would become {file}; give another out= to one of them"
                )
            planned.setdefault(picture, file)
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise RecipeError(problems[:_LISTED] + more)
    return [*planned.items()]
