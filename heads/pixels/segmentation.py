"""A class for every pixel: DeepLabV3 and V3+, FCN, U-Net and a feature pyramid, put together from others' parts.

Chen et al. 2017, "Rethinking Atrous Convolution"; Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution";
Long et al. 2015; Ronneberger et al. 2015; Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", section 3.1.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from ...backbones.contract import Features
from ...backbones.norm import norm_layer
from ..boxes import at_least_fp32
from ..contract import Batch
from .pixel_head import CROSS_ENTROPY, PixelHead, enlarged
from .pixel_losses import Weighted, pixel_losses
from .segmentation_trunk import ON_PYRAMID, READS, check_trunk, last_of, misfit

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""The authors' atrous rates by output stride (Chen et al. 2017, section 4.1); twice the stride, twice the rate."""


class SegmentationHead(PixelHead):
    """Logits of every class for every pixel.

    kind           deeplabv3, deeplabv3plus, fcn, unet, fpn
    channels       of the trunk's maps by name; `c1` may be absent, and `c5` where a head reads the deepest map alone
    classes        how many there are, K, the background among them
    output_stride  of the trunk; decides the atrous rates of the deeplabs
    dropout        None leaves it as published (0.5 in an atrous pyramid, 0.1 in an FCN, 0.2 in fpn)
    aux            weight of the cross-entropy of an FCN on `c4` that is trained beside; 0 has none
    weighted       the losses and their weights
    norm           of its own norms: batch, sync or group; frozen is batch here, as there is nothing to keep

    Parameter names are torchvision's for deeplabv3 and fcn (`classifier.…`, `aux_classifier.…`), and those of
    segmentation-models-pytorch for the rest (`decoder.…`, `segmentation_head.…`). Raises WeightsError for another kind,
    an output stride that it is not made for, or where that package is needed and not installed.
    """

    trunk = "backbone."
    """Under which the trunk's tensors stand in a published file: torchvision's segmenters have them there."""

    def __init__(
        self, kind: str, channels: Mapping[str, int], classes: int, *, output_stride: int = 32,
        dropout: float | None = None, aux: float = 0.0, weighted: Weighted = CROSS_ENTROPY, norm: str = "batch",
    ) -> None:  # fmt: skip
        super().__init__(kind, classes, (), weighted)
        if kind in ON_PYRAMID:
            raise WeightsError(f"head={kind}: stands on a pyramid; make a SemanticPyramidHead")
        check_trunk(kind, channels, output_stride, aux)
        self.aux, self.last, self.output_stride = aux, last_of(channels), output_stride
        also = {*READS[kind], *(("c4",) if aux else ()), *(("c1",) if kind == "unet" and "c1" in channels else ())}
        self.needs = tuple(sorted({*also, self.last}))
        for name, part in _parts(kind, channels, classes, output_stride).items():
            self.add_module(name, part)
        if aux:
            from torchvision.models.segmentation.fcn import FCNHead

            self.aux_classifier = FCNHead(channels["c4"], classes)
        if norm in ("sync", "group"):
            _change_norms(self, norm_layer(norm))
        for module in self.modules():
            if dropout is not None and isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = dropout

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Compute logits `(N, K, H, W)` in fp32 at least for images of `size` H, W."""
        if self.kind in ("deeplabv3", "fcn"):
            return enlarged(self.get_submodule("classifier")(features[self.last]), size)
        read = {name: tuple(features[name].shape[-2:]) for name in (*READS[self.kind], self.last)}
        if said := misfit(self.kind, self.output_stride, read):
            raise WeightsError(said)
        last = features[self.last]
        maps = []
        for level in range(5):  # of the images, and of a map that the trunk lacks, the decoders read the size alone
            height, width = (-(-side // 2**level) for side in size)
            maps.append(features.get(f"c{level}", last.new_empty((len(last), 0, height, width))))
        maps.append(last)
        return at_least_fp32(self.get_submodule("segmentation_head")(self.get_submodule("decoder")(maps)))

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of `weighted`, and `aux`, as PixelHead does.

        Raises WeightsError for a single image where a batch norm follows a pooling to one pixel.
        """
        assert batch.images is not None
        if len(batch) == 1 and self.training and _pools_with_batch_norm(self):
            raise WeightsError(
                f"head={self.kind} pools each image to one pixel, whose batch norm needs two images at least, and this "
                "micro-batch has one: set micro_batch=2 or more, or network.norm=group"
            )
        found = super().losses(features, batch)
        if self.aux:
            height, width = batch.images.shape[-2:]
            beside = enlarged(self.aux_classifier(features["c4"]), (height, width))
            alone = Weighted(class_weights=self.weighted.class_weights)
            truth = batch.targets["mask"].long()
            found["aux"] = self.aux * pixel_losses(beside, truth, alone)["cross_entropy"]
        return found


def _pools_with_batch_norm(head: nn.Module) -> bool:
    """Say whether a batch norm follows a pooling to one pixel, as in an atrous pyramid."""
    for part in head.modules():
        inside = list(part.children()) if isinstance(part, nn.Sequential) else []
        if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in inside):
            return any(isinstance(m, nn.BatchNorm2d) for m in inside)
    return False


def _change_norms(module: nn.Module, layer: Callable[[int], nn.Module]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, layer(child.num_features))
        else:
            _change_norms(child, layer)


def _parts(kind: str, channels: Mapping[str, int], classes: int, output_stride: int) -> dict[str, Any]:
    last = last_of(channels)
    if kind == "deeplabv3":
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead

        return {"classifier": DeepLabHead(channels[last], classes, RATES[output_stride])}
    if kind == "fcn":
        from torchvision.models.segmentation.fcn import FCNHead

        return {"classifier": FCNHead(channels[last], classes)}
    from segmentation_models_pytorch.base import SegmentationHead as Last

    maps = [0, *(channels.get(f"c{level}", 0) for level in range(1, 5)), channels[last]]
    if kind == "unet":
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        return {"decoder": UnetDecoder(maps, (256, 128, 64, 32, 16)), "segmentation_head": Last(16, classes)}
    if kind == "fpn":
        from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

        return {"decoder": FPNDecoder(maps), "segmentation_head": Last(128, classes, kernel_size=1, upsampling=4)}
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    build: Any = DeepLabV3PlusDecoder  # its strides are literals, ours a number that was checked
    return {
        "decoder": build(maps, 5, 256, RATES[output_stride], output_stride, True, 0.5),
        "segmentation_head": Last(256, classes, kernel_size=1, upsampling=4),
    }
