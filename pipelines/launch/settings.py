"""The settings of a launch: those of all launchers, and of each launcher and engine by the tables. Imports no torch."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.ranges import problems_of

from ...cluster.config import Common, EngineOptions, Launch
from ...cluster.engines import table as engines
from ...cluster.launchers import table as launchers
from ...cluster.launchers.table import LAUNCHERS
from ..recipe.convert import attempt, convert


def kinds() -> list[type]:
    """List the classes that hold settings of a launch."""
    return [Common, *launchers.options().values(), *engines.options().values()]


def names() -> tuple[str, ...]:
    """List the names of all settings of a launch."""
    return tuple(dict.fromkeys(f.name for kind in kinds() for f in fields(kind)))


def of_training() -> set[str]:
    """Find the names of the settings that only training uses: evaluating and predicting workers have no use for them."""
    return {f.name for kind in kinds() for f in fields(kind) if f.metadata.get("of") == "training"}


def hints_of(kind: type) -> dict[str, Any]:
    """Find the types of a class's settings, by name."""
    choice: Any = Literal[tuple(LAUNCHERS)]  # pyright: ignore[reportInvalidTypeForm] (the rows of a table)
    return {**get_type_hints(kind), **({"launch": choice} if kind is Common else {})}


def launch_of(settings: dict[str, Any]) -> tuple[Launch, dict[str, Any]]:
    """Make the launch that the settings ask for; return it and the other settings. Raises RecipeError with every problem."""
    problems: list[str] = []
    common = _made(Common, settings, problems)
    classes = launchers.options()
    mine = _made(classes[common.launch], settings, problems)
    taken = {f.name for f in fields(mine)}
    rest = {key: value for key, value in settings.items() if key not in taken}
    others = [_made(kind, rest, problems) for name, kind in classes.items() if name != common.launch]
    chosen = _engines(settings, LAUNCHERS[common.launch].settings, problems)
    launch = Launch(common.launch, common.workers, common.timeout, mine, chosen)
    problems += _elastic(common) + _strangers(settings, common.launch, classes)
    for part in (common, mine, *others, *chosen.values()):
        problems += problems_of(part, shown="{:g}".format)
    if len(asked := list(engines.asked(launch).values())) > 1:
        problems.append(f"{' and '.join(asked)}: each asks for an engine of its own; give one of them")
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return launch, {key: value for key, value in settings.items() if key not in names()}


def launch_from(plain: dict[str, Any]) -> Launch:
    """Make a launch from what `dataclasses.asdict` gave of one, also after it went through JSON."""
    workers, classes = plain["workers"], engines.options()
    return Launch(
        plain["launch"],
        tuple(workers) if isinstance(workers, list) else workers,
        plain["timeout"],
        launchers.options()[plain["launch"]](**plain["own"]),
        {name: classes[name](**own) for name, own in plain["engines"].items()},
    )


def _made(kind: type, settings: dict[str, Any], problems: list[str]) -> Any:
    """Make a `kind` from the settings that are its fields; what is wrong with them is added to `problems`."""
    hints, given = hints_of(kind), {}
    for key in (f.name for f in fields(kind) if f.name in settings):
        attempt(problems, given, key, lambda key=key: convert(hints[key], settings[key], key))
    return kind(**given)


def _engines(settings: dict[str, Any], usual: Mapping[str, Any], problems: list[str]) -> dict[str, EngineOptions]:
    """Make every engine's options, with the launcher's usual settings where no engine is asked for otherwise."""
    classes = engines.options()
    made = {name: _made(kind, settings, problems) for name, kind in classes.items()}
    given = {key for key, value in settings.items() if value is not None}
    if usual.keys() & given or any(own.asked() for own in made.values()):
        return made
    return {name: _made(kind, {**settings, **usual}, problems) for name, kind in classes.items()}


def _elastic(common: Common) -> list[str]:
    """Say what is wrong where a range of workers is given to a launcher that takes none."""
    if common.least == common.most or LAUNCHERS[common.launch].elastic:
        return []
    wanted = " or ".join(f"launch={name}" for name, row in LAUNCHERS.items() if row.elastic)
    return [f"workers={common.least},{common.most}: a range of workers needs {wanted}"]


def _strangers(settings: dict[str, Any], launcher: str, classes: Mapping[str, type]) -> list[str]:
    """Say which of the settings belong to other launchers than the chosen one."""
    own = {f.name for f in fields(classes[launcher])}
    found = []
    for key in (key for key in settings if key not in own):
        having = [name for name, kind in classes.items() if key in {f.name for f in fields(kind)}]
        if having:
            called = " and ".join(LAUNCHERS[name].called for name in having)
            add = " or ".join(f"launch={name}" for name in having)
            found.append(f"{key}={settings[key]}: is of {called} alone; add {add}, or leave it out")
    return found
