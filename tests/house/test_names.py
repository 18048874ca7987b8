"""What is for all tasks names none of them: no task, no metric, nothing of their details."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from trunkline.tasks.scores import Metric
from trunkline.tasks.table import TASKS

ROOT = Path(__file__).parents[2]
ROOMS = ("pipelines/report", "pipelines/training", "pipelines/command", "pipelines/show.py", "cluster")
DETAILS = {
    "class_ap",
    "mask_class_ap",
    "class_iou",
    "class_accuracy",
    "confusion",
    "per_class",
    "calibration",
    "mistakes",
}


def metrics() -> set[str]:
    """The names of the metrics in the tables of the tasks' evaluators, and of what says how they are shown."""
    files = [*ROOT.glob("tasks/*/evaluator.py"), *ROOT.glob("tasks/*/shown.py")]
    modules = [importlib.import_module(f"trunkline.tasks.{f.parent.name}.{f.stem}") for f in files]
    tables = [table for module in modules for table in vars(module).values() if isinstance(table, dict)]
    return {name for table in tables for name, metric in table.items() if isinstance(metric, Metric)}


def words(place: Path) -> dict[str, set[str]]:
    """The words of every file of code and every template, by its path."""
    files = [place] if place.is_file() else [f for f in place.rglob("*") if f.suffix in (".py", ".html")]
    return {str(f.relative_to(ROOT)): {*re.findall(r"\w+", f.read_text(encoding="utf-8"))} for f in files}


def test_the_tables_are_read():
    assert {"classification", "detection", "segmentation"} <= {*TASKS}
    assert {"top1", "nll", "AP50", "mask_ARl", "mAP07", "mIoU", "boundary_IoU"} <= metrics()


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_for_all_tasks_names_none(room):
    names = {*TASKS} | metrics() | DETAILS
    assert {file: found & names for file, found in words(ROOT / room).items() if found & names} == {}


NO_VERBS = re.compile(
    "(a|all|an|and|as|at|before|between|by|each|every|for|from|how|in|its?|no|none|nothing|of|one|our|several|that|the|"
    "their|these|they|this|those|until|what|when|where|whether|which|while|who|why|without)"
)


def begins_with_a_verb(said: str) -> bool:
    """Say whether a docstring may begin so: a capital letter, no possessive, and none of the words that are no verbs."""
    first = said.split()[0].strip(".,:;")
    return (
        first[0].isalpha() and first[0].isupper() and not first.endswith("'s") and not NO_VERBS.fullmatch(first.lower())
    )


def docstrings(file: Path) -> list[tuple[str, str]]:
    """List the functions and methods of a file that have a docstring, with it; properties may begin with a noun."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    ours = [n for n in functions if not any("property" in ast.unparse(d) for d in n.decorator_list)]
    return [(n.name, said) for n in ours if (said := ast.get_docstring(n))]


def test_a_functions_docstring_begins_with_a_verb():
    floors = ("backbones", "heads", "tasks", "cluster", "pipelines", "trunkline")
    found = [(f, name, said) for floor in floors for f in ROOT.glob(f"{floor}/**/*.py") for name, said in docstrings(f)]
    assert len(found) > 1000
    nouns = [f"{f.relative_to(ROOT)}: {name}: {said}" for f, name, said in found if not begins_with_a_verb(said)]
    assert nouns == []
    assert not begins_with_a_verb("The maps by name.") and begins_with_a_verb("Return the maps by name.")
