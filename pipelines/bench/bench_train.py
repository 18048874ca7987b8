"""A training update of a classifier beside torchvision's reference loop."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..runs.environment import environment
from ..show import bar
from .bench import Bench, as_usual, paired, positive

CLASSES = 100
Setting = tuple[Any, bool]
"""A precision, and whether maps lie in channels_last."""


def bench_train(
    *,
    backbone: str = "resnet50",
    size: int = 224,
    batch: int = 16,
    rounds: int = 7,
    steps: int = 2,
    fused: bool = False,
    device: str = "auto",
) -> Bench:
    """Measure a training update beside torchvision's reference loop, at equal settings and with each side's defaults.

    Both sides have their batch on the device, and the same groups of parameters in the same form of SGD.

    batch          images an update
    rounds         interleaved pairs; the ratio is the median over them
    steps          updates a round
    fused          both sides step with the fused form of the optimizer
    """
    import torch

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine

    positive(size=size, batch=batch, rounds=rounds, steps=steps)

    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    work = Work.random(backbone, size, batch, fused, machine.device)
    pairs = [
        ("fp32, NCHW, both", ("fp32", False), ("fp32", False)),
        ("fp32, channels_last, both", ("fp32", True), ("fp32", True)),
        (f"{machine.precision}, channels_last, both", (machine.precision, True), (machine.precision, True)),
        (f"our defaults ({machine.precision}) against theirs (fp32)",
         (machine.precision, bool(machine.channels_last)), ("fp32", False)),
    ]  # fmt: skip
    rows = []
    with bar("bench train", len(pairs) * rounds, "rounds") as advance:
        for name, ours, theirs in dict.fromkeys(pairs):
            own, plain = sides(work, machine, ours, theirs)
            rows.append(paired(name, own["train"], plain["train"], batch, rounds, steps, advance))
            del own, plain
            gc.collect()
    settings = {"backbone": backbone, "size": size, "batch": batch, "rounds": rounds, "steps": steps, "fused": fused}
    return Bench(
        "train", rows, settings | {"device": machine.device, "threads": torch.get_num_threads()}, environment()
    )


@dataclass
class Work:
    """The same pictures and labels for both sides: `(N, 3, S, S)` uint8 and `(N,)` int64, on the device."""

    backbone: str
    images: Any
    labels: Any
    fused: bool

    @classmethod
    def random(cls, backbone: str, size: int, batch: int, fused: bool, device: str) -> "Work":
        """Draw them."""
        import torch

        images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        return cls(backbone, images.to(device), torch.randint(0, CLASSES, (batch,)).to(device), fused)


def sides(work: Work, machine: Any, ours: Setting, theirs: Setting) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Build our `predict` and `train` to call, and theirs. Our `compile` compiles the trunk."""
    from .plain import Loop

    own, optimizer = _ours(work, machine, *ours)
    loop, floats = Loop(work.backbone, CLASSES, *theirs, machine.device, optimizer), (work.images / 255 - 0.45) / 0.225
    return own, {
        "predict": as_usual(lambda: loop.predict(floats)),
        "train": as_usual(lambda: loop.update(floats, work.labels)),
    }


def _ours(work: Work, machine: Any, precision: Any, channels_last: bool) -> tuple[dict[str, Callable], Any]:
    from dataclasses import replace

    import torch

    from ...backbones import backbone as make
    from ...backbones.contract import Preprocessing
    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...heads.classification import ClassificationHead
    from ...heads.contract import Batch
    from ...heads.model import Model, losses
    from ..evaluation.measure import apart, inference

    trunk = make(work.backbone)
    head = ClassificationHead(trunk.channels["c5"], CLASSES)
    model = Model(trunk, {"classification": head}, Preprocessing())
    machine = replace(machine, precision=precision, channels_last=channels_last)
    optimizer = Optimizer("momentum", lr=0.01, options={"fused": True} if work.fused else {})
    engine = TorchEngine(model, losses, Learning(optimizer, Schedule("constant"), Average(), 10**6, 100), machine)
    ids = [str(i) for i in range(len(work.labels))]
    batch = Batch("classification", ids, work.images, targets={"label": work.labels})
    twin = apart(model)  # as an evaluation beside training has one
    own_head: Any = twin.heads["classification"]

    def predict() -> Any:
        with inference(twin, precision, torch.device(machine.device)):
            return own_head(twin.maps(batch)).float().softmax(1).cpu()

    own = {"predict": predict, "train": lambda: float(engine.update([batch]).total), "compile": trunk.compile}
    return own, engine.optimizer
