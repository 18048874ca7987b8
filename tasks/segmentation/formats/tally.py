"""What all masks of a split hold, counted while training reads them: every sample once, whichever process decodes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....heads.contract import VOID
from .seen import Seen


@dataclass
class Tally:
    """A row a sample, in memory that loaders' processes share: whether it was seen, and its pixels of each class and of none."""

    seen: Tensor  # (N,) uint8
    pixels: Tensor  # (N, classes + 1) int32; the last column is void

    @classmethod
    def of(cls, samples: int, classes: int) -> "Tally":
        """Make one of nothing seen."""
        seen, pixels = torch.zeros(samples, dtype=torch.uint8), torch.zeros(samples, classes + 1, dtype=torch.int32)
        return cls(seen.share_memory_(), pixels.share_memory_())

    def add(self, index: int, labels: np.ndarray) -> None:
        """Count a sample's mask, `(H, W)` uint8, if it was not seen before."""
        if self.seen[index]:
            return
        counts = np.bincount(labels.ravel(), minlength=VOID + 1)
        classes = self.pixels.shape[1] - 1
        self.pixels[index] = torch.from_numpy(np.append(counts[:classes], counts[VOID]).astype(np.int32))
        self.seen[index] = 1

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what this process and its loaders saw, as arrays that can travel."""
        return self.seen.numpy(), self.pixels.numpy()


def counted(
    states: Sequence[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], split: str, void: str
) -> list[str]:
    """Say what the masks hold that the workers saw, of how many; `void` is who says that 255 is no class."""
    seen, pixels = np.maximum.reduce([s for s, _ in states]), np.maximum.reduce([p for _, p in states])
    found = Seen(int(seen.sum()))
    sums = pixels.sum(0, dtype=np.int64)
    found.pixels[: len(classes)], found.pixels[VOID] = sums[:-1], sums[-1]
    whose = "all" if found.masks == len(seen) else f"{found.masks:,} of the"
    return found.remarks(classes, f"{whose} {len(seen):,} masks of {split}, counted in the first epoch", void)
