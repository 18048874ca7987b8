"""What options are to each other: a data folder's own, training's alone, those that follow another. Imports no torch."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal


def of_data(default: Any, kept: bool = False) -> Any:
    """A field of options that belongs to `data`; with `kept` it holds of other data too, until it is given anew."""
    return field(default=default, metadata={"of": "data", "kept": kept})


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
    """The options that do not hold of other data, at their defaults."""
    own = [f for f in fields(options) if f.metadata.get("of") == "data" and not f.metadata["kept"]]
    return {f.name: f.default for f in own if f.default is not MISSING}


@dataclass(frozen=True)
class TaskOptions:
    """What every task's options have: a folder of data, and what happens to a sample that cannot be read."""

    data: str = ""
    on_bad_sample: Literal["stop", "skip"] = "stop"
