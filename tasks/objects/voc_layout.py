"""Where VOC's annotations and their pictures lie: by image lists, or XML files in folders that no list names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trunkline.ground.errors import DataError

from ..data.below import files_in
from ..data.repairs import Repairs
from ..images.suffixes import SUFFIXES
from .voc_file import read_list

_PICTURES = ("JPEGImages", "images", "Images", "imgs", "img")  # beside a folder of annotations
_ANNOTATIONS = ("Annotations", "annotations", "xmls", "xml", "labels")


@dataclass(frozen=True)
class VocPart:
    """Annotations and pictures that lie together: the names of `ANNOTATIONS/NAME.xml`, and the folder of the pictures.

    `below` is the folder of the pictures as the index's names begin; `repairs` counts what is mended of it.
    """

    annotations: Path
    pictures: Path
    below: str
    names: list[str]
    repairs: Repairs


def listed(file: Path) -> VocPart:
    """Find what a list names. It is in `ROOT/ImageSets/KIND/`, beside `ROOT/Annotations` and `ROOT/JPEGImages`."""
    root, repairs = root_of(file), Repairs(str(file))
    names = read_list(file, lambda name: (root / "Annotations" / f"{name}.xml").is_file(), repairs)
    return VocPart(root / "Annotations", root / "JPEGImages", f"{root.name}/JPEGImages", names, repairs)


def flat(folder: Path) -> list[VocPart]:
    """Find the XML files below a folder: in `Annotations/` with the pictures in a folder beside it, or beside pictures.

    Empty where there is none, or no such folder.
    """
    if not folder.is_dir():
        return []
    word = next((word for word in _ANNOTATIONS if (folder / word).is_dir() and files_in(folder / word, (".xml",))), "")
    beside = next((name for name in _PICTURES if (folder / name).is_dir()), word) if word else ""
    found: dict[str, list[str]] = {}
    for name in files_in(folder / word, (".xml",)):
        path = PurePosixPath(name)
        found.setdefault(path.parent.as_posix(), []).append(path.name[: -len(".xml")])
    return [
        VocPart(folder / word / inside, folder / beside / inside, PurePosixPath(beside, inside).as_posix().strip("."), names,
                Repairs(str(folder / word / inside)))
        for inside, names in found.items()
    ]  # fmt: skip


def root_of(file: Path) -> Path:
    """Find the folder of the VOC data set that a list belongs to. Raises DataError where the list lies elsewhere."""
    parents = file.absolute().parents
    root = parents[2] if len(parents) > 2 else parents[0]
    if not (root / "Annotations").is_dir():
        raise DataError(
            f"{file}: expected a list in ROOT/ImageSets/Main/ beside ROOT/Annotations; there is no {root}/Annotations"
        )
    return root


def by_stem(folder: Path) -> dict[str, list[str]]:
    """List a folder's pictures by their names without suffix; also by these in small letters, where no other has them."""
    try:
        stems = sorted((e.name, *os.path.splitext(e.name)) for e in os.scandir(folder))  # noqa: PTH122
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for name, stem, suffix in stems:
        if suffix.lower() in SUFFIXES:
            found.setdefault(stem, []).append(name)
    small: dict[str, list[str]] = {}
    for stem, names in found.items():
        small.setdefault(stem.lower(), []).extend(names)
    return small | found


def picture_of(pictures: Mapping[str, list[str]], name: str, filename: str = "") -> str:
    """Find the picture of a name, whatever its suffix and the case of its letters, else the one that the annotation names.

    Raises DataError where two fit.
    """
    found = pictures.get(name) or pictures.get(name.lower(), [])
    if len(found) > 1:
        raise DataError(f"{name}: two pictures have this name, {' and '.join(found)}; leave one")
    known = {name for names in pictures.values() for name in names} if not found else ()
    return found[0] if found else filename if filename in known else f"{name}.jpg"
