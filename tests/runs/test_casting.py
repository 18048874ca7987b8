"""Weights that are cast once: the numbers of autocast, also after the weights have changed."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.pixels.segmentation import SegmentationHead
from trunkline.heads.rcnn import RCNNHead
from trunkline.pipelines.evaluation import measure


def classifier(name: str) -> Model:
    trunk = backbone(name)
    return Model(trunk, {"task": ClassificationHead(trunk.channels["c5"], 5)}, Preprocessing())


def segmenter(kind: str) -> Model:
    trunk = backbone("narrow", output_stride=16)
    return Model(
        trunk, {"task": SegmentationHead(kind, trunk.channels, 3, output_stride=16, dropout=0.0)}, Preprocessing()
    )


def detector(kind: str) -> Model:
    pyramid = Pyramid(backbone("narrow"), "pool" if kind == "rcnn" else "conv", 32)
    head = RCNNHead(32, pyramid.strides, 2, masks=True) if kind == "rcnn" else OneStageHead(32, pyramid.strides, 2)
    return Model(pyramid, {"task": head}, Preprocessing())


MODELS = {
    "resnet": lambda: classifier("narrow"),
    "convnext": lambda: classifier("timm:test_convnext"),
    "weight-standardised": lambda: classifier("timm:test_nfnet"),
    "deeplabv3plus": lambda: segmenter("deeplabv3plus"),
    "mask_rcnn": lambda: detector("rcnn"),
    "one_stage": lambda: detector("one_stage"),
}


def numbers(value) -> list[torch.Tensor]:
    """All arrays of a prediction."""
    if hasattr(value, "dtype") or isinstance(value, float):
        return [torch.as_tensor(value)]
    if isinstance(value, dict):
        value = list(value.values())
    elif not isinstance(value, (list, tuple)):
        value = list(vars(value).values()) if hasattr(value, "__dict__") else []
    return [t for v in value for t in numbers(v)]


@pytest.mark.parametrize("name", MODELS)
def test_predictions_have_the_bits_of_autocast(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = Batch("task", ["a", "b"], images, torch.tensor([[64, 64], [64, 64]]))

    def both() -> list[torch.Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            plain = numbers([model.maps(batch), model.predict(batch)])
        with measure.inference(model, "bf16", torch.device("cpu")):
            ours = numbers([model.maps(batch), model.predict(batch)])
        assert len(ours) == len(plain) > 0
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
        return ours

    before = both()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.01)
    changed = both()
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(before, changed, strict=True))


class Casts(TorchDispatchMode):
    """Counts the weights that are cast."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.own, self.count = {id(p) for p in model.parameters()}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and id(args[0]) in self.own
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_frozen_or_not():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False))
    model[2].requires_grad_(False)
    images, counts = torch.ones(2, 3, 4, 4), []
    with measure.inference(model, "bf16", torch.device("cpu")), Casts(model) as casts:
        for _ in range(3):
            model(images)
            counts.append(casts.count)
    assert counts == [3, 3, 3]
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False]
    assert model.training and all(p.dtype == torch.float32 for p in model.parameters())


class Island(nn.Module):
    """A layer in fp32 amid autocast, and one whose weight its parent reads and scales."""

    def __init__(self):
        super().__init__()
        self.whole, self.read, self.normed = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        nn.utils.parametrizations.weight_norm(self.normed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(self.normed(x), self.read.weight * 1.7, self.read.bias)
        with torch.autocast("cpu", enabled=False):
            return self.whole(x.float())


def test_layers_that_autocast_does_not_cast_keep_their_weights():
    torch.manual_seed(0)
    model, x = Island().eval(), torch.randn(2, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        plain = model(x)
    with measure.inference(model, "bf16", torch.device("cpu")):
        ours = model(x)
    assert ours.dtype == plain.dtype == torch.float32 and torch.equal(ours, plain)
