"""ResNeXt's block in its other two published forms (Xie et al. 2017, figure 3), made from the grouped one.

The grouped form is `Bottleneck` with `groups`. All three are the same function, in training too: norms before the
aggregation act per channel, and the last one acts on the aggregated sum.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from .residual import Bottleneck


class _Branches(nn.Module):
    """What the two forms share: per group a 1x1 and a 3x3 with their norms, all reading the block's input."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        if isinstance(block.bn1, nn.GroupNorm):
            raise WeightsError("norm=group mixes channels of several branches: the three forms then differ")
        groups = block.conv2.groups
        parts = zip(
            _split_out(block.conv1, groups),
            _split_norm(block.bn1, groups),
            _split_groups(block.conv2),
            _split_norm(block.bn2, groups),
            strict=True,
        )
        self.branches = nn.ModuleList(nn.Sequential(c1, n1, nn.ReLU(), c2, n2, nn.ReLU()) for c1, n1, c2, n2 in parts)
        self.bn3 = deepcopy(block.bn3)
        self.downsample = deepcopy(block.downsample)

    def _shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        return F.relu(self.bn3(out) + (x if self.downsample is None else self.downsample(x)))


class SplitTransformSum(_Branches):
    """Figure 3a: each branch ends in its own 1x1 to full width; the outputs are summed. Shapes as in Bottleneck.

    Built from a grouped Bottleneck with batch or frozen norms, whose weights it copies.
    """

    def __init__(self, block: Bottleneck) -> None:
        super().__init__(block)
        self.expand = nn.ModuleList(_split_in(block.conv3, block.conv2.groups))

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(sum_i T_i(x) + x), equation 3 with the last norm on the sum."""
        outs = [expand(branch(x)) for expand, branch in zip(self.expand, self.branches, strict=True)]
        return self._shortcut(torch.stack(outs).sum(0), x)


class EarlyConcatenation(_Branches):
    """Figure 3b: the branches' narrow outputs are concatenated and widened by one 1x1. Shapes as in Bottleneck.

    Built from a grouped Bottleneck with batch or frozen norms, whose weights it copies.
    """

    def __init__(self, block: Bottleneck) -> None:
        super().__init__(block)
        self.conv3 = deepcopy(block.conv3)

    def forward(self, x: Tensor) -> Tensor:
        """Compute relu(W [T_1(x), ..., T_C(x)] + x)."""
        return self._shortcut(self.conv3(torch.cat([branch(x) for branch in self.branches], dim=1)), x)


def _like(source: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    """Build a convolution without groups from this weight `(out, in, k, k)` and the source's geometry."""
    size = (source.kernel_size[0], source.stride[0], int(source.padding[0]), source.dilation[0])
    made = nn.Conv2d(weight.shape[1], weight.shape[0], *size, bias=False, device=weight.device, dtype=weight.dtype)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=source.weight.requires_grad)
    return made


def _split_out(source: nn.Conv2d, groups: int) -> list[nn.Conv2d]:
    return [_like(source, weight) for weight in source.weight.chunk(groups, dim=0)]


def _split_in(source: nn.Conv2d, groups: int) -> list[nn.Conv2d]:
    return [_like(source, weight) for weight in source.weight.chunk(groups, dim=1)]


def _split_groups(source: nn.Conv2d) -> list[nn.Conv2d]:
    # a grouped weight is (out, in / groups, k, k): its rows already belong to one group each
    return _split_out(source, source.groups)


def _split_norm(source: nn.Module, groups: int) -> list[nn.Module]:
    """Split a norm into norms of `channels / groups` channels each, with the source's numbers."""
    state = source.state_dict()
    norms = []
    for i in range(groups):
        part = {k: v.chunk(groups)[i] if v.dim() else v for k, v in state.items()}
        norm = deepcopy(source)
        setattr(norm, "num_features", len(part["weight"]))  # noqa: B010
        for name, value in part.items():
            _replace(norm, name, value.clone())
        norms.append(norm)
    return norms


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
