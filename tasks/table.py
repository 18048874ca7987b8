"""The tasks that there are: a name, and where its class and its options stand. Imports no torch."""

from importlib.metadata import entry_points

TASKS = {"classification": "trunkline.tasks.classification.task:Classification"}
OPTIONS = {"classification": "trunkline.tasks.classification.options:Options"}


def tasks() -> dict[str, str]:
    """The classes by name, with those of other packages (entry points `trunkline.tasks`)."""
    return {e.name: e.value for e in entry_points(group="trunkline.tasks")} | TASKS


def options() -> dict[str, str]:
    """Their options by name, with those of other packages (entry points `trunkline.options`)."""
    return {e.name: e.value for e in entry_points(group="trunkline.options")} | OPTIONS
