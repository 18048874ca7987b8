"""Weights that are cast once: the numbers of autocast, also after the weights have changed."""

import pytest
import torch
from torch import nn

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.rcnn import RCNNHead
from trunkline.heads.segmentation import SegmentationHead
from trunkline.pipelines.evaluation import casting, measure


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


def test_weights_are_cast_once_and_given_back_whole():
    layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(5, 5, bias=False))
    own = dict(layer.named_parameters())
    seen = []
    for _ in range(2):
        with casting.cast_once(layer, torch.bfloat16):
            seen.append([layer[0].weight, layer[0].bias, layer[2].weight])
            assert layer[1].weight.dtype == torch.float32
    assert all(a is b and a.dtype == torch.bfloat16 for a, b in zip(*seen, strict=True))
    with pytest.raises(ValueError), casting.cast_once(layer, torch.bfloat16):
        raise ValueError
    assert all(p is own[n] for n, p in layer.named_parameters())
    layer.load_state_dict({n: t + 1 for n, t in layer.state_dict().items()})
    layer[2].weight.data = layer[2].weight.data.clone()
    with casting.cast_once(layer, torch.bfloat16):
        assert torch.equal(layer[0].weight, own["0.weight"].to(torch.bfloat16))
        assert torch.equal(layer[2].weight, own["2.weight"].to(torch.bfloat16))
