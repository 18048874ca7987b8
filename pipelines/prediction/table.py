"""What predicts without a model, by the word that stands in the place of its file. Imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.ground.names import load_named

from ..runs.run import Run

BASELINES = {"bicubic": "trunkline.pipelines.prediction.bicubic:bicubic"}


def baseline(source: str | Path) -> Callable[..., Any] | None:
    """Return the function that a word stands for; None where it is none, or a file or a run of that name exists.

    The function takes a list of files, folders and globs, and its settings as keywords; it yields an object for each file.
    """
    if not isinstance(source, str) or source not in BASELINES:
        return None
    run = Run(source)
    taken = Path(source).is_file() or run.exists() or run.weights.is_file()
    return None if taken else load_named(BASELINES[source])  # a folder of its own results (out=bicubic) does not count
