"""Action recognition on your own clips."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...backbones.table import CLIPS
from ...cluster.config import Average, Optimizer, Schedule
from ...tasks.video.options import Options
from ..recipe.fields import Batches, Evaluation, Machine, Network, Phase, Recipe

# mode: (stages frozen, maps cached, epochs, batch, learning rate)
_MODES = {"full": (0, False, 15, 8, 2e-4), "last": (4, False, 15, 8, 5e-4), "probe": (5, True, 60, 16, 1e-3)}


def action(
    data: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    backbone: str | None = None,
    shift: bool = False,
    head: Literal["average", "lstm", "transformer", "pool3d"] = "average",
    mode: Literal["full", "last", "probe"] = "full",
    frames: int | None = None,
    stride: int = 0,
    size: int | None = None,
    norm: Literal["batch", "frozen"] = "batch",
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = "all",
    lr: float | None = None,
    val: float = 0.0,
    group: str = "",
    folds: int | Literal["groups"] = 0,
    format: Literal["auto", "folders", "csv", "ucf101", "hmdb51", "kinetics", "ssv2"] = "auto",
    on_bad_sample: Literal["stop", "skip"] = "stop",
    strict: bool = False,
    ema: float = 0.0,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Learn to recognise actions in clips, from weights that know pictures or actions already.

    data         a folder with train/CLASS/clip.mp4 and val/CLASS/clip.mp4, or CLASS/clip.mp4 with val=0.2 or folds=5; a folder of
                 frames is a clip too; a table (train.csv, val.csv: file, label, group); published lists
    weights      a file, a published name (resnet50; r2plus1d_18 of Kinetics), another run, or none
    backbone     any trunk of pictures, frame by frame; or of clips: r2plus1d_18, r3d_18, mc3_18, i3d_resnet50, slowfast_r50, c3d
    shift        let frames see their neighbours (temporal shift) in a trunk of pictures
    head         average (blind to order), lstm, transformer (both see it), pool3d (of trunks of clips)
    mode         full: all parameters; last: the last stage and the head; probe: the head, on features that are computed once
    frames       of each clip (by default 16), one of each of so many equal parts; with stride=2 every second one from a start
    norm         frozen keeps the batch norms as the weights have them: for small batches
    group        what keeps clips of one person or source together: a column of the table, or a pattern in the file's path
    folds        5, or groups (leave one out): every clip is predicted by a model that never saw its group
    epochs       or updates: how long
    smoke        a tiny run of seconds on generated clips, to see that everything works
    """
    frozen, cached, own_epochs, own_batch, own_lr = _MODES[mode]
    if epochs is not None and updates is not None:
        raise RecipeError(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if smoke:  # settings that are given stay; only defaults shrink
        data, size, frames = data or "demo:clips:smoke", size or 32, 4 if frames is None else frames
        batch = batch if batch is not None else 4
        if weights == "resnet50":
            weights, backbone = "none", backbone or "resnet18"
        if epochs is None and updates is None:
            updates = 2
    if not data:
        raise RecipeError("data= is missing: give a folder of clips, or a folder with tables of them")
    frames = 16 if frames is None else frames
    over_time = (backbone or weights).partition(":")[0] in CLIPS
    if shift and over_time:
        raise RecipeError(
            f"shift=true: is for trunks of pictures, and {backbone or weights} sees time itself; leave it out"
        )
    return Recipe(
        tasks={
            "action": Options(
                data=data, format=format, val=val, group=group, folds=folds, on_bad_sample=on_bad_sample, strict=strict,
                frames=frames, sampling="stride" if stride else "segments", stride=stride or 1, size=size,
                augment=not cached, head=head, dropout=0.5,
            )
        },
        network=Network(
            backbone=backbone or ("resnet50" if weights == "none" else None), weights=weights, weights_key=weights_key,
            norm=norm, wrapper="none" if over_time else "tsm" if shift else "frames",
        ),
        batch=Batches(own_batch if batch is None else batch, micro_batch),
        phases=(
            Phase(
                name=mode,
                epochs=own_epochs if epochs is None and updates is None else epochs,
                updates=updates,
                frozen=frozen,
                cached=cached,
            ),
        ),
        optimizer=Optimizer("adamw", lr=own_lr if lr is None else lr, weight_decay=1e-2),
        schedule=Schedule("cosine"),
        average=Average(ema),
        machine=Machine(precision="fp32") if cached else Machine(),  # of cached maps one set serves training and scores
        evaluation=Evaluation(every=10 if cached else 1, metric="video_top1", batch=4),
        seed=seed,
    )  # fmt: skip
