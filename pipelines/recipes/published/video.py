"""Published recipes of action recognition on Kinetics-400 and UCF-101: their settings, and what their authors reached.

None was run here.
"""

from dataclasses import replace
from typing import Literal

from trunkline.ground.errors import RecipeError

from ....cluster.config import Optimizer, Schedule
from ....tasks.video.options import Options
from ...recipe.fields import Batches, Evaluation, Network, Phase, Recipe
from .smoke import tiny

_KINETICS = "data= is missing: give the folder with Kinetics-400's train.csv, validate.csv and its clips"


def kinetics_resnet3d(
    data: str = "",
    backbone: Literal["r2plus1d_18", "r3d_18", "mc3_18"] = "r2plus1d_18",
    batch: int = 1536,
    micro_batch: int | Literal["auto", "all"] = 24,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train R(2+1)D-18, R3D-18 or MC3-18 on Kinetics-400 from random weights, as torchvision did.

    data         the folder with Kinetics-400's train.csv, validate.csv and its clips
    micro_batch  what one GPU takes at once: 1,536 clips an update on 64 GPUs of 24
    smoke        a tiny run of seconds on generated clips, to see that everything works

    The command on 64 GPUs: trunkline train kinetics-resnet3d data=kinetics --launch ray --workers 64 --gpus 1 --run runs/r3d

    To expect, top-1 and top-5 by videos on the validation split (5 clips of 16 frames at 15 a second, the centre crop of 112;
    torchvision's metadata): R(2+1)D-18 67.463 and 86.175, R3D-18 63.200 and 83.479, MC3-18 63.960 and 84.130. The same weights by
    single clips: 57.50, 52.75, 53.90. It took about 24 hours on 64 V100 (references/video_classification there). None of it was
    run here.

    As there, an epoch sees five random clips of each video. Two of the five may be the same here, videos shorter than a clip
    stand still at their end (there they are left out), and norms have no weight decay (there they have).
    """
    if not data and not smoke:
        raise RecipeError(_KINETICS)
    recipe = Recipe(
        tasks={
            "action": Options(
                data=data, format="kinetics", frames=16, sampling="stride", rate=15.0, clips=5, size=112, resize=(128, 171),
                antialias=False, head="pool3d",
            )
        },
        network=Network(backbone=backbone, zero_init=False),
        batch=Batches(batch, micro_batch, repeats=5),
        phases=(Phase("train", epochs=45.0),),
        optimizer=Optimizer("momentum", lr=0.64 * batch / 1536, weight_decay=1e-4),
        schedule=Schedule("multistep", milestones=(20.0, 30.0, 40.0), warmup=10.0, warmup_from=0.001),
        evaluation=Evaluation(every=1.0, metric="video_top1", batch=8),
        seed=seed,
    )  # fmt: skip
    return _shrunk(recipe, data) if smoke else recipe


def kinetics_tsm(
    data: str = "",
    sampling: Literal["uniform", "dense"] = "uniform",
    weights: str = "resnet50",
    weights_key: str = "",
    batch: int = 128,
    micro_batch: int | Literal["auto", "all"] = 16,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train TSM with ResNet-50 on Kinetics-400 from ImageNet's weights, with 8 frames, as its authors do.

    data         the folder with Kinetics-400's train.csv, validate.csv and its clips
    sampling     uniform: a frame of each of 8 equal parts, 50 epochs; dense: every 8th frame from a start, 100 epochs
    micro_batch  what one GPU takes at once: 128 clips an update on 8 GPUs of 16
    smoke        a tiny run of seconds on generated clips, to see that everything works

    The command on eight GPUs: trunkline train kinetics-tsm data=kinetics --launch ray --workers 8 --gpus 1 --run runs/tsm

    To expect, top-1 by videos (README of mit-han-lab/temporal-shift-module): uniform, one clip and the centre crop of 224, 71.2;
    dense, 10 clips x 3 crops of 256 (trunkline evaluate RUN clips=10 crops=3 size=256 resize=256), 74.1. None of it was run here.

    Settings are those of scripts/train_tsm_kinetics_rgb_8f.sh: clipping at 20, the classifier at five times the rate, no decay of
    norms. There is no script of the dense file there; its name says 100 epochs, and the drops are put at 40 and 80. There crops
    have one of four sizes and 13 places (here any between), the classifier's bias has ten times the rate, and views are
    averaged before the softmax.
    """
    if not data and not smoke:
        raise RecipeError(_KINETICS)
    dense = sampling == "dense"
    epochs = 100.0 if dense else 50.0
    recipe = Recipe(
        tasks={
            "action": Options(
                data=data, format="kinetics", frames=8, sampling="stride" if dense else "segments", stride=8 if dense else 1,
                scale=(0.33, 0.75), ratio=(0.85, 1.17), dropout=0.5,
            )
        },
        network=Network(weights=weights, weights_key=weights_key, wrapper="tsm"),
        batch=Batches(batch, micro_batch),
        phases=(Phase("train", epochs=epochs),),
        optimizer=Optimizer("momentum", lr=0.02 * batch / 128, weight_decay=1e-4, clip=20.0, rates={"heads": 5.0}),
        schedule=Schedule("multistep", milestones=(0.4 * epochs, 0.8 * epochs)),
        evaluation=Evaluation(every=1.0, metric="video_top1", batch=8),
        seed=seed,
    )  # fmt: skip
    return _shrunk(recipe, data) if smoke else recipe


def kinetics_slowfast(
    data: str = "",
    batch: int = 64,
    micro_batch: int | Literal["auto", "all"] = 8,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train SlowFast R50 8x8 on Kinetics-400 from random weights, as PySlowFast does.

    data         the folder with Kinetics-400's train.csv, validate.csv and its clips
    micro_batch  what one GPU takes at once: 64 clips an update on 8 GPUs of 8
    smoke        a tiny run of seconds on generated clips, to see that everything works

    The command on eight GPUs: trunkline train kinetics-slowfast data=kinetics --launch ray --workers 8 --gpus 1 --run runs/sf

    To expect, top-1 and top-5 by videos: 77.0 and 92.6 (PySlowFast's MODEL_ZOO.md), with 10 clips x 3 crops of 256 pixels:
    trunkline evaluate RUN clips=10 crops=3 size=256. None of it was run here.

    Settings are those of configs/Kinetics/SLOWFAST_8x8_R50.yaml; as there, norms have no weight decay. There the cosine runs from
    the first epoch, so that warm-up ends at 0.93 of the rate; here it begins behind the warm-up. There statistics of norms are
    taken from 200 batches before scores (BN.USE_PRECISE_STATS); here they are the running ones.
    """
    if not data and not smoke:
        raise RecipeError(_KINETICS)
    recipe = Recipe(
        tasks={
            "action": Options(
                data=data, format="kinetics", frames=32, sampling="stride", stride=2, rate=30.0, size=224, short=(256, 320),
                antialias=False, head="pool3d", dropout=0.5,
            )
        },
        network=Network(backbone="slowfast_r50"),
        batch=Batches(batch, micro_batch),
        phases=(Phase("train", epochs=196.0),),
        optimizer=Optimizer("sgd", lr=0.1 * batch / 64, weight_decay=1e-4),
        schedule=Schedule("cosine", warmup=34.0, warmup_from=0.1),
        evaluation=Evaluation(every=10.0, metric="video_top1", batch=8),
        seed=seed,
    )  # fmt: skip
    return _shrunk(recipe, data) if smoke else recipe


def ucf101(
    data: str = "",
    head: Literal["average", "lstm"] = "average",
    split: Literal[1, 2, 3] = 1,
    weights: str = "resnet50",
    weights_key: str = "",
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = 8,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train TSN, or an LSTM over frames, with ResNet-50 on UCF-101 from ImageNet's weights.

    data         the folder with UCF-101's clips and ucfTrainTestlist/
    head         average: TSN as mmaction2 trains it; lstm: over 16 frames, with settings of ours
    split        1, 2 or 3; what is published as the mean of three is three runs
    micro_batch  what one GPU takes at once (mmaction2: 8 GPUs of 32)
    smoke        a tiny run of seconds on generated clips, to see that everything works

    The commands: trunkline train ucf101 data=UCF-101 split=1 --run runs/ucf1, and the same with 2 and 3 for the mean of three.

    To expect of TSN on split 1, top-1 and top-5: 83.03 and 96.78, 25 frames x 3 crops of 256 (mmaction2's older table, config
    tsn_r50_1x1x3_75e_ucf101_rgb): trunkline evaluate RUN frames=25 crops=3 size=256 resize=256. Of this LSTM nothing is
    published; another one without optical flow, Ng et al. 2015 (abstract), reaches 82.6. None of it was run here.
    """
    if not data and not smoke:
        raise RecipeError("data= is missing: give the folder with UCF-101's clips and ucfTrainTestlist/")
    tsn = head == "average"
    size = batch or (256 if tsn else 8)
    options = Options(
        data=data, format="ucf101", split=split, frames=3 if tsn else 16, head=head, dropout=0.4 if tsn else 0.5
    )
    recipe = Recipe(
        tasks={"action": replace(options, scale=(0.08, 1.0), antialias=False) if tsn else options},
        network=Network(weights=weights, weights_key=weights_key, wrapper="frames"),
        batch=Batches(size, micro_batch),
        phases=(Phase("train", epochs=75.0 if tsn else 15.0),),
        optimizer=Optimizer("momentum", lr=0.00128 * size / 256, weight_decay=5e-4, clip=40.0)
        if tsn
        else Optimizer("adamw", lr=2e-4, weight_decay=1e-2),
        schedule=Schedule("constant" if tsn else "cosine"),
        evaluation=Evaluation(every=5.0 if tsn else 1.0, metric="video_top1", batch=4),
        seed=seed,
    )
    return _shrunk(recipe, data) if smoke else recipe


def _shrunk(recipe: Recipe, data: str) -> Recipe:
    """Shrink a recipe to seconds: four small frames, generated without `data`; a small trunk for pictures, two updates."""
    (options,) = recipe.tasks.values()
    options = replace(options, size=32, resize=(), short=(), frames=4, clips=min(2, options.clips), stride=1, rate=0.0)
    options = options if data else replace(options, data="demo:clips:smoke", format="auto")
    found = tiny(recipe, options)
    own = recipe.network.backbone
    return replace(found, network=replace(found.network, backbone=own)) if own else found
