"""What a run's workers need of memory, part by part and for each of ZeRO's stages: what `show --memory` says."""

import math
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...backbones.contract import within
from ...cluster.config import Launch, Optimizer
from ...cluster.engines.optimizer import build_optimizer
from ...cluster.engines.zero import BUCKET
from ...cluster.engines.zero_options import ZeroOptions, refuse
from ...heads.model import Model
from ...tasks.contract import Task
from ..recipe.demo_data import placed
from ..recipe.fields import Recipe, batches_of, learning_tasks, sharing
from ..recipe.knobs import Resolved
from ..runs.machine import check_device, resolve_machine
from ..training.memory import (
    LIBRARIES,
    SHARE,
    Turn,
    free_memory,
    kept_for_backward,
    largest_phase,
    measured_samples,
    turns_of,
)
from ..training.parts import micro_of

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
    """The needs of every stage, the memory that is free, and what would make the recipe fit.

    `passes` has for each task, or for those that share batches, the bytes of a forward and backward; the largest counts.
    """

    needs: list[Need]
    chosen: int | None
    workers: int
    free: int  # bytes, of this machine or of its first GPU
    device: str
    advice: list[str]
    passes: dict[str, int]

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
                "fits": self.fits, "stages": stages, "advice": self.advice, "passes": self.passes}  # fmt: skip

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
        if len(self.passes) > 1:
            each = ", ".join(f"{name} {need / MIB:,.0f}" for name, need in self.passes.items())
            lines.append(f"  forward and backward of each task in MiB, of which the largest counts: {each}")
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
class _Share:
    """One task, or several that share batches: how many samples it takes at once, and what its passes keep.

    times  batches of it in an update, at most
    kept   of each turn: bytes that it keeps for its backward, and for each sample
    """

    tasks: tuple[str, ...]
    size: int
    micro: int
    auto: bool
    times: int
    kept: tuple[tuple[int, int], ...]

    @property
    def peak(self) -> int:
        """Bytes of its largest pass, forward and backward."""
        return max((fixed + int(BACKWARD * self.micro * sample) for fixed, sample in self.kept), default=0)


