"""Published recipes of super-resolution: their settings, and what their authors reached. None was run here."""

from dataclasses import replace

from trunkline.ground.errors import RecipeError

from ....cluster.config import Average, Optimizer, Schedule
from ....heads.super_resolution.adversarial import Adversarial, Perceptual
from ....tasks.super_resolution.options import Options
from ...recipe.fields import Batches, Evaluation, Network, Phase, Playing, Recipe

_BASICSR = {"betas": (0.9, 0.99)}  # of Adam


def srresnet(
    data: str = "",
    val: str = "",
    scale: int = 4,
    updates: int = 1_000_000,
    batch: int = 16,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train SRResNet with the mean squared error, as Ledig et al. 2017 do (section 3.2).

    data   a folder of large pictures; theirs are 350,000 of ImageNet
    val    a folder below data, or a share to hold out
    smoke  a tiny run of seconds on generated pictures, to see that everything works

    The command: trunkline train srresnet data=pictures val=0.01 --run runs/srresnet

    To expect, x4, on Y without a border of 4 pixels: Set5 32.05 dB, Set14 28.49, BSD100 27.58 (their table 2). A plain loop
    needs about a day of one GPU of today. None of it was run here.
    """
    return _recipe(
        Options(data=data, val=val, scale=scale, crop=96, crops=1, l1=0.0, mse=1.0),
        Network(backbone="srresnet"),
        Optimizer("adam", lr=1e-4, weight_decay=0.0),
        Schedule("constant"),
        metric="psnr_y",
        updates=updates, batch=batch, seed=seed, smoke=smoke,
    )  # fmt: skip


def srgan(
    data: str = "",
    val: str = "",
    weights: str = "",
    vgg: str = "vgg19",
    scale: int = 4,
    updates: int = 200_000,
    batch: int = 16,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train SRGAN (VGG 5.4) from an SRResNet, as Ledig et al. 2017 do (sections 3.2 and 3.3).

    data     a folder of large pictures, as for srresnet
    weights  the run of srresnet, or its file
    vgg      VGG-19's weights: torchvision's name, or its file
    smoke    a tiny run of seconds on generated pictures, from random weights and without VGG, to see that everything works

    The command: trunkline train srgan data=pictures val=0.01 weights=runs/srresnet --run runs/srgan

    To expect, x4, on Y without a border of 4 pixels: Set5 29.40 dB, Set14 26.02, BSD100 25.16 (their table 2): lower than
    SRResNet's, and sharper. None of it was run here.
    """
    if not weights and not smoke:
        raise RecipeError("weights= is missing: give the run of srresnet from which SRGAN begins")
    options = Options(
        data=data, val=val, scale=scale, crop=96, crops=1, l1=0.0, mse=1.0,
        adversarial=Adversarial("vanilla", weight=1e-3, pixel=0.0, critic="srgan"),
        perceptual=Perceptual(vgg, {"relu5_4": 1.0}, "mse", 1.0, 1 / 12.75),
    )  # fmt: skip
    return _recipe(
        options,
        Network(backbone="srresnet", weights=weights),
        Optimizer("adam", lr=1e-4, weight_decay=0.0),
        Schedule("multistep", unit="run", milestones=(0.5,), gamma=0.1),
        metric="psnr_y",
        updates=updates, batch=batch, seed=seed, smoke=smoke,
    )  # fmt: skip


def msrresnet(
    data: str = "",
    val: str = "",
    scale: int = 4,
    updates: int = 1_000_000,
    batch: int = 16,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train MSRResNet on DIV2K with the L1 loss, as BasicSR does (options/train/SRResNet_SRGAN).

    data   the folder that holds DIV2K_train_HR, DIV2K_valid_HR and, if you have them, DIV2K_*_LR_bicubic
    val    of other pictures: a folder below data, or a share to hold out
    smoke  a tiny run of seconds on generated pictures, to see that everything works

    The command: trunkline train msrresnet data=DIV2K --run runs/msrresnet

    To expect, x4, in RGB without a border of 4 pixels (docs/ModelZoo.md there): Set5 30.25 dB, Set14 26.78, DIV2K 28.99.
    None of it was run here.
    """
    return _recipe(
        Options(data=data, val=val, scale=scale, crop=32 * scale, crops=1),
        Network(backbone="msrresnet"),
        Optimizer("adam", lr=2e-4, weight_decay=0.0, options=_BASICSR),
        Schedule("cosine", cycles=4, final=5e-4),
        Average(0.999, warmup=False),
        metric="psnr_rgb",
        updates=updates, batch=batch, seed=seed, smoke=smoke,
    )  # fmt: skip


def msrgan(
    data: str = "",
    val: str = "",
    weights: str = "",
    vgg: str = "vgg19",
    scale: int = 4,
    updates: int = 400_000,
    batch: int = 16,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train MSRGAN on DIV2K from an MSRResNet, as BasicSR does (options/train/SRResNet_SRGAN).

    data     the folder of DIV2K, as for msrresnet
    val      of other pictures: a folder below data, or a share to hold out
    weights  the run of msrresnet, or BasicSR's file
    vgg      VGG-19's weights: torchvision's name, or its file
    smoke    a tiny run of seconds on generated pictures, from random weights and without VGG, to see that everything works

    The command: trunkline train msrgan data=DIV2K weights=MSRResNet_x4.pth --run runs/msrgan

    To expect, x4, in RGB without a border of 4 pixels (docs/ModelZoo.md there): Set5 28.02 dB, Set14 24.75, DIV2K 26.65.
    None of it was run here.
    """
    if not weights and not smoke:
        raise RecipeError("weights= is missing: give the run of msrresnet, or its file, from which MSRGAN begins")
    options = Options(
        data=data, val=val, scale=scale, crop=32 * scale, crops=1,
        adversarial=Adversarial("vanilla", weight=5e-3, pixel=1e-2, critic="vgg", reuse=True),
        perceptual=Perceptual(vgg, {"conv5_4": 1.0}, "l1", 1.0),
    )  # fmt: skip
    return _recipe(
        options,
        Network(backbone="msrresnet", weights=weights),
        Optimizer("adam", lr=1e-4, weight_decay=0.0, options=_BASICSR),
        Schedule("multistep", unit="run", milestones=(0.125, 0.25, 0.5, 0.75), gamma=0.5),
        Average(0.999, warmup=False),
        metric="psnr_rgb",
        updates=updates, batch=batch, seed=seed, smoke=smoke,
    )  # fmt: skip


def _recipe(
    options: Options,
    network: Network,
    optimizer: Optimizer,
    schedule: Schedule,
    average: Average | None = None,
    *,
    metric: str,
    updates: int,
    batch: int,
    seed: int,
    smoke: bool,
) -> Recipe:
    """Put a recipe of one phase together; its critic, where it has one, learns at the generator's rate.

    Raises RecipeError without data. `smoke` makes it a run of seconds: a small network from random weights, without VGG, on
    generated pictures where there are no others.
    """
    if not options.data and not smoke:
        raise RecipeError("data= is missing: give a folder of large pictures")
    critic = options.adversarial
    if smoke:
        data, critic, updates, batch = options.data or "demo:pictures:smoke", critic and replace(critic, width=4), 2, 2
        val = options.val if options.data else ""  # generated pictures are split
        options = replace(options, data=data, val=val, crop=8 * options.scale, adversarial=critic, perceptual=None)
        network = replace(network, weights="none", blocks=1, width=8)
    return Recipe(
        tasks={"super_resolution": options},
        network=network,
        batch=Batches(batch),
        phases=(Phase("adversarial" if critic else "pixels", updates=updates),),
        optimizer=optimizer,
        schedule=schedule,
        average=average or Average(),
        evaluation=Evaluation(times=20, metric=metric, batch=1),
        players={"critic": Playing(optimizer, schedule)} if critic else {},
        seed=seed,
    )
