"""The end of a run: the published weights, the scores, the predictions and the report."""

import json
import shutil
from typing import TYPE_CHECKING, Any

from ...backbones.weights import save_weights
from ...cluster import checkpoint
from ...cluster.workers import ALONE
from ..evaluation.measure import score
from ..models.build import published
from ..report.report import write_report
from ..show import note, scores_line
from .session import Session

if TYPE_CHECKING:
    from PIL.Image import Image


def finish(session: Session) -> None:
    """Write `weights.safetensors`, `scores.json`, `predictions/val.jsonl` and `report.html` from the last checkpoint."""
    run, recipe = session.run, session.recipe
    name = checkpoint.find(run.checkpoints)
    assert name
    averaged = (run.checkpoints / name / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(run.checkpoints / name / ("ema.safetensors" if averaged else "model.safetensors"))
    for left in run.path.glob(f".{run.weights.name}.*.tmp"):  # by a crash in the middle of writing it
        left.unlink(missing_ok=True)
    checkpoint.prune(run.checkpoints, recipe.checkpoints.keep)
    classes = session.task.facts.get("classes")
    save_weights(
        run.weights, published(session.model, tensors), arch=session.facts.arch,
        stride_in=session.facts.stride_in, classes=classes, preprocessing=session.task.preprocessing,
        info={"trunkline_recipe": run.recipe["recipe"], "trunkline_update": str(int(name)),
              "trunkline_output_stride": str(recipe.network.output_stride), "trunkline_norm": recipe.network.norm,
              "trunkline_pyramid": recipe.network.pyramid, **session.task.stated()},
    )  # fmt: skip
    if session.last_scores and session.last_scores[0] == int(name):
        _, scores, records = session.last_scores
    else:
        model = session.model.to(session.device)
        model.load_state_dict(tensors)
        batches = session.batches(ALONE)  # the other workers are done
        scores, records = score(model, session.task, session.validation, batches, recipe.evaluation.precision)
    result = scores.to_json() | {
        "split": "val",
        "weights": "ema" if averaged else "raw",
        "checkpoint": name,
        "update": int(name),
        "data": next(iter(recipe.tasks.values())).data,
        "recipe": run.recipe["recipe"],
    }
    sources = {m["id"] for m in result["details"].get("mistakes", ())}
    where = {session.validation.id(i): i for i in range(len(session.validation)) if session.validation.id(i) in sources}
    for mistake in result["details"].get("mistakes", ()):
        mistake["source"] = str(session.validation.source(where[mistake["id"]]))
    run.write("scores.json", result)
    write_records(run.path / "predictions" / "val.jsonl", records)
    _draw_examples(session, records, set(scores.details.get("examples", ())))
    write_report(run.path)
    note(f"done: {scores_line(scores)}")
    note(f"  weights  {run.shown}/{run.weights.name}\n  report   {run.shown}/{run.report.name}")


def _draw_examples(session: Session, records: list[dict[str, Any]], wanted: set[str]) -> None:
    """`predictions/examples/0.jpg` …: what the model says of some samples, drawn, and beside it the truth."""
    folder = session.run.path / "predictions" / "examples"
    shutil.rmtree(folder, ignore_errors=True)
    for i, record in enumerate(records):
        if record["id"] in wanted:
            folder.mkdir(parents=True, exist_ok=True)
            said = {name: value for name, value in record.items() if name != "id"}
            picture = session.task.predicted.from_line({"file": str(session.validation.source(i)), **said}).image()
            truth = session.task.truth(session.validation[i])
            if truth is not None:
                picture = _side_by_side(picture, truth)
            picture.thumbnail((640, 640) if truth is None else (1280, 1280))  # a legend stays legible
            picture.save(folder / f"{i}.jpg", quality=85)


def _side_by_side(left: "Image", right: "Image") -> "Image":
    from PIL import Image

    gap = max(2, left.width // 50)
    page = Image.new("RGB", (left.width + gap + right.width, max(left.height, right.height)), "white")
    page.paste(left)
    page.paste(right, (left.width + gap, 0))
    return page


def write_records(path: Any, records: list[dict[str, Any]]) -> None:
    """One JSON line a sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
