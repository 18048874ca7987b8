"""Networks of timm as trunks: their maps, their weights, and detectors on them."""

import pytest
import timm
import torch
from box_work import SLIM_CONV
from safetensors.torch import save_file
from short_run import PLAIN

from trunkline.backbones import backbone, read_weights
from trunkline.backbones.pyramid import Pyramid
from trunkline.ground.errors import WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.rcnn import RCNNHead
from trunkline.pipelines.command.cli import main

NAMES = ("resnet18", "convnext_atto", "mobilenetv3_small_100", "regnetx_002", "efficientnet_b0")


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_names_channels_and_strides_that_are_said(name):
    trunk = backbone(f"timm:{name}").eval()
    maps = trunk(torch.zeros(1, 3, 96, 128))
    assert {"c2", "c3", "c4", "c5"} <= maps.keys() == trunk.channels.keys() == trunk.strides.keys()
    for key, found in maps.items():
        stride = trunk.strides[key]
        assert found.shape == (1, trunk.channels[key], -(-96 // stride), -(-128 // stride))


def test_a_network_with_channels_last_gives_them_second():
    trunk = backbone("timm:swin_tiny_patch4_window7_224").eval()
    assert trunk(torch.zeros(1, 3, 224, 224))["c3"].shape == (1, 192, 28, 28)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_file_of_timms_whole_network_is_read(name, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False, num_classes=5)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    trunk = backbone(f"timm:{name}", tmp_path / "whole.safetensors").eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.allclose(
            trunk(x)["c5"], whole.eval().forward_intermediates(x, intermediates_only=True)[-1], atol=1e-5
        )
    assert trunk.preprocessing.mean == tuple(timm.get_pretrained_cfg(name).mean)
    assert read_weights(tmp_path / "whole.safetensors", arch=f"timm:{name}").arch == f"timm:{name}"
    with pytest.raises(WeightsError, match="missing"):
        backbone("timm:regnetx_002", tmp_path / "whole.safetensors")


def test_frozen_parts_and_norms_stay():
    trunk = backbone("timm:resnet18", norm="frozen", frozen=2).train()
    for name, parameter in trunk.named_parameters():
        still = name.startswith(("net.conv1", "net.layer1")) or ".bn" in name or "downsample.1" in name
        assert parameter.requires_grad is not still, name
    before = {n: b.clone() for n, b in trunk.named_buffers()}
    trunk(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(b, before[n]) for n, b in trunk.named_buffers())
    with pytest.raises(WeightsError, match="0 or 5"):
        backbone("timm:mobilenetv3_small_100", frozen=2)


@pytest.mark.parametrize(
    ("name", "said"),
    [("timm:nothing_at_all", "timm has no such network"), ("timm:hf-hub:timm/resnet18", "no such network")],
)
def test_networks_that_do_not_serve_are_refused(name, said):
    with pytest.raises(WeightsError, match=said):
        backbone(name)
    with pytest.raises(WeightsError, match="norm=group"):
        backbone("timm:resnet18", norm="group")


@pytest.mark.parametrize("setting", [{"checkpointing": True}, {"stride_in": "1x1"}, {"adapt_input": True}])
def test_what_they_would_not_read_is_refused(setting):
    ((key, value),) = setting.items()
    with pytest.raises(WeightsError, match=f"timm:resnet18: {key}={value}: networks of timm lack it; leave it out"):
        backbone("timm:resnet18", **setting)
    assert backbone("timm:resnet18", stride_in="3x3").stride_in == "3x3"


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_100", "regnetx_002"])
@pytest.mark.parametrize("kind", ["pool", "conv"])
def test_a_detector_on_any_of_them_learns(name, kind):
    torch.manual_seed(0)
    pyramid = Pyramid(backbone(f"timm:{name}"), kind, 32)
    head = RCNNHead(32, pyramid.strides, 2, masks=True) if kind == "pool" else OneStageHead(32, pyramid.strides, 2)
    model = Model(pyramid, {"boxes": head}, pyramid.body.preprocessing).train()
    targets = {"boxes": [torch.tensor([[4.0, 4, 40, 40]])], "labels": [torch.tensor([1])],
               "masks": [torch.ones(1, 64, 64, dtype=torch.uint8)]}  # fmt: skip
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    sum(model.losses(Batch("boxes", ["a"], images, targets=targets, key=1)).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.backbone.fpn.parameters())


def test_a_run_with_one_of_them(tmp_path, one_core):
    words = ["train", "detect", "smoke=true", "backbone=timm:convnext_atto", "updates=2", "size=64"]
    assert main([*words, "batch=2", "limit=4", "weights=none", *PLAIN, *SLIM_CONV, "--run", str(tmp_path / "run")]) == 0
    pictures = next((tmp_path / "run").glob("weights.safetensors"))
    assert read_weights(pictures).arch == "timm:convnext_atto"
    assert main(["evaluate", str(tmp_path / "run"), "loaders=0"]) == 0
