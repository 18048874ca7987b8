"""R3D-18 on clips beside torchvision's r3d_18 in a plain loop: prediction and training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .bench import as_usual, by_precision

ARCH, TASK, CLASSES = "r3d_18", "action", 400


@dataclass
class Work:
    """The same clips and labels for both sides: `(N, 3, T, S, S)` uint8 and `(N,)` int64, on the device."""

    clips: Any
    labels: Any
    device: str

    @classmethod
    def random(cls, crop: int, frames: int, batch: int, device: str) -> "Work":
        """Draw them."""
        import torch

        torch.manual_seed(0)
        clips = torch.randint(0, 256, (batch, 3, frames, crop, crop), dtype=torch.uint8)
        return cls(clips.to(device), torch.randint(0, CLASSES, (batch,)).to(device), device)


def clips(crop: int, frames: int, batch: int, rounds: int, machine: Any) -> tuple[list[dict[str, Any]], float]:
    """Measure clips a second in prediction and training; return the rows, and by how much logits differ at equal settings.

    `machine` is resolved: what it holds are our defaults.
    """
    work = Work.random(crop, frames, batch, machine.device)
    rows, equal = by_precision(
        "video, clips", machine, batch, rounds, lambda own: sides(work, own),
        lambda own, other: float((own - other).abs().max()),
    )  # fmt: skip
    return [{**row, "name": f"{ARCH}, {row['name']}", "unit": "clips/s"} for row in rows], equal


def sides(work: Work, machine: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """Build our `predict` and `train` to call, and theirs, on the same weights."""
    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...heads.model import losses

    model = _model()
    tensors = {k.removeprefix("backbone.").removeprefix(f"heads.{TASK}."): v.clone()
               for k, v in model.state_dict().items()}  # fmt: skip
    learning = Learning(Optimizer("momentum", lr=1e-4), Schedule("constant"), Average(), 10**6, 100)
    engine = TorchEngine(model, losses, learning, machine)
    return _ours(work, model, engine, machine), _theirs(work, tensors, model.preprocessing, engine.optimizer)


def _model() -> Any:
    import torch

    from ...backbones import backbone
    from ...backbones.contract import pooled_maps
    from ...heads.model import Model
    from ...heads.video.clip import clip_head

    torch.manual_seed(0)
    trunk = backbone(ARCH, zero_init=False)
    head = clip_head(
        "pool3d", trunk.channels, CLASSES, time_strides=trunk.time_strides, reads=pooled_maps(trunk), dropout=0.0
    )
    return Model(trunk, {TASK: head}, trunk.preprocessing)


def _ours(work: Work, model: Any, engine: Any, machine: Any) -> dict[str, Callable[[], Any]]:
    import torch

    from ...heads.contract import Batch
    from ..evaluation.measure import apart, inference

    names = [str(i) for i in range(len(work.labels))]
    batch = Batch(TASK, names, work.clips, targets={"label": work.labels})
    twin = apart(model)  # as an evaluation beside training has one

    def predict() -> Any:
        with inference(twin, machine.precision, torch.device(work.device)):
            return twin.heads[TASK](twin.maps(batch))

    return {"predict": predict, "train": lambda: float(engine.update([batch]).total)}


def _theirs(work: Work, tensors: dict[str, Any], preprocessing: Any, beside: Any) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn import functional as F
    from torchvision.models.video import r3d_18

    from .plain import sgd

    net = r3d_18(num_classes=CLASSES).to(work.device)
    net.load_state_dict(tensors)
    optimizer = sgd(net, 1e-4, beside)
    mean, std = (torch.tensor(v, device=work.device).view(3, 1, 1, 1) for v in (preprocessing.mean, preprocessing.std))

    def predict() -> Any:
        net.eval()
        with torch.inference_mode():
            return net((work.clips / 255 - mean) / std)

    def train() -> float:
        net.train()
        loss = F.cross_entropy(net((work.clips / 255 - mean) / std), work.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return {"predict": as_usual(predict), "train": as_usual(train)}
