"""Adversarial losses against plain statements, and the critics against the networks that they are named after."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from trunkline.ground.errors import EngineError, WeightsError
from trunkline.ground.ranges import problems_of
from trunkline.heads.super_resolution.adversarial import (
    KINDS,
    Adversarial,
    Perceptual,
    accuracies,
    critic_losses,
    generator_loss,
)
from trunkline.heads.super_resolution.critic import make_critic

REAL, FAKE = (torch.tensor(each, dtype=torch.float64).view(-1, 1) for each in ([2.0, -0.5, 0.3], [-1.5, 0.8, 0.2]))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def average(values) -> float:
    return sum(values) / len(values)


def by_hand(kind: str) -> tuple[float, float, float]:
    """The critic's loss of real ones and of made ones, and the generator's, as the papers write them."""
    real, fake = REAL.flatten().tolist(), FAKE.flatten().tolist()
    if kind == "least_squares":
        return (
            average([(r - 1) ** 2 for r in real]),
            average([f**2 for f in fake]),
            average([(f - 1) ** 2 for f in fake]),
        )
    if kind == "relativistic":
        real, fake = [r - average(fake) for r in real], [f - average(real) for f in fake]
    ones = [-average([math.log(sigmoid(v)) for v in values]) for values in (real, fake)]
    zeros = [-average([math.log(1 - sigmoid(v)) for v in values]) for values in (real, fake)]
    if kind == "vanilla":
        return ones[0], zeros[1], ones[1]
    return ones[0] / 2, zeros[1] / 2, (zeros[0] + ones[1]) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_the_papers(kind):
    found = critic_losses(kind, REAL, FAKE)
    wanted = by_hand(kind)
    assert float(found["real"]) == pytest.approx(wanted[0], abs=1e-12)
    assert float(found["fake"]) == pytest.approx(wanted[1], abs=1e-12)
    assert float(generator_loss(kind, FAKE, REAL)) == pytest.approx(wanted[2], abs=1e-12)


def test_vanilla_is_cross_entropy_with_logits_also_far_out():
    logits = torch.tensor([[-300.0], [-1.0], [0.0], [80.0]])
    found = critic_losses("vanilla", logits, logits)
    assert float(found["real"]) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)))
    )
    assert float(found["fake"]) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)))
    )


def test_the_relativistic_gradient_flows_through_both_means():
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    sum(critic_losses("relativistic", real, fake).values()).backward()
    step = 1e-6
    for own, other, first in ((real, FAKE, True), (fake, REAL, False)):
        for i in range(3):
            ends = []
            for sign in (1, -1):
                moved = own.detach().clone()
                moved[i] += sign * step
                ends.append(
                    float(sum(critic_losses("relativistic", *((moved, other) if first else (other, moved))).values()))
                )
            assert float(own.grad[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_accuracies_are_shares_of_what_is_told_right():
    assert {k: float(v) for k, v in accuracies("vanilla", REAL, FAKE).items()} == pytest.approx(
        {"real": 2 / 3, "fake": 1 / 3}
    )
    assert {k: float(v) for k, v in accuracies("least_squares", REAL, FAKE).items()} == pytest.approx(
        {"real": 1 / 3, "fake": 2 / 3}
    )
    shifted = accuracies("relativistic", REAL + 100, FAKE + 100)  # only differences count
    assert {k: float(v) for k, v in shifted.items()} == pytest.approx({"real": 2 / 3, "fake": 2 / 3})


def test_settings_say_what_is_wrong_with_them():
    assert problems_of(Adversarial(weight=-1, warmup=-3), "a.") == [
        "a.weight=-1: expected 0 to 1e+09", "a.warmup=-3: expected 0 to 1e+09"]  # fmt: skip
    assert problems_of(Perceptual(layers={"conv5_4": 1.0, "c4": 1.0}), "p.") == [
        "p.layers=conv5_4,c4: maps of VGG-19 (conv5_4) and of a trunk (c4) do not go together"]  # fmt: skip
    assert problems_of(Perceptual(layers={}), "p.") == ["p.layers: expected at least one map, as conv5_4 or c4"]


# The critics

BASICSR = {
    "conv0_0.weight": (64, 3, 3, 3), "conv0_0.bias": (64,), "conv0_1.weight": (64, 64, 4, 4), "bn0_1": 64,
    "conv1_0.weight": (128, 64, 3, 3), "bn1_0": 128, "conv1_1.weight": (128, 128, 4, 4), "bn1_1": 128,
    "conv2_0.weight": (256, 128, 3, 3), "bn2_0": 256, "conv2_1.weight": (256, 256, 4, 4), "bn2_1": 256,
    "conv3_0.weight": (512, 256, 3, 3), "bn3_0": 512, "conv3_1.weight": (512, 512, 4, 4), "bn3_1": 512,
    "conv4_0.weight": (512, 512, 3, 3), "bn4_0": 512, "conv4_1.weight": (512, 512, 4, 4), "bn4_1": 512,
    "linear1.weight": (100, 8192), "linear1.bias": (100,), "linear2.weight": (1, 100), "linear2.bias": (1,),
}  # fmt: skip
"""basicsr/archs/discriminator_arch.py: VGGStyleDiscriminator(num_in_ch=3, num_feat=64, input_size=128)."""
OF_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_the_vgg_critic_has_basicsrs_names_and_shapes():
    """14,499,401 parameters: 13,674,240 in convolutions, 5,760 in norms, 819,401 in dense layers. (ESRGAN's first code had a
    bias in each convolution, 2,880 more.)"""
    wanted: dict[str, tuple] = {}
    for name, shape in BASICSR.items():
        if isinstance(shape, tuple):
            wanted[name] = shape
        else:
            wanted |= {f"{name}.{entry}": () if entry.startswith("num") else (shape,) for entry in OF_NORM}
    with torch.device("meta"):
        found, larger = make_critic("vgg", 128), make_critic("vgg", 256)
    assert {n: tuple(t.shape) for n, t in found.state_dict().items()} == wanted
    assert sum(p.numel() for p in found.parameters()) == 14_499_401
    more = larger.state_dict().keys() - found.state_dict().keys()
    assert {n.split(".")[0] for n in more} == {"conv5_0", "bn5_0", "conv5_1", "bn5_1"}
    assert larger.state_dict()["linear1.weight"].shape == (100, 8192)


def vgg_by_hand(state: dict, x, training_statistics: bool):
    """BasicSR's forward, from the tensors."""
    for stage in range(5):
        for number, stride in ((0, 1), (1, 2)):
            name = f"{stage}_{number}"
            x = F.conv2d(x, state[f"conv{name}.weight"], state.get(f"conv{name}.bias"), stride, 1)
            if f"bn{name}.weight" in state:
                x = F.batch_norm(x, None, None, state[f"bn{name}.weight"], state[f"bn{name}.bias"], training_statistics)
            x = F.leaky_relu(x, 0.2)
    x = F.leaky_relu(F.linear(x.flatten(1), state["linear1.weight"], state["linear1.bias"]), 0.2)
    return F.linear(x, state["linear2.weight"], state["linear2.bias"])


