"""Super-resolution on your own pictures."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...backbones.table import SUPER_RESOLUTION
from ...cluster.config import Average, Optimizer, Schedule
from ...heads.super_resolution.adversarial import Adversarial, Perceptual
from ...tasks.super_resolution.options import CROPS, Options
from ..recipe.fields import Batches, Evaluation, Network, Phase, Playing, Recipe

_SCALES = {"rrdbnet": (1, 2, 4)}  # where a recipe sets its unshuffle; of others all that their tails have


def upscale(
    data: str = "",
    scale: int = 4,
    val: str = "",
    together: tuple[str, ...] = (),
    group: str = "",
    folds: int | Literal["groups"] = 0,
    weights: str = "none",
    weights_key: str = "",
    backbone: str | None = None,
    blocks: int | None = None,
    width: int | None = None,
    crop: int | None = None,
    crops: int = 1,
    jitter: tuple[float, ...] = (0.6, 1.0),
    epochs: float | None = None,
    updates: int | None = None,
    adversarial: int = 0,
    perceptual: str = "",
    batch: int | None = None,
    lr: float = 1e-3,
    ema: float = 0.999,
    limit: int = 0,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train a network that makes pictures larger, on your own pictures.

    data         a folder of large pictures: train/ and val/, DIV2K's, or one set with val=0.1; small ones (LRx4 beside HR) are
                 used where they are, else made by MATLAB's bicubic
    scale        how many times as large pictures become: 2, 3, 4, of edsr also 8, of rrdbnet 1, 2, 4
    val          a folder below data, or a share to hold out
    together     pictures that stay on one side of a share: a+b, by their names without suffix
    group        or an expression that is searched in the paths: pictures of which it finds the same stay together
    folds        divide all pictures into so many folds and validate each once; groups: one a group
    weights      a network to go on with: a run, a published file (BasicSR, Real-ESRGAN), or none
    backbone     msrresnet, srresnet, edsr, rrdbnet; by default a msrresnet of 8 blocks of 48 channels, which a CPU trains
    crop         the side in pixels of the squares of large pictures that training sees; by default 96
    crops        so many squares each time that a picture is decoded; more than 1 is quicker with large pictures, and learns less
    jitter       two scales up to 1: each time large pictures are resized by another one between them; empty: never
    adversarial  updates against a critic after those of the pixels; with updates=0 weights= are taken as they are, and no others
    perceptual   in these, the maps of a network that does not learn count too: a trunk's weights (its c3 and c4), or vgg19
    batch        squares an update, a multiple of crops; by default 16
    smoke        a tiny run of seconds on generated pictures, to see that everything works

    L1 loss, Adam with a cosine rate, flips and quarter turns, averaged weights. Against a critic (BasicSR's, with spectral norm)
    the rate is a tenth, and the pixels weigh 1, the critic's opinion 0.005, a trunk's maps 0.1; with VGG-19's maps, as MSRGAN
    has them, 0.01, 0.005 and 1. The weights kept are the last average's; a test set never selects.
    """
    if problems := _problems(scale, backbone, crops, batch, epochs, updates, adversarial):
        raise RecipeError(problems)
    if smoke:  # settings that are given stay; only defaults shrink
        data, crop = data or "demo:pictures:smoke", 8 * scale if crop is None else crop
        batch = crops * max(1, 4 // crops) if batch is None else batch
        blocks, width = blocks or 1, width or 8
        if epochs is None and updates is None:
            updates = 2
    crop, batch = 96 if crop is None else crop, 16 if batch is None else batch
    if perceptual and not adversarial:
        raise RecipeError(
            f"perceptual={perceptual}: counts in the updates against a critic; give adversarial=1000, say"
        )
    if not data:
        raise RecipeError("data= is missing: give a folder of pictures, as large as they shall become")
    if weights == "none" and backbone is None:
        backbone, blocks, width = "msrresnet", blocks or 8, width or 48
    updates = 3000 if epochs is None and updates is None else updates
    unshuffle: Literal[1, 2, 4] = 1
    if backbone == "rrdbnet":
        unshuffle = 4 if scale == 1 else 2 if scale == 2 else 1
    if updates == 0 and (not adversarial or weights == "none"):
        raise RecipeError(
            "updates=0: leaves nothing to learn but against a critic, from weights that are there: give adversarial= and weights="
        )
    phases = [Phase("pixels", epochs=epochs, updates=updates, players=("generator",) if adversarial else ())]
    phases += [Phase("adversarial", updates=adversarial, rate=0.1)] if adversarial else []
    maps = _maps(perceptual) if perceptual else None
    critic = Adversarial(
        pixel=0.01 if maps and "conv5_4" in maps.layers else 1.0, norm="spectral", width=16 if smoke else 32
    )
    return Recipe(
        tasks={
            "super_resolution": Options(
                data=data, scale=scale, val=val, together=together, group=group, folds=folds,
                crop=crop, crops=crops, jitter=jitter, limit=limit,
                adversarial=critic if adversarial else None,
                perceptual=maps,
            )
        },
        network=Network(
            backbone=backbone, weights=weights, weights_key=weights_key, blocks=blocks, width=width, unshuffle=unshuffle
        ),
        batch=Batches(batch // crops),
        phases=tuple(phases[1:] if updates == 0 else phases),
        optimizer=Optimizer("adam", lr=lr, weight_decay=0.0),
        schedule=Schedule("cosine", unit="run", warmup=0.01),
        average=Average(ema),
        players={"critic": Playing(Optimizer("adam", lr=lr, weight_decay=0.0), Schedule("constant"))} if adversarial else {},
        evaluation=Evaluation(times=5, metric="psnr_y", batch=1),
        seed=seed,
    )  # fmt: skip


def _problems(
    scale: int,
    backbone: str | None,
    crops: int,
    batch: int | None,
    epochs: float | None,
    updates: int | None,
    adversarial: int,
) -> list[str]:
    """List what is wrong with the numbers that the recipe computes with, by the names of its knobs."""
    found = []
    if epochs is not None and updates is not None:
        found.append(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if epochs is not None and not epochs > 0:
        found.append(f"epochs={epochs:g}: expected a number above 0")
    if updates is not None and updates < 0:
        found.append(f"updates={updates}: expected a whole number above 0, or 0 for none of the pixels' alone")
    if adversarial < 0:
        found.append(f"adversarial={adversarial}: expected a whole number of updates, 0 for none")
    batch = 16 if batch is None else batch
    if batch < 1:
        found.append(f"batch={batch}: expected a whole number above 0")
    if not 1 <= crops <= CROPS.high:
        found.append(f"crops={crops}: expected a whole number from 1 to {CROPS.high:g}")
    elif batch > 0 and batch % crops:
        near = max(1, round(batch / crops)) * crops
        fewer = next(n for n in range(crops, 0, -1) if batch % n == 0)
        found.append(f"batch={batch}: expected a multiple of crops={crops}, such as batch={near}, or crops={fewer}")
    if backbone in SUPER_RESOLUTION:
        scales = _SCALES.get(backbone) or SUPER_RESOLUTION[backbone]["factors"]
        if scale not in scales:
            found.append(f"scale={scale}: {backbone} enlarges by {', '.join(map(str, scales[:-1]))} or {scales[-1]}")
    return found


def _maps(weights: str) -> Perceptual:
    """Choose the maps that count: VGG-19's before its last ReLU, or those of a trunk's third and fourth stage."""
    vgg = weights.partition(".")[0] == "vgg19" or "vgg19" in weights.rpartition("/")[2]
    return Perceptual(weights) if vgg else Perceptual(weights, {"c3": 1.0, "c4": 1.0}, weight=0.1)
