"""How many samples fit into memory at once: what `batch.micro=auto` becomes."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import EngineError

from ...cluster.engines.memory_format import place
from ...cluster.engines.torch_engine import AUTOCAST
from ...heads.contract import Batch
from ...heads.model import Model
from ..recipe.fields import Machine

SHARE = 0.8  # of the free memory may be used
LIBRARIES = 300 * 2**20  # bytes that kernels keep for themselves on a CPU, as measured


def fitting_micro_batch(model: Model, sample: Batch, size: int, machine: Machine) -> tuple[int, str]:
    """Find the largest divisor of `size` whose micro-batch fits, and say why. `sample` is a batch of one.

    On a GPU the largest is tried, then the next smaller one. Elsewhere running out of memory would end the process, so the
    need is estimated from what one sample keeps for its backward pass. Raises EngineError where not even one fits.
    """
    divisors = [d for d in range(size, 0, -1) if size % d == 0]
    if torch.device(machine.device).type == "cuda":
        for micro in divisors:
            if _fits(model, sample, micro, machine):
                return micro, "the largest that this GPU ran"
        raise EngineError("not even a micro-batch of one sample fits this GPU: choose a smaller size= or backbone=")
    kept, each = kept_for_backward(model, sample, machine)
    free, fixed, each = free_memory(), _fixed(model) + kept + LIBRARIES, 2 * each  # the backward holds as much again
    for micro in divisors:
        if fixed + micro * each <= SHARE * free:
            return micro, f"{(fixed + micro * each) / 2**30:.1f} of {free / 2**30:.1f} GiB that are free"
    raise EngineError(
        f"not even a micro-batch of one sample fits the {free / 2**30:.1f} GiB that are free: choose a smaller size= or backbone="
    )


def free_memory() -> int:
    """Return the bytes that this process may still take, within a container's limit; 4 GiB where the system says none."""
    known = [4 * 2**30]
    file = Path("/proc/meminfo")
    if file.is_file():
        known = [
            int(line.split()[1]) * 1024 for line in file.read_text().splitlines() if line.startswith("MemAvailable")
        ]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and limit.read_text().strip().isdigit():
        known.append(int(limit.read_text()) - int(used.read_text()))
    return min(known)


def _fixed(model: Model) -> int:
    """Sum the bytes of gradient, its sum in fp64 and two optimizer moments of all that learns."""
    return sum(p.numel() * (4 + 8 + 8) for p in model.parameters() if p.requires_grad)


def kept_for_backward(model: Model, sample: Batch, machine: Machine) -> tuple[int, int]:
    """Measure the bytes that a forward pass keeps for its backward: a fixed part, and a part for each sample."""
    place(model, machine.device, machine.channels_last is True)
    two, four = (_kept(model, _repeat(sample, n), machine) for n in (2, 4))
    each = max(0, four - two) // 2
    return max(0, two - 2 * each), each


def _kept(model: Model, batch: Batch, machine: Machine) -> int:
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        _loss(model, batch, machine)
    return sum(kept.values())


def _fits(model: Model, sample: Batch, micro: int, machine: Machine) -> bool:
    try:
        _loss(model, _repeat(sample, micro), machine).backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()


def _loss(model: Model, batch: Batch, machine: Machine) -> torch.Tensor:
    place(model, machine.device, machine.channels_last is True).train()
    dtype = AUTOCAST.get(machine.precision)
    with torch.autocast(torch.device(machine.device).type, dtype, enabled=dtype is not None):
        return torch.stack([v.float() for v in model.losses(batch.to(machine.device)).values()]).sum()


def _repeat(batch: Batch, times: int) -> Batch:
    """Repeat a batch's samples `times` over; targets may be tensors or lists."""
    assert batch.images is not None
    sizes = None if batch.sizes is None else _again(batch.sizes, times)
    targets: dict[str, Any] = {name: _again(target, times) for name, target in batch.targets.items()}
    return replace(batch, ids=batch.ids * times, images=_again(batch.images, times), sizes=sizes, targets=targets)


def _again(rows: Any, times: int) -> Any:
    return list(rows) * times if isinstance(rows, list | tuple) else rows.repeat(times, *[1] * (rows.ndim - 1))