@dataclass(frozen=True)
class _Facts:
    """What the parts are reckoned from: numbers of elements, and bytes."""

    learners: dict[str, _Learner]  # by name; the model is the first, and has an empty one
    beside: int  # elements of networks that rest, or that losses call and that never learn
    exact: bool
    shares: list[_Share]  # of those that learn in the phase
    in_turn: bool  # whether an update has batches of one share alone
    program: int  # bytes of the interpreter, its libraries and their kernels
    width: int  # bytes of an element
    compared: int = 0  # bytes of the tasks' gradients on the trunk, where they are compared

    @property
    def summed(self) -> bool:
        """Whether an update has several micro-batches, whose gradients are summed."""
        counts = [share.times * share.size // share.micro for share in self.shares]
        return (max(counts, default=0) if self.in_turn else sum(counts)) > 1


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

    def parts(zero: int | None, facts: _Facts) -> dict[str, int]:
        return _parts(facts, zero, workers, own.offload, device)

    needs = [
        Need(zero, parts(zero, facts), _refused(recipe, workers, zero, own.offload, tuple(facts.learners)))
        for zero in STAGES
    ]
    free = free_memory() if device == "cpu" else torch.cuda.mem_get_info()[0]
    passes = {"+".join(share.tasks): share.peak for share in facts.shares}
    made = MemoryPlan(needs, own.stage, workers, free, device, [], passes)
    if made.fits and not any(share.auto for share in facts.shares):
        return made
    room = SHARE * free / _sharing(device, workers)
    return replace(
        made, advice=_advice(recipe, needs, room, lambda f: sum(parts(own.stage, f).values()), own.stage, facts, device)
    )


def _facts(recipe: Recipe, device: str) -> _Facts:
    from ..models.build import build

    program = _resident() + LIBRARIES if device == "cpu" else 500 * MIB  # of a GPU: its context and kernels
    tasks, model, _ = build(recipe)
    phase = largest_phase(recipe)
    model.freeze(phase.frozen, phase.still)
    turns = {name: turns_of(task, model, phase.players) for name, task in tasks.items()}
    shares = [_share(recipe, {n: tasks[n] for n in names}, [] if phase.cached else turns[names[0]])
              for names in sharing(recipe) if not _idle(recipe, names[0])]  # fmt: skip
    all_turns = [turn for own in turns.values() for turn in own]
    learners: dict[str, _Learner] = {}
    for turn in all_turns:  # the model is all tasks' first player
        name = "" if turn.player.module is model else turn.name
        learners.setdefault(name, _learner(recipe, name, turn.player.module))
    rest = [m for m in model.beside.values() if all(m is not turn.player.module for turn in all_turns)]
    used = {id(m): m for turn in all_turns for m in turn.player.uses}
    return _Facts(learners, sum(map(_elements, (*rest, *used.values()))), recipe.machine.reduction == "exact", shares,
                  recipe.mixing == "round_robin", program, 8 if recipe.machine.precision == "fp64" else 4,
                  _compared(recipe, model))  # fmt: skip


def _compared(recipe: Recipe, model: Model) -> int:
    """Count the bytes that `log.cosines` holds: a sum in fp64 for each task, and the gradient that is added."""
    trunk = sum(p.numel() for p in within(model.backbone).parameters() if p.requires_grad)
    return trunk * (8 * len(learning_tasks(recipe)) + 4) if recipe.log.cosines else 0


def _share(recipe: Recipe, tasks: dict[str, Task], turns: Sequence[Turn]) -> _Share:
    """Measure what passes of these tasks keep, each turn of them; nothing where there are no turns (on cached maps)."""
    names = tuple(tasks)
    own, mix = batches_of(recipe, names[0]), recipe.mix.get(names[0], 1.0)
    kept: list[tuple[int, int]] = []
    if turns:
        samples = measured_samples(tasks, {n: task.samples("train") for n, task in tasks.items()}, recipe.seed)
        kept = [kept_for_backward(turn, sample, recipe.machine) for sample in samples for turn in turns]
    times = math.ceil(mix) if recipe.mixing == "ratios" else 1
    return _Share(names, own.size, micro_of(recipe, names[0]), own.micro == "auto", times, tuple(kept))


def _idle(recipe: Recipe, task: str) -> bool:
    """Say whether every phase is too short for a batch of a task, as far as that can be told without the data."""
    lengths = [phase.updates for phase in recipe.phases]
    known = [updates for updates in lengths if updates is not None]
    mix = recipe.mix.get(task, 1.0)
    return recipe.mixing == "ratios" and len(known) == len(lengths) and all(math.floor(n * mix) < 1 for n in known)


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


def _parts(f: _Facts, zero: int | None, workers: int, offload: bool, device: str) -> dict[str, int]:
    """Estimate the bytes of one worker at its peak, by part; players learn in turns, and each keeps what it learns with."""
    each = [_held(learner, f, zero, workers, workers > 1 or f.summed) for learner in f.learners.values()]
    first, width = next(iter(f.learners.values())), f.width
    passes = max((share.peak for share in f.shares), default=0)
    gathered = max(held.pop("gathered") for held in each)
    parts = {part: sum(held[part] for held in each) for part in each[0]}
    if offload and zero and device != "cpu":
        parts["optimizer state"] = 0
    if f.beside:
        parts["networks that do not learn"] = f.beside * width
    if f.compared:
        parts["gradients of each task"] = f.compared
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
    stage = ZeroOptions(zero)
    problems += filter(None, [stage.mixed(len(recipe.tasks))])
    if len(players) > 1:
        problems += filter(None, [stage.several(tuple(name or "the model" for name in players))])
    return "; ".join(p.partition(": ")[2] or p for p in problems)


def _advice(
    recipe: Recipe,
    needs: Sequence[Need],
    room: float,
    total: Callable[[_Facts], int],
    chosen: int | None,
    facts: _Facts,
    device: str,
) -> list[str]:
    """List settings that would each, alone, fit a worker into `room` bytes, with what it would need then.

    `total` reckons the bytes of a worker from facts.
    """
    found = []
    if fitting := _smaller(facts, lambda f: total(f) <= room):
        said = _settings(recipe, facts, fitting)
        sizes = ", ".join(str(share.size) for share in fitting.shares)
        found.append(f"{said}: {total(fitting) / GIB:.2f} GiB a worker, the same mean over {sizes}")
    if not recipe.network.checkpointing:
        network = replace(recipe.network, checkpointing=True)
        again = _facts(replace(recipe, network=network), device)
        if (needed := total(again)) <= room:
            found.append(f"network.checkpointing=true: {needed / GIB:.2f} GiB a worker, the same weights, slower")
    found += [
        f"zero={n.zero}: {n.total / GIB:.2f} GiB a worker"
        for n in needs
        if n.zero and n.zero > (chosen or 0) and not n.refused and n.total <= room
    ]
    micro = "batches.NAME.micro=1 of each task" if len(recipe.tasks) > 1 else "micro_batch=1"
    return found or [f"none of {micro}, network.checkpointing=true and a higher --zero would do: choose a smaller size= "
                     "or backbone=, or fewer workers a machine"]  # fmt: skip


def _smaller(facts: _Facts, fits: Callable[[_Facts], bool]) -> _Facts | None:
    """Find the largest micro-batches that fit, each no larger than it is (`auto`: than its batch).

    As the largest pass counts, each share is tried with the smallest micro-batches of all others. None where nothing smaller
    fits.
    """
    least, made = [replace(share, micro=1) for share in facts.shares], []
    for at, share in enumerate(facts.shares):
        divisors = [d for d in range(share.micro, 0, -1) if share.size % d == 0]
        tried = (replace(share, micro=d) for d in divisors)
        chosen = next((s for s in tried if fits(replace(facts, shares=[*least[:at], s, *least[at + 1 :]]))), None)
        if chosen is None:
            return None
        made.append(chosen)
    found = replace(facts, shares=made)
    new = any(s.auto or s.micro < was.micro for s, was in zip(made, facts.shares, strict=True))
    return found if new and fits(found) else None


def _settings(recipe: Recipe, facts: _Facts, fitting: _Facts) -> str:
    """Write the micro-batches that are new as settings."""
    if len(recipe.tasks) == 1:
        return f"micro_batch={fitting.shares[0].micro}"
    new = [s for s, was in zip(fitting.shares, facts.shares, strict=True) if s.auto or s.micro < was.micro]
    return " ".join(f"batches.{name}.micro={share.micro}" for share in new for name in share.tasks)
