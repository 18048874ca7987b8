"""Heads for pixels equal torchvision's and segmentation-models-pytorch's on the same weights; losses against plain ones."""

import pytest
import torch
import torchvision
from torch.nn import functional as F
from torchvision.models import segmentation

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.pixels.pixel_losses import Weighted, cross_entropy_by_rows, pixel_losses
from trunkline.heads.pixels.segmentation import RATES, SegmentationHead

CLASSES = 21


def images(count: int = 2, side: int = 97) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def truth(count: int = 2, side: int = 97) -> torch.Tensor:
    drawn = torch.randint(0, CLASSES, (count, side, side), generator=torch.Generator().manual_seed(1))
    return drawn.masked_fill(torch.rand(drawn.shape, generator=torch.Generator().manual_seed(2)) < 0.1, 255)


def model(kind: str, arch: str = "resnet50", output_stride: int = 8, **settings) -> Model:
    torch.manual_seed(0)
    trunk = backbone(arch, output_stride=output_stride, zero_init=False)
    head = SegmentationHead(kind, trunk.channels, CLASSES, output_stride=output_stride, **settings)
    return Model(trunk, {"segmentation": head}, Preprocessing())


def published(ours: Model) -> dict:
    return {name.removeprefix("heads.segmentation."): value for name, value in ours.state_dict().items()}


@pytest.mark.parametrize(("kind", "theirs"), [("deeplabv3", "deeplabv3_resnet50"), ("fcn", "fcn_resnet50")])
def test_torchvisions_models_at_output_stride_8(kind, theirs):
    ours = model(kind, aux=0.5, dropout=0.0)
    with torch.device("meta"):  # without the cost of initialising it
        other = getattr(segmentation, theirs)(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    other.to_empty(device="cpu")
    own = {name: value for name, value in published(ours).items() if not name.startswith("backbone.fc.")}
    other.load_state_dict(own)  # every name is theirs, and none is lacking
    for module in other.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = Batch("segmentation", ["a", "b"], images(), targets={"mask": truth().to(torch.uint8)})
    pixels = ours.normalise(batch)
    found = other.train()(pixels)
    expected = {name: F.cross_entropy(value, truth(), ignore_index=255) for name, value in found.items()}
    losses = ours.train().losses(batch)
    assert losses["segmentation/cross_entropy"].item() == pytest.approx(expected["out"].item(), abs=1e-4)
    assert losses["segmentation/aux"].item() == pytest.approx(0.5 * expected["aux"].item(), abs=1e-4)
    ours.eval(), other.eval()
    with torch.inference_mode():
        features = ours.backbone(pixels)
        torch.testing.assert_close(
            ours.heads["segmentation"](features, (97, 97)), other(pixels)["out"], atol=1e-4, rtol=1e-4
        )
        assert [p.labels.shape for p in ours.predict(batch)] == [(97, 97)] * 2


def test_torchvisions_parts_at_output_stride_16():
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    ours = model("deeplabv3", output_stride=16).eval()
    head = DeepLabHead(2048, CLASSES, (6, 12, 18)).eval()
    head.load_state_dict(ours.heads["segmentation"].classifier.state_dict())
    trunk = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    trunk.load_state_dict(
        {**trunk.state_dict(), **{k: v for k, v in ours.backbone.state_dict().items() if not k.startswith("fc.")}}
    )
    seen = {}
    trunk.eval().layer4.register_forward_hook(lambda _, __, out: seen.update(c5=out))
    pixels = ours.normalise(Batch("segmentation", ["a", "b"], images(side=128)))
    with torch.inference_mode():
        trunk(pixels)
        expected = F.interpolate(head(seen["c5"]), size=(128, 128), mode="bilinear", align_corners=False)
        found = ours.heads["segmentation"](ours.backbone(pixels), (128, 128))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "stride"), [("deeplabv3plus", 16), ("deeplabv3plus", 8), ("unet", 32), ("fpn", 32)])
