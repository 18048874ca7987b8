"""The report of a run: one HTML file, made from what stands in the run's folder, that needs no network."""

import base64
import io
import json
import math
import re
import shlex
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trunkline._version import __version__
from trunkline.ground import storage
from trunkline.ground.errors import RecipeError

from ..runs.run import flat
from .figures import Line, line_chart, number, reliability, smooth

_METRICS = {
    "top1": ("Top-1 accuracy", True),
    "top5": ("Top-5 accuracy", True),
    "mean_per_class": ("Mean accuracy per class", True),
    "ece": ("Calibration error", True),
    "nll": ("Negative log-likelihood", False),
    "auroc": ("AUROC", False),
    "mAP": ("mAP (VOC, area)", True),
    "mAP07": ("mAP (VOC 2007, 11 points)", True),
    "mIoU": ("Mean IoU", True),
    "boundary_IoU": ("Mean boundary IoU", True),
    "pixel_accuracy": ("Pixel accuracy", True),
    "mean_accuracy": ("Mean accuracy per class", True),
}
_MOST = {name: 1.0 for name, (_, percent) in _METRICS.items() if percent}  # what a metric can reach
_COLUMNS = {"class_ap": "AP", "mask_class_ap": "mask AP", "class_iou": "IoU", "class_accuracy": "accuracy"}
_SECOND = re.compile(r"(mask_)?(AR.*|AP[sml])")  # metrics that have no chart of their own
_EXAMPLES = {
    "class_ap": "objects with a score of at least 0.5.",
    "class_iou": "on the left what the model says, on the right the truth.",
}
_NO_METRIC = {"samples", "update", "intervals", "details"}
_WEIGHTS = {"ema": "averaged", "raw": "raw"}
_MATRIX = 30  # more classes than that show their most confused pairs instead of the whole matrix
_THUMBNAIL = 240


def write_report(run: Path | str) -> Path:
    """Write `report.html` into the run's folder from its other files, and return its path.

    Reads `recipe.json` and, where they are, `scores.json`, `metrics.jsonl`, `environment.json`, `load.json`,
    `excluded.json` and the pictures of the mistakes; what is missing is left out of the page. Raises RecipeError where
    there is no `recipe.json`.
    """
    run = Path(run)
    recipe = _read(run / "recipe.json")
    if not isinstance(recipe, dict) or "resolved" not in recipe:
        raise RecipeError(f"{run}: holds no recipe.json of a run; give the folder of a run")
    scores = _read(run / "scores.json") or {}
    lines = list(_lines(run / "metrics.jsonl"))
    details = scores.get("details", {})
    beside = "class_iou" in details  # examples that stand beside their truth
    load, machine = _read(run / "load.json") or {}, _read(run / "environment.json")
    page = {
        "version": __version__,
        "recipe": recipe["recipe"],
        "run": str(run),
        "name": run.resolve().name,
        "headline": _headline(recipe, scores),
        "tiles": _tiles(recipe, scores),
        "samples": scores.get("samples", 0),
        "sentences": _sentences(recipe, scores, lines),
        "notes": [line["text"] for line in lines if line["kind"] == "note" and line.get("text")],
        "curves": _curves(lines),
        "confusion": _confusion(details),
        "pairs": _pairs(details),
        "calibration": _calibration(details.get("calibration")),
        "per_class": _per_class(details.get("per_class", [])),
        "by_class": _by_class(details),
        "beside": beside,
        "said": _EXAMPLES["class_iou" if beside else "class_ap"],
        "examples": [
            shown
            for file in sorted(run.glob("predictions/examples/*.jpg"))
            if (shown := _thumbnail(str(file), 1000 if beside else 480))
        ],
        "mistakes": [_mistake(m) for m in details.get("mistakes", [])],
        "parts": _time(lines, recipe["resolved"]),
        "load": load.get("report"),
        "replaced": load.get("replaced") or [],
        "excluded": list((_read(run / "excluded.json") or {}).items()),
        "knobs": {k: _value(v) for k, v in recipe.get("knobs", {}).items()},
        "settings": _settings(recipe),
        "environment": {k: _value(v) for k, v in flat(machine).items() if v is not None} if machine else {},
        "commands": _commands(recipe, run),
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template("report.html").render(page)
    beside = run / ".report.html.tmp"
    beside.write_text(html, encoding="utf-8", errors="replace")  # file names may hold bytes that are no text
    return beside.replace(run / "report.html")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: damaged JSON ({error})") from None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of `metrics.jsonl`; one that was torn by the end of a process is left out."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and "kind" in found:
            yield found


def _title(metric: str) -> str:
    return _METRICS.get(metric, (metric, False))[0]


def _percent(metric: str) -> bool:
    return _METRICS.get(metric, (metric, False))[1]


def _main_metric(recipe: dict[str, Any], scores: dict[str, Any]) -> str | None:
    chosen = recipe["resolved"].get("evaluation", {}).get("metric")
    return chosen if chosen in scores else next(iter(_metrics(scores)), None)


def _metrics(scores: dict[str, Any]) -> dict[str, float]:
    return {
        k: v
        for k, v in scores.items()
        if k not in _NO_METRIC and isinstance(v, (int, float)) and not isinstance(v, bool)
    }


def _tile(metric: str, scores: dict[str, Any]) -> dict[str, str]:
    ends = scores.get("intervals", {}).get(metric)

    def shown(value: float) -> str:
        return (
            number(value, True) if _percent(metric) else f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else number(value)
        )

    if scores[metric] == -1:  # COCO's mark
        return {"title": _title(metric), "value": "none there", "interval": ""}
    between = "" if ends is None else f"{shown(ends[0]).removesuffix(' %')} to {shown(ends[1])}"
    return {"title": _title(metric), "value": shown(scores[metric]), "interval": between}


def _headline(recipe: dict[str, Any], scores: dict[str, Any]) -> dict[str, str] | None:
    metric = _main_metric(recipe, scores)
    return None if metric is None else _tile(metric, scores)


def _tiles(recipe: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, str]]:
    return [_tile(name, scores) for name in _metrics(scores) if name != _main_metric(recipe, scores)]


