"""The files that the inputs of a prediction stand for."""

from collections.abc import Iterator
from pathlib import Path

from trunkline.ground.errors import RecipeError

from ...tasks.contract import Task


def find_nothing(inputs: list[str], task: type[Task]) -> None:
    """Raise RecipeError naming every input without a file that the task predicts, or where there are no inputs."""
    wrong = []
    for given in inputs:
        if next(iter(task.inputs(given)), None) is None:
            nothing = (
                f"there is no such file, no {task.inputs_are} in that folder, and nothing that this pattern matches"
            )
            wrong.append("; ".join(filter(None, [f"{given}: {nothing}", task.left_out(given)])))
    if wrong or not inputs:
        raise RecipeError(wrong or "nothing to predict: give files, folders or globs")


def expand(inputs: list[str], task: type[Task]) -> Iterator[Path]:
    """Yield the files that the inputs stand for, in order, each once."""
    seen: set[Path] = set()
    for given in inputs:
        for path in task.inputs(given):
            if len(inputs) > 1:  # a single input names no file twice
                if path in seen:
                    continue
                seen.add(path)
            yield path


def left_out(inputs: list[str], task: type[Task]) -> list[str]:
    """Say for each folder of the inputs which of its files look like inputs and are not predicted, where there are some."""
    return [f"{given}: {said}" for given in inputs if (said := task.left_out(given))]
