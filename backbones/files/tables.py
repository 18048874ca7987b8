"""The dictionaries of tensors in a file, wherever in it they stand."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..video.names import spelled_as_ours
from .pickles import Inert, TensorRef

_OF_MODULE = ("_parameters", "_buffers", "_modules")  # the dictionaries in which torch's modules keep what they have
_MOST = 100_000  # containers, and modules, that are looked through
_TABLES = 1000  # dictionaries of tensors that are looked at, those near the top first
_DEEP = 48  # containers within containers, and modules within modules


@dataclass(frozen=True)
class Table:
    """A dictionary of tensors in a file: the keys that lead to it; `module` is the class where it was a whole module."""

    path: tuple[str, ...]
    values: dict[str, Any]
    module: str = ""


def tables_in(tree: Any) -> list[Table]:
    """List the dictionaries of tensors in a file, those near its top first; a whole module's are put together."""
    found: list[Table] = []
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    seen: dict[int, Table | None] = {}
    while waiting and len(seen) < _MOST and len(found) < _TABLES:
        path, node = waiting.popleft()
        if id(node) in seen:  # the same dictionary under another key
            again = seen[id(node)]
            found += [replace(again, path=path)] if again else []
            continue
        table, inner = _table(path, node)
        seen[id(node)] = table
        found += [table] if table else []
        if len(path) < _DEEP:
            waiting += [((*path, str(k)), v) for k, v in inner.items() if isinstance(v, dict | list | tuple | Inert)]
    return found


def _table(path: tuple[str, ...], node: Any) -> tuple[Table | None, dict[Any, Any]]:
    """Read a node of a file as a dictionary of tensors, if it is one; return what is in it too, where to look further."""
    if isinstance(node, Inert) and (module := _of_module(node)):
        return Table(path, module, node.named), {}
    inner = node.attributes if isinstance(node, Inert) else node
    if not isinstance(inner, dict):
        return None, dict(enumerate(inner)) if isinstance(inner, list | tuple) else {}
    if any(map(is_tensor, inner.values())) and (not path or any("." in str(k) for k in inner)):
        return Table(path, {str(k): v for k, v in inner.items() if isinstance(k, str | int)}), inner
    return None, inner


def _of_module(node: Inert) -> dict[str, Any]:
    """Put together the tensors of a whole module: its parameters and buffers, and those of the modules in it."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", node)]
    for _ in range(_MOST):
        if not waiting:
            break
        prefix, module = waiting.pop()
        state = module.attributes if isinstance(module, Inert) else {}
        parts = [part for key in _OF_MODULE if isinstance(part := state.get(key), dict)]
        if len(parts) < len(_OF_MODULE):
            continue
        own = {name: value for part in parts[:2] for name, value in part.items() if is_tensor(value)}
        found |= {f"{prefix}{name}": value for name, value in own.items()}
        waiting += [(f"{prefix}{name}.", inner) for name, inner in parts[2].items() if prefix.count(".") < _DEEP]
    return found


def is_tensor(value: Any) -> bool:
    """Say whether a value of a file is a tensor, of whatever kind."""
    return isinstance(value, Tensor | TensorRef) or (
        isinstance(value, Inert) and re.match(r"torch\._utils\._rebuild_\w*tensor", value.named) is not None
    )


def is_read(value: Any) -> bool:
    """Say whether a value of a file is a tensor that can be read."""
    return isinstance(value, Tensor | TensorRef)


def nothing(tree: Any) -> str:
    """Say what is in a file that holds no tensors by name."""
    return f"no tensors by name in it (found: {_spelled(tree) or 'nothing'}); expected a state_dict"


def _spelled(node: Any, deep: int = 2) -> str:
    if isinstance(node, Inert):
        return f"an object of {node.named}, which was not made"
    if not isinstance(node, dict):
        return type(node).__name__
    inner = [
        f"{k}: {_spelled(v, deep - 1)}" if deep and isinstance(v, dict | Inert) else str(k) for k, v in node.items()
    ]
    return ", ".join(inner[:8])


def clean(values: Mapping[str, Any]) -> dict[str, str]:
    """Map names without what torch.compile puts between to the names as they are; TSM's and mmaction2's to torchvision's."""
    found: dict[str, str] = {}
    for own in values:
        name = own.replace("_orig_mod.", "")
        found[own if name in found else name] = own
    return spelled_as_ours(found, {name: len(getattr(values[own], "shape", ())) for name, own in found.items()})


def shared_prefix(table: Table) -> str:
    """Find the wrappers' prefix that all tensors of a table share."""
    names, prefix = [n for n, own in clean(table.values).items() if is_tensor(table.values[own])], ""
    for wrapper in ("module.", "model.") * 2:
        if names and all(name.startswith(prefix + wrapper) for name in names if name != "n_averaged"):
            prefix += wrapper
    return prefix
