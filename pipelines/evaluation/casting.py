"""Weights that autocast would cast in every call, cast once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
"""Layers whose weight and bias autocast casts before all else; a class derived from one may do something else first."""


WEIGHTS = ("weight", "bias")  # not what torch's older weight norm keeps beside them


@dataclass(frozen=True)
class _Cast:
    """A cast weight, and what it was made of: `whole` keeps that memory, so that its address names nothing else."""

    weight: Tensor
    whole: Tensor
    version: int

    def of(self, parameter: Tensor, dtype: torch.dtype) -> bool:
        """Say whether the parameter, as it is now, has this cast."""
        same = self.whole.data_ptr() == parameter.data_ptr() and self.version == parameter._version
        return same and self.weight.dtype == dtype


_kept: "WeakKeyDictionary[nn.Module, dict[str, _Cast]]" = WeakKeyDictionary()


@contextlib.contextmanager
def cast_once(model: nn.Module, dtype: torch.dtype, keep: bool = True) -> Iterator[None]:
    """Show the model's LAYERS their weights in autocast's type while this lasts; the same numbers come out.

    With `keep` the cast weights stay for the next time, as long as the model lives, and are made anew where a weight has
    changed in a way that torch counts. Fused optimizers are not counted: keep nothing of a model that is being trained.
    """
    kept = _kept.setdefault(model, {}) if keep else {}
    shown: list[tuple[dict[str, Any], str, Tensor]] = []
    for path, layer in model.named_modules():
        own: dict[str, Any] = layer._parameters
        for name in WEIGHTS if type(layer) in LAYERS else ():
            whole, key = own.get(name), f"{path}.{name}"
            if whole is None or whole.dtype != torch.float32 or whole.is_inference():
                continue
            if key not in kept or not kept[key].of(whole, dtype):
                kept[key] = _Cast(whole.detach().to(dtype), whole.detach(), whole._version)
            shown.append((own, name, whole))
            own[name] = kept[key].weight
    try:
        yield
    finally:
        for own, name, whole in shown:
            own[name] = whole
