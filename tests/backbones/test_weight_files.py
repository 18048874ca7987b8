"""Files of weights as others write them: what is read, from where in the file, and what is refused, with which words."""

import argparse
import gzip
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn, zeros
from torchvision.models import detection, segmentation
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from weight_files import small

from trunkline.backbones import backbone, read_weights
from trunkline.backbones.build import _agree
from trunkline.backbones.weights import described
from trunkline.ground.errors import WeightsError

OTHERS = small(seed=1)


def _(prefix, tensors):
    """Put a prefix before all names."""
    return {prefix + name: value for name, value in tensors.items()}


def without_fc(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}


def whole(tensors):
    """A whole module with these tensors."""
    with torch.device("meta"):
        module = torchvision.models.resnet18(num_classes=2)
    for name, value in tensors.items():
        path, _dot, last = name.rpartition(".")
        owner = module.get_submodule(path)
        (owner._buffers if last in owner._buffers else owner._parameters)[last] = value
    return module


def by_position(tensors):
    """What `nn.Sequential(*list(resnet.children())[:-1])` calls them."""
    at = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {".".join([at[first], rest]): v for n, v in without_fc(tensors).items() for first, rest in [n.split(".", 1)]}


def head(name, tensors):
    return {f"{name}.weight": tensors["fc.weight"], f"{name}.bias": tensors["fc.bias"]}


