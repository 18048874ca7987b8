"""Gradients of an update's micro-batches, summed in fp64: no order of adding shows in fp32.

All of a type lies in one flat tensor, so that a step of the bookkeeping is one operation, however many tensors there are.
"""

from collections.abc import Sequence
from itertools import compress
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


def has_mean(tensor: Tensor) -> bool:
    """Say whether a tensor is averaged: complex numbers and floats of eight bits are taken for constants."""
    return not tensor.is_complex() and (not tensor.is_floating_point() or tensor.itemsize > 1)


def strides_of(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """List the strides that copies of these tensors have, in their own memory format."""
    return [torch.empty_like(t, device="meta").stride() for t in tensors]


def flat_of(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Make a flat tensor with room for all of these."""
    return torch.zeros(sum(t.numel() for t in tensors), dtype=dtype, device=tensors[0].device if tensors else "cpu")


def views_of(flat: Tensor, tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut a flat tensor into views, one for each of the tensors, in their own memory format."""
    parts = flat.split([t.numel() for t in tensors])
    return [part.as_strided(t.shape, stride) for part, t, stride in zip(parts, tensors, strides, strict=True)]


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


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
        self._strides = strides_of(self.parameters)  # now: an engine may lay its parameters out anew
        self._used = [False] * len(self.parameters)
        self._beside: Tensor | None = None  # made when there is something to add; the gradients of one micro-batch
        self._views: list[Tensor] = []  # of it, one for each parameter
        self._sums = torch.empty(0)
        self._numpy: list[np.ndarray] = []  # views of the sums, one for each parameter, where numpy adds

    def begin(self) -> None:
        """Forget what an update left that did not come to its end."""
        self._used = [False] * len(self.parameters)
        for p in self.parameters:
            p.grad = None

    def add(self) -> None:
        """Add up the gradients of the micro-batch that was just computed; unless `exact`, autograd has done so."""
        if not self.exact:
            return  # autograd adds to `p.grad` by itself
        self._make_room()
        if self._numpy:
            for p, used, sums in zip(self.parameters, self._used, self._numpy, strict=True):
                if p.grad is None:
                    continue
                gradient = _dense(p.grad).numpy()
                if used:
                    np.add(sums, gradient, out=sums)
                else:
                    np.copyto(sums, gradient)
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
        self._divide(count)
        for p, view, somewhere in zip(self.parameters, self._views, used, strict=True):
            p.grad = view.to(p.dtype) if somewhere else None
        self._used = [False] * len(self.parameters)

    def _divide(self, count: int) -> None:
        """Put the means beside, each divided in its sum's type and rounded once; not `exact`, the sums lie there already."""
        assert self._beside is not None
        if self._numpy:  # in one pass over the memory
            wider, beside = self._sums.numpy(), self._beside.numpy()
            np.divide(wider, count, out=beside, dtype=wider.dtype, casting="same_kind")
            return
        self._sums.div_(count)
        if self.exact:
            self._beside.copy_(self._sums)

    def _make_room(self) -> None:
        if self._beside is not None:
            return
        types = {p.dtype for p in self.parameters}
        plain = types <= {*IN_NUMPY}
        dtype = types.pop() if len(types) == 1 else wide(self.parameters[0])
        self._beside = flat_of(self.parameters, dtype)
        self._views = views_of(self._beside, self.parameters, self._strides)
        self._sums = flat_of(self.parameters, wide(self._beside)) if self.exact else self._beside
        if self.exact and plain and self._sums.device.type == "cpu" and torch.get_num_threads() < MANY_CORES:
            self._numpy = [v.numpy() for v in views_of(self._sums, self.parameters, self._strides)]

    def _side_by_side(self) -> Tensor:
        """Copy the gradients into one flat tensor; where there is none, NOTHING stands."""
        assert self._beside is not None
        there = [p.grad is not None for p in self.parameters]
        if any(there):
            gradients = [_dense(p.grad) for p in self.parameters if p.grad is not None]
            foreach._foreach_copy_(list(compress(self._views, there)), gradients)
        if not all(there):
            lacking = [view for view, has in zip(self._views, there, strict=True) if not has]
            foreach._foreach_zero_(lacking)
            foreach._foreach_neg_(lacking)
        return self._beside
