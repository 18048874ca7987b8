"""SlowFast against PySlowFast's names, its figures, and a plain statement of its pathways in fp64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trunkline.backbones import backbone, read_weights, save_weights
from trunkline.backbones.contract import deepest, pooled_maps
from trunkline.backbones.video import slowfast
from trunkline.backbones.video.names import published_names
from trunkline.backbones.weights import load
from trunkline.ground.errors import WeightsError

NETWORKS = {"slowfast_r50": (4, 7, 34_566_488), "slowfast_r50_4x16": (8, 5, 34_480_216)}
"""Alpha, frames of a lateral connection, and parameters with 400 classes (PySlowFast's model zoo)."""
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def listing(fusion: int, layers=(3, 4, 6, 3)) -> dict[str, tuple[int, ...]]:
    """Every tensor of PySlowFast's SLOWFAST_8x8_R50 and 4x16, by name, as its `video_model_builder.py`, `stem_helper.py`,
    `resnet_helper.py` and `head_helper.py` make them: widths 64 and 8, lateral connections of twice the fast channels."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name, *shape):
        found[f"{name}.weight"] = shape

    def norm(name, width):
        found.update({f"{name}.{n}": () if n == "num_batches_tracked" else (width,) for n in NORM})

    for pathway, (width, time) in enumerate(((64, 1), (8, 5))):
        conv(f"s1.pathway{pathway}_stem.conv", width, 3, time, 7, 7)
        norm(f"s1.pathway{pathway}_stem.bn", width)
    times = {2: (1, 3), 3: (1, 3), 4: (3, 3), 5: (3, 3)}
    out = (64, 8)
    for stage in (2, 3, 4, 5):
        conv(f"s{stage - 1}_fuse.conv_f2s", 2 * out[1], out[1], fusion, 1, 1)
        norm(f"s{stage - 1}_fuse.bn", 2 * out[1])
        into, out = (out[0] + 2 * out[1], out[1]), tuple(4 * w * 2 ** (stage - 2) for w in (64, 8))
        for pathway in (0, 1):
            for block in range(layers[stage - 2]):
                name, inner = f"s{stage}.pathway{pathway}_res{block}", out[pathway] // 4
                first = into[pathway] if block == 0 else out[pathway]
                if block == 0:
                    conv(f"{name}.branch1", out[pathway], first, 1, 1, 1)
                    norm(f"{name}.branch1_bn", out[pathway])
                conv(f"{name}.branch2.a", inner, first, times[stage][pathway], 1, 1)
                norm(f"{name}.branch2.a_bn", inner)
                conv(f"{name}.branch2.b", inner, inner, 1, 3, 3)
                norm(f"{name}.branch2.b_bn", inner)
                conv(f"{name}.branch2.c", out[pathway], inner, 1, 1, 1)
                norm(f"{name}.branch2.c_bn", out[pathway])
    return found | {"head.projection.weight": (400, 2048 + 256), "head.projection.bias": (400,)}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_shapes_and_parameters_are_pyslowfasts(name):
    alpha, fusion, parameters = NETWORKS[name]
    with torch.device("meta"):
        trunk = backbone(name)
    own = {n: tuple(t.shape) for n, t in trunk.state_dict().items()}
    expected = listing(fusion)
    assert own == {n: shape for n, shape in expected.items() if not n.startswith("head.")}
    assert sum(p.numel() for p in trunk.parameters()) + (2048 + 256) * 400 + 400 == parameters
    assert pooled_maps(trunk) == ("c5", "f5") and deepest(trunk.channels) == "c5"
    assert [trunk.channels[m] for m in pooled_maps(trunk)] == [2048, 256]
    assert {(k[0], v) for k, v in trunk.time_strides.items()} == {("c", alpha), ("f", 1)}
    with pytest.raises(WeightsError, match=f"{name}: takes clips of a multiple of {alpha} frames, and this one has 33"):
        trunk(torch.zeros(1, 3, 33, 32, 32))


@pytest.fixture
def short(monkeypatch):
    """One block a stage: the same network, two hundred times quicker to test."""
    monkeypatch.setattr(slowfast, "_LAYERS", (1, 1, 1, 1))
    torch.manual_seed(0)


def lively(net: nn.Module) -> nn.Module:
    for key, value in net.state_dict().items():
        if value.dim() == 1:
            value.uniform_(*((0.5, 1.0) if key.endswith(("weight", "var")) else (-0.1, 0.1)))
    return net.eval()


def by_hand(t: dict[str, torch.Tensor], clips: torch.Tensor, alpha: int) -> dict[str, torch.Tensor]:
    """The network as a page of functions, by the names of its tensors."""

    def conv(x, name, stride=(1, 1, 1)):
        kernel = t[f"{name}.weight"]
        return F.conv3d(x, kernel, None, stride, [k // 2 for k in kernel.shape[2:]])

    def norm(x, name):
        return F.batch_norm(x, *(t[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")), eps=1e-5)

    frames = clips.shape[2]
    chosen = [int(i * (frames - 1) / max(1, frames // alpha - 1)) for i in range(frames // alpha)]
    ways = [clips[:, :, chosen], clips]
    maps = {}
    for p in (0, 1):
        ways[p] = norm(conv(ways[p], f"s1.pathway{p}_stem.conv", (1, 2, 2)), f"s1.pathway{p}_stem.bn").relu()
        maps["cf"[p] + "1"] = ways[p]
        ways[p] = F.max_pool3d(ways[p], (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage in (2, 3, 4, 5):
        lateral = norm(conv(ways[1], f"s{stage - 1}_fuse.conv_f2s", (alpha, 1, 1)), f"s{stage - 1}_fuse.bn").relu()
        ways[0] = torch.cat([ways[0], lateral], 1)
        for p in (0, 1):
            x, name, s = ways[p], f"s{stage}.pathway{p}_res0", 1 if stage == 2 else 2
            y = norm(conv(x, f"{name}.branch2.a"), f"{name}.branch2.a_bn").relu()
            y = norm(conv(y, f"{name}.branch2.b", (1, s, s)), f"{name}.branch2.b_bn").relu()
            y = norm(conv(y, f"{name}.branch2.c"), f"{name}.branch2.c_bn")
            ways[p] = maps[f"{'cf'[p]}{stage}"] = (
                y + norm(conv(x, f"{name}.branch1", (1, s, s)), f"{name}.branch1_bn")
            ).relu()
    return maps


@pytest.mark.parametrize(("name", "frames"), [("slowfast_r50", 8), ("slowfast_r50_4x16", 16)])
def test_the_maps_are_those_of_a_plain_statement(short, name, frames):
    trunk = lively(backbone(name)).double()
    clips = torch.randn(2, 3, frames, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        found, expected = trunk(clips), by_hand(trunk.state_dict(), clips, NETWORKS[name][0])
    assert [*found] == [*trunk.channels] and found.keys() == expected.keys()
    for m, x in expected.items():
        assert torch.allclose(found[m], x, rtol=1e-9, atol=1e-12), m
        assert x.shape[1:3] == (trunk.channels[m], frames // trunk.time_strides[m])
        assert x.shape[-1] == 32 // trunk.strides[m]


def test_a_pyth_of_pyslowfast_loads_with_its_classifier(short, tmp_path):
    """`model_state` beside the optimizer's and the configuration, as `slowfast/utils/checkpoint.py` saves it."""
    shapes = listing(7, (1, 1, 1, 1))
    state = {n: torch.zeros(s, dtype=torch.long) if "num_batches" in n else torch.rand(s) for n, s in shapes.items()}
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
    file = tmp_path / "SLOWFAST_8x8_R50.pyth"
    torch.save({"epoch": 195, "model_state": state, "optimizer_state": momentum, "cfg": "MODEL: …"}, file)
    weights = read_weights(file)
    assert weights.arch == "slowfast_r50" and weights.preprocessing.mean == (0.45,) * 3 and len(weights.classes) == 400
    trunk, classifier = backbone(weights=weights), nn.Linear(2304, 400)
    assert load(weights, trunk, classifier).loaded == len(state)
    assert torch.equal(classifier.weight, state["head.projection.weight"])
    assert "under model_state" in str(trunk.report) and "the classifier of 400 classes left out" in str(trunk.report)
    own = published_names(trunk.arch, trunk.state_dict() | {f"fc.{n}": t for n, t in classifier.state_dict().items()})
    assert {n: tuple(t.shape) for n, t in own.items()} == shapes
    save_weights(tmp_path / "ours.safetensors", own, arch=trunk.arch, stride_in="3x3", classes=weights.classes,
                 preprocessing=weights.preprocessing)  # fmt: skip
    again = read_weights(tmp_path / "ours.safetensors")
    assert again.tensors.keys() == weights.tensors.keys() and again.classes == weights.classes


def test_norms_begin_as_theirs_and_stages_freeze_both_pathways(short):
    trunk = backbone("slowfast_r50").freeze(2).train()
    ends = {n for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm3d) and m.weight.eq(0).all()}
    assert ends == {f"s{s}.pathway{p}_res0.branch2.c_bn" for s in (2, 3, 4, 5) for p in (0, 1)}
    learns = {n.split(".")[0] for n, p in trunk.named_parameters() if p.requires_grad}
    assert learns == {"s3", "s3_fuse", "s4", "s4_fuse", "s5"}
    still = {n.split(".")[0] for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm3d) and not m.training}
    assert still == {"s1", "s1_fuse", "s2", "s2_fuse"}
