"""Small networks of super-resolution with values that matter, what their files should hold, and short trainings."""

import torch

from trunkline.backbones import backbone
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.super_resolution.upscaling import UpscalingHead
from trunkline.pipelines.command.cli import main

TASK = "super_resolution"
BASICSR = "https://github.com/XPixelGroup/BasicSR/blob/8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a/basicsr/archs/"
"""The source of the names and shapes below: srresnet_arch.py, edsr_arch.py, rrdbnet_arch.py and arch_util.py in it."""


def network(arch, scale, *, seed=0, **settings):
    """A network in eval mode, whose every value is drawn so that no branch is negligible."""
    torch.manual_seed(seed)
    trunk = backbone(arch, **settings)
    head = UpscalingHead(
        arch, trunk.channels, scale, unshuffle=trunk.settings["unshuffle"], preprocessing=trunk.preprocessing
    )
    model = Model(trunk, {TASK: head}, trunk.preprocessing)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 4:
                value.normal_(0, value[0].numel() ** -0.5)
            elif "running_var" in name:
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.normal_(0.1, 0.2)
    return model.eval()


def batch_of(height, width, count=1, seed=1):
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed))
    return Batch(TASK, [str(i) for i in range(count)], images.to(torch.uint8))


def output(model, batch):
    """The pictures in 0..1 units, unclamped."""
    with torch.inference_mode():
        return model.heads[TASK](model.maps(batch), batch)


def flat(model):
    """The tensors of trunk and tail by the names of a published file."""
    from trunkline.pipelines.models.publishing import published

    return published(model, model.state_dict(), TASK)


def convolution(name, out, into, kernel=3):
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def msrresnet_keys(scale=4, blocks=16, width=64):
    keys = convolution("conv_first", width, 3)
    for i in range(blocks):
        keys |= convolution(f"body.{i}.conv1", width, width) | convolution(f"body.{i}.conv2", width, width)
    if scale == 4:
        keys |= convolution("upconv1", 4 * width, width) | convolution("upconv2", 4 * width, width)
    else:
        keys |= convolution("upconv1", width * scale**2, width)
    return keys | convolution("conv_hr", width, width) | convolution("conv_last", 3, width)


def edsr_keys(scale=4, blocks=16, width=64):
    keys = convolution("conv_first", width, 3)
    for i in range(blocks):
        keys |= convolution(f"body.{i}.conv1", width, width) | convolution(f"body.{i}.conv2", width, width)
    keys |= convolution("conv_after_body", width, width)
    for at in {2: (0,), 3: (0,), 4: (0, 2), 8: (0, 2, 4)}[scale]:
        keys |= convolution(f"upsample.{at}", width * (9 if scale == 3 else 4), width)
    return keys | convolution("conv_last", 3, width)


def rrdbnet_keys(scale=4, blocks=23, width=64):
    keys = convolution("conv_first", width, {4: 3, 2: 12, 1: 48}[scale])
    for i in range(blocks):
        for j in (1, 2, 3):
            for k in range(1, 6):
                name = f"body.{i}.rdb{j}.conv{k}"
                keys |= convolution(name, 32 if k < 5 else width, width + 32 * (k - 1))
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        keys |= convolution(name, width, width)
    return keys | convolution("conv_last", 3, width)


SHORT = (
    "blocks=1",
    "width=8",
    "crop=32",
    "batch=4",
    "crops=2",
    "log.tensorboard=false",
    "machine.threads=1",
    "machine.loaders=0",
)


def train(scenes, run, *settings, scale=4):
    given = {word.partition("=")[0] for word in settings}
    short = [word for word in SHORT if word.partition("=")[0] not in given]
    return main(["train", "upscale", f"data={scenes}", f"scale={scale}", *short, *settings, "--run", str(run)])
