"""From `key=value` to a recipe: knobs, dotted keys, and every problem at once. Imports no torch."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named, nearest

from ...tasks.options import hint_of
from ..recipes.table import RECIPES
from . import plugin
from .convert import attempt, choices, convert
from .fields import Recipe
from .limits import check
from .plain import from_plain, in_new_words, put_at, to_plain
from .tree import walk


@dataclass(frozen=True)
class Resolved:
    """A recipe with every setting in place: what the user gave, and where each field's value comes from."""

    name: str
    given: dict[str, Any]
    recipe: Recipe
    origin: dict[str, str]  # "optimizer.lr" -> "lr=0.02", "default", "recipe"


def recipe_names() -> dict[str, str]:
    """Find where each recipe's function stands, by the recipe's name; plug-ins (entry points `trunkline.recipes`) too."""
    found = {e.name: e.value for e in importlib.metadata.entry_points(group="trunkline.recipes")}
    return {**found, **RECIPES}


def recipe_function(name: str) -> Callable[..., Recipe]:
    """Load the function of a recipe: a name, or `path/to/file.py[:function]` (that file's code is run).

    Raises RecipeError where there is none.
    """
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
    """Apply knobs and dotted keys to the recipe `name`. Raises RecipeError with every problem at once.

    `also` are names of settings read elsewhere: the message about an unknown one may suggest them.
    """
    function, given = recipe_function(name), in_new_words(given)
    hints = {n: h for n, h in get_type_hints(function).items() if n != "return"}
    problems = [f"{name}: its knob {n} needs an annotation and a default" for n, p in
                inspect.signature(function).parameters.items() if p.annotation is p.empty]  # fmt: skip
    knobs, dotted = {}, {}
    for key, text in given.items():
        if key in hints:
            attempt(problems, knobs, key, lambda key=key, text=text: convert(hints[key], text, key))
        else:
            dotted[key] = text
    recipe = _call(function, knobs, problems)
    if recipe is None:  # perhaps because of a wrong knob that is told already: check the dotted keys anyway
        recipe, unknown = _anyhow(function), True
    else:
        unknown, recipe = False, complete(recipe)
    fields = dict(walk(recipe)) if recipe else {}
    sets = {k: changed_by(function, knobs, k, hints[k]) for k in knobs} if not unknown else {}
    tree = to_plain(recipe) if recipe else {}
    others = _variants(function, knobs, {n: hints[n] for n in given if n in hints}) if problems else []
    places = {key: place_of(recipe, key) for key in dotted} if recipe else {}
    for key, text in dotted.items():
        if recipe is None:
            break
        at = places[key]
        if not _is_there(recipe, at):
            if any(_is_there(other, place_of(other, key)) for other in others):
                continue  # it may be there once the mistakes that are told already are mended
            if unknown and "tasks" in given and _no_task(recipe, key):
                continue  # the knob that says which tasks there are is wrong, which is told already
            why = (
                _no_task(recipe, key)
                or _of_network(recipe, key)
                or f"there is no such setting{nearest(key, [*hints, *_short(recipe), *fields, *also])}"
            )
            problems.append(f"{key}={text}: {why}")
        elif why := _why_not(recipe, key, places):
            problems.append(f"{key}={text}{why}")
        elif clash := [k for k, paths in sets.items() if at in paths and fields[at] == knobs[k]]:
            problems.append(f"{key}={text} and {clash[0]}={given[clash[0]]} set the same field: give one of them")
        else:
            attempt(problems, tree, at, lambda at=at, key=key, text=text: _value(recipe, at, text, key), put=put_at)
    if problems:
        told: list[str] = []
        with contextlib.suppress(RecipeError):
            attempt(told, {}, "", lambda: check(from_plain(tree)))
        # of other tasks than those that are meant, perhaps, nobody was asked for data
        problems += [line for line in told if not (unknown and "data= is missing" in line)]
        raise RecipeError(problems)
    result = from_plain(tree)
    check(result)
    return Resolved(
        name, dict(given), result, origins(result, given, sets, {k: (places[k], v) for k, v in dotted.items()})
    )


def place_of(recipe: Recipe, key: str) -> str:
    """Write a setting's key in full: an option of the one task of a recipe may be given by its name alone.

    A field of the recipe with that name comes first; what is no setting, or may be of several tasks, stays as it is.
    """
    if len(recipe.tasks) != 1 or _is_there(recipe, key):
        return key
    full = f"tasks.{next(iter(recipe.tasks))}.{key}"
    return full if _is_there(recipe, full) else key


def _short(recipe: Recipe) -> list[str]:
    """List the names of the options of a recipe's one task."""
    return [f.name for options in recipe.tasks.values() for f in dataclasses.fields(options)] * (len(recipe.tasks) == 1)


def _is_there(recipe: Recipe, key: str) -> bool:
    """Say whether a dotted key is a field of the recipe, or goes into a free-form dictionary of it."""
    return key in dict(walk(recipe)) or _is_free(recipe, key)


def _why_not(recipe: Recipe, key: str, places: dict[str, str]) -> str:
    """Say why a setting that is there cannot be given so; `places` are the full keys of all that were given."""
    if key.startswith("batch.") and len(recipe.tasks) > 1:
        own = ", ".join(f"batches.{name}.{key.removeprefix('batch.')}" for name in recipe.tasks)
        return f": every task has batches of its own here; give {own}"
    if key != places[key] and places[key] in places:
        return f" and {places[key]} set the same field: give one of them"
    return ""


