"""A model called with images: what it takes, and what it says of what it does not."""

from typing import Any

import pytest
import torch

from trunkline.backbones import Preprocessing, backbone
from trunkline.backbones.contract import WeightsError
from trunkline.backbones.video.given import GivenFeatures
from trunkline.ground.errors import EngineError
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.model import Model

PICTURES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def model_of(channels: int = 3) -> Model:
    trunk = backbone("narrow", in_channels=channels)
    heads = {name: ClassificationHead(trunk.channels["c5"], 4) for name in ("one", "two")}
    return Model(trunk, heads, trunk.preprocessing).eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of()


WRONG: dict[str, tuple[Any, str]] = {
    "floats": (PICTURES / 255, r"\(2, 3, 32, 32\), float32: expected images \(N, 3, H, W\) in a tensor of uint8, 0 to 255; "
               r"floats from 0 to 1 are made so by \(images \* 255\)\.round\(\)\.to\(torch\.uint8\)"),
    "whole numbers": (PICTURES.long(), r"int64: expected .*; integers from 0 to 255 are made so by images\.to\(torch"),
    "one picture": (PICTURES[0], r"\(3, 32, 32\), uint8: expected .*; one picture is picture\[None\]"),
    "one channel": (PICTURES[:, :1], r"\(2, 1, 32, 32\), uint8: expected .*; it has 1 channels$"),
    "channels last": (PICTURES.permute(0, 2, 3, 1), r"has 32 channels: where they are last give images\.permute\(0, 3, 1, 2\)"),
    "nothing": (PICTURES[:0], r"\(0, 3, 32, 32\), uint8: expected .*; it is empty"),
    "a clip": (PICTURES[:, :, None], r"\(2, 3, 1, 32, 32\), uint8: expected .*; no head reads clips, \(N, C, T, H, W\)"),
    "a row": (PICTURES[0, 0, 0], r"given \(32,\), uint8: expected images .*; it has 1 dimensions"),
    "a list": ([PICTURES[0], PICTURES[1]], r"given list of 2: expected .*; of tensors of one size give torch\.stack\(images\)"),
    "an array": (PICTURES.numpy(), r"given ndarray: expected .*; give torch\.from_numpy\(images\)"),
    "a name": ("a.jpg", r"given str: expected images"),
    "several faults": (PICTURES[:, :1] / 255, r"it has 1 channels; floats from 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_are_no_images_is_told(case, model):
    given, said = WRONG[case]
    with torch.inference_mode(), pytest.raises(EngineError, match=said):
        model(given)


def test_the_channels_are_the_trunks(model):
    grey = model_of(1)
    with torch.inference_mode():
        assert len(grey(PICTURES[:, :1])["one"]) == 2
        with pytest.raises(EngineError, match=r"expected images \(N, 1, H, W\) .* it has 3 channels"):
            grey(PICTURES)
    one_mean = Model(model.backbone, dict(model.heads), Preprocessing(mean=(0.5,), std=(0.5,))).eval()
    with torch.inference_mode():
        assert len(one_mean(PICTURES)["two"]) == 2, "one mean serves three channels"


def test_tasks_are_named_in_a_text_or_one_by_one(model):
    with torch.inference_mode():
        for given in ("one,two", "one, two", "all", ["one", "two"], ["all"], ()):
            assert [*model(PICTURES, given)] == ["one", "two"]
        assert [*model(PICTURES, "two")] == ["two"]
        with pytest.raises(EngineError, match=r"^tasks=tow: this model has the heads one, two; nearest: two"):
            model(PICTURES, "tow")
        with pytest.raises(
            EngineError, match=r"^tasks=one,tow: there is no tow; nearest: two; this model has the heads one"
        ):
            model(PICTURES, ["one", "tow"])


def test_a_model_that_trains_predicts_nothing():
    with pytest.raises(EngineError, match=r"is in training mode.*call model\.eval\(\) first"):
        model_of().train()(PICTURES)


def test_features_that_are_given_are_no_images():
    model = Model(GivenFeatures(), {"events": torch.nn.Identity()}, Preprocessing()).eval()
    with pytest.raises(WeightsError, match="features are given, and nothing here computes them"):
        model(torch.zeros(1, 7, 20))


def test_clips_and_what_is_expected_are_named_where_all_heads_read_clips(model):
    class Clips(torch.nn.Identity):
        reads_clips = True

    clips = Model(model.backbone, {"clips": Clips()}, Preprocessing()).eval()
    with pytest.raises(EngineError, match=r"expected clips \(N, 3, T, H, W\) in a tensor of uint8.* it has 1 channels"):
        clips(PICTURES[:, :1, None])
