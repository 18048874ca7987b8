"""Published recipes of segmentation on VOC and COCO: their settings, and what their authors reached. None was run here."""

from dataclasses import replace
from typing import Literal

from trunkline.ground.errors import RecipeError

from ....cluster.config import Optimizer, Schedule
from ....tasks.segmentation.options import Options
from ...recipe.fields import Batches, Evaluation, Network, Phase, Recipe
from .smoke import tiny

VOC_IN_COCO = ("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
               "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv")  # fmt: skip
"""VOC's twenty classes, in its order, by their names in COCO."""


def voc_deeplab(
    data: str = "",
    sbd: str = "",
    head: Literal["deeplabv3plus", "deeplabv3"] = "deeplabv3plus",
    weights: str = "resnet50",
    weights_key: str = "",
    updates: int = 40_000,
    batch: int = 16,
    micro_batch: int | Literal["auto", "all"] = 4,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train DeepLabV3 or V3+ on VOC 2012 (trainaug, 10,582 pictures), as mmsegmentation does.

    data         the folder that holds VOC2012/
    sbd          SBD's folder below data, whose .mat files are the masks that VOC lacks; without it VOC2012/ has
                 SegmentationClassAug/ and ImageSets/Segmentation/trainaug.txt, as others prepare them
    weights      resnet50 or resnet101
    micro_batch  what one GPU takes at once: 16 pictures an update on 4 GPUs of 4
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    The command on four GPUs: trunkline train voc-deeplab data=VOCdevkit --launch ray --workers 4 --gpus 1 --run runs/voc
    (network.norm=sync is theirs; it needs GPUs).

    To expect, mIoU on val in one look (mmsegmentation's tables, 40,000 updates, crop 512, output stride 8): V3+ with ResNet-50
    76.8, with ResNet-101 78.6; V3 77.7 and 77.9. Their ResNet has three small convolutions for a stem. None of it was run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give the folder that holds VOC2012/")
    recipe = Recipe(
        tasks={
            "segmentation": Options(
                data=data, head=head, sbd=sbd, train=() if sbd else ("ImageSets/Segmentation/trainaug.txt",),
                masks="" if sbd else "SegmentationClassAug", aux=0.4, short=512, crop=512, jitter=(0.5, 2.0), cat_max_ratio=0.75,
                photometric=True, size=512,
            )
        },
        network=Network(weights=weights, weights_key=weights_key, output_stride=8, norm="sync"),
        batch=Batches(batch, micro_batch),
        phases=(Phase(head, updates=updates),),
        optimizer=Optimizer("momentum", lr=0.01 * batch / 16, weight_decay=5e-4),
        schedule=Schedule("polynomial", power=0.9, final=0.01),
        evaluation=Evaluation(times=10, metric="mIoU", batch=1),
        seed=seed,
    )  # fmt: skip
    return shrunk(recipe, data) if smoke else recipe


def coco_voc(
    data: str = "",
    head: Literal["deeplabv3", "fcn"] = "deeplabv3",
    weights: str = "resnet50",
    weights_key: str = "",
    batch: int = 32,
    micro_batch: int | Literal["auto", "all"] = 4,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train DeepLabV3 or FCN on COCO 2017 with VOC's classes, as torchvision's weights were trained.

    data         COCO's folder: annotations/instances_{train,val}2017.json, train2017/, val2017/
    weights      resnet50 or resnet101
    micro_batch  what one GPU takes at once: 32 pictures an update on 8 GPUs of 4
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    The command on eight GPUs: trunkline train coco-voc data=coco --launch ray --workers 8 --gpus 1 --run runs/coco-voc

    To expect, mIoU and pixel accuracy on val at a shorter side of 520 (torchvision's metadata): DeepLabV3 with ResNet-50 66.4
    and 92.4, with ResNet-101 67.4 and 92.4; FCN 60.5 and 91.4, 63.7 and 91.9. There masks are resized to 520 pixels too (here
    scores are in the pictures' own size). As there, pictures whose objects cover 1,000 pixels or less are not trained on, and
    the auxiliary FCN has ten times the rate. None of it was run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give COCO's folder")
    recipe = Recipe(
        tasks={
            "segmentation": Options(
                data=data, format="coco", head=head, categories=VOC_IN_COCO, least=1000, aux=0.5, short=520, crop=480,
                jitter=(0.5, 2.0), size=520,
            )
        },
        network=Network(weights=weights, weights_key=weights_key, output_stride=8, norm="sync"),
        batch=Batches(batch, micro_batch),
        phases=(Phase(head, epochs=30.0),),
        optimizer=Optimizer("momentum", lr=0.02 * batch / 32, weight_decay=1e-4, rates={"aux_classifier": 10.0}),
        schedule=Schedule("polynomial", power=0.9),
        evaluation=Evaluation(every=1.0, metric="mIoU", batch=1),
        seed=seed,
    )  # fmt: skip
    return shrunk(recipe, data) if smoke else recipe


def shrunk(recipe: Recipe, data: str) -> Recipe:
    """Shrink a recipe to seconds: generated pictures (unless `data` is given), small crops, a small trunk, two updates."""
    (options,) = recipe.tasks.values()
    options = replace(options, crop=64, short=None, size=None)
    if not data:
        options = replace(
            options, data="demo:pixels:smoke", format="pairs", train=(), masks="", sbd="", categories=(), least=0
        )
    return tiny(recipe, options)