def srgan_by_hand(state: dict, x):
    """Figure 4 of Ledig et al. 2017: k3n64s1, k3n64s2, k3n128s1, … k3n512s2; pictures in -1..1."""
    x = x * 2 - 1
    for number in range(1, 9):
        bias = state.get(f"features.conv{number}.bias")
        x = F.conv2d(x, state[f"features.conv{number}.weight"], bias, 1 if number % 2 else 2, 1)
        if number > 1:
            name = f"features.bn{number}"
            x = F.batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], True)
        x = F.leaky_relu(x, 0.2)
    x = F.leaky_relu(F.linear(x.flatten(1), state["dense1.weight"], state["dense1.bias"]), 0.2)
    return F.linear(x, state["dense2.weight"], state["dense2.bias"])


@pytest.mark.parametrize(("kind", "crop"), [("vgg", 64), ("vgg", 72), ("srgan", 24), ("srgan", 37)])
def test_critics_compute_their_networks(kind, crop):
    torch.manual_seed(0)
    critic, pictures = make_critic(kind, crop, 4).double(), torch.rand(3, 3, crop, crop, dtype=torch.float64)
    state = dict(critic.state_dict())
    wanted = vgg_by_hand(state, pictures, True) if kind == "vgg" else srgan_by_hand(state, pictures)
    found = critic(pictures)
    assert found.shape == (3, 1) and torch.allclose(found, wanted, atol=1e-12)


def test_srgans_critic_has_its_papers_widths():
    with torch.device("meta"):
        critic = make_critic("srgan", 96)
    shapes = [tuple(p.shape) for n, p in critic.named_parameters() if "conv" in n and n.endswith("weight")]
    assert [s[0] for s in shapes] == [64, 64, 128, 128, 256, 256, 512, 512] and {s[2:] for s in shapes} == {(3, 3)}
    assert tuple(critic.dense1.weight.shape) == (1024, 512 * 6 * 6) and tuple(critic.dense2.weight.shape) == (1, 1024)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in critic.modules()) == 7


@pytest.mark.parametrize(("kind", "count"), [("vgg", 10), ("srgan", 8)])
def test_spectral_critics_have_convolutions_of_norm_1_and_no_batch_norm(kind, count):
    torch.manual_seed(0)
    critic, pictures = make_critic(kind, 32, 4, "spectral"), torch.rand(1, 3, 32, 32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    for _ in range(60):  # its estimate of the norm converges in forwards
        critic(pictures)
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    norms = [float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in convolutions]
    assert len(norms) == count and norms == pytest.approx([1.0] * count, abs=2e-2)
    assert all(m.bias is not None for m in convolutions)
    one = spectral_norm(nn.Conv2d(3, 8, 3))
    assert {n.split(".", 1)[1] for n in critic.state_dict() if "parametrizations.weight.0" in n} != set()
    assert "parametrizations.weight.original" in one.state_dict()


@pytest.mark.parametrize(("given", "said"), [
    (("patch", 64), "critic=patch: expected one of srgan, vgg"),
    (("vgg", 24), "crop=24: the critic vgg needs crops of at least 32 pixels"),
    (("vgg", 64, 64, "group"), "norm=group: a critic has one of batch, spectral"),
    (("srgan", 64, 0), "width=0: expected a number of channels from 1"),
])  # fmt: skip
def test_what_no_critic_can_be_made_of_is_refused(given, said):
    with pytest.raises(WeightsError, match=said):
        make_critic(*given)


@pytest.mark.parametrize("kind", ["vgg", "srgan"])
def test_pictures_of_another_size_are_refused(kind):
    with pytest.raises(EngineError, match=r"made for crops of 48 x 48 pixels and got 64 x 48"):
        make_critic(kind, 48, 2)(torch.zeros(1, 3, 64, 48))
