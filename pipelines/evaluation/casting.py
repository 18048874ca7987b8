"""Weights that autocast would cast in every call, cast once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
"""Layers whose weight and bias autocast casts before all else; a class derived from one may do something else first."""


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
    layers = [(path, layer) for path, layer in model.named_modules() if type(layer) in LAYERS]
    shown = [
        (layer, name, p, f"{path}.{name}")
        for path, layer in layers
        for name, p in layer._parameters.items()
        if name in ("weight", "bias")
    ]
    shown = [
        each for each in shown if each[2] is not None and each[2].dtype == torch.float32 and not each[2].is_inference()
    ]
    for layer, name, parameter, key in shown:
        assert parameter is not None
        if key not in kept or not kept[key].of(parameter, dtype):
            kept[key] = _Cast(parameter.detach().to(dtype), parameter.detach(), parameter._version)
        layer._parameters[name] = kept[key].weight  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer, name, parameter, _ in shown:
            layer._parameters[name] = parameter
