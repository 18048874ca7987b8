"""What a run's workers need of memory, part by part and for each of ZeRO's stages: what `show --memory` says."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...cluster.config import Launch, Optimizer
from ...cluster.engines.optimizer import build_optimizer
from ...cluster.engines.zero import BUCKET
from ...cluster.engines.zero_options import ZeroOptions, refuse
from ..recipe.demo_data import placed
from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved
from ..runs.machine import check_device, resolve_machine
from ..training.memory import LIBRARIES, SHARE, free_memory, kept_for_backward

STAGES: tuple[int | None, ...] = (None, 0, 1, 2, 3)
GIB, MIB = 2**30, 2**20
BACKWARD = 1.5  # the peak of a backward, in units of what a forward keeps; measured


@dataclass(frozen=True)
class Need:
    """Bytes that one worker needs at its peak, by part."""

    zero: int | None
    parts: dict[str, int]
    refused: str = ""  # why this stage cannot be had with these settings

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """The needs of every stage, the memory that is free, and what would make the recipe fit."""

    needs: list[Need]
    chosen: int | None
    workers: int
    free: int  # bytes, of this machine or of its first GPU
    device: str
    advice: list[str]

    @property
    def need(self) -> Need:
        """The needs of the stage that was asked for."""
        return next(n for n in self.needs if n.zero == self.chosen)

    @property
    def fits(self) -> bool:
        """Whether all workers together fit this machine (on GPUs: one worker fits a GPU), with a fifth to spare."""
        return self.need.total * _sharing(self.device, self.workers) <= SHARE * self.free

    def to_json(self) -> dict[str, Any]:
        """Convert the whole plan to a dict for JSON, in bytes."""
        stages = {_named(n.zero): {**n.parts, "total": n.total, "refused": n.refused or None} for n in self.needs}
        return {"zero": _named(self.chosen), "workers": self.workers, "device": self.device, "free": self.free,
                "fits": self.fits, "stages": stages, "advice": self.advice}  # fmt: skip

    def rows(self) -> list[list[str]]:
        """Write the needs as text in MiB: a row a part, a column a stage."""
        rows = [[part, *(f"{n.parts[part] / MIB:,.0f}" for n in self.needs)] for part in self.needs[0].parts]
        rows.append(["together", *(f"{n.total / MIB:,.0f}" for n in self.needs)])
        return rows

    def summary(self) -> str:
        """Say whether it fits, what would make it fit, and which stages these settings refuse."""
        together = self.need.total * _sharing(self.device, self.workers)
        what = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        what = f"{what} on this machine" if self.device == "cpu" else f"a worker on {self.device}"
        lines = [f"{what}: {together / GIB:.2f} of {self.free / GIB:.2f} GiB that are free: "
                 + ("fits" if self.fits else "does not fit")]  # fmt: skip
        lines += [f"  {line}" for line in self.advice]
        lines += [f"  zero={n.zero}: {n.refused}" for n in self.needs if n.refused]
        return "\n".join(lines)


def _named(zero: int | None) -> str:
    return "none" if zero is None else str(zero)


def _sharing(device: str, workers: int) -> int:
    """Return how many workers share the memory that `free` counts."""
    return workers if device == "cpu" else 1


@dataclass(frozen=True)
class _Facts:
    """What the parts are reckoned from: numbers of elements, and bytes."""

    weights: int  # elements of all parameters and buffers
    trained: int  # elements of those that learn
    largest: int  # elements of the largest of those
    state: float  # elements of optimizer state for each element that learns
    average: bool
    exact: bool
    kept: int  # bytes that a forward keeps for its backward, whatever the number of samples
    each: int  # and for each sample
    batch: int  # samples an update
    program: int  # bytes of the interpreter, its libraries and their kernels
    width: int  # bytes of an element


def plan(resolved: Resolved, launch: Launch) -> MemoryPlan:
    """Plan the memory of the recipe's largest phase (the one that freezes least), for every ZeRO stage.

    It runs forward passes of one sample of the data, and does not train.
    """
    recipe = placed(resolved.recipe)
    recipe = replace(recipe, machine=resolve_machine(recipe.machine)[0])
    check_device(recipe.machine.device)
    device = (
        "cuda" if torch.device(recipe.machine.device).type == "cuda" else "cpu"
    )  # whose memory counts: Apple's GPU shares the CPU's
    workers, own = launch.most, launch.engines.get("deepspeed", ZeroOptions())
    facts = _facts(recipe, device)
    size = recipe.batch.size
    micro = size if recipe.batch.micro in ("all", "auto") else int(recipe.batch.micro)
    needs = [
        Need(
            zero, _parts(facts, zero, workers, micro, own.offload, device), _refused(recipe, workers, zero, own.offload)
        )
        for zero in STAGES
    ]
    free = free_memory() if device == "cpu" else torch.cuda.mem_get_info()[0]
    made = MemoryPlan(needs, own.stage, workers, free, device, [])
    if made.fits and recipe.batch.micro != "auto":
        return made
    room = SHARE * free / _sharing(device, workers)

    def total(zero: int | None, micro: int, facts: _Facts = facts) -> int:
        return sum(_parts(facts, zero, workers, micro, own.offload, device).values())

    return replace(made, advice=_advice(recipe, needs, room, total, own.stage, micro, device))


def _facts(recipe: Recipe, device: str) -> _Facts:
    from ..feeding.draws import Draws
    from ..models.build import build

    program = _resident() + LIBRARIES if device == "cpu" else 500 * MIB  # of a GPU: its context and kernels
    tasks, model, _ = build(recipe)
    phase = min(recipe.phases, key=lambda p: p.frozen)
    model.freeze(phase.frozen)
    kept = each = 0
    for task in tasks.values() if not phase.cached else ():  # the task that needs most decides
        draws = Draws(task, task.samples("train"), recipe.seed, training=True)
        sample = task.collate([draws.draw((0, 0, 0))])
        kept, each = max((kept, each), kept_for_backward(model, sample, recipe.machine), key=sum)
    learns = [p.numel() for p in model.parameters() if p.requires_grad]
    weights = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    return _Facts(weights, sum(learns), max(learns), _state_of(recipe.optimizer), recipe.average.decay > 0,
                  recipe.machine.reduction == "exact", kept, each, recipe.batch.size, program,
                  8 if recipe.machine.precision == "fp64" else 4)  # fmt: skip


def _resident() -> int:
    """Read how many bytes this process holds; a worker holds as many before it has a model."""
    file = "/proc/self/statm"
    try:
        with open(file, encoding="ascii") as statm:  # noqa: PTH123
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _state_of(optimizer: Optimizer) -> float:
    """Count the elements of optimizer state for each element that learns, after one step of a small tensor."""
    model = nn.Linear(64, 64, bias=False)
    made = build_optimizer(model, optimizer)
    model.weight.grad = torch.ones_like(model.weight)
    made.step()
    held = sum(t.numel() for t in made.state[model.weight].values() if isinstance(t, torch.Tensor) and t.ndim)
    return held / model.weight.numel()


def _parts(f: _Facts, zero: int | None, workers: int, micro: int, offload: bool, device: str) -> dict[str, int]:
    """Estimate the bytes of one worker at its peak, by part."""
    stage, width = zero or 0, f.width
    share = f.trained / workers if stage else f.trained  # elements on one worker of what stages 1 and up divide
    many = workers > 1 or micro < f.batch
    weights = f.weights * width
    if stage == 3:  # divided, except the parameters gathered at one time
        weights = int(weights / workers + 2 * f.largest * width)
    if stage < 2:
        sums = f.trained * ((8 if f.exact else 0) + width) if many else 0  # and the gradients side by side
        gradients = f.trained * width + sums
    else:  # this worker's part, and the buckets in transit
        gradients = int(share * width) + 2 * min(BUCKET, f.trained) * width
    state = int(share * f.state * width)
    if stage:  # plus a copy of the weights that this worker updates, and DeepSpeed's flat buffers
        state += int(share * width) + f.trained * width
    if offload and stage and device != "cpu":
        state = 0
    passes = f.kept + int(BACKWARD * micro * f.each)
    gathered = int(f.trained * f.state * width) + (f.weights * width if stage == 3 else 0) if stage else 0
    return {
        "program": f.program,
        "weights": weights,
        "gradients and their sums": gradients,
        "optimizer state": state,
        "averaged weights": f.weights * width // (workers if stage == 3 else 1) if f.average else 0,
        "weights for evaluation": f.weights * width,
        "forward and backward": passes,
        "a checkpoint, beyond that": max(0, gathered - passes),
    }


def _refused(recipe: Recipe, workers: int, zero: int | None, offload: bool) -> str:
    if zero is None:
        return ""
    problems = refuse(recipe.optimizer, recipe.machine, workers, zero, offload and zero > 0)
    return "; ".join(p.partition(": ")[2] or p for p in problems)


def _advice(
    recipe: Recipe, needs: Sequence[Need], room: float, total: Any, chosen: int | None, micro: int, device: str
) -> list[str]:
    """List settings that would each, alone, fit a worker into `room` bytes, with what it would need then."""
    found = []
    size = recipe.batch.size
    smaller = [d for d in range(micro, 0, -1) if size % d == 0 and (d < micro or recipe.batch.micro == "auto")]
    fitting = next((d for d in smaller if total(chosen, d) <= room), None)
    if fitting:
        found.append(
            f"micro_batch={fitting}: {total(chosen, fitting) / GIB:.2f} GiB a worker, the same mean over {size}"
        )
    if not recipe.network.checkpointing:
        network = replace(recipe.network, checkpointing=True)
        facts = _facts(replace(recipe, network=network), device)
        if (needed := total(chosen, micro, facts)) <= room:
            found.append(f"network.checkpointing=true: {needed / GIB:.2f} GiB a worker, the same weights, slower")
    found += [
        f"zero={n.zero}: {n.total / GIB:.2f} GiB a worker"
        for n in needs
        if n.zero and n.zero > (chosen or 0) and not n.refused and n.total <= room
    ]
    return found or ["none of micro_batch=1, network.checkpointing=true and a higher --zero would do: choose a smaller size= "
                     "or backbone=, or fewer workers a machine"]  # fmt: skip
