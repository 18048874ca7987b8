"""What does not go together in a recipe of several tasks. Imports no torch."""

import math
from typing import Any

from trunkline.ground.names import nearest

from .fields import Recipe, batches_of, learning_tasks, shared_groups, sharing
from .task_names import name_problems

MOST = 100
"""Batches of a task that an update may take."""
BALANCES = ("fixed", "uncertainty", "gradient_norm", "famo")
PROJECTED = ("pcgrad", "mgda", "cagrad", "gradvac", "nash_mtl", "graddrop", "imtl", "imtl_g", "aligned_mtl", "moco")
"""Balances that turn the tasks' gradients against each other, by the names that people know them by."""


def mixture_problems(recipe: Recipe) -> list[str]:
    """List what is wrong with how the tasks of a recipe are mixed, weighed and normalised, and share batches."""
    problems = [*_names(recipe), *_numbers(recipe), *_norms(recipe), *_each_evaluation(recipe)]
    if recipe.tasks and not problems:
        learning = learning_tasks(recipe)
        if not learning:
            problems.append("loss_weights: every task has the weight 0; give one a weight above 0")
        problems += _shared(recipe)
        if not problems:
            problems += _mixing(recipe)
    return problems + _balance(recipe) + _cosines(recipe)


def _names(recipe: Recipe) -> list[str]:
    """Check the names of the tasks, and that each of several has data."""
    problems = name_problems(recipe.tasks)
    if len(recipe.tasks) < 2:
        return problems
    empty = [name for name, options in recipe.tasks.items() if not options.data]
    return problems + [f"tasks.{name}.data= is missing: give the folder of its data" for name in empty]


def _numbers(recipe: Recipe) -> list[str]:
    problems = []
    for key, of, low, most in (("loss_weights", recipe.loss_weights, 0, math.inf), ("mix", recipe.mix, None, MOST)):
        for name, value in of.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if name not in recipe.tasks:
                problems.append(f"{key}.{name}: {_no_task(recipe, name)}")
            elif not number or not (0 < value <= most or value == low):
                expected = f"above 0 and at most {most}" if key == "mix" else "from 0, not infinite"
                problems.append(f"{key}.{name}={value}: expected a number {expected}")
    return problems


def _each_evaluation(recipe: Recipe) -> list[str]:
    """Check what the evaluation says of single tasks."""
    e, problems = recipe.evaluation, []
    for key, of in (("nth", e.nth), ("patience_of", e.patience_of), ("single", e.single)):
        for name, value in of.items():
            if name not in recipe.tasks or len(recipe.tasks) < 2:
                why = _no_task(recipe, name) if name not in recipe.tasks else "is of several tasks, and here is one"
                problems.append(f"evaluation.{key}.{name}: {why}")
            elif isinstance(value, int) and value < 1:
                problems.append(f"evaluation.{key}.{name}={value}: expected a number above 0")
    together = {name for group in shared_groups(recipe) for name in group}
    for name in e.patience_of:
        if name in recipe.tasks and name not in learning_tasks(recipe):
            problems.append(
                f"evaluation.patience_of.{name}: loss_weights.{name}=0, so that it learns nothing; leave it out"
            )
        elif name in together:
            problems.append(
                f"evaluation.patience_of.{name}: shares batches, which end together; leave it out of shared_batch"
            )
        elif recipe.balance == "famo":
            problems.append(
                f"evaluation.patience_of.{name}: balance=famo follows every loss in every update; set another"
            )
    return problems


_NO_STATISTICS = {
    "frozen": "fixes the statistics and the affine weights for every task",
    "group": "has no running statistics",
    "sync": "computes statistics over the micro-batches of all workers together, which may be of several tasks",
}
"""By norm policy of the network: why a task can have nothing else there."""


def _norms(recipe: Recipe) -> list[str]:
    """Check whose statistics the trunk's batch norms are to have."""
    norm, problems = recipe.network.norm, []
    if norm == "sync" and len(learning_tasks(recipe)) > 1:
        problems.append(
            "network.norm=sync: workers may have other tasks at the same time, whose norms would wait for each other without "
            "end; set batch, frozen or group"
        )
    for name, kind in recipe.norms.items():
        if name not in recipe.tasks:
            problems.append(f"norms.{name}: {_no_task(recipe, name)}")
        elif kind != "shared" and norm in _NO_STATISTICS:
            problems.append(
                f"norms.{name}={kind}: network.norm={norm} {_NO_STATISTICS[norm]}; set network.norm=batch, or norms.{name}=shared"
            )
    return problems


def _no_task(recipe: Recipe, name: str) -> str:
    return f"there is no such task{nearest(name, recipe.tasks)}; there are {', '.join(recipe.tasks)}"


