"""A sample as an epoch sees it: decoded, and augmented by a key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from trunkline.ground.errors import DataError
from trunkline.ground.keys import key, seed_sample

from ...heads.contract import Batch
from ...tasks.contract import Task
from ...tasks.images.decode import decoded_once
from ...tasks.images.fit import padded
from ...tasks.samples import Sample, Samples
from .mixture import Member
from .plan import At


class Drawing(Protocol):
    """What makes a batch of the samples at `(epoch, index, repeat)`."""

    def batch(self, at: list[At]) -> Batch: ...


class Draws:
    """The samples of one task by `(epoch, index, repeat)`: the same tensors in any process and in any order."""

    def __init__(self, task: Task, samples: Samples, seed: int, training: bool):
        self.task, self.samples, self.seed = task, samples, seed
        self.transform = task.transform(training)

    def draw(self, at: At) -> Sample:
        """Read a sample and transform it as that epoch sees it: the same tensors in any process."""
        epoch, index, repeat = at
        sample = self.samples[index]
        seed_sample(key(self.seed, epoch, index, repeat))
        return self.transform(sample)

    def batch(self, at: list[At]) -> Batch:
        """Draw these samples and put them together."""
        return self.task.collate([self.draw(a) for a in at])


class SharedDraws:
    """The pictures of one data set, each decoded and changed once for all tasks that label it.

    `tasks` and `samples` are those of the `members` by name; their views are equal.
    """

    def __init__(
        self, tasks: Mapping[str, Task], samples: Mapping[str, Samples], members: Sequence[Member], name: str, seed: int
    ):
        self.tasks, self.samples, self.members, self.name, self.seed = tasks, samples, members, name, seed
        self.view: Any = next(iter(tasks.values())).view(True)
        self.padding = math.lcm(*(task.padding for task in tasks.values()))

    def draw(self, at: At) -> tuple[Tensor, dict[str, Sample]]:
        """Return a picture as that epoch sees it, and for each task that labels it the sample with its targets."""
        epoch, index, repeat = at
        rows = {m.task: int(m.rows[index]) for m in self.members if m.rows[index] >= 0}
        with decoded_once():
            found = {task: self.samples[task][row] for task, row in rows.items()}
        first = next(iter(found.values()))
        for task, sample in found.items():
            if sample.image is not first.image and not torch.equal(sample.image, first.image):
                raise DataError(
                    f"{first.source}: {next(iter(found))} and {task} read other pixels of it; in a shared batch depth=, "
                    "exif= and what else decides the pixels must be the same for all tasks"
                )
        seed_sample(key(self.seed, epoch, index, repeat))
        image, targets = self.view.together(first.image, [s.targets for s in found.values()])
        moved = zip(found.items(), targets, strict=True)
        return image, {task: replace(sample, image=image, targets=own) for (task, sample), own in moved}

    def batch(self, at: list[At]) -> Batch:
        """Draw these pictures, and put them together with a part for each task that labels some of them."""
        drawn = [self.draw(a) for a in at]
        images = padded([image for image, _ in drawn], self.padding)
        height, width = images.shape[-2:]
        sizes = torch.tensor([[*image.shape[-2:]] for image, _ in drawn])
        parts = []
        for name, task in self.tasks.items():
            rows = [n for n, (_, found) in enumerate(drawn) if name in found]
            if not rows:
                continue
            samples = [drawn[n][1][name] for n in rows]
            at_rows = None if len(rows) == len(drawn) else torch.tensor(rows)
            own = sizes if at_rows is None else sizes[at_rows]
            targets = task.targets(samples, height, width)
            parts.append(Batch(name, [s.id for s in samples], None, own, targets, rows=at_rows))
        ids = [next(iter(found.values())).id for _, found in drawn]
        return Batch(self.name, ids, images, sizes, parts=tuple(parts))
