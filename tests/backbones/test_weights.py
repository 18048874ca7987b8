"""Weights in and out: strict loading, its report, wrappers, and files that must not be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from trunkline.backbones import Preprocessing, Weights, backbone, load, read_weights, resnet, save_weights
from trunkline.ground.errors import WeightsError
from trunkline.tasks.fitting import check_fit

DATA = os.environ.get("TRUNKLINE_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="TRUNKLINE_TEST_DATA names no folder of real data")
RESNET50 = Path(DATA or "") / "weights/resnet50_v1.safetensors"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """A resnet18 of torchvision's with ten classes, random."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


def without(tensors, *parts):
    return {name: value for name, value in tensors.items() if not any(part in name for part in parts)}


@needs_data
def test_the_real_file_loads_whole():
    weights = read_weights(RESNET50)
    assert weights.arch == "resnet50" and weights.stride_in == "1x1"
    assert len(weights.classes) == 1000 and weights.classes[0] == "tench"
    assert weights.preprocessing == Preprocessing() and len(weights.sha256) == 64
    assert "assumed" not in weights.info and weights.info["license"] == "MIT"
    assert all(not t.is_floating_point() or t.dtype == torch.float32 for t in weights.tensors.values())
    trunk, fc = resnet("resnet50", stride_in="1x1"), nn.Linear(2048, 1000)
    report = load(weights, trunk, fc)
    assert str(report) == "320 of 320 tensors from resnet50_v1.safetensors"
    assert torch.equal(trunk.layer4[2].conv3.weight, weights.tensors["layer4.2.conv3.weight"])
    assert torch.equal(fc.weight, weights.tensors["fc.weight"])


@needs_data
def test_the_real_file_is_the_plain_loops_network():
    theirs = torchvision.models.resnet50()
    weights = read_weights(RESNET50)
    theirs.load_state_dict(weights.tensors)
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    trunk = backbone(weights=RESNET50).eval()
    assert trunk.stride_in == "1x1" and trunk.classes == weights.classes
    assert str(trunk.report).startswith("318 of 320 tensors from resnet50_v1.safetensors; the classifier of 1000")
    dilated = backbone(weights=weights, output_stride=16).eval()
    torch.manual_seed(0)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = theirs.eval()(images)
        maps, fine = trunk(images), dilated(images)
        logits = maps["c5"].mean((2, 3)) @ weights.tensors["fc.weight"].T + weights.tensors["fc.bias"]
    assert float((logits - expected).abs().max() / expected.abs().max()) < 1e-5
    assert float((fine["c5"][:, :, ::2, ::2] - maps["c5"]).abs().max() / maps["c5"].abs().max()) < 1e-4


@needs_data
def test_a_published_cifar_network_is_none_of_these():
    with pytest.raises(WeightsError, match=r"97 tensors.*say backbone=") as told:
        read_weights(Path(DATA) / "cifar10/resnet20-12fca82f.th")
    assert "layer1.0.conv1.weight" in str(told.value) or "conv1.weight" in str(told.value)  # `module.` was taken off
    with pytest.raises(WeightsError, match=r"of another shape: conv1.weight 16x3x3x3, here 64x3x7x7"):
        backbone("resnet18", Path(DATA) / "cifar10/resnet20-12fca82f.th")


def _module(tensors):
    return {"state_dict": {f"module.{name}": value for name, value in tensors.items()}, "epoch": 3}


def _compiled(tensors):
    return {"model": {f"module._orig_mod.{name}": value for name, value in tensors.items()}, "optimizer": {"lr": 0.1}}


def _whole(tensors):
    trunk = {f"backbone.{name}": value for name, value in without(tensors, "fc.").items()}
    head = {f"head.{name}": tensors[name] for name in ("fc.weight", "fc.bias")}
    return trunk | head | {"neck.scale": torch.ones(1)}


