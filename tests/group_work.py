"""What worker processes of the tests do: rows of a table of engines, each for six updates."""

import json
import os
import signal
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.norm import norm_layer
from trunkline.backbones.residual import BasicBlock, ResNet, conv
from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.ground.errors import EngineError
from trunkline.ground.keys import key, seed_model
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model, losses

UPDATES = 6


@dataclass(frozen=True)
class Row:
    """One engine at one setting; `zero` None is TorchEngine."""

    zero: int | None
    optimizer: str
    norm: str
    micro: int
    clip: float
    channels_last: bool = False
    trunk: str = "small"  # or pixel, or resnet18
    gentle: bool = False  # a tenth of the learning rate, where rounding is not to grow
    precision: str = "fp32"

    def named(self, workers: int) -> str:
        engine = "torch" if self.zero is None else f"zero{self.zero}"
        settings = f"{self.optimizer}-{self.norm}-{self.micro}-{self.clip:g}-{self.channels_last:d}{self.gentle:d}"
        settings += f"-{self.trunk}-{self.precision}"
        return f"{engine}-{settings}-{workers}"


def model_of(row: Row) -> Model:
    """Random weights, and the statistics of one batch: frozen norms of trained weights hold such."""
    seed_model(5)
    trunk = trunk_of(row.trunk, "batch")
    for norm in (m for m in trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    last = list(trunk.channels)[-1]
    head = ClassificationHead(trunk.channels[last], 5, dropout=0.2)
    model = Model(trunk, {"classification": head}, Preprocessing())
    with torch.no_grad():
        trunk.train()(model.normalise(micro_batches(99, Row(None, "sgd", "batch", 1, 0.0))[0]))
    found = trunk.state_dict()
    model.backbone = trunk_of(row.trunk, row.norm)
    model.backbone.load_state_dict(found)
    return model


def trunk_of(name: str, norm: str):
    """ResNet-18, or a trunk of two narrow stages whose last map is called c5 too; that of "pixel" is one pixel large."""
    if name not in ("small", "pixel"):
        return backbone(name, norm=norm, zero_init=False)
    layer = norm_layer(norm)
    stem = torch.nn.Sequential(OrderedDict(conv1=conv(3, 16, 3, 2), bn1=layer(16), relu=torch.nn.ReLU()))
    stages = [torch.nn.Sequential(BasicBlock(16, 24, layer, stride=2), BasicBlock(24, 24, layer)),
              torch.nn.Sequential(BasicBlock(24, 40, layer, stride=16 if name == "pixel" else 2))]  # fmt: skip
    return Small(stem, stages)


class Small(ResNet):
    def __init__(self, stem, stages):
        super().__init__(stem, stages)
        self.channels["c5"] = self.channels["c3"]

    def forward(self, images):
        maps = super().forward(images)
        return {**maps, "c5": maps["c3"]}


def micro_batches(update: int, row: Row) -> list[Batch]:
    g = torch.Generator().manual_seed(100 + update)
    images = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8, generator=g)
    labels = torch.randint(0, 5, (12,), generator=g)
    size = 12 // row.micro
    return [
        Batch("classification", [str(i) for i in range(at, at + size)], images[at : at + size],
              targets={"label": labels[at : at + size]}, key=key(update, at))
        for at in range(0, 12, size)
    ]  # fmt: skip


def engine_of(row: Row, workers, model=None):
    options = {"eps": 1e-4} if row.optimizer == "adamw" else {}
    lr = (0.002 if row.optimizer == "adamw" else 0.02) * (0.1 if row.gentle else 1.0)
    optimizer = Optimizer(row.optimizer, lr=lr, weight_decay=0.05, clip=row.clip, options=options)
    machine = Machine("cpu", row.precision, row.channels_last, deterministic=True, threads=1, loaders=0)
    learning = Learning(optimizer, Schedule("cosine"), Average(0.9), UPDATES, 3)
    settings = (model or model_of(row), losses, learning, machine, workers)
    if row.zero is None:
        return TorchEngine(*settings)
    from trunkline.cluster.engines.zero import DeepSpeedEngine, Zero

    return DeepSpeedEngine(*settings, Zero(row.zero))


