"""Inflated trunks: a still clip gives the 2-D network's maps in every frame; what is loaded is counted and said."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trunkline.backbones import ARCHITECTURES, backbone, save_weights
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.table import nearest_arch
from trunkline.backbones.video.inflated import inflate_weights
from trunkline.backbones.weights import Weights
from trunkline.ground.errors import WeightsError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@pytest.fixture
def shallow(monkeypatch):
    """One block a stage, where nothing hangs on their number."""
    monkeypatch.setitem(ARCHITECTURES["resnet18"], "layers", (1, 1, 1, 1))


def flat_of(name: str, stride_in: str | None = None) -> nn.Module:
    """A 2-D trunk whose norms and biases do something."""
    torch.manual_seed(0)
    trunk = backbone(name, stride_in=stride_in, zero_init=False).eval()
    for key, value in trunk.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            value.uniform_(-0.1, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1:
            value.uniform_(0.3, 0.7)
    return trunk


def weights_of(trunk: nn.Module, **known) -> Weights:
    return Weights(trunk.state_dict(), trunk.arch, trunk.stride_in, **known)


def still(picture: torch.Tensor, frames: int) -> torch.Tensor:
    return picture[:, :, None].expand(-1, -1, frames, -1, -1)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference in any frame, relative to the map's scale."""
    return float((ours - theirs[:, :, None]).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(
    ("name", "stride_in", "inflate"),
    [("resnet18", "3x3", "centre"), ("resnet18", "3x3", "mean"), ("resnet50", "1x1", "mean")],
)
def test_a_still_clip_gives_the_2d_maps_in_every_frame(name, stride_in, inflate, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES[name], "layers", (1, 2, 1, 2))
    flat = flat_of(name, stride_in)
    trunk = backbone(f"i3d_{name}", weights_of(flat), inflate=inflate).eval()
    assert (trunk.stride_in, trunk.settings) == (stride_in, {"inflate": inflate})
    assert (trunk.channels, trunk.strides) == (flat.channels, flat.strides)
    picture = torch.randn(1, 3, 48, 32)
    with torch.inference_mode():
        expected, found = flat(picture), trunk(still(picture, 5))
    assert {m: apart(found[m], expected[m]) < 1e-5 for m in found} == dict.fromkeys(expected, True)
    assert [found[m].shape[2] for m in found] == [5, 5, 2, 2, 2]  # the pool over time is behind layer1


@pytest.mark.parametrize("inflate", ["centre", pytest.param("mean", marks=pytest.mark.slow)])
def test_a_still_clip_of_a_real_picture_and_real_weights(shared_data, inflate):
    """The shared ResNet-50, whose bottlenecks stride in the 1x1, in half precision."""
    from trunkline.tasks.images.decode import read_image

    file = shared_data / "weights/resnet50_v1.safetensors"
    flat, trunk = backbone(weights=file).eval(), backbone("i3d_resnet50", file, inflate=inflate).eval()
    photo = read_image(sorted((shared_data / "hymenoptera/val/ants").glob("*.jpg"))[0])[None].float() / 255
    p = trunk.preprocessing
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (p.mean, p.std))
    picture = (F.interpolate(photo, (112, 112), mode="bilinear") - mean) / std
    with torch.inference_mode():
        expected, found = flat(picture), trunk(still(picture, 4))
    assert {m: apart(found[m], expected[m]) < 1e-5 for m in found} == dict.fromkeys(expected, True)
    assert trunk.stride_in == "1x1" and len(trunk.classes) == 1000


def test_which_convolutions_see_several_frames():
    """PySlowFast's I3D: 5; 3; 3,1; 3,1; 1,3, in the first convolution of a block, whose others see one frame."""
    pattern = {"layer1": [3], "layer2": [3, 1], "layer3": [3, 1], "layer4": [1, 3]}
    for depth, counts in BLOCKS.items():
        with torch.device("meta"):
            trunk = backbone(f"i3d_resnet{depth}")
        found = {n: m.kernel_size[0] for n, m in trunk.named_modules() if isinstance(m, nn.Conv3d)}
        expected = {"conv1": 5} | {
            f"{layer}.{i}.conv1": times[i % len(times)]
            for (layer, times), count in zip(pattern.items(), counts, strict=True)
            for i in range(count)
        }
        assert {n: k for n, k in found.items() if k > 1 or n in expected} == expected
        assert trunk.time_strides == {"c1": 1, "c2": 1, "c3": 2, "c4": 2, "c5": 2}