def _mixing(recipe: Recipe) -> list[str]:
    """Check what `mix` means with `mixing`."""
    groups = sharing(recipe)
    mix = {"+".join(names): recipe.mix.get(names[0], 1.0) for names in groups}
    shown = ", ".join(f"mix.{names[0]}={recipe.mix.get(names[0], 1.0):g}" for names in groups)
    problems = []
    if recipe.mixing == "ratios" and mix and all(value < 1 for value in mix.values()):
        problems.append(f"{shown}: an update would be empty now and then; give one task that learns 1 or more")
    if recipe.mixing == "round_robin" and any(value != int(value) for value in mix.values()):
        problems.append(f"{shown}: with mixing=round_robin it is how often a task comes in a row; give whole numbers")
    if recipe.mixing != "proportional" and recipe.temperature != 1:
        problems.append(
            f"temperature={recipe.temperature:g}: is of mixing=proportional, and mixing={recipe.mixing}; leave it out"
        )
    return problems


def _shared(recipe: Recipe) -> list[str]:
    """Check the groups of `shared_batch`: their names, and what the tasks of one must have in common."""
    given = f"shared_batch={','.join(recipe.shared_batch)}"
    groups = shared_groups(recipe)
    named = [name for group in groups for name in group]
    problems = [
        f"{given}: {name}: {_no_task(recipe, name)}" for name in dict.fromkeys(named) if name not in recipe.tasks
    ]
    problems += [f"{given}: {name} stands there twice" for name in dict.fromkeys(named) if named.count(name) > 1]
    problems += [
        f"{given}: {group[0]} stands alone; name the tasks that share: a,b, or of several data sets a+b,c+d"
        for group in groups
        if len(group) == 1
    ]
    if problems or not groups:
        return problems
    if any(phase.cached for phase in recipe.phases):
        problems.append(f"{given}: cached maps need no trunk; leave it out, or set phases.*.cached=false")
    for group in groups:
        each: dict[str, dict[str, Any]] = {"batches": {n: batches_of(recipe, n) for n in group}}
        each["mix"] = {name: recipe.mix.get(name, 1.0) for name in group}
        for key, values in each.items():
            if len(set(map(str, values.values()))) > 1:
                said = ", ".join(f"{key}.{n}={_short(value)}" for n, value in values.items())
                problems.append(
                    f"{given}: {said}: tasks that share a batch have one size and one mix; give them the same"
                )
        problems += _shared_norms(given, {name: recipe.norms.get(name, "shared") for name in group})
    return problems


def _shared_norms(given: str, kinds: dict[str, str]) -> list[str]:
    """Check that one pass of the trunk can be that of all tasks of a group."""
    if own := [f"norms.{name}=own" for name, kind in kinds.items() if kind == "own"]:
        return [
            f"{given}: {', '.join(own)} makes a group of its own, as its passes have other statistics; take it out of "
            "shared_batch, or set shared"
        ]
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"norms.{name}={kind}" for name, kind in kinds.items())
        return [
            f"{given}: {said}: one pass of the trunk cannot both move its statistics and leave them; give them the same"
        ]
    return []


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value.size} (micro {value.micro}, repeats {value.repeats})"


def _balance(recipe: Recipe) -> list[str]:
    """Check the balance of losses, and what it needs of the mixture."""
    balance, given = recipe.balance, f"balance={recipe.balance}"
    if balance.lower() in PROJECTED:
        return [
            f"{given}: projecting the tasks' gradients costs a backward a task, and fixed weights that are tuned hold against it "
            f"(arXiv 2201.04122, 2505.10347, 2509.23915); expected {', '.join(BALANCES)}"
        ]
    if balance not in BALANCES:
        return [f"{given}: expected one of {', '.join(BALANCES)}{nearest(balance, BALANCES)}"]
    if balance == "fixed":
        return []
    problems = []
    if len(learning_tasks(recipe)) < 2:
        problems.append(f"{given}: balances tasks, and only one learns; leave it out")
    if balance == "gradient_norm" and recipe.machine.precision == "fp16":
        problems.append(f"{given}: fp16 scales gradients by steps of its own; set machine.precision=bf16 or fp32")
    if balance == "famo":
        absent = [names[0] for names in sharing(recipe) if recipe.mix.get(names[0], 1.0) < 1]
        if recipe.mixing != "ratios":
            problems.append(
                f"{given}: follows every loss in every update, and mixing={recipe.mixing} leaves tasks out of some"
            )
        elif absent:
            shown = ", ".join(f"mix.{name}={recipe.mix[name]:g}" for name in absent)
            problems.append(f"{given}: follows every loss in every update, and {shown} leaves some out; give 1 or more")
    return problems


def _cosines(recipe: Recipe) -> list[str]:
    """Check what a comparison of the tasks' gradients needs."""
    every, log, given = recipe.log.cosines, recipe.log.every, f"log.cosines={recipe.log.cosines}"
    if every <= 0:
        return []
    problems = []
    if len(learning_tasks(recipe)) < 2:
        problems.append(f"{given}: compares the gradients of tasks, and only one learns; leave it out")
    if log > 0 and every % log:
        problems.append(
            f"{given}: stands in the line of its update, and log.every={log} writes no line of some; give a multiple of {log}"
        )
    return problems
