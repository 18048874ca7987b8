"""Three tasks on one trunk and one pyramid beside three single models, and beside what trunk and heads cost one by one."""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trunkline.ground.errors import RecipeError

from ..runs.environment import environment
from ..show import bar
from .bench import Bench, positive, row

CLASSES = 20
TASKS = ("multilabel", "detection", "segmentation")
JOINT, TRUNK = "joint", "trunk and pyramid"
LIVELY = 0.2  # weight of each block's last norm: at 1 unlearnt blocks would double their numbers, at 0 do nothing
RATE = 1e-6  # so small that random targets move nothing
Timed = dict[str, list[float]]
"""Seconds of every round, by what was run."""


def bench_joint(
    *,
    backbone: str = "resnet50",
    size: int = 512,
    batch: int = 1,
    objects: int = 8,
    rounds: int = 5,
    frozen: int = 2,
    precision: Literal["fp32", "bf16"] = "fp32",
    threads: int | None = None,
    processor: bool = False,
    device: str = "auto",
) -> Bench:
    """Measure labels, Faster R-CNN and a semantic FPN on one trunk and one pyramid beside three models of one task each.

    All take turns in each round. The bound of the speed-up is the time of three models over that of the trunk with its
    pyramid and of each head alone: no model can save more than the passes that it shares. Whether the outputs of both sides
    are equal, to the bit, is asked in fp32.

    size           of the pictures, which are square
    batch          pictures at once
    objects        of each picture in training
    rounds         of all in turn; ratios are medians over them
    frozen         stages of the trunk that do not learn
    threads        of the arithmetic; by default the machine's
    processor      count the processor's time in place of the clock's: for a machine that others use at the same time
    """
    own = {} if threads is None else {"threads": threads}
    positive(size=size, batch=batch, objects=objects, rounds=rounds, **own)
    import torch

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine, threads_kept

    machine, _ = resolve_machine(Machine(device=device, precision=precision, threads=threads or "auto"))
    check_device(machine.device)
    if processor and machine.device != "cpu":
        raise RecipeError(
            f"processor=true: on {machine.device} the processor waits for it; leave it out, or set device=cpu"
        )
    clock = time.process_time if processor else time.perf_counter
    rows, seconds = list[dict[str, Any]](), dict[str, dict[str, float]]()
    with threads_kept(), bar("bench joint", 2 * rounds, "rounds") as advance:
        torch.set_num_threads(int(machine.threads))
        work = Work.random(size, batch, objects, machine.device)
        models = made(backbone, frozen)
        same, objects_found = equal(models, work)
        share = _parameters(models)
        for mode, sides in (("predict", predicting(models, work, machine)), ("train", training(models, work, machine))):
            timed = in_turns(sides, rounds, clock, advance)
            rows += _rows(mode, timed, batch)
            seconds[mode] = {name: round(statistics.median(times), 4) for name, times in timed.items()}
        used = torch.get_num_threads()
    settings: dict[str, Any] = {
        "backbone": backbone, "size": size, "batch": batch, "objects": objects, "rounds": rounds, "frozen": frozen,
        "precision": precision, "threads": used, "processor": processor, "device": machine.device, "outputs equal in fp32": same,
        "objects compared": objects_found,
        "parameters, to those of three models": round(share, 3), "seconds": seconds,
    }  # fmt: skip
    return Bench("joint", rows, settings, environment())


