"""Published recipes of detection on COCO and VOC: their settings, and what their authors reached. None was run here."""

from dataclasses import replace
from typing import Literal

from trunkline.ground.errors import RecipeError

from ....cluster.config import Optimizer, Schedule
from ....tasks.detection.options import Options
from ...recipe.fields import Batches, Evaluation, Network, Phase, Recipe
from .smoke import tiny

# schedule: (epochs, where the rate drops)
_COCO = {"1x": (12.0, (8.0, 11.0)), "3x": (36.0, (28.0, 34.0))}


def coco_rcnn(
    data: str = "",
    head: Literal["faster_rcnn", "mask_rcnn"] = "faster_rcnn",
    schedule: Literal["1x", "3x"] = "1x",
    weights: str = "resnet50",
    weights_key: str = "",
    batch: int = 16,
    micro_batch: int | Literal["auto", "all"] = 2,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train Faster or Mask R-CNN with ResNet-50 and FPN on COCO 2017, as published.

    data         COCO's folder: annotations/instances_{train,val}2017.json, train2017/, val2017/
    schedule     1x: 12 epochs, drops after 8 and 11; 3x: 36 epochs, drops after 28 and 34, shorter sides of 640 to 800
    smoke        a tiny run of seconds on generated pictures, to see that everything works
    micro_batch  what one GPU takes at once: 16 pictures an update on 8 GPUs of 2

    The command on eight GPUs: trunkline train coco-rcnn data=coco --launch ray --workers 8 --gpus 1 --run runs/coco

    To expect, box AP (mask AP) on val2017. mmdetection with these weights' kind ("pytorch" style): Faster R-CNN 1x 37.4, Mask
    R-CNN 1x 38.2 (34.7). detectron2, with weights of Caffe's kind: Faster R-CNN 1x 37.9, 3x 40.2; Mask R-CNN 1x 38.6 (35.2),
    3x 41.0 (37.2), 62 images/s on 8 V100 (their model zoos and benchmark pages). None of it was run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give COCO's folder")
    epochs, drops = _COCO[schedule]
    sizes = tuple(range(640, 801, 32)) if schedule == "3x" else ()
    recipe = Recipe(
        tasks={"detection": Options(data=data, head=head, sizes=sizes, size=800, longest=1333)},
        network=Network(weights=weights, weights_key=weights_key, norm="frozen", pyramid="pool"),
        batch=Batches(batch, micro_batch),
        phases=(Phase(head, epochs=epochs, frozen=2),),
        optimizer=Optimizer("momentum", lr=0.02 * batch / 16, weight_decay=1e-4),
        schedule=Schedule("multistep", milestones=drops, warmup=0.14, warmup_from=0.001),
        evaluation=Evaluation(every=epochs / 12, metric="mask_AP" if head == "mask_rcnn" else "AP", batch=8),
        seed=seed,
    )
    return shrunk(recipe, data) if smoke else recipe


def voc_rcnn(
    data: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    batch: int = 16,
    micro_batch: int | Literal["auto", "all"] = 2,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train Faster R-CNN with ResNet-50 and FPN on VOC 07+12 trainval, scored on 07 test, as published.

    data         the folder that holds VOC2007/ and VOC2012/
    micro_batch  what one GPU takes at once
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    To expect: mAP07 of 79.5 (mmdetection, 12 passes over 07+12, drop after 9, pictures of 600 to 1000 pixels). It was
    not run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give the folder that holds VOC2007/ and VOC2012/")
    lists = tuple(f"VOC{year}/ImageSets/Main/trainval.txt" for year in (2007, 2012))
    recipe = Recipe(
        tasks={
            "detection": Options(
                data=data, format="voc", train=lists, val=("VOC2007/ImageSets/Main/test.txt",), size=600, longest=1000
            )
        },
        network=Network(weights=weights, weights_key=weights_key, norm="frozen", pyramid="pool"),
        batch=Batches(batch, micro_batch),
        phases=(Phase("faster_rcnn", epochs=12.0, frozen=2),),
        optimizer=Optimizer("momentum", lr=0.01 * batch / 16, weight_decay=1e-4),
        schedule=Schedule("multistep", milestones=(9.0,), warmup=0.5, warmup_from=0.001),
        evaluation=Evaluation(every=3.0, metric="mAP07", batch=8),
        seed=seed,
    )
    return shrunk(recipe, data) if smoke else recipe


def shrunk(recipe: Recipe, data: str) -> Recipe:
    """Shrink a recipe to seconds: small pictures (generated without `data`), a small trunk from random weights, two updates."""
    (options,) = recipe.tasks.values()
    options = replace(options, data=data or "demo:boxes:smoke", train=(), val=(), sizes=(), size=64, longest=128)
    return tiny(recipe, options)
