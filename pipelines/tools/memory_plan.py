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
from ..training.memory import LIBRARIES, SHARE, Turn, free_memory, kept_for_backward, largest_phase, turns_of

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
class _Learner:
    """A player: the model, or what takes its turns beside it (a critic)."""

    weights: int  # elements of all parameters and buffers
    trained: int  # elements of those that learn
    largest: int  # elements of the largest of those
    state: float  # elements of optimizer state for each element that learns
    average: bool


@dataclass(frozen=True)
class _Facts:
    """What the parts are reckoned from: numbers of elements, and bytes."""

    learners: dict[str, _Learner]  # by name; the model is the first, and has an empty one
    beside: int  # elements of networks that rest, or that losses call and that never learn
    exact: bool
    passes: list[tuple[int, int]]  # of each turn: bytes that it keeps for its backward, and for each sample
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
            zero,
            _parts(facts, zero, workers, micro, own.offload, device),
            _refused(recipe, workers, zero, own.offload, tuple(facts.learners)),
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
    phase = largest_phase(recipe)
    model.freeze(phase.frozen, phase.still)
    turns: list[Turn] = []
    passes = [(0, 0)]
    for task in tasks.values():
        turns += (own := turns_of(task, model, phase.players))
        if phase.cached:
            continue
        draws = Draws(task, task.samples("train"), recipe.seed, training=True)
        sample = task.collate([draws.draw((0, 0, 0))])
        passes += [kept_for_backward(turn, sample, recipe.machine) for turn in own]
    learners: dict[str, _Learner] = {}
    for turn in turns:  # the model is all tasks' first player
        name = "" if turn.player.module is model else turn.name
        learners.setdefault(name, _learner(recipe, name, turn.player.module))
    rest = [m for m in model.beside.values() if all(m is not turn.player.module for turn in turns)]
    used = {id(m): m for turn in turns for m in turn.player.uses}
    return _Facts(learners, sum(map(_elements, (*rest, *used.values()))), recipe.machine.reduction == "exact", passes,
                  recipe.batch.size, program, 8 if recipe.machine.precision == "fp64" else 4)  # fmt: skip


def _learner(recipe: Recipe, name: str, module: nn.Module) -> _Learner:
    """Count a player, which learns as the recipe says for its name, else as it says for the model ("")."""
    own: Any = recipe.players.get(name, recipe)
    learns = [p.numel() for p in module.parameters() if p.requires_grad]
    return _Learner(_elements(module), sum(learns), max(learns), _state_of(own.optimizer), own.average.decay > 0)


def _elements(module: nn.Module) -> int:
    return sum(t.numel() for t in (*module.parameters(), *module.buffers()))


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
    """Estimate the bytes of one worker at its peak, by part; players learn in turns, and each keeps what it learns with."""
    each = [_held(learner, f, zero, workers, workers > 1 or micro < f.batch) for learner in f.learners.values()]
    first, width = next(iter(f.learners.values())), f.width
    passes = max(kept + int(BACKWARD * micro * sample) for kept, sample in f.passes)
    gathered = max(held.pop("gathered") for held in each)
    parts = {part: sum(held[part] for held in each) for part in each[0]}
    if offload and zero and device != "cpu":
        parts["optimizer state"] = 0
    if f.beside:
        parts["networks that do not learn"] = f.beside * width
    return {
        "program": f.program,
        **parts,
        "weights for evaluation": first.weights * width,
        "forward and backward": passes,
        "a checkpoint, beyond that": max(0, gathered - passes),
    }


def _held(learner: _Learner, f: _Facts, zero: int | None, workers: int, many: bool) -> dict[str, int]:
    """Estimate what one player holds throughout, by part, and what is `gathered` of it for a checkpoint."""
    stage, width, trained = zero or 0, f.width, learner.trained
    share = trained / workers if stage else trained  # elements on one worker of what stages 1 and up divide
    whole = learner.weights * width
    weights = int(whole / workers + 2 * learner.largest * width) if stage == 3 else whole  # divided, but those gathered
    if stage < 2:
        sums = trained * ((8 if f.exact else 0) + width) if many else 0  # and the gradients side by side
        gradients = trained * width + sums
    else:  # this worker's part, and the buckets in transit
        gradients = int(share * width) + 2 * min(BUCKET, trained) * width
    state = int(share * learner.state * width)
    if stage:  # plus a copy of the weights that this worker updates, and DeepSpeed's flat buffers
        state += int(share * width) + trained * width
    return {
        "weights": weights,
        "gradients and their sums": gradients,
        "optimizer state": state,
        "averaged weights": whole // (workers if stage == 3 else 1) if learner.average else 0,
        "gathered": int(trained * learner.state * width) + (whole if stage == 3 else 0) if stage else 0,
    }


def _refused(recipe: Recipe, workers: int, zero: Any, offload: bool, players: tuple[str, ...]) -> str:
    if zero is None:
        return ""
    problems = refuse(recipe.optimizer, recipe.machine, workers, zero, offload and zero > 0)
    if len(players) > 1:
        problems += filter(None, [ZeroOptions(zero).several(tuple(name or "the model" for name in players))])
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
