"""From text on a command line to values of the annotated types, with every problem at once. Imports no torch."""

import dataclasses
import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named, nearest
from trunkline.ground.storage import at_home

from ...tasks.options import belonging, hint_of
from ...tasks.table import options as task_options
from .limits import check_options

_NAMES = {str(tuple[str, ...]), "collections.abc.Sequence[str] | None"}  # kinds that text with commas is split for


def convert(kind: Any, value: Any, key: str) -> Any:
    """Convert a value, or its text from a command line, to the annotated type; a `~` that begins a path is a home folder.

    Raises RecipeError with what was expected.
    """
    if isinstance(value, PurePath):
        value = str(value)
    elif type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and 0 < value < 1 and str in (kind, *get_args(kind)) and float not in get_args(kind):
        value = str(value)  # a share where a folder's name may stand: from Python val=0.2 comes as a number
    if isinstance(value, str) and Path in (kind, *get_args(kind)):
        value = at_home(value)
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
    if get_origin(kind) is dict:
        raise RecipeError(f"{key}={value}: expected a value for each name; give {key}.NAME=VALUE")
    hint = nearest(str(value), [str(a) for a in choices(kind)]) if choices(kind) else ""
    raise RecipeError(f"{key}={value}: expected {describe(kind)}{hint}")


def in_new_words(settings: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Put a verb's setting under its new name where the old one was given, and say so."""
    if "workers" not in settings or "workers" in known or "loaders" not in known or "loaders" in settings:
        return settings
    from trunkline.ground.progress import say

    say("workers is called loaders here now (processes that decode); it was taken as that")
    return {"loaders" if key == "workers" else key: value for key, value in settings.items()}


def typed(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Convert settings to the types of the function's keyword arguments. Raises RecipeError with every problem."""
    hints = {n: h for n, h in get_type_hints(function).items() if n != "return"}
    signature = inspect.signature(function).parameters
    known = [n for n, p in signature.items() if p.kind is p.KEYWORD_ONLY and n != "launch"]
    problems: list[str] = []
    found: dict[str, Any] = {}
    for key, value in in_new_words(settings, known).items():
        if key not in known:
            problems.append(
                f"{key}={value}: there is no such setting{nearest(key, known)}; there are {', '.join(known)}"
            )
            continue
        attempt(problems, found, key, lambda key=key, value=value: convert(hints[key], value, key))
    problems += [
        f"{n}= is missing" for n in known if n not in settings and signature[n].default is inspect.Parameter.empty
    ]
    if problems:
        raise RecipeError(problems)
    return found


def typed_with_options(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Do as `typed` for a function that also takes a task's options: settings that are not its own go to `options`.

    These are checked and stay as they are. Raises RecipeError with every problem.
    """
    known = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    settings = in_new_words(settings, known)
    given = {k: v for k, v in settings.items() if k in known and k not in ("options", "launch")}
    rest = {k: v for k, v in settings.items() if k not in given}
    problems: list[str] = []
    own: dict[str, Any] = {}
    attempt(problems, own, "own", lambda: typed(function, given))
    problems += [problem for key, value in rest.items() for problem in _no_option(key, value, known, rest)]
    if problems:
        raise RecipeError(problems)
    return {**own["own"], "options": rest}


def _no_option(key: str, value: Any, known: list[str], given: dict[str, Any]) -> list[str]:
    """Say what is wrong with a setting that should be an option of a task, while the task is not known yet."""
    kinds = {name: load_named(target) for name, target in task_options().items()}
    if "." in key:  # of one of several tasks: it is looked at where these are known
        return []
    having = {name: kind for name, kind in kinds.items() if key in get_type_hints(kind)}
    if not having:
        names = dict.fromkeys([*known, *(k for kind in kinds.values() for k in get_type_hints(kind))])
        own = ", ".join(k for k in known if k not in ("options", "launch"))
        theirs = "; ".join(f"of {name}: {', '.join(get_type_hints(kind))}" for name, kind in kinds.items())
        return [
            f"{key}={value}: there is no such setting{nearest(key, names)}; there are {own}, and the task's options "
            f"({theirs})"
        ]
    wrong = {name: _complaints(name, kind, key, value, given) for name, kind in having.items()}
    told = [*wrong.values()]
    return told[0] if all(lines == told[0] for lines in told) else []  # else the task that it is says it: `check_own`


def _complaints(name: str, kind: Any, key: str, value: Any, given: dict[str, Any]) -> list[str]:
    """Say what is wrong with the option `key` of the task `name`, beside the others that are given, the rest at defaults."""
    hints = get_type_hints(kind)
    beside: dict[str, Any] = {}
    for other in (k for k in given if k != key and k in hints):
        attempt([], beside, other, lambda k=other: convert(hints[k], given[k], k))
    try:
        options = dataclasses.replace(kind(), **beside, **{key: convert(hints[key], value, key)})
        if key not in belonging(options, "training"):  # training's options are refused once the task is known
            check_options(name, options)
    except RecipeError as error:
        own = [problem for problem in error.problems if not problem.startswith(tuple(f"{k}=" for k in beside))]
        return [problem + hint_of(kind, key) for problem in own]
    return []


def check_own(task: str, given: dict[str, Any]) -> None:
    """Raise RecipeError with the options of a task that is known by now whose values alone are wrong."""
    kind = load_named(task_options()[task])
    lines = [line for key, value in given.items() if key in get_type_hints(kind)
             for line in _complaints(task, kind, key, value, given) if line.startswith(f"{key}={value}: ")]  # fmt: skip
    if lines:
        raise RecipeError(lines)


def describe(kind: Any) -> str:
    """Describe a type in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(a) or "empty" for a in get_args(kind))
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


def attempt(problems: list[str], target: Any, key: str, make: Callable[[], Any], put=dict.__setitem__) -> None:
    """Put what `make` returns at a key of the target, or add the problems that it raises to `problems`."""
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


def choices(kind: Any) -> list[Any]:
    """List the values that a type allows, where it names them."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [c for a in get_args(kind) for c in choices(a)] if get_origin(kind) in (Union, types.UnionType) else []
