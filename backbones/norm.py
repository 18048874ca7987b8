"""Norm policies: how a trunk's norms treat statistics. The names inside are batch norm's, so checkpoints load."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from .table import NORMS

GROUPS = 32  # Wu and He 2018, section 4: 32 groups, or as many as divide the channels


class FrozenBatchNorm2d(nn.Module):
    """Batch norm that is a fixed affine map: `(N, C, *T, H, W)` in and out, statistics and weights as stored.

    Everything it holds is a buffer, so that no optimizer moves it and `train()` changes nothing. In float32 its output
    is that of `nn.BatchNorm2d`, for clips `nn.BatchNorm3d`, in eval mode to the last bit.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the maps with the stored numbers; nothing is updated."""
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, var, self.get_buffer("weight"), self.get_buffer("bias"), False, 0.0, self.eps)

    def extra_repr(self) -> str:
        """Show channels and eps, as batch norm prints them."""
        return f"{self.num_features}, eps={self.eps}"


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def norm_layer(policy: str, clips: bool = False) -> Callable[[int], nn.Module]:
    """Return what makes a norm for a number of channels: "batch", "frozen", "sync" (over all processes) or "group".

    `clips` is for maps `(N, C, T, H, W)`.

    Raises WeightsError for another name, and for "sync" on a machine where torch has no synchronised batch norm.
    """
    if policy not in NORMS:
        raise WeightsError(f"norm={policy}: expected one of {', '.join(NORMS)}")
    if policy == "sync" and not _can_synchronise():
        raise WeightsError(
            "norm=sync: torch synchronises batch norm on CUDA and XPU devices only, and this machine has none. "
            "Use norm=batch (statistics of each micro-batch), norm=group (no statistics) or norm=frozen (the stored "
            "ones); weights trained with norm=sync load into norm=batch, whose names are the same."
        )
    batch = nn.BatchNorm3d if clips else nn.BatchNorm2d
    return {"batch": batch, "frozen": FrozenBatchNorm2d, "sync": nn.SyncBatchNorm, "group": _group_norm}[policy]


def _can_synchronise() -> bool:
    return torch.distributed.is_available() and (torch.cuda.is_available() or torch.xpu.is_available())


@contextmanager
def statistics_held(module: nn.Module) -> Iterator[None]:
    """Hold the running statistics and counters of the batch norms in `module`; what they compute stays the same."""
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    held = [(m, m.momentum) for m in module.modules() if isinstance(m, kinds) and m.training and m.track_running_stats]
    counters = [norm.get_buffer("num_batches_tracked").clone() for norm, _ in held]
    for norm, _ in held:
        norm.momentum = 0.0  # running = 1 * running + 0 * batch
    try:
        yield
    finally:
        for (norm, momentum), counter in zip(held, counters, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(counter)
