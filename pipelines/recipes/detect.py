"""Detection on your own pictures."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...cluster.config import Average, Optimizer, Schedule
from ...tasks.detection.options import Options
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe


def detect(
    data: str = "",
    format: Literal["coco", "voc", "yolo", "yolo-seg", "yolo-obb", "labelme", "labelstudio", "csv"] = "coco",
    weights: str = "resnet50",
    weights_key: str = "",
    backbone: str | None = None,
    head: Literal["faster_rcnn", "mask_rcnn", "one_stage"] = "faster_rcnn",
    train: tuple[str, ...] = (),
    val: tuple[str, ...] = (),
    group: str = "",
    folds: int | Literal["groups"] = 0,
    size: int | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = "all",
    lr: float | None = None,
    limit: int = 0,
    seed: int = 0,
    on_bad_sample: Literal["stop", "skip"] = "stop",
    depth: str = "",
    on_bad_box: Literal["stop", "skip"] = "stop",
    categories: tuple[str, ...] = (),
    exif: Literal["stop", "turn", "ignore"] = "stop",
    strict: bool = False,
    ema: float = 0.0,
    smoke: bool = False,
) -> Recipe:
    """Fine-tune a detector on a few hundred pictures with boxes, or with masks.

    data           a folder: COCO's (annotations/instances_train*.json, …val*.json, folders of images beside), or another
                   one that `format` names
    format         coco, voc, yolo (data.yaml; yolo-seg, yolo-obb where lines of 9 numbers are polygons, rotated boxes),
                   labelme, labelstudio or csv (docs/detection.md shows how each lies)
    group          what stays on one side: an expression that is searched in the paths, as group=/(p\\d+)_
    folds          divide all samples (train/ and val/ too) into so many folds and validate each once; groups: one a group
    head           faster_rcnn: boxes; mask_rcnn: boxes and masks (COCO's format); one_stage: boxes, without anchors
    weights        of a classifier (a file, a published name) or of a detector (a run, torchvision's own), or none
    train, val     other annotation files, lists or folders, below data; val=0.2 holds out a fifth of one set
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    size           the shorter side in pixels, by default 640; the longer one is at most twice as long
    limit          only the first so many pictures with objects of each split
    on_bad_sample  stop at pictures that cannot be read, or skip them
    on_bad_box     stop at objects without area or outside their picture, or skip these objects
    categories     only objects of these
    exif           labels are of pictures as EXIF turns them (turn), or as they are stored (ignore)
    strict         take everything that would be mended in the data as a mistake
    depth          how pictures of more than 8 bits a channel are read: full, or LOW:HIGH, as 0:4095
    smoke          a tiny run of seconds on generated pictures, to see that everything works

    The trunk's stem and first stage and all its norms stay as they are (unless weights=none); a linear warm-up over a
    twelfth of the run, drops at two thirds and at eleven twelfths; SGD (lr=0.01), for the one-stage head AdamW (lr=0.0005),
    with which it learns much faster.

    Expect on BCCD (205 + 72 pictures of blood cells, ImageNet ResNet-50, format=voc size=320 epochs=6, one core of a CPU with
    bf16), run here: faster_rcnn an AP50 of 0.917 (AP 0.588), one_stage 0.883 (0.575).
    """
    if epochs is not None and updates is not None:
        raise RecipeError(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if smoke:  # settings that are given stay; only defaults shrink
        data, size, batch = data or "demo:boxes:smoke", 64 if size is None else size, 2 if batch is None else batch
        if weights == "resnet50":
            weights, backbone = "none", backbone or "resnet18"
        if epochs is None and updates is None:
            updates = 2
    if not data:
        raise RecipeError("data= is missing: give a folder in COCO's format, or in another one together with format=")
    size, batch = 640 if size is None else size, 4 if batch is None else batch
    one_stage = head == "one_stage"
    epochs = 12.0 if epochs is None and updates is None else epochs
    return Recipe(
        tasks={
            "detection": Options(
                data=data, format=format, head=head, train=train, val=val, group=group, folds=folds, on_bad_sample=on_bad_sample,
                on_bad_box=on_bad_box, size=size, longest=2 * size, limit=limit, categories=categories, exif=exif, strict=strict,
                depth=depth,
            )
        },
        network=Network(
            backbone=backbone or ("resnet50" if weights == "none" else None), weights=weights, weights_key=weights_key,
            norm="batch" if weights == "none" else "frozen", pyramid="conv" if one_stage else "pool",
        ),
        batch=Batches(batch, micro_batch),
        phases=(Phase(head, epochs=epochs, updates=updates, frozen=0 if weights == "none" else 2),),
        optimizer=Optimizer("adamw", lr=(5e-4 if lr is None else lr), weight_decay=0.05, clip=10.0)
        if one_stage
        else Optimizer("momentum", lr=(0.01 if lr is None else lr), weight_decay=1e-4, clip=10.0),
        schedule=Schedule("multistep", unit="run", milestones=(2 / 3, 11 / 12), warmup=1 / 12, warmup_from=0.01),
        average=Average(ema),
        evaluation=Evaluation(times=6, metric="AP50", batch=4),
        seed=seed,
    )  # fmt: skip
