"""Trunks for pictures on clips: frame by frame, and with the temporal shift, against plain statements of it."""

from copy import deepcopy

import pytest
import torch
from narrow import narrow
from timm.models import resnet as timm_resnet
from torch import nn
from torch.nn import functional as F

from trunkline.backbones import BasicBlock, Bottleneck, backbone
from trunkline.backbones.contract import Backbone, Sizes, remarks_of, sizes_of, within
from trunkline.backbones.pyramid import Pyramid
from trunkline.backbones.table import WRAPPERS, wrappers
from trunkline.backbones.video.frames import Frames, ShiftedFrames, shifted
from trunkline.ground.errors import WeightsError
from trunkline.ground.names import load_named

TIMM = "timm:test_resnet"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(trunk: nn.Module) -> nn.Module:
    """Norms of which none is zero, so that every branch counts."""
    for key, value in trunk.state_dict().items():
        if value.dim() == 1:
            value.uniform_(*((0.5, 1.0) if key.endswith(("weight", "var")) else (-0.1, 0.1)))
    return trunk.eval()


def by_hand(x: torch.Tensor, frames: int) -> torch.Tensor:
    """The shift of Lin et al. 2019 by reshaping and concatenating: eighths from the next frame and the one before."""
    clips = x.reshape(-1, frames, *x.shape[1:])
    fold = x.shape[1] // 8
    nothing = torch.zeros_like(clips[:, :1])
    following, before = torch.cat([clips[:, 1:], nothing], 1), torch.cat([nothing, clips[:, :-1]], 1)
    parts = (following[:, :, :fold], before[:, :, fold : 2 * fold], clips[:, :, 2 * fold :])
    return torch.cat(parts, 2).reshape(x.shape)


def test_they_are_known_by_name():
    assert {name: load_named(path) for name, path in WRAPPERS.items()} == {"frames": Frames, "tsm": ShiftedFrames}
    assert WRAPPERS.items() <= wrappers().items()


@pytest.mark.parametrize("name", ["narrow", TIMM, "timm:test_convnext"])
def test_each_frame_has_the_2d_trunks_maps(name):
    body = lively(backbone(name))
    trunk, clips = Frames(body), torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        found = trunk(clips)
        for t in range(3):
            for m, x in body(clips[:, :, t]).items():
                assert torch.allclose(found[m][:, :, t], x, rtol=1e-4, atol=1e-5 * float(x.abs().max())), (m, t)
    assert isinstance(trunk, Backbone) and trunk.time_strides == dict.fromkeys(body.channels, 1)
    assert (trunk.arch, trunk.stages, sizes_of(trunk)) == (body.arch, 5, sizes_of(body))
    assert within(trunk) is body and within(Frames(Pyramid(narrow()))).arch == "narrow"


def test_published_tensors_are_the_2d_trunks():
    for wrapper in (Frames, ShiftedFrames):
        body = narrow()
        assert [n.removeprefix("body.") for n in wrapper(body).state_dict()] == [*body.state_dict()]


def test_the_shift_is_the_published_one():
    for channels in (8, 20, 64):
        x = torch.randn(6, channels, 5, 4)
        for frames in (1, 2, 3, 6):
            assert torch.equal(shifted(x, frames), by_hand(x, frames))


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, timm_resnet.BasicBlock, timm_resnet.Bottleneck])
def test_a_block_is_its_convolutions_by_hand_behind_the_shift(kind):
    """In fp64: only the branch is shifted, not the shortcut."""
    name = {BasicBlock: "resnet18", Bottleneck: "resnet50", timm_resnet.BasicBlock: "timm:resnet18"}.get(
        kind, "timm:resnet26"
    )
    trunk = ShiftedFrames(lively(backbone(name).double()))
    block = next(m for m in trunk.modules() if type(m) is kind and m.downsample is None)
    x = torch.randn(6, block.conv1.in_channels, 6, 6, dtype=torch.float64)
    trunk.shift.frames = 3

    def normed(conv, norm, y):
        y = F.conv2d(y, conv.weight, None, conv.stride, conv.padding)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    out, last = F.relu(normed(block.conv1, block.bn1, by_hand(x, 3))), "3" if hasattr(block, "conv3") else "2"
    if last == "3":
        out = F.relu(normed(block.conv2, block.bn2, out))
    out = F.relu(normed(getattr(block, f"conv{last}"), getattr(block, f"bn{last}"), out) + x)
    assert torch.allclose(block(x), out, atol=1e-12)


def test_every_block_is_shifted_of_deep_networks_every_second():
    for name, blocks, chosen in (("resnet18", 8, 8), ("resnet50", 16, 16), ("resnet101", 33, 18), (TIMM, 4, 4)):
        with torch.device("meta"):
            trunk = ShiftedFrames(backbone(name))
        hooked = [n for n, m in trunk.named_modules() if m._forward_pre_hooks]
        every = [
            n for n, m in trunk.named_modules() if n.endswith(".conv1") and "net.conv1" not in n and n != "body.conv1"
        ]
        assert (len(every), len(hooked)) == (blocks, chosen)
        if name == "resnet101":
            assert hooked[:4] == [f"body.layer{n}.{i}.conv1" for n, i in ((1, 0), (1, 2), (2, 0), (2, 2))]
            assert "every second block (18)" in remarks_of(trunk)[0]
        else:
            assert hooked == every


