"""Plain segmenters, as one puts them together from torchvision and smp: what `bench segment` measures beside ours."""

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet, resnet50


def deeplab(kind: str, classes: int, dropout: float = 0.0) -> nn.Module:
    """Build torchvision's DeepLabV3 at output stride 16, or smp's V3+ decoder on torchvision's dilated ResNet-50.

    It maps `(N, 3, H, W)` float pictures to `(N, classes, H, W)` logits.
    """
    model = (_V3 if kind == "deeplabv3" else _V3Plus)(classes)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def _trunk() -> ResNet:
    trunk = resnet50(replace_stride_with_dilation=[False, False, True])
    del trunk.fc
    return trunk


def _maps(t: ResNet, x: Tensor) -> list[Tensor]:
    maps = [x, t.relu(t.bn1(t.conv1(x)))]
    y = t.maxpool(maps[-1])
    for stage in (t.layer1, t.layer2, t.layer3, t.layer4):
        y = stage(y)
        maps.append(y)
    return maps


class _V3(nn.Module):
    def __init__(self, classes: int) -> None:
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead

        super().__init__()
        self.backbone, self.classifier = _trunk(), DeepLabHead(2048, classes, (6, 12, 18))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.classifier(_maps(self.backbone, x)[-1]), x.shape[-2:], mode="bilinear")


class _V3Plus(nn.Module):
    def __init__(self, classes: int) -> None:
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

        super().__init__()
        self.backbone = _trunk()
        self.decoder = DeepLabV3PlusDecoder([3, 64, 256, 512, 1024, 2048], 5, 256, (6, 12, 18), 16, True, 0.5)
        self.segmentation_head = SegmentationHead(256, classes, 1, upsampling=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.segmentation_head(self.decoder(_maps(self.backbone, x)))
