"""The formats of labels besides COCO and VOC, and how a split of one is found and read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError
from trunkline.ground.storage import is_remote

from . import box_rows, label_studio, labelme, rows, yolo
from .labelled import Labels, Reading


@dataclass(frozen=True)
class Format:
    """A format: `find(data, split, given)` and `flat(data)` find its files or None; `read(found, reading)` reads them."""

    find: Callable[[str, str, tuple[str, ...]], Any]
    flat: Callable[[str], Any]
    read: Callable[[Any, Reading], Labels]
    expected: str


_YOLO = Format(yolo.find, yolo.flat, yolo.read, "data.yaml with train: and val:, or images/train and labels/train")
FORMATS: dict[str, Format] = {
    "yolo": _YOLO,
    "yolo-seg": _YOLO,
    "yolo-obb": _YOLO,
    "labelme": Format(labelme.find, labelme.flat, labelme.read, "train/ and val/ with pictures and their JSON files"),
    "labelstudio": Format(label_studio.find, label_studio.flat, label_studio.read, "train.json and val.json"),
    "csv": Format(rows.find, rows.flat, box_rows.read, "train.csv and val.csv (or .tsv, .jsonl), or a column split"),
}


def has_split(data: str, form: str, split: str, given: tuple[str, ...] = ()) -> bool:
    """Say whether the data has files of a split."""
    return not is_remote(data) and Path(data).is_dir() and FORMATS[form].find(data, split, given) is not None


def read_labels(data: str, split: str, given: tuple[str, ...], reading: Reading, whole: bool = False) -> Labels:
    """Read a split of labels of the format `reading.form`; with `whole`, all that is not split.

    Raises DataError where there is no such split, and as the readers.
    """
    form = FORMATS[reading.form]
    if is_remote(data):
        raise DataError(f"{data}: data of format={reading.form} is read from folders of this machine")
    if not Path(data).is_dir():
        raise DataError(f"{data}: there is no such folder")
    found = form.find(data, split, given) or (form.flat(data) if whole else None)
    if found is not None:
        return form.read(found, reading)
    hint = "; give val=0.2 to hold out a fifth of its pictures" if not whole and form.flat(data) is not None else ""
    raise DataError(f"{data}: has no {split} of format={reading.form}; expected {form.expected}{hint}")
