"""What an update's micro-batches make of the model's buffers, averaged in fp64."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import EngineError

from ..workers import ALONE, Workers
from .sums import NOTHING, flat_of, has_mean, strides_of, views_of, wide


@dataclass(frozen=True)
class _Kind:
    """The buffers of one type: those that live in the model, as the update found them, and their sums, each flat."""

    live: Tensor
    first: Tensor
    sums: Tensor

    def cut(self, start: int, stop: int) -> "_Kind":
        """Return the views of a part of the three."""
        return _Kind(self.live[start:stop], self.first[start:stop], self.sums[start:stop])

    @property
    def differences(self) -> bool:
        """Whether the sums are of differences: of floats no narrower than they, three times x by three may not be x."""
        floats = self.live.is_floating_point()
        return floats and torch.finfo(self.live.dtype).bits >= torch.finfo(self.sums.dtype).bits

    def add(self) -> None:
        """Add what a forward made to the sums."""
        self.sums.add_(self.live - self.first if self.differences else self.live)

    def mean(self, count: int) -> None:
        """Put the means in the live buffers' place."""
        mean = self.sums.div_(count)
        if self.differences:
            mean.add_(self.first)
        self.live.copy_(mean if self.live.is_floating_point() else mean.round_())


class _Noting:
    """A hook that tells a module's number when it runs in training. In a copy of the model it is silent."""

    def __init__(self, tell: Callable[[int], None], number: int):
        self.tell, self.number = tell, number

    def __call__(self, module: nn.Module, *_: Any) -> None:
        if module.training:
            self.tell(self.number)

    def __deepcopy__(self, memo: Any) -> "Callable[..., None]":
        return _silent


