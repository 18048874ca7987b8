"""Folds: all samples of a data set, divided so that each is validated once, by a model that never saw its group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from .groups import group_names
from .repairs import counted
from .split import fold_rows

_FEW = 3  # names that a line lists


@dataclass(frozen=True)
class Folds:
    """All samples and the fold of each, `(N,)` int64; `notes` are what a person should know of it."""

    whole: Any
    numbers: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.numbers.max()) + 1

    def split(self, name: str, fold: int) -> Any:
        """Take the samples of the split `val` (those of this fold) or `train` (all others)."""
        return self.whole.take((self.numbers == fold) == (name == "val"), name)


def divided(whole: Any, options: Any) -> Folds:
    """Divide all samples as the options `folds` and `group` say.

    Groups are a column of the data's table, what `group` finds in the ids, or what the names of known data sets say. Where the
    samples have `labels`, an array, classes are spread evenly. Raises DataError where there are too few groups, or the fold
    that is asked for is not there.
    """
    labels = getattr(whole, "labels", None)
    one_each = isinstance(labels, np.ndarray)  # else the samples are of no class, or of several
    classes = whole.classes if one_each else ("",)
    labels = labels if one_each else np.zeros(len(whole), np.int64)
    names = group_names(whole, options.group)
    numbers = fold_rows(whole.id, labels, classes, options.folds, names)
    found = Folds(whole, numbers, _notes(numbers, labels, classes, names))
    if options.fold is not None and options.fold >= found.count:
        raise DataError(
            f"fold={options.fold}: of folds={options.folds} expected 0 to {found.count - 1}: so many there are here"
        )
    return found


def fold_of(whole: Any, options: Any, split: str) -> Any:
    """Take a split of all samples, where the options say folds; without a number, those of the first."""
    return divided(whole, options).split(split, options.fold or 0)


def joining(sizes: Sequence[str]) -> str:
    """Say that folds join the splits that the data has; `sizes` has `48 samples of train.csv` for each."""
    return f"the data's own split does not count: {' and '.join(sizes)} are divided into folds together"


def _notes(
    numbers: np.ndarray, labels: np.ndarray, classes: Sequence[str], names: Sequence[str] | None
) -> tuple[str, ...]:
    """Say how large the folds are, what they are made of, and which classes a fold has to itself."""
    sizes = np.bincount(numbers)
    of = "samples that belong to no group that is known" if names is None else counted(len({*names}), "group")
    shown = f"{sizes.min()} to {sizes.max()}" if sizes.min() < sizes.max() else f"{sizes.min()}"
    said = [f"{len(sizes)} folds of {of}: {len(numbers)} samples, {shown} in each"]
    table = np.zeros((len(classes), len(sizes)), np.int64)
    np.add.at(table, (labels, numbers), 1)
    alone = [name for name, row in zip(classes, table, strict=True) if name and np.count_nonzero(row) == 1]
    if alone:
        more = f" and {len(alone) - _FEW} more" if len(alone) > _FEW else ""
        said.append(
            f"all samples of {', '.join(alone[:_FEW])}{more} are in one fold: the model that is scored on them never saw such"
        )
    return tuple(said)