def test_others_decoders_on_the_same_maps(kind, stride):
    smp = pytest.importorskip("segmentation_models_pytorch")
    build = {"deeplabv3plus": smp.DeepLabV3Plus, "unet": smp.Unet, "fpn": smp.FPN}[kind]
    more = {"encoder_output_stride": stride, "decoder_atrous_rates": RATES[stride]} if kind == "deeplabv3plus" else {}
    other = build("resnet18", encoder_weights=None, classes=CLASSES, **more).eval()
    ours = model(kind, "resnet18", stride).eval()
    head = ours.heads["segmentation"]
    for part in ("decoder", "segmentation_head"):
        getattr(other, part).load_state_dict(getattr(head, part).state_dict())
    pixels = ours.normalise(Batch("segmentation", ["a", "b"], images(side=128)))
    with torch.inference_mode():
        features = ours.backbone(pixels)
        maps = [pixels, *(features[f"c{n}"] for n in range(1, 6))]
        expected = other.segmentation_head(other.decoder(maps))
        torch.testing.assert_close(head(features, (128, 128)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "stride", "said"),
    [("deeplabv3", 32, "set network.output_stride=8 or 16"), ("unet", 16, "=32"), ("deeplab", 8, "expected one of")],
)
def test_a_head_that_cannot_be(kind, stride, said):
    with pytest.raises(WeightsError, match=said):
        SegmentationHead(kind, {f"c{n}": 8 for n in range(1, 6)}, 3, output_stride=stride)


def test_cross_entropy_is_torchs_with_class_weights_and_void():
    logits, weights = torch.randn(2, CLASSES, 97, 97), tuple(0.5 + i / 10 for i in range(CLASSES))
    found = pixel_losses(logits, truth(), Weighted(2.0, class_weights=weights))
    expected = F.cross_entropy(logits, truth(), torch.tensor(weights), ignore_index=255)
    assert found.keys() == {"cross_entropy"} and torch.allclose(found["cross_entropy"], 2 * expected)


def test_the_other_losses_are_those_of_their_package_and_their_formulas():
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, mask = torch.randn(2, CLASSES, 33, 33), truth(2, 33)
    found = pixel_losses(logits, mask, Weighted(0.0, 1.0, 0.5, 2.0))
    assert found.keys() == {"dice", "focal", "lovasz"}
    for name, weight, kind in (
        ("dice", 1.0, smp.losses.DiceLoss),
        ("focal", 0.5, smp.losses.FocalLoss),
        ("lovasz", 2.0, smp.losses.LovaszLoss),
    ):
        assert torch.allclose(found[name], weight * kind("multiclass", ignore_index=255)(logits, mask))
    there = mask != 255
    p, one = logits.softmax(1).movedim(1, 0)[:, there], F.one_hot(mask[there], CLASSES).T.float()
    dice = 1 - 2 * (p * one).sum(1) / (p.sum(1) + one.sum(1))
    assert found["dice"].item() == pytest.approx((dice * (one.sum(1) > 0)).mean().item(), abs=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal", "lovasz"])
def test_a_micro_batch_of_void_alone_has_no_loss_and_no_gradient(name):
    if name != "cross_entropy":
        pytest.importorskip("segmentation_models_pytorch")
    logits = torch.randn(1, CLASSES, 5, 5, requires_grad=True)
    weighted = Weighted(**{"cross_entropy": 0.0, name: 1.0})
    loss = pixel_losses(logits, torch.full((1, 5, 5), 255), weighted)[name]
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("weights", [None, (1.0, 0.5, 0.0, 3.0)])
def test_cross_entropy_by_rows_is_that_of_maps(weights):
    torch.manual_seed(0)
    truth = torch.randint(0, 4, (2, 9, 7))
    truth[0, :3] = 255
    each = None if weights is None else torch.tensor(weights)
    both = []
    for loss in (cross_entropy_by_rows, F.cross_entropy):
        logits = torch.linspace(-3, 3, 2 * 4 * 63).reshape(2, 4, 9, 7).sin().requires_grad_()
        value = loss(logits, truth, each, ignore_index=255) if loss is F.cross_entropy else loss(logits, truth, each)
        both.append((value, *torch.autograd.grad(value, logits)))
    torch.testing.assert_close(both[0], both[1])
    logits = torch.ones(1, 4, 3, 3, requires_grad=True)
    nothing = cross_entropy_by_rows(logits, torch.full((1, 3, 3), 255), each)
    assert nothing == 0 and not torch.autograd.grad(nothing, logits)[0].any()
