"""A convolution over space and time whose gradients are right for short clips too."""

from torch import Tensor, nn
from torch.nn import functional as F


class Conv3d(nn.Conv3d):
    """torch's, `(N, C, T, H, W)` to the same kind; where T is below the kernel's frames, zeros are put around it beforehand.

    On CPUs with bf16, oneDNN's kernel leaves parts of such a weight's gradient unwritten, and writes past its end (seen in
    torch 2.14.1 with 2 <= T < frames of the kernel, also at T = 2 of 16 frames in R3D-18's last stage). Without padding of its
    own it is right, and the map is the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        frames, high, wide = self.padding
        if frames and input.shape[2] < self.kernel_size[0]:
            around = int(frames)
            input, frames = F.pad(input, (0, 0, 0, 0, around, around)), 0
        padding = (int(frames), int(high), int(wide))
        return F.conv3d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