def _averaged(tensors):
    return {"n_averaged": torch.tensor(5)} | {f"module.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize("wrap", [dict, _module, _compiled, _whole, _averaged])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".safetensors"])
def test_wrappers_are_taken_off(tensors, tmp_path, wrap, suffix):
    path, content = tmp_path / f"weights{suffix}", wrap(tensors)
    if suffix == ".safetensors":
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            content = next(value for value in content.values() if isinstance(value, dict))
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix != ".th")
    weights = read_weights(path)
    assert weights.arch == "resnet18" and weights.tensors.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in weights.tensors.items())
    assert ("neck.scale" in weights.info.get("left aside", "")) == (wrap is _whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_out_whole(tensors, tmp_path, dtype):
    save_file({n: t.to(dtype) if t.dim() > 1 else t for n, t in tensors.items()}, tmp_path / "half.safetensors")
    weights = read_weights(tmp_path / "half.safetensors")
    assert weights.tensors["conv1.weight"].dtype == torch.float32
    assert torch.equal(weights.tensors["conv1.weight"], tensors["conv1.weight"].to(dtype).float())


def test_what_no_header_states_is_assumed_and_said(tensors, tmp_path):
    torch.save(tensors, tmp_path / "ten.pth")
    assert read_weights(tmp_path / "ten.pth").classes is None
    torch.save(
        without(tensors, "fc.") | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
        tmp_path / "thousand.pth",
    )
    weights = read_weights(tmp_path / "thousand.pth")
    assert weights.classes[0] == "tench" and weights.classes[999] == "toilet tissue"
    assert "ImageNet" in weights.info["assumed"]["classes"] and "256" in weights.info["assumed"]["preprocessing"]
    with torch.device("meta"):
        bottleneck = resnet("resnet50").to_empty(device="cpu")
    bottleneck = {name: torch.zeros_like(value) for name, value in bottleneck.state_dict().items()}
    torch.save(bottleneck, tmp_path / "fifty.pth")
    fifty = read_weights(tmp_path / "fifty.pth")
    assert "stride_in=1x1" in fifty.info["assumed"]["stride_in"]
    assert backbone("resnet50", tmp_path / "fifty.pth", stride_in="1x1").layer2[0].conv1.stride == (2, 2)
    assert backbone(weights=fifty, stride_in="1x1").layer2[0].conv1.stride == (2, 2)


def test_saved_weights_need_no_help(tensors, tmp_path):
    path = tmp_path / "new" / "mine.safetensors"
    how = Preprocessing((0.1, 0.2, 1 / 3), (0.5, 0.25, 0.125), 96, 100, "bicubic")
    names = tuple(f"kind {i}, ä" for i in range(10))
    mine = {
        f"_orig_mod.{name}": value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in tensors.items()
    }
    info = {"epochs": 3, "note": "text", "assumed": {"classes": "ImageNet's"}}
    save_weights(path, mine, arch="resnet18", stride_in="3x3", classes=names, preprocessing=how, info=info)
    weights = read_weights(path)
    assert (weights.arch, weights.stride_in, weights.classes, weights.preprocessing) == ("resnet18", "3x3", names, how)
    assert weights.info == {"epochs": "3", "note": "text", "bn_eps": "1e-5"}
    assert all(torch.equal(value, tensors[name]) for name, value in weights.tensors.items())
    with safe_open(path, "pt") as file:
        assert file.metadata()["stride_in_1x1"] == "false"
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(weights.tensors)  # as it is, without a table
    assert [kept.name for kept in path.parent.iterdir()] == ["mine.safetensors"]


def test_equal_weights_are_equal_files(tensors, tmp_path):
    info = {f"key {i}": "näme\n\x01" * i for i in range(20)}
    for name in "abcdef":
        save_weights(tmp_path / f"{name}.safetensors", tensors, arch="resnet18", stride_in="3x3",
                     classes=None, preprocessing=Preprocessing(), info=info)  # fmt: skip
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert read_weights(tmp_path / "a.safetensors").info["key 3"] == info["key 3"]


def test_a_save_that_fails_leaves_the_old_file(tensors, tmp_path, monkeypatch):
    path, options = tmp_path / "w.safetensors", {"stride_in": "3x3", "preprocessing": Preprocessing()}
    save_weights(path, tensors, arch="resnet18", classes=None, **options)
    before = path.read_bytes()

    def full(tensors, beside, metadata):
        Path(beside).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trunkline.backbones.saving.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, tensors, arch="resnet18", classes=None, **options)
    assert path.read_bytes() == before and [kept.name for kept in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    "options, told",
    [
        ({"classes": ["a", "b"]}, r"2 class names for a classifier of 10"),
        ({"info": {"mean": 0}}, r"info holds mean"),
        ({"arch": "resnet20"}, r"arch=resnet20"),
        ({"path": "w.pth"}, r"saved as .safetensors"),
    ],
)
def test_what_could_not_be_read_back_is_not_saved(tensors, tmp_path, options, told):
    given = {"arch": "resnet18", "stride_in": "3x3", "classes": None, "preprocessing": Preprocessing(), **options}
    with pytest.raises(WeightsError, match=told):
        save_weights(tmp_path / given.pop("path", "w.safetensors"), tensors, **given)
    assert not list(tmp_path.iterdir())


