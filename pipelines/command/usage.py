"""The verbs of the command line, and what `--help` says of each."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from trunkline.ground.names import load_named

from ...cluster.config import OF_TRAINING, Launch
from ..recipe.convert import describe
from ..recipe.knobs import recipe_function

_HERE = "trunkline.pipelines"
_LAUNCHED = ("train", "evaluate", "predict")  # verbs that workers can do
_KINDS = {"bench": "train", "score": "coco"}  # verbs whose first word chooses the settings, and whose are shown
# verb: (positional arguments, what it does, where the settings are declared; None: they are a recipe's)
VERBS: dict[str, tuple[str, str, str | None]] = {
    "train": ("RECIPE", "train by a recipe, or go on with the run in --run", None),
    "evaluate": ("SOURCE", "score a run's folder or a weights file", f"{_HERE}.evaluation.evaluate:evaluate"),
    "score": (
        "coco|voc|masks TRUTH RESULTS",
        "score the results of any detector or segmenter",
        f"{_HERE}.score.score:protocol",
    ),
    "predict": ("SOURCE INPUT…", "what a model says of files, folders and globs", f"{_HERE}.prediction.predict:stream"),
    "list": ("", "the recipes and architectures", None),
    "show": ("RECIPE", "every field of a recipe, its value and where it came from", None),
    "check": ("FOLDER|RUN", "decode and validate a whole data set", f"{_HERE}.evaluation.check:check"),
    "profile": ("RECIPE", "time a few updates by part; writes a trace", None),
    "bench": (
        "train|loader|scale|score|masks|detect|segment",
        "measure beside a plain torchvision loop",
        f"{_HERE}.bench.bench:options",
    ),
    "doctor": ("", "whether this installation and machine are fit", None),
    "demo": ("[FOLDER]", "generated scenes: train, evaluate, report, in three minutes", f"{_HERE}.tools.demo:demo"),
}
_OWN = {  # settings that are no recipe's
    "train": "\n\n  --run DIR    the run's folder; a run that is there goes on (default: the next free runs/RECIPE-N)",
    "show": "\n\n  --memory     what a worker needs of it by part and ZeRO stage; what would fit (--workers, --zero)",
    "profile": "\n\n  profile_updates  how many updates are measured (default: 6)\n  out              a file for the trace",
}


def usage() -> str:
    """What `trunkline --help` shows: every verb, in a line."""
    width = max(len(f"{verb} {args}") for verb, (args, _, _) in VERBS.items())
    lines = [f"  {f'{verb} {args}':{width}}  {about}" for verb, (args, about, _) in VERBS.items()]
    return (
        "trunkline: one residual trunk, many heads, from a laptop to a cluster, to the same weights.\n\n"
        "  trunkline VERB … key=value\n\n" + "\n".join(lines) + "\n\n"
        "  --json prints what a machine reads; trunkline VERB --help shows a verb's settings, and\n"
        "  trunkline train RECIPE --help a recipe's. Exit codes: 0 done, 2 your mistake, 1 ours."
    )


def verb_usage(verb: str, words: list[str]) -> str:
    """What `trunkline VERB … --help` shows: the settings of the verb, of its recipe and of its workers."""
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
        if verb in _KINDS:
            named = [w for w in words if not w.startswith("-") and "=" not in w]
            function = function(named[0] if named else _KINDS[verb])
    return (
        f"{head}{more}\n\n{inspect.cleandoc(function.__doc__ or '')}\n\n{_settings(function, declared is None)}{launch}"
    )


def _launch(training: bool) -> str:
    text = f"{inspect.cleandoc(Launch.__doc__ or '')}\n\n{_settings(Launch, True)}"
    idle = () if training else OF_TRAINING
    return "\n\n" + "\n".join(line for line in text.split("\n") if not line.split() or line.split()[0] not in idle)


def _settings(function: Callable[..., Any], recipe: bool) -> str:
    hints, shown = get_type_hints(function), []
    for name, p in inspect.signature(function).parameters.items():
        if recipe or (p.kind is p.KEYWORD_ONLY and name not in ("launch", "options")):
            default = "empty" if p.default == "" else p.default
            shown.append((name, describe(hints[name]), "needed" if p.default is p.empty else f"default: {default}"))
    width = max((len(n) for n, _, _ in shown), default=0)
    return "\n".join(f"  {n:{width}}  {kind} ({default})" for n, kind, default in shown)
