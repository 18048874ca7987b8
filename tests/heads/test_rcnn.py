"""Faster and Mask R-CNN equal torchvision's on the same weights and pixels, and mend two of its faults."""

import json

import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from trunkline.backbones import backbone
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.rcnn import Anchors, RCNNHead
from trunkline.heads.roi_align import RoIAlign

NAMES = {"objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "classifier": "loss_classifier",
         "box": "loss_box_reg", "mask": "loss_mask"}  # fmt: skip
BUILD = {False: detection.fasterrcnn_resnet50_fpn, True: detection.maskrcnn_resnet50_fpn}


def slim(masks: bool, classes: int) -> Model:
    """Ours on a narrow trunk."""
    torch.manual_seed(0)
    trunk = backbone("narrow", norm="frozen")
    pyramid = Pyramid(trunk, "pool", 32)
    return Model(pyramid, {"boxes": RCNNHead(32, pyramid.strides, classes, masks=masks)}, trunk.preprocessing)


def pair(masks: bool, classes: int, weights, **settings) -> tuple[Model, torch.nn.Module]:
    """Ours, and torchvision's with the same numbers."""
    torch.manual_seed(0)
    trunk = backbone("resnet50", weights, norm="frozen")
    pyramid = Pyramid(trunk)
    head = RCNNHead(256, pyramid.strides, classes, masks=masks, **settings)
    ours = Model(pyramid, {"boxes": head}, trunk.preprocessing)
    with torch.device("meta"):  # without the cost of initialising it
        theirs = BUILD[masks](weights=None, weights_backbone=None, num_classes=classes + 1)
    theirs.to_empty(device="cpu")
    for stage in (theirs.backbone.body.layer2, theirs.backbone.body.layer3, theirs.backbone.body.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    names = {k.removeprefix("heads.boxes."): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(names)  # every name is theirs
    for module in theirs.backbone.modules():  # frozen norms
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return ours, theirs


def real(shared_data, ids: int = 3, side: int = 128) -> Batch:
    """Images of COCO with their boxes and masks, one of them without objects, padded to whole strides of the last level."""
    from PIL import Image
    from pycocotools import mask as codes

    folder = shared_data / "coco-tiny"
    file = next(p for p in sorted(folder.rglob("*.json")) if "val" in p.name)
    document = json.loads(file.read_text())
    objects = {i["id"]: [a for a in document["annotations"] if a["image_id"] == i["id"] and not a["iscrowd"]]
               for i in document["images"]}  # fmt: skip
    having = [i for i in document["images"] if 2 <= len(objects[i["id"]]) <= 8][: ids - 1]
    chosen = having + [i for i in document["images"] if not objects[i["id"]]][:1]
    images, boxes, labels, masks, sizes = [], [], [], [], []
    for info in chosen:
        path = next(p for p in folder.rglob(info["file_name"]))
        scale = side / max(info["width"], info["height"])
        w, h = round(info["width"] * scale), round(info["height"] * scale)
        images.append(torch.from_numpy(np.array(Image.open(path).convert("RGB").resize((w, h)))).permute(2, 0, 1))
        sizes.append((h, w))
        own = objects[info["id"]]
        corners = torch.tensor([a["bbox"] for a in own]).reshape(-1, 4) * scale
        boxes.append(torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1))
        labels.append(torch.tensor([a["category_id"] % 7 for a in own], dtype=torch.int64))
        planes = [np.zeros((h, w), np.uint8)]
        for a in own:
            code = codes.merge(codes.frPyObjects(a["segmentation"], info["height"], info["width"]))
            planes.append(np.array(Image.fromarray(codes.decode(code)).resize((w, h), Image.Resampling.NEAREST)))
        masks.append(torch.from_numpy(np.stack(planes)[1:]))
    height, width = (-(-max(s[k] for s in sizes) // 64) * 64 for k in (0, 1))
    padded = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(padded, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    masks = [torch.nn.functional.pad(m, (0, width - m.shape[2], 0, height - m.shape[1])) for m in masks]
    targets = {"boxes": boxes, "labels": labels, "masks": masks}
    return Batch("boxes", [str(i["id"]) for i in chosen], padded, torch.tensor(sizes), targets)


def theirs_on(model, pixels, batch: Batch, training: bool):
    """torchvision's model after its resizing: losses, or what it finds."""
    sizes = [tuple(s) for s in batch.sizes.tolist()]
    images = ImageList(pixels, sizes)
    keys = ("boxes", "masks") if "masks" in batch.targets else ("boxes",)
    targets = [
        {k: batch.targets[k][i] for k in keys} | {"labels": batch.targets["labels"][i] + 1} for i in range(len(batch))
    ]
    features = model.backbone(pixels)
    proposals, first = model.rpn(images, features, targets if training else None)
    found, second = model.roi_heads(features, proposals, sizes, targets if training else None)
    return {**first, **second} if training else found


def limit(ours, theirs) -> None:
    """Hold that both keep as many proposals and objects, and let both keep fewer of them, which is quicker."""
    mine, other = (
        (
            m.rpn._pre_nms_top_n,
            m.rpn._post_nms_top_n,
            m.roi_heads.detections_per_img,
            m.roi_heads.fg_bg_sampler.__dict__,
        )
        for m in (ours, theirs)
    )
    assert mine == other
    for model in (ours, theirs):
        model.rpn._post_nms_top_n = {"training": 400, "testing": 200}
        model.roi_heads.detections_per_img = 15


@pytest.mark.parametrize(("masks", "as_torchvision"), [(True, False), (False, True)])
def test_losses_and_predictions_are_torchvisions(shared_data, masks, as_torchvision):
    ours, theirs = pair(
        masks, 7, weights=shared_data / "weights/resnet50_v1.safetensors", as_torchvision=as_torchvision
    )
    limit(ours.heads["boxes"], theirs)
    batch = real(shared_data)
    pixels = ours.normalise(batch)
    ours.train(), theirs.rpn.train(), theirs.roi_heads.train()
    torch.manual_seed(5)
    mine = ours.heads["boxes"].losses(ours.maps(batch), batch)
    torch.manual_seed(5)
    expected = theirs_on(theirs, pixels, batch, training=True)
    assert {NAMES[n] for n in mine} == expected.keys()
    for name, value in mine.items():
        assert value.item() == pytest.approx(expected[NAMES[name]].item(), abs=1e-4) and torch.isfinite(value)
    ours.eval(), theirs.eval()
    for model in (ours.heads["boxes"], theirs):
        model.roi_heads.score_thresh = 0.001
    with torch.inference_mode():
        found = ours.predict(batch)
        expected = theirs_on(theirs, pixels, batch, training=False)
    assert sum(len(p.scores) for p in found) > 20
    for p, other in zip(found, expected, strict=True):
        assert np.allclose(p.scores, other["scores"], atol=1e-4) and np.array_equal(p.labels + 1, other["labels"])
        assert np.allclose(p.boxes, other["boxes"], atol=1e-3)
        if masks:
            assert np.allclose(p.masks, other["masks"][:, 0], atol=1e-4)


def test_a_micro_batch_without_any_object_has_finite_losses():
    ours = slim(True, 3)
    images = torch.randint(0, 255, (2, 3, 64, 128), dtype=torch.uint8)
    targets = {
        "boxes": [torch.zeros(0, 4)] * 2, "labels": [torch.zeros(0, dtype=torch.int64)] * 2,
        "masks": [torch.zeros(0, 64, 128, dtype=torch.uint8)] * 2,
    }  # fmt: skip
    found = ours.train().losses(Batch("boxes", ["a", "b"], images, targets=targets, key=1))
    assert all(torch.isfinite(v) for v in found.values())
    assert found["boxes/box"] == found["boxes/mask"] == found["boxes/rpn_box"] == 0
    sum(found.values()).backward()


def test_the_coarsest_level_has_its_own_stride():
    """800 pixels are 13 rows of 64 (and a bit); torchvision divides 800 by 13."""
    sizes, ratios = ((32,),), ((1.0,),)
    maps = [torch.zeros(1, 1, 13, 17)]
    images = ImageList(torch.zeros(1, 3, 800, 1088), [(800, 1088)])
    own = Anchors(sizes, ratios, (64,))(images, maps)[0].view(13, 17, 4)
    assert torch.equal(own[12, 16], torch.tensor([16 * 64 - 16.0, 12 * 64 - 16, 16 * 64 + 16, 12 * 64 + 16]))
    theirs = detection.anchor_utils.AnchorGenerator(sizes, ratios)(images, maps)[0].view(13, 17, 4)
    assert (own - theirs)[12, 16, 1] == 12 * (64 - 61) == 36


def test_a_tiny_first_image_does_not_decide_the_scales():
    strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
    assert RoIAlign(strides, 7).scales == [1 / s for s in strides.values()]
    maps = {n: torch.zeros(1, 1, -(-20 // s), -(-20 // s)) for n, s in {"p2": 4, "p3": 8, "p4": 16, "p5": 32}.items()}
    theirs = MultiScaleRoIAlign([*strides], 7, 2)
    theirs(maps, [torch.tensor([[0.0, 0, 8, 8]])], [(20, 20)])
    assert theirs.scales != [1 / s for s in strides.values()]


def test_boxes_are_decoded_in_fp32_under_autocast():
    ours = slim(False, 3)
    batch = Batch("boxes", ["a"], torch.randint(0, 255, (1, 3, 128, 128), dtype=torch.uint8))
    ours.eval().heads["boxes"].roi_heads.score_thresh = 0.0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = ours.predict(batch)[0]
    assert len(found.boxes) and not np.array_equal(
        found.boxes, torch.from_numpy(found.boxes).bfloat16().float().numpy()
    )


@pytest.mark.parametrize("kind", ["pool", "conv"])
def test_a_pyramid_is_a_backbone(kind):
    pyramid = Pyramid(backbone("narrow"), kind, 64).freeze(2)
    maps = pyramid(torch.zeros(2, 3, 128, 192))
    levels = {"pool": ("p2", "p3", "p4", "p5", "p6"), "conv": ("p3", "p4", "p5", "p6", "p7")}[kind]
    assert pyramid.levels == levels
    for name, found in maps.items():
        stride = pyramid.strides[name]
        assert found.shape == (2, pyramid.channels[name], -(-128 // stride), -(-192 // stride))
    assert not any(p.requires_grad for p in pyramid.body.layer1.parameters())
    assert all(p.requires_grad for p in pyramid.fpn.parameters())
