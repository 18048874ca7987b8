"""Exponential moving average of weights and buffers, with a step count that survives a resume."""

import torch
from torch import Tensor, nn

from ..config import Average
from .sums import foreach, has_mean


def live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List what is averaged of a model, by name: the parameters that learn, and the buffers that a checkpoint holds."""
    live: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return live | {n: b for n, b in model.named_buffers() if n in model.state_dict()}


class MovingAverage:
    """`average <- average + (1 - decay) (weights - average)` after every update, in the weights' own precision.

    `live` are the tensors that learn, by name; `shadow` are their averages. Floating-point buffers (batch norm's
    statistics) are averaged alike; others are copied. `steps` counts the updates averaged; it sets the decay's
    warm-up and is part of a checkpoint.
    """

    def __init__(self, live: dict[str, Tensor], config: Average):
        self.config, self.steps, self.live = config, 0, live
        self.shadow = {n: t.detach().clone() for n, t in live.items()}
        self._floats = [n for n, t in live.items() if t.is_floating_point() and has_mean(t)]
        self._rest = [n for n in live if n not in set(self._floats)]

    def decay(self) -> float:
        """Compute the decay of the next step."""
        n = self.steps
        return min(self.config.decay, (1 + n) / (10 + n)) if self.config.warmup else self.config.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the model's present weights."""
        weight = 1.0 - self.decay()
        foreach._foreach_lerp_([self.shadow[n] for n in self._floats], [self.live[n] for n in self._floats], weight)
        if self._rest:
            foreach._foreach_copy_([self.shadow[n] for n in self._rest], [self.live[n] for n in self._rest])
        self.steps += 1

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Put back a saved average."""
        for name, tensor in self.shadow.items():
            tensor.copy_(tensors[name])
        self.steps = steps
