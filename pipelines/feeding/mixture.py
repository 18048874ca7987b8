"""What the updates of a phase take of each task: pure functions of the update's number, as a plan is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trunkline.ground.keys import key

from .plan import At, Plan


@dataclass(frozen=True)
class Member:
    """A task of those that share batches.

    rows  which of its samples each picture of the shared plan is, `(n,)` int64; -1: it does not label that picture
    """

    task: str
    loss_weight: float = 1.0
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    def labels(self, at: Sequence[At]) -> int:
        """Count the pictures that it labels."""
        return int((self.rows[[index for _, index, _ in at]] >= 0).sum())


@dataclass(frozen=True)
class Share:
    """One task's part in the updates of a phase, or that of several which share batches: `mix` batches an update, on average.

    task         its name; of several that share, all their names
    loss_weight  what the mean over its micro-batches counts in the gradient; of several each `Member` has its own
    turns        where tasks take turns: the places of its own in a cycle of `cycle` updates, each with one batch
    first, last  the updates of the phase from which on, and before which, it takes part
    """

    task: str
    plan: Plan
    loss_weight: float = 1.0
    mix: float = 1.0
    members: tuple[Member, ...] = ()
    turns: tuple[int, ...] = ()
    cycle: int = 0
    first: int = 0
    last: int | None = None

    @property
    def average(self) -> float:
        """Batches an update, on average, while it takes part."""
        return len(self.turns) / self.cycle if self.cycle else self.mix

    def before(self, update: int) -> int:
        """Count its batches in the updates before this one."""
        length = max(0, min(update, update if self.last is None else self.last) - self.first)
        if not self.cycle:
            return math.floor(length * self.mix)
        return self._turns(self.first + length) - self._turns(self.first)

    def _turns(self, update: int) -> int:
        """Count its turns before an update, whether or not it takes part."""
        cycles, place = divmod(update, self.cycle)
        return cycles * len(self.turns) + sum(turn < place for turn in self.turns)

    def batches(self, update: int) -> range:
        """Return the numbers of its batches that an update takes; there may be none."""
        return range(self.before(update), self.before(update + 1))

    def micro_batches(self, update: int) -> list[list[At]]:
        """List the samples of each of its micro-batches in an update."""
        return [at for number in self.batches(update) for at in self.plan.micro_batches(number)]


@dataclass(frozen=True)
class Weight:
    """What a task's loss counts in a micro-batch: `scale` is its factor, `labelled` the share of samples that it is over."""

    task: str
    loss_weight: float = 1.0
    scale: float = 1.0
    labelled: float = 1.0


@dataclass(frozen=True)
class Slot:
    """One micro-batch of an update: whose, which samples, the key of what is random in it, and what each task's loss counts."""

    task: str
    at: list[At]
    key: int
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Mixture:
    """The tasks that learn together, in their order; one task is a mixture of one.

    An epoch is one of the first task: the others go through their data at their own pace.
    """

    shares: tuple[Share, ...]

    @property
    def batch(self) -> float:
        """Samples an update, on average."""
        return sum(share.plan.batch * share.average for share in self.shares)

    @property
    def per_epoch(self) -> int:
        """Updates an epoch."""
        first = self.shares[0]
        return first.plan.per_epoch if first.average == 1 else max(1, math.floor(first.plan.per_epoch / first.average))

    def length(self, epochs: float | None, updates: int | None) -> int:
        """Count the updates of a phase: `updates`, or those of so many `epochs`, rounded up, at least 1."""
        return updates if updates is not None else max(1, math.ceil((epochs or 0) * self.per_epoch))

    def count(self, update: int) -> int:
        """Count the micro-batches of an update."""
        return sum(len(s.batches(update)) * (s.plan.batch // s.plan.micro) for s in self.shares)

    def slots(self, update: int) -> list[Slot]:
        """List the micro-batches of an update, task after task.

        The gradient is the sum over tasks of the task's weight times the mean over its samples. An engine divides a sum by
        the number M of all micro-batches. So a micro-batch of a task with M_t of them has the scale weight * M / M_t; where
        the task labels n of its pictures, of N in the update, it is weight * M * n / N.
        """
        each = [(share, share.micro_batches(update)) for share in self.shares]
        count = sum(len(lists) for _, lists in each)
        return [
            Slot(s.task, at, key(s.plan.seed, "model", update, m), weights)
            for s, lists in each
            for m, (at, weights) in enumerate(zip(lists, _weights(s, lists, count), strict=True))
        ]

    def micro(self, task: str) -> int:
        """Return how many samples a micro-batch of this share has."""
        return next(s.plan.micro for s in self.shares if s.task == task)


def _weights(share: Share, lists: list[list[At]], count: int) -> list[tuple[Weight, ...]]:
    """Find, for each of its micro-batches, what the losses of its tasks count; tasks that label nothing in one are left out."""
    if not share.members:
        scale = scale_of(share.loss_weight, count, 1, len(lists)) if lists else 0.0
        return [(Weight(share.task, share.loss_weight, scale),) for _ in lists]
    found: list[list[Weight]] = [[] for _ in lists]
    for member in share.members:
        labels = [member.labels(at) for at in lists]
        for weights, at, own in zip(found, lists, labels, strict=True):
            if own:
                scale = scale_of(member.loss_weight, count, own, sum(labels))
                weights.append(Weight(member.task, member.loss_weight, scale, own / len(at)))
    return [tuple(weights) for weights in found]


def scale_of(loss_weight: float, count: int, own: int, all_own: int) -> float:
    """Compute the factor of a micro-batch's loss: weight * M * n / N, with n / N in its lowest terms.

    Of `count` micro-batches in an update it holds `own` of the `all_own` samples that the task labels there. In lowest terms
    a fully labelled task has the factor weight * M / M_t to the last bit, whatever its micro-batches hold.
    """
    shared = math.gcd(own, all_own)
    return loss_weight * count * (own // shared) / (all_own // shared)


def taking_turns(names: Sequence[str], times: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Give each name its places in a cycle in which it comes so many times in a row, one name after another."""
    places, at = {}, 0
    for name, count in zip(names, times, strict=True):
        places[name] = tuple(range(at, at + count))
        at += count
    return places