def test_everything_that_does_not_fit_is_told_at_once(tensors):
    wrong = without(tensors, "layer1.0.conv1", "layer1.1.bn2.bias") | {
        "extra.weight": torch.zeros(2, 3),
        "layer4.0.bn1.weight": torch.zeros(7),
    }
    trunk = resnet("resnet18")
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with pytest.raises(WeightsError) as told:
        load(Weights(wrong, "resnet18", source="mine.pth"), trunk)
    message = str(told.value)
    assert message.startswith("mine.pth does not fit: 117 of 121 tensors from mine.pth")
    assert "2 missing: layer1.0.conv1.weight, layer1.1.bn2.bias" in message
    assert "1 unexpected: extra.weight 2x3" in message
    assert "1 of another shape: layer4.0.bn1.weight 7, here 512" in message
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())  # all or nothing


def test_integers_in_place_of_floating_numbers_are_refused(tensors):
    one = tensors | {"layer1.0.conv1.weight": (tensors["layer1.0.conv1.weight"] * 100).to(torch.int8)}
    head = tensors | {"fc.weight": tensors["fc.weight"].to(torch.int16)}
    every = {name: (t * 100).to(torch.int8) if t.is_floating_point() else t for name, t in tensors.items()}
    for given, named in (
        (one, r"layer1\.0\.conv1\.weight \(int8\); without"),
        (head, r"fc\.weight \(int16\);"),
        (every, r"conv1\.weight \(int8\), .* and 92 more;"),
    ):
        with pytest.raises(WeightsError, match=f"mine.pth: quantised or integer weights where .*: {named}"):
            load(Weights(given, "resnet18", source="mine.pth"), resnet("resnet18"), nn.Linear(512, 10))
    with pytest.raises(WeightsError, match=r"mine.pth: quantised or integer weights .*: weight \(int8\)"):
        check_fit("mine.pth", "head", {"weight": torch.zeros(2, 2, dtype=torch.int8)}, own := nn.Linear(2, 2).state_dict(),
                  {"weight": own["weight"]})  # fmt: skip


def test_weights_of_another_architecture_are_named(tensors, tmp_path):
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"these look like resnet18 weights, the network is resnet50"):
        backbone("resnet50", tmp_path / "w.pth")
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "w.pth")
    assert "left aside in the file: epoch" in str(backbone("resnet18", tmp_path / "w.pth").report)
    with pytest.raises(WeightsError, match=r"norm=group has no running statistics"):
        backbone(weights=tmp_path / "w.pth", norm="group")
    weights = read_weights(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"weights of resnet18, where resnet34 was asked for"):
        backbone("resnet34", weights)


def test_the_classifier_is_the_one_exception(tensors):
    weights, fc = Weights(tensors, "resnet18", source="w.pth"), nn.Linear(512, 2)
    before = fc.weight.clone()
    report = load(weights, resnet("resnet18"), fc)
    assert str(report) == "120 of 122 tensors from w.pth; the classifier replaced: 10 classes in the file, 2 here"
    assert torch.equal(fc.weight, before)
    report = load(Weights(without(tensors, "fc."), "resnet18", source="w.pth"), resnet("resnet18"), fc)
    assert str(report) == "120 of 120 tensors from w.pth; no classifier in the file"


