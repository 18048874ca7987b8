"""Several tasks on one trunk, on your own data."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, get_args, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest

from ...cluster.config import Optimizer, Schedule
from ...tasks.classification.options import Options as Classes
from ...tasks.detection.options import Options as Boxes
from ...tasks.multilabel.options import Options as Labels
from ...tasks.segmentation.options import Options as Pixels
from ...tasks.video.options import Options as Clips
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe

KINDS: dict[str, Any] = {
    "classification": Classes, "detection": Boxes, "segmentation": Pixels, "multilabel": Labels, "action": Clips,
}  # fmt: skip
ALONE = {
    "classification": "trunkline train transfer",
    "detection": "trunkline train detect",
    "segmentation": "trunkline train segment",
    "action": "trunkline train action",
    "multilabel": "a recipe of your own, as docs/multilabel.md has one",
}
"""What trains one task of a kind by itself."""
REFUSED = {
    "super_resolution": "its trunk keeps the pictures' own pixels (stride 1), and all other tasks read maps of stride 2 and "
    "more: no trunk serves both; use trunkline train upscale",
    "events": "it reads features over time, and no trunk that pictures go through; use trunkline train events",
}
"""Tasks that have no trunk in common with others, and why."""
SMOKE: dict[str, dict[str, str]] = {
    "classification": {"data": "demo:smoke"},
    "action": {"data": "demo:clips:smoke"},
    **{kind: {"data": "demo:boxes:smoke", "format": "coco"} for kind in ("detection", "segmentation", "multilabel")},
}
"""The generated data of each kind; those that see whole pictures have the same, so that they can share batches."""


def joint(
    tasks: tuple[str, ...] = ("classification", "detection", "segmentation"),
    data: str = "",
    format: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    backbone: str | None = None,
    head: Literal["faster_rcnn", "mask_rcnn", "one_stage"] = "faster_rcnn",
    segmenter: Literal["semantic_fpn", "fcn", "deeplabv3", "deeplabv3plus", "unet", "fpn"] | None = None,
    size: int | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = "all",
    lr: float | None = None,
    balance: str = "fixed",
    shared_batch: tuple[str, ...] = (),
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train several tasks together on one trunk and one pyramid.

    tasks         two or more of classification, detection, segmentation, multilabel and action; NAME:KIND gives a task a name of
                  its own, as tasks=cars:detection,signs:detection
    data          one folder for all tasks; or each has its own, as tasks.detection.data=FOLDER
    format        of that folder; or of each task's, as tasks.detection.format=voc
    shared_batch  tasks of the same pictures that share each pass of trunk and pyramid (detection, segmentation, multilabel)
    weights       of a classifier (a file, a published name), of a detector (a run, torchvision's own), or none
    weights_key   which network of a file that holds several; of a run of several tasks the one whose head is meant
    backbone      a trunk by name; by default that of the weights, without any resnet50
    head          of detection: faster_rcnn, mask_rcnn (boxes and masks) or one_stage (without anchors)
    segmenter     of segmentation; by default semantic_fpn, on the detector's pyramid; with head=one_stage, whose pyramid begins
                  at p3, it is fcn
    size          the shorter side in pixels of whole pictures (detection, segmentation, multilabel), by default 640, the longer
                  one at most twice that; the squares of classification and action have their own, tasks.NAME.size
    batch         samples that an update takes of each task, by default 4; of classification four times as many
    micro_batch   of them at once: a number that divides each batch, all, or auto (as many as fit into memory)
    lr            the learning rate, in place of that of the optimizer below
    balance       of the losses: fixed (loss_weights.NAME), uncertainty, gradient_norm or famo
    epochs        of the first task; or updates
    seed          decides the order of samples, the augmentation and what is random in the model
    smoke         a tiny run of seconds, without data= on generated pictures, to see that everything works

    The trunk's stem and first stage and all its norms stay as they are (unless weights=none). A linear warm-up over a twelfth of
    the run, drops at two thirds and at eleven twelfths; SGD (lr=0.01), with head=one_stage or action AdamW (lr=0.0005). Gradients
    are clipped at a norm of 10 (optimizer.clip).
    `mix.NAME` says how often a task is seen, `loss_weights.NAME` what it counts.

    With VOC2012 in a folder: trunkline train joint tasks=detection,segmentation,multilabel data=VOC2012 format=voc
    shared_batch=detection,segmentation,multilabel
    """
    problems, kinds = kinds_of(tasks)
    if epochs is not None and updates is not None:
        problems.append(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    problems += _unread(format, kinds)
    if problems:
        raise RecipeError(problems)
    if smoke:  # settings that are given stay; only defaults shrink
        size, batch = 64 if size is None else size, 2 if batch is None else batch
        if weights == "resnet50":
            weights, backbone = "none", backbone or "resnet18"
        if epochs is None and updates is None:
            updates = 2
    one_stage = head == "one_stage" and "detection" in kinds.values()
    size, batch = 640 if size is None else size, 4 if batch is None else batch
    whole = {"size": size, "longest": 2 * size}
    seen = {
        **whole,
        "view": "fit",
        "padding": 128 if one_stage else 64,
    }  # as the detector, so that they can share batches
    own: dict[str, dict[str, Any]] = {
        "classification": {"size": 32 if smoke else None},
        "detection": {"head": head, **whole},
        "segmentation": {"head": segmenter or ("fcn" if one_stage else "semantic_fpn"), **seen},
        "multilabel": seen,
        "action": {"size": 32, "frames": 4} if smoke else {},
    }
    options = {name: KINDS[kind](data=data, **own[kind]) for name, kind in kinds.items()}
    if format:
        options = {name: replace(one, format=format) for name, one in options.items()}
    if smoke and not data:
        options = {name: replace(one, **SMOKE[kinds[name]]) for name, one in options.items()}
    adaptive, begun = one_stage or "action" in kinds.values(), weights != "none"
    return Recipe(
        tasks=options,
        network=Network(
            backbone=backbone or (None if begun else "resnet50"), weights=weights, weights_key=weights_key,
            norm="frozen" if begun else "batch", pyramid=_pyramid(options.values(), one_stage),
            wrapper="frames" if "action" in kinds.values() else "none",
        ),
        batch=Batches(batch, micro_batch),
        batches={n: Batches(4 * batch, micro_batch) for n, kind in kinds.items() if kind == "classification"},
        phases=(Phase("joint", epochs=12.0 if epochs is None and updates is None else epochs, updates=updates,
                      frozen=2 if begun else 0),),
        optimizer=Optimizer("adamw", lr=(5e-4 if lr is None else lr), weight_decay=0.05, clip=10.0)
        if adaptive
        else Optimizer("momentum", lr=(0.01 if lr is None else lr), weight_decay=1e-4, clip=10.0),
        schedule=Schedule("multistep", unit="run", milestones=(2 / 3, 11 / 12), warmup=1 / 12, warmup_from=0.01),
        evaluation=Evaluation(times=6, batch=4),
        balance=balance,
        shared_batch=shared_batch,
        seed=seed,
    )  # fmt: skip


def kinds_of(tasks: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Read `KIND` and `NAME:KIND`: all that is wrong with them, and the kind of each task by its name."""
    problems: list[str] = []
    kinds: dict[str, str] = {}
    for text in tasks:
        name, colon, kind = text.partition(":")
        kind = kind if colon else name
        said = _refused_kind(kind)
        if not said and name != kind and name in (*KINDS, *REFUSED):
            said = f"{name} is the name of another kind; choose another, as my_{kind}:{kind}"
        if not said and name in kinds:
            said = f"the name {name} stands there twice; give each a name of its own, as a:{kind},b:{kind}"
        if said:
            problems.append(f"tasks={text}: {said}")
        else:
            kinds[name] = kind
    if not problems and len(kinds) < 2:
        alone = next(iter(kinds.values()), "")
        use = f"; one task by itself is trained by {ALONE[alone]}" if alone else ""
        problems.append(f"tasks={','.join(tasks)}: expected two tasks or more{use}")
    return problems, kinds


def _refused_kind(kind: str) -> str:
    if kind in KINDS:
        return ""
    return REFUSED.get(kind) or f"there is no such kind{nearest(kind, KINDS)}; there are {', '.join(KINDS)}"


def _unread(format: str, kinds: dict[str, str]) -> list[str]:
    """Say which tasks do not read a format that was given for all."""
    read = {name: get_args(get_type_hints(KINDS[kind])["format"]) for name, kind in kinds.items()} if format else {}
    known = dict.fromkeys(one for formats in read.values() for one in formats)
    if read and format not in known:
        return [f"format={format}: no task reads it{nearest(format, known)}; there are {', '.join(known)}"]
    return [
        f"format={format}: {name} reads {', '.join(formats)}; give each task its own, as tasks.{name}.format={formats[0]}"
        for name, formats in read.items()
        if format not in formats
    ]


def _pyramid(options: Iterable[Any], one_stage: bool) -> Literal["none", "pool", "conv"]:
    """Choose the pyramid that the heads stand on; none where all read the trunk's own maps."""
    if one_stage:
        return "conv"
    reads: Callable[[Any], bool] = lambda one: isinstance(one, Boxes) or getattr(one, "head", "") == "semantic_fpn"  # noqa: E731
    return "pool" if any(map(reads, options)) else "none"
