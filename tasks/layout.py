"""What options are to each other: a data folder's own, training's alone, those that follow another. Imports no torch."""

from dataclasses import MISSING, field, fields
from typing import Any


def of_data(default: Any) -> Any:
    """A field of options that belongs to `data`."""
    return field(default=default, metadata={"of": "data"})


def of_training(default: Any) -> Any:
    """A field of options that nothing but training reads."""
    return field(default=default, metadata={"of": "training"})


def following(other: str, default: Any) -> Any:
    """A field of options that keeps its proportion to the field `other` where that alone is given."""
    return field(default=default, metadata={"follows": other})


def followed(options: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The options that follow those that are given anew, and are not among them."""
    pairs = [(f.name, f.metadata["follows"]) for f in fields(options) if "follows" in f.metadata]
    return {
        name: max(1, round(getattr(options, name) * given[other] / getattr(options, other)))
        for name, other in pairs
        if other in given and name not in given
    }


def belonging(options: Any, to: str) -> set[str]:
    """The names of the options that belong to `data`, or to `training`."""
    return {f.name for f in fields(options) if f.metadata.get("of") == to}


def reset(options: Any) -> dict[str, Any]:
    """The options that belong to the data, at their defaults."""
    return {f.name: f.default for f in fields(options) if f.metadata.get("of") == "data" and f.default is not MISSING}