@pytest.mark.parametrize("name", ["narrow", TIMM])
def test_frames_may_change_in_number_and_copies_stand_alone(name):
    body = lively(backbone(name))
    plain, trunk = Frames(deepcopy(body)), ShiftedFrames(body)
    twin = deepcopy(trunk)
    clips = torch.randn(2, 3, 4, 64, 64)
    with torch.inference_mode():
        whole = trunk(clips)["c5"]
        assert twin.shift is not trunk.shift and twin.shift.frames == 1
        assert torch.equal(twin(clips)["c5"], whole)
        short = twin(clips[:, :, :2])["c5"]
        assert torch.equal(trunk(clips)["c5"], whole) and not torch.allclose(short, whole[:, :, :2])
        one = trunk(clips[:1])["c5"]  # samples know nothing of each other
        assert torch.allclose(one, whole[:1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(plain(clips)["c5"], whole)


@pytest.mark.parametrize("wrapper", [Frames, ShiftedFrames])
def test_pictures_go_through_as_through_the_trunk_between_clips(wrapper):
    body = lively(narrow())
    trunk, plain = wrapper(body), lively(narrow())
    plain.load_state_dict(body.state_dict())
    clips, pictures = torch.randn(2, 3, 4, 64, 64), torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        before, seen, after = trunk(clips), trunk(pictures), trunk(clips)
        wanted = plain(pictures)
    assert seen.keys() == wanted.keys() and all(torch.equal(seen[name], x) for name, x in wanted.items())
    assert all(torch.equal(before[name], x) for name, x in after.items())


def test_order_is_seen_with_the_shift_alone():
    clips = torch.randn(1, 3, 4, 64, 64)
    with torch.inference_mode():
        for wrapper, same in ((Frames, True), (ShiftedFrames, False)):
            trunk = wrapper(lively(narrow()))
            there, back = (trunk(c)["c5"].mean(2) for c in (clips, clips.flip(2)))
            assert torch.allclose(there, back, rtol=1e-4, atol=1e-6) is same


def test_checkpointing_recomputes_with_the_frames_of_its_own_forward():
    """Two forwards of different lengths, then their backwards: each block must see again what it saw."""
    found = {}
    clips = torch.randn(1, 3, 6, 48, 48)
    for checkpointing in (False, True):
        torch.manual_seed(1)
        trunk = ShiftedFrames(lively(narrow(checkpointing=checkpointing))).train()
        losses = [trunk(c)["c5"].square().sum() for c in (clips, clips[:, :, :2], clips[:, :, 2:5])]
        sum(losses).backward()
        found[checkpointing] = {n: p.grad for n, p in trunk.named_parameters()} | dict(trunk.named_buffers())
        assert trunk.shift.frames == 3
    assert all(torch.equal(found[True][n], x) for n, x in found[False].items())


@pytest.mark.slow
def test_it_compiles_in_one_graph():
    trunk, clips = ShiftedFrames(lively(narrow())), torch.randn(1, 3, 3, 32, 32)
    expected = trunk(clips)["c5"], trunk(clips[:, :, :2])["c5"]
    trunk.compile(backend="eager", fullgraph=True)
    assert torch.equal(trunk(clips)["c5"], expected[0]) and torch.equal(trunk(clips[:, :, :2])["c5"], expected[1])


def test_freezing_reaches_the_trunk():
    trunk = ShiftedFrames(narrow()).freeze(3).train()
    learns = {n.split(".")[1] for n, p in trunk.named_parameters() if p.requires_grad}
    assert learns == {"layer3", "layer4"} and not trunk.body.bn1.training and trunk.body.layer3.training


def test_other_trunks_are_refused_by_name():
    with pytest.raises(
        WeightsError, match=r"tsm: shifts .* BasicBlock and Bottleneck, and timm:test_convnext has none"
    ):
        ShiftedFrames(backbone("timm:test_convnext"))
    for wrapper in (Frames, ShiftedFrames):
        with pytest.raises(WeightsError, match=r"network\.wrapper: r3d_18 takes clips itself"), torch.device("meta"):
            wrapper(backbone("r3d_18"))
    with pytest.raises(
        WeightsError,
        match=r"narrow over frames: takes clips \(N, C, T, H, W\) or pictures \(N, C, H, W\), and this is \(3, 32, 32\)",
    ):
        Frames(narrow())(torch.zeros(3, 32, 32))
    said = "pyramid=pool: is for pictures, and r3d_18 is a trunk for clips"
    with torch.device("meta"), pytest.raises(WeightsError, match=said):
        Pyramid(backbone("r3d_18"))
    assert sizes_of(Frames(narrow())) == Sizes()
