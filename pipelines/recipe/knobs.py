"""From `key=value` to a recipe: knobs, dotted keys, and every problem at once. Imports no torch."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest

from ...tasks.table import options as task_options
from ..recipes.table import RECIPES
from . import plugin
from .fields import Recipe
from .limits import check, check_options
from .tree import walk

_NAMES = {str(tuple[str, ...]), "collections.abc.Sequence[str] | None"}  # kinds that text with commas is split for


@dataclass(frozen=True)
class Resolved:
    """A recipe with every setting in place: what the user gave, and where each field's value comes from."""

    name: str
    given: dict[str, Any]
    recipe: Recipe
    origin: dict[str, str]  # "optimizer.lr" -> "lr=0.02", "default", "recipe"


def recipe_names() -> dict[str, str]:
    """The recipes by name, plug-ins (entry points `trunkline.recipes`) included."""
    found = {e.name: e.value for e in importlib.metadata.entry_points(group="trunkline.recipes")}
    return {**found, **RECIPES}


def load_named(target: Any) -> Any:
    """The object that `module:name` stands for; an object stands for itself."""
    if not isinstance(target, str):
        return target
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def recipe_function(name: str) -> Callable[..., Recipe]:
    """The function of a recipe: a name, or `path/to/file.py[:function]` (that file's code is run)."""
    if path := plugin.file_of(name):
        function = name.partition(".py:")[2]
        module = plugin.load(path)
        found = getattr(module, function or path.stem, None) or getattr(module, "recipe", None)
        if not callable(found):
            raise RecipeError(f"{path}: holds no function {function or path.stem!r} that returns a Recipe")
        return found  # pyright: ignore[reportReturnType]
    names = recipe_names()
    if name not in names:
        raise RecipeError(f"{name!r} is not a recipe{nearest(name, names)}; `trunkline list` shows them all")
    return load_named(names[name])


def resolve(name: str, given: dict[str, Any], also: Sequence[str] = ()) -> Resolved:
    """The recipe `name` with knobs and dotted keys applied. Raises RecipeError with every problem at once.

    `also` are names that are set elsewhere, which an unknown one may stand for.
    """
    function = recipe_function(name)
    hints = {n: h for n, h in get_type_hints(function).items() if n != "return"}
    problems = [f"{name}: its knob {n} needs an annotation and a default" for n, p in
                inspect.signature(function).parameters.items() if p.annotation is p.empty]  # fmt: skip
    knobs, dotted = {}, {}
    for key, text in given.items():
        if key in hints:
            _try(problems, knobs, key, lambda key=key, text=text: convert(hints[key], text, key))
        else:
            dotted[key] = text
    recipe = _call(function, knobs, problems)
    if recipe is None:  # its own complaint may come from a knob that is wrong already: check the dotted keys anyway
        recipe, unknown = _anyhow(function), True
    else:
        unknown = False
    fields = dict(walk(recipe)) if recipe else {}
    sets = {k: changed_by(function, knobs, k, hints[k]) for k in knobs} if not unknown else {}
    tree = to_plain(recipe) if recipe else {}
    for key, text in dotted.items():
        if recipe is None:
            break
        if key not in fields and not _is_free(recipe, key):
            problems.append(f"{key}={text}: there is no such setting{nearest(key, [*hints, *fields, *also])}")
            continue
        clash = [k for k, paths in sets.items() if key in paths and fields[key] == knobs[k]]
        if clash:
            problems.append(f"{key}={text} and {clash[0]}={given[clash[0]]} set the same field: give one of them")
            continue
        _try(problems, tree, key, lambda key=key, text=text: convert(type_at(recipe, key), text, key), put=put_at)
    if problems:
        with contextlib.suppress(RecipeError):
            _try(problems, {}, "", lambda: check(from_plain(tree)))
        raise RecipeError(problems)
    result = from_plain(tree)
    check(result)
    return Resolved(name, dict(given), result, origins(result, given, sets, dotted))


def convert(kind: Any, value: Any, key: str) -> Any:
    """A value of the annotated type from the command line's text. Raises RecipeError saying what was expected."""
    if isinstance(value, PurePath):
        value = str(value)
    elif type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if kind is Any:  # a free option, such as optimizer.options.betas: what JSON makes of it
        return next(iter(_parsed(value, lists=list)), value) if isinstance(value, str) else value
    candidates = [tuple(value) if isinstance(value, list) else value]
    if isinstance(value, str):
        if value.lower() in ("none", "null") and type(None) in get_args(kind):
            return None
        names = [tuple(value.split(","))] if _NAMES & {str(kind)} else []
        candidates = [value, *_parsed(value), *names]
    for candidate in candidates:
        try:
            return TypeAdapter(kind).validate_python(candidate, strict=not isinstance(candidate, str))
        except ValidationError:
            continue
    for candidate in candidates[1:]:
        try:
            return TypeAdapter(kind).validate_python(candidate)
        except ValidationError:
            continue
    hint = nearest(str(value), [str(a) for a in _choices(kind)]) if _choices(kind) else ""
    raise RecipeError(f"{key}={value}: expected {describe(kind)}{hint}")


