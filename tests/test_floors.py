"""The floors of the house: who may import whom, how long a file may be, what must stay light."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("backbones", "heads", "tasks", "cluster", "pipelines")
MAY = {
    "backbones": set(),
    "heads": {"backbones"},
    "tasks": {"heads", "backbones"},
    "cluster": set(),
    "pipelines": {"backbones", "heads", "tasks", "cluster"},
}
FILES = [f for floor in (*FLOORS, "trunkline") for f in sorted((ROOT / floor).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """The floors that a file imports, at any place in it."""
    depth = len(file.relative_to(ROOT).parts) - 1
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > depth:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trunkline."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("trunkline.")}
    return found & set(FLOORS)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_those_below(floor):
    for file in sorted((ROOT / floor).rglob("*.py")):
        assert imported(file) <= MAY[floor] | {floor}, f"{file} imports {imported(file) - MAY[floor] - {floor}}"


def test_no_file_is_longer_than_400_lines():
    long = {str(f.relative_to(ROOT)): n for f in FILES if (n := len(f.read_text().splitlines())) > 400}
    assert not long


def test_the_training_loop_is_one_page():
    assert len((ROOT / "pipelines/loop.py").read_text().splitlines()) <= 80


def test_every_package_is_listed_for_the_wheel():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {"trunkline" if f.parent.name == "trunkline" else ".".join(["trunkline", *f.parent.relative_to(ROOT).parts])
             for f in FILES}  # fmt: skip
    assert set(listed) == there


def test_tables_recipes_and_options_import_no_torch():
    light = [*ROOT.glob("*/table.py"), *(ROOT / "pipelines/recipes").glob("*.py"), *ROOT.glob("tasks/*/options.py")]
    light += [ROOT / "pipelines" / n for n in ("cli.py", "api.py", "knobs.py", "recipe.py", "machine.py", "run.py")]
    light += [ROOT / "cluster/config.py", ROOT / "cluster/schedule.py"]
    for file in light:
        top = [n for n in ast.parse(file.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {a.name for n in top if isinstance(n, ast.Import) for a in n.names} | {
            n.module or "" for n in top if isinstance(n, ast.ImportFrom)
        }
        assert not {n for n in names if re.match(r"(torch|torchvision|timm)\b", n)}, file
