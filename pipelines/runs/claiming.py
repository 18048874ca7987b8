"""Whether a recipe may go on with the run that is there."""

import copy
from collections.abc import Callable
from typing import Any

from trunkline.ground.errors import RecipeError

from ..recipe.fields import CHANGEABLE, MEAN_CHANGE, groups_of
from .run import Run

_OURS = ("metrics.jsonl", "tensorboard", "logs", "features", "checkpoints", "folds")


def refuse_strangers(run: Run) -> None:
    """Raise RecipeError where the folder is a file, or holds no run but files that are not ours."""
    if run.exists() or not run.path.exists():
        return
    found = sorted(run.path.iterdir()) if run.path.is_dir() else []
    strangers = [p.name for p in found if p.name not in _OURS and not p.name.startswith(".")]
    if strangers or not run.path.is_dir():
        raise RecipeError(f"{run.shown}: is there and holds no run ({', '.join(strangers[:4])}); choose another --run")


def claim(
    run: Run, resolved: dict[str, Any], as_now: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """Begin a run in its folder, or go on with the one that is there. Return what `recipe.json` is to say.

    A trained run is not changed yet, as its data or checkpoint may still refuse. `as_now` gives a stored recipe the fields
    that came later, at their defaults.

    What `auto` became at the first start stays, except for `machine.loaders`. Raises RecipeError where the folder holds
    another recipe (of the same name: with the differences) or files that are no run's.
    """
    run.forget()
    if not run.exists():
        refuse_strangers(run)
        run.write("recipe.json", resolved)
        return resolved
    before = run.recipe
    kept = {k: v for k, v in before.get("auto", {}).items() if k not in ("machine.loaders", "machine.workers")}
    if before["recipe"] != resolved["recipe"]:  # all else differs too
        raise RecipeError(
            f"{run.shown}: holds a run of another recipe ({before['recipe']} there, {resolved['recipe']} now); choose another "
            "--run"
        )
    stored = as_now(before["resolved"])
    changed = _changed_tasks(run, stored, resolved["resolved"])
    metric, evaluation = stored.get("evaluation", {}).get("metric", ""), resolved["resolved"]["evaluation"]
    if not evaluation["metric"] and metric.partition("/")[0] not in changed:
        evaluation["metric"] = metric  # left open, it stays as the run began with it
    # what tasks reached alone changes no other number; told once, it stays, so that a curve is against one yardstick
    by_change = evaluation["metric"] in (MEAN_CHANGE, MEAN_CHANGE.partition("/")[2])
    single_is_new = not by_change and not stored.get("evaluation", {}).get("single")
    was, now = (flat(without(tree, changed)) for tree in (stored, resolved["resolved"]))
    # settings that are `auto` here keep what `auto` became at the first start
    free = {k for k in now if (resolved["auto"].get(k) or now[k] == "auto") and k in kept}
    if single_is_new:
        free |= {k for k in now if k.startswith("evaluation.single.")}
    wrong = _differences(was, now, free)
    if wrong:
        raise RecipeError(
            f"{run.shown}: holds a run of another recipe; choose another --run, or give the same settings again:\n"
            + "\n".join(wrong)
        )
    for setting in ("weights", "weights_key"):  # a run that was trained goes on with its own, whatever is given now
        if run.trained and (began := was.get(f"network.{setting}")) != now.get(f"network.{setting}"):
            resolved["resolved"]["network"][setting] = began
            resolved["knobs"] = {**resolved["knobs"], setting: began}
    kept = {key: value for key, value in kept.items() if not is_of(key, changed)}
    for key, (value, _) in kept.items():
        put = resolved["resolved"]
        *path, last = key.split(".")
        for part in path:
            put = put[int(part)] if isinstance(put, list) else put[part]
        put[last] = value
    resolved["auto"] |= kept
    return {**resolved, "changes": before["changes"]} if "changes" in before else resolved


OF_TASKS = (
    "tasks", "batches", "loss_weights", "mix", "norms", "optimizer.rates",
    "evaluation.nth", "evaluation.patience_of", "evaluation.single",
)  # fmt: skip
"""Settings of a recipe that have a value for each task, or may have one."""


def _changed_tasks(run: Run, before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Find the tasks that were added or taken out. Raises RecipeError where the run cannot go on so.

    Taken out of shared batches a task leaves the others there; one that is added has batches of its own.
    """
    was, there = before["tasks"], now["tasks"]
    wanted = [*(n for n in was if n in there), *(n for n in there if n not in was)]
    if [*there] != wanted:
        raise RecipeError(
            f"{run.shown}: began with the tasks in the order {', '.join(was)}, and they are {', '.join(there)} now: the first "
            f"one's epochs are the run's; give them as {', '.join(wanted)}"
        )
    if was.keys() == there.keys():
        return set()
    if len(was) < 2 or len(there) < 2:
        raise RecipeError(
            f"{run.shown}: has the task{'s' * (len(was) > 1)} {', '.join(was)}, and {', '.join(there)} now: a run goes on with "
            "a task added or removed where it had several and has several; else start a new one with weights=, this run's folder"
        )
    groups = ([name for name in group if name in there] for group in groups_of(before.get("shared_batch", ())))
    if [[*group] for group in groups_of(now["shared_batch"])] == [group for group in groups if len(group) > 1]:
        before["shared_batch"] = now["shared_batch"]
    return was.keys() ^ there.keys()


def is_of(key: str, tasks: set[str]) -> bool:
    """Say whether a setting is of one of these tasks."""
    own = next((key.removeprefix(f"{of}.") for of in OF_TASKS if key.startswith(f"{of}.")), "")
    return own.partition(".")[0] in tasks


def without(tree: dict[str, Any], tasks: set[str]) -> dict[str, Any]:
    """Return a copy of a recipe's plain tree without what these tasks have for themselves."""
    tree = copy.deepcopy(tree)
    for of in OF_TASKS:
        node = tree
        for part in of.split("."):
            node = node.get(part) or {}
        for name in tasks & node.keys():
            del node[name]
    for phase in tree.get("phases", ()):
        phase["still"] = [name for name in phase.get("still", ()) if name not in tasks]
    if tasks and "evaluation" in tree:  # the best checkpoint may be that of another task, too
        tree["evaluation"]["metric"] = ""
    return tree


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested tree to dotted keys."""
    if isinstance(tree, dict) and tree:
        return {k: v for name, node in tree.items() for k, v in flat(node, f"{prefix}{name}.").items()}
    if isinstance(tree, list) and any(isinstance(v, dict) for v in tree):
        return {k: v for i, node in enumerate(tree) for k, v in flat(node, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): tree}


def _differences(was: dict[str, Any], now: dict[str, Any], free: set[str]) -> list[str]:
    """List the settings that may not differ and do; `free` are more that may."""
    return [
        f"  {k}: {was.get(k, 'not set')} there, {now.get(k, 'not set')} now"
        for k in sorted(was.keys() | now.keys())
        if was.get(k) != now.get(k) and not changeable(k) and k not in free and not _filled(k, was, now)
    ]


def _filled(key: str, was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Say whether a setting is a table that is empty on one side only: the lines of what the other has say it all."""
    return {} in (was.get(key), now.get(key)) and any(k.startswith(f"{key}.") for k in (*was, *now))


def changeable(key: str) -> bool:
    """Say whether a setting may differ when a run goes on."""
    parts = key.split(".")
    return any(
        len(pattern) == len(parts) and all(p in ("*", q) for p, q in zip(pattern, parts, strict=True))
        for pattern in (c.split(".") for c in CHANGEABLE)
    )
