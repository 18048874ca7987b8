"""One vector of a clip's steps: their mean, an LSTM, a transformer encoder.

Each takes steps `(N, T, C)` and `real`, `(N, T)` bool, which steps are no padding (None: all); the first step of a clip
is always real. It gives `(N, width)`. What stands in the padding has no influence, be it NaN, and none has gradient.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..boxes import at_least_fp32

ATTENTION_HEADS = 4


class Mean(nn.Module):
    """The mean over the real steps, of as many channels as they have. It learns nothing, and is blind to their order."""

    width = 0

    def forward(self, steps: Tensor, real: Tensor | None = None) -> Tensor:
        """Average steps `(N, T, C)` to `(N, C)`, in fp32 or better."""
        return mean_of(steps, real)


class Recurrent(nn.Module):
    """An LSTM over the steps; the mean of its outputs.

    It runs forward in time alone, so that what follows a clip cannot reach its real steps. Between layers there is no
    dropout: cuDNN's has a state of its own, which no key seeds.
    """

    def __init__(self, channels: int, width: int, layers: int, dropout: float = 0.0):
        super().__init__()
        self.width = width
        self.lstm = nn.LSTM(channels, width, layers, batch_first=True)

    def forward(self, steps: Tensor, real: Tensor | None = None) -> Tensor:
        """Run over normalised steps `(N, T, C)` and average the real outputs to `(N, width)`."""
        return mean_of(self.lstm(normalised(steps, real))[0], real)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each on a normalised copy and added to its input (Xiong et al. 2020, pre-norm).

    The perceptron is four times as wide, with a GELU. Dropout acts on what is added.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        """Compute `(N, T, width)` from the same."""
        x = x + self.dropout(self.attention(self.norm1(x), real))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x)))))

    def attention(self, x: Tensor, real: Tensor | None) -> Tensor:
        """Compute softmax(q k / sqrt(d)) v in each head (Vaswani et al. 2017, 3.2); a step looks at itself and earlier ones.

        Padding is no key. Written out: the steps are few, and fused kernels have backwards that are not deterministic.
        """
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        if real is not None:
            seen = seen & real[:, None, None, :]
        scores = scores.masked_fill(~seen, -math.inf)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A linear layer to `width`, sinusoidal positions, pre-norm blocks, a last norm; the mean of the real outputs.

    Steps look back in time alone, as an LSTM does. Where all look at all, the mean of the outputs tells an order from its
    reverse by the positions alone, and a trunk that starts from random values was never seen to learn it.
    """

    def __init__(self, channels: int, width: int, layers: int, dropout: float = 0.0):
        super().__init__()
        self.width = width
        self.embed = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(Block(width, ATTENTION_HEADS, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: Tensor, real: Tensor | None = None) -> Tensor:
        """Encode normalised steps `(N, T, C)` and average the real outputs to `(N, width)`."""
        x = at_least_fp32(self.embed(normalised(steps, real)))
        x = x + positions(x.shape[1], self.width, x)
        for block in self.blocks:
            x = block(x, real)
        return mean_of(self.norm(x), real)


def positions(steps: int, width: int, like: Tensor) -> Tensor:
    """Compute the sines and cosines that stand for a step's place, `(steps, width)` (Vaswani et al. 2017, 3.5).

    Any number of steps has them, so that no clip is too long. Device and type are those of `like`.
    """
    place = torch.arange(steps, device=like.device, dtype=like.dtype)
    rate = torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(10000.0) / width)
    angles = place[:, None] * rate.exp()
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def normalised(steps: Tensor, real: Tensor | None) -> Tensor:
    """Scale each step's features to a mean square of 1, so that one learning rate fits every trunk; padding becomes 0."""
    if real is not None:
        steps = steps.masked_fill(~real[..., None], 0)
    return F.rms_norm(at_least_fp32(steps), (steps.shape[-1],))


def mean_of(steps: Tensor, real: Tensor | None) -> Tensor:
    """Average the real steps of `(N, T, C)` to `(N, C)`, in fp32 or better."""
    steps = at_least_fp32(steps)
    if real is None:
        return steps.mean(1)
    return steps.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True)
