"""Several tasks of one model scored together: where they see the same pixels of a picture, the trunk runs once for all.

Each task keeps its own samples, its own view of them and its own order; pictures are told by their files. Whether two
tasks see the same pixels is found out by comparing them, so that a head's scores are those that it has alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trunkline.ground.errors import RecipeError

from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from ...heads.model import Model
from ...tasks.contract import Evaluator, Record, Scores, Task
from ...tasks.images.decode import decoded_once
from ...tasks.samples import Sample, Samples
from ..feeding.draws import Draws
from ..feeding.joint import Joint
from ..feeding.loader import loaded
from ..feeding.ordered import Ordered
from ..feeding.plan import At
from ..show import bar
from .measure import checked_result, in_turn, inference

Evaluated = dict[str, tuple[Scores, list[Record]]]
"""By task: the scores of a split, and a record for each sample."""


def circles(samples: Mapping[str, Samples]) -> list[list[str]]:
    """Divide tasks into those that have pictures in common, directly or by another, in their order."""
    files = {name: {str(s.source(i)) for i in range(len(s))} for name, s in samples.items()}
    for name, s in samples.items():
        if len(files[name]) < len(s):
            files[name] = set()  # a file with several samples is no picture that others can share
    found: list[list[str]] = []
    for name in samples:
        near = [one for one in found if any(files[name] & files[other] for other in one)]
        if not near:
            found.append([name])
            continue
        found = [one for one in found if one not in near] + [[*(n for one in near for n in one), name]]
    return found


@dataclass
class Together:
    """The samples of tasks that have pictures in common, each picture read once.

    rows   for each task, which of its samples each picture is, `(count,)` int64; -1: none
    lists  the pictures of each batch, as `(0, index, 0)`: of up to `size` pictures that each task would put together
    """

    tasks: dict[str, Task]
    samples: dict[str, Samples]
    seed: int
    size: int
    rows: dict[str, np.ndarray] = field(init=False)
    lists: list[list[At]] = field(init=False)

    def __post_init__(self) -> None:
        joint = Joint.of(list(self.samples.values()))
        self.rows = dict(zip(self.tasks, joint.rows, strict=True))
        self._draws = {name: Draws(task, self.samples[name], self.seed, False) for name, task in self.tasks.items()}
        numbers = {name: samples.groups(False) for name, samples in self.samples.items()}
        self.lists, marks = [], None
        for index in range(joint.count):
            own = {
                n: int(g[self.rows[n][index]]) for n, g in numbers.items() if g is not None and self.rows[n][index] >= 0
            }
            together = marks is not None and all(marks.get(n, mark) == mark for n, mark in own.items())
            if not together or len(self.lists[-1]) == self.size:
                self.lists.append([])
                marks = {}
            marks = {**(marks or {}), **own}
            self.lists[-1].append((0, index, 0))

    def in_order(self, loaders: int = 0, pin: bool = False, workers: Workers = ALONE) -> Ordered:
        """Go through all pictures once, in their order."""
        mine = list(workers.mine(self.lists))
        return Ordered(len(self.lists), loaded({"": self}, [("", at) for at in mine], min(loaders, len(mine)), pin))

    def batch(self, at: list[At]) -> Batch:
        """Make the passes of the trunk that these pictures need, as the parts of a batch; see `passes`."""
        drawn: dict[str, dict[int, Sample]] = {name: {} for name in self.tasks}
        for place, (_, index, _) in enumerate(at):
            with decoded_once():
                for name, draws in self._draws.items():
                    if (row := int(self.rows[name][index])) >= 0:
                        drawn[name][place] = draws.draw((0, row, 0))
        return passes({n: (list(s), self.tasks[n].collate([*s.values()])) for n, s in drawn.items() if s})

    def rows_of(self, name: str, number: int) -> list[int]:
        """List which of a task's samples the batch of this number has, in its order."""
        return [int(row) for _, index, _ in self.lists[number] if (row := self.rows[name][index]) >= 0]


@dataclass
class _Pass:
    """Images that several tasks see: which pictures they are, and each task's batch with the rows that it takes."""

    places: list[int]
    images: Tensor
    sizes: Tensor
    parts: list[Batch]


def passes(batches: Mapping[str, tuple[list[int], Batch]]) -> Batch:
    """Put batches of tasks that see the same pixels into one pass of the trunk, as nested `parts`.

    `batches` has for each task the places of its pictures, and its own batch of them. A batch with cached maps, or without
    images, stays by itself.
    """
    found: list[_Pass] = []
    alone: list[Batch] = []
    for places, batch in batches.values():
        if batch.images is None or batch.images.ndim != 4 or len(batch.images) != len(places):
            alone.append(batch)
        elif (one := next((p for p in found if _same(p, places, batch)), None)) is not None:
            _join(one, places, batch)
        else:
            found.append(_Pass(list(places), batch.images, _sizes(batch), [replace(batch, images=None)]))
    whole = [Batch("", one.parts[0].ids, one.images, one.sizes, parts=tuple(one.parts)) for one in found]
    return Batch("", [], parts=(*whole, *alone))


