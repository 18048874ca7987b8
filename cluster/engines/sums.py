"""What an update's micro-batches leave behind, gradients and buffers, summed in fp64: no order of adding shows in fp32."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..workers import ALONE, Workers


def wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype that sums are kept in: fp64, or fp32 where the device has none (MPS)."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class _Flat:
    """One flat tensor of sums with a view for each of several tensors, in their own memory format."""

    def __init__(self, tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...]], dtype: torch.dtype | None = None):
        dtype = dtype or (wide(tensors[0]) if tensors else torch.float64)
        device = tensors[0].device if tensors else "cpu"
        self.flat = torch.zeros(sum(t.numel() for t in tensors), dtype=dtype, device=device)
        self.views: list[Tensor] = []
        start = 0
        for t, stride in zip(tensors, strides, strict=True):
            self.views.append(self.flat[start : start + t.numel()].as_strided(t.shape, stride))
            start += t.numel()


def _strides(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [torch.empty_like(t, device="meta").stride() for t in tensors]


class GradientSums:
    """Sums of `p.grad` over an update's micro-batches and workers, divided once and rounded once.

    `exact` keeps the sums in fp64; otherwise in the parameters' own type. A parameter that had no gradient in any
    micro-batch on any worker keeps `grad = None`, and so is not moved at all. With one micro-batch on one worker nothing
    is copied: rounding fp32 to fp64 and back changes no bit.
    """

    def __init__(self, model: nn.Module, workers: Workers = ALONE, exact: bool = True):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.workers, self.exact = workers, exact
        self._strides = _strides(self.parameters)  # now: an engine may lay its parameters out anew
        self._sums: _Flat | None = None
        self._used = [False] * len(self.parameters)

    def add(self) -> None:
        """Add up the gradients of the micro-batch that was just computed; unless `exact`, autograd has done so."""
        if not self.exact:
            return  # autograd adds to `p.grad` by itself
        views = self._views()
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            if self._used[i]:
                views[i].add_(p.grad)
            else:
                views[i].copy_(p.grad)
            self._used[i], p.grad = True, None

    def used(self) -> list[bool]:
        """Say for each parameter whether it had a gradient on this worker."""
        return self._used if self.exact else [p.grad is not None for p in self.parameters]

    def finish(self, count: int, used: Sequence[int]) -> None:
        """Set every `p.grad` to its mean over the `count` micro-batches of all workers, and start anew.

        `used` says for each parameter on how many workers it had a gradient.
        """
        if not self.exact and self.workers.size == 1:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            if count > 1 and gradients:
                torch._foreach_div_(gradients, count)  # pyright: ignore[reportPrivateImportUsage]
            return
        views = self._views()
        for own, view, p in zip(self.used(), views, self.parameters, strict=True):
            if not own:
                view.zero_()
            elif not self.exact:
                assert p.grad is not None
                view.copy_(p.grad)
        assert self._sums
        self.workers.add(self._sums.flat, "the sum of gradients")
        if self.exact:
            for p, view, somewhere in zip(self.parameters, views, used, strict=True):
                p.grad = view.div_(count).to(p.dtype) if somewhere else None
        else:
            self._sums.flat.div_(count)
            for p, view, somewhere in zip(self.parameters, views, used, strict=True):
                p.grad = view if somewhere else None
        self._used = [False] * len(self.parameters)

    def _views(self) -> list[Tensor]:
        if self._sums is None:
            self._sums = _Flat(self.parameters, self._strides, None if self.exact else self.parameters[0].dtype)
        return self._sums.views


class BufferMeans:
    """The buffers' rule: every micro-batch starts from the update's first buffers; the result is the fp64 mean.

    What a forward made of the buffers is taken, and the first ones are put back before the backward, so that a forward
    recomputed by activation checkpointing does not count twice. A module that did not run keeps its buffers.
    """

    def __init__(self, model: nn.Module, workers: Workers = ALONE):
        self.workers = workers
        self._modules = [m for m in model.modules() if any(True for _ in m.buffers(recurse=False))]
        self._ran: set[int] = set()
        self._hooks = [
            module.register_forward_hook(lambda *_, number=number: self._ran.add(number))
            for number, module in enumerate(self._modules)
        ]
        self._live = [[b.data for b in m.buffers(recurse=False)] for m in self._modules]
        self._first = [[b.clone() for b in buffers] for buffers in self._live]
        flat = [b for buffers in self._live for b in buffers]
        self._flat = _Flat(flat, _strides(flat))
        rest = iter(self._flat.views)
        self._sums = [[next(rest) for _ in buffers] for buffers in self._live]
        self.counts = [0] * len(self._live)

    def begin(self) -> None:
        """Remember the update's first buffers."""
        learning = [i for i, m in enumerate(self._modules) if m.training]
        self._copy(self._first, self._live, learning)
        self.counts = [0] * len(self._live)
        self._ran.clear()

    def start(self) -> None:
        """Prepare a forward: put the first buffers back where the last backward recomputed a forward."""
        self._copy(self._live, self._first, [i for i in self._ran if self._modules[i].training])
        self._ran.clear()

    def take(self) -> None:
        """Add what a forward made of the buffers to the sums, and put the first buffers back."""
        ran = sorted(i for i in self._ran if self._modules[i].training)
        for i in ran:
            if self.counts[i]:
                for total, live in zip(self._sums[i], self._live[i], strict=True):
                    total.add_(live)
            else:
                self._copy(self._sums, self._live, [i])
            self.counts[i] += 1
        self._copy(self._live, self._first, ran)
        self._ran.clear()

    def finish(self, counts: Sequence[int]) -> None:
        """Set the buffers to their means; buffers of modules that ran nowhere stay.

        `counts` says for each module in how many micro-batches it ran, on all workers together.
        """
        if self.workers.size > 1:
            for i, count in enumerate(self.counts):
                if not count:
                    for total in self._sums[i]:
                        total.zero_()
            self.workers.add(self._flat.flat, "the sum of buffers")
        self.counts = list(counts)
        for i, count in enumerate(counts):
            if count:
                for total, live in zip(self._sums[i], self._live[i], strict=True):
                    live.copy_(total.div_(count) if live.is_floating_point() else total.div_(count).round_())

    def undo(self) -> None:
        """Put the update's first buffers back after `finish`, where the update is skipped."""
        self._copy(self._live, self._first, [i for i, count in enumerate(self.counts) if count])

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    @staticmethod
    def _copy(to: list[list[Tensor]], source: list[list[Tensor]], which) -> None:
        a, b = [t for i in which for t in to[i]], [t for i in which for t in source[i]]
        if a:
            torch._foreach_copy_(a, b)  # pyright: ignore[reportPrivateImportUsage]
