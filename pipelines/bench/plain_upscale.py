"""A plain MSRResNet, as one writes it from BasicSR's description: what `bench upscale` measures beside ours."""

from torch import Tensor, nn
from torch.nn import functional as F


class PlainMSRResNet(nn.Module):
    """Small pictures `(N, 3, h, w)` in 0..1 to large ones `(N, 3, 4h, 4w)`."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*[_Block(width) for _ in range(blocks)])
        self.upconv1, self.upconv2 = (nn.Conv2d(width, width * 4, 3, 1, 1) for _ in range(2))
        self.conv_hr, self.conv_last = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the large pictures."""
        y = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        for up in (self.upconv1, self.upconv2):
            y = F.leaky_relu(F.pixel_shuffle(up(y), 2), 0.1, inplace=True)
        y = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.1, inplace=True))
        return y + F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))
