"""What neither a recipe's types nor the ranges beside its fields can say: names, and what does not go together.

Imports no torch.
"""

from dataclasses import fields
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.ranges import problems_of

from ...backbones.table import (
    SETTINGS,
    SPANDREL,
    SUPER_RESOLUTION,
    architectures,
    is_known,
    others,
    settings_problem,
    wrappers,
)
from ...tasks.options import split_problems
from .fields import Recipe, batches_of
from .mixtures import mixture_problems


def check(recipe: Recipe) -> None:
    """Raise RecipeError with every problem of a recipe that can be seen without the data and without torch."""
    problems = [*_batches(recipe), *mixture_problems(recipe), *_phases(recipe), *_tasks(recipe), *problems_of(recipe)]
    arch, wrapper = recipe.network.backbone, recipe.network.wrapper
    foreign = [f"network.{key}={said}" for key, said in (("backbone", arch), ("weights", recipe.network.weights))
               if str(said).startswith(SPANDREL)]  # fmt: skip
    if foreign:
        problems.append(
            f"{foreign[0]}: networks of spandrel predict and are scored; train one of {', '.join(SUPER_RESOLUTION)}"
        )
    elif arch is not None and not is_known(arch):
        known = [*architectures(), *others()]
        problems.append(
            f"network.backbone={arch}: there is no such architecture{nearest(arch, known)}; there are {', '.join(known)}"
        )
    if said := settings_problem(arch, {name: getattr(recipe.network, name) for name in SETTINGS}):
        problems.append(f"network.{said}")
    if recipe.network.weights == "none" and recipe.network.weights_key:
        problems.append(f"network.weights_key={recipe.network.weights_key}: weights=none has no keys; leave it out")
    if wrapper != "none" and wrapper not in wrappers():
        known = ["none", *wrappers()]
        problems.append(
            f"network.wrapper={wrapper}: there is none{nearest(wrapper, known)}; there are {', '.join(known)}"
        )
    if problems:
        raise RecipeError(problems)


def check_options(name: str, options: Any) -> None:
    """Raise RecipeError with all that is wrong with the options of the task `name`."""
    if problems := problems_of(options):
        raise RecipeError(problems)


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
        if batches.repeats > 1 and any(phase.cached for phase in recipe.phases):
            problems.append(f"{key}.repeats={batches.repeats}: cached maps are the same each time: set it to 1")
    return problems


def _phases(recipe: Recipe) -> list[str]:
    problems = [] if recipe.phases else ["phases: expected at least one"]
    ours = recipe.network.backbone not in others()  # a plug-in's trunk states its stages only when it is built
    most = 2 if recipe.network.backbone in SUPER_RESOLUTION else 5
    for i, phase in enumerate(recipe.phases):
        if (phase.epochs is None) == (phase.updates is None):
            problems.append(f"phases.{i}: give either epochs or updates, not {'both' if phase.epochs else 'neither'}")
        problems += [
            f"phases.{i}.{key}={value:g}: the length of a phase must be above 0"
            for key, value in (("epochs", phase.epochs), ("updates", phase.updates))
            if value is not None and value <= 0
        ]
        if phase.frozen < 0 or (ours and phase.frozen > most):
            problems.append(f"phases.{i}.frozen={phase.frozen}: expected 0 (nothing) to {most} (the whole trunk)")
        known = [*recipe.tasks, *(["pyramid"] if recipe.network.pyramid != "none" else [])]
        problems += [
            f"phases.{i}.still={name}: expected a task, or pyramid where there is one{nearest(name, known)}; there are "
            f"{', '.join(known)}"
            for name in phase.still
            if name not in known
        ]
        if phase.cached and ours and phase.frozen != most:
            problems.append(f"phases.{i}.cached=true needs phases.{i}.frozen={most}: cached maps do not change")
    return problems


def _tasks(recipe: Recipe) -> list[str]:
    problems = [] if recipe.tasks else ["tasks: expected at least one"]
    cached = any(phase.cached for phase in recipe.phases)
    for name, options in recipe.tasks.items():
        problems += [f"tasks.{name}.{line}" for line in split_problems(options)]
        problems += [f"tasks.{name}.{line}" for line in options.misfits(recipe.network)]
        if options.folds and len(recipe.tasks) > 1:
            problems.append(
                f"tasks.{name}.folds={options.folds}: the tasks share one trunk, and what one validates another may learn from: "
                "folds are for recipes of one task"
            )
        if cached and (why := options.uncached()):
            option = next((f.name for f in fields(options) if why.startswith(f"{f.name}=")), None)
            problems.append(f"tasks.{name}.{why}" if option else f"phases.*.cached=true: the task {name} {why}")
    return problems
