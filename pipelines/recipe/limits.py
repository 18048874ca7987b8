"""What a recipe's types cannot say: ranges, choices, and what does not go together. Imports no torch."""

import fnmatch
import math
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest

from ...backbones.table import ARCHITECTURES, is_known, others, wrappers
from .fields import Recipe, batches_of, learning_tasks
from .tree import walk


def check(recipe: Recipe) -> None:
    """Raise RecipeError with every problem of a recipe that can be seen without the data and without torch."""
    problems = [*_batches(recipe), *_mixture(recipe), *_phases(recipe), *_tasks(recipe), *_ranges(dict(walk(recipe)))]
    arch, wrapper = recipe.network.backbone, recipe.network.wrapper
    if arch is not None and not is_known(arch):
        known = [*ARCHITECTURES, *others()]
        problems.append(
            f"network.backbone={arch}: there is no such architecture{nearest(arch, known)}; there are {', '.join(known)}"
        )
    if wrapper != "none" and wrapper not in wrappers():
        known = ["none", *wrappers()]
        problems.append(
            f"network.wrapper={wrapper}: there is none{nearest(wrapper, known)}; there are {', '.join(known)}"
        )
    if problems:
        raise RecipeError(problems)


def check_options(name: str, options: Any) -> None:
    """Raise RecipeError with every option of the task `name` that is out of its range."""
    if problems := _ranges(dict(walk({name: options}, "tasks."))):
        raise RecipeError([problem.removeprefix(f"tasks.{name}.") for problem in problems])


def _batches(recipe: Recipe) -> list[str]:
    several = len(recipe.tasks) > 1
    sizes = (
        {f"batches.{name}": batches_of(recipe, name) for name in recipe.tasks} if several else {"batch": recipe.batch}
    )
    problems = [f"batches.{name}: there is no such task; there are {', '.join(recipe.tasks)}"
                for name in recipe.batches if name not in recipe.tasks]  # fmt: skip
    for key, batches in sizes.items():
        size, micro = batches.size, batches.micro
        if isinstance(micro, int) and not (micro >= 1 and size % micro == 0):
            even = [d for d in range(1, size + 1) if size % d == 0] if 0 < size < 100000 else []
            problems.append(f"{key}.micro={micro} does not divide {key}.size={size}: choose one of {even}")
        if several and size < 1:
            problems.append(f"{key}.size={size}: expected a number above 0")
    return problems


def _mixture(recipe: Recipe) -> list[str]:
    problems = []
    for key, of, low in (("loss_weights", recipe.loss_weights, 0), ("mix", recipe.mix, None)):
        for name, value in of.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if name not in recipe.tasks:
                near = nearest(name, recipe.tasks)
                problems.append(f"{key}.{name}: there is no such task{near}; there are {', '.join(recipe.tasks)}")
            elif not number or not (value > 0 or value == low):
                problems.append(f"{key}.{name}={value}: expected a number above 0{', or 0' if low == 0 else ''}")
    if recipe.tasks and not problems:
        learning = learning_tasks(recipe)
        if not learning:
            problems.append("loss_weights: every task has the weight 0; give one a weight above 0")
        elif all(recipe.mix.get(name, 1.0) < 1 for name in learning):
            shown = ", ".join(f"mix.{name}={recipe.mix[name]:g}" for name in learning)
            problems.append(f"{shown}: an update would be empty now and then; give one task that learns 1 or more")
    return problems


def _phases(recipe: Recipe) -> list[str]:
    problems = [] if recipe.phases else ["phases: expected at least one"]
    ours = recipe.network.backbone not in others()  # a plug-in's states its stages when it is built
    for i, phase in enumerate(recipe.phases):
        if (phase.epochs is None) == (phase.updates is None):
            problems.append(f"phases.{i}: give either epochs or updates, not {'both' if phase.epochs else 'neither'}")
        if (phase.epochs is not None and phase.epochs <= 0) or (phase.updates is not None and phase.updates <= 0):
            problems.append(f"phases.{i}: its length must be above 0")
        if phase.frozen < 0 or (ours and phase.frozen > 5):
            problems.append(f"phases.{i}.frozen={phase.frozen}: expected 0 (nothing) to 5 (the whole trunk)")
        if phase.cached and ours and phase.frozen != 5:
            problems.append(f"phases.{i}.cached=true needs phases.{i}.frozen=5: cached maps do not change")
    return problems


