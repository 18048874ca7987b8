"""Which samples the micro-batches of every update take: pure functions of the seed and the update's number."""

import math
from dataclasses import dataclass, field

import numpy as np

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key

from ...tasks.samples import Samples

WINDOW = 16  # shards, or row groups of them, that are read at a time
At = tuple[int, int, int]  # (epoch, index, repeat): all that a sample's augmentation depends on, besides the seed


@dataclass(frozen=True)
class Plan:
    """Which samples the micro-batches of every update take: a pure function of these numbers.

    `units`, a number for each sample, says which samples are read together (shards). An epoch puts the units into a new
    order and takes them WINDOW at a time; the samples of a window are mixed. Samples in one micro-batch have the same
    number in `groups`; the rest of each group, too few to fill another one, are put together. An epoch sees each sample
    `repeats` times, in the same order of chance, each time augmented anew.
    """

    samples: int
    batch: int
    micro: int
    seed: int
    units: np.ndarray | None = field(default=None, compare=False)
    groups: np.ndarray | None = field(default=None, compare=False)
    repeats: int = 1
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.seen < self.batch:
            times = f" seen batch.repeats={self.repeats} times" if self.repeats > 1 else ""
            raise RecipeError(
                f"batch.size={self.batch} is larger than the {self.samples} training samples{times}: "
                f"set batch={max(min(2, self.seen), self.seen // 2)}"
            )

    @classmethod
    def over(cls, samples: Samples, batch: int, micro: int, seed: int, repeats: int = 1) -> "Plan":
        """Make the plan of a training split."""
        return cls(len(samples), batch, micro, seed, samples.units(), samples.groups(True), repeats)

    @property
    def seen(self) -> int:
        """How often an epoch sees samples: each of them `repeats` times."""
        return self.samples * self.repeats

    @property
    def per_epoch(self) -> int:
        """Updates an epoch; samples that are left over (`dropped`, others in each epoch) wait for a later one."""
        return self.seen // self.batch

    @property
    def dropped(self) -> int:
        """How many of them an epoch leaves out because they do not fill an update."""
        return self.seen - self.per_epoch * self.batch

    def length(self, epochs: float | None, updates: int | None) -> int:
        """Count the updates of a phase: `updates`, or those of so many `epochs`, rounded up, at least 1."""
        return updates if updates is not None else max(1, math.ceil((epochs or 0) * self.per_epoch))

    def micro_batches(self, number: int) -> list[list[At]]:
        """List the samples of each micro-batch of the batch `number`; batches are counted on from epoch to epoch."""
        epoch, place = divmod(number, self.per_epoch)
        mine = self._order(epoch)[place * self.batch : (place + 1) * self.batch]
        at = [(epoch, int(i) % self.samples, int(i) // self.samples) for i in mine]
        return [at[m : m + self.micro] for m in range(0, self.batch, self.micro)]

    def _order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch, as `draw_order` gives it; the last two are kept."""
        if epoch not in self._orders:
            while len(self._orders) > 1:
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = draw_order(self, epoch)
        return self._orders[epoch]


def draw_order(plan: Plan, epoch: int) -> np.ndarray:
    """Draw the order in which an epoch takes samples: `(n,)` int64; with groups, those that fill its updates.

    Of n samples seen several times, numbers from n on are the second time, and so on.
    """
    draw = np.random.Generator(np.random.PCG64(key(plan.seed, "order", epoch)))
    if plan.units is None:
        order = draw.permutation(plan.seen)
    else:
        turn = draw.permutation(int(plan.units.max(initial=0)) + 1)  # of each unit
        order = np.lexsort((draw.random(plan.seen), np.tile(turn[plan.units] // WINDOW, plan.repeats)))
    if plan.groups is None:
        return order
    order = order[: plan.per_epoch * plan.batch]  # first: which samples wait must not depend on their group
    micro, kinds = plan.micro, plan.groups[order % plan.samples]
    parts = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]  # positions in the order
    rest = np.sort(np.concatenate([part[len(part) // micro * micro :] for part in parts]))
    batches = np.concatenate([part[: len(part) // micro * micro].reshape(-1, micro) for part in [*parts, rest]])
    return order[batches[np.argsort(batches[:, -1])].ravel()]  # in the order in which they were filled