@pytest.mark.parametrize("inflate", ["centre", "mean"])
def test_a_moving_clip_is_a_sum_over_frames_by_hand(shallow, inflate):
    """The stem alone, in fp64: five 2-D convolutions of five frames, with zeros or the border frames beyond the ends."""
    flat = flat_of("resnet18")
    trunk = backbone("i3d_resnet18", weights_of(flat), inflate=inflate)
    torch.manual_seed(3)
    with torch.no_grad():
        trunk.conv1.weight += 0.1 * torch.randn_like(trunk.conv1.weight)
    clip, kernel = torch.randn(1, 3, 4, 20, 20, dtype=torch.float64), trunk.conv1.weight.double()
    found = trunk.double().conv1(clip)
    for t in range(4):
        parts = []
        for k in range(5):
            at = t + k - 2
            if inflate == "mean":
                at = min(max(at, 0), 3)
            if 0 <= at < 4:
                parts.append(F.conv2d(clip[:, :, at], kernel[:, :, k], stride=2, padding=3))
        assert torch.allclose(found[:, :, t], sum(parts), atol=1e-12)


def test_what_was_inflated_is_counted_and_said():
    with torch.device("meta"):
        flat, trunk = backbone("resnet50"), backbone("i3d_resnet50")
    found, said = inflate_weights(flat.state_dict(), trunk.state_dict(), "mean")
    assert said.startswith("53 2-D convolutions inflated, 10 of them over several frames: repeated and divided")
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in trunk.state_dict().items()}
    trunk = backbone("i3d_resnet18", weights_of(backbone("resnet18")))
    assert "20 2-D convolutions inflated, 6 of them over several frames: in the middle" in str(trunk.report)
    assert "120 of 120 tensors" in str(trunk.report)


def test_files_of_2d_weights_by_name_by_header_and_by_tensors_alone(shallow, tmp_path):
    flat = flat_of("resnet18")
    own = {"arch": "resnet18", "stride_in": "3x3", "classes": None, "preprocessing": Preprocessing(size=96, resize=128)}
    save_weights(tmp_path / "ours.safetensors", flat.state_dict(), **own)
    torch.save(flat.state_dict(), tmp_path / "bare.pth")
    for file, size in (("ours.safetensors", 96), ("bare.pth", 224)):
        trunk = backbone("i3d_resnet18", tmp_path / file)
        assert (trunk.arch, trunk.preprocessing.size) == ("i3d_resnet18", size)
        assert torch.equal(trunk.conv1.weight[:, :, 2], flat.conv1.weight)
        assert trunk.conv1.weight.count_nonzero() == flat.conv1.weight.count_nonzero()
    with pytest.raises(WeightsError, match="backbone=resnet18 by the file, backbone=i3d_resnet34 asked for"):
        backbone("i3d_resnet34", tmp_path / "ours.safetensors")
    assert backbone(weights=tmp_path / "ours.safetensors").arch == "resnet18"


def test_its_own_files_travel_with_their_padding(shallow, tmp_path):
    trunk = backbone("i3d_resnet18", weights_of(flat_of("resnet18")), inflate="mean").eval()
    save = partial(save_weights, arch="i3d_resnet18", stride_in="3x3", classes=None, preprocessing=Preprocessing())
    save(tmp_path / "own.safetensors", trunk.state_dict(), info={"trunkline_inflate": "mean"})
    again = backbone(weights=tmp_path / "own.safetensors").eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(clip)["c5"], trunk(clip)["c5"])
    assert again.settings == {"inflate": "mean"} and "inflated" not in str(again.report)
    with pytest.raises(WeightsError, match="inflate=mean by the file, inflate=centre asked for"):
        backbone(weights=tmp_path / "own.safetensors", inflate="centre")
    save(tmp_path / "wrong.safetensors", trunk.state_dict(), info={"trunkline_inflate": "twice"})
    with pytest.raises(WeightsError, match="trunkline_inflate=twice in its header: expected one of centre, mean"):
        backbone(weights=tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("depth", BLOCKS)
def test_its_bare_tensors_are_known(depth):
    with torch.device("meta"):
        trunk = backbone(f"i3d_resnet{depth}")
    assert nearest_arch(trunk.state_dict()) == f"i3d_resnet{depth}"


def test_its_bare_tensors_are_read_under_a_prefix(shallow, tmp_path):
    trunk = backbone("i3d_resnet18")
    torch.save({"state_dict": {f"module.{n}": t for n, t in trunk.state_dict().items()}}, tmp_path / "bare.pth")
    again = backbone(weights=tmp_path / "bare.pth")
    assert again.arch == "i3d_resnet18" and again.settings == {"inflate": "centre"}
    assert all(torch.equal(t, trunk.state_dict()[n]) for n, t in again.state_dict().items())


def test_what_is_not_possible_is_said():
    with pytest.raises(
        WeightsError, match=r"inflate=mean: is for i3d_resnet18, .* and the trunk is resnet50; leave it out"
    ):
        backbone("resnet50", inflate="mean")
    with pytest.raises(WeightsError, match="inflate=twice: expected one of centre, mean"):
        backbone("i3d_resnet18", inflate="twice")
    with pytest.raises(WeightsError, match="takes clips of at least 2 frames, and this one has 1: give it 2"):
        backbone("i3d_resnet18")(torch.zeros(1, 3, 1, 32, 32))
