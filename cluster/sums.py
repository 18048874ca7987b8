"""What the micro-batches of one update leave behind: gradients and buffers, summed in fp64 so that order is nothing."""

import torch
from torch import Tensor, nn


def _wide(tensor: Tensor) -> torch.dtype:
    """What sums are kept in: fp64, but where the device has none (MPS) fp32."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class GradientSums:
    """Sums of `p.grad` over the micro-batches of an update, in fp64, divided once and rounded once.

    A parameter that had no gradient in any micro-batch keeps `grad = None`, and so is not moved at all. With one
    micro-batch nothing is copied: rounding fp32 to fp64 and back changes no bit.
    """

    def __init__(self, model: nn.Module):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.sums: list[Tensor | None] = [None] * len(self.parameters)
        self._stored: list[Tensor | None] = [None] * len(self.parameters)

    def add(self) -> None:
        """Take the gradients of the micro-batch that was just computed."""
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            total, stored = self.sums[i], self._stored[i]
            if total is not None:
                total.add_(p.grad)
            elif stored is not None:
                self.sums[i] = stored.copy_(p.grad)
            else:
                self.sums[i] = self._stored[i] = p.grad.to(_wide(p.grad), copy=True)
            p.grad = None

    def finish(self, count: int) -> None:
        """Set every `p.grad` to its mean over `count` micro-batches and start anew."""
        for i, p in enumerate(self.parameters):
            total = self.sums[i]
            p.grad = None if total is None else total.div_(count).to(p.dtype)
            self.sums[i] = None


class BufferMeans:
    """The buffers' rule: every micro-batch starts from the update's first buffers; the result is the fp64 mean.

    What a forward made of the buffers is taken, and the first ones are put back before the backward, so that a forward
    recomputed by activation checkpointing does not count twice. A module that did not run keeps its buffers.
    """

    def __init__(self, model: nn.Module):
        self._modules = [m for m in model.modules() if any(True for _ in m.buffers(recurse=False))]
        self._ran: set[int] = set()
        self._hooks = [
            module.register_forward_hook(lambda *_, number=number: self._ran.add(number))
            for number, module in enumerate(self._modules)
        ]
        self._live = [[b.data for b in m.buffers(recurse=False)] for m in self._modules]
        self._first = [[b.clone() for b in buffers] for buffers in self._live]
        self._sums = [[torch.zeros_like(b, dtype=_wide(b)) for b in buffers] for buffers in self._live]
        self._counts = [0] * len(self._live)

    def begin(self) -> None:
        """Remember the update's first buffers."""
        learning = [i for i, m in enumerate(self._modules) if m.training]
        self._copy(self._first, self._live, learning)
        self._counts = [0] * len(self._live)
        self._ran.clear()

    def start(self) -> None:
        """Before a forward: put the first buffers back where the last backward recomputed a forward."""
        self._copy(self._live, self._first, [i for i in self._ran if self._modules[i].training])
        self._ran.clear()

    def take(self) -> None:
        """After a forward: add what it made, put the first buffers back."""
        ran = sorted(i for i in self._ran if self._modules[i].training)
        for i in ran:
            if self._counts[i]:
                for total, live in zip(self._sums[i], self._live[i], strict=True):
                    total.add_(live)
            else:
                self._copy(self._sums, self._live, [i])
            self._counts[i] += 1
        self._copy(self._live, self._first, ran)
        self._ran.clear()

    def finish(self) -> None:
        """Set the buffers to their means; those of modules that did not run stay."""
        for i, count in enumerate(self._counts):
            if count:
                for total, live in zip(self._sums[i], self._live[i], strict=True):
                    live.copy_(total.div_(count) if live.is_floating_point() else total.div_(count).round_())

    def undo(self) -> None:
        """After `finish`: put the update's first buffers back, where the update is skipped."""
        self._copy(self._live, self._first, [i for i, count in enumerate(self._counts) if count])

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    @staticmethod
    def _copy(to: list[list[Tensor]], source: list[list[Tensor]], which) -> None:
        a, b = [t for i in which for t in to[i]], [t for i in which for t in source[i]]
        if a:
            torch._foreach_copy_(a, b)  # pyright: ignore[reportPrivateImportUsage]
