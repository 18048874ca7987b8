"""C3D: eight 3x3x3 convolutions, plain. Tran et al. 2015, "Learning Spatiotemporal Features with 3D Convolutional Networks"."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..contract import Features
from ..residual import Staged
from .convolution import Conv3d
from .residual3d import check_clips

_STAGES = (
    (("conv1",), 64),
    (("conv2",), 128),
    (("conv3a", "conv3b"), 256),
    (("conv4a", "conv4b"), 512),
    (("conv5a", "conv5b"), 512),
)
"""The layers of each stage, by the paper's names, and their channels."""


class C3D(Staged):
    """Clips `(N, 3, T, H, W)`, normalised float, to `{"c1": (N, 64, T, H, W), ..., "c5": (N, 512, T/8, H/16, W/16)}`.

    Each map is the output of a stage, after its ReLU and before the pool: the first pool halves space alone, the others time
    too. There are no norms. The paper's last pool and its two fully connected layers (fc6, fc7), which fix the clip to 16
    frames of 112 x 112 pixels, are its head and no part of the trunk. Section 3.1, figure 3.
    """

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for number, (names, width) in enumerate(_STAGES, start=1):
            for name in names:
                self.add_module(name, Conv3d(before, width, 3, padding=1))
                before = width
            self.channels[f"c{number}"], self.strides[f"c{number}"] = width, 2 ** (number - 1)
            self.time_strides[f"c{number}"] = 2 ** max(0, number - 2)
        for module in self.children():
            nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, images: Tensor) -> Features:
        """Compute all maps, fine to coarse."""
        check_clips(self.arch, images)
        x, features = images, {}
        for number in range(1, len(_STAGES) + 1):
            if number > 1:
                x = F.max_pool3d(x, (1, 2, 2) if number == 2 else 2)
            stage = partial(self._stage, number)
            x = checkpoint(stage, x, use_reentrant=False) if self._recomputes(number) else stage(x)
            features[f"c{number}"] = x
            x = x.view_as(x)  # a node between the stages, as in `ResNet`
        return features

    def _stage(self, number: int, x: Tensor) -> Tensor:
        for name in _STAGES[number - 1][0]:
            x = F.relu(self.get_submodule(name)(x), inplace=True)
        return x

    def _parts(self) -> list[list[nn.Module]]:
        return [[self.get_submodule(name) for name in names] for names, _ in _STAGES]
