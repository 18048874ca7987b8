"""The class folders of one split: the form in which a walk through folders, a listing, shards and tables all give them."""

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
    table: str = ""  # the file that says the classes, where it is not the folders
    groups: tuple[str, ...] = ()  # of each row, what its column `group` says
    notes: list[str] = field(default_factory=list)  # repairs and remarks

    def skippable(self, where: str) -> bool:
        """Say whether something is left of the split, and of the class, when the stray file `where` is left out."""
        return len(self.index) > 0 and not any(where.startswith(f"{cls}/") for cls in self.empty)

    @property
    def place(self) -> str:
        """Name the folder or table as messages do."""
        return self.table or (f"{self.name}/" if self.name else "the data")


def class_name(name: str) -> str:
    """Convert a folder's name to the class's name: Unicode's normal form C (macOS writes D), always printable."""
    return unicodedata.normalize("NFC", printable(os.fsencode(name)))
