"""Images in; named feature maps out; weights in and out. Names are imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from .build import backbone, resnet
    from .contract import Backbone, Features, Preprocessing, WeightsError
    from .residual import BasicBlock, Bottleneck, ResNet
    from .table import ARCHITECTURES
    from .weights import LoadReport, Weights, load, read_weights, save_weights

_PUBLIC = {
    "ARCHITECTURES": "table",
    "Backbone": "contract",
    "BasicBlock": "residual",
    "Bottleneck": "residual",
    "Features": "contract",
    "LoadReport": "weights",
    "Preprocessing": "contract",
    "ResNet": "residual",
    "Weights": "weights",
    "WeightsError": "contract",
    "backbone": "build",
    "load": "weights",
    "read_weights": "weights",
    "resnet": "build",
    "save_weights": "weights",
}

__all__ = [
    "ARCHITECTURES",
    "Backbone",
    "BasicBlock",
    "Bottleneck",
    "Features",
    "LoadReport",
    "Preprocessing",
    "ResNet",
    "Weights",
    "WeightsError",
    "backbone",
    "load",
    "read_weights",
    "resnet",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
