"""The runs that are compared: every head, with every option, one at a time, on generated scenes and in seconds."""

from fnmatch import fnmatch
from typing import Any, NamedTuple

SOURCE = "SOURCE"
"""Stands for the weights of a classifier that is trained first: one head keeps its classifier."""

ALWAYS: dict[str, Any] = {
    "weights": "none", "backbone": "resnet18", "seed": 3, "machine.device": "cpu", "machine.precision": "fp32",
    "machine.threads": 1, "machine.workers": 0, "evaluation.every": 0, "evaluation.times": 0, "checkpoints.minutes": 0,
    "log.tensorboard": False, "optimizer.name": "momentum", "optimizer.lr": 0.01, "optimizer.clip": 0.0,
}  # fmt: skip
CLASSIFY: dict[str, Any] = {
    "data": "demo:smoke", "size": 32, "batch": 8, "updates": 2,
    "tasks.classification.label_smoothing": 0.1, "tasks.classification.dropout": 0.2,
}  # fmt: skip
DETECT: dict[str, Any] = {
    "data": "demo:boxes:smoke", "size": 32, "batch": 4, "updates": 2, "limit": 4, "tasks.detection.detections": 10,
}  # fmt: skip
SEGMENT: dict[str, Any] = {
    "data": "demo:pixels:smoke", "format": "pairs", "crop": 64, "batch": 8, "updates": 2, "limit": 8,
}  # fmt: skip

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify_full": ("transfer", {**CLASSIFY, "mode": "full"}),
    "classify_probe": ("transfer", {**CLASSIFY, "mode": "probe"}),
    "classify_append": ("transfer", {**CLASSIFY, "mode": "append", "weights": SOURCE}),
    "faster_rcnn": ("detect", {**DETECT, "head": "faster_rcnn"}),
    "mask_rcnn": ("detect", {**DETECT, "head": "mask_rcnn"}),
    "one_stage": ("detect", {**DETECT, "head": "one_stage"}),
    "deeplabv3": ("segment", {**SEGMENT, "head": "deeplabv3", "tasks.segmentation.aux": 0.4}),
    "deeplabv3plus": ("segment", {**SEGMENT, "head": "deeplabv3plus"}),
    "fcn": ("segment", {**SEGMENT, "head": "fcn", "tasks.segmentation.lovasz": 0.5}),
    "unet": ("segment", {**SEGMENT, "head": "unet", "tasks.segmentation.dice": 1.0}),
    "fpn": ("segment", {**SEGMENT, "head": "fpn", "tasks.segmentation.focal": 1.0}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clip": {"optimizer.clip": 0.5},
    "l1": {"optimizer.l1": 1e-3},
    "ema": {"average.decay": 0.9},
    "adamw": {"optimizer.name": "adamw", "optimizer.lr": 1e-3},
    "checkpointing": {"network.checkpointing": True},
    "frozen": {"network.norm": "frozen"},
    "bf16": {"machine.precision": "bf16"},
    "fp16": {"machine.precision": "fp16"},
}
SLOW = ("bf16", "fp16")
"""Of these many processors know nothing: products take twenty times as long, so that detectors do one update."""
MICRO_BATCHES = (1, 4)
WORKERS = (1, 2)


class Combination(NamedTuple):
    """One run: which recipe with which settings, on how many workers."""

    name: str
    head: str
    option: str
    recipe: str
    settings: dict[str, Any]
    workers: int


def name_of(head: str, option: str, micro_batches: int, workers: int) -> str:
    """Name a combination."""
    return f"{head}-{option}-micro{micro_batches}-workers{workers}"


def combinations(only: str = "*") -> list[Combination]:
    """List the combinations whose names match the pattern, those of one worker first."""
    found = []
    for workers in WORKERS:
        for head, (recipe, own) in HEADS.items():
            for option, changed in OPTIONS.items():
                for count in MICRO_BATCHES:
                    micro = {"micro_batch": own["batch"] // count}
                    if option in SLOW and recipe == "detect":
                        micro["updates"] = 1
                    settings = {**ALWAYS, **own, **micro, **changed}
                    name = name_of(head, option, count, workers)
                    found.append(Combination(name, head, option, recipe, settings, workers))
    return [each for each in found if fnmatch(each.name, only)]
