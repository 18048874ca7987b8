"""ResNeXt's three published forms are one function: outputs, gradients and statistics."""

import pytest
import torch
from torch import nn

from trunkline.backbones.norm import norm_layer
from trunkline.backbones.residual import Bottleneck
from trunkline.backbones.resnext import EarlyConcatenation, SplitTransformSum
from trunkline.ground.errors import WeightsError


def grouped(norm="batch", **options) -> Bottleneck:
    torch.manual_seed(0)
    block = Bottleneck(256, 64, norm_layer(norm), groups=32, width_per_group=4, **options)
    for name, value in block.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            if name.endswith(("weight", "running_var")):
                value.uniform_(0.5, 1.5)
            elif not name.endswith("tracked"):
                value.uniform_(-0.2, 0.2)
    return block


@pytest.mark.parametrize("form", [SplitTransformSum, EarlyConcatenation])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"stride": 2, "stride_in": "1x1"},
        {"dilations": (2, 2)},
        {"norm": "frozen"},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_same_function(form, options, training):
    block = grouped(**options).train(training)
    other = form(block).train(training)
    assert not any(m.groups > 1 for m in other.modules() if isinstance(m, nn.Conv2d))
    assert len(other.branches) == 32
    assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in block.parameters())
    x = torch.randn(4, 256, 12, 12)
    with torch.no_grad():
        expected, out = block(x), other(x)
    assert (out - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)
    if options.get("norm") != "frozen":
        statistics = torch.cat([branch[1].running_mean for branch in other.branches])
        assert torch.allclose(statistics, block.bn1.running_mean, atol=1e-6)
        assert torch.allclose(other.bn3.running_var, block.bn3.running_var, rtol=1e-5)


def test_the_forms_have_weights_of_their_own():
    block = grouped().eval()
    other = SplitTransformSum(block).eval()
    x = torch.randn(1, 256, 8, 8)
    before = block(x)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(block(x), before) and not torch.equal(other(x), before)


def test_group_norm_has_no_other_form():
    with pytest.raises(WeightsError, match="norm=group"):
        EarlyConcatenation(grouped("group"))


@pytest.mark.parametrize("form", [SplitTransformSum, EarlyConcatenation])
def test_same_gradients(form):
    block = grouped(stride=2).double()  # in float32 a value at a ReLU's kink may fall on either side
    other = form(block)
    x = torch.randn(4, 256, 12, 12, dtype=torch.float64)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    for net, images in zip((block, other), inputs, strict=True):
        net(images).square().mean().backward()
    assert torch.allclose(inputs[1].grad, inputs[0].grad, rtol=0, atol=1e-12)
    first = torch.cat([branch[0].weight.grad for branch in other.branches])
    second = torch.cat([branch[3].weight.grad for branch in other.branches])
    assert torch.allclose(first, block.conv1.weight.grad, rtol=0, atol=1e-12)
    assert torch.allclose(second, block.conv2.weight.grad, rtol=0, atol=1e-12)
