"""What many processes cost: our engines beside torch's DistributedDataParallel, under Ray and without it."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...backbones import backbone
from ...backbones.contract import Preprocessing
from ...cluster.config import Average, Launch, Learning, Machine, Optimizer, Schedule
from ...cluster.engines.optimizer import build_optimizer
from ...cluster.engines.torch_engine import TorchEngine
from ...cluster.launchers.local import run_local
from ...cluster.launchers.ray_options import RayOptions
from ...cluster.launchers.worker import Job, Place
from ...cluster.workers import Workers
from ...heads.classification import ClassificationHead
from ...heads.contract import Batch
from ...heads.model import Model, losses
from ..runs.environment import environment
from ..show import bar
from .bench import Bench, positive, row
from .plain import sgd

WORKERS, MICRO, BATCH, CLASSES = 2, 4, 8, 10


def bench_scale(*, rounds: int = 11, steps: int = 2, ray: bool = True, size: int = 64, wide: int = 112) -> Bench:
    """Measure updates of ResNet-18 on two one-thread workers, each with four micro-batches of 8, in interleaved rounds.

    rounds         of each side; the ratio is the median over the pairs
    steps          updates a round
    ray            measure under Ray too
    size           side of the pictures beside DistributedDataParallel; `wide` that of the weak scaling
    """
    positive(rounds=rounds, steps=steps, size=size, wide=wide)
    sides = [("local", "ddp"), ("local", "engine"), ("local", "zero0"), ("local", "exact")]
    sides += [("ray", "engine"), ("ray", "zero0")] if ray else []
    sides += [("local", "together"), ("local", "apart")]
    schedule = [side for r in range(rounds + 1) for side in (sides if r % 2 else reversed(sides))]
    with tempfile.TemporaryDirectory() as scratch:
        args = {"folder": scratch, "schedule": [list(s) for s in schedule], "steps": steps, "size": size, "wide": wide}
        job = Job(f"{__name__}:measure", {**args, "group": "local"}, 600.0)
        groups = [lambda: run_local(job, WORKERS, Path(scratch) / "logs", WORKERS)]
        if ray:
            groups.append(lambda: _under_ray(Job(job.call, {**args, "group": "ray"}, 600.0), Path(scratch)))
        seconds = _all(groups, Path(scratch), len(schedule))
    found: dict[tuple[str, str], list[float]] = {}
    for side, took in zip(schedule[len(sides) :], seconds[len(sides) :], strict=True):  # the first round warms up
        found.setdefault(side, []).append(steps / took)
    pairs = [
        ("TorchEngine, fp32 sums, to DDP", ("local", "engine"), ("local", "ddp")),
        ("ZeRO 0, fp32 sums, to DDP", ("local", "zero0"), ("local", "ddp")),
        ("TorchEngine, exact sums, to DDP", ("local", "exact"), ("local", "ddp")),
        ("under Ray: TorchEngine, fp32 sums, to DDP without Ray", ("ray", "engine"), ("local", "ddp")),
        ("under Ray: ZeRO 0, fp32 sums, to DDP without Ray", ("ray", "zero0"), ("local", "ddp")),
        ("two workers together, to two apart", ("local", "together"), ("local", "apart")),
    ]
    rows = [row(name, list(zip(found[a], found[b], strict=True))) for name, a, b in pairs if a in found]
    settings = {"rounds": rounds, "steps": steps, "size": size, "wide": wide, "micro_batches": MICRO, "batch": BATCH}
    return Bench("scale", rows, settings | {"unit": "updates/s"}, environment())


def _under_ray(job: Job, scratch: Path) -> Any:
    from ...cluster.launchers.on_ray import run

    place = Place(scratch / "logs", str(scratch / "ray"), WORKERS, lambda event: None)
    return run(job, Launch("ray", WORKERS, own=RayOptions()), place)


def _all(groups: list[Callable[[], Any]], folder: Path, count: int) -> list[float]:
    """Run all groups at once, and return the seconds of each turn. Raises the first error of a group."""
    failures: list[BaseException] = []

    def guarded(group: Callable[[], Any]) -> None:
        try:
            group()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    with bar("bench scale", count, "turns") as advance:
        for number in range(count):
            while not (folder / f"{number}").is_file():
                if failures:
                    raise failures[0]
                time.sleep(0.02)
            advance()
    for thread in threads:
        thread.join()
    return [float((folder / f"{number}").read_text()) for number in range(count)]


def measure(args: dict[str, Any], workers: Workers) -> None:
    """Take this group's turns of the schedule, and write the seconds of turn k into the file k."""
    torch.set_num_threads(1)
    made: dict[str, Callable[[], None]] = {}
    folder = Path(args["folder"])
    for number, (group, name) in enumerate(args["schedule"]):
        if group != args["group"]:
            continue
        if name not in made:
            made[name] = side(name, workers, args["wide"] if name in ("together", "apart") else args["size"])
            made[name]()
        while workers.leads and number and not (folder / f"{number - 1}").is_file():
            time.sleep(0.005)
        workers.agree([1], "the beginning of a turn")
        start = time.perf_counter()
        for _ in range(args["steps"]):
            made[name]()
        workers.agree([1], "the end of a turn")
        if workers.leads:
            beside = folder / f".{number}"
            beside.write_text(str(time.perf_counter() - start))
            beside.replace(folder / f"{number}")


def side(name: str, workers: Workers, size: int) -> Callable[[], None]:
    """Build a function that takes one update as `name` does it."""
    machine = Machine("cpu", "fp32", True, deterministic=False, reduction="fp32", threads=1, loaders=0)
    model, optimizer = _model(), Optimizer("momentum", lr=0.01)
    batches = [_batch(workers.rank * MICRO + m, size) for m in range(MICRO)]
    settings = (model, losses, Learning(optimizer, Schedule("constant"), Average(), 10**6, 100))
    if name == "ddp":
        return _ddp(model, batches)
    if name == "zero0":
        from ...cluster.engines.zero import DeepSpeedEngine, Zero

        engine = DeepSpeedEngine(*settings, machine, workers, Zero())
    else:
        machine = replace(machine, reduction="exact") if name == "exact" else machine
        own = Workers() if name == "apart" else workers
        engine = TorchEngine(*settings, machine, own)
    return lambda: engine.update(batches).check()


def _model() -> Model:
    trunk = backbone("resnet18")
    return Model(trunk, {"classification": ClassificationHead(trunk.channels["c5"], CLASSES)}, Preprocessing())


def _batch(seed: int, size: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8, generator=g)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=g)
    return Batch("classification", [str(i) for i in range(BATCH)], images, targets={"label": labels})


class _Losses(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return torch.stack(list(self.model.losses(batch).values())).sum()


def _ddp(model: Model, batches: list[Batch]) -> Callable[[], None]:
    """Build torch's own update: accumulation under `no_sync`, one reduction with the last micro-batch."""
    from ...cluster.engines.memory_format import place

    place(model, "cpu", True).train()
    beside = build_optimizer(model, Optimizer("momentum", lr=0.01))
    wrapped = nn.parallel.DistributedDataParallel(_Losses(model), broadcast_buffers=False)
    optimizer = sgd(model, 0.01, beside)

    def update() -> None:
        total = 0.0
        for i, batch in enumerate(batches):
            with wrapped.no_sync() if i + 1 < len(batches) else contextlib.nullcontext():
                loss = wrapped(batch)
                (loss / len(batches)).backward()
                total += loss.item()
        optimizer.step()
        optimizer.zero_grad()

    return update
