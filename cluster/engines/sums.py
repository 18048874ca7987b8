"""What an update's micro-batches leave behind, gradients and buffers, summed in fp64: no order of adding shows in fp32.

All of a kind lies in one flat tensor, so that a step of the bookkeeping is one operation, however many tensors there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..workers import ALONE, Workers

NOTHING = -0.0  # adds nothing to any number, not even to 0.0 or -0.0
IN_NUMPY = (torch.float32, torch.float64)
MANY_CORES = 4  # torch divides the work among them, numpy does not
foreach: Any = torch  # its `_foreach_` functions are public by use, not by name


def wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype that sums are kept in: fp64, or fp32 where the device has none (MPS)."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _strides(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [torch.empty_like(t, device="meta").stride() for t in tensors]


def _flat(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Make a flat tensor with room for all of these."""
    return torch.zeros(sum(t.numel() for t in tensors), dtype=dtype, device=tensors[0].device if tensors else "cpu")


def _views(flat: Tensor, tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut a flat tensor into views, one for each of the tensors, in their own memory format."""
    parts = flat.split([t.numel() for t in tensors])
    return [part.as_strided(t.shape, stride) for part, t, stride in zip(parts, tensors, strides, strict=True)]


class GradientSums:
    """Sums of `p.grad` over an update's micro-batches and workers, divided once and rounded once.

    `exact` keeps the sums in fp64; otherwise in the parameters' own type. A parameter that had no gradient in any
    micro-batch on any worker keeps `grad = None`, and so is not moved at all. With one micro-batch on one worker nothing
    is copied: rounding fp32 to fp64 and back changes no bit.

    Gradients are copied side by side first, in their own type: that is one operation, and their sum another. On a few
    cores of a CPU numpy adds each of them to its sum, with the same bits: torch takes four times as long for mixed types.
    """

    def __init__(self, model: nn.Module, workers: Workers = ALONE, exact: bool = True):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.workers, self.exact = workers, exact
        self._strides = _strides(self.parameters)  # now: an engine may lay its parameters out anew
        self._used = [False] * len(self.parameters)
        self._beside: Tensor | None = None  # made when there is something to add; the gradients of one micro-batch
        self._views: list[Tensor] = []  # of it, one for each parameter
        self._sums = torch.empty(0)
        self._numpy: list[np.ndarray] = []  # views of the sums, one for each parameter, where numpy adds

    def add(self) -> None:
        """Add up the gradients of the micro-batch that was just computed; unless `exact`, autograd has done so."""
        if not self.exact:
            return  # autograd adds to `p.grad` by itself
        self._make_room()
        if self._numpy:
            for p, used, sums in zip(self.parameters, self._used, self._numpy, strict=True):
                if p.grad is not None:
                    np.add(sums if used else NOTHING, p.grad.numpy(), out=sums)
        elif any(self._used):
            self._sums.add_(self._side_by_side())
        else:
            self._sums.copy_(self._side_by_side())
        for i, p in enumerate(self.parameters):
            if p.grad is not None:
                self._used[i], p.grad = True, None

    def used(self) -> list[bool]:
        """Return for each parameter whether it had a gradient on this worker."""
        return self._used if self.exact else [p.grad is not None for p in self.parameters]

    def finish(self, count: int, used: Sequence[int]) -> None:
        """Set every `p.grad` to its mean over the `count` micro-batches of all workers, and start anew.

        `used` says for each parameter on how many workers it had a gradient.
        """
        if not self.exact and self.workers.size == 1:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            if count > 1 and gradients:
                foreach._foreach_div_(gradients, count)
            return
        self._make_room()
        if not any(self._used):  # not `exact`; or this worker had no micro-batch
            beside = self._side_by_side()
            if self.exact:
                self._sums.copy_(beside)
        elif self._numpy:
            for had, sums in zip(self._used, self._numpy, strict=True):
                if not had:
                    sums.fill(NOTHING)
        self.workers.add(self._sums, "the sum of gradients")
        self._sums.div_(count)
        if self.exact:
            assert self._beside is not None
            self._beside.copy_(self._sums)
        for p, view, somewhere in zip(self.parameters, self._views, used, strict=True):
            p.grad = view.to(p.dtype) if somewhere else None
        self._used = [False] * len(self.parameters)

    def _make_room(self) -> None:
        if self._beside is not None:
            return
        types = {p.dtype for p in self.parameters}
        plain = types <= {*IN_NUMPY}
        dtype = types.pop() if len(types) == 1 else wide(self.parameters[0])
        self._beside = _flat(self.parameters, dtype)
        self._views = _views(self._beside, self.parameters, self._strides)
        self._sums = _flat(self.parameters, wide(self._beside)) if self.exact else self._beside
        if self.exact and plain and self._sums.device.type == "cpu" and torch.get_num_threads() < MANY_CORES:
            self._numpy = [v.numpy() for v in _views(self._sums, self.parameters, self._strides)]

    def _side_by_side(self) -> Tensor:
        """Copy the gradients into one flat tensor; where there is none, NOTHING stands."""
        assert self._beside is not None
        there = [p.grad is not None for p in self.parameters]
        if any(there):
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            foreach._foreach_copy_(list(compress(self._views, there)), gradients)
        if not all(there):
            lacking = [view for view, has in zip(self._views, there, strict=True) if not has]
            foreach._foreach_zero_(lacking)
            foreach._foreach_neg_(lacking)
        return self._beside


@dataclass(frozen=True)
class _Kind:
    """The buffers of one type: those that live in the model, as the update found them, and their sums, each flat."""

    live: Tensor
    first: Tensor
    sums: Tensor

    def cut(self, start: int, stop: int) -> "_Kind":
        """Return the views of a part of the three."""
        return _Kind(self.live[start:stop], self.first[start:stop], self.sums[start:stop])


class _Noting:
    """A hook that tells a module's number when it runs. A copy of the model is no part of the update: there it is silent."""

    def __init__(self, tell: Callable[[int], None], number: int):
        self.tell, self.number = tell, number

    def __call__(self, *_: Any) -> None:
        self.tell(self.number)

    def __deepcopy__(self, memo: Any) -> "Callable[..., None]":
        return _silent


def _silent(*_: Any) -> None:
    """Do nothing."""


class BufferMeans:
    """The buffers' rule: every micro-batch starts from the update's first buffers; the result is the fp64 mean.

    What a forward made of the buffers is added up, and the first ones are put back before the backward, so that a forward
    recomputed by activation checkpointing does not count twice. A module that did not run keeps its buffers. A single
    micro-batch on a single worker is its own mean: what it made stays in place, and only modules that run again in the
    backward are put back, each when it does.

    The model's buffers become views of one flat tensor for each type, module after module; they must not be replaced
    while this lasts.
    """

    def __init__(self, model: nn.Module, workers: Workers = ALONE):
        self.workers = workers
        self._modules = [m for m in model.modules() if any(True for _ in m.buffers(recurse=False))]
        self._ran: set[int] = set()
        self._alone = self._backward = False
        self._made: dict[int, list[Tensor]] = {}  # alone: what modules made that run again in the backward
        self._hooks = [
            module.register_forward_pre_hook(_Noting(self._run, number)) for number, module in enumerate(self._modules)
        ]
        self._sums = torch.empty(0)
        self._cut: dict[tuple[int, ...], list[_Kind]] = {}  # what `_parts` returned, by modules
        self._kinds, self._places = self._flatten()
        self.counts = [0] * len(self._modules)

    def _flatten(self) -> tuple[list[_Kind], list[list[tuple[int, int]]]]:
        """Lay the buffers out flat. Return them by type, and for each type each module's beginning and end."""
        buffers = [list(m.buffers(recurse=False)) for m in self._modules]
        kinds = dict.fromkeys((b.dtype, b.device) for own in buffers for b in own)
        lengths = [[sum(b.numel() for b in own if (b.dtype, b.device) == kind) for own in buffers] for kind in kinds]
        places = [list(pairwise(accumulate(each, initial=0))) for each in lengths]
        flat, found = [b for own in buffers for b in own], []
        self._sums = _flat(flat, wide(flat[0]) if flat else torch.float64)
        for kind, sums in zip(kinds, self._sums.split(list(map(sum, lengths))), strict=True):
            own = [b for b in flat if (b.dtype, b.device) == kind]
            live = _flat(own, kind[0])
            for buffer, view in zip(own, _views(live, own, _strides(own)), strict=True):
                buffer.data = view.copy_(buffer)
            found.append(_Kind(live, torch.empty_like(live), sums))
        return found, places

    def _run(self, number: int) -> None:
        """Remember that a module runs; in the backward, where it runs again, let it begin from the first buffers."""
        if self._alone and self._backward and number not in self._made and self._modules[number].training:
            parts = self._parts((number,))
            self._made[number] = [part.live.clone() for part in parts]
            for part in parts:
                part.live.copy_(part.first)
        self._ran.add(number)

    def begin(self, alone: bool = False) -> None:
        """Remember the update's first buffers. `alone`: it has one micro-batch on one worker."""
        self._alone, self._backward = alone, False
        for kind in self._kinds:
            kind.first.copy_(kind.live)
        if not alone:
            self._sums.fill_(NOTHING)
        self.counts = [0] * len(self._modules)
        self._ran.clear()
        self._made.clear()  # left where an update failed in its backward

    def start(self) -> None:
        """Put the first buffers back where the last backward recomputed a forward; call it before a forward."""
        self._backward = False
        if self._ran:
            self._put_back()
        self._ran.clear()

    def take(self) -> None:
        """Add what the forward made of the buffers, and put the first ones back; call it after a forward."""
        ran = [i for i in sorted(self._ran) if self._modules[i].training]
        for i in ran:
            self.counts[i] += 1
        if not self._alone:
            for part in self._parts(tuple(ran)):
                part.sums.add_(part.live)
            self._put_back()
        self._backward = True
        self._ran.clear()

    def finish(self, counts: Sequence[int]) -> None:
        """Set the buffers to their means; those of modules that did not run anywhere stay.

        `counts` says for each module in how many micro-batches it ran, on all workers together.
        """
        self._backward = False
        if self._alone:
            for number, made in self._made.items():
                for part, own in zip(self._parts((number,)), made, strict=True):
                    part.live.copy_(own)
            self._made.clear()
            return
        self.workers.add(self._sums, "the sum of buffers")
        for count in dict.fromkeys(filter(None, counts)):
            for part in self._parts(tuple(i for i, c in enumerate(counts) if c == count)):
                mean = part.sums.div_(count)
                part.live.copy_(mean if part.live.is_floating_point() else mean.round_())

    def undo(self) -> None:
        """Put the update's first buffers back after `finish`, where the update is skipped."""
        self._put_back()

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _put_back(self) -> None:
        for kind in self._kinds:
            kind.live.copy_(kind.first)

    def _parts(self, modules: tuple[int, ...]) -> list[_Kind]:
        """Return what of each type belongs to these modules (rising numbers), in as few pieces as there can be."""
        if modules not in self._cut:
            self._cut[modules] = self._pieces(modules)
        return self._cut[modules]

    def _pieces(self, modules: tuple[int, ...]) -> list[_Kind]:
        found = []
        for kind, places in zip(self._kinds, self._places, strict=True):
            pieces: list[list[int]] = []
            for start, stop in (places[i] for i in modules):
                if start == stop:
                    continue
                if pieces and pieces[-1][1] == start:
                    pieces[-1][1] = stop
                else:
                    pieces.append([start, stop])
            found += [kind.cut(*piece) for piece in pieces]
        return found