def _sentences(recipe: dict[str, Any], scores: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """What was done, in words."""
    resolved = recipe["resolved"]
    network, optimizer = resolved.get("network", {}), resolved.get("optimizer", {})
    updates = max((line["update"] for line in lines if line["kind"] == "train"), default=0)
    tasks = resolved.get("tasks", {})
    data = scores.get("data") or ", ".join(str(t["data"]) for t in tasks.values() if t.get("data"))
    source = network.get("weights", "none")
    begin = "random weights" if source == "none" else str(source)
    phases = [p.get("name", "train") for p in resolved.get("phases", [])]
    first = f"Recipe {recipe['recipe']}"
    first += f" ({', then '.join(phases)})" if phases else ""
    first += f" on {data}" if data else ""
    first += f", {network['backbone']}" if network.get("backbone") else ""
    first += f", from {begin}."
    sentences = [first]
    if updates:
        size = resolved.get("batch", {}).get("size")
        text = f"{updates:,} updates" + (f" of {size} samples" if size else "")
        if optimizer:
            text += f" with {optimizer.get('name')}, learning rate {number(optimizer.get('lr', 0))}"
        sentences.append(text + ".")
    if scores:
        weights = _WEIGHTS.get(scores.get("weights", ""), scores.get("weights"))
        text = f"Scored on the {scores.get('samples', 0):,} samples of {scores.get('split', 'val')}"
        text += f" with the {weights} weights" if weights else ""
        text += f" of update {scores['update']:,}" if scores.get("update") else ""
        sentences.append(text + ".")
    return sentences


def _curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Charts of the run: loss and learning rate by update, then each metric by evaluation."""
    train = [line for line in lines if line["kind"] == "train"]
    charts = []
    xs = [line["update"] for line in train]
    starts = [b["update"] for a, b in pairwise(train) if a.get("phase") != b.get("phase")]
    if len(xs) > 1:
        losses = [float(line["loss"]) for line in train]
        width = len(xs) / 30
        shown = [Line("smoothed", xs, smooth(losses, width))] if width > 1 else []
        shown.insert(0, Line("each update", xs, losses, "faint" if shown else "s1"))
        charts.append({"title": "Training loss", "svg": line_chart(shown, "training loss", marks=starts),
                       "legend": [(line.kind, line.name) for line in shown] if len(shown) > 1 else []})  # fmt: skip
        rates = [float(line.get("lr", math.nan)) for line in train]
        if any(map(math.isfinite, rates)):
            chart = line_chart([Line("learning rate", xs, rates)], "learning rate", marks=starts)
            charts.append({"title": "Learning rate", "svg": chart, "legend": []})
    evals = [line for line in lines if line["kind"] == "eval"]
    for metric in dict.fromkeys(name for line in evals for name in line.get("metrics", {})):
        if _SECOND.fullmatch(metric):
            continue
        shown = [line for line in (_metric_line(evals, metric, weights) for weights in ("raw", "ema")) if line]
        if len({x for line in shown for x in line.xs}) > 1:
            chart = line_chart(shown, _title(metric), _percent(metric), starts, _MOST.get(metric, math.inf))
            legend = [(line.kind, line.name) for line in shown] if len(shown) > 1 else []
            charts.append({"title": _title(metric), "svg": chart, "legend": legend})
    return charts


def _metric_line(evals: list[dict[str, Any]], metric: str, weights: str) -> Line | None:
    mine = [line for line in evals if line.get("weights", "raw") == weights and metric in line.get("metrics", {})]
    if not mine:
        return None
    xs, ys = [line["update"] for line in mine], [float(line["metrics"][metric]) for line in mine]
    ends = [line.get("intervals", {}).get(metric) for line in mine]
    band = ([e[0] for e in ends], [e[1] for e in ends]) if all(ends) else None
    return Line(_WEIGHTS[weights], xs, ys, "s2" if weights == "ema" else "s1", len(xs) <= 40, band)


def _confusion(details: dict[str, Any]) -> dict[str, Any] | None:
    matrix, classes = details.get("confusion"), details.get("classes", [])
    if not matrix or len(classes) > _MATRIX:
        return None
    rows = [
        [{"count": n, "share": round(n / max(1, sum(row)), 3), "right": i == j} for j, n in enumerate(row)]
        for i, row in enumerate(matrix)
    ]
    return {"classes": classes, "rows": rows, "upright": len(classes) > 4}


def _pairs(details: dict[str, Any]) -> list[dict[str, Any]]:
    matrix, classes = details.get("confusion"), details.get("classes", [])
    if not matrix or len(classes) <= _MATRIX:
        return []
    found = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    return [
        {"truth": classes[i], "predicted": classes[j], "count": n, "share": f"{100 * n / sum(matrix[i]):.0f} %"}
        for n, i, j in sorted(found, key=lambda f: (-f[0], f[1], f[2]))[:20]
    ]


def _calibration(bins: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if not bins or not any(b["samples"] for b in bins):
        return None
    samples = sum(b["samples"] for b in bins)
    gap = sum(b["samples"] * (b["confidence"] - b["accuracy"]) for b in bins if b["samples"]) / samples
    words = (
        "about as sure as it is right"
        if abs(gap) < 0.01
        else "surer than it is right"
        if gap > 0
        else "less sure than it is right"
    )
    return {"svg": reliability(bins), "words": words, "gap": f"{100 * gap:+.1f}".replace("-", "−")}


def _per_class(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    known = [r for r in rows if r["samples"]]
    if not known:
        return None
    worst = sorted(known, key=lambda r: (r["accuracy"], r["high"]))
    return {"all": rows, "worst": worst[:20] if len(rows) > _MATRIX else None, "classes": len(rows)}


def _by_class(details: dict[str, Any]) -> dict[str, Any] | None:
    """What a detector or a segmenter scores by class, and precision over recall: a faint line a class, and their mean."""
    columns = [(title, found) for key, title in _COLUMNS.items() if (found := details.get(key))]
    if not columns:
        return None
    names = [name for name in columns[0][1] if any(found.get(name) is not None for _, found in columns)]
    rows = [(name, ["–" if v is None else f"{v:.3f}" for v in (f.get(name) for _, f in columns)]) for name in names]
    curves = details.get("precision") or {}
    recalls = [i / 20 for i in range(21)]
    lines = [Line(name, recalls, values, "faint") for name, values in list(curves.items())[:100]]
    if lines:
        lines.append(Line("mean", recalls, [sum(c) / len(curves) for c in zip(*curves.values(), strict=True)], "s1"))
    chart = line_chart(lines, "precision over recall", most=1.0, axis="recall") if lines else None
    return {"headings": [title for title, _ in columns], "rows": rows, "chart": chart}


def _mistake(m: dict[str, Any]) -> dict[str, Any]:
    own = m.get("label_probability")
    return {
        "picture": _thumbnail(m.get("source")),
        "id": m["id"],
        "truth": m["truth"],
        "predicted": m["predicted"],
        "confidence": f"{100 * m['confidence']:.1f} %",
        "own": "" if own is None else f"{100 * own:.1f} %",
    }


def _thumbnail(source: str | None, side: int = _THUMBNAIL) -> str | None:
    """The picture as a data URI, or None where its file is gone or no picture any more."""
    from PIL import Image, ImageOps

    if not source:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a picture's metadata lacks is of no interest here
            with Image.open(io.BytesIO(storage.read(source))) as picture:
                picture.draft("RGB", (side * 2, side * 2))
                small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _time(lines: list[dict[str, Any]], resolved: dict[str, Any]) -> dict[str, Any] | None:
    """Seconds by part. What is between the updates is evaluation, saving and pauses between starts."""
    train = [line for line in lines if line["kind"] == "train" and line.get("images_per_second")]
    size = resolved.get("batch", {}).get("size")
    if not train or not size:
        return None
    every = resolved.get("log", {}).get("every") or 1
    seconds = [every * size / line["images_per_second"] for line in train]
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


def _commands(recipe: dict[str, Any], run: Path) -> list[tuple[str, str]]:
    settings = [shlex.quote(f"{k}={_value(v).replace(', ', ',')}") for k, v in recipe.get("knobs", {}).items()]
    again = " ".join(["trunkline train", shlex.quote(recipe["recipe"]), *settings, "--run NEW_FOLDER"])
    folder = shlex.quote(str(run))
    return [
        ("Repeat it", again),
        ("Score it again", f"trunkline evaluate {folder} --json"),
        ("Use it on other pictures", f"trunkline predict {folder} PHOTOS"),
    ]