def typed(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as the annotations of the function's keyword arguments want them. Raises RecipeError with every problem."""
    hints = {n: h for n, h in get_type_hints(function).items() if n != "return"}
    signature = inspect.signature(function).parameters
    known = [n for n, p in signature.items() if p.kind is p.KEYWORD_ONLY and n != "launch"]
    problems: list[str] = []
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known:
            problems.append(
                f"{key}={value}: there is no such setting{nearest(key, known)}; there are {', '.join(known)}"
            )
            continue
        _try(problems, found, key, lambda key=key, value=value: convert(hints[key], value, key))
    problems += [
        f"{n}= is missing" for n in known if n not in settings and signature[n].default is inspect.Parameter.empty
    ]
    if problems:
        raise RecipeError(problems)
    return found


def with_options(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`typed` for a function that takes the options of a task too: what is none of its own settings is one of these."""
    known = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    given = {k: v for k, v in settings.items() if k in known and k not in ("options", "launch")}
    rest = {k: v for k, v in settings.items() if k not in given}
    problems: list[str] = []
    own: dict[str, Any] = {}
    _try(problems, own, "own", lambda: typed(function, given))
    problems += [problem for key, value in rest.items() for problem in _no_option(key, value, known)]
    if problems:
        raise RecipeError(problems)
    return {**own["own"], "options": rest}


def _no_option(key: str, value: Any, known: list[str]) -> list[str]:
    """What is wrong with a setting that should be an option of a task, whichever the task will be."""
    kinds = {name: load_named(target) for name, target in task_options().items()}
    having = {name: kind for name, kind in kinds.items() if key in get_type_hints(kind)}
    if not having:
        names = dict.fromkeys([*known, *(k for kind in kinds.values() for k in get_type_hints(kind))])
        own = ", ".join(k for k in known if k not in ("options", "launch"))
        theirs = "; ".join(f"of {name}: {', '.join(get_type_hints(kind))}" for name, kind in kinds.items())
        return [
            f"{key}={value}: there is no such setting{nearest(key, names)}; there are {own}, and the task's options "
            f"({theirs})"
        ]
    found: list[str] = []
    for name, kind in having.items():
        try:
            check_options(name, dataclasses.replace(kind(), **{key: convert(get_type_hints(kind)[key], value, key)}))
            return []
        except RecipeError as error:
            found = found or error.problems
    return found


def describe(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        words = dict.fromkeys(describe(a) for a in get_args(kind))
        if any(word.startswith("one of") and word.endswith(", none") for word in words):
            words.pop("none", None)
        return " or ".join(words)
    if str(kind) in _NAMES:
        return "names separated by commas"
    if get_origin(kind) is tuple:
        many = get_args(kind)[1:] in ((), (...,))
        return "numbers separated by commas" if many else f"{len(get_args(kind))} numbers separated by commas"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return words.get(kind, str(getattr(kind, "__name__", kind)))


def type_at(recipe: Recipe, key: str) -> Any:
    """The annotation of the field at a dotted key."""
    node, last = _holder(recipe, key)
    return Any if isinstance(node, dict) else get_type_hints(type(node))[last]


def _holder(recipe: Recipe, key: str) -> tuple[Any, str]:
    """What holds the field at a dotted key, and the field's name."""
    *path, last = key.split(".")
    node: Any = recipe
    for part in path:
        node = (
            node[part]
            if isinstance(node, dict)
            else node[int(part)]
            if isinstance(node, tuple)
            else getattr(node, part)
        )
    return node, last


def put_at(tree: Any, key: str, value: Any) -> None:
    """Set the value at a dotted key of a plain tree."""
    *path, last = key.split(".")
    for part in path:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    tree[last] = value


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON data."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def from_plain(tree: dict[str, Any]) -> Recipe:
    """The recipe that `to_plain` wrote. Raises RecipeError naming each key that is unknown or of a wrong type."""
    tree = dict(tree)
    problems: list[str] = []
    tasks: dict[str, Any] = {}
    known = task_options()
    for name, options in tree.pop("tasks", {}).items():
        if name not in known:
            problems.append(
                f"tasks.{name}: there is no such task{nearest(name, known)}; of a recipe file's own task, give plugin=FILE"
            )
            continue
        kind = load_named(known[name])
        _try(
            problems, tasks, name, lambda kind=kind, options=options, name=name: _valid(kind, options, f"tasks.{name}.")
        )
    rest: dict[str, Any] = {}
    _try(problems, rest, "recipe", lambda: _valid(Recipe, {"tasks": {}, **tree}, ""))
    if problems:
        raise RecipeError(problems)
    return dataclasses.replace(rest["recipe"], tasks=tasks)


def changed_by(function: Callable[..., Recipe], knobs: dict[str, Any], key: str, kind: Any) -> set[str]:
    """The fields that a knob sets, found by turning it."""
    base = dict(walk(function(**knobs)))
    changed: set[str] = set()
    for other in _others(kind, knobs[key], inspect.signature(function).parameters[key].default):
        turned = _anyhow(function, {**knobs, key: other})
        changed |= {k for k, v in walk(turned) if base.get(k, v) != v} if turned else set()
    return changed


def origins(recipe: Recipe, given: dict, sets: dict[str, set[str]], dotted: dict) -> dict[str, str]:
    """Where each field's value comes from: a key that was given, the recipe, or the field's default."""
    result = {}
    for key, value in walk(recipe):
        knobs = [f"{k}={given[k]}" for k, paths in sets.items() if key in paths]
        own = [
            f"{k}={v}" for k, v in dotted.items() if k == key or (k.startswith(f"{key}.") and isinstance(value, dict))
        ]
        result[key] = ", ".join(own) or (knobs[0] if knobs else _default(recipe, key, value))
    return result


def _default(recipe: Recipe, key: str, value: Any) -> str:
    node, last = _holder(recipe, key)
    own = {f.name: f for f in dataclasses.fields(node)}[last] if dataclasses.is_dataclass(node) else None
    if own is None:
        return "recipe"
    default = own.default_factory() if own.default_factory is not dataclasses.MISSING else own.default
    return "default" if default == value else "recipe"


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


def _call(function: Callable[..., Recipe], knobs: dict[str, Any], problems: list[str]) -> Recipe | None:
    needed = [n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty]
    missing = [f"{n}= is missing: this recipe needs it" for n in needed if n not in knobs]
    if missing:
        problems.extend(missing)
        return None
    try:
        with plugin.blaming(Path(inspect.getfile(function))):
            recipe = function(**knobs)
    except RecipeError as error:
        problems.extend(error.problems)
        return None
    if not isinstance(recipe, Recipe):
        problems.append(f"{function.__name__}: gave {type(recipe).__name__}; a recipe's function returns a Recipe")
        return None
    return recipe


def _anyhow(function: Callable[..., Recipe], knobs: dict[str, Any] | None = None) -> Recipe | None:
    for attempt in [knobs] if knobs is not None else [{}, {"smoke": True}]:
        with contextlib.suppress(Exception, SystemExit):
            recipe = function(**attempt)
            return recipe if isinstance(recipe, Recipe) else None
    return None


def _try(problems: list[str], target: Any, key: str, make: Callable[[], Any], put=dict.__setitem__) -> None:
    try:
        put(target, key, make())
    except RecipeError as error:
        problems.extend(error.problems)


def _parsed(text: str, lists: type = tuple) -> list[Any]:
    found = []
    for attempt in (text, f"[{text}]"):
        try:
            found.append(json.loads(attempt))
        except json.JSONDecodeError:
            continue
    return [lists(v) if isinstance(v, list) else v for v in found]


def _choices(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [c for a in get_args(kind) for c in _choices(a)] if get_origin(kind) in (Union, types.UnionType) else []


def _others(kind: Any, value: Any, default: Any) -> list[Any]:
    others = [default, *[c for c in _choices(kind)]]
    if isinstance(value, bool):
        others.append(not value)
    elif isinstance(value, (int, float)):
        others.append(value * 2 + 1)
    elif isinstance(value, str) and not _choices(kind):
        others.append(value + "-other")
    return [o for o in others if o is not inspect.Parameter.empty and o != value]


def _is_free(recipe: Recipe, key: str) -> bool:
    """Whether a dotted key goes into a free-form dictionary, such as `optimizer.options.betas`."""
    parent = key.rsplit(".", 1)[0]
    return parent in dict(walk(recipe)) and isinstance(dict(walk(recipe))[parent], dict)