def _silent(*_: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class _Owner:
    """Modules that have their buffers in common, mostly a single one, and these buffers by identity."""

    modules: list[nn.Module]
    buffers: dict[int, Tensor]


def _owners(model: nn.Module) -> list[_Owner]:
    """List what owns the buffers that are averaged."""
    found: list[_Owner] = []
    for module in model.modules():
        own = {id(b): b for b in module.buffers(recurse=False) if has_mean(b)}
        sharing = [o for o in found if o.buffers.keys() & own.keys()]
        if own:
            joined = _Owner([m for o in sharing for m in o.modules] + [module], own)
            joined.buffers.update({key: b for o in sharing for key, b in o.buffers.items()})
            found = [o for o in found if o not in sharing] + [joined]
    return found


class BufferMeans:
    """The buffers' rule: every micro-batch starts from the update's first buffers; the result is the fp64 mean.

    What a forward made of the buffers is added up and stays in place for the backward, as in plain torch; modules that
    run again there (activation checkpointing) are put back first, each when it does, and do not count twice. A module
    that did not run keeps its buffers. A single micro-batch on a single worker is its own mean.

    The model's buffers become views of one flat tensor for each type, module after module; they must not be replaced
    while this lasts. Integers are averaged as fp64 holds them, below 2^53.
    """

    def __init__(self, model: nn.Module, workers: Workers = ALONE):
        self.workers = workers
        self._owners = _owners(model)
        self._names = {id(b): name for name, b in model.named_buffers(remove_duplicate=False)}
        self._constant = [b for b in model.buffers() if not has_mean(b)]
        self._versions: list[int] = []
        self._ran: set[int] = set()
        self._alone = self._backward = self._open = False
        self._again: dict[int, list[Tensor]] = {}  # what modules made that ran again in the backward; alone, a copy
        self._hooks = [
            module.register_forward_pre_hook(_Noting(self._run, number))
            for number, owner in enumerate(self._owners)
            for module in owner.modules
        ]
        self._sums = torch.empty(0)
        self._cut: dict[tuple[int, ...], list[_Kind]] = {}  # what `_parts` returned, by owners
        self._kinds, self._places = self._flatten()
        self._lies = [(b, b.data_ptr()) for owner in self._owners for b in owner.buffers.values()]
        self.counts = [0] * len(self._owners)

    def _flatten(self) -> tuple[list[_Kind], list[list[tuple[int, int]]]]:
        """Lay the buffers out flat. Return them by type, and for each type each owner's beginning and end."""
        buffers = [list(owner.buffers.values()) for owner in self._owners]
        kinds = dict.fromkeys((b.dtype, b.device) for own in buffers for b in own)
        lengths = [[sum(b.numel() for b in own if (b.dtype, b.device) == kind) for own in buffers] for kind in kinds]
        places = [list(pairwise(accumulate(each, initial=0))) for each in lengths]
        flat, found = [b for own in buffers for b in own], []
        self._sums = flat_of(flat, wide(flat[0]) if flat else torch.float64)
        for kind, sums in zip(kinds, self._sums.split(list(map(sum, lengths))), strict=True):
            own = [b for b in flat if (b.dtype, b.device) == kind]
            live = flat_of(own, kind[0])
            for buffer, view in zip(own, views_of(live, own, strides_of(own)), strict=True):
                buffer.data = view.copy_(buffer)
            found.append(_Kind(live, torch.empty_like(live), sums))
        return found, places

    def _run(self, number: int) -> None:
        """Remember that an owner runs; in the backward, where it runs again, let it begin from the first buffers."""
        if not self._backward:
            self._ran.add(number)
        elif number not in self._again:
            parts = self._parts((number,))
            self._again[number] = [part.live.clone() for part in parts] if self._alone else []
            for part in parts:
                part.live.copy_(part.first)

    def begin(self, alone: bool = False) -> None:
        """Remember the update's first buffers. `alone`: it has one micro-batch on one worker.

        Raises EngineError where the model's buffers are no longer where this laid them.
        """
        if moved := [b for b, address in self._lies if b.data_ptr() != address]:
            raise EngineError(
                f"the buffer {self._names[id(moved[0])]} and {len(moved) - 1} more lie elsewhere than this engine laid "
                "them: one engine at a time may hold a model, which stays on its device; close this one and make another"
            )
        if self._open:  # the last update did not come to its end
            self._put_back()
        self._alone, self._open = alone, True
        self._versions = [b._version for b in self._constant]
        for kind in self._kinds:
            kind.first.copy_(kind.live)
        if not alone:
            self._sums.fill_(NOTHING)
        self.counts = [0] * len(self._owners)
        self._backward = False
        self._ran.clear()
        self._again.clear()

    def start(self) -> None:
        """Let the next forward begin from the first buffers."""
        self._backward = False
        if self._ran or self._again:
            self._put_back()
        self._ran.clear()
        self._again.clear()

    def take(self) -> None:
        """Add what the forward made of the buffers; call it after a forward."""
        ran = sorted(self._ran)
        for i in ran:
            self.counts[i] += 1
        if not self._alone:
            for part in self._parts(tuple(ran)):
                part.add()
        self._backward = True

    def finish(self, counts: Sequence[int]) -> None:
        """Set the buffers to their means; those of modules that did not run anywhere stay.

        `counts` says for each owner in how many micro-batches it ran, on all workers together. Raises EngineError where
        a buffer changed that has no mean.
        """
        if self._alone:
            for number, made in self._again.items():
                for part, own in zip(self._parts((number,)), made, strict=True):
                    part.live.copy_(own)
        else:
            self.start()
            self._check_constants()
            self.workers.add(self._sums, "the sum of buffers")
            for count in dict.fromkeys(filter(None, counts)):
                for part in self._parts(tuple(i for i, c in enumerate(counts) if c == count)):
                    part.mean(count)
        self._ran.clear()
        self._again.clear()
        self._backward = self._open = False

    def _check_constants(self) -> None:
        changed = [b for b, version in zip(self._constant, self._versions, strict=True) if b._version != version]
        if changed:
            raise EngineError(
                f"the buffer {self._names[id(changed[0])]} changes in training, and {changed[0].dtype} has no mean over "
                "micro-batches here; keep it as fp32"
            )

    def undo(self) -> None:
        """Put the update's first buffers back after `finish`, where the update is skipped."""
        self._put_back()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let forwards and backwards run between two updates, as in one, and put the buffers back after them.

        Raises EngineError where a buffer changed that has no mean, and so is not put back.
        """
        self.begin()
        try:
            yield
            self._check_constants()
        finally:
            self._put_back()
            self._open = False

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _put_back(self) -> None:
        for kind in self._kinds:
            kind.live.copy_(kind.first)

    def _parts(self, owners: tuple[int, ...]) -> list[_Kind]:
        """Return what of each type belongs to these owners (rising numbers), in as few pieces as there can be."""
        if owners not in self._cut:
            self._cut[owners] = self._pieces(owners)
        return self._cut[owners]

    def _pieces(self, owners: tuple[int, ...]) -> list[_Kind]:
        found = []
        for kind, places in zip(self._kinds, self._places, strict=True):
            pieces: list[list[int]] = []
            for start, stop in (places[i] for i in owners):
                if start == stop:
                    continue
                if pieces and pieces[-1][1] == start:
                    pieces[-1][1] = stop
                else:
                    pieces.append([start, stop])
            found += [kind.cut(*piece) for piece in pieces]
        return found
