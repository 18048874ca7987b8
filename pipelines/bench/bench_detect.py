"""Detection beside pycocotools and torchvision: scoring, masks to codes, Mask R-CNN's inference and training."""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.environment import environment
from ..show import bar
from .bench import Bench, as_usual, by_precision, paired, positive

CLASSES = 80
KEYS = ("boxes", "scores")


def bench_score(*, images: int = 2500, detections: int = 80, rounds: int = 3) -> Bench:
    """Measure COCO's scores from files, reading and validation included, beside pycocotools; detections a second.

    images         of generated annotations, about seven objects each, 80 categories
    detections     an image
    rounds         interleaved pairs
    """
    positive(images=images, detections=detections, rounds=rounds)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from ..score.score_coco import coco

    with tempfile.TemporaryDirectory() as scratch:
        truth, results = _generated(Path(scratch), images, detections)

        def theirs() -> list[float]:
            with contextlib.redirect_stdout(io.StringIO()):
                read = COCO(str(truth))
                ev = COCOeval(read, read.loadRes(str(results)), "bbox")
                ev.evaluate()
                ev.accumulate()
                ev.summarize()
            return ev.stats.tolist()

        with bar("bench score", rounds, "rounds") as advance:
            found = paired(
                "AP, boxes", lambda: coco(truth, results), theirs, images * detections, rounds, 1, advance, warm=False
            )
        ours = [-1.0 if value is None else value for value in coco(truth, results).metrics.values()]
        same = ours == theirs()
    settings = {"images": images, "detections": images * detections, "rounds": rounds, "equal numbers": same}
    return Bench("score", [found], settings | {"unit": "detections/s"}, environment())


def _generated(folder: Path, images: int, detections: int) -> tuple[Path, Path]:
    draw = np.random.default_rng(0)
    count = draw.integers(3, 12, images)
    of = np.repeat(np.arange(1, images + 1), count)
    corner, size = draw.uniform(0, 400, (len(of), 2)), draw.uniform(8, 200, (len(of), 2))
    boxes, labels = np.round(np.hstack([corner, size]), 2), draw.integers(1, CLASSES + 1, len(of))
    truth = {
        "images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": [
            {"id": n + 1, "image_id": int(of[n]), "category_id": int(labels[n]), "bbox": boxes[n].tolist(),
             "area": float(boxes[n, 2] * boxes[n, 3]), "iscrowd": 0}
            for n in range(len(of))
        ],
    }  # fmt: skip
    starts = np.concatenate([[0], np.cumsum(count)])
    image = np.repeat(np.arange(images), detections)
    near = starts[image] + draw.integers(0, 1 << 30, len(image)) % count[image]
    moved = np.round(np.maximum(boxes[near] + draw.normal(0, 12, (len(near), 4)), 1), 3)
    other = np.where(draw.random(len(near)) < 0.5, labels[near], draw.integers(1, CLASSES + 1, len(near)))
    scores = np.round(draw.random(len(near)), 5)
    results = [
        {"image_id": int(i) + 1, "category_id": int(c), "bbox": b, "score": s}
        for i, c, b, s in zip(image, other, moved.tolist(), scores.tolist(), strict=True)
    ]
    there, found = folder / "truth.json", folder / "results.json"
    there.write_text(json.dumps(truth), encoding="utf-8")
    found.write_text(json.dumps(results), encoding="utf-8")
    return there, found


def bench_masks(*, objects: int = 100, height: int = 800, width: int = 1333, rounds: int = 7) -> Bench:
    """Measure turning predicted masks into run-length codes (masks a second), beside torchvision with pycocotools.

    objects        masks of 28 x 28 in boxes of all sizes
    height, width  of the picture
    rounds         interleaved pairs
    """
    positive(objects=objects, height=height, width=width, rounds=rounds)
    import torch
    from pycocotools import mask
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from ...tasks.objects.masks import to_rle

    draw = np.random.default_rng(0)
    noise = torch.from_numpy(draw.random((objects, 1, 28, 28)).astype(np.float32))
    masks = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)[:, 0].numpy()
    corner = draw.random((objects, 2)) * [width * 0.8, height * 0.8]
    size = draw.random((objects, 2)) ** 2 * ([width, height] - corner)
    boxes = np.hstack([corner, corner + np.maximum(size, 4)]).astype(np.float32)

    def ours() -> list[Any]:
        return to_rle(masks, boxes, height, width)

    def theirs() -> list[Any]:
        pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (height, width))
        codes: list[Any] = [mask.encode(np.asfortranarray((m[0] > 0.5).numpy().astype(np.uint8))) for m in pasted]
        return [{"size": list(c["size"]), "counts": c["counts"].decode()} for c in codes]

    with bar("bench masks", rounds, "rounds") as advance:
        found = paired(f"{objects} masks on {width} x {height} pixels", ours, theirs, objects, rounds, 1, advance)
    settings = {
        "objects": objects,
        "height": height,
        "width": width,
        "rounds": rounds,
        "equal codes": ours() == theirs(),
    }
    return Bench("masks", [found], settings | {"unit": "masks/s"}, environment())


