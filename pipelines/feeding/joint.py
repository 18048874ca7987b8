"""The pictures of one data set that several tasks label, each all of them or some."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trunkline.ground.errors import RecipeError

from ...tasks.samples import Samples


@dataclass(frozen=True)
class Joint:
    """All pictures that one of the tasks labels: those of the first, in their order, then what the others have besides.

    rows    for each task, which of its samples each picture is, `(count,)` int64; -1: it does not label it
    units, groups  as a `Plan` takes them
    """

    count: int
    rows: tuple[np.ndarray, ...]
    units: np.ndarray | None
    groups: np.ndarray | None

    @classmethod
    def of(cls, each: Sequence[Samples]) -> "Joint":
        """Join the samples of each task by their files' addresses."""
        if len(each) == 1:
            (only,) = each
            return cls(len(only), (np.arange(len(only)),), only.units(), only.groups(True))
        place: dict[str, int] = {}
        found = [[place.setdefault(str(s.source(i)), len(place)) for i in range(len(s))] for s in each]
        for own, samples in zip(found, each, strict=True):
            if len(set(own)) < len(own):
                twice = next(i for i, at in enumerate(own) if at in own[:i])
                raise RecipeError(
                    f"{samples.source(twice)}: stands there twice, and in a shared batch a picture is one sample of a task"
                )
        rows = tuple(np.full(len(place), -1, np.int64) for _ in each)
        for own, at in zip(rows, found, strict=True):
            own[at] = np.arange(len(at))
        whole = len(each[0]) == len(place)
        return cls(len(place), rows, each[0].units() if whole else None, _groups(each, rows))


def _groups(each: Sequence[Samples], rows: Sequence[np.ndarray]) -> np.ndarray | None:
    """Number the pictures as the first task that labels each of them does; None where one of these lets all go together."""
    found = np.full(len(rows[0]), -1, np.int64)
    for samples, own in zip(each, rows, strict=True):
        mine = (found < 0) & (own >= 0)
        if not mine.any():
            continue
        numbers = samples.groups(True)
        if numbers is None:
            return None
        found[mine] = numbers[own[mine]]
    return found