def _value(recipe: Recipe, at: str, text: Any, key: str) -> Any:
    """Convert the value for the field at a dotted key. Raises RecipeError, which calls it by the key that was given."""
    try:
        return convert(type_at(recipe, at), text, key)
    except RecipeError as error:
        first, *rest = at.split(".")
        hint = hint_of(recipe.tasks[rest[0]], rest[1]) if first == "tasks" and len(rest) == 2 else ""
        raise RecipeError([problem + hint for problem in error.problems]) from None


def complete(recipe: Recipe) -> Recipe:
    """Give each of several tasks its own `batches`, `loss_weights`, `mix` and `norms`, so that each can be seen and changed."""
    if len(recipe.tasks) < 2:
        return recipe
    return dataclasses.replace(
        recipe,
        batches={name: recipe.batches.get(name, recipe.batch) for name in recipe.tasks} | recipe.batches,
        loss_weights=dict.fromkeys(recipe.tasks, 1.0) | recipe.loss_weights,
        mix=dict.fromkeys(recipe.tasks, 1.0) | recipe.mix,
        norms={name: recipe.norms.get(name, "shared") for name in recipe.tasks} | recipe.norms,
    )


def _no_task(recipe: Recipe, key: str) -> str:
    """Say that a key such as `batches.NAME.size` names no task, where that is so."""
    first, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if first not in ("tasks", "batches", "loss_weights", "mix", "norms") or not name or name in recipe.tasks:
        return ""
    return f"there is no such task{nearest(name, recipe.tasks)}; there are {', '.join(recipe.tasks)}"


def _of_network(recipe: Recipe, key: str) -> str:
    """Say that a key such as `tasks.NAME.output_stride` is of the trunk, where that is so; the tasks share it."""
    first, last = key.partition(".")[0], key.rpartition(".")[2]
    if first != "tasks" or first == last or not hasattr(recipe.network, last):
        return ""
    own = getattr(recipe.network, last)
    return f"one trunk serves all tasks, and has one {last}, network.{last} ({own} here)"


def type_at(recipe: Recipe, key: str) -> Any:
    """Find the annotated type of the field at a dotted key; inside a dictionary, of its values."""
    node, last = _holder(recipe, key)
    if not isinstance(node, dict):
        return get_type_hints(type(node))[last]
    holder, field = _holder(recipe, key.rpartition(".")[0])
    kind = Any if isinstance(holder, dict) else get_type_hints(type(holder))[field]
    return get_args(kind)[1] if get_origin(kind) is dict else Any


def _holder(recipe: Recipe, key: str) -> tuple[Any, str]:
    """Find what holds the field at a dotted key, and the field's name."""
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


def changed_by(function: Callable[..., Recipe], knobs: dict[str, Any], key: str, kind: Any) -> set[str]:
    """Find the fields that a knob sets, by calling the recipe with other values of it."""
    base = dict(walk(function(**knobs)))
    changed: set[str] = set()
    for other in _others(kind, knobs[key], inspect.signature(function).parameters[key].default):
        turned = _anyhow(function, {**knobs, key: other})
        changed |= {k for k, v in walk(turned) if base.get(k, v) != v} if turned else set()
    return changed


def origins(
    recipe: Recipe, given: dict, sets: dict[str, set[str]], dotted: dict[str, tuple[str, Any]]
) -> dict[str, str]:
    """Say where each field's value comes from: a key that was given, the recipe, or the field's default.

    `dotted` are the keys that are no knobs, as they were given, each with its full key and its value.
    """
    result = {}
    for key, value in walk(recipe):
        knobs = [f"{k}={given[k]}" for k, paths in sets.items() if key in paths]
        own = [
            f"{k}={v}"
            for k, (at, v) in dotted.items()
            if at == key or (at.startswith(f"{key}.") and isinstance(value, dict))
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
    for given in [knobs] if knobs is not None else [{}, {"smoke": True}]:
        with contextlib.suppress(Exception, SystemExit):
            recipe = function(**given)
            return recipe if isinstance(recipe, Recipe) else None
    return None


def _variants(function: Callable[..., Recipe], knobs: dict[str, Any], given: dict[str, Any]) -> list[Recipe]:
    """Call a recipe whose knobs are wrong with some of them, or with other values, where it then gives a recipe.

    `given` has the types of the knobs that were given; `knobs` the values of those that could be converted.
    """
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    settings = [{name: value for name, value in knobs.items() if name != left} for left in knobs]
    for name, kind in given.items():
        values = [*([knobs[name]] if name in knobs else []), *_others(kind, defaults[name], defaults[name])]
        settings += [{name: value, **more} for value in values for more in ({}, {"smoke": True})]
    return [made for each in settings if (made := _anyhow(function, each))]


def _others(kind: Any, value: Any, default: Any) -> list[Any]:
    others = [default, *[c for c in choices(kind)]]
    if isinstance(value, bool):
        others.append(not value)
    elif isinstance(value, (int, float)):
        others.append(value * 2 + 1)
    elif isinstance(value, str) and not choices(kind):
        others.append(value + "-other")
    return [o for o in others if o is not inspect.Parameter.empty and o != value]


def _is_free(recipe: Recipe, key: str) -> bool:
    """Say whether a dotted key goes into a free-form dictionary, such as `optimizer.options.betas`."""
    parent = key.rsplit(".", 1)[0]
    return parent in dict(walk(recipe)) and isinstance(dict(walk(recipe))[parent], dict)