# name of the file: (what is in it, how many tensors are read, where they are said to be, what is said to be left aside)
READ = {
    "plain.pth": (lambda s: s, 122, "", ""),
    "plain.pth.tar": (lambda s: {"state_dict": s, "epoch": 3}, 122, "under state_dict", "epoch"),
    "plain.tar": (lambda s: {"state_dict": s}, 122, "under state_dict", ""),
    "lightning-model.ckpt": (
        lambda s: {"epoch": 1, "pytorch-lightning_version": "2.2", "state_dict": _("model.", s), "hyper_parameters": {"lr": 0.1},
                   "optimizer_states": [], "callbacks": {}, "loops": {}},
        122, "under state_dict, prefix model.",
        "epoch, pytorch-lightning_version, hyper_parameters, optimizer_states, callbacks, loops"),
    "lightning-model.pth": (lambda s: {"state_dict": _("model.", s), "epoch": 1}, 122,
                            "under state_dict, prefix model.", "epoch"),
    "lightning-net.pth": (lambda s: {"state_dict": _("net.", s), "epoch": 1}, 122, "under state_dict, prefix net.", "epoch"),
    "own-resnet.pth": (lambda s: {"state_dict": _("resnet.", s), "epoch": 1}, 122, "under state_dict, prefix resnet.", "epoch"),
    "encoder-head.pth": (lambda s: {"state_dict": _("encoder.", without_fc(s)) | head("head", s)}, 122,
                         "under state_dict, prefix encoder., the classifier is head", ""),
    "moco.pth": (lambda s: {"state_dict": _("module.encoder_q.", s) | _("module.encoder_k.", s)}, 122,
                 "under state_dict, prefix module.encoder_q., the same as under state_dict.module.encoder_k",
                 "module.encoder_k.* (122 tensors)"),
    "mmcls.pth": (lambda s: {"state_dict": _("backbone.", without_fc(s)) | head("head.fc", s), "meta": {}}, 122,
                  "under state_dict, prefix backbone., the classifier is head.fc", "meta"),
    "compiled.pth": (lambda s: {"state_dict": _("_orig_mod.module.", s)}, 122, "under state_dict, prefix _orig_mod.module.", ""),
    "timm.pth.tar": (lambda s: {"state_dict_ema": s, "state_dict": s, "arch": "resnet18"}, 122,
                     "under state_dict_ema, the same as under state_dict", "state_dict, arch"),
    "ema-only.pth": (lambda s: {"model_ema": s, "epoch": 1}, 122, "under model_ema", "epoch"),
    "kuangliu.pth": (lambda s: {"net": s, "acc": 91.2, "epoch": 3}, 122, "under net", "acc, epoch"),
    "smp-unet.pth": (lambda s: _("encoder.", without_fc(s)) | {"decoder.blocks.0.conv1.0.weight": zeros(4, 4, 3, 3)}, 120,
                     "prefix encoder.", "decoder.blocks.0.conv1.0.weight"),
    "nofc.pth": (without_fc, 120, "", ""),
    "whole.pth": (whole, 122, "of a whole module (torchvision.models.resnet.ResNet), which was not made", ""),
    "pytorch_model.bin": (lambda s: s, 122, "", ""),
    "model.safetensors": (lambda s: s, 122, "", ""),
    "npscalar.pth": (lambda s: {"state_dict": s, "best": np.float64(3.0)}, 122, "under state_dict",
                     "best (numpy._core.multiarray.scalar)"),
    "args.pth": (lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)}, 122, "under state_dict",
                 "args (argparse.Namespace)"),
    # beyond those: other wrappings that there are
    "no-suffix": (lambda s: s, 122, "", ""),
    "vissl.torch": (lambda s: {"classy_state_dict": {"base_model": {"model": {
        "trunk": _("_feature_blocks.", without_fc(s)), "heads": {"0.clf.0.weight": zeros(3, 512)}}}}}, 120,
        "under classy_state_dict.base_model.model.trunk, prefix _feature_blocks.", "heads"),
    "swa.pth": (lambda s: _("module.", s) | {"n_averaged": torch.tensor(5)}, 122, "prefix module.", "n_averaged"),
    "positions.pth": (lambda s: _("backbone.", by_position(s)) | {"projection_head.layers.0.weight": zeros(512, 512),
                      "projection_head.layers.2.weight": zeros(128, 512)}, 120,
                      "prefix backbone., names by position in a Sequential", "projection_head.* (2 tensors)"),
    "moco-v2.pth": (lambda s: {"state_dict": _("module.encoder_q.", without_fc(s) | {
        "fc.0.weight": zeros(512, 512), "fc.0.bias": zeros(512), "fc.2.weight": zeros(128, 512)})}, 120,
        "under state_dict, prefix module.encoder_q.", "module.encoder_q.fc.* (3 tensors)"),
    "dropout.pth": (lambda s: without_fc(s) | head("fc.1", s), 122, "the classifier is fc.1", ""),
    "last-linear.pth": (lambda s: without_fc(s) | head("last_linear", s), 122, "the classifier is last_linear", ""),
    "narrow-head.pth": (lambda s: _("backbone.", without_fc(s)) | {"head.weight": zeros(9, 256)}, 120, "prefix backbone.",
                        "head.weight"),
    "no-bias.pth": (lambda s: without_fc(s) | {"fc.weight": s["fc.weight"]}, 121, "", ""),
    "parallel.pth": (lambda s: {"model": nn.DataParallel(whole(s)), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, 122,
                     "under model, prefix module., of a whole module (torch.nn.parallel.data_parallel.DataParallel), which was "
                     "not made", "optimizer"),
    "list.pth": (lambda s: [3, {"weights": s}], 122, "under 1.weights", ""),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_what_others_write_is_read_and_said(name, legacy, tmp_path):
    tensors = small()
    make, count, where, aside = READ[name]
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(make(tensors), path)
    else:
        torch.save(make(tensors), path, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert weights.arch == "resnet18" and len(weights.tensors) == count
    assert weights.info.get("found", "") == where and weights.info.get("left aside", "") == aside
    assert weights.tensors.keys() <= tensors.keys()
    assert all(torch.equal(value, tensors[n]) for n, value in weights.tensors.items())


KINDS = {
    "moco": lambda a, b: {"state_dict": _("module.encoder_q.", a) | _("module.encoder_k.", b)},
    "averages": lambda a, b: {"model": a, "model_ema": b, "epoch": 3},
    "dino": lambda a, b: {"student": _("module.backbone.", a), "teacher": _("backbone.", b)},
    "flat": lambda a, b: a | _("ema.", b),
}
KEYS = {
    "moco": ("state_dict.module.encoder_q", "state_dict.module.encoder_k"),
    "averages": ("model", "model_ema"),
    "dino": ("student.module.backbone", "teacher.backbone"),
    "flat": (".", "ema"),
}


@pytest.mark.parametrize("name", KINDS)
def test_two_different_networks_are_refused_unless_one_is_chosen(name, tmp_path):
    path, (first, second) = tmp_path / "w.pth", (small(), OTHERS)
    torch.save(KINDS[name](first, second), path)
    with pytest.raises(WeightsError, match="holds 2 networks, and not the same one: say which") as told:
        read_weights(path)
    for key, tensors in zip(KEYS[name], (first, second), strict=True):
        assert f"\n  weights_key={key}  (resnet18, " in str(told.value)
        weights = read_weights(path, key=key)
        assert torch.equal(weights.tensors["conv1.weight"], tensors["conv1.weight"]) and len(weights.tensors) == 122
    with pytest.raises(
        WeightsError, match="weights_key=emma: nothing in it is called so; there are\n  weights_key="
    ) as told:
        read_weights(path, key="emma")
    assert all(f"weights_key={key}  " in str(told.value) for key in KEYS[name])


def test_a_key_may_be_the_wrapper_or_the_prefix_alone(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": _("module.encoder_q.", small()), "ema": _("module.encoder_q.", OTHERS)}, path)
    for key, expected in (("ema", OTHERS), ("state_dict", small())):
        assert torch.equal(read_weights(path, key=key).tensors["conv1.weight"], expected["conv1.weight"])
    with pytest.raises(WeightsError, match="holds 2 networks"):
        read_weights(path, key="module.encoder_q")


def test_of_several_networks_the_one_that_was_asked_for_is_taken(tmp_path):
    deep = timm.create_model("resnet34", num_classes=2).state_dict()
    deep = {
        n: t[:, :1, :1, :1] if t.dim() == 4 and n not in ("conv1.weight", "layer1.0.conv2.weight") else t
        for n, t in deep.items()
    }
    torch.save({"student": small(), "teacher": deep}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth", arch="resnet34").info["found"] == "under teacher"
    with pytest.raises(
        WeightsError, match=r"weights_key=student  \(resnet18, 122 tensors\)\n  weights_key=teacher  \(resnet34, 218"
    ):
        read_weights(tmp_path / "w.pth")


def test_tensors_that_a_network_does_not_have_are_still_refused(tmp_path):
    tensors = torchvision.models.resnet18(num_classes=2).state_dict()
    for extra in ("attention.weight", "layer1.0.attention.weight"):
        torch.save(tensors | {extra: zeros(3, 4, 1, 1)}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=rf"1 unexpected: {extra} 3x4x1x1"):
            backbone(weights=tmp_path / "w.pth")


def test_a_network_of_timm_is_found_under_a_prefix(tmp_path):
    plain = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=3)
    tensors = plain.state_dict()
    torch.save({"state_dict": _("model.backbone.", tensors) | {"model.neck.weight": zeros(2)}}, tmp_path / "w.ckpt")
    trunk = backbone("timm:test_resnet.r160_in1k", tmp_path / "w.ckpt")
    first = next(n for n in tensors if n.endswith("conv1.0.weight"))
    assert torch.equal(trunk.state_dict()[f"net.{first.replace('.', '_', 1)}" if f"net.{first}" not in trunk.state_dict()
                                          else f"net.{first}"], tensors[first])  # fmt: skip
    assert "under state_dict, prefix model.backbone." in str(trunk.report)


# networks that are more than a trunk


def shrunk(model):
    """The tensors of a model on the meta device, zeros: those of four axes cut where nothing is told by their shape."""
    kept = ("conv1.weight", "layer1.0.conv2.weight")
    shapes = {
        n: (*t.shape[:1], 1, 1, 1) if t.dim() == 4 and not n.endswith(kept) else t.shape
        for n, t in model.state_dict().items()
    }
    return {n: zeros((1, *shape[1:]) if len(shape) == 2 else shape, device="cpu") for n, shape in shapes.items()}


def pyramid(norm=None):
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    body.fpn = torchvision.ops.FeaturePyramidNetwork([64, 128, 256, 512], 256, norm_layer=norm)
    return body


ONLY_TRUNKS = {
    "a RetinaNet of torchvision": lambda: detection.RetinaNet(pyramid(), num_classes=3),
    "an FCOS of torchvision": lambda: detection.FCOS(pyramid(), num_classes=3),
    "a Keypoint R-CNN of torchvision": lambda: detection.KeypointRCNN(pyramid(), num_classes=2),
    "a Faster or Mask R-CNN of torchvision, version 2": lambda: detection.FasterRCNN(
        pyramid(nn.BatchNorm2d), num_classes=3
    ),
}


@pytest.mark.parametrize("kind", ONLY_TRUNKS)
def test_of_another_detector_the_trunk_is_read_and_what_it_is_is_said(kind, tmp_path):
    with torch.device("meta"):
        model = ONLY_TRUNKS[kind]()
    torch.save({"model": _("module.", shrunk(model)), "optimizer": {}}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert weights.info["kind"] == kind and not weights.rest
    assert weights.tensors.keys() == {n.removeprefix("backbone.body.") for n in model.state_dict() if "body." in n}
    assert f"resnet18; under model, prefix module.backbone.body.; only the trunk of {kind}" in described(weights)


FOREIGN = {
    "a two-stage detector of MMDetection": lambda s: _("backbone.", s) | {"rpn_head.rpn_conv.weight": zeros(2, 2, 1, 1)},
    "a segmenter of MMSegmentation": lambda s: _("backbone.", s) | {"decode_head.conv_seg.weight": zeros(2, 2, 1, 1)},
    "a U-Net of segmentation_models_pytorch": lambda s: _("encoder.", s) | {"decoder.blocks.0.a.weight": zeros(2, 2, 1, 1),
                                                                                "segmentation_head.0.weight": zeros(2, 2, 1, 1)},
    "a DETR": lambda s: _("backbone.0.body.", s) | {"class_embed.weight": zeros(92, 256)},
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_networks_are_named(kind, tmp_path):
    torch.save({"state_dict": FOREIGN[kind](without_fc(small())), "meta": {}}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert weights.info["kind"] == kind and len(weights.tensors) == 120 and not weights.rest


NO_TRUNK = {
    "a YOLO network": {"model.model.0.conv.weight": zeros(2, 3, 3, 3), "model.model.2.cv1.conv.weight": zeros(2, 2, 1, 1)},
    "a detector of Detectron2": {"backbone.bottom_up.stem.conv1.weight": zeros(2, 3, 7, 7)},
    "an SSD of torchvision": {"backbone.features.0.weight": zeros(2, 3, 3, 3),
                              "head.classification_head.module_list.0.weight": zeros(2, 2, 3, 3)},
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_TRUNK)
def test_networks_with_another_trunk_are_named(kind, tmp_path):
    torch.save({"model": NO_TRUNK[kind]}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=f"is {kind}, and its trunk is none of those here"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("wrapped", [False, True])
def test_heads_that_are_read_here_stay_with_their_trunk(wrapped, tmp_path):
    with torch.device("meta"):
        model = shrunk(segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=2))
    torch.save({"model": _("module.", model)} if wrapped else model, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert weights.arch == "resnet50" and "kind" not in weights.info
    assert (
        weights.rest.keys() == {n for n in model if n.startswith("classifier.")} and "conv1.weight" in weights.tensors
    )


# files that are none, and paths


def test_other_files_are_named_for_what_they_are(tmp_path):
    torch.save(small(), tmp_path / "plain.pth")
    with gzip.open(tmp_path / "gz.pth.tar", "wb", 1) as file:
        file.write((tmp_path / "plain.pth").read_bytes())
    with tarfile.open(tmp_path / "tar.pth.tar", "w") as archive:
        archive.add(tmp_path / "plain.pth", "plain.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.write(tmp_path / "plain.pth", "plain.pth")
    packed = zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED)
    with packed as archive, zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x05")
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>")
    (tmp_path / "lfs.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1")
    (tmp_path / "text.bin").write_bytes(b"hello world, hello weights")
    for name, told in {
        "gz.pth.tar": "compressed by gzip.*gunzip", "tar.pth.tar": r"a tar archive.*tar -xf",
        "zip.pth": "zip archive, no file of torch",
        "deflated.pth": "compressed, as torch.save never writes it", "script.pt": "a TorchScript archive",
        "net.onnx": "an ONNX file",
        "page.pth": "a web page", "lfs.safetensors": "git lfs pull", "text.bin": "neither safetensors nor a file of torch.save",
    }.items():  # fmt: skip
        with pytest.raises(WeightsError, match=told) as error:
            read_weights(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_a_path_is_told_from_a_name_by_the_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(small(1000), "resnet34")
    assert read_weights("resnet34").arch == "resnet18"
    asked = []
    monkeypatch.setattr(
        "trunkline.backbones.download.fetch", lambda source: asked.append(source.name) or Path("resnet34")
    )
    Path("resnet18").mkdir()
    read_weights("resnet18")
    assert asked == ["resnet18"]
    for name in ("absent.ckpt", "absent.pth.tar", "folder/absent.bin"):
        with pytest.raises(WeightsError, match="no such file"):
            read_weights(name)


def test_what_is_assumed_stands_in_the_line(tmp_path):
    with torch.device("meta"):
        model = torchvision.models.resnet50(num_classes=2)
    torch.save(shrunk(model), tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    line = described(weights)
    assert "assumed: stride_in=3x3, torchvision's; the original network's weights need stride_in=1x1" in line
    assert "mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225, resize 256, crop 224, bilinear" in line
    told = described(_agree(weights, None, "1x1"))
    assert "stride_in" not in told and "mean 0.485" in told
