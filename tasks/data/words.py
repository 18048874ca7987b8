"""What people call the splits of a data set."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from trunkline.ground.errors import DataError

WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""The names of folders, files and columns, by split."""

ALL_WORDS = tuple(word for words in WORDS.values() for word in words)


@contextmanager
def calling(name: str) -> Iterator[None]:
    """Call the setting `format=` in what is raised as the verb calls it: `truth_format=`, `source_format=`."""
    try:
        yield
    except DataError as error:
        raise DataError(re.sub(r"\bformat=", f"{name}=", str(error))) from None
