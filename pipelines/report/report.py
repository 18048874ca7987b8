"""The report of a run: one HTML file, made from the files in the run's folder, that needs no network."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trunkline._version import __version__
from trunkline.ground.errors import RecipeError

from ...tasks.scores import metrics_in
from ..evaluation.changes import CHANGE
from ..recipe.plugin import file_of
from ..runs.claiming import flat
from .blocks import rows_of
from .curves import CHANGED, WEIGHTS, balance_curves, cosine_curves, loss_curves, metric_curves, training_curves
from .figures import number
from .several import OF_ALL, changes_said, side_by_side, single_of
from .shown import Shown, read_shown, tile, unit_of


def write_report(run: Path | str) -> Path:
    """Write `report.html` into the run's folder from its other files, and return its path.

    Reads `recipe.json` and, where they exist, `scores.json`, `shown.json` with its pictures, `metrics.jsonl`,
    `environment.json`, `load.json` and `excluded.json`; the page leaves out what is missing. Raises RecipeError where
    there is no `recipe.json`, or a JSON file is damaged.
    """
    run = Path(run)
    recipe = _read(run / "recipe.json")
    if not isinstance(recipe, dict) or "resolved" not in recipe:
        raise RecipeError(f"{run}: holds no recipe.json of a run; give the folder of a run")
    scores = _read(run / "scores.json") or {}
    changes = recipe.get("changes", [])
    lines = [*_lines(run / "metrics.jsonl"), *({"kind": CHANGED, **change} for change in changes)]
    shown, of_all = read_shown(_read(run / "shown.json"), run / "shown.json")
    names = [one.task for one in shown if one.prefix]
    load, machine = _read(run / "load.json") or {}, _read(run / "environment.json")
    main = _main_metric(recipe, scores, shown)
    change = tile(OF_ALL, CHANGE, scores) if CHANGE in scores else None
    resolved = recipe["resolved"]
    page = {
        "version": __version__,
        "recipe": recipe["recipe"],
        "run": str(run),
        "name": run.resolve().name,
        "headline": change if main == CHANGE else _headline(main, shown, scores),
        "change": None if main == CHANGE else change,
        "sentences": _sentences(recipe, scores, lines),
        "folds": sorted((p.parent.name for p in run.glob("folds/*/report.html")), key=lambda n: (len(n), n)),
        "notes": [line["text"] for line in lines if line["kind"] == "note" and line.get("text")],
        "curves": training_curves(lines)
        + metric_curves(lines, OF_ALL)
        + balance_curves(lines, names)
        + cosine_curves(lines, names),
        "beside": side_by_side(shown, main, scores, resolved) if names else [],
        "all_rows": rows_of(of_all, run, "all-"),
        "tasks": [
            _task(place, one, main, scores, lines, run, single_of(one, resolved)) for place, one in enumerate(shown)
        ],
        "several": len(shown) > 1,
        "unit": unit_of(shown),
        "parts": _time(lines, resolved),
        "load": load.get("report"),
        "replaced": load.get("replaced") or [],
        "excluded": _excluded(_read(run / "excluded.json") or {}),
        "knobs": {k: _value(v) for k, v in recipe.get("knobs", {}).items()},
        "settings": _settings(recipe),
        "environment": {k: _value(v) for k, v in flat(machine).items() if v is not None} if machine else {},
        "commands": _commands(recipe, run, names),
        "changes": changes_said(changes),
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template("report.html").render(page)
    beside = run / ".report.html.tmp"
    beside.write_text(html, encoding="utf-8", errors="replace")  # file names may hold bytes that are not text
    return beside.replace(run / "report.html")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: damaged JSON ({error})") from None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, without one that was torn by the end of a process."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and "kind" in found:
            yield found


def _main_metric(recipe: dict[str, Any], scores: dict[str, Any], shown: list[Shown]) -> str | None:
    """Find the metric that stands first: the one that chose the best checkpoint, else the first of the first task."""
    chosen, names = recipe["resolved"].get("evaluation", {}).get("metric"), list(metrics_in(scores))
    first = [one.prefix + name for one in shown[:1] for name in one.metrics]
    wanted = [n for n in names if chosen and chosen in (n, n.partition("/")[2])]
    return next((n for n in (*wanted, *first, *names) if n in names), None)


def _headline(main: str | None, shown: list[Shown], scores: dict[str, Any]) -> dict[str, str] | None:
    whose = next((one for one in shown if main and main.startswith(one.prefix)), Shown())
    if main is None:
        return None
    found = tile(whose, main, scores)
    return found | {"title": f"{whose.task}: {found['title']}"} if whose.prefix else found


def _task(
    place: int, shown: Shown, main: str | None, scores: dict[str, Any], lines: list[dict[str, Any]], run: Path,
    single: tuple[str, float] | None,
) -> dict[str, Any]:  # fmt: skip
    """Build what the page says of a task: tiles, curves, blocks. A single task's main metric stands above them."""
    names = [name for name in shown.own(scores) if shown.prefix or name != main]
    return {
        "name": shown.task,
        "mark": f"task-{place}",
        "tiles": [tile(shown, name, scores) for name in names],
        "curves": (loss_curves(lines, shown) if shown.prefix else []) + metric_curves(lines, shown, single),
        "rows": rows_of(shown.blocks, run, f"task-{place}-"),
    }


