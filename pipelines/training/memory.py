"""How many samples fit into memory at once: what `batch.micro=auto` becomes."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trunkline.ground.errors import EngineError

from ...cluster.engines.losses import summed
from ...cluster.engines.memory_format import place
from ...cluster.engines.torch_engine import AUTOCAST
from ...cluster.engines.turns import still
from ...heads.contract import Batch, Player
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.samples import Samples
from ..feeding.draws import Draws, SharedDraws
from ..feeding.joint import Joint
from ..feeding.mixture import Member
from ..recipe.fields import Machine, Phase, Recipe

SHARE = 0.8  # of the free memory may be used
LIBRARIES = 300 * 2**20  # bytes that kernels keep for themselves on a CPU, as measured


@dataclass(frozen=True)
class Turn:
    """A player's turn in an update; `others` play too, and are still meanwhile."""

    name: str
    player: Player
    others: tuple[nn.Module, ...]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All players' modules, this one's first."""
        return (self.player.module, *self.others)


def largest_phase(recipe: Recipe) -> Phase:
    """Find the phase that needs most memory: it freezes least, and most players play in it."""
    return min(recipe.phases, key=lambda p: (p.frozen, bool(p.players), -len(p.players)))


def turns_of(task: Task, model: Model, playing: tuple[str, ...]) -> list[Turn]:
    """List the turns that the players of a phase have on a task's micro-batches, the model's first."""
    first, *others = task.players(model, playing)
    found = []
    for name in [first, *(name for name in others if not playing or name in playing)]:
        players = task.players(model, playing)  # anew, as players may keep things for each other's turns
        found.append(Turn(name, players[name], tuple(p.module for n, p in players.items() if n != name)))
    return found


def measured_samples(tasks: Mapping[str, Task], samples: Mapping[str, Samples], seed: int) -> list[Batch]:
    """Draw a batch of one sample; of tasks that share batches, of one picture with the targets that each has of it.

    It is the first picture that most of them label. Where none is labelled by all, more batches follow, until each task has
    been in one.
    """
    if len(tasks) == 1:
        ((name, task),) = tasks.items()
        return [task.collate([Draws(task, samples[name], seed, training=True).draw((0, 0, 0))])]
    joint = Joint.of([samples[name] for name in tasks])
    members = [Member(name, rows=rows) for name, rows in zip(tasks, joint.rows, strict=True)]
    draws = SharedDraws(tasks, samples, members, "+".join(tasks), seed)
    labels, found = np.stack(joint.rows) >= 0, []
    left = np.ones(len(members), bool)
    while left.any():
        best = int(labels[left].sum(0).argmax())
        found.append(draws.batch([(0, best, 0)]))
        left &= ~labels[:, best]
    return found


def fitting_micro_batch(
    turns: Sequence[Turn], samples: Sequence[Batch], size: int, machine: Machine
) -> tuple[int, str]:
    """Find the largest divisor of `size` whose micro-batch fits, and say why. `samples` are batches of one, each to fit.

    On a GPU the largest is tried, then the next smaller one. Elsewhere running out of memory would end the process, so the
    need is estimated from what one sample keeps for its backward pass. Raises EngineError where not even one fits.
    """
    divisors = [d for d in range(size, 0, -1) if size % d == 0]
    if torch.device(machine.device).type == "cuda":
        for micro in divisors:
            if all(_fits(turn, sample, micro, machine) for sample in samples for turn in turns):
                return micro, "the largest that this GPU ran"
        raise EngineError("not even a micro-batch of one sample fits this GPU: choose a smaller size= or backbone=")
    passes = [kept_for_backward(turn, sample, machine) for sample in samples for turn in turns]
    free, fixed = free_memory(), sum(_fixed(turn.player.module) for turn in turns) + LIBRARIES
    for micro in divisors:
        need = fixed + max(kept + micro * 2 * each for kept, each in passes)  # the backward holds as much again
        if need <= SHARE * free:
            return micro, f"{need / 2**30:.1f} of {free / 2**30:.1f} GiB that are free"
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


def _fixed(module: nn.Module) -> int:
    """Sum the bytes of gradient, its sum in fp64 and two optimizer moments of all that learns."""
    return sum(p.numel() * (4 + 8 + 8) for p in module.parameters() if p.requires_grad)


def kept_for_backward(turn: Turn, sample: Batch, machine: Machine) -> tuple[int, int]:
    """Measure the bytes that a turn's forward passes keep for its backward: a fixed part, and a part for each sample.

    The weights of the players and of networks that never learn are not among them.
    """
    two, four = (_kept(turn, _repeat(sample, n), machine) for n in (2, 4))
    each = max(0, four - two) // 2
    return max(0, two - 2 * each), each


def _kept(turn: Turn, batch: Batch, machine: Machine) -> int:
    kept: dict[int, int] = {}
    _placed(turn, machine)
    modules = (*turn.modules, *turn.player.uses)
    own = {t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        _loss(turn, batch, machine)
    return sum(kept.values())


def _fits(turn: Turn, sample: Batch, micro: int, machine: Machine) -> bool:
    try:
        _placed(turn, machine)
        _loss(turn, _repeat(sample, micro), machine).backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        for module in turn.modules:
            module.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()


def _placed(turn: Turn, machine: Machine) -> None:
    for module in turn.modules:
        place(module, machine.device, machine.channels_last is True).train()


def _loss(turn: Turn, batch: Batch, machine: Machine) -> torch.Tensor:
    dtype = AUTOCAST.get(machine.precision)
    with still(turn.others), torch.autocast(torch.device(machine.device).type, dtype, enabled=dtype is not None):
        return summed(turn.player.losses(turn.player.module, batch.to(machine.device)))


def _repeat(batch: Batch, times: int) -> Batch:
    """Repeat a batch's samples `times` over; targets may be tensors or lists."""
    images, sizes = (None if own is None else _again(own, times) for own in (batch.images, batch.sizes))
    targets: dict[str, Any] = {name: _again(target, times) for name, target in batch.targets.items()}
    features = batch.features and {name: _again(x, times) for name, x in batch.features.items()}
    parts = tuple(_repeat(part, times) for part in batch.parts)  # of one picture, which each of them labels
    return replace(
        batch, ids=batch.ids * times, images=images, sizes=sizes, targets=targets, features=features, parts=parts
    )


def _again(rows: Any, times: int) -> Any:
    return list(rows) * times if isinstance(rows, list | tuple) else rows.repeat(times, *[1] * (rows.ndim - 1))