def _sizes(batch: Batch) -> Tensor:
    assert batch.images is not None
    height, width = batch.images.shape[-2:]
    return torch.tensor([[height, width]] * len(batch.images)) if batch.sizes is None else batch.sizes


def _same(one: _Pass, places: list[int], batch: Batch) -> bool:
    """Say whether all pictures that both have are the same pixels, and there is one."""
    assert batch.images is not None
    if one.images.shape[1:] != batch.images.shape[1:]:
        return False
    mine = [n for n, place in enumerate(places) if place in one.places]
    theirs = [one.places.index(places[n]) for n in mine]
    same = bool(mine) and torch.equal(one.sizes[theirs], _sizes(batch)[mine])
    return same and torch.equal(one.images[theirs], batch.images[mine])


def _join(one: _Pass, places: list[int], batch: Batch) -> None:
    """Add a task's batch to a pass, with the pictures that it has besides."""
    assert batch.images is not None
    new = [n for n, place in enumerate(places) if place not in one.places]
    if new:
        before = len(one.places)
        one.places += [places[n] for n in new]
        one.images = torch.cat([one.images, batch.images[new]])
        one.sizes = torch.cat([one.sizes, _sizes(batch)[new]])
        whole = torch.arange(before)
        one.parts = [replace(p, rows=whole if p.rows is None else p.rows) for p in one.parts]
    at = [one.places.index(place) for place in places]
    rows = None if at == list(range(len(one.places))) else torch.tensor(at)
    one.parts.append(replace(batch, images=None, rows=rows))


def in_passes(model: Model, batch: Batch, use: Callable[[str, Batch], Any]) -> dict[str, Any]:
    """Run the trunk once for each pass, and call `use` with each task's name and its batch, which has the maps.

    A pass of one task goes to it whole: it may see each picture several times. So does a task whose norms have running
    statistics of its own: its maps are others.
    """
    device, found = next(model.parameters()).device, {}
    for one in batch.parts:
        one = one.to(device)
        if not one.parts:
            found[one.task] = use(one.task, one)
            continue
        alike = [part for part in one.parts if not model.statistics(part.task)]
        maps = model.maps(replace(one, parts=tuple(alike))) if len(alike) > 1 else None
        for part in one.parts:
            taken = None if model.statistics(part.task) else maps
            if part.rows is not None and taken is not None:
                taken = {name: m[part.rows] for name, m in taken.items()}
            assert one.images is not None
            images = one.images if part.rows is None else one.images[part.rows]
            found[part.task] = use(part.task, replace(part, images=images, features=taken, rows=None))
    return found


class Collected:
    """A task's records, given to its evaluator in the order of its samples as soon as those before them are there."""

    def __init__(self, evaluator: Evaluator):
        self.evaluator, self.kept = evaluator, list[Record]()
        self._waiting: dict[int, Record] = {}

    def add(self, rows: list[int], records: list[Record]) -> None:
        """Take the records of these samples."""
        self._waiting |= dict(zip(rows, records, strict=True))
        ready = []
        while (following := len(self.kept) + len(ready)) in self._waiting:
            ready.append(self._waiting.pop(following))
        if ready:
            self.evaluator.add(ready)
            self.kept += ready

    def result(self) -> Scores:
        """Return the scores. Raises RecipeError where a sample's record is missing."""
        if self._waiting:
            raise RecipeError(f"{len(self._waiting)} records came without those before them")
        return checked_result(self.evaluator)


def measured(
    model: Model, tasks: Mapping[str, Task], evaluators: Mapping[str, Evaluator], batch: Batch
) -> dict[str, list[Record]]:
    """Measure what every task has in a batch of passes."""
    return in_passes(model, batch, lambda name, own: evaluators[name].measure(own, tasks[name].infer(model, own)))


def score_together(
    model: Model, together: Together, batches: Ordered, precision: str, workers: Workers = ALONE
) -> Evaluated:
    """Score every task on its split, each picture seen once: the scores on every worker, the records on the leading one."""
    evaluators = {name: task.evaluator(together.samples[name]) for name, task in together.tasks.items()}
    collected = {name: Collected(evaluator) for name, evaluator in evaluators.items()}
    device = next(model.parameters()).device
    unit = next(iter(together.tasks.values())).unit

    def measure(batch: Batch) -> dict[str, list[Record]]:
        return measured(model, together.tasks, evaluators, batch)

    with inference(model, precision, device), bar("evaluate", sum(map(len, together.lists)), unit) as advance:
        for number, each in enumerate(in_turn(batches, measure, workers, "an evaluation")):
            for name, records in each.items():
                collected[name].add(together.rows_of(name, number), records)
            advance(len(together.lists[number]))
    found = {}
    for name, own in collected.items():
        found[name] = (workers.from_lead(own.result, "an evaluation"), own.kept)
    return found
