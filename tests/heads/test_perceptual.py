"""Perceptual losses against the networks of others, and what their weights may be."""

import os
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional as F

from trunkline.backbones import backbone
from trunkline.backbones.weights import save_weights
from trunkline.ground.errors import WeightsError
from trunkline.heads.super_resolution.adversarial import Perceptual
from trunkline.heads.super_resolution.perceptual import VGG, perceptual_loss, vgg19_source

MEAN, STD = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
AT = {
    "conv1_2": 2,
    "relu1_2": 3,
    "conv2_2": 7,
    "conv3_4": 16,
    "relu3_4": 17,
    "conv4_4": 25,
    "conv5_4": 34,
    "relu5_4": 35,
}
"""torchvision's vgg19().features by position; relu follows its convolution."""


@pytest.fixture(scope="module")
def vgg():
    """torchvision's own layers with random weights; 80 MB, without the classifier's 494."""
    torch.manual_seed(0)
    layers, before = [], 3
    for width in torchvision.models.vgg.cfgs["E"]:
        if width == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
            before = width
    features = torch.nn.Sequential(*layers)
    for p in features.parameters():
        torch.nn.init.normal_(p, std=0.05 if p.ndim > 1 else 0.01)
    with torch.device("meta"):
        theirs = torchvision.models.vgg19(weights=None).features
    assert [str(m) for m in theirs] == [str(m) for m in features]
    return features.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(vgg, tmp_path_factory) -> str:
    """A file as torchvision's, the classifier cut small."""
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    state = {f"features.{n}": t for n, t in vgg.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 3), "classifier.0.bias": torch.zeros(2)}, path)
    return str(path)


def pictures(size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, size, size, generator=g) * 1.2 - 0.1, torch.rand(2, 3, size, size, generator=g)


def theirs(vgg, x: torch.Tensor, layer: str) -> torch.Tensor:
    x = (x - MEAN) / STD
    for number, part in enumerate(vgg):
        x = part(x.clone())  # their ReLU works in place
        if number == AT[layer]:
            return x
    raise AssertionError(layer)


def test_each_map_is_torchvisions(vgg, file):
    own = VGG(dict.fromkeys(AT, 1.0))
    own.load_state_dict(
        {f"features.{n}": t for n, t in vgg.state_dict().items() if int(n.split(".")[0]) < len(own.features)}
    )
    made, _ = pictures()
    maps = own((made - MEAN) / STD)
    assert maps.keys() == AT.keys()
    for layer, found in maps.items():
        assert torch.equal(found, theirs(vgg, made, layer)), layer
    assert (maps["conv5_4"] < 0).any() and not (maps["relu5_4"] < 0).any()


@pytest.mark.parametrize(
    ("criterion", "distance", "last"), [("l1", F.l1_loss, "conv4_4"), ("mse", F.mse_loss, "conv2_2")]
)
def test_the_loss_is_the_weighted_sum_of_the_maps_distances(vgg, file, criterion, distance, last):
    """With its gradient, which flows to what was made and nowhere else."""
    layers = {"conv1_2": 0.1, "relu1_2": 0.5, last: 1.0}
    loss = perceptual_loss(Perceptual(file, layers, criterion, weight=0.3, rescale=1 / 12.75))
    made, truth = (p.double().requires_grad_() for p in pictures(32))
    found = loss(made, truth)
    found.backward()
    again, still = made.detach().clone().requires_grad_(), truth.detach()
    whole = deepcopy(vgg[: AT[last] + 1]).double()
    wanted = 0.3 * sum(
        w * distance(theirs(whole, again, n) / 12.75, theirs(whole, still, n) / 12.75) for n, w in layers.items()
    )
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert torch.allclose(made.grad, again.grad, rtol=1e-9, atol=1e-12) and truth.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.network.parameters())


def test_it_ends_with_its_deepest_map(file):
    assert len(perceptual_loss(Perceptual(file, {"conv2_2": 1.0})).network.features) == AT["conv2_2"] + 1


def narrow_file(root: Path, change=lambda t: t) -> str:
    torch.manual_seed(2)
    trunk = backbone("resnet18")
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    save_weights(
        root / "resnet18.safetensors", change(trunk.state_dict()), arch="resnet18", stride_in="3x3", classes=None,
        preprocessing=trunk.preprocessing,
    )  # fmt: skip
    return str(root / "resnet18.safetensors")


def test_over_a_trunks_maps_it_is_torchvisions_in_eval_mode(tmp_path):
    file = narrow_file(tmp_path)
    loss = perceptual_loss(Perceptual(file, {"c3": 1.0, "c4": 0.25}, "mse", weight=2.0))
    network = torchvision.models.resnet18(weights=None).eval()
    network.load_state_dict({**network.state_dict(), **torch_state(file)})
    made, truth = pictures(64)

    def maps(x):
        x = network.maxpool(network.relu(network.bn1(network.conv1((x - MEAN) / STD))))
        c3 = network.layer2(network.layer1(x))
        return c3, network.layer3(c3)

    (a3, a4), (b3, b4) = maps(made), maps(truth)
    wanted = 2.0 * (F.mse_loss(a3, b3) + 0.25 * F.mse_loss(a4, b4))
    before = {n: t.clone() for n, t in loss.network.state_dict().items()}
    found = loss(made, truth)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert all(torch.equal(before[n], t) for n, t in loss.network.state_dict().items()) and not loss.network.training
    assert not list(loss.network.layer4.children()), "what lies deeper than its maps is not computed"


