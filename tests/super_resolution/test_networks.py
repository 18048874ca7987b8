"""The networks of super-resolution: counts, values beside plain statements, how far a pixel reaches, losses."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from upscaler_work import TASK, batch_of, network, output

from trunkline.backbones import backbone
from trunkline.cluster.config import Optimizer
from trunkline.ground.errors import EngineError, RecipeError, WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.super_resolution.upscaling import PictureLosses, UpscalingHead, picture_losses, receptive_field
from trunkline.pipelines.recipe import Network, Phase, Recipe
from trunkline.pipelines.recipe.limits import check

SMALL = {"blocks": 2, "width": 8}
ALL = [("msrresnet", s, {}) for s in (2, 3, 4)] + [("edsr", s, {}) for s in (2, 3, 4, 8)]
ALL += [("srresnet", s, {}) for s in (2, 3, 4)] + [("edsr", 4, {"residual_scale": 0.1})]
ALL += [("rrdbnet", 4, {}), ("rrdbnet", 2, {"unshuffle": 2}), ("rrdbnet", 1, {"unshuffle": 4}), ("rrdbnet", 2, {})]


@pytest.mark.parametrize(("arch", "scale", "settings", "parameters"), [
    ("rrdbnet", 4, {}, 16_697_987),
    ("rrdbnet", 2, {"unshuffle": 2}, 16_703_171),
    ("rrdbnet", 4, {"blocks": 6}, 4_467_779),
    ("msrresnet", 4, {}, 1_517_571),
    ("edsr", 4, {}, 1_517_571),
    ("edsr", 4, {"blocks": 32, "width": 256}, 43_089_923),
])  # fmt: skip
def test_parameter_counts_are_the_published_ones(arch, scale, settings, parameters):
    with torch.device("meta"):
        trunk = backbone(arch, **settings)
        head = UpscalingHead(
            arch, trunk.channels, scale, unshuffle=trunk.strides["c1"], preprocessing=trunk.preprocessing
        )
    assert sum(p.numel() for p in [*trunk.parameters(), *head.parameters()]) == parameters


# Plain statements of the networks


def plain(arch, t, x, scale, unshuffle=1, residual_scale=1.0):
    """The network from its tensors by flat names; `x` in 0..1 units, with sides that the unshuffle divides."""

    def conv(name, y):
        weight = t[f"{name}.weight"]
        return F.conv2d(y, weight, t.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(name, y):
        mean, var, weight, bias = (t[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        by = (weight / (var + 1e-5).sqrt()).view(-1, 1, 1)
        return (y - mean.view(-1, 1, 1)) * by + bias.view(-1, 1, 1)

    blocks = 1 + max(int(name.split(".")[1]) for name in t if name.startswith("body."))
    if arch == "msrresnet":
        base = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        y = F.leaky_relu(conv("conv_first", x), 0.1)
        for i in range(blocks):
            y = y + conv(f"body.{i}.conv2", F.relu(conv(f"body.{i}.conv1", y)))
        for name in ("upconv1", "upconv2") if scale == 4 else ("upconv1",):
            y = F.leaky_relu(F.pixel_shuffle(conv(name, y), 2 if scale == 4 else scale), 0.1)
        return conv("conv_last", F.leaky_relu(conv("conv_hr", y), 0.1)) + base
    if arch == "edsr":
        mean = x.new_tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
        first = y = conv("conv_first", (x - mean) * 255)
        for i in range(blocks):
            y = y + residual_scale * conv(f"body.{i}.conv2", F.relu(conv(f"body.{i}.conv1", y)))
        y = first + conv("conv_after_body", y)
        for at in range(1 if scale == 3 else int(math.log2(scale))):
            y = F.pixel_shuffle(conv(f"upsample.{2 * at}", y), 3 if scale == 3 else 2)
        return conv("conv_last", y) / 255 + mean
    if arch == "srresnet":
        first = y = F.prelu(conv("conv_first", x), t["prelu.weight"])
        for i in range(blocks):
            z = F.prelu(norm(f"body.{i}.bn1", conv(f"body.{i}.conv1", y)), t[f"body.{i}.prelu.weight"])
            y = y + norm(f"body.{i}.bn2", conv(f"body.{i}.conv2", z))
        y = first + norm("bn_body", conv("conv_body", y))
        for at in range(2 if scale == 4 else 1):
            y = F.pixel_shuffle(conv(f"upsample.{3 * at}", y), 3 if scale == 3 else 2)
            y = F.prelu(y, t[f"upsample.{3 * at + 2}.weight"])
        return conv("conv_last", y)
    first = y = conv("conv_first", F.pixel_unshuffle(x, unshuffle))
    for i in range(blocks):
        z = y
        for j in (1, 2, 3):
            maps = [z]
            for k in range(1, 5):
                maps.append(F.leaky_relu(conv(f"body.{i}.rdb{j}.conv{k}", torch.cat(maps, 1)), 0.2))
            z = z + 0.2 * conv(f"body.{i}.rdb{j}.conv5", torch.cat(maps, 1))
        y = y + 0.2 * z
    y = first + conv("conv_body", y)
    for k in range(1, 1 + int(math.log2(scale * unshuffle))):
        y = F.leaky_relu(conv(f"conv_up{k}", y.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", y), 0.2))


def reflected(x, unit):
    """The picture made larger right and below, pixel by pixel in the mirror of its last."""
    rows, columns = (torch.arange(-(-side // unit) * unit) for side in x.shape[-2:])
    h, w = x.shape[-2:]
    rows, columns = (
        torch.where(rows < h, rows, 2 * h - 2 - rows),
        torch.where(columns < w, columns, 2 * w - 2 - columns),
    )
    return x[:, :, rows][..., columns]


@pytest.mark.parametrize(("arch", "scale", "settings"), ALL)
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_a_network_is_its_plain_statement(arch, scale, settings, size):
    model = network(arch, scale, **SMALL, **settings)
    batch = batch_of(*size, count=2)
    tensors = {n.removeprefix("backbone.").removeprefix(f"heads.{TASK}."): t.double()
               for n, t in model.state_dict().items()}  # fmt: skip
    unit = settings.get("unshuffle", 1)
    x = reflected(batch.images.double() / 255, unit)
    truth = plain(arch, tensors, x, scale, **settings)[..., : scale * size[0], : scale * size[1]]
    assert truth.std() > 0.05
    double = output(network(arch, scale, **SMALL, **settings).double(), batch)
    assert (double - truth).abs().max() < (1e-5 if arch == "edsr" else 1e-6)  # edsr's numbers are stored in fp32
    found = output(model, batch)
    assert found.dtype == torch.float32 and found.shape == (2, 3, scale * size[0], scale * size[1])
    assert (found - truth).abs().max() < 3e-6 * max(1, truth.abs().max())


def test_srresnet_takes_the_norm_policies():
    assert isinstance(backbone("srresnet", norm="group", **SMALL).body[0].bn1, nn.GroupNorm)
    frozen = backbone("srresnet", norm="frozen", **SMALL)
    assert not any("bn" in name for name, _ in frozen.named_parameters())
    with pytest.raises(WeightsError, match="edsr has no norms"):
        backbone("edsr", norm="group", **SMALL)


def test_blocks_computed_again_give_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trunk = backbone("rrdbnet", checkpointing=checkpointing, **SMALL)
        trunk(batch_of(8, 8).images.float() / 255)["c2"].square().sum().backward()
        found.append([p.grad for p in trunk.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_freezing():
    trunk = backbone("srresnet", frozen=1, **SMALL)
    assert {n.split(".")[0] for n, p in trunk.named_parameters() if not p.requires_grad} == {"conv_first", "prelu"}
    trunk.freeze(2).train()
    assert not any(p.requires_grad for p in trunk.parameters()) and not trunk.body[0].bn1.training
    with pytest.raises(WeightsError, match="frozen=3"):
        trunk.freeze(3)


@pytest.mark.parametrize("arch", ["msrresnet", "rrdbnet"])
def test_initial_values_are_a_tenth_of_hes(arch):
    torch.manual_seed(0)
    trunk = backbone(arch, blocks=1)
    conv = trunk.body[0].conv1 if arch == "msrresnet" else trunk.body[0].rdb1.conv1
    assert conv.weight.std().item() == pytest.approx(0.1 * (2 / (9 * 64)) ** 0.5, rel=0.03)
    assert not conv.bias.any()


# How far a pixel reaches


@pytest.mark.parametrize(("arch", "scale", "settings"), [
    ("srresnet", 2, {}), ("srresnet", 3, {}), ("srresnet", 4, {}), ("msrresnet", 3, {}), ("msrresnet", 4, {}), ("edsr", 2, {}),
    ("edsr", 8, {}), ("rrdbnet", 4, {"blocks": 1}), ("rrdbnet", 2, {"blocks": 1}),
    ("rrdbnet", 2, {"blocks": 1, "unshuffle": 2}), ("rrdbnet", 1, {"blocks": 1, "unshuffle": 4}),
])  # fmt: skip
def test_a_pixel_changes_the_output_as_far_as_is_said_and_no_farther(arch, scale, settings):
    model = network(arch, scale, **{**SMALL, **settings}).double()
    trunk, head, unit = model.backbone, model.heads[TASK], settings.get("unshuffle", 1)
    with torch.no_grad():  # no unit is silent, so that what can be reached is
        for name, value in model.state_dict().items():
            if name.endswith(("weight", "bias")):
                value.abs_()
    radius = receptive_field(trunk, head)
    side = -(-(2 * radius + 3) // unit) * unit
    middles = [side // 2 // unit * unit + phase for phase in range(unit)]  # every place in a square of the unshuffle
    reached = []
    for middle in middles:
        batch = batch_of(side, 4)
        before = output(model, batch)
        batch.images[:, :, middle] = 255 - batch.images[:, :, middle]
        rows = (output(model, batch) - before).abs().amax((0, 1, 3)).nonzero().flatten() // scale
        reached += [middle - int(rows.min()), int(rows.max()) - middle]
    assert max(reached) == radius


def test_the_radius_of_published_networks():
    found = {}
    for arch, scale, unit in (("srresnet", 4, 1), ("rrdbnet", 4, 1), ("rrdbnet", 2, 2)):
        with torch.device("meta"):
            trunk = backbone(arch, unshuffle=unit)
            head = UpscalingHead(arch, trunk.channels, scale, unshuffle=unit, preprocessing=trunk.preprocessing)
        found[arch, scale] = receptive_field(trunk, head)
    assert found == {("srresnet", 4): 40, ("rrdbnet", 4): 349, ("rrdbnet", 2): 698}
    group = backbone("srresnet", norm="group", **SMALL)
    head = UpscalingHead("srresnet", group.channels, 4, preprocessing=group.preprocessing)
    assert receptive_field(group, head) is None  # its norms read the whole picture


# Losses, predictions, precision


def test_losses_are_their_formulas():
    model = network("edsr", 2, **SMALL)
    head = model.heads[TASK]
    head.weighted = PictureLosses(l1=0.5, mse=2.0, charbonnier=3.0)
    batch = batch_of(6, 5, 2)
    batch.targets["hr"] = batch_of(12, 10, 2, seed=3).images
    d = output(model, batch).double() - batch.targets["hr"].double() / 255
    found = {name: value.item() for name, value in model.losses(batch).items()}
    assert found == pytest.approx({
        f"{TASK}/l1": 0.5 * d.abs().mean().item(),
        f"{TASK}/mse": 2 * d.square().mean().item(),
        f"{TASK}/charbonnier": 3 * (d.square() + 1e-12).sqrt().mean().item(),
    }, rel=1e-5)  # fmt: skip
    only = picture_losses(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2), PictureLosses())
    assert {name: value.item() for name, value in only.items()} == pytest.approx({"l1": 0.2})


def test_predictions_are_clamped_not_rounded_and_cut_to_each_size():
    model = network("msrresnet", 2, **SMALL)
    batch = batch_of(6, 5, 2)
    batch.sizes = torch.tensor([[6, 5], [4, 3]])
    first, second = model.predict(batch)
    pictures = (output(model, batch).clamp(0, 1) * 255).numpy()
    assert first.picture.shape == (3, 12, 10) and second.picture.shape == (3, 8, 6)
    assert (first.picture == pictures[0]).all() and (second.picture == pictures[1][:, :8, :6]).all()
    assert first.picture.dtype.name == "float32" and (first.picture % 1).any()


def test_the_last_convolution_and_the_skip_stay_fp32_under_autocast():
    model = network("msrresnet", 2, **SMALL)
    batch, head, seen = batch_of(8, 8), model.heads[TASK], {}
    for name in ("conv_hr", "conv_last"):
        head.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        found = output(model, batch)
    assert seen == {"conv_hr": torch.bfloat16, "conv_last": torch.float32} and found.dtype == torch.float32
    with torch.no_grad():
        head.conv_last.weight.zero_()
        head.conv_last.bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        left = output(model, batch)
    skip = F.interpolate(batch.images.float() / 255, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(left, skip)


def test_pictures_of_floats_are_left_alone():
    model = network("msrresnet", 2, **SMALL)
    batch = batch_of(8, 8)
    same = Batch(TASK, batch.ids, batch.images.float())
    assert torch.equal(output(model, same), output(model, batch))
    assert torch.equal(same.images, batch.images.float())


# Mistakes


@pytest.mark.parametrize(("given", "said"), [
    ({"name": "resnet18", "blocks": 3}, "blocks=3: is for srresnet, msrresnet, edsr, rrdbnet, and the trunk is resnet18"),
    ({"name": "msrresnet", "residual_scale": 0.1}, "residual_scale=0.1: is for edsr, and the trunk is msrresnet"),
    ({"name": "rrdbnet", "unshuffle": 3}, "unshuffle=3: expected one of 1, 2, 4"),
    ({"name": "edsr", "blocks": 0}, "blocks=0: expected a whole number"),
    ({"name": "edsr", "output_stride": 16}, "output_stride=16: this trunk has stride 1"),
    ({"name": "spandrel:x.pth"}, "spandrel opens networks for prediction and scoring alone"),
    ({"weights": "spandrel:x.pth"}, "spandrel opens networks for prediction and scoring alone"),
])  # fmt: skip
def test_what_a_trunk_does_not_take_is_refused(given, said):
    with pytest.raises(WeightsError, match=said.replace(".", r"\.")):
        backbone(**given)


@pytest.mark.parametrize(("arch", "scale", "unshuffle", "said"), [
    ("msrresnet", 8, 1, "scale=8: msrresnet enlarges by 2, 3 or 4"),
    ("rrdbnet", 3, 1, "scale=3: rrdbnet enlarges by 1, 2, 4 or 8"),
    ("rrdbnet", 3, 2, "behind a pixel-unshuffle of 2 enlarges by 1, 2 or 4"),
    ("resnet18", 4, 1, "needs a trunk of stride 1"),
])  # fmt: skip
def test_a_scale_without_a_tail_is_refused(arch, scale, unshuffle, said):
    with pytest.raises(WeightsError, match=said):
        UpscalingHead(
            arch, {"c2": 8}, scale, unshuffle=unshuffle, preprocessing=backbone("edsr", **SMALL).preprocessing
        )


@pytest.mark.parametrize(("network_", "phase", "said"), [
    (Network("resnet18", width=32), Phase(epochs=1), "network.width=32: is for srresnet"),
    (Network("rrdbnet", residual_scale=0.2), Phase(epochs=1), "network.residual_scale=0.2: is for edsr"),
    (Network("edsr"), Phase(epochs=1, frozen=3), "expected 0 .nothing. to 2"),
    (Network("spandrel:a.pth"), Phase(epochs=1), "network.backbone=spandrel:a.pth: networks of spandrel predict"),
    (Network("edsr", weights="spandrel:a.pth"), Phase(epochs=1), "network.weights=spandrel:a.pth: networks of spandrel"),
    (Network("edsr", blocks=0), Phase(epochs=1), "network.blocks"),
])  # fmt: skip
def test_a_recipe_says_it_before_anything_is_built(network_, phase, said):
    with pytest.raises(RecipeError, match=said):
        check(Recipe({}, network_, phases=(phase,), optimizer=Optimizer()))


def test_cached_maps_are_refused():
    model = network("edsr", 2, **SMALL)
    batch = batch_of(4, 4)
    maps = model.maps(batch)
    batch.images = None
    with pytest.raises(EngineError, match="cannot be cached"):
        model.heads[TASK](maps, batch)
