"""The class folders of one split: the form in which a walk through folders, a listing and shards all give them."""

import os
import unicodedata
from dataclasses import dataclass, field

from ..data.file_index import FileIndex, printable

SPLITS = ("train", "val")


OTHER_NAMES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "val",
    "testing": "val",
    "eval": "val",
}


@dataclass
class Folder:
    """The class folders of one split: `index.labels` count in `classes`.

    `strays` are files left out, id to reason; `empty` the folders of classes without a picture, id to what they hold.
    """

    name: str  # "train", "val", or "" where the root itself holds the classes
    classes: tuple[str, ...]
    index: FileIndex
    strays: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (file or folder, what is wrong)
    empty: dict[str, str] = field(default_factory=dict)


def class_name(name: str) -> str:
    """Convert a folder's name to the class's name: Unicode's normal form C (macOS writes D), always printable."""
    return unicodedata.normalize("NFC", printable(os.fsencode(name)))
