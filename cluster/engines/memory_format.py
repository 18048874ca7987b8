"""The memory format of convolutions: the order in which weights and maps lie, which decides what kernel runs."""

import functools
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv2d, torch.conv_transpose2d, torch.conv3d)
_MODULES = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d)
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by rank


def place(model: nn.Module, device: torch.device | str, channels_last: bool) -> nn.Module:
    """Move the model to a device, with convolutions in the given memory format, and note it as `model.channels_last`."""
    lay_out(model, channels_last)
    setattr(model, "channels_last", channels_last)  # noqa: B010
    return model.to(device)


def lay_out(model: nn.Module, channels_last: bool) -> None:
    """Lay out the weights of convolutions in channels_last; with False, in the order of their elements."""
    for parameter in model.parameters():
        if parameter.ndim in _LAST:
            form = _LAST[parameter.ndim] if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=form)


def lay_out_calls(model: nn.Module, channels_last: bool) -> None:
    """Let convolutions see weights in channels_last, however these are stored; with False, as they are stored.

    For engines that must store weights in the order of their elements. The strides of a map of one pixel tell no order,
    so the weights decide what kernel runs, and with it the last bits.
    """
    for module in model.modules():
        if getattr(module.__dict__.get("forward"), "func", None) is _call:
            del module.__dict__["forward"]
        if channels_last and isinstance(module, _MODULES):
            module.__dict__["forward"] = functools.partial(_call, module.forward)


def _call(forward: Any, *args: Any, **kwargs: Any) -> Any:
    with _ChannelsLast():
        return forward(*args, **kwargs)


class _ChannelsLast(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS:
            args = (args[0], args[1].contiguous(memory_format=_LAST[args[1].ndim]), *args[2:])
        return func(*args, **(kwargs or {}))
