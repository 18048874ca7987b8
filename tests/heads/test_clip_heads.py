import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import video

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.video.frames import Frames
from trunkline.backbones.weights import Weights
from trunkline.ground.errors import EngineError, WeightsError
from trunkline.heads.classification import ClassificationHead, ClassPrediction
from trunkline.heads.contract import Batch, Head
from trunkline.heads.model import Model
from trunkline.heads.video.clip import clip_head
from trunkline.heads.video.over_time import positions
from trunkline.heads.video.table import HEADS
from trunkline.tasks.fitting import copy_head

C, K, T = 6, 3, 5
SEE_ORDER = ["lstm", "transformer"]


def made(kind, channels=C, classes=K, seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"dropout": 0.0, **({"width": 8, "layers": 2} if kind in SEE_ORDER else {})} | settings
    return clip_head(kind, {"c5": channels}, classes, time_strides={"c5": 1}, reads=("c5",), **settings)


def given(n=4, channels=C, steps=T, seed=1, frames=None):
    torch.manual_seed(seed)
    features = {"c5": torch.randn(n, channels, steps, 2, 3)}
    targets = {"label": torch.arange(n) % K} | ({} if frames is None else {"frames": torch.tensor(frames)})
    return features, Batch("action", [f"clip{i}" for i in range(n)], targets=targets)


def probabilities(head, features, batch):
    return np.stack([p.probabilities for p in head.predict(features, batch)])


# Plain statements, in fp64, of one clip at a time: steps (T, C) to a vector.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_normalised(steps):
    return np.stack([row / np.sqrt((row**2).mean() + np.finfo(np.float64).eps) for row in steps])


def plain_mean(steps, tensors):
    return sum(steps) / len(steps)


