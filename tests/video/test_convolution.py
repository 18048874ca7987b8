"""Gradients of convolutions over time are right in bf16 too, however short a clip is."""

import pytest
import torch
from torch import nn

from trunkline.backbones import backbone
from trunkline.backbones.table import CLIPS
from trunkline.backbones.video.convolution import Conv3d
from trunkline.backbones.video.inflated import RepeatedConv3d


def gradients(
    frames: int, kernel: tuple[int, int, int], stride: int, kind: torch.dtype, last: bool
) -> list[torch.Tensor]:
    """Of the weights and the clip, and the map itself. Memory that is used again holds large numbers."""
    torch.manual_seed(0)
    padding = tuple(side // 2 for side in kernel)
    conv = Conv3d(32, 32, kernel, (stride, 1, 1), padding, bias=False)
    clips = torch.randn(2, 32, frames, 5, 5)
    if last:
        conv, clips = (
            conv.to(memory_format=torch.channels_last_3d),
            clips.contiguous(memory_format=torch.channels_last_3d),
        )
    clips.requires_grad_()
    junk = [torch.full_like(conv.weight, 1e4) for _ in range(8)]
    del junk
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        out = conv(clips)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype))
    return [t.detach().float() for t in (conv.weight.grad, clips.grad, out)]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kernel", [(3, 1, 1), (3, 3, 3), (5, 3, 3)])
def test_bf16_is_near_fp32_however_short_the_clip(kernel, last):
    for frames in (1, 2, 3, 4, 5):
        for stride in (1, 2):
            wanted = gradients(frames, kernel, stride, torch.float32, last)
            for a, b in zip(gradients(frames, kernel, stride, torch.bfloat16, last), wanted, strict=True):
                assert float((a - b).norm() / b.norm()) < 0.02, (frames, stride)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_map_is_torchs(frames):
    torch.manual_seed(0)
    own = Conv3d(3, 8, (5, 3, 3), 1, (2, 1, 1))
    plain = nn.Conv3d(3, 8, (5, 3, 3), 1, (2, 1, 1))
    plain.load_state_dict(own.state_dict())
    clips = torch.randn(2, 3, frames, 6, 6)
    torch.testing.assert_close(own(clips), plain(clips), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLIPS)
def test_all_trunks_for_clips_are_made_of_it(name):
    with torch.device("meta"):
        trunk = backbone(name)
    over_time = [m for m in trunk.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1]
    assert over_time and all(isinstance(m, Conv3d | RepeatedConv3d) for m in over_time)