def test_counters_that_old_files_lack_are_set_to_zero(tensors):
    trunk = resnet("resnet18")
    trunk.bn1.num_batches_tracked.fill_(9)
    report = load(Weights(without(tensors, "tracked"), "resnet18", source="old.pth"), trunk, nn.Linear(512, 10))
    assert str(report) == "102 of 102 tensors from old.pth; 20 batch counters that the file lacks set to 0"
    assert int(trunk.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_input_channels_are_adapted_only_when_asked(tensors, channels):
    weights = Weights(tensors, "resnet18")
    with pytest.raises(WeightsError, match=rf"conv1.weight 64x3x7x7, here 64x{channels}x7x7\n.*adapt_input=True"):
        backbone(weights=weights, in_channels=channels)
    trunk = backbone(weights=weights, in_channels=channels, adapt_input=True).eval()
    assert f"conv1 adapted from 3 input channels to {channels}" in str(trunk.report)
    given, adapted = tensors["conv1.weight"], trunk.conv1.weight.detach()
    for channel in range(channels):
        expected = given.sum(1) if channels == 1 else given[:, channel % 3] * 3 / channels
        assert torch.allclose(adapted[:, channel], expected, atol=1e-6)


def test_frozen_norms_take_the_statistics(tensors):
    trunk = backbone(weights=Weights(tensors, "resnet18"), norm="frozen", frozen=2).train()
    assert torch.equal(trunk.bn1.running_var, tensors["bn1.running_var"]) and trunk.frozen == 2


def test_damaged_and_foreign_files(tensors, tmp_path):
    torch.save(tensors, tmp_path / "cut.pth")
    save_file(tensors, tmp_path / "cut.safetensors")
    for name in ("cut.pth", "cut.safetensors"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(WeightsError, match=name):
            read_weights(path)
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": {"epoch": 3}}, tmp_path / "none.pth")
    (tmp_path / "w.h5").touch()
    (tmp_path / "folder.pth").mkdir()
    for name, told in {
        "empty.pth": "empty.pth: not a whole file",
        "list.pth": "no tensors by name in it .found: list",
        "none.pth": "no tensors by name in it .found: model: epoch",
        "w.h5": "not a whole file of torch.save, nor of safetensors: it is empty",
        "absent.pth": "no such file",
        "folder.pth": "a folder",
    }.items():
        with pytest.raises(WeightsError, match=told):
            read_weights(str(tmp_path / name))


def test_headers_that_cannot_be_read_are_told_together(tensors, tmp_path):
    header = {"arch": "resnet18", "size": "big", "mean": "0.4;0.5", "stride_in_1x1": "maybe", "classes": "cat"}
    save_file(tensors, tmp_path / "w.safetensors", metadata=header | {"interpolation": "area"})
    with pytest.raises(WeightsError) as told:
        read_weights(tmp_path / "w.safetensors")
    assert all(part in str(told.value) for part in ("size='big'", "mean=", "stride_in_1x1=", "classes=", "'area'"))
    for key, value, expected in (
        ("arch", "resnet20", "'resnet20' is none of"),
        ("bn_eps", "0.001", "bn_eps=0.001"),
        ("classes", '["a"]', "1 class names for a classifier of 10"),
    ):
        save_file(tensors, tmp_path / "w.safetensors", metadata={key: value})
        with pytest.raises(WeightsError, match=expected):
            read_weights(tmp_path / "w.safetensors")


def test_a_contradicted_file_is_an_error(tensors, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors, arch="resnet18", stride_in="3x3", classes=None, preprocessing=Preprocessing())
    with pytest.raises(
        WeightsError,
        match=r"backbone=resnet18 by the file, backbone=resnet34 asked for; give weights of resnet34, or leave",
    ):
        backbone("resnet34", path)
    with pytest.raises(WeightsError, match=r"stride_in=3x3 by the file, stride_in=1x1 asked for"):
        backbone(weights=path, stride_in="1x1")


@pytest.mark.cold
def test_listing_needs_no_torch():
    code = (
        "import sys, trunkline.backbones as b; b.ARCHITECTURES, b.WeightsError, b.Preprocessing; "
        "import trunkline.backbones.metadata; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
