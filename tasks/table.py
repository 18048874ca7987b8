"""The tasks that there are: a name, and where its class and its options stand. Imports no torch."""

from importlib.metadata import entry_points
from typing import Any

TASKS = {
    "classification": "trunkline.tasks.classification.task:Classification",
    "detection": "trunkline.tasks.detection.task:Detection",
    "segmentation": "trunkline.tasks.segmentation.task:Segmentation",
}
OPTIONS = {
    "classification": "trunkline.tasks.classification.options:Options",
    "detection": "trunkline.tasks.detection.options:Options",
    "segmentation": "trunkline.tasks.segmentation.options:Options",
}


_ADDED: tuple[dict[str, Any], dict[str, Any]] = ({}, {})


def add(tasks: dict[str, Any], options: dict[str, Any]) -> None:
    """Know tasks by name in this process: their classes, and those of their options."""
    _ADDED[0].update(tasks)
    _ADDED[1].update(options)


def tasks() -> dict[str, Any]:
    """The classes by name, ours first; those of other packages (entry points `trunkline.tasks`), and those that were added."""
    return {**TASKS, **{e.name: e.value for e in entry_points(group="trunkline.tasks")}, **_ADDED[0], **TASKS}


def options() -> dict[str, Any]:
    """Their options by name, with those of other packages (entry points `trunkline.options`) and those that were added."""
    return {e.name: e.value for e in entry_points(group="trunkline.options")} | _ADDED[1] | OPTIONS
