"""Training sees a part of a long video, cut at random; evaluation and prediction see all of it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..contract import Sample

KEPT = 0.75  # of an event's length: one of which less lies in the part is no event there
TRIES = 10  # parts drawn, until one holds an event


@dataclass(frozen=True)
class Cut:
    """A part of `longest` steps of what is longer. Draws from torch's default generator alone."""

    longest: int

    def __call__(self, sample: Sample) -> Sample:
        """Cut `(C, T)` and its events; those of which little is left are dropped, the others end where the part does.

        Of TRIES parts the first that holds an event is taken, as Zhang et al. 2022, "ActionFormer", do.
        """
        count = sample.image.shape[1]
        if count <= self.longest:
            return sample
        for _ in range(TRIES):
            first = int(torch.randint(0, count - self.longest + 1, ()))
            segments, labels = _within(sample.targets["segments"], sample.targets["labels"], first, self.longest)
            if len(labels):
                break
        times = sample.targets["times"][first : first + self.longest]
        image = sample.image[:, first : first + self.longest]
        return replace(
            sample, image=image, targets={**sample.targets, "segments": segments, "labels": labels, "times": times}
        )


def _within(segments: Tensor, labels: Tensor, first: int, length: int) -> tuple[Tensor, Tensor]:
    moved = segments - first
    inside = moved.clamp(0, length)
    long = segments[:, 1] - segments[:, 0]
    kept = inside[:, 1] - inside[:, 0] >= KEPT * long
    return inside[kept], labels[kept]


def as_it_is(sample: Sample) -> Sample:
    """Return the sample."""
    return sample
