"""The command line: `trunkline VERB … key=value`. Each verb has a function in `trunkline` too; nothing here imports torch."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline._version import __version__
from trunkline.ground.errors import RecipeError

from .. import api
from ..recipe.convert import convert, typed, typed_with_options
from .usage import VERBS, usage, verb_usage

_OUTSIDE = {getattr(errno, name) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOENT", "ENOTDIR", "EISDIR",
            "EEXIST", "ENAMETOOLONG", "ELOOP") if hasattr(errno, name)}  # fmt: skip
_FLAGS = ("--memory", "--masks", "--area", "--pictures", "--boundary", "--strict")  # that take no value
_MOST_ROWS = 1000  # of a table on the terminal


def main(argv: list[str]) -> int:
    """Run one command, and return its exit code.

    That is 0 when done, 2 for the user's mistake, 1 for any other error, 128 + n when signal n ended it.
    """
    as_json = "--json" in argv
    try:
        code = _begun(argv, as_json)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error, as_json)


def _begun(argv: list[str], as_json: bool) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"trunkline {__version__}")
        return 0
    return _run(argv[0], [a for a in argv[1:] if a != "--json"], as_json)


def _run(verb: str, words: list[str], as_json: bool) -> int:
    from trunkline.ground.names import nearest

    if verb not in VERBS:
        raise RecipeError(f"{verb!r} is not a verb{nearest(verb, VERBS)}; `trunkline --help` shows them all")
    if any(w in ("-h", "--help") for w in words):
        print(verb_usage(verb, words))
        return 0
    plain, settings, problems = _split(words)
    if problems:
        if verb in ("train", "show", "profile") and len(plain) == 1:
            problems += _problems(plain[0], settings)
        raise RecipeError(problems)
    return _COMMANDS[verb](plain, settings, as_json)


def _problems(recipe: str, settings: dict[str, str]) -> list[str]:
    from ..launch.settings import names

    try:
        api.resolve(recipe, {k: v for k, v in settings.items() if k not in (*names(), "run", "out", "profile_updates")})
    except RecipeError as error:
        return error.problems
    return []


def _split(words: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Split words into plain ones, settings (`key=value`, `--key=value`, `--key value`) and what is wrong in these."""
    plain: list[str] = []
    settings: dict[str, str] = {}
    problems: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":  # what follows is no setting
            plain += rest
            break
        dashed = word.startswith("--")
        key, equals, value = word.lstrip("-").partition("=") if dashed else word.partition("=")
        if not dashed and (not equals or not key.replace(".", "").replace("_", "").isalnum() or Path(word).exists()):
            plain.append(word)
            continue
        key = key.replace("-", "_")
        if word in _FLAGS:
            value = "true"
        elif dashed and not equals:
            value = next(rest, "")
            if not value or value.startswith("--"):
                problems.append(f"{word}: needs a value")
        if key in settings:
            problems.append(f"{key}: given twice ({settings[key]} and {value})")
        settings[key] = value
    return plain, settings, problems


def _take(plain: list[str], count: int, what: str) -> list[str]:
    if len(plain) < count:
        raise RecipeError(f"{what} is missing")
    if len(plain) > count:
        raise RecipeError(f"too much: {' '.join(plain[count:])} (settings are written key=value)")
    return plain


def _no_settings(settings: dict[str, str]) -> None:
    if settings:
        raise RecipeError([f"{key}={text}: there is no such setting; there are none" for key, text in settings.items()])