def _excluded(found: dict[str, Any]) -> list[tuple[str, str]]:
    """List what was left out, and why; with several tasks, each behind the task's name."""
    rows = []
    for name, why in found.items():
        rows += [(f"{name}: {own}", w) for own, w in why.items()] if isinstance(why, dict) else [(name, why)]
    return rows


def _sentences(recipe: dict[str, Any], scores: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """Say in words what was done."""
    resolved = recipe["resolved"]
    network, optimizer = resolved.get("network", {}), resolved.get("optimizer", {})
    updates = max((line["update"] for line in lines if line["kind"] == "train"), default=0)
    tasks = resolved.get("tasks", {})
    data = scores.get("data") or {name: own["data"] for name, own in tasks.items() if own.get("data")}
    data = ", ".join(map(str, data.values())) if isinstance(data, dict) else data
    source = network.get("weights", "none")
    begin = "random weights" if source == "none" else str(source)
    phases = [p.get("name", "train") for p in resolved.get("phases", [])]
    first = f"Recipe {recipe['recipe']}"
    first += f" ({', then '.join(phases)})" if phases else ""
    first += f" of {len(tasks)} tasks" if len(tasks) > 1 else f" on {data}" if data else ""
    first += f", {network['backbone']}" if network.get("backbone") else ""
    first += f", from {begin}."
    sentences = [first]
    if updates:
        sizes = _batch([line for line in lines if line["kind"] == "train"], resolved)
        ends = list(dict.fromkeys(number(of(sizes)) for of in (min, max))) if sizes else []
        text = f"{updates:,} updates" + (f" of {' to '.join(ends)} samples" if sizes else "")
        if optimizer:
            text += f" with {optimizer.get('name')}, learning rate {number(optimizer.get('lr', 0))}"
        sentences.append(text + ".")
    if scores:
        weights = WEIGHTS.get(scores.get("weights", ""), scores.get("weights"))
        text = f"Scored on the {scores.get('samples', 0):,} samples of {scores.get('split', 'val')}"
        text += f" with the {weights} weights" if weights else ""
        text += f" of update {scores['update']:,}" if scores.get("update") else ""
        sentences.append(text + ".")
    return sentences


def _batch(lines: list[dict[str, Any]], resolved: dict[str, Any]) -> list[float]:
    """List the samples of an update for each line: the mixture's own number, an average, as the run wrote it.

    Of an older run, which did not write it, those of its one task; of several tasks the list is empty.
    """
    size = 0 if len(resolved.get("tasks", {})) > 1 else resolved.get("batch", {}).get("size") or 0
    found = [float(line.get("batch", size)) for line in lines]
    return found if all(found) else []


def _time(lines: list[dict[str, Any]], resolved: dict[str, Any]) -> dict[str, Any] | None:
    """Split a run's seconds by part; None where no speed is logged.

    The time outside updates is evaluation, saving and pauses between starts.
    """
    train = [line for line in lines if line["kind"] == "train" and line.get("images_per_second")]
    sizes = _batch(train, resolved)
    if not sizes:
        return None
    every = resolved.get("log", {}).get("every") or 1
    seconds = [every * size / line["images_per_second"] for size, line in zip(sizes, train, strict=True)]
    waited = sum(s * line.get("wait", 0) for s, line in zip(seconds, train, strict=True))
    stamps = [line["time"] for line in lines if "time" in line]
    rest = max(0.0, max(stamps, default=0) - min(stamps, default=0) - sum(seconds[1:]))
    named = [("updates", sum(seconds) - waited, "s1"), ("waiting for data", waited, "s2"),
             ("evaluation, saving, pauses", rest, "rest")]  # fmt: skip
    whole = sum(s for _, s, _ in named) or 1
    middle = sorted(line["images_per_second"] for line in train)[len(train) // 2]
    parts = [
        {"name": name, "seconds": _duration(s), "percent": round(100 * s / whole, 2), "kind": kind}
        for name, s, kind in named
    ]
    return {"parts": parts, "wait": 100 * waited / sum(seconds), "speed": number(middle)}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _settings(recipe: dict[str, Any]) -> list[dict[str, str]]:
    auto, given = recipe.get("auto", {}), recipe.get("knobs", {})
    rows = []
    for key, value in flat(recipe["resolved"]).items():
        origin = f"auto: {auto[key][1]}" if key in auto else "given" if key in given else ""
        rows.append({"key": key, "value": _value(value), "origin": origin})
    return rows


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _commands(recipe: dict[str, Any], run: Path, tasks: list[str]) -> list[tuple[str, str]]:
    """Write the shell commands that repeat the run and use it; `tasks` where there are several."""
    settings = [shlex.quote(f"{k}={_value(v).replace(', ', ',')}") for k, v in recipe.get("knobs", {}).items()]
    again = " ".join(["trunkline train", shlex.quote(recipe["recipe"]), *settings, "--run NEW_FOLDER"])
    first = min(run.glob("folds/*/report.html"), default=run / "report.html").parent  # of folds, each has its own model
    folder, chosen = shlex.quote(str(first)), [shlex.quote(f"task={task}") for task in tasks]
    file = file_of(recipe["recipe"])
    plugin = f" {shlex.quote(f'plugin={file}')}" if file else ""  # which may hold the run's task
    return [
        ("Repeat it", again),
        ("Score it again", f"trunkline evaluate {folder}{plugin} --json"),
        *(
            ("Use it on other files", f"trunkline predict {folder} FILES {task}".rstrip() + plugin)
            for task in chosen or [""]
        ),
    ]
