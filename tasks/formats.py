"""The format of a data folder, by what lies in it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from .data.words import WORDS

CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
"""What YOLO's file of a data set is called."""
_MASKS = {  # folders by which a format of masks is known
    "sbd": {"img", "cls"},
    "cityscapes": {"leftImg8bit", "gtFine"},
    "camvid": {"train", "trainannot"},
    "pairs": {"images", "masks"},
    "ade20k": {"images", "annotations"},
}


def format_of(root: str | os.PathLike[str]) -> str:
    """Find the format of a data folder by what lies in it; `folders` where it shows none."""
    try:
        there = storage.entries(root)
        names, files = {e.name for e in there if e.folder}, {e.name for e in there if not e.folder}
        inner = (
            {e.name for e in storage.entries(storage.join(root, "annotations"))} if "annotations" in names else set()
        )
    except OSError:
        return "folders"
    if not storage.is_remote(root) and (form := _of_events(Path(root))):
        return form
    if any(name.endswith(".json") for name in inner):
        return "coco"
    if "annotations" in names and not storage.is_remote(root) and _has_xml(Path(root, "annotations")):
        return "voc"
    if "ImageSets" in names and names & {"Annotations", "SegmentationClass"}:
        return "voc"
    if files & {*CONFIGS} or {"images", "labels"} <= names:
        return "yolo"
    for form, folders in _MASKS.items():
        if folders <= names:
            return form
    if "classes.txt" in files and names & {"images", "masks"} and not ("masks" not in names and _tables(files)):
        return "pairs"
    if storage.is_remote(root):
        return "folders"
    return _of_lists(Path(root)) or _of_labels(Path(root), names, files)


def looks_like(root: str, form: str, known: Iterable[str]) -> str:
    """Return what a message adds where a folder shows another format than `form`, of the `known` ones; else ""."""
    seen = format_of(root)
    if seen not in known or seen == form or form.startswith(f"{seen}-"):
        return ""
    return f"; it looks like format={seen}: give that"


def _of_events(root: Path) -> str:
    """Find the format of a folder's annotations of events in long videos; "" where there are none."""
    from .events.reading import form_of

    try:
        return form_of(root)
    except (DataError, OSError):
        return ""


def _of_lists(root: Path) -> str:
    """Find which published data set of clips the lists in a folder are of; "" where there are none."""
    from .video.published import form_of

    try:
        return form_of(root)
    except OSError:
        return ""


def _of_labels(root: Path, names: set[str], files: set[str]) -> str:
    """Find the format by the files of labels beside pictures, or by those of the data's own folder."""
    train = next((root / word for words in WORDS.values() for word in words if word in names), root)
    there = [e.name for e in storage.entries(train)]
    if any((root / s / "_annotations.coco.json").is_file() for s in (".", "train", "valid", "val")):
        return "coco"
    if any((root / s / "labels").is_dir() and (root / s / "images").is_dir() for s in ("train", "valid", "val")):
        return "yolo"
    tables = [*(root / name for name in files), *(train / name for name in there)]
    ends = {path.suffix.lower() for path in tables}
    if ".xml" in ends or {"Annotations", "JPEGImages"} <= names or {"annotations", "images"} <= names:
        return "voc"
    if jsons := [path for path in tables if path.suffix.lower() == ".json"]:
        from .objects.labels import label_studio, labelme

        if any(map(labelme.is_labelme, jsons[:20])):
            return "labelme"
        if label_studio.is_label_studio(jsons[0]):
            return "labelstudio"
        return next((form for path in jsons[:20] if (form := _of_broken(path))), "folders")
    return "csv" if any(_has_boxes(path) for path in tables if _tables([path.name])) else "folders"


def _of_broken(file: Path) -> str:
    """Find the format of a JSON file that is damaged, by its keys; "" where they show none, and for whole ones."""
    try:
        head = bytes(storage.read(file))
        json.loads(head)
        return ""
    except OSError:
        return ""
    except (ValueError, RecursionError):
        pass
    if b'"shapes"' in head or b'"imagePath"' in head:
        return "labelme"
    return "labelstudio" if b'"data"' in head and (b'"annotations"' in head or b'"completions"' in head) else ""


def _tables(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.lower().endswith((".csv", ".tsv", ".jsonl"))]


def _has_xml(folder: Path) -> bool:
    """Say whether a folder, or one in it, begins with XML files."""
    there = [*folder.iterdir()]
    inner = [next(p.iterdir(), p) for p in there if p.is_dir()]
    return any(p.suffix.lower() == ".xml" for p in [*there[:10], *inner])


def _has_boxes(table: Path) -> bool:
    from .objects.labels import rows

    try:
        columns = rows.columns_of(table)
    except DataError:
        return False
    return bool(columns.corners or columns.sides)
