"""What the updates of a phase take of each task: pure functions of the update's number, as a plan is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from trunkline.ground.keys import key

from .plan import At, Plan

T = TypeVar("T")


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
class Stretch:
    """What the updates from `first` on take of a share, up to its next stretch: `mix` batches each, on average.

    turns  where tasks take turns: its places in a cycle of `cycle` updates that begins at `first`, each with one batch
    """

    first: int = 0
    mix: float = 1.0
    turns: tuple[int, ...] = ()
    cycle: int = 0

    @property
    def average(self) -> float:
        """Batches an update, on average."""
        return len(self.turns) / self.cycle if self.cycle else self.mix

    def count(self, updates: int) -> int:
        """Count its batches in the first so many of its updates."""
        if not self.cycle:
            return math.floor(updates * self.mix)
        cycles, place = divmod(updates, self.cycle)
        return cycles * len(self.turns) + sum(turn < place for turn in self.turns)


@dataclass(frozen=True)
class Share:
    """One task's part in the updates of a phase, or that of several which share batches.

    task         its name; of several that share, all their names
    loss_weight  what the mean over its micro-batches counts in the gradient; of several each `Member` has its own
    average      its batches an update, on average, while all tasks take part: its epochs and the phase's length follow it
    stretches    what the updates take of it, one stretch after another
    """

    task: str
    plan: Plan
    loss_weight: float = 1.0
    average: float = 1.0
    members: tuple[Member, ...] = ()
    stretches: tuple[Stretch, ...] = (Stretch(),)

    @property
    def now(self) -> float:
        """Batches an update, on average, in its last stretch."""
        return self.stretches[-1].average

    def before(self, update: int) -> int:
        """Count its batches in the updates before this one."""
        ends = [*(each.first for each in self.stretches[1:]), update]
        return sum(
            each.count(max(0, min(update, end) - each.first)) for each, end in zip(self.stretches, ends, strict=True)
        )

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
        """Samples an update, on average, as the updates are now: those that tasks share once, of a task that has ended none."""
        return sum(share.plan.batch * share.now for share in self.shares)

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


def stretches(
    takes: Sequence[float], spans: Sequence[tuple[int, int | None]], in_turns: bool = False
) -> list[tuple[Stretch, ...]]:
    """Find what the updates of a phase take of every share, from stretch to stretch; no update is empty.

    A stretch ends where a task begins or ends. Where tasks take turns, those that take part then go round, from the first
    of them. Else each keeps what it took; but where tasks have ended and all that is left take less than one batch an
    update, they take so many times more that the largest of them takes one.

    takes  of each share: its batches an update, on average; in turns: how many updates it has in a row
    spans  of each share: the updates from which on, and before which, it takes part; None: to the end
    """
    edges = sorted({0, *(edge for span in spans for edge in span if edge is not None)})
    found: list[list[Stretch]] = [[] for _ in takes]
    for edge in edges:
        there = [n for n, (first, last) in enumerate(spans) if first <= edge and (last is None or edge < last)]
        places = taking_turns(there, [int(takes[n]) for n in there]) if in_turns else {}
        cycle = sum(map(len, places.values()))
        ended = any(last is not None and last <= edge for _, last in spans)
        most = max((takes[n] for n in there), default=1.0)
        for n, own in enumerate(found):
            if n not in there:
                new = Stretch(edge, 0.0)
            elif in_turns:
                new = Stretch(edge, 0.0, places[n], cycle)
            else:
                new = Stretch(edge, takes[n] / most if ended and most < 1 else takes[n])
            if not own or replace(new, first=own[-1].first) != own[-1]:  # else it goes on as it did
                own.append(new)
    return [tuple(own) for own in found]


def taking_turns(names: Sequence[T], times: Sequence[int]) -> dict[T, tuple[int, ...]]:
    """Give each name its places in a cycle in which it comes so many times in a row, one name after another."""
    places, at = {}, 0
    for name, count in zip(names, times, strict=True):
        places[name] = tuple(range(at, at + count))
        at += count
    return places