def plain_lstm(steps, tensors):
    """The cell's equations of Hochreiter and Schmidhuber, with forget gates, a layer after the other."""
    x = plain_normalised(steps)
    for layer in range(2):
        wi, wh, bi, bh = (
            tensors[f"over_time.lstm.{n}_l{layer}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = np.zeros(wh.shape[1])
        outputs = []
        for step in x:
            i, f, g, o = np.split(wi @ step + bi + wh @ h + bh, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs)
    return x.mean(0)


def plain_norm(x, weight, bias):
    return np.stack([(r - r.mean()) / np.sqrt(r.var() + 1e-5) * weight + bias for r in x])


def plain_transformer(steps, tensors):
    def linear(name, x):
        return x @ tensors[f"over_time.{name}.weight"].T + tensors[f"over_time.{name}.bias"]

    def norm(name, x):
        return plain_norm(x, tensors[f"over_time.{name}.weight"], tensors[f"over_time.{name}.bias"])

    x = linear("embed", plain_normalised(steps))
    width = x.shape[1]
    for t in range(len(x)):
        for j in range(width):
            angle = t / 10000 ** (2 * (j // 2) / width)
            x[t, j] += math.cos(angle) if j % 2 else math.sin(angle)
    for block in ("blocks.0", "blocks.1"):
        parts = np.split(linear(f"{block}.qkv", norm(f"{block}.norm1", x)), 3, 1)
        mixed = np.zeros_like(x)
        for head in np.split(np.arange(width), 4):
            q, k, v = (part[:, head] for part in parts)
            for t in range(len(x)):
                weights = np.exp([q[t] @ key / math.sqrt(len(head)) for key in k[: t + 1]])
                mixed[t, head] = sum(w * value for w, value in zip(weights / weights.sum(), v[: t + 1], strict=True))
        x = x + linear(f"{block}.proj", mixed)
        inner = linear(f"{block}.fc1", norm(f"{block}.norm2", x))
        inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = x + linear(f"{block}.fc2", inner)
    return norm("norm", x).mean(0)


PLAIN = {"average": plain_mean, "pool3d": plain_mean, "lstm": plain_lstm, "transformer": plain_transformer}


@pytest.mark.parametrize("kind", HEADS)
def test_logits_losses_and_predictions_are_the_plain_statements(kind):
    head = made(kind, label_smoothing=0.1).double()
    frames = [5, 1, 3, 4]
    features, batch = given(frames=frames)
    maps = {"c5": features["c5"].double()}
    tensors = {name: t.numpy() for name, t in head.state_dict().items()}
    wanted = []
    for clip, real in zip(maps["c5"].numpy(), frames, strict=True):
        vector = PLAIN[kind](clip.mean((2, 3)).T[:real].copy(), tensors)
        wanted.append(tensors["fc.weight"] @ vector + tensors["fc.bias"])
    found = head(maps, batch.targets["frames"])
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)
    p = np.exp(wanted) / np.exp(wanted).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(head, maps, batch), p, rtol=1e-6)
    target = 0.9 * np.eye(K)[batch.targets["label"].numpy()] + 0.1 / K
    losses = head.losses(maps, batch)
    assert list(losses) == ["cross_entropy"] and losses["cross_entropy"].dtype == torch.float64
    assert losses["cross_entropy"].item() == pytest.approx(-(target * np.log(p)).sum(1).mean(), rel=1e-9)
    np.testing.assert_allclose(head.float()(features, batch.targets["frames"]).detach().numpy(), wanted, atol=1e-5)


def test_the_average_of_frames_scores_is_the_score_of_their_average():
    head, (features, _) = made("average"), given()
    each = [head({"c5": features["c5"][:, :, t : t + 1]}) for t in range(T)]
    torch.testing.assert_close(head(features), torch.stack(each).mean(0))


def test_pool3d_is_the_head_of_torchvisions_video_networks():
    net = video.mc3_18(num_classes=K).eval()
    head = clip_head("pool3d", {"c5": 512}, K, time_strides={"c5": 1}, reads=("c5",)).eval()
    head.fc.load_state_dict(net.fc.state_dict())
    maps = torch.randn(2, 512, 4, 3, 3)
    torch.testing.assert_close(head({"c5": maps}), net.fc(net.avgpool(maps).flatten(1)))
    assert head.trunk == "" and head.published(head.state_dict()).keys() == {"fc.weight", "fc.bias"}


def test_two_pathways_are_pooled_each_over_its_own_time_and_joined():
    channels = {"c4": 5, "f4": 2, "c5": 6, "f5": 3}
    strides = {"c4": 4, "f4": 1, "c5": 4, "f5": 1}
    head = clip_head("pool3d", channels, K, time_strides=strides, reads=("c5", "f5")).eval()
    torch.manual_seed(0)
    maps = {"c5": torch.randn(2, 6, 2, 3, 3), "f5": torch.randn(2, 3, 8, 3, 3)}
    pooled = torch.cat([maps["c5"].mean((2, 3, 4)), maps["f5"].mean((2, 3, 4))], 1)
    torch.testing.assert_close(head(maps), head.fc(pooled))
    first = torch.cat([maps["c5"][:, :, :1].mean((2, 3, 4)), maps["f5"][:, :, :3].mean((2, 3, 4))], 1)
    torch.testing.assert_close(head(maps, torch.tensor([3, 3])), head.fc(first))  # a step of 4 frames, and 3 of one


def test_the_transformer_is_torchs_pre_norm_encoder_that_looks_back():
    head = made("transformer", channels=16, width=16).eval()
    ours = head.over_time
    layer = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )  # fmt: skip
    theirs = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False).eval()
    names = {
        "in_proj_": "qkv.",
        "out_proj": "proj",
        "self_attn.": "",
        "linear1": "fc1",
        "linear2": "fc2",
        "layers": "blocks",
    }
    own, copied = ours.state_dict(), {}
    for name in theirs.state_dict():
        mine = name
        for a, b in names.items():
            mine = mine.replace(a, b)
        copied[name] = own.pop(mine)
    theirs.load_state_dict(copied)
    assert own.keys() == {"embed.weight", "embed.bias"}
    steps, real = torch.randn(3, 7, 16), torch.arange(7) < torch.tensor([7, 2, 4])[:, None]
    x = ours.embed(F.normalize(steps, dim=-1) * 4)
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    wanted = theirs(x + positions(7, 16, x), mask=later, src_key_padding_mask=~real)
    wanted = torch.stack([clip[mask].mean(0) for clip, mask in zip(wanted, real, strict=True)])
    torch.testing.assert_close(ours(steps, real), wanted, atol=2e-6, rtol=1e-5)


