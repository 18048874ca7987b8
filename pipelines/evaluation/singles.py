"""Whether the runs that `evaluation.single` names were scored on what this run is scored on."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import is_remote

from ...cluster import checkpoint
from ...tasks.contract import Task
from ...tasks.data.fingerprint import compare
from ...tasks.options import belonging
from ...tasks.samples import Samples
from ...tasks.table import kind_of
from ..recipe.fields import Recipe
from ..recipe.plain import KIND
from ..runs.run import Run
from .changes import run_in


def compare_singles(recipe: Recipe, found: Mapping[str, tuple[Task, Samples]]) -> list[str]:
    """Compare the data of each single run that a recipe names with the validation split of its task here.

    `recipe` is the one that was given, which still names the runs. Returns lines for people about what could not be compared.
    Raises RecipeError for runs of another kind of task, and for those that were scored on other samples or classes.
    """
    notes, problems = [], []
    for name, text in recipe.evaluation.single.items():
        if (folder := run_in(str(text))) is None:
            continue
        given, (task, samples) = f"evaluation.single.{name}={text}", found[name]
        stored = _Stored(Run(folder))
        if wrong := stored.differs(task, samples):
            problems.append(
                f"{given}: {wrong}, so that the two cannot be compared. Score that run on this data (trunkline evaluate "
                f"{folder} {_data_of(task.options)}) and give METRIC:NUMBER as it says; or give METRIC:NUMBER of that run if "
                "you know that it is comparable"
            )
        elif unsure := stored.unsure(task):
            notes.append(f"{given}: {unsure}")
    if problems:
        raise RecipeError(problems)
    return notes


class _Stored:
    """What a run of one task stores about what it was scored on; each may be missing."""

    def __init__(self, run: Run):
        self.scores = run.scores
        self.manifest = run.manifest("val")
        options = run.recipe["resolved"].get("tasks", {}) if run.exists() else {}
        (self.name, self.options), *_ = options.items() or [("", {})]
        name = checkpoint.find(run.checkpoints) if run.checkpoints.is_dir() else None
        state = checkpoint.read_state(run.checkpoints / name) if name else {}
        self.classes = state.get("facts", {}).get("tasks", {}).get(self.name, {}).get("classes")
        self.data = str(self.scores.get("data") or self.options.get("data") or "data that it does not name")

    def differs(self, task: Task, samples: Samples) -> str:
        """Say how what was scored there differs from what is scored here; "" where no difference is known."""
        kind, own = kind_of(task.name, task.options), self.options.get(KIND, self.name)
        if own and own != kind:
            return f"is a run of the task {own}, and {task.name} is of {kind} here"
        count, data = self.scores.get("samples"), task.options.data
        both = (
            f"was scored on {count} samples of {self.data}, and {task.name} is scored on {len(samples)} of {data} here"
        )
        if self.manifest is not None:
            lines = samples.manifest()
            contents = data == self.data or not (is_remote(data) or is_remote(self.data))  # else marks of other storage
            there, here = (self.manifest, lines) if contents else (_names(self.manifest), _names(lines))
            if wrong := compare(there, here):
                return f"{both} ({wrong})"
        elif count != len(samples):
            return both
        if self.classes is not None and [*self.classes] != [*samples.classes]:
            there, here = (", ".join(map(str, names)) for names in (self.classes, samples.classes))
            return f"has the classes {there}, and {task.name} has {here} here"
        return ""

    def unsure(self, task: Task) -> str:
        """Say what may still differ: samples of another address that are not listed, or settings of scores."""
        said = []
        if self.manifest is None and self.data != task.options.data:
            said.append(
                f"lists no samples, as data/val.tsv is not there: taken as the same as they are as many; {self.data} there, "
                f"{task.options.data} here"
            )
        for key in sorted(belonging(task.options, "scores") & self.options.keys()):
            there, here = self.options[key], getattr(task.options, key)
            if there != ([*here] if isinstance(here, tuple) else here):
                said.append(f"was scored with {key}={_value(there)}, and {_value(here)} is set here")
        return "; ".join(said)


def _names(lines: list[str]) -> list[str]:
    """Keep of a manifest what does not depend on where the files lie."""
    return ["\t".join([*line.split("\t")[:2], "-", "-"]) for line in lines]


def _data_of(options: Any) -> str:
    """Write the settings that say which data a task has."""
    own = [f for f in fields(options) if f.name in belonging(options, "data") - {"data"}]
    said = {
        f.name: getattr(options, f.name) for f in own if f.default is MISSING or getattr(options, f.name) != f.default
    }
    return " ".join(f"{key}={_value(value)}" for key, value in {"data": options.data, **said}.items())


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