def torch_state(file: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_under_autocast_and_in_fp64_the_distance_is_precise(file):
    loss = perceptual_loss(Perceptual(file, {"conv2_2": 1.0}))
    made, truth = pictures()
    whole = loss(made, truth)
    with torch.autocast("cpu", torch.bfloat16):
        cheap = loss(made, truth)
    assert whole.dtype == cheap.dtype == torch.float32 and float(cheap) == pytest.approx(float(whole), rel=2e-2)
    wide = loss(made.double(), truth.double())
    assert wide.dtype == torch.float64 and float(wide) == pytest.approx(float(whole), rel=1e-5)


def test_it_is_no_part_of_a_model(file):
    """Neither a module nor a tensor is found on it."""
    loss = perceptual_loss(Perceptual(file, {"conv1_2": 1.0}))
    holder = torch.nn.Module()
    holder.loss = loss
    assert not isinstance(loss, torch.nn.Module) and not holder.state_dict() and not list(holder.modules())[1:]


def test_published_names_are_torchvisions():
    weights = torchvision.models.VGG19_Weights
    for name in ("vgg19", "vgg19.IMAGENET1K_V1", "VGG19_Weights.DEFAULT", "VGG19_Weights.IMAGENET1K_V1"):
        source = vgg19_source(name)
        assert source.url == weights.DEFAULT.url and source.file == "vgg19-dcbb9e9d.pth" and source.digest == "dcbb9e9d"
    with pytest.raises(WeightsError, match=r"vgg19.V7: torchvision has IMAGENET1K_V1"):
        vgg19_source("vgg19.V7")


def test_a_name_is_looked_for_in_the_cache(monkeypatch, file):
    asked = []
    monkeypatch.setattr(
        "trunkline.heads.super_resolution.perceptual.fetch", lambda source: asked.append(source.name) or Path(file)
    )
    perceptual_loss(Perceptual("vgg19", {"conv1_2": 1.0}))
    assert asked == ["vgg19"]


@pytest.mark.parametrize(("settings", "said"), [
    (Perceptual(), r"perceptual.weights is not given, and nothing is downloaded unasked: give a file.*vgg19 to download"),
    (Perceptual("gone.pth"), r"perceptual.weights=gone.pth: no such file"),
    (Perceptual("vgg16"), r"perceptual.weights=vgg16: no such file, and no name"),
    (Perceptual("x.pth", {"conv5_5": 1.0}), r"perceptual.layers.conv5_5: VGG-19 has no such map"),
    (Perceptual("x.pth", {"conv5_4": 1.0, "c4": 1.0}), r"perceptual.layers=conv5_4,c4: maps of VGG-19 .* do not go together"),
    (Perceptual("gone.pth", {"c4": 1.0}), r"gone.pth: no such file"),
])  # fmt: skip
def test_what_is_missing_is_said(settings, said):
    with pytest.raises(WeightsError, match=said):
        perceptual_loss(settings)


def test_files_of_other_networks_are_refused(tmp_path, file):
    trunk = narrow_file(tmp_path)
    with pytest.raises(
        WeightsError, match=r"is no VGG-19 of torchvision: features.0.weight 64x3x3x3 and 3 more of its 4"
    ):
        perceptual_loss(Perceptual(trunk, {"conv1_2": 1.0}))
    with pytest.raises(WeightsError, match=r"perceptual.layers.c7: the trunk of .* \(resnet18\) has no such map"):
        perceptual_loss(Perceptual(trunk, {"c7": 1.0}))
    state = {n: t.contiguous() for n, t in VGG({"conv1_2": 1.0}).state_dict().items()}
    state["features.0.bias"][0] = float("nan")
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"features.0.bias holds values that are not finite"):
        perceptual_loss(Perceptual(str(tmp_path / "bad.safetensors"), {"conv1_2": 1.0}))


def test_the_shared_resnet_50_tells_pictures_apart():
    root = os.environ.get("TRUNKLINE_TEST_DATA")
    file = Path(root or "") / "weights/resnet50_v1.safetensors"
    if not root or not file.is_file():
        pytest.skip("TRUNKLINE_TEST_DATA is not set: no weights here")
    loss = perceptual_loss(Perceptual(str(file), {"c3": 1.0, "c4": 1.0}, "mse"))
    made, truth = pictures(64)
    assert float(loss(truth, truth)) == 0.0
    assert 0 < float(loss(truth.lerp(made, 0.1), truth)) < float(loss(made, truth))
