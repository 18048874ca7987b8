"""A class for every pixel from the pyramid of a detector, so that both can stand on one trunk and pyramid.

Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", section 3.1. Parameter names are those of detectron2's
`SemSegFPNHead`.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.contract import Features
from .pixel_head import CROSS_ENTROPY, PixelHead, enlarged
from .pixel_losses import Weighted
from .segmentation_trunk import READS, check_trunk

KIND = "semantic_fpn"
WIDTH = 128
GROUPS = 32


class SemanticPyramidHead(PixelHead):
    """Logits of every class for every pixel, from the maps `p2` to `p5` of a pyramid of kind "pool".

    channels       of all maps by name
    classes        how many there are, K, the background among them
    output_stride  of the trunk: 32 alone, so that each level is half the one before, as the published names count them
    weighted       the losses and their weights

    Each level has as many 3 x 3 convolutions with GroupNorm (32 groups, whatever the trunk's norms are) and ReLU as it is
    steps of 2 from `p2`, at least one, each followed by an enlarging by 2 (but that of `p2`); all are added at `p2`'s size,
    a 1 x 1 convolution predicts, and its logits are enlarged to the images. It has no dropout and trains nothing beside.
    Raises WeightsError where there is no such pyramid, or for another output stride.
    """

    under = "sem_seg_head."

    def __init__(
        self, channels: Mapping[str, int], classes: int, *, output_stride: int = 32, weighted: Weighted = CROSS_ENTROPY
    ) -> None:
        super().__init__(KIND, classes, READS[KIND], weighted)
        check_trunk(KIND, channels, output_stride)
        for level, name in enumerate(self.needs):
            self.add_module(name, _scale_head(channels[name], level))
        self.predictor = nn.Conv2d(WIDTH, classes, 1)
        _initialise(self.predictor)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Compute logits `(N, K, H, W)` in fp32 at least for images of `size` H, W, whatever these are."""
        total = self.get_submodule("p2")(features["p2"])
        for name in self.needs[1:]:
            found = self.get_submodule(name)(features[name])
            if found.shape != total.shape:  # of images whose sides are no multiples of 32
                found = F.interpolate(found, size=total.shape[-2:], mode="bilinear", align_corners=False)
            total = total + found
        return enlarged(self.predictor(total), size)


class _Convolution(nn.Conv2d):
    """A 3 x 3 convolution with its norm as a part of it, as detectron2 names them, and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, WIDTH)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(self.norm(super().forward(input)))


def _scale_head(channels: int, level: int) -> nn.Sequential:
    """Build the convolutions of the level that is so many steps of 2 from `p2`, each followed by an enlarging by 2."""
    parts: list[nn.Module] = []
    for number in range(max(1, level)):
        parts.append(_Convolution(WIDTH if number else channels))
        if level:
            parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*parts)


def _initialise(conv: nn.Conv2d) -> None:
    """Draw weights as He et al. 2015 do, as detectron2 does."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
