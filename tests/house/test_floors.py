"""The floors of the house: who may import whom, what stays small, what stays light."""

import ast
import re
import statistics
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUND = "trunkline.ground"
MAY = {  # besides the ground floor and itself
    "backbones": set(),
    "heads": {"backbones"},
    "tasks": {"heads", "backbones"},
    "cluster": set(),
    "pipelines": {"backbones", "heads", "tasks", "cluster"},
}
FILES = [f for floor in (*MAY, "trunkline") for f in sorted((ROOT / floor).rglob("*.py"))]
RECIPES = ROOT / "pipelines/recipes"


def module_of(file: Path) -> str:
    """`trunkline.tasks.images.decode` of `tasks/images/decode.py`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    whole = parts if parts[0] == "trunkline" else ("trunkline", *parts)
    return ".".join(whole[:-1] if whole[-1] == "__init__" else whole)


MODULES = {module_of(f): f for f in FILES}


def imported(file: Path, types: bool = False) -> set[str]:
    """The modules of ours that a file imports, at any place in it; what only type checkers read aside, but for `types`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    unread = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
              for inner in ast.walk(node)}  # fmt: skip
    package = module_of(file).split(".") if file.name == "__init__.py" else module_of(file).split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in unread and not types) or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            found |= {n.name for n in node.names}
            continue
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        found |= {name if (name := f"{base}.{n.name}") in MODULES else base for n in node.names}
    return (found & MODULES.keys()) - {module_of(file)}


IMPORTS = {module: imported(file) for module, file in MODULES.items()}


def floor_of(module: str) -> str:
    return GROUND if module.startswith(GROUND) else [*module.split("."), "front door"][1]


@pytest.mark.parametrize("floor", MAY)
def test_a_floor_imports_only_those_below(floor):
    for module in (m for m in MODULES if floor_of(m) == floor):
        above = {
            m for m in IMPORTS[module] if floor_of(m) not in MAY[floor] | {floor, GROUND} and m != "trunkline._version"
        }
        assert not above, f"{module} imports {', '.join(sorted(above))}"


def test_the_ground_floor_imports_nothing_of_ours():
    for module in (m for m in MODULES if floor_of(m) == GROUND):
        assert {floor_of(m) for m in IMPORTS[module]} <= {GROUND}, f"{module} imports {IMPORTS[module]}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other: what is left when nodes without a way in or out are taken away again and again."""
    left = {a: set(b) for a, b in graph.items()}
    while ends := [a for a in left if not left[a] & left.keys() or not any(a in b for b in left.values())]:
        for a in ends:
            del left[a]
    return [[f"{a} -> {b}" for a in left for b in sorted(left[a] & left.keys())]] if left else []


def test_no_file_imports_one_that_imports_it():
    """Nor do two that know each other by their types alone; front doors name what stands behind them."""
    doors = {"trunkline", "trunkline.backbones"}
    assert circles({m: imported(f, types=True) for m, f in MODULES.items() if m not in doors}) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b -> c", "c -> b"]]


def test_no_file_is_longer_than_400_lines():
    files = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
    assert not {str(f.relative_to(ROOT)): n for f in files if (n := len(f.read_text().splitlines())) > 400}


def test_no_folder_holds_more_than_16_files():
    for folder in {f.parent for f in (*FILES, *(ROOT / "tests").rglob("*.py"))}:
        files = [f.name for f in folder.iterdir() if f.is_file()]
        assert len(files) <= 16, f"{folder.relative_to(ROOT)}: {len(files)} files"


def test_functions_are_short():
    lengths = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                where = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
                lengths[where] = 0 if RECIPES in file.parents else node.end_lineno - node.lineno + 1
    assert {where: n for where, n in lengths.items() if n > 60} == {}
    assert statistics.median(n for n in lengths.values() if n) <= 8


def test_the_training_loop_is_one_page():
    assert len((ROOT / "pipelines/training/loop.py").read_text().splitlines()) <= 80


def test_every_package_is_listed_for_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == {module_of(f.parent / "__init__.py") for f in FILES}


LIGHT = ("*/table.py", "heads/*/table.py", "cluster/*/table.py", "pipelines/recipes/*.py", "pipelines/recipes/*/*.py",
         "pipelines/recipe/[!d]*.py",
         "tasks/*/options.py", "tasks/options.py", "pipelines/command/*.py", "pipelines/api.py", "pipelines/runs/*.py",
         "cluster/config.py", "cluster/engines/schedule.py", "cluster/*/*_options.py", "pipelines/launch/[!w]*.py",
         "trunkline/ground/[!k]*.py")  # fmt: skip


@pytest.mark.parametrize("pattern", LIGHT)
def test_what_answers_at_once_imports_no_torch(pattern):
    for file in ROOT.glob(pattern):
        top = [n for n in ast.parse(file.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {a.name for n in top if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in top if isinstance(n, ast.ImportFrom)}
        assert not {n for n in names if re.match(r"(torch|torchvision|timm)\b", n)}, file


def test_no_merge_was_left_half_done():
    marks = [mark * 7 for mark in "<>"]
    for file in (f for f in ROOT.rglob("*") if f.suffix in (".py", ".md", ".toml", ".html") and ".venv" not in f.parts):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(tuple(marks))], file