def _tasks(recipe: Recipe) -> list[str]:
    problems = [] if recipe.tasks else ["tasks: expected at least one"]
    for name, options in recipe.tasks.items():
        if any(p.cached for p in recipe.phases) and not hasattr(options, "augment"):
            problems.append(f"phases.*.cached=true: the task {name} cannot be trained on cached maps")
        elif any(p.cached for p in recipe.phases) and getattr(options, "augment", False):
            problems.append(f"tasks.{name}.augment=true cannot go with cached maps: set it to false")
        for key, low, high in (("scale", 0.0, 1.0), ("ratio", 0.0, math.inf), ("jitter", 0.0, math.inf)):
            pair = getattr(options, key, None)
            if isinstance(pair, tuple) and pair and (len(pair) != 2 or not low < pair[0] <= pair[1] <= high):
                said = ",".join(f"{v:g}" for v in pair)
                problems.append(f"tasks.{name}.{key}={said}: expected two numbers above 0, the smaller one first"
                                + (" and none above 1" if high == 1 else ""))  # fmt: skip
        weights = [getattr(options, key, None) for key in ("cross_entropy", "dice", "focal", "lovasz")]
        if None not in weights and not any(weights):
            problems.append(
                f"tasks.{name}: every loss has the weight 0; give one of cross_entropy, dice, focal and lovasz"
            )
    return problems


def _ranges(leaves: dict[str, Any]) -> list[str]:
    problems = []
    for pattern, low, high, what in _RANGES:
        for key in (k for k in leaves if fnmatch.fnmatchcase(k, pattern)):
            values = leaves[key] if isinstance(leaves[key], tuple) else (leaves[key],)
            for value in values:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if (number and not (low < value if what else low <= value)) or (
                    number and not value <= high
                ):  # NaN is in none
                    problems.append(f"{key}={value}: expected {what or f'{low:g} to {high:g}'}")
    for key, value in leaves.get("optimizer.rates", {}).items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1e6:
            problems.append(f"optimizer.rates.{key}={value}: expected a number above 0 (frozen stages: see phases)")
    for prefix in [key.removesuffix("tiles") for key in leaves if key.endswith(".tiles")]:
        problems += _windows(prefix, leaves[f"{prefix}tiles"], leaves.get(f"{prefix}overlap", 0))
    for key in (k for k in leaves if k.endswith(".palette")):
        if any(not 0 <= channel <= 255 for colour in leaves[key] for channel in colour):
            problems.append(f"{key}: expected three numbers from 0 to 255 for each class")
    milestones = leaves.get("schedule.milestones", ())
    if list(milestones) != sorted(milestones):
        problems.append(f"schedule.milestones={','.join(f'{m:g}' for m in milestones)}: expected them in their order")
    if leaves.get("schedule.unit") == "run":
        lengths = [("warmup", leaves["schedule.warmup"]), *(("milestones", m) for m in milestones)]
        lengths += [("step", leaves["schedule.step"])] * (leaves["schedule.name"] == "step")
        for key, length in lengths:
            if length > 1:
                problems.append(
                    f"schedule.{key}={length:g}: expected 0 to 1, a share of the run, or schedule.unit=epochs"
                )
    return problems


