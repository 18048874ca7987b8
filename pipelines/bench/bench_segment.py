"""Segmentation beside torchvision's DeepLabV3, and beside smp's decoder of V3+ on torchvision's trunk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..runs.environment import environment
from .bench import Bench, as_usual, by_precision, positive

CLASSES = 21
OUTPUT_STRIDE = 16


@dataclass
class Work:
    """The same pictures and masks for both sides: `(N, 3, S, S)` uint8 and `(N, S, S)` uint8 with some void."""

    images: Any
    masks: Any
    device: str

    @classmethod
    def random(cls, size: int, batch: int, device: str) -> "Work":
        """Draw them; masks are of squares, with a stripe of void."""
        import torch

        torch.manual_seed(0)
        masks = torch.randint(0, CLASSES, (batch, size // 16, size // 16), dtype=torch.uint8)
        masks = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)
        masks[:, :4] = 255
        return cls(torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8), masks, device)


def sides(work: Work, head: str, machine: Any, fused: bool) -> tuple[Any, Any]:
    """Build our `predict` and `train` to call, and theirs."""
    own, tensors, optimizer = _ours(work, head, machine, fused)
    return own, _theirs(work, head, tensors, optimizer)


def bench_segment(
    *,
    size: int = 256,
    batch: int = 4,
    rounds: int = 7,
    head: str = "deeplabv3plus",
    fused: bool = False,
    device: str = "auto",
) -> Bench:
    """Measure DeepLabV3 or V3+ with ResNet-50 beside the plain modules, in prediction and training.

    Each is measured at equal settings and with our defaults against theirs. Both sides have their batch on the device,
    and the same groups of parameters in the same form of SGD.

    size           of the pictures, which are square; divisible by 16
    batch          pictures at once
    head           deeplabv3 (torchvision's) or deeplabv3plus (smp's decoder on torchvision's trunk)
    fused          both sides step with the fused form of the optimizer
    """
    positive(size=size, batch=batch, rounds=rounds)
    import torch

    from trunkline.ground.errors import RecipeError

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine

    if head not in ("deeplabv3", "deeplabv3plus"):
        raise RecipeError(f"head={head}: expected deeplabv3 or deeplabv3plus")
    if size % OUTPUT_STRIDE or batch < 2:
        raise RecipeError(
            f"size={size}, batch={batch}: expected a size divisible by {OUTPUT_STRIDE}, and 2 pictures or more"
        )
    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    work = Work.random(size, batch, machine.device)
    rows, equal = by_precision(
        "segment", machine, batch, rounds, lambda machine: sides(work, head, machine, fused),
        lambda own, other: float((own - other).abs().max()),
    )  # fmt: skip
    settings = {"size": size, "batch": batch, "rounds": rounds, "head": head, "fused": fused}
    settings["largest difference of logits at equal settings"] = equal
    return Bench(
        "segment", rows, settings | {"threads": torch.get_num_threads(), "device": machine.device}, environment()
    )


def _ours(work: Work, kind: str, machine: Any, fused: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, Any], Any]:
    """Build our `predict` and `train` to call; return the model's tensors, under the plain modules' names, and optimizer."""
    import torch

    from ...backbones import backbone
    from ...backbones.contract import Preprocessing
    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...heads.contract import Batch
    from ...heads.model import Model, losses
    from ...heads.pixels.segmentation import SegmentationHead
    from ..evaluation.measure import apart, inference

    torch.manual_seed(0)
    trunk = backbone("resnet50", output_stride=OUTPUT_STRIDE, zero_init=False)
    head = SegmentationHead(kind, trunk.channels, CLASSES, output_stride=OUTPUT_STRIDE, dropout=0.0)
    model = Model(trunk, {"pixels": head}, Preprocessing())
    tensors = {k.removeprefix("heads.pixels."): v.clone() for k, v in model.state_dict().items()}
    optimizer = Optimizer("momentum", lr=1e-4, options={"fused": True} if fused else {})
    engine = TorchEngine(model, losses, Learning(optimizer, Schedule("constant"), Average(), 10**6, 100), machine)
    batch = Batch("pixels", [str(i) for i in range(len(work.images))], work.images, targets={"mask": work.masks})
    batch = batch.to(work.device)
    twin = apart(model)  # as an evaluation beside training has one
    pixels: Any = twin.heads["pixels"]

    def predict() -> Any:
        with inference(twin, machine.precision, torch.device(work.device)):
            return torch.stack(pixels.logits(twin.maps(batch), batch))

    return {"predict": predict, "train": lambda: float(engine.update([batch]).total)}, tensors, engine.optimizer


def _theirs(work: Work, kind: str, tensors: dict[str, Any], beside: Any) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn import functional as F

    from .plain import sgd
    from .plain_segment import deeplab

    model = deeplab(kind, CLASSES).to(work.device)
    model.load_state_dict(tensors)
    optimizer = sgd(model, 1e-4, beside)
    mean, std = (
        torch.tensor(v, device=work.device).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    images, masks = work.images.to(work.device), work.masks.to(work.device).long()

    def predict() -> Any:
        model.eval()
        with torch.inference_mode():
            return model((images / 255 - mean) / std)

    def train() -> float:
        model.train()
        loss = F.cross_entropy(model((images / 255 - mean) / std), masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return {"predict": as_usual(predict), "train": as_usual(train)}