@dataclass
class Work:
    """The same pictures for all sides, `(N, 3, S, S)` uint8 on the device, with what each task is to find in them."""

    images: Any
    targets: dict[str, dict[str, Any]]

    @classmethod
    def random(cls, size: int, batch: int, objects: int, device: str) -> "Work":
        """Draw them; a mask is of squares of 16 pixels."""
        import torch

        torch.manual_seed(0)
        corner = torch.rand(batch, objects, 2) * size * 0.6
        boxes = torch.cat([corner, corner + 8 + torch.rand(batch, objects, 2) * size * 0.3], 2).to(device)
        squares = torch.randint(0, CLASSES, (batch, -(-size // 16), -(-size // 16)), dtype=torch.uint8)
        mask = squares.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :size, :size]
        targets = {
            "multilabel": {"labels": torch.randint(0, 2, (batch, CLASSES), dtype=torch.int8).to(device)},
            "detection": {"boxes": [*boxes], "labels": [*torch.randint(0, CLASSES, (batch, objects)).to(device)]},
            "segmentation": {"mask": mask.to(device)},
        }
        return cls(torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8).to(device), targets)

    def batch(self, task: str) -> Any:
        """Put the pictures together for one task, or for all of the joint model."""
        from ...heads.contract import Batch

        ids = [str(n) for n in range(len(self.images))]
        if task in self.targets:
            return Batch(task, ids, self.images, targets=self.targets[task])
        parts = tuple(Batch(name, ids, targets=targets) for name, targets in self.targets.items())
        return Batch("+".join(TASKS), ids, self.images, parts=parts)


def made(backbone: str, frozen: int) -> dict[str, Any]:
    """Make the joint model, and a model of each task with the same weights, by name."""
    import torch

    from ...backbones import backbone as make
    from ...backbones.contract import Preprocessing
    from ...backbones.pyramid import Pyramid
    from ...heads.model import Model
    from ...heads.multilabel import MultiLabelHead
    from ...heads.pixels.semantic_pyramid import SemanticPyramidHead
    from ...heads.rcnn import RCNNHead

    torch.manual_seed(0)
    trunk: Any = make(backbone, norm="frozen")
    for name, tensor in trunk.named_buffers():
        if name.endswith(("bn3.weight", "bn2.weight")) and not tensor.any():
            tensor.fill_(LIVELY)
    pyramid = Pyramid(trunk)
    heads = {
        "multilabel": MultiLabelHead(pyramid.channels["c5"], CLASSES),
        "detection": RCNNHead(pyramid.channels["p2"], pyramid.strides, CLASSES),
        "segmentation": SemanticPyramidHead(pyramid.channels, CLASSES),
    }
    models = {JOINT: Model(pyramid, heads, Preprocessing())}
    for name, head in heads.items():  # of labels alone nobody would put a pyramid around the trunk
        models[name] = Model(
            deepcopy(pyramid if name != "multilabel" else trunk), {name: deepcopy(head)}, Preprocessing()
        )
    for model in models.values():
        model.freeze(frozen)
    return models


def equal(models: dict[str, Any], work: Work) -> tuple[bool, int]:
    """Say whether the joint model's predictions in fp32 are those of the single models, to the bit, and of how many objects."""
    import torch

    from ..evaluation.measure import inference

    device = torch.device(work.images.device)
    together, alone = None, {}
    for name, model in models.items():
        model.to(device)
        with inference(model, "fp32", device):
            found = model(work.images)
        together, alone = (found, alone) if name == JOINT else (together, alone | found)
    assert together is not None
    pairs = [(one, other) for name in TASKS for one, other in zip(together[name], alone[name], strict=True)]
    same = all(np.array_equal(x, vars(b)[key]) for a, b in pairs for key, x in vars(a).items() if key != "id")
    return same, sum(len(one.scores) for one in together["detection"])


def predicting(models: dict[str, Any], work: Work, machine: Any) -> dict[str, Callable[[], Any]]:
    """Build what predicts: the joint model, each single one, the trunk with its pyramid, and each head on its maps."""
    import torch

    from ...cluster.engines.memory_format import place
    from ..evaluation.measure import apart, inference

    device = torch.device(machine.device)
    twins = {name: apart(model) for name, model in models.items()}
    for twin in twins.values():
        place(twin, device, machine.channels_last is True)

    def inside(model: Any, call: Callable[[], Any]) -> Callable[[], Any]:
        def step() -> Any:
            with inference(model, machine.precision, device):
                return call()

        return step

    joint = twins[JOINT]
    maps = inside(joint, lambda: joint.maps(work.batch(JOINT)))()
    sides = {JOINT: inside(joint, lambda: joint(work.images))}
    sides[TRUNK] = inside(joint, lambda: joint.maps(work.batch(JOINT)))
    for name in TASKS:
        given = replace(work.batch(name), features=maps)
        sides[name] = inside(twins[name], lambda name=name: twins[name](work.images))
        sides[f"head: {name}"] = inside(joint, lambda given=given: joint.predict(given))
    return sides


def training(models: dict[str, Any], work: Work, machine: Any) -> dict[str, Callable[[], Any]]:
    """Build whole updates of the same, each with an optimizer of its own; a head alone gives its maps their gradient."""
    import torch
    from torch import nn

    from ...backbones.contract import Preprocessing
    from ...heads.model import Model

    sides = {name: _updates(deepcopy(model), work.batch(name), machine) for name, model in models.items()}
    joint: Any = models[JOINT]
    with torch.inference_mode(False), torch.no_grad():
        maps = joint.maps(work.batch(JOINT))
    needs = {name: maps[name] for head in joint.heads.values() for name in head.needs}
    trunk = Model(deepcopy(joint.backbone), {"maps": _mean_of(tuple(needs))}, Preprocessing())
    sides[TRUNK] = _updates(trunk, replace(work.batch("multilabel"), task="maps"), machine)
    for name in TASKS:
        head = Model(nn.Identity(), {name: deepcopy(joint.heads[name])}, Preprocessing())
        own = {key: maps[key].clone().requires_grad_() for key in joint.heads[name].needs}
        sides[f"head: {name}"] = _updates(head, replace(work.batch(name), features=own), machine)
    return sides


def _updates(model: Any, batch: Any, machine: Any) -> Callable[[], Any]:
    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...heads.model import losses

    learning = Learning(Optimizer("momentum", lr=RATE), Schedule("constant"), Average(), 10**6, 100)
    engine = TorchEngine(model, losses, learning, machine)

    def update() -> float:
        for one in (batch.features or {}).values():
            one.grad = None
        return float(engine.update([batch]).total)

    return update


def _mean_of(names: tuple[str, ...]) -> Any:
    """Make a head that costs nothing: its loss is the sum of the means of these maps."""
    from torch import nn

    class MeanOf(nn.Module):
        needs = names

        def losses(self, features: Any, batch: Any) -> Any:
            return {"mean": sum(features[name].float().mean() for name in names)}

    return MeanOf()


def in_turns(
    sides: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float], advance: Callable[[], Any]
) -> Timed:
    """Time each side once a round, after one step to warm up; every round begins with another side."""
    for step in sides.values():
        step()
    names, timed = list(sides), {name: [] for name in sides}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            sides[name]()
            timed[name].append(clock() - start)
        advance()
    return timed


def _rows(mode: str, timed: Timed, batch: int) -> list[dict[str, Any]]:
    """Compare the joint model with three models and with its parts, and these with each other, round by round."""

    def speeds(*names: str) -> list[float]:
        return [batch / sum(each) for each in zip(*(timed[name] for name in names), strict=True)]

    joint, three = speeds(JOINT), speeds(*TASKS)
    parts = speeds(TRUNK, *(f"head: {name}" for name in TASKS))
    compared = {
        "joint to three models": (joint, three),
        "bound: trunk and each head, to three models": (parts, three),
        "share of the bound: joint to trunk and each head": (joint, parts),
    }
    return [row(f"{mode}: {name}", list(zip(*pair, strict=True))) for name, pair in compared.items()]


def _parameters(models: dict[str, Any]) -> float:
    """Divide the number of the joint model's parameters and norms by that of the single models together."""

    def count(model: Any) -> int:
        return sum(tensor.numel() for tensor in model.state_dict().values())

    return count(models[JOINT]) / sum(count(models[name]) for name in TASKS)
