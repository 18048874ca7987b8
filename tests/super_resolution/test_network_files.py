"""Files of super-resolution: the field's names, older families, settings read back, and spandrel both ways."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from upscaler_work import TASK, batch_of, edsr_keys, flat, msrresnet_keys, network, output, rrdbnet_keys

from trunkline.backbones import backbone, read_weights, save_weights
from trunkline.backbones.saving import save_pth
from trunkline.backbones.super_resolution.names import arch_of, known
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.heads.model import Model
from trunkline.heads.super_resolution.upscaling import ForeignHead, UpscalingHead, receptive_field
from trunkline.pipelines.models.assembly import Facts, make_trunk, settings_of
from trunkline.pipelines.recipe import Network

SMALL = {"blocks": 2, "width": 8}
FOUR = [("msrresnet", 4, {}), ("msrresnet", 3, {}), ("edsr", 2, {}), ("edsr", 8, {}), ("srresnet", 4, {}), ("srresnet", 3, {}),
        ("rrdbnet", 4, {}), ("rrdbnet", 2, {"unshuffle": 2}), ("rrdbnet", 1, {"unshuffle": 4}), ("rrdbnet", 2, {})]  # fmt: skip


def shapes(model):
    return {name: tuple(t.shape) for name, t in flat(model).items()}


def opened(path, **given):
    """A file as a model: trunk and tail filled strictly, with what the file says."""
    weights = read_weights(path, **given)
    trunk = backbone(weights=weights)
    head = UpscalingHead(
        trunk.arch, trunk.channels, int(weights.info["trunkline_scale"]),
        unshuffle=trunk.settings["unshuffle"], preprocessing=trunk.preprocessing,
    )  # fmt: skip
    head.fill(weights)
    return Model(trunk, {TASK: head}, trunk.preprocessing).eval()


def saved(model, path, **info):
    trunk = model.backbone
    said = {f"trunkline_{name}": str(value) for name, value in settings_of(trunk).items()}
    save_weights(path, flat(model), arch=trunk.arch, stride_in="3x3", classes=None, preprocessing=trunk.preprocessing,
                 info=said | info)  # fmt: skip
    return path


@pytest.mark.parametrize(("arch", "scale", "settings", "keys"), [
    ("msrresnet", 2, {}, msrresnet_keys(2)),  # 001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb and its x2 and x3
    ("msrresnet", 3, {}, msrresnet_keys(3)),
    ("msrresnet", 4, {}, msrresnet_keys(4)),
    ("edsr", 2, {}, edsr_keys(2)),  # EDSR_Mx2_f64b16_DIV2K_official and its x3 and x4
    ("edsr", 3, {}, edsr_keys(3)),
    ("edsr", 4, {}, edsr_keys(4)),
    ("edsr", 4, {"blocks": 32, "width": 256}, edsr_keys(4, 32, 256)),  # EDSR_Lx4_f256b32_DIV2K_official
    ("rrdbnet", 4, {}, rrdbnet_keys(4)),  # ESRGAN_SRx4_DF2KOST_official, RealESRGAN_x4plus
    ("rrdbnet", 2, {"unshuffle": 2}, rrdbnet_keys(2)),  # RealESRGAN_x2plus
    ("rrdbnet", 4, {"blocks": 6}, rrdbnet_keys(4, 6)),  # RealESRGAN_x4plus_anime_6B
    ("rrdbnet", 1, {"unshuffle": 4}, rrdbnet_keys(1)),
])  # fmt: skip
def test_names_and_shapes_are_those_of_the_published_files(arch, scale, settings, keys):
    with torch.device("meta"):
        trunk = backbone(arch, **settings)
        head = UpscalingHead(
            arch, trunk.channels, scale, unshuffle=trunk.strides["c1"], preprocessing=trunk.preprocessing
        )
        model = Model(trunk, {TASK: head}, trunk.preprocessing)
    assert shapes(model) == keys
    found = known(keys)
    assert (found.arch, found.scale, found.unshuffle, found.problem) == (arch, scale, settings.get("unshuffle", 1), "")
    assert {"blocks": found.blocks, "width": found.width}.items() <= trunk.settings.items()


@pytest.mark.parametrize(("arch", "scale", "settings"), FOUR)
@pytest.mark.parametrize("form", ["safetensors", "pth", "module"])
def test_a_file_loads_strictly_and_gives_the_same_picture(arch, scale, settings, form, tmp_path):
    model = network(arch, scale, **SMALL, **settings)
    path = tmp_path / f"net.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        saved(model, path)
    elif form == "pth":
        save_pth(path, flat(model))
        assert list(torch.load(path, weights_only=True)) == ["params_ema"]
    else:
        torch.save({"iter": 1, "params": {f"module.{n}": t.clone() for n, t in flat(model).items()}}, path)
    weights = read_weights(path)
    again = opened(path)
    assert (weights.arch, weights.info["trunkline_scale"]) == (arch, str(scale))
    assert len(weights.tensors) + len(weights.rest) == len(flat(model))
    assert again.backbone.report.loaded == again.backbone.report.total == len(weights.tensors)
    assert torch.equal(output(again, batch_of(7, 9)), output(model, batch_of(7, 9)))
    assert ("under params_ema" in again.backbone.report.note) == (form == "pth")


def test_the_header_states_what_tensors_cannot(tmp_path):
    model = network("edsr", 2, residual_scale=0.3, **SMALL)
    path = saved(model, tmp_path / "net.safetensors")
    with safe_open(path, "pt") as file:
        header = file.metadata()
        assert not any(name.startswith("backbone.") for name in file.keys())  # noqa: SIM118
    assert header["trunkline_residual_scale"] == "0.3" and header["mean"] == "0.4488,0.4371,0.404"
    again = opened(path)
    assert again.backbone.settings == {"blocks": 2, "width": 8, "unshuffle": 1, "residual_scale": 0.3}
    assert torch.equal(output(again, batch_of(5, 5)), output(model, batch_of(5, 5)))
    save_pth(tmp_path / "net.pth", flat(model))
    assert (
        "residual_scale=1, as published for 2 blocks of 8 channels" in opened(tmp_path / "net.pth").backbone.report.note
    )


def test_edsr_large_is_taken_to_scale_its_residuals(tmp_path):
    tensors = {name: torch.zeros(shape) for name, shape in edsr_keys(2, 32, 256).items()}
    torch.save({"params": tensors}, tmp_path / "EDSR_Lx2.pth")
    weights = read_weights(tmp_path / "EDSR_Lx2.pth")
    assert (
        weights.info["trunkline_residual_scale"] == "0.1"
        and "EDSR's, mean 0.4488" in weights.info["assumed"]["preprocessing"]
    )


def test_a_checkpoint_builds_its_network_without_the_file_that_it_began_from(tmp_path):
    path = saved(network("rrdbnet", 2, unshuffle=2, **SMALL), tmp_path / "net.safetensors")
    asked = Network(weights=str(path))
    trunk = make_trunk(asked, read_weights(path), None)
    facts = Facts(**json.loads(json.dumps({"arch": trunk.arch, "stride_in": "3x3", "preprocessing": {}, "tasks": {},
                                           "settings": settings_of(trunk)})))  # fmt: skip
    again = make_trunk(asked, None, facts)
    assert again.settings == trunk.settings == {"blocks": 2, "width": 8, "unshuffle": 2}
    assert again.state_dict().keys() == trunk.state_dict().keys()


# ESRGAN's families of names


def first_release(tensors):
    """As https://github.com/xinntao/ESRGAN (RRDBNet_arch.py) names them."""
    return {name.replace("conv_body", "trunk_conv").replace("conv_up", "upconv").replace("conv_hr", "HRconv")
            .replace("body.", "RRDB_trunk.").replace(".rdb", ".RDB"): t for name, t in tensors.items()}  # fmt: skip