def _windows(prefix: str, tiles: Any, overlap: Any) -> list[str]:
    if not tiles or not isinstance(tiles, int) or not isinstance(overlap, (int, float)):
        return []
    if tiles < 64:
        return [f"{prefix}tiles={tiles}: expected 0 (whole pictures), or windows of 64 pixels or more"]
    if 0 <= overlap <= 0.9 and tiles * (1 - overlap) < 32:
        return [f"{prefix}overlap={overlap:g}: of windows of {tiles} pixels expected up to {1 - 32 / tiles:.2f}"]
    return []


_ABOVE = "a number above 0"
_RANGES = [  # key, lowest, highest; with words for it the lowest itself is out
    ("batch.size", 0, 1e9, _ABOVE),
    ("optimizer.lr", 0, 1e38, _ABOVE),
    ("evaluation.batch", 0, 1e9, _ABOVE),
    ("log.every", 0, 1e9, _ABOVE),
    ("checkpoints.keep", 0, 1e9, _ABOVE),
    ("tasks.*.size", 0, 16384, "a number of pixels from 1 to 16384"),
    ("tasks.*.short", 0, 16384, "a number of pixels from 1 to 16384"),
    ("tasks.*.crop", 0, 16384, "a number of pixels from 1 to 16384"),
    ("tasks.*.aux", 0, 1e6, ""),
    ("tasks.*.cross_entropy", 0, 1e6, ""),
    ("tasks.*.dice", 0, 1e6, ""),
    ("tasks.*.focal", 0, 1e6, ""),
    ("tasks.*.lovasz", 0, 1e6, ""),
    ("tasks.*.class_weights", 0, 1e6, "numbers above 0"),
    ("tasks.*.cat_max_ratio", 0, 1, "a share above 0, up to 1"),
    ("tasks.*.longest", 0, 65536, "a number of pixels from 1 to 65536"),
    ("tasks.*.sizes", 0, 16384, "numbers of pixels from 1 to 16384"),
    ("tasks.*.limit", 0, 1e9, ""),
    ("tasks.*.score", 0, 1, ""),
    ("tasks.*.tiles", 0, 65536, ""),
    ("tasks.*.overlap", 0, 0.9, ""),
    ("tasks.*.scales", 0, 16, "numbers above 0, up to 16"),
    ("tasks.*.nms", 0, 1, ""),
    ("tasks.*.detections", 0, 1e6, _ABOVE),
    ("tasks.*.top", 0, 1e6, _ABOVE),
    ("schedule.step", 0, 1e9, "a length above 0"),
    ("phases.*.epochs", -1e9, 1e9, ""),
    ("phases.*.updates", -1e12, 1e12, ""),
    ("evaluation.every", 0, 1e9, ""),
    ("evaluation.patience", 0, 1e9, ""),
    ("evaluation.times", 0, 1e9, ""),
    ("checkpoints.minutes", 0, 1e9, ""),
    ("checkpoints.updates", 0, 1e12, ""),
    ("machine.threads", 1, 4096, ""),
    ("machine.loaders", 0, 4096, ""),
    ("average.decay", -1e-300, 0.9999999, "0 (none) to below 1"),
    ("tasks.*.val", -1e-300, 0.9999999, "0 (the folder's own val/) to below 1"),
    ("tasks.*.dropout", 0, 0.999, ""),
    ("tasks.*.label_smoothing", 0, 1, ""),
    ("tasks.*.flip", 0, 1, ""),
    ("optimizer.momentum", -1e-300, 0.9999999, "0 to below 1"),
    ("optimizer.weight_decay", 0, 1e38, ""),
    ("optimizer.l1", 0, 1e38, ""),
    ("optimizer.clip", 0, 1e38, ""),
    ("schedule.warmup", 0, 1e9, ""),
    ("schedule.warmup_from", 0, 1, ""),
    ("schedule.final", 0, 1, ""),
    ("schedule.milestones", 0, 1e9, ""),
    ("schedule.gamma", 0, 1e3, ""),
    ("schedule.power", 0, 1e3, ""),
    ("schedule.peak", 0, 1, ""),
    ("schedule.start", 0, 1, ""),
]
