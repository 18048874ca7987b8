"""A file of one's own: recipes, and tasks for them (`TASKS` and `OPTIONS`, as in `tasks/table.py`). Imports no torch."""

import contextlib
import linecache
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named

from ...tasks.options import refuse_kind
from ...tasks.table import OPTIONS, TASKS, add

_LOADED: dict[tuple[str, str], types.ModuleType] = {}  # by file and source


def load(file: str | Path) -> types.ModuleType:
    """The module that a file is: its code is run, once, and its tasks are known from then on.

    Raises RecipeError where the file is not there, its code fails, or its tables do not fit.
    """
    path = Path(file)
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such recipe file")
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as Python ({error})") from None
    return load_source(str(path), source)


def load_source(file: str, source: str) -> types.ModuleType:
    """The same from a file's text, as it reaches a worker."""
    if (file, source) not in _LOADED:
        module = types.ModuleType(f"trunkline_plugin_{Path(file).stem}")
        module.__file__ = file
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for tracebacks
        sys.modules[module.__name__] = module  # where dataclasses and pickled objects look for it
        with blaming(Path(file)):
            exec(compile(source, file, "exec"), module.__dict__)  # a recipe file is code that its user names
        _add_tasks(file, module)
        _LOADED[file, source] = module
    return _LOADED[file, source]


def texts(file: str | Path | None) -> list[tuple[str, str]]:
    """The file's name and text, as `load_all` takes them on a worker; nothing where there is no file."""
    return [(str(file), Path(file).read_text(encoding="utf-8"))] if file else []


def file_of(recipe: str) -> Path | None:
    """The file of a recipe's name, as `path/to/file.py` or `path/to/file.py:function`; None of another one."""
    file, colon, _ = recipe.partition(".py:")
    return Path(file + ".py") if colon else Path(recipe) if recipe.endswith(".py") else None


def load_all(files: list[tuple[str, str]]) -> None:
    """Load what was loaded elsewhere."""
    for file, source in files:
        load_source(file, source)


def _add_tasks(file: str, module: types.ModuleType) -> None:
    tables: list[dict[str, Any]] = [getattr(module, name, {}) for name in ("TASKS", "OPTIONS")]
    if not all(isinstance(table, dict) for table in tables):
        raise RecipeError(f"{file}: TASKS and OPTIONS: expected a dict each, from a task's name to its class")
    tasks, options = tables
    if tasks.keys() != options.keys():
        odd = ", ".join(sorted(tasks.keys() ^ options.keys()))
        raise RecipeError(f"{file}: {odd}: expected each task in both tables, TASKS and OPTIONS")
    if taken := sorted(tasks.keys() & (TASKS.keys() | OPTIONS.keys())):
        raise RecipeError(f"{file}: TASKS: {', '.join(taken)}: there is such a task already; choose another name")
    if wrong := [line for name, kind in options.items() for line in refuse_kind(name, load_named(kind))]:
        raise RecipeError([f"{file}: {line}" for line in wrong])
    add(tasks, options)


@contextlib.contextmanager
def blaming(file: Path) -> Iterator[None]:
    """What goes wrong in a recipe's own code is told with its file and line."""
    try:
        yield
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == file.name]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"{file}:{line}" if line else f"{file}"
        raise RecipeError(f"{place}: {type(error).__name__}: {error}; this recipe's own code fails") from None
