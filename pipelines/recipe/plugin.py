"""A user's file of recipes, with tasks, backbones and wrappers in its tables TASKS, BACKBONES and WRAPPERS.

Imports no torch.
"""

import contextlib
import linecache
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named
from trunkline.ground.storage import at_home

from ...backbones.table import WRAPPERS, architectures
from ...backbones.table import add as add_backbones
from ...tasks.contract import forgotten
from ...tasks.options import refuse_kind
from ...tasks.table import TASKS, Row, add

_LOADED: dict[tuple[str, str], types.ModuleType] = {}  # by file and source


def load(file: str | Path) -> types.ModuleType:
    """Run a file's code, once, and return its module; its tasks, backbones and wrappers are known from then on.

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
    """Do the same with a file's text, as it reaches a worker."""
    if (file, source) not in _LOADED:
        module = types.ModuleType(f"trunkline_plugin_{Path(file).stem}")
        module.__file__ = file
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for tracebacks
        sys.modules[module.__name__] = module  # where dataclasses and pickled objects look for it
        with blaming(Path(file)):
            exec(compile(source, file, "exec"), module.__dict__)  # a recipe file is code that its user names
        _add_tables(file, module)
        _LOADED[file, source] = module
    return _LOADED[file, source]


def texts(file: str | Path | None) -> list[tuple[str, str]]:
    """Read the file's name and text, as `load_all` takes them on a worker; an empty list where no file is given."""
    return [(str(file), Path(file).read_text(encoding="utf-8"))] if file else []


def file_of(recipe: str) -> Path | None:
    """Find the file in a recipe's name (`path/to/file.py` or `path/to/file.py:function`); None where it names no file."""
    file, colon, _ = at_home(recipe).partition(".py:")
    return Path(file + ".py") if colon else Path(file) if recipe.endswith(".py") else None


def load_all(files: list[tuple[str, str]]) -> None:
    """Load these files, by name and text, as `texts` gave them."""
    for file, source in files:
        load_source(file, source)


def _add_tables(file: str, module: types.ModuleType) -> None:
    """Register a file's tasks, backbones and wrappers. Raises RecipeError with everything that is wrong with its tables."""
    tables = {name: getattr(module, name, {}) for name in ("TASKS", "BACKBONES", "WRAPPERS")}
    problems = [f"{file}: {name}: expected a dict by name" for name, t in tables.items() if not isinstance(t, dict)]
    if problems:
        raise RecipeError(problems)
    own, known = tables["TASKS"], {"TASKS": TASKS, "BACKBONES": dict.fromkeys(architectures()), "WRAPPERS": WRAPPERS}
    for name, table in tables.items():
        problems += [f"{file}: {name}: {entry}: there is one of this name already; choose another"
                     for entry in sorted(table.keys() & known[name].keys())]  # fmt: skip
    for name, row in own.items():
        if not isinstance(row, Row):
            problems.append(f"{file}: TASKS: {name}: expected a Row(class, options) of trunkline.tasks.table")
        elif missing := forgotten(load_named(row.task)):
            problems.append(
                f"{file}: TASKS: {name}: the class {load_named(row.task).__name__} lacks {', '.join(missing)}"
            )
        elif (called := load_named(row.task).name) != name:
            problems.append(f"{file}: TASKS: {name}: its class is called {called}; give both the same name")
        else:
            problems += [f"{file}: TASKS: {line}" for line in refuse_kind(name, load_named(row.options))]
    if problems:
        raise RecipeError(problems)
    add(own)
    add_backbones(tables["BACKBONES"], tables["WRAPPERS"])


@contextlib.contextmanager
def blaming(file: Path) -> Iterator[None]:
    """Turn an error in a recipe's own code into a RecipeError with its file and line."""
    try:
        yield
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == file.name]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"{file}:{line}" if line else f"{file}"
        raise RecipeError(f"{place}: {type(error).__name__}: {error}; this recipe's own code fails") from None
