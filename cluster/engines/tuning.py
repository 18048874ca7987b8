"""cuDNN's choice of kernels by trying them: worth its time where shapes stay the same, a loss where they change."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


class Tuning:
    """Lets cuDNN try its kernels (`cudnn.benchmark`) while every task's micro-batches keep the shape of its first one.

    The first micro-batch of a shape is never tried: only its equal after it shows that the shape stays. Once a task's
    shape changes, nothing is tried any more. Off where results must not depend on what was the fastest, and without CUDA.
    """

    def __init__(self, device: torch.device, deterministic: bool):
        self.on = device.type == "cuda" and not deterministic
        self._shapes: dict[str, torch.Size] = {}

    def fixed(self, batch: Any) -> bool:
        """Note a micro-batch's shape; say whether all of its task so far had this one, and there was one before."""
        images = getattr(batch, "images", None)
        if not self.on or images is None:
            return False
        task = getattr(batch, "task", "")
        before = self._shapes.get(task)
        self._shapes[task] = images.shape
        self.on = before in (None, images.shape)
        return self.on and before is not None

    @contextlib.contextmanager
    def of(self, batch: Any) -> Iterator[None]:
        """Try kernels while this context lasts, where the batch's shape is a fixed one; what others do is left alone."""
        if not self.fixed(batch):
            yield
            return
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
