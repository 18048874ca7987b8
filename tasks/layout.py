"""Which options say how a data folder is laid out: of other data they do not hold. Imports no torch."""

from dataclasses import MISSING, field, fields
from typing import Any


def of_data(default: Any) -> Any:
    """A field of options that belongs to `data`."""
    return field(default=default, metadata={"of": "data"})


def reset(options: Any) -> dict[str, Any]:
    """The options that belong to the data, at their defaults."""
    return {f.name: f.default for f in fields(options) if f.metadata.get("of") == "data" and f.default is not MISSING}