def run(row: Row, workers, folder: Path, first: int = 0, last: int = UPDATES, begin: Path | None = None) -> None:
    """Updates `first` to `last`, from the checkpoint `begin` where there is one; what they made goes to `folder`."""
    engine = engine_of(row, workers)
    if begin:
        engine.load(begin, json.loads((begin / "state.json").read_text()))
    for update in range(first, last):
        everyones = micro_batches(update, row)
        mine = list(workers.mine(everyones))
        if not mine:
            mine = [Batch(**{**vars(everyones[0]), "stand_in": True})]
        report = engine.update(mine)
        assert report.update == update and report.numbers()["total"] > 0
    if workers.leads:
        folder.mkdir(parents=True, exist_ok=True)
    state = engine.save(folder if workers.leads else None)
    if workers.leads:
        (folder / "state.json").write_text(json.dumps(state))
    engine.close()


def table(args, workers):
    """Rows in turn, in one set of processes."""
    torch.set_num_threads(1)
    for spec in args["rows"]:
        row = Row(**spec["row"])
        begin = Path(spec["begin"]) if spec.get("begin") else None
        run(row, workers, Path(spec["folder"]), spec.get("first", 0), spec.get("last", UPDATES), begin)
    return len(args["rows"])


def mixture(args, workers):
    """Six updates of a trunk with two heads, of which one has no micro-batch in some of them."""
    torch.set_num_threads(1)
    order = args["order"]  # of each update: which head each micro-batch is for
    for zero in args["zeros"]:
        engine = two_heads(zero, workers)
        for update, tasks in enumerate(order):
            batches = [Batch(t, ["x"], *two_batch(update, i), key=key(update, i)) for i, t in enumerate(tasks)]
            engine.update(list(workers.mine(batches)))
        folder = Path(args["folder"]) / f"mixture-{zero}"
        if workers.leads:
            folder.mkdir(parents=True, exist_ok=True)
        engine.save(folder if workers.leads else None)
        engine.close()


def two_batch(update, i):
    g = torch.Generator().manual_seed(1000 * update + i)
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=g)
    return images, None, {"label": torch.randint(0, 5, (4,), generator=g)}


def two_heads(zero, workers):
    seed_model(7)
    trunk = trunk_of("small", "batch")
    heads = {name: ClassificationHead(trunk.channels["c5"], 5) for name in ("a", "b")}
    machine = Machine("cpu", "fp32", False, deterministic=True, threads=1, loaders=0)
    optimizer = Optimizer("adamw", lr=0.002, weight_decay=0.05, clip=1.0, options={"eps": 1e-4})
    learning = Learning(optimizer, Schedule("constant"), Average(0.9), UPDATES, 3)
    settings = (Model(trunk, heads, Preprocessing()), losses, learning, machine, workers)
    if zero is None:
        return TorchEngine(*settings)
    from trunkline.cluster.engines.zero import DeepSpeedEngine, Zero

    return DeepSpeedEngine(*settings, Zero(zero, units=("heads.a.", "heads.b.")))


def misbehave(args, workers):
    """One worker does something else than the others."""
    if workers.rank == args["rank"]:
        what = args["what"]
        if what == "mistake":
            raise EngineError("photos/7.jpg: is damaged")
        if what == "bug":
            raise KeyError("nothing there")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(600)
    workers.agree([1], "an update")
    return "done"


def differing_storage(args, workers):
    """Each worker stands in a folder of its own and is given the same relative path."""
    own = Path(args["folder"]) / str(workers.rank)
    (own / "run").mkdir(parents=True, exist_ok=True)
    os.chdir(own)
    from trunkline.pipelines.runs.run import Run
    from trunkline.pipelines.training.train import shared

    shared(Run("run"), workers, patience=0.5)


def phases(args, workers):
    """A model goes from one engine to the next, as it does from phase to phase; the second freezes what the first trained."""
    torch.set_num_threads(1)
    for zero in args["zeros"]:
        row = Row(zero, "adamw", "batch", 2, 0.0)
        model = model_of(row)
        for frozen in (0, 2):
            model.backbone.freeze(frozen)
            engine = engine_of(row, workers, model)
            for update in range(3):
                engine.update(list(workers.mine(micro_batches(update, row))))
            engine.close()
        if workers.leads:
            torch.save(model.state_dict(), Path(args["folder"]) / f"phases-{zero}-{workers.size}.pt")


def silence(args, workers):
    """Worker 1 computes longer than the group's patience, which is well, and then `how` it comes to nothing more."""
    until = time.monotonic() + 2 * workers.timeout
    while workers.rank == 1 and time.monotonic() < until:
        sum(range(1000))
    assert workers.gather(workers.rank, "a meeting") == [0, 1]
    if workers.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP) if args["how"] == "stopped" else threading.Event().wait()
    workers.gather(workers.rank, "another meeting")
