"""Speed that changes no bit: which kernels cuDNN tries, and how a CPU's memory is kept."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

_TRIM, _MMAP = -1, -3  # glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_KEPT, _LARGEST = 2**31 - 1, 2**25  # bytes: the most that either takes


def keep_memory() -> bool:
    """Let glibc keep up to 2 GiB of freed memory for the next maps of this process; return whether it does so now.

    By default it gives memory back to the system and asks for it again, page by page, in every update: as its heap
    happens to lie, a tenth of a small one's time. What the user's environment says of the allocator stands.
    """
    said = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if said or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    return mallopt(_TRIM, _KEPT) == mallopt(_MMAP, _LARGEST) == 1


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
