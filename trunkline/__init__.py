"""Trunkline: one residual trunk, many heads, from a laptop to a cluster, to the same weights.

Every verb of the command line is a function here (`list` is `recipes`). Names are imported on first use, so that
`import trunkline` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:  # the same names, for editors; in a checkout the floors lie beside this folder and are not found
    from .backbones import backbone  # pyright: ignore[reportMissingImports]
    from .pipelines.api import (  # pyright: ignore[reportMissingImports]
        bench,
        check,
        convert,
        demo,
        doctor,
        evaluate,
        memory,
        model,
        predict,
        profile,
        recipes,
        score,
        show,
        train,
    )
    from .pipelines.runs.run import Run  # pyright: ignore[reportMissingImports]

_PUBLIC = {
    "backbone": "backbones:backbone",
    "model": "pipelines.api:model",
    "train": "pipelines.api:train",
    "evaluate": "pipelines.api:evaluate",
    "score": "pipelines.api:score",
    "predict": "pipelines.api:predict",
    "check": "pipelines.api:check",
    "convert": "pipelines.api:convert",
    "profile": "pipelines.api:profile",
    "show": "pipelines.api:show",
    "memory": "pipelines.api:memory",
    "recipes": "pipelines.api:recipes",
    "demo": "pipelines.api:demo",
    "doctor": "pipelines.api:doctor",
    "bench": "pipelines.api:bench",
    "Run": "pipelines.runs.run:Run",
}

__all__ = [
    "Run",
    "__version__",
    "backbone",
    "bench",
    "check",
    "convert",
    "demo",
    "doctor",
    "evaluate",
    "memory",
    "model",
    "predict",
    "profile",
    "recipes",
    "score",
    "show",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trunkline' has no attribute {name!r}; it has: {', '.join(sorted(_PUBLIC))}")
    module, attribute = _PUBLIC[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