class Shortcut(nn.Module):
    def __init__(self, sub):
        super().__init__()
        self.sub = sub


def oldest(tensors, blocks):
    """As the first ESRGAN.pth has them: https://github.com/xinntao/ESRGAN, before its new architecture (block.py)."""
    ups = sorted({name.split(".")[0] for name in tensors if name.startswith("conv_up")})
    at = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    at |= {name: f"model.{3 * i}" for i, name in enumerate(ups, start=1)}
    at |= {"conv_hr": f"model.{3 * len(ups) + 2}", "conv_last": f"model.{3 * len(ups) + 4}"}
    found = {}
    for name, tensor in tensors.items():
        layer, kind = name.rsplit(".", 1)
        found[f"{at[layer]}.{kind}" if layer in at else
              f"{layer.replace('body', 'model.1.sub').replace('rdb', 'RDB')}.0.{kind}"] = tensor  # fmt: skip
    return found


@pytest.mark.parametrize("family", ["oldest", "first release"])
@pytest.mark.parametrize(("scale", "settings"), [(4, {}), (2, {}), (8, {}), (1, {}), (2, {"unshuffle": 2})])
def test_older_names_of_esrgan_load(family, scale, settings, tmp_path):
    model = network("rrdbnet", scale, **SMALL, **settings)
    tensors = oldest(flat(model), 2) if family == "oldest" else first_release(flat(model))
    torch.save({n: t.clone() for n, t in tensors.items()}, tmp_path / "RRDB_ESRGAN.pth")
    again = opened(tmp_path / "RRDB_ESRGAN.pth")
    assert torch.equal(output(again, batch_of(6, 7)), output(model, batch_of(6, 7)))
    assert "ESRGAN's older names" in again.backbone.report.note


