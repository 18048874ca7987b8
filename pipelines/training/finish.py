"""The end of a run: the published weights, the scores, the predictions and the report."""

import shutil
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...backbones.weights import save_weights
from ...cluster import checkpoint
from ...cluster.workers import ALONE
from ...tasks.scores import Scores, joined
from ..models.build import needs_pyramid, published
from ..report.report import write_report
from ..runs.files import write_records
from ..show import note, scores_line
from .parts import Part
from .session import Evaluated, Session

if TYPE_CHECKING:
    from PIL.Image import Image


def finish(session: Session) -> None:
    """Write the published weights, `scores.json`, the records and `report.html` from the last checkpoint."""
    run, recipe = session.run, session.recipe
    name = checkpoint.find(run.checkpoints)
    assert name
    averaged = (run.checkpoints / name / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(run.checkpoints / name / ("ema.safetensors" if averaged else "model.safetensors"))
    for left in (
        *run.path.glob(f".{run.weights.name}.*.tmp"),
        *run.path.glob("weights/.*.tmp"),
    ):  # by a crash in mid-writing
        left.unlink(missing_ok=True)
    checkpoint.prune(run.checkpoints, recipe.checkpoints.keep)
    for part in session.parts.values():
        _publish(session, part, tensors, int(name))
    found = _scored(session, tensors, int(name))
    for part_name, (scores, records) in found.items():
        _add_sources(session.parts[part_name], scores)
        write_records(run.records(session.parts[part_name].folder) / "val.jsonl", records)
        _draw_examples(session, session.parts[part_name], records, set(scores.details.get("examples", ())))
    scores = joined({part_name: scores for part_name, (scores, _) in found.items()})
    data = {part_name: options.data for part_name, options in recipe.tasks.items()}
    run.write("scores.json", scores.to_json() | {
        "split": "val",
        "weights": "ema" if averaged else "raw",
        "checkpoint": name,
        "update": int(name),
        "data": data if len(data) > 1 else next(iter(data.values())),
        "recipe": run.recipe["recipe"],
    })  # fmt: skip
    write_report(run.path)
    note(f"done: {scores_line(scores)}")
    weights = "weights/TASK.safetensors" if len(session.parts) > 1 else run.weights.name
    note(f"  weights  {run.shown}/{weights}\n  report   {run.shown}/{run.report.name}")


def _publish(session: Session, part: Part, tensors: dict[str, Tensor], update: int) -> None:
    """Write a whole file of the trunk and the task's head."""
    run, network = session.run, session.recipe.network
    file = run.published(part.folder)
    file.parent.mkdir(exist_ok=True)
    info = {
        "trunkline_recipe": run.recipe["recipe"],
        "trunkline_update": str(update),
        "trunkline_output_stride": str(network.output_stride),
        "trunkline_norm": network.norm,
        "trunkline_pyramid": network.pyramid if needs_pyramid(session.model, part.name) else "none",
        "trunkline_task": part.name,
        **({} if network.wrapper == "none" else {"trunkline_wrapper": network.wrapper}),
        **part.task.stated(),
    }
    save_weights(
        file, published(session.model, tensors, part.name), arch=session.facts.arch, stride_in=session.facts.stride_in,
        classes=part.task.facts.get("classes"), preprocessing=part.task.preprocessing, info=info,
    )  # fmt: skip


def _scored(session: Session, tensors: dict[str, Tensor], update: int) -> Evaluated:
    """The scores of these weights: the last evaluation's, where it was of this update."""
    if session.last_scores and session.last_scores[0] == update:
        return session.last_scores[1]
    model = session.model.to(session.device)
    model.load_state_dict(tensors)
    return session.score(model, ALONE)  # the other workers are done


def _add_sources(part: Part, scores: Scores) -> None:
    """Say in which file each of the mistakes is."""
    mistakes = scores.details.get("mistakes", ())
    wanted = {m["id"] for m in mistakes}
    where = {part.validation.id(i): i for i in range(len(part.validation)) if part.validation.id(i) in wanted}
    for mistake in mistakes:
        mistake["source"] = str(part.validation.source(where[mistake["id"]]))


def _draw_examples(session: Session, part: Part, records: list[dict[str, Any]], wanted: set[str]) -> None:
    """`predictions/examples/0.jpg` …: what the model says of some samples, drawn, and beside it the truth."""
    folder = session.run.records(part.folder) / "examples"
    shutil.rmtree(folder, ignore_errors=True)
    for i, record in enumerate(records):
        if record["id"] in wanted:
            folder.mkdir(parents=True, exist_ok=True)
            said = {name: value for name, value in record.items() if name != "id"}
            picture = part.task.predicted.from_line({"file": str(part.validation.source(i)), **said}).image()
            truth = part.task.truth(part.validation[i])
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