def bench_detect(
    *,
    size: int = 320,
    batch: int = 2,
    objects: int = 8,
    rounds: int = 7,
    head: str = "mask_rcnn",
    fused: bool = False,
    device: str = "auto",
) -> Bench:
    """Measure Mask R-CNN with ResNet-50 and FPN beside torchvision's, in prediction and training.

    Each is measured at equal settings and with our defaults against theirs. Both sides have their batch on the device,
    and the same groups of parameters in the same form of SGD.

    size           of the pictures, which are square
    batch          pictures at once
    objects        of each picture in training
    head           mask_rcnn or faster_rcnn
    fused          both sides step with the fused form of the optimizer
    """
    positive(size=size, batch=batch, objects=objects, rounds=rounds)
    import torch

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine

    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    work = Work(size, batch, objects, head == "mask_rcnn", machine.device)
    rows, equal = by_precision(
        "detect", machine, batch, rounds, lambda machine: sides(work, machine, fused), _largest_difference
    )
    settings = {"size": size, "batch": batch, "objects": objects, "rounds": rounds, "head": head, "fused": fused}
    settings["largest difference of boxes and scores at equal settings"] = equal
    return Bench(
        "detect", rows, settings | {"threads": torch.get_num_threads(), "device": machine.device}, environment()
    )


class Work:
    """The same pictures, boxes and masks for both sides."""

    def __init__(self, size: int, batch: int, objects: int, masks: bool, device: str) -> None:
        import torch

        torch.manual_seed(0)
        self.size, self.with_masks, self.device = size, masks, device
        self.images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        corner = torch.rand(batch, objects, 2) * size * 0.6
        self.boxes = [*torch.cat([corner, corner + 8 + torch.rand(batch, objects, 2) * size * 0.3], 2)]
        self.labels = [*torch.randint(0, CLASSES, (batch, objects))]
        self.masks = [torch.zeros(objects, size, size, dtype=torch.uint8) for _ in range(batch)]
        for planes, boxes in zip(self.masks, self.boxes, strict=True):
            for plane, (x0, y0, x1, y1) in zip(planes, boxes.int().tolist(), strict=True):
                plane[y0:y1, x0:x1] = 1


def sides(work: Work, machine: Any, fused: bool) -> tuple[Any, Any]:
    """Build our `predict` and `train` to call, and theirs."""
    own, tensors, optimizer = _ours(work, machine, fused)
    return own, _theirs(work, tensors, optimizer)


def _largest_difference(own: list[Any], other: list[Any]) -> float | None:
    """Return the largest difference of boxes (pixels) and scores; None where the sides differ in how many they found."""
    if [len(a.scores) for a in own] != [len(b["scores"]) for b in other]:
        return None
    pairs = [(x, b[k].cpu().numpy()) for a, b in zip(own, other, strict=True) for k, x in vars(a).items() if k in KEYS]
    return max(float(np.abs(x - y).max(initial=0)) for x, y in pairs)


def _ours(work: Work, machine: Any, fused: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, Any], Any]:
    """Build our `predict` and `train` to call; return the model's tensors, under torchvision's names, and optimizer."""
    import torch

    from ...backbones import backbone
    from ...backbones.contract import Preprocessing
    from ...backbones.pyramid import Pyramid
    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...heads.contract import Batch
    from ...heads.model import Model, losses
    from ...heads.rcnn import RCNNHead
    from ..evaluation.measure import apart, inference

    torch.manual_seed(0)
    pyramid = Pyramid(backbone("resnet50", norm="frozen"))
    head = RCNNHead(256, pyramid.strides, CLASSES, masks=work.with_masks)
    model = Model(pyramid, {"boxes": head}, Preprocessing())
    model.freeze(2)
    tensors = {k.removeprefix("heads.boxes."): v.clone() for k, v in model.state_dict().items()}
    optimizer = Optimizer("momentum", lr=1e-4, options={"fused": True} if fused else {})
    engine = TorchEngine(model, losses, Learning(optimizer, Schedule("constant"), Average(), 10**6, 100), machine)
    targets = {"boxes": work.boxes, "labels": work.labels} | ({"masks": work.masks} if work.with_masks else {})
    batch = Batch("boxes", [str(i) for i in range(len(work.images))], work.images, targets=targets)
    batch = batch.to(work.device)
    twin = apart(model)  # as an evaluation beside training has one

    def predict() -> Any:
        with inference(twin, machine.precision, torch.device(work.device)):
            return twin.predict(batch)

    return {"predict": predict, "train": lambda: float(engine.update([batch]).total)}, tensors, engine.optimizer


def _theirs(work: Work, tensors: dict[str, Any], beside: Any) -> dict[str, Callable[[], Any]]:
    import torch
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    from .plain import sgd

    torch.manual_seed(0)
    trunk = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    kind = MaskRCNN if work.with_masks else FasterRCNN
    model = kind(trunk, CLASSES + 1, min_size=work.size, max_size=work.size).to(work.device)
    model.load_state_dict(tensors)
    optimizer = sgd(model, 1e-4, beside)
    images = [image.to(work.device) for image in work.images / 255]
    targets = [
        {
            "boxes": b.to(work.device),
            "labels": (c + 1).to(work.device),
            **({"masks": m.to(work.device)} if work.with_masks else {}),
        }
        for b, c, m in zip(work.boxes, work.labels, work.masks, strict=True)
    ]

    def predict() -> Any:
        model.eval()
        with torch.inference_mode():
            return model(images)

    def train() -> float:
        model.train()
        loss = torch.stack([*model(images, targets).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return {"predict": as_usual(predict), "train": as_usual(train)}