@pytest.mark.parametrize("name", ["model.1.sub.0.RDB1.conv1x1.weight", "body.0.rdb1.conv1x1.weight"])
def test_esrgan_plus_is_refused_by_name(name, tmp_path):
    tensors = flat(network("rrdbnet", 4, **SMALL))
    tensors = oldest(tensors, 2) if name.startswith("model") else dict(tensors)
    torch.save(tensors | {name: torch.zeros(32, 8, 1, 1)}, tmp_path / "plus.pth")
    with pytest.raises(WeightsError, match=r"plus.pth: is ESRGAN\+ .*conv1x1.*spandrel:"):
        read_weights(tmp_path / "plus.pth")


# Which tensors, and what does not fit


def test_the_average_wins_over_the_raw_weights_and_it_is_said(tmp_path):
    one, other = network("msrresnet", 2, **SMALL), network("msrresnet", 2, seed=5, **SMALL)
    torch.save({"params": flat(one), "params_ema": flat(other)}, tmp_path / "net.pth")
    found = opened(tmp_path / "net.pth")
    assert torch.equal(output(found, batch_of(5, 5)), output(other, batch_of(5, 5)))
    assert (
        "under params_ema" in found.backbone.report.note
        and "left aside in the file: params" in found.backbone.report.note
    )
    raw = opened(tmp_path / "net.pth", key="params")
    assert torch.equal(output(raw, batch_of(5, 5)), output(one, batch_of(5, 5)))