# Padding, order, other numbers of frames


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("junk", [1e6, math.nan, math.inf])
def test_what_stands_in_the_padding_changes_no_bit(kind, junk):
    frames = [5, 2, 1, 4]
    head = made(kind)
    features, batch = given(frames=frames)
    grads = []
    for filling in (0.0, junk):
        maps = features["c5"].clone()
        for clip, real in zip(maps, frames, strict=True):
            clip[:, real:] = filling
        maps.requires_grad_()
        head.zero_grad()
        loss = head.losses({"c5": maps}, batch)["cross_entropy"]
        loss.backward()
        assert all(not g[:, real:].any() for g, real in zip(maps.grad, frames, strict=True))
        grads.append([loss.detach(), maps.grad, *(p.grad for p in head.parameters())])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("kind", HEADS)
def test_a_clip_has_the_same_score_alone_padded_and_in_any_company(kind):
    frames = torch.tensor([5, 2, 1, 4])
    head = made(kind)
    features, _ = given()
    together = head(features, frames)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(head({"c5": features["c5"][order]}, frames[order]), together[order])
    for i, real in enumerate(frames.tolist()):
        alone = head({"c5": features["c5"][i : i + 1, :, :real]})
        torch.testing.assert_close(alone[0], together[i])
    torch.testing.assert_close(head(features, torch.full((4,), T)), head(features))
    torch.testing.assert_close(head(features, torch.full((4,), 99)), head(features))


@pytest.mark.parametrize("kind", HEADS)
def test_who_sees_the_order_of_frames(kind):
    head, (features, _) = made(kind), given()
    forward, backward = head(features), head({"c5": features["c5"].flip(2)})
    assert (kind in SEE_ORDER) == (not torch.allclose(forward, backward, atol=1e-4))


