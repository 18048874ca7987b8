"""A recipe as JSON data and back, also from the words of older versions. Imports no torch."""

import dataclasses
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named, nearest

from ...tasks.options import refuse_kind
from ...tasks.table import kind_of
from ...tasks.table import options as task_options
from .convert import attempt
from .fields import Recipe

KIND = "kind"
"""The key of a task's options that says which task of the table it is, where its name does not."""
RENAMED = {"machine.workers": "machine.loaders"}
"""Keys that had another name, as old recipes and habits still have them."""


def in_new_words(given: dict[str, Any]) -> dict[str, Any]:
    """Put each old key under its new name, and say so. Raises RecipeError where both are given."""
    old = [key for key in given if key in RENAMED]
    if both := [key for key in old if RENAMED[key] in given]:
        names = {key: RENAMED[key] for key in both}
        raise RecipeError(
            [f"{key} and {new} are one setting under two names: give {new} alone" for key, new in names.items()]
        )
    for key in old:
        from trunkline.ground.progress import say

        say(f"{key} is called {RENAMED[key]} now; it was taken as that")
    return {RENAMED.get(key, key): value for key, value in given.items()}


def renamed(tree: dict[str, Any]) -> dict[str, Any]:
    """Put the old keys of a stored recipe's plain tree under their new names, in a copy."""
    tree = {name: dict(node) if isinstance(node, dict) else node for name, node in tree.items()}
    for old, new in RENAMED.items():
        (section, was), (_, now) = old.split("."), new.split(".")
        if was in tree.get(section, {}):
            tree[section].setdefault(now, tree[section].pop(was))
    return tree


def put_at(tree: Any, key: str, value: Any) -> None:
    """Set the value at a dotted key of a plain tree."""
    *path, last = key.split(".")
    for part in path:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    tree[last] = value


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to JSON data."""
    tree = json.loads(json.dumps(dataclasses.asdict(recipe)))
    for name, options in recipe.tasks.items():
        if (kind := kind_of(name, options)) != name:
            tree["tasks"][name][KIND] = kind
    return tree


def from_plain(tree: dict[str, Any]) -> Recipe:
    """Build the recipe that `to_plain` wrote. Raises RecipeError naming each key that is unknown or of a wrong type."""
    tree = renamed(tree)
    problems: list[str] = []
    tasks: dict[str, Any] = {}
    known = task_options()
    for name, stored in tree.pop("tasks", {}).items():
        options = dict(stored)
        of = options.pop(KIND, name)
        if of not in known:
            called = "" if of == name else f" ({of})"
            problems.append(
                f"tasks.{name}: there is no such task{called}{nearest(of, known)}; of a recipe file's own task, give "
                "plugin=FILE, whose TASKS names it"
            )
            continue
        kind = load_named(known[of])
        if wrong := refuse_kind(name, kind):  # another package's: a file's own were checked as it was loaded
            problems += wrong
            continue
        attempt(
            problems, tasks, name, lambda kind=kind, options=options, name=name: _valid(kind, options, f"tasks.{name}.")
        )
    rest: dict[str, Any] = {}
    attempt(problems, rest, "recipe", lambda: _valid(Recipe, {"tasks": {}, **tree}, ""))
    if problems:
        raise RecipeError(problems)
    return dataclasses.replace(rest["recipe"], tasks=tasks)


def _valid(kind: Any, tree: dict, prefix: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(_known(kind, tree, prefix))
    except ValidationError as error:
        lines = [f"{prefix}{'.'.join(str(p) for p in e['loc'])}={e['input']}: {e['msg']}" for e in error.errors()]
        raise RecipeError(lines) from None


def _known(kind: Any, tree: dict, prefix: str) -> dict:
    names = [f.name for f in dataclasses.fields(kind)]
    wrong = [f"{prefix}{k}: there is no such setting{nearest(k, names)}" for k in tree if k not in names]
    if wrong:
        raise RecipeError(wrong)
    return tree
