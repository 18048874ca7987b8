"""The format of a data folder, by what lies in it."""

import os

from trunkline.ground import storage

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
    if any(name.endswith(".json") for name in inner):
        return "coco"
    if "ImageSets" in names and names & {"Annotations", "SegmentationClass"}:
        return "voc"
    for form, folders in _MASKS.items():
        if folders <= names:
            return form
    if "classes.txt" in files and names & {"images", "masks"}:
        return "pairs"
    roboflow = any(os.path.isfile(os.path.join(root, s, "_annotations.coco.json")) for s in ("train", "valid"))  # noqa: PTH113, PTH118
    return "coco" if roboflow else "folders"
