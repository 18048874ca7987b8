"""A recipe's tree as dotted keys. Imports no torch."""

import dataclasses
from collections.abc import Iterator
from typing import Any


def walk(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a recipe with its dotted key."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from walk(getattr(value, f.name), f"{prefix}{f.name}.")
    elif isinstance(value, dict) and any(dataclasses.is_dataclass(v) for v in value.values()):
        for k, v in value.items():
            yield from walk(v, f"{prefix}{k}.")
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
        for i, v in enumerate(value):
            yield from walk(v, f"{prefix}{i}.")
    else:
        yield prefix.rstrip("."), value
