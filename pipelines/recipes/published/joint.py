"""Joint recipes on VOC and COCO, with published settings of their parts. None was run here."""

from dataclasses import replace
from typing import Literal

from trunkline.ground.errors import RecipeError

from ....cluster.config import Optimizer, Schedule
from ....tasks.detection.options import Options as Boxes
from ....tasks.multilabel.options import Options as Labels
from ....tasks.segmentation.options import Options as Pixels
from ...recipe.fields import Batches, Evaluation, Network, Phase, Recipe
from ..joint import SMOKE

SHARED = ("detection", "segmentation", "multilabel")


def joint_voc(
    data: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    epochs: float = 12,
    batch: int = 16,
    micro_batch: int | Literal["auto", "all"] = 2,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train boxes, masks and labels on VOC 2012's pictures, in one pass of a ResNet-50 and its pyramid.

    data         VOC2012: JPEGImages, Annotations, SegmentationClass, ImageSets/Main and /Segmentation
    epochs       of all 5,717 pictures of Main/train.txt; 1,464 of them have masks
    micro_batch  what one GPU takes at once: 16 pictures an update on 8 GPUs of 2
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    Faster R-CNN, a semantic FPN on the same pyramid, and a classifier of several labels; pictures of 600 to 1000 pixels. A
    picture without masks teaches boxes and labels alone.

    The command on eight GPUs: trunkline train joint-voc data=VOCdevkit/VOC2012 --launch ray --workers 8 --gpus 1 --run runs/voc

    Settings of mmdetection's Faster R-CNN on VOC (lr 0.01 at batch 16, 12 passes, a drop after 9). No joint result on these
    lists is published. What is published of its parts has more data: boxes alone, trained on 07+12 trainval, mAP07 of 79.5 on 07
    test (mmdetection); masks alone, DeepLabV3+ on trainaug's 10,582 pictures, mIoU of 76.8 (mmsegmentation). Expect less than
    either. It was not run here.
    """
    if not data and not smoke:
        raise RecipeError(
            "data= is missing: give the folder VOC2012 (JPEGImages, Annotations, SegmentationClass, ImageSets)"
        )
    whole = {"data": data, "format": "voc", "size": 600, "longest": 1000}
    recipe = Recipe(
        tasks={
            "detection": Boxes(**whole),
            "segmentation": Pixels(**whole, head="semantic_fpn", view="fit"),
            "multilabel": Labels(**whole, view="fit"),
        },
        network=Network(weights=weights, weights_key=weights_key, norm="frozen", pyramid="pool"),
        batch=Batches(batch, micro_batch),
        phases=(Phase("joint", epochs=epochs, frozen=2),),
        optimizer=Optimizer("momentum", lr=0.01 * batch / 16, weight_decay=1e-4),
        schedule=Schedule("multistep", unit="run", milestones=(0.75,), warmup=0.04, warmup_from=0.001),
        evaluation=Evaluation(times=4, metric="detection/mAP", batch=8),
        shared_batch=SHARED,
        seed=seed,
    )
    return _shrunk(recipe, data) if smoke else recipe


def joint_coco(
    data: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    updates: int = 90_000,
    batch: int = 16,
    micro_batch: int | Literal["auto", "all"] = 2,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train objects with masks, classes of pixels and labels on COCO 2017, in one pass of a ResNet-50.

    data         COCO's folder: annotations/instances_{train,val}2017.json, train2017/, val2017/
    micro_batch  what one GPU takes at once: 16 pictures an update on 8 GPUs of 2
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    Mask R-CNN, a semantic FPN on the same pyramid, whose masks are the things of COCO, drawn, and a classifier of several labels.

    The command on eight GPUs: trunkline train joint-coco data=coco --launch ray --workers 8 --gpus 1 --run runs/coco

    Settings of detectron2's Panoptic FPN R50 1x: lr 0.02 at batch 16, 90,000 updates, 1,000 of warm-up, drops at 60,000 and
    80,000, shorter sides of 640 to 800, the semantic loss weighed 0.5. There, on val2017, box AP (mask AP): Mask R-CNN alone 38.6
    (35.2), with a semantic FPN of things and stuff on its trunk 37.6 (34.7) (its model zoo). Here the semantic head learns things
    alone, and labels come in beside. It was not run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give COCO's folder")
    whole = {"data": data, "format": "coco", "size": 800, "longest": 1333, "sizes": tuple(range(640, 801, 32))}
    recipe = Recipe(
        tasks={
            "detection": Boxes(**whole, head="mask_rcnn"),
            "segmentation": Pixels(**whole, head="semantic_fpn", view="fit"),
            "multilabel": Labels(**whole, view="fit"),
        },
        network=Network(weights=weights, weights_key=weights_key, norm="frozen", pyramid="pool"),
        batch=Batches(batch, micro_batch),
        phases=(Phase("joint", updates=updates, frozen=2),),
        optimizer=Optimizer("momentum", lr=0.02 * batch / 16, weight_decay=1e-4),
        schedule=Schedule("multistep", unit="run", milestones=(6 / 9, 8 / 9), warmup=1 / 90, warmup_from=0.001),
        evaluation=Evaluation(times=4, metric="detection/mask_AP", batch=8),
        loss_weights={"segmentation": 0.5},
        shared_batch=SHARED,
        seed=seed,
    )
    return _shrunk(recipe, data) if smoke else recipe


def _shrunk(recipe: Recipe, data: str) -> Recipe:
    """Shrink a recipe to seconds: small pictures (without `data` the generated ones of detection), a small trunk, two updates."""
    small = {"size": 64, "longest": 128, "sizes": ()}
    own = {} if data else SMOKE["detection"]
    return replace(
        recipe,
        tasks={name: replace(options, **small, **own) for name, options in recipe.tasks.items()},
        network=replace(recipe.network, backbone="resnet18", weights="none", norm="batch"),
        batch=Batches(2, 2),
        phases=(replace(recipe.phases[0], epochs=None, updates=2, frozen=0),),
        evaluation=replace(recipe.evaluation, metric="detection/AP50"),
    )