def _train(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (recipe,) = _take(plain, 1, "the recipe's name (`trunkline list`)")
    path = settings.pop("run", None)
    run = api.train(recipe, path or _next_run(recipe), **settings)
    _result(run.scores, as_json, ("details",), run.shown)
    return 0


def _next_run(recipe: str) -> Path:
    """Find the first free `runs/NAME-N`, counting from 1."""
    stem, n = Path(recipe).stem, 1
    while (Path("runs") / f"{stem}-{n}").exists():
        n += 1
    return Path("runs") / f"{stem}-{n}"


def _evaluate(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (source,) = _take(plain, 1, "the run's folder or weights file")
    from ..evaluation.evaluate import evaluate, result_of
    from ..launch.launch import pool_of

    launch, own = pool_of(settings)
    scores = evaluate(source, launch=launch, **typed_with_options(evaluate, own))
    _result(result_of(scores), as_json, (), source)
    return 0


def _score(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    kind, truth, results = _take(
        plain, 3, "coco, voc, masks or images, then what is true (a file, a folder) and the results"
    )
    from trunkline.ground.storage import at_home

    from ..score.score import protocol

    function = protocol(kind)
    scored = function(at_home(truth), at_home(results), **typed(function, settings))
    if as_json:
        print(json.dumps(scored.to_json(), ensure_ascii=False))
        return 0
    from ...tasks.scores import written
    from ..show import table

    if scored.classes:
        table("", ["class", scored.of_class], [[n, written(v)] for n, v in scored.classes.items()])
    counts = ", ".join(f"{n:,} {what}" for what, n in scored.counts.items())
    print(f"\n{results}: {counts}")
    between = {n: " to ".join(map(written, ends)) for n, ends in scored.intervals.items()}
    columns = ["metric", "value", *(["95 % interval"] if between else [])]
    table("", columns, [[n, written(v), *([between.get(n, "")] if between else [])] for n, v in scored.metrics.items()])
    return 0


def _convert(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    what, source = _take(plain, 2, "data or weights, then the folder of the data, or the run or file")
    from ..tools.convert import kind

    function = kind(what)
    found = function(source, **typed(function, settings))
    print(json.dumps(found.to_json(), ensure_ascii=False) if as_json else found)
    return 0


def _predict(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    if len(plain) < 2:
        raise RecipeError("give the run's folder or weights file, then files, folders or globs")
    from ..show import note, table

    shown, count, failed = [], 0, 0
    headings: tuple[str, ...] = ()
    for p in api.predictions(plain[0], plain[1:], settings):
        if as_json:
            print(json.dumps(p.kept() if "out" in settings else p.line(), ensure_ascii=False))
        if p.error:
            note(p.error)
        elif not as_json and len(shown) < _MOST_ROWS:
            headings = p.headings
            shown.append([p.file, *p.cells()])
        count, failed = count + 1, failed + bool(p.error)
    if not as_json:
        if shown:
            table("", ["file", *headings], shown)
        if (more := count - failed - len(shown)) > 0:
            note(f"and {more} more: out=FOLDER writes them all, --json prints them")
    return 2 if failed else 0


def _list(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    _take(plain, 0, "")
    _no_settings(settings)
    from ...backbones.table import architectures
    from ...tasks.table import tasks

    recipes = api.recipes()
    if as_json:
        print(json.dumps({"recipes": recipes, "tasks": sorted(tasks()), "architectures": architectures()}))
        return 0
    width = max(map(len, recipes))
    print("recipes\n" + "\n".join(f"  {name:{width}}  {about}" for name, about in recipes.items()))
    print("tasks\n  " + ", ".join(sorted(tasks())))
    print("architectures\n  " + ", ".join(architectures()))
    return 0


def _show(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (recipe,) = _take(plain, 1, "the recipe's name (`trunkline list`)")
    if convert(bool, settings.pop("memory", "false"), "memory"):
        return _memory(recipe, settings, as_json)
    shown = api.show(recipe, **settings)
    if as_json:
        print(json.dumps(shown.to_json()))
        return 0
    print(shown.about + "\n")
    keys, values = max(len(r[0]) for r in shown.rows), max(len(str(r[1])) for r in shown.rows)
    for key, value, origin in shown.rows:
        print(f"{key:{keys}}  {value!s:{min(values, 32)}}  {origin}")
    return 0


def _memory(recipe: str, settings: dict[str, str], as_json: bool) -> int:
    found = api.memory(recipe, **settings)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        from ..show import table

        columns = ["MiB a worker", "no ZeRO", *(f"ZeRO {stage}" for stage in range(4))]
        table("", columns, found.rows())
        print(f"\n{found.summary()}")
    return 0 if found.fits else 2


def _check(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (folder,) = _take(plain, 1, "the data's folder")
    from ..evaluation.check import check

    found = check(folder, **typed_with_options(check, settings))
    print(json.dumps(found.to_json(), ensure_ascii=False) if as_json else found)
    return 2 if found.problems else 0


def _profile(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (recipe,) = _take(plain, 1, "the recipe's name (`trunkline list`)")
    updates = convert(int, settings.pop("profile_updates", "6"), "profile_updates")
    found = api.profile(recipe, profile_updates=updates, out=settings.pop("out", None), **settings)
    print(json.dumps(found.to_json()) if as_json else found)
    return 0


def _bench(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    (what,) = _take(
        plain,
        1,
        "what to measure (train, loader, scale, score, masks, detect, segment, upscale, video, joint, sharing, gpu)",
    )
    from ..bench.bench import options

    function = options(what)
    found = function(**typed(function, settings))
    print(json.dumps(found.to_json()) if as_json else found)
    return 0


def _doctor(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    _take(plain, 0, "")
    _no_settings(settings)
    found = api.doctor()
    print(json.dumps(found.to_json()) if as_json else found)
    return 0 if found.fit else 2


def _demo(plain: list[str], settings: dict[str, str], as_json: bool) -> int:
    from ..tools.demo import demo, scores_of

    (folder,) = _take(plain or ["demo"], 1, "")
    runs = demo(folder, **typed(demo, settings))
    if as_json:
        print(json.dumps(scores_of(runs), ensure_ascii=False))
        return 0
    for run in runs.values():
        _result(run.scores, False, ("details",), run.shown)
    return 0


def _result(scores: dict[str, Any], as_json: bool, leave: tuple[str, ...], where: str) -> None:
    if as_json:
        print(json.dumps({k: v for k, v in scores.items() if k not in leave}, ensure_ascii=False))
        return
    from ...tasks.scores import metrics_in, written
    from ..show import table

    intervals = scores.get("intervals", {})
    rows = [
        [name, written(value), " to ".join(map(written, intervals.get(name, ())))]
        for name, value in metrics_in(scores).items()
    ]
    table(f"{where}: {scores['samples']} samples", ["metric", "value", "95 % interval"], rows)
    for line in scores.get("notes", ()):
        print(line)


_COMMANDS: dict[str, Callable[[list[str], dict[str, str], bool], int]] = {
    "train": _train, "evaluate": _evaluate, "score": _score, "predict": _predict, "list": _list, "show": _show, "check": _check,
    "convert": _convert,
    "profile": _profile, "bench": _bench, "doctor": _doctor, "demo": _demo,
}  # fmt: skip


def _failed(error: Exception, as_json: bool) -> int:
    """Print an error, its cause first and without a traceback for a user's mistake, and return the exit code."""
    from trunkline.ground.errors import DataError, EngineError, WeightsError

    if type(error).__name__ == "Stopped":
        print(error, file=sys.stderr)
        return 128 + getattr(error, "signum", 0)
    mistake = isinstance(error, (RecipeError, WeightsError, EngineError, DataError))
    if isinstance(error, OSError) and error.errno in _OUTSIDE:
        mistake, error = (
            True,
            RecipeError(f"{error.filename or 'a file'}: {error.strerror}; mend that, or choose another path"),
        )
    if as_json:
        print(json.dumps({"error": str(error), "mistake": mistake}))
    if mistake:
        print(f"trunkline: {error}", file=sys.stderr)
        return 2
    if not getattr(error, "ours", True):
        print(f"trunkline: {error}", file=sys.stderr)
        return 1
    import traceback

    print(f"trunkline: an error of ours, please report it: {type(error).__name__}: {error}", file=sys.stderr)
    if type(error).__name__ != "WorkerFailed":  # whose message holds the worker's traceback
        traceback.print_exception(error, file=sys.stderr)
    return 1