@pytest.mark.parametrize("kind", ["average", *SEE_ORDER])
def test_only_who_sees_the_order_learns_forward_from_backward(kind):
    torch.manual_seed(0)
    rising = torch.randn(64, 8, 1) + torch.arange(6.0) * torch.randn(8, 1)
    maps = torch.cat([rising, rising.flip(2)])[..., None, None]  # each clip and its reversal
    batch = Batch("action", ["x"] * 128, targets={"label": torch.arange(128) // 64})
    head = made(kind, channels=8, classes=2, width=None if kind == "average" else 16)
    optimizer = torch.optim.AdamW(head.parameters(), 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        head.losses({"c5": maps}, batch)["cross_entropy"].backward()
        optimizer.step()
    right = (head({"c5": maps}).argmax(1) == batch.targets["label"]).float().mean().item()
    assert right > 0.95 if kind in SEE_ORDER else right == pytest.approx(0.5, abs=0.05)


# The contract


@pytest.mark.parametrize("kind", HEADS)
def test_condensed_maps_give_the_same_bits(kind):
    head, (features, batch) = made(kind), given(frames=[5, 1, 3, 4])
    small = head.condense(features | {"c4": torch.zeros(1)})
    assert {name: tuple(t.shape) for name, t in small.items()} == {"c5": (4, C, T, 1, 1)}
    assert torch.equal(head.condense(small)["c5"], small["c5"])
    assert torch.equal(head.losses(features, batch)["cross_entropy"], head.losses(small, batch)["cross_entropy"])
    np.testing.assert_array_equal(probabilities(head, features, batch), probabilities(head, small, batch))
    assert head.condense({"c5": features["c5"].bfloat16()})["c5"].dtype == torch.float32
    assert isinstance(head, Head) and head.needs == ("c5",)
    assert all(isinstance(p, ClassPrediction) for p in head.predict(features, batch))


@pytest.mark.parametrize("kind", HEADS)
def test_losses_are_fp32_under_autocast_and_near_the_exact_ones(kind):
    head, (features, batch) = made(kind), given(frames=[5, 1, 3, 4])
    exact = head.losses(features, batch)["cross_entropy"]
    with torch.autocast("cpu", torch.bfloat16):
        found = head.losses(features, batch)["cross_entropy"]
        sums = probabilities(head, features, batch).sum(1)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(exact.item(), abs=0.02)
    np.testing.assert_allclose(sums, 1, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_comes_from_the_key_and_training_alone(kind):
    features, batch = given(frames=[5, 1, 3, 4])
    model = Model(nn.Identity(), {"action": made(kind, dropout=0.5)}, Preprocessing()).train()

    def loss(key):
        torch.rand(3)
        return model.losses(Batch("action", batch.ids, None, None, batch.targets, features, key))[
            "action/cross_entropy"
        ]

    assert torch.equal(loss(7), loss(7)) and not torch.equal(loss(7), loss(8))
    model.eval()
    assert torch.equal(loss(7), loss(8))


@pytest.mark.parametrize("kind", HEADS)
def test_training_is_deterministic_and_a_copy_trains_alike(kind):
    features, batch = given(frames=[5, 1, 3, 4])
    first = made(kind)
    torch.use_deterministic_algorithms(True)
    try:
        for head in (first, other := copy.deepcopy(first)):
            optimizer = torch.optim.SGD(head.parameters(), 0.1)
            for _ in range(3):
                optimizer.zero_grad()
                head.losses(features, batch)["cross_entropy"].backward()
                optimizer.step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert not torch.equal(first.fc.weight, made(kind).fc.weight)


@pytest.mark.parametrize("kind", HEADS)
def test_nothing_is_read_back_from_the_device(kind):
    features, batch = given(frames=[5, 1, 3, 4])
    head = made(kind).to("meta")
    loss = head.losses({"c5": features["c5"].to("meta")}, batch.to("meta"))["cross_entropy"]
    loss.backward()
    assert loss.is_meta


@pytest.mark.parametrize("kind", SEE_ORDER)
def test_heads_that_learn_more_are_published_under_their_own_names(kind):
    head = made(kind)
    tensors = head.published(head.state_dict())
    assert head.trunk == "backbone." and tensors.keys() == head.state_dict().keys()
    weights = Weights({}, "resnet18", info={"trunkline_task": "action"}, rest=tensors)
    other = made(kind, seed=5)
    assert copy_head(weights, "action", other)
    assert all(torch.equal(t, tensors[n]) for n, t in other.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("averge", {}, "head=averge: expected one of average, lstm, transformer, pool3d; nearest: average"),
        ("average", {"reads": ("c7",)}, "reads c7; this trunk has c4, c5, f5"),
        (
            "average",
            {"time_strides": {}},
            "reads maps over time, and this trunk's have none: set network.wrapper=frames",
        ),
        ("lstm", {}, "head=lstm reads one map, and this trunk ends in c5, f5: set head=pool3d"),
        ("pool3d", {"width": 3}, "learns a classifier alone: leave width= and layers= out"),
        ("transformer", {"reads": ("c5",), "width": 20}, "width=20: expected a multiple of 8"),
    ],
)
def test_what_does_not_go_together_is_said(kind, settings, said):
    settings = {"time_strides": {"c4": 4, "c5": 4, "f5": 1}, "reads": ("c5", "f5")} | settings
    with pytest.raises(WeightsError) as error:
        clip_head(kind, {"c4": 5, "c5": 6, "f5": 3}, K, **settings)
    assert said in str(error.value)


def test_a_model_of_pictures_and_clips_says_which_tasks_read_what():
    trunk = Frames(backbone("narrow"))
    clips = clip_head("average", trunk.channels, K, time_strides=trunk.time_strides, reads=("c5",))
    heads = {"photos": ClassificationHead(trunk.channels["c5"], K), "clips": clips}
    model = Model(trunk, heads, Preprocessing()).eval()
    pictures, several = (torch.randint(0, 256, (2, 3, *s, 32, 32), dtype=torch.uint8) for s in ((), (4,)))
    with torch.inference_mode():
        (seen,), (moving,) = model(pictures, ["photos"]).values(), model(several, ["clips"]).values()
        assert [len(seen), len(moving)] == [2, 2] and isinstance(moving[0], ClassPrediction)
        with pytest.raises(EngineError, match=r"^clips reads clips, and these are pictures, \(2, 3, 32, 32\): give pictures .*"
                           r' as model\(pictures, \["photos"\]\) and clips .* as model\(clips, \["clips"\]\)$'):  # fmt: skip
            model(pictures)
        with pytest.raises(EngineError, match=r"^photos reads pictures, and these are clips, "):
            model(several)