@pytest.mark.parametrize(("change", "said"), [
    (lambda t: t.pop("conv_hr.bias"), "conv_hr.bias is missing"),
    (lambda t: t.pop("body.1.conv2.bias"), "missing: body.1.conv2.bias"),
    (lambda t: t.update({"extra.weight": torch.zeros(3)}), "extra.weight is not of this network"),
    (lambda t: t.update({"body.0.extra": torch.zeros(3)}), "unexpected: body.0.extra"),
    (lambda t: t.update({"conv_last.bias": torch.full((3,), torch.nan)}), "conv_last.bias holds values that are not finite"),
    (lambda t: t.update({"conv_first.weight": torch.zeros(8, 1, 3, 3)}), "takes 1 channels and gives 3"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_its_tensor(change, said, tmp_path):
    tensors = flat(network("msrresnet", 2, **SMALL))
    change(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=said):
        opened(tmp_path / "net.safetensors")


def test_other_values_than_the_file_has_are_refused(tmp_path):
    path = saved(network("rrdbnet", 2, unshuffle=2, **SMALL), tmp_path / "net.safetensors")
    weights = read_weights(path)
    for given, said in (
        ({"blocks": 3}, "blocks=2 by the file, blocks=3 asked for"),
        ({"unshuffle": 4}, "unshuffle=2 by the file"),
    ):
        with pytest.raises(WeightsError, match=said):
            backbone(weights=weights, **given)
    with pytest.raises(WeightsError, match="backbone=rrdbnet by the file, backbone=edsr asked for"):
        read_weights(path, arch="edsr")
    head = UpscalingHead("rrdbnet", {"c2": 8}, 4, unshuffle=2, preprocessing=weights.preprocessing)
    with pytest.raises(WeightsError, match="was trained for scale=2, and scale=4 was asked for"):
        head.fill(weights)


def test_other_growth_is_refused(tmp_path):
    tensors = rrdbnet_keys(4, 1, 8)
    tensors["body.0.rdb1.conv1.weight"] = (16, 8, 3, 3)
    torch.save({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"grow by 16 channels; those here by 32; spandrel:"):
        read_weights(tmp_path / "net.pth")


def test_networks_of_other_kinds_are_not_taken_for_these():
    names = [*edsr_keys(4)]
    assert arch_of(names) == "edsr" and arch_of(["conv1.weight", "layer1.0.conv1.weight"]) is None
    assert arch_of([n for n in names if not n.startswith("conv_first")]) is None
    rcan = ["conv_first.weight", "body.0.residual_group.0.rcab.0.weight", "conv_after_body.weight", "conv_last.weight"]
    assert arch_of(rcan) is None


# spandrel


def test_without_spandrel_the_command_is_named(monkeypatch, tmp_path):
    from trunkline.backbones.super_resolution.spandrel_door import load_spandrel

    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(WeightsError, match="pip install spandrel"):
        load_spandrel(f"spandrel:{tmp_path}/x.pth")


@pytest.mark.parametrize("form", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("scale", "settings"), [(4, {}), (2, {"unshuffle": 2}), (1, {"unshuffle": 4}), (2, {}), (8, {})]
)
def test_our_rrdbnet_opens_in_spandrel(form, scale, settings, tmp_path):
    spandrel = pytest.importorskip("spandrel")
    model = network("rrdbnet", scale, **SMALL, **settings)
    path = tmp_path / f"net.{form}"
    saved(model, path) if form == "safetensors" else save_pth(path, flat(model))
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert (descriptor.architecture.id, descriptor.scale) == ("ESRGAN", scale)
    batch = batch_of(12, 16)
    found, ours = descriptor(batch.images.float() / 255), output(model, batch).clamp(0, 1)
    assert ours.std() > 0.05 and (found - ours).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(12, 16), (9, 7), (5, 3)])
@pytest.mark.parametrize(("factor", "shuffle"), [(4, None), (4, 2), (4, 4), (2, None), (8, None)])
def test_what_spandrels_own_class_saves_predicts_here(factor, shuffle, size, tmp_path):
    esrgan = pytest.importorskip("spandrel.architectures.ESRGAN").ESRGAN
    torch.manual_seed(0)
    theirs = esrgan(
        in_nc=3 * (shuffle or 1) ** 2, num_filters=8, num_blocks=2, scale=factor, shuffle_factor=shuffle
    ).eval()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    model, batch = opened(tmp_path / "net.pth"), batch_of(*size)
    with torch.inference_mode():
        truth = theirs(batch.images.float() / 255)
    ours = output(model, batch)
    assert ours.shape == truth.shape and truth.std() > 1e-3 and (ours - truth).abs().max() < 1e-5


def foreign(path):
    from trunkline.backbones.super_resolution.spandrel_door import load_spandrel

    trunk = load_spandrel(f"spandrel:{path}")
    return Model(trunk, {TASK: ForeignHead(trunk.scale)}, trunk.preprocessing).eval()


def test_the_door_gives_what_spandrel_gives_at_any_size(tmp_path):
    spandrel = pytest.importorskip("spandrel")
    save_pth(tmp_path / "net.pth", flat(network("rrdbnet", 2, unshuffle=2, **SMALL)))
    model, descriptor = foreign(tmp_path / "net.pth"), spandrel.ModelLoader().load_from_file(tmp_path / "net.pth")
    trunk = model.backbone
    assert (trunk.scale, trunk.sizes.unit, trunk.arch) == (2, 4, f"spandrel:{tmp_path}/net.pth")
    assert "ESRGAN" in trunk.remarks[0] and receptive_field(trunk, model.heads[TASK]) is None
    for size in ((8, 8), (9, 7), (2, 3), (1, 1)):
        batch = batch_of(*size)
        (found,) = model.predict(batch)
        truth = descriptor(batch.images.float() / 255)[0] * 255
        assert (torch.from_numpy(found.picture) - truth).abs().max() < 1e-4
    with pytest.raises(WeightsError, match="prediction and scoring alone"):
        model.losses(batch)
    assert not model.train().backbone.training and not any(p.requires_grad for p in trunk.parameters())


def test_the_door_takes_grey_networks_channel_by_channel(tmp_path):
    pytest.importorskip("spandrel")
    esrgan = pytest.importorskip("spandrel.architectures.ESRGAN").ESRGAN
    grey = esrgan(in_nc=1, out_nc=1, num_filters=8, num_blocks=2).eval()
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    batch = batch_of(6, 5, 2)
    found = output(foreign(tmp_path / "grey.pth"), batch)
    with torch.inference_mode():
        truth = torch.cat([grey(batch.images[:, c : c + 1].float() / 255) for c in range(3)], 1)
    assert (found - truth).abs().max() < 1e-5


def test_the_door_refuses_what_inpaints_and_what_it_does_not_know(tmp_path, monkeypatch):
    spandrel = pytest.importorskip("spandrel")
    from spandrel.architectures.LaMa import LaMaArch

    save_pth(tmp_path / "msr.pth", flat(network("msrresnet", 2, **SMALL)))
    with pytest.raises(WeightsError, match="spandrel knows no network with such tensors"):
        foreign(tmp_path / "msr.pth")
    with pytest.raises(WeightsError, match="no such file"):
        foreign(tmp_path / "none.pth")
    net = nn.Linear(1, 1)
    options = {
        "tags": [],
        "supports_half": False,
        "supports_bfloat16": False,
        "input_channels": 3,
        "output_channels": 3,
    }
    holes = spandrel.MaskedImageModelDescriptor(net, net.state_dict(), LaMaArch(), "Inpainting", **options)
    faces = spandrel.ImageModelDescriptor(net, net.state_dict(), LaMaArch(), "FaceSR", scale=1, **options)
    depth = spandrel.ImageModelDescriptor(
        net, net.state_dict(), LaMaArch(), "SR", scale=1, **options | {"output_channels": 2}
    )
    for made, said in ((holes, "is LaMa, which fills holes, which needs a mask"), (faces, "aligned faces alone"),
                       (depth, "3 channels in and 2 out; expected RGB, grey or RGBA")):  # fmt: skip
        monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", lambda self, state, made=made: made)
        with pytest.raises(WeightsError, match=f"msr.pth: .*{said}"):
            foreign(tmp_path / "msr.pth")


class Enlarging:
    """As much of a task as the door needs."""

    facts: dict = {}

    def head(self, trunk, weights=None):
        return ForeignHead(trunk.scale)


def test_a_source_becomes_a_model_of_the_task(tmp_path, monkeypatch):
    pytest.importorskip("spandrel")
    from trunkline.pipelines.models import foreign as door

    monkeypatch.setattr(door, "known_tasks", lambda: {TASK: Enlarging})
    save_pth(tmp_path / "net.pth", flat(network("rrdbnet", 4, **SMALL)))
    source = f"spandrel:{tmp_path}/net.pth"

    def choose(name, said):
        assert (name, said) == (TASK, {"scale": 4})
        return SimpleNamespace(**said)

    recipe, _, model, facts = door.from_spandrel(source, choose, lambda *given: Enlarging())
    assert recipe.network.backbone == source and Facts(**facts).arch == source and "ESRGAN SR" in facts["loaded"]
    assert model.predict(batch_of(4, 4))[0].picture.shape == (3, 16, 16)
    with pytest.raises(RecipeError, match=r"scale=2: .* enlarges 4 times"):
        door.from_spandrel(source, lambda name, said: SimpleNamespace(scale=2), lambda *given: Enlarging())
