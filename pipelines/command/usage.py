"""The verbs of the command line, and what `--help` says of each."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any, get_type_hints

from trunkline.ground.names import load_named

from ...cluster.config import Common
from ...cluster.engines.table import ENGINES
from ...cluster.launchers.table import LAUNCHERS
from ..launch.settings import hints_of, kinds, of_training
from ..prediction.table import baseline
from ..recipe.convert import describe
from ..recipe.knobs import recipe_function
from ..score.score import PROTOCOLS

_HERE = "trunkline.pipelines"
_LAUNCHED = ("train", "evaluate", "predict")  # verbs that workers can run
_WORKERS = "Where the workers come from. None of it is part of the result, unless it says so."
_NO_SETTINGS = ("launch", "options")  # keywords that are made of other settings
_KINDS = {
    "bench": "train",
    "score": "coco",
    "convert": "data",
}  # verbs whose first word chooses the settings: the word shown by default
# verb: (positional arguments, what it does, where the settings are declared; None: they are a recipe's)
VERBS: dict[str, tuple[str, str, str | None]] = {
    "train": ("RECIPE", "train by a recipe, or go on with the run in --run", None),
    "evaluate": ("SOURCE", "score a run's folder or a weights file", f"{_HERE}.evaluation.evaluate:evaluate"),
    "score": (
        f"{'|'.join(PROTOCOLS)} TRUTH RESULTS",
        "score anybody's results: boxes, masks, upscaled pictures, what happens in videos",
        f"{_HERE}.score.score:protocol",
    ),
    "predict": (
        "SOURCE|bicubic INPUT…",
        "what a model says of files, folders and globs",
        f"{_HERE}.prediction.predict:stream",
    ),
    "convert": (
        "data|weights SOURCE",
        "write a data set, or weights, as another tool reads them",
        f"{_HERE}.tools.convert:kind",
    ),
    "list": ("", "the recipes and architectures", None),
    "show": ("RECIPE", "every field of a recipe, its value and where it came from", None),
    "check": ("FOLDER|RUN", "decode and validate a whole data set", f"{_HERE}.evaluation.check:check"),
    "profile": ("RECIPE", "time a few updates by part; writes a trace", None),
    "bench": (
        "train|loader|scale|score|masks|detect|segment|upscale|video|joint|sharing|gpu",
        "measure beside a plain torchvision loop",
        f"{_HERE}.bench.bench:options",
    ),
    "doctor": ("", "whether this installation and machine are fit", None),
    "demo": (
        "[FOLDER]",
        "generated pictures: train, evaluate, report, in five minutes (tasks=all: eleven)",
        f"{_HERE}.tools.demo:demo",
    ),
}
_OWN = {  # settings of a verb that are not its recipe's
    "train": "\n\n  --run DIR    the run's folder; a run that is there goes on (default: the next free runs/RECIPE-N)",
    "show": "\n\n  --memory     what a worker needs of it by part and ZeRO stage; what would fit (--workers, --zero)",
    "profile": "\n\n  profile_updates  how many updates are measured (default: 6)\n  out              a file for the trace",
}


def usage() -> str:
    """Compose what `trunkline --help` shows: a line for each verb."""
    width = max(len(f"{verb} {args}") for verb, (args, _, _) in VERBS.items())
    lines = [f"  {f'{verb} {args}':{width}}  {about}" for verb, (args, about, _) in VERBS.items()]
    return (
        "trunkline: one residual trunk, many heads, from a laptop to a cluster, to the same weights.\n\n"
        "  trunkline VERB … key=value\n\n" + "\n".join(lines) + "\n\n"
        "  --json prints what a machine reads; trunkline VERB --help shows a verb's settings, and\n"
        "  trunkline train RECIPE --help a recipe's. Exit codes: 0 done, 2 your mistake, 1 ours."
    )


def verb_usage(verb: str, words: list[str]) -> str:
    """Compose what `trunkline VERB … --help` shows: the settings of the verb, of its recipe and of its workers."""
    args, about, declared = VERBS[verb]
    head, more = f"trunkline {verb} {args} key=value …\n{about}", ""
    launch = _launch(verb == "train") if verb in _LAUNCHED else ""
    if declared is None:
        more = _OWN.get(verb, "")
        named = [w for w in words if not w.startswith("-") and "=" not in w]
        if not named or verb not in ("train", "show", "profile"):
            text = "\n\nA recipe's settings: trunkline train RECIPE --help" if "RECIPE" in args else ""
            return head + more + launch + text
        function = recipe_function(named[0])
    else:
        function = load_named(declared)
        named = [w for w in words if not w.startswith("-") and "=" not in w]
        if verb in _KINDS:
            function = function(named[0] if named else _KINDS[verb])
        elif verb == "predict" and named and (alone := baseline(named[0])):
            function, launch = alone, ""
    return (
        f"{head}{more}\n\n{inspect.cleandoc(function.__doc__ or '')}\n\n{_settings(function, declared is None)}{launch}"
    )


def _launch(training: bool) -> str:
    """List where workers come from and what they train with: what each setting means, then its kind and default."""
    idle = set() if training else of_training()
    parts = [(_WORKERS, Common)]
    for name, row in LAUNCHERS.items():
        usual = ", ".join(f"{key}={value} unless it is given" for key, value in row.settings.items() if key not in idle)
        parts.append((f"launch={name}: {row.about}{f' ({usual})' if usual else ''}", load_named(row.options)))
    text = [f"{title}\n\n{said}" if (said := _meanings(kind, idle)) else title for title, kind in parts]
    engines = [(row.about, _meanings(load_named(row.options), idle)) for row in ENGINES.values()]
    text += [f"{about}\n\n{said}" for about, said in engines if said]
    shown = {row[0]: row for kind in kinds() for row in _rows(kind, hints_of(kind))}
    return "\n\n" + "\n\n".join([*text, _lined(list(shown.values()), idle)])


def _meanings(kind: type, idle: set[str]) -> str:
    """Read what a class's docstring says of its settings, without those in `idle`."""
    lines = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[2].split("\n") if fields(kind) else []
    return "\n".join(line for line in lines if line.split()[0] not in idle)


def _settings(function: Callable[..., Any], recipe: bool) -> str:
    """List the settings that a function takes: a recipe's parameters, or another function's keyword arguments."""
    rows = _rows(function, get_type_hints(function))
    kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
    return _lined(
        [r for r in rows if recipe or (kinds[r[0]] is inspect.Parameter.KEYWORD_ONLY and r[0] not in _NO_SETTINGS)]
    )


def _rows(function: Callable[..., Any], hints: dict[str, Any]) -> list[tuple[str, str, str]]:
    """List the name, kind and default of each parameter."""
    shown = []
    for name, p in inspect.signature(function).parameters.items():
        default = "empty" if p.default == "" else p.default
        shown.append((name, describe(hints[name]), "needed" if p.default is p.empty else f"default: {default}"))
    return shown


def _lined(rows: list[tuple[str, str, str]], idle: Collection[str] = ()) -> str:
    """Write a line for each row, without those in `idle`."""
    width = max((len(name) for name, _, _ in rows), default=0)
    return "\n".join(f"  {name:{width}}  {kind} ({default})" for name, kind, default in rows if name not in idle)
