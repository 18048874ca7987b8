"""The package as one folder, whichever way it is installed here: what travels to workers that do not have it."""

import shutil
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
FLOORS = ("backbones", "heads", "tasks", "cluster", "pipelines")
_LEAVE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def stage(folder: Path) -> Path:
    """Copy the package to `folder/trunkline` and return `folder`.

    In a checkout the floors stand beside the package, in a wheel inside it; the import system says where.
    """
    root = folder / PACKAGE
    _copy(root.name, root)
    for floor in FLOORS:
        if not (root / floor).exists():
            _copy(f"{root.name}.{floor}", root / floor)
    return folder


def _copy(package: str, to: Path) -> None:
    spec = find_spec(package)
    assert spec and spec.submodule_search_locations, package
    shutil.copytree(next(iter(spec.submodule_search_locations)), to, ignore=_LEAVE)
