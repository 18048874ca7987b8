"""Networks of timm under every head: each learns, or is refused in one line that is known before there is any data."""

import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from timm_families import EIGHT, FIFTY, ONE_SIZE

from trunkline.backbones.contract import deepest
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.pixels.segmentation import SegmentationHead
from trunkline.heads.pixels.segmentation_trunk import last_of
from trunkline.heads.rcnn import RCNNHead
from trunkline.pipelines.models.assembly import make_trunk
from trunkline.pipelines.recipe.fields import Network, Recipe
from trunkline.pipelines.training import network
from trunkline.pipelines.training.network import network_problems
from trunkline.tasks.classification.options import Options as Classification
from trunkline.tasks.detection.options import Options as Detection
from trunkline.tasks.detection.transforms import PADDED
from trunkline.tasks.segmentation.options import Options as Segmentation

STRIDE = {"deeplabv3": 16, "deeplabv3plus": 16, "fcn": 16}
SEGMENTERS = ("fcn", "unet", "fpn", "deeplabv3", "deeplabv3plus")
DETECTORS = ("one_stage", "faster_rcnn", "mask_rcnn")
HEADS = ("classification", *SEGMENTERS, *DETECTORS)
SIDES = {**ONE_SIZE, "inception_v3": 96}  # pixels; else 64


def recipe_of(name, head, output_stride=None):
    side = SIDES.get(name, 64)
    trunk = Network(backbone=f"timm:{name}", output_stride=output_stride or STRIDE.get(head, 32))
    if head == "classification":
        return Recipe({head: Classification(data="nowhere", size=side)}, trunk)
    if head in SEGMENTERS:
        tiles = side if name in ONE_SIZE else 0
        return Recipe({"segmentation": Segmentation(data="nowhere", head=head, crop=side, tiles=tiles)}, trunk)
    pyramid = "conv" if head == "one_stage" else "pool"
    return Recipe(
        {"detection": Detection(data="nowhere", head=head, size=64, longest=64)},
        Network(trunk.backbone, pyramid=pyramid),
    )


def allowed(name, head):
    """The problems of a recipe, or of the same with the output stride that the first answer says, with that recipe."""
    recipe = recipe_of(name, head)
    problems = network_problems(recipe)
    if problems and "set network.output_stride=" in problems[0]:
        stride = int(problems[0].partition("set network.output_stride=")[2].split()[0])
        recipe = recipe_of(name, head, stride)
        problems = network_problems(recipe)
        assert not problems or "set network.output_stride=" not in problems[0]  # what is advised helps
    return recipe, problems


def learns(recipe, head, trunks):
    """Whether one step's gradients of the whole model, on a batch as the task would make it, reach the trunk."""
    torch.manual_seed(0)
    asked = replace(recipe.network, pyramid="none")
    trunk = trunks[asked] = trunks.get(asked) or make_trunk(asked, None, None)
    trunk.zero_grad(set_to_none=True)
    side = PADDED.get(head, 64) if head in DETECTORS else SIDES.get(asked.backbone.removeprefix("timm:"), 64)
    whole, part = model_parts(head, trunk, recipe.network.pyramid)
    model = Model(whole, {head: part}, trunk.preprocessing).train()
    images = torch.randint(0, 255, (2, 3, side, side), dtype=torch.uint8)
    targets = {"label": torch.tensor([0, 1]), "mask": torch.randint(0, 3, (2, side, side)).to(torch.uint8)}
    if head in DETECTORS:
        targets = {"boxes": [torch.tensor([[4.0, 4, 60, 60]])] * 2, "labels": [torch.tensor([1])] * 2,
                   "masks": [torch.ones(1, side, side, dtype=torch.uint8)] * 2}  # fmt: skip
    total = sum(model.losses(Batch(head, ["a", "b"], images, targets=targets, key=1)).values())
    total.backward()
    grads = [p.grad for p in trunk.parameters() if p.grad is not None]
    assert math.isfinite(total.item()) and all(torch.isfinite(g).all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads)


def model_parts(head, trunk, pyramid):
    """The trunk, with its pyramid where the head asks for one, and the head on it."""
    if head == "classification":
        name = deepest(trunk.channels)
        return trunk, ClassificationHead(trunk.channels[name], 2, reads=name)
    if head in SEGMENTERS:
        return trunk, SegmentationHead(head, trunk.channels, 3, output_stride=trunk.strides[last_of(trunk.channels)])
    whole = Pyramid(trunk, pyramid, 16)
    if head == "one_stage":
        return whole, OneStageHead(16, whole.strides, 2)
    return whole, RCNNHead(16, whole.strides, 2, masks=head == "mask_rcnn")


def worked(name):
    """The heads under which a network learns; of the others it is checked that they are refused in one line."""
    found, trunks = set(), {}
    for head in HEADS:
        recipe, problems = allowed(name, head)
        if not problems:
            learns(recipe, head, trunks)
            found.add(head)
        else:
            assert len(problems) == 1 and f"timm:{name}" in problems[0] and "\n" not in problems[0], problems
    return found


ALL, DEEPLABS = set(HEADS), {"deeplabv3", "deeplabv3plus"}
DILATED = {"test_byobnet", "test_convnext", "cs3darknet_focus_s", "cspnext_tiny", "test_efficientnet", "inception_next_atto",
           "mobilenetv3_small_050", "mobilevit_xxs", "test_nfnet", "regnetx_002", "resnest14d", "test_resnet", "resnetv2_18",
           "rexnet_100", "skresnet18"}  # fmt: skip
FEWER = {
    "inception_v3": ALL - DEEPLABS - {"fpn"},  # its maps do not halve exactly
    "test_vit": {"classification", "fcn", "deeplabv3"},  # one map
    "deit_tiny_patch16_224": {"classification", "fcn", "deeplabv3"},
    "xcit_nano_12_p8_224": {"classification", "fcn", "deeplabv3"},  # one map of stride 8
    "levit_128s": {"classification", "fcn"},  # maps from stride 16 on
    "pit_ti_224": {"classification", "fcn", "one_stage"},  # from stride 8 on
}
EXPECTED = {name: FEWER.get(name, ALL if name in DILATED else ALL - DEEPLABS) for name in FIFTY}


@pytest.fixture(autouse=True)
def built_once(monkeypatch):
    """Heads that ask for the same trunk share the one without memory, which a run builds once anyway."""
    monkeypatch.setattr(network, "_on_meta", lru_cache(network._on_meta))


def test_forty_of_the_fifty_work_under_a_pyramid():
    assert sum({"fpn", "faster_rcnn"} <= heads for heads in EXPECTED.values()) >= 40
    assert len(EXPECTED) == 50 and all("classification" in heads for heads in EXPECTED.values())


@pytest.mark.parametrize("name", EIGHT)
def test_eight_families_under_every_head(name):
    assert worked(name) == EXPECTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIFTY)
def test_fifty_networks_under_every_head(name):
    assert worked(name) == EXPECTED[name]
