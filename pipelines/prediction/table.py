"""What predicts without a model, by the word that stands in the place of its file. Imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.ground.names import load_named

BASELINES = {"bicubic": "trunkline.pipelines.prediction.bicubic:bicubic"}


def baseline(source: str | Path) -> Callable[..., Any] | None:
    """Return the function that a word stands for; None where it is none, or a file or folder of that name exists.

    The function takes a list of files, folders and globs, and its settings as keywords; it yields an object for each file.
    """
    known = isinstance(source, str) and source in BASELINES and not Path(source).exists()
    return load_named(BASELINES[str(source)]) if known else None
