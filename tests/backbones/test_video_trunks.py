"""What holds for every trunk for clips: its contract, norms, memory formats, random values, and what it refuses."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trunkline.backbones import backbone, read_weights, save_weights
from trunkline.backbones.contract import Backbone, Preprocessing, pooled_maps
from trunkline.backbones.norm import FrozenBatchNorm2d
from trunkline.backbones.settings import KINETICS, usual_preprocessing
from trunkline.backbones.table import ARCHITECTURES, CLIPS, frames_problem, is_known
from trunkline.backbones.video import c3d, residual3d, slowfast
from trunkline.ground.errors import WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.pipelines.models.assembly import make_trunk
from trunkline.pipelines.models.publishing import published
from trunkline.pipelines.recipe import Network

_STAGES = c3d._STAGES
KINDS = ("mc3_18", "r2plus1d_18", "c3d", "i3d_resnet18", "slowfast_r50")
"""One of each kind."""


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A block a stage, and fewer channels: what is held here holds for any number."""
    monkeypatch.setattr(c3d, "_STAGES", tuple((names, width // 8) for names, width in _STAGES))
    monkeypatch.setattr(slowfast, "_LAYERS", (1, 1, 1, 1))
    monkeypatch.setattr(residual3d, "_WIDTHS", (64, 64, 64, 64, 64))
    monkeypatch.setitem(ARCHITECTURES["resnet18"], "layers", (1, 1, 1, 1))
    torch.manual_seed(0)


def maps_of(trunk: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    return torch.cat([x.flatten() for x in trunk(clips).values()])


@pytest.mark.parametrize("name", KINDS)
def test_maps_are_as_stated_for_any_length(name):
    trunk = backbone(name).eval()
    assert isinstance(trunk, Backbone) and trunk.arch == name and is_known(name) and trunk.stages == 5
    with torch.inference_mode():
        for frames in (8, 16):
            maps = trunk(torch.randn(1, 3, frames, 48, 32))
            assert {m: tuple(x.shape[1:]) for m, x in maps.items()} == {
                m: (c, frames // trunk.time_strides[m], -(-48 // trunk.strides[m]), -(-32 // trunk.strides[m]))
                for m, c in trunk.channels.items()
            }
    assert pooled_maps(trunk) == (("c5", "f5") if name == "slowfast_r50" else ("c5",))


@pytest.mark.parametrize("name", KINDS)
def test_checkpointing_changes_no_bit(name):
    """Neither maps, nor gradients, nor running statistics."""
    clips, found = torch.randn(2, 3, 8, 32, 32), []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        trunk = backbone(name, checkpointing=checkpointing, zero_init=False).freeze(1).train()
        maps = maps_of(trunk, clips)
        maps.square().mean().backward()
        gradients = [p.grad for p in trunk.parameters() if p.requires_grad]
        found.append([maps, *gradients, *trunk.buffers()])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_random_values_are_the_seeds(name):
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(backbone(name).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(drawn[0].values(), drawn[1].values(), strict=True))
    first = next(iter(drawn[0]))
    assert not torch.equal(drawn[0][first], drawn[2][first])


@pytest.mark.parametrize("name", [n for n in KINDS if n != "c3d"])
def test_norms_follow_the_policy(name):
    """Frozen ones equal batch norm in eval mode to the last bit, from the same file; group norms have no statistics."""
    trunk = backbone(name, zero_init=False)
    for key, value in trunk.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    frozen = backbone(name, norm="frozen").train()
    frozen.load_state_dict(trunk.state_dict())
    clips = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(maps_of(frozen, clips), maps_of(trunk.eval(), clips))
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in frozen.modules())
    assert {type(m) for m in frozen.modules() if "Norm" in type(m).__name__} == {FrozenBatchNorm2d}
    grouped = backbone(name, norm="group")
    assert not [n for n in grouped.state_dict() if "running" in n] and grouped.norm == "group"
    assert grouped(clips)["c5"].isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_channels_last_changes_no_map(name):
    trunk, clips = backbone(name, zero_init=False).eval(), torch.randn(1, 3, 8, 32, 32)
    with torch.inference_mode():
        expected = maps_of(trunk, clips)
        found = maps_of(
            trunk.to(memory_format=torch.channels_last_3d), clips.contiguous(memory_format=torch.channels_last_3d)
        )
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_c3d_is_eight_convolutions():
    trunk = backbone("c3d").double().eval()
    clips = torch.randn(1, 3, 16, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        maps, x, t = trunk(clips), clips, trunk.state_dict()
        for at, names in enumerate(("conv1", "conv2", "conv3a conv3b", "conv4a conv4b", "conv5a conv5b"), start=1):
            for name in names.split():
                x = F.conv3d(x, t[f"{name}.weight"], t[f"{name}.bias"], padding=1).relu()
            assert torch.allclose(maps[f"c{at}"], x, atol=1e-12)
            x = F.max_pool3d(x, (1, 2, 2) if at == 1 else (2, 2, 2)) if at < 5 else x


def test_c3d_has_the_papers_channels(monkeypatch):
    monkeypatch.setattr(c3d, "_STAGES", _STAGES)
    with torch.device("meta"):
        trunk = backbone("c3d")
    assert trunk.channels == {"c1": 64, "c2": 128, "c3": 256, "c4": 512, "c5": 512}
    assert sum(p.numel() for p in trunk.parameters()) == 27_655_936  # the paper's network without fc6, fc7 and fc8


def test_a_file_of_c3d_is_read_without_the_layers_behind(tmp_path):
    tensors = backbone("c3d").state_dict()
    behind = {f"fc{n}.{kind}": torch.zeros(4, 4) if kind == "weight" else torch.zeros(4) for n in (6, 7, 8)
              for kind in ("weight", "bias")}  # fmt: skip
    torch.save(tensors | behind, tmp_path / "c3d.pth")
    trunk = backbone(weights=tmp_path / "c3d.pth")
    assert trunk.arch == "c3d" and trunk.preprocessing == KINETICS and "fc6" in str(trunk.report)
    assert all(torch.equal(t, tensors[n]) for n, t in trunk.state_dict().items())


def test_how_frames_become_input_travels(tmp_path):
    """Frames of torchvision's networks become 128 x 171 pixels; other files say nothing of a width."""
    known = {"arch": "mc3_18", "stride_in": "3x3", "classes": None}
    for preprocessing in (KINETICS, Preprocessing(size=96, resize=112)):
        save_weights(tmp_path / "a.safetensors", backbone("mc3_18").state_dict(), preprocessing=preprocessing, **known)
        assert read_weights(tmp_path / "a.safetensors").preprocessing == preprocessing
    assert KINETICS.at(56) == replace(KINETICS, size=56, resize=64, resize_width=85)
    assert Preprocessing(**asdict(KINETICS)) == KINETICS and usual_preprocessing("i3d_resnet50") == Preprocessing()
    assert usual_preprocessing("slowfast_r50").std == (0.225,) * 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "mc3_18", "in_channels": 1}, "mc3_18: in_channels=1: this trunk is for clips of RGB; leave it out"),
        ({"name": "mc3_18", "output_stride": 8}, "mc3_18: output_stride=8: this trunk is for clips"),
        ({"name": "mc3_18", "stride_in": "1x1"}, "mc3_18: stride_in=1x1: this trunk is for clips"),
        ({"name": "i3d_resnet18", "stride_in": "1x1"}, "stride_in=1x1: resnet18 has basic blocks"),
        ({"name": "c3d", "norm": "frozen"}, "norm=frozen: c3d has no norms; leave it out"),
        ({"name": "mc3_18", "norm": "layer"}, "norm=layer: expected one of batch, frozen, sync, group"),
        ({"name": "mc3_18", "frozen": 6}, "frozen=6: expected 0"),
        ({"name": "mc3_18", "blocks": 3}, "blocks=3: is for srresnet, .* and the trunk is mc3_18"),
        ({"name": "r3d_81"}, "no architecture 'r3d_81'; did you mean r3d_18"),
    ],
)
def test_what_is_not_possible_is_said(settings, said):
    with torch.device("meta"), pytest.raises(WeightsError, match=said):
        backbone(**settings)


def test_pictures_and_wrong_lengths_are_refused():
    with pytest.raises(
        WeightsError, match=r"mc3_18: takes clips \(N, 3, T, H, W\), and this batch is \(3, 3, 32, 32\)"
    ):
        backbone("mc3_18")(torch.zeros(3, 3, 32, 32))  # which torch would take for one clip of three frames
    with pytest.raises(WeightsError, match="c3d: takes clips of at least 8 frames, and this one has 7: give it 8"):
        backbone("c3d")(torch.zeros(1, 3, 7, 32, 32))
    assert frames_problem("slowfast_r50_4x16", 20).endswith("give it 16 or 24")
    assert frames_problem("r3d_18", 1) == frames_problem("resnet18", 1) == frames_problem(None, 5) == ""
    assert all(not frames_problem(name, 32) for name in CLIPS)


class _Head(nn.Module):
    """A linear layer whose tensors are published as torchvision's."""

    needs, trunk = ("c5",), ""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def published(self, tensors):
        return tensors


@pytest.mark.parametrize("wrapper", ["frames", "tsm"])
def test_a_recipes_wrapper_publishes_the_2d_trunk(wrapper):
    network = Network(backbone="narrow", wrapper=wrapper)
    trunk = make_trunk(network, None, None)
    model = Model(trunk, {"action": _Head()}, Preprocessing())
    own = published(model, model.state_dict(), "action")
    assert [*own] == [*backbone("narrow").state_dict(), "fc.weight", "fc.bias"]
    assert {"backbone.body.conv1.", "backbone.body.layer4."} < {
        *model.units()
    }  # parts that learn together or not at all
    batch = Batch("action", ["a"], torch.zeros(1, 3, 2, 32, 32, dtype=torch.uint8))
    assert model.maps(batch)["c5"].shape == (1, 64, 2, 1, 1)


def test_a_recipes_inflate_reaches_the_trunk():
    assert make_trunk(Network(backbone="i3d_resnet18", inflate="mean"), None, None).settings == {"inflate": "mean"}
    assert make_trunk(Network(backbone="i3d_resnet18"), None, None).settings == {"inflate": "centre"}
