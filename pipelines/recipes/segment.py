"""Segmentation on your own pictures."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...cluster.config import Average, Optimizer, Schedule
from ...tasks.segmentation.options import Options
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe


def segment(
    data: str = "",
    format: Literal[
        "voc", "sbd", "coco", "pairs", "camvid", "cityscapes", "ade20k", "yolo", "yolo-seg", "labelme", "labelstudio"
    ] = "voc",
    weights: str = "resnet50",
    weights_key: str = "",
    backbone: str | None = None,
    head: Literal["deeplabv3", "deeplabv3plus", "fcn", "unet", "fpn", "semantic_fpn"] = "deeplabv3plus",
    train: tuple[str, ...] = (),
    val: tuple[str, ...] = (),
    group: str = "",
    folds: int | Literal["groups"] = 0,
    view: Literal["crop", "fit"] = "crop",
    crop: int | None = None,
    size: int | None = None,
    output_stride: Literal[8, 16, 32] | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = "all",
    lr: float = 0.01,
    limit: int = 0,
    seed: int = 0,
    on_bad_sample: Literal["stop", "skip"] = "stop",
    strict: bool = False,
    depth: str = "",
    ema: float = 0.0,
    smoke: bool = False,
) -> Recipe:
    """Fine-tune a segmenter on a few hundred pictures with masks.

    data           a folder: VOC's (JPEGImages, SegmentationClass, ImageSets/Segmentation), `pairs` (images/{train,val},
                   masks/{train,val}, classes.txt), SBD, COCO, CamVid, Cityscapes or ADE20K as they
                   come, or the polygons of YOLO, LabelMe or Label Studio, drawn
    group          what stays on one side: an expression that is searched in the paths, as group=/(p\\d+)_
    folds          divide all samples (train/ and val/ too) into so many folds and validate each once; groups: one a group
    head           deeplabv3plus, unet and fpn need segmentation-models-pytorch; deeplabv3 and fcn are torchvision's;
                   semantic_fpn reads the pyramid of a two-stage detector, which the recipe puts around the trunk for it
    weights        of a classifier (a file, a published name) or of a segmenter (a run, torchvision's own), or none
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    train, val     other lists, annotation files or folders, below data
    view           crop: training sees squares cut from pictures; fit: training and evaluation see whole pictures, as a
                   detector does
    crop           the side in pixels of the squares that training sees, by default 512; what is smaller is padded with void
    size           the shorter side in pixels: of fit, which needs it (the longer one is at most twice as long), and of what
                   evaluation sees, with crop by default the picture's own
    output_stride  of the trunk; by default 16 for deeplabs and fcn, 32 for unet, fpn and semantic_fpn
    on_bad_sample  stop at pictures and masks that cannot be used, or skip them
    strict         take everything that would be mended in the data as a mistake
    depth          how pictures of more than 8 bits a channel are read: full, or LOW:HIGH, as 0:4095
    smoke          a tiny run of seconds on generated pictures, to see that everything works

    SGD with momentum, the rate falling as a polynomial of power 0.9 at every update, weight decay 1e-4; scale jitter of 0.5
    to 2, crop and flip; with view=fit a flip alone. The trunk learns with all its norms (frozen: network.norm=frozen).
    """
    if epochs is not None and updates is not None:
        raise RecipeError(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if smoke:  # settings that are given stay; only defaults shrink
        data, format = data or "demo:pixels:smoke", format if data else "pairs"
        batch = 2 if batch is None else batch
        if view == "crop":
            crop = 64 if crop is None else crop
        elif size is None:
            size = 64
        if weights == "resnet50":
            weights, backbone = "none", backbone or "resnet18"
        if epochs is None and updates is None:
            updates = 2
    if not data:
        raise RecipeError("data= is missing: give a folder in VOC's format, or in another one together with format=")
    batch = 8 if batch is None else batch
    if crop is None and view == "crop":
        crop = 512
    if output_stride is None:
        output_stride = 32 if head in ("unet", "fpn", "semantic_fpn") else 16
    epochs = 20.0 if epochs is None and updates is None else epochs
    return Recipe(
        tasks={
            "segmentation": Options(
                data=data, format=format, head=head, train=train, val=val, group=group, folds=folds,
                on_bad_sample=on_bad_sample, strict=strict, depth=depth, view=view, crop=crop, size=size,
                jitter=(0.5, 2.0) if view == "crop" else (), limit=limit,
            )
        },
        network=Network(
            backbone=backbone or ("resnet50" if weights == "none" else None), weights=weights,
            weights_key=weights_key, output_stride=output_stride, pyramid="pool" if head == "semantic_fpn" else "none",
        ),
        batch=Batches(batch, micro_batch),
        phases=(Phase(head, epochs=epochs, updates=updates),),
        optimizer=Optimizer("momentum", lr=lr, weight_decay=1e-4),
        schedule=Schedule("polynomial", power=0.9),
        average=Average(ema),
        evaluation=Evaluation(times=5, metric="mIoU", batch=4),
        seed=seed,
    )  # fmt: skip
