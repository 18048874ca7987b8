"""Maps of a frozen trunk that stand in for decoded pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...cluster.workers import ALONE, Workers
from ...heads.contract import Batch
from .ordered import Ordered


@dataclass
class Cache:
    """The maps of a frozen trunk for a whole split, in the data set's order; tensors have one row a sample."""

    task: str
    ids: list[str]
    features: dict[str, Tensor]
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: Sequence[str]) -> "Cache":
        """Keep the samples with these ids, in their order."""
        row = {name: n for n, name in enumerate(self.ids)}
        at = torch.tensor([row[name] for name in ids])
        features, targets = ({n: t[at] for n, t in some.items()} for some in (self.features, self.targets))
        return Cache(self.task, list(ids), features, targets)

    def batch(self, indices: list[int]) -> Batch:
        """Put these samples together; every tensor has one row a sample."""
        at = torch.tensor(indices)
        return Batch(
            self.task,
            [self.ids[i] for i in indices],
            features={n: t[at] for n, t in self.features.items()},
            targets={n: t[at] for n, t in self.targets.items()},
        )

    def in_order(self, batch: int, workers: Workers = ALONE) -> Ordered:
        """Go through every sample once, in the data set's order, in batches of `batch` samples."""
        lists = [range(first, min(first + batch, len(self))) for first in range(0, len(self), batch)]
        return Ordered(len(lists), (self.batch(list(indices)) for indices in workers.mine(lists)))
