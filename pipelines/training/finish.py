"""The end of a run: the published weights, the scores, the predictions and the report."""

from torch import Tensor

from ...cluster import checkpoint
from ...cluster.workers import ALONE
from ...tasks.scores import Scores
from ..evaluation.changes import change_said
from ..evaluation.together import Evaluated
from ..models.bundle import write_bundle
from ..models.publishing import write_published
from ..report.report import write_report
from ..runs.files import write_records
from ..show import note, scores_lines
from .parts import Part
from .session import Session
from .shown import positions, with_weights, write_shown


def finish(session: Session) -> None:
    """Write the published weights, the records, `scores.json`, `shown.json` and `report.html` from the last checkpoint."""
    run, recipe = session.run, session.recipe
    name = checkpoint.find(run.checkpoints)
    assert name
    averaged = (run.checkpoints / name / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(run.checkpoints / name / ("ema.safetensors" if averaged else "model.safetensors"))
    for left in (
        *run.path.glob(f".{run.weights.name}.*.tmp"),
        *run.path.glob("weights/.*.tmp"),
    ):  # left by a crash during writing
        left.unlink(missing_ok=True)
    checkpoint.prune(run.checkpoints, recipe.checkpoints.keep)
    for part in session.parts.values():
        _publish(session, part, tensors, int(name))
    if len(session.parts) > 1:
        write_bundle(run.weights, run.recipe["recipe"], recipe, session.facts, tensors, int(name))
    found = _scored(session, tensors, int(name))
    each = {part_name: scores for part_name, (scores, _) in found.items()}
    for part_name, (scores, records) in found.items():
        add_sources(session.parts[part_name], scores)
        write_records(run.records(session.parts[part_name].folder) / "val.jsonl", records)
    scores = session.joined(each)
    data = {part_name: options.data for part_name, options in recipe.tasks.items()}
    run.write("scores.json", scores.to_json() | {
        "split": "val",
        "weights": "ema" if averaged else "raw",
        "checkpoint": name,
        "update": int(name),
        "data": data if len(data) > 1 else next(iter(data.values())),
        "recipe": run.recipe["recipe"],
    })  # fmt: skip
    write_shown(session, tensors, each)
    write_report(run.path)
    note(f"done:{scores_lines(each)}{change_said(scores)}")
    several = f"{run.weights.name} (all tasks), {run.shown}/weights/TASK.safetensors"
    weights = several if len(session.parts) > 1 else run.weights.name
    note(f"  weights  {run.shown}/{weights}\n  report   {run.shown}/{run.report.name}")


def _publish(session: Session, part: Part, tensors: dict[str, Tensor], update: int) -> None:
    """Write the trunk and the task's head as one file of published weights."""
    run, network = session.run, session.recipe.network
    file = run.published(part.folder)
    file.parent.mkdir(exist_ok=True)
    write_published(file, run.recipe["recipe"], network, part.task, session.model, session.facts, tensors, update)


def _scored(session: Session, tensors: dict[str, Tensor], update: int) -> Evaluated:
    """Return the scores of these weights: those of the last evaluation where it was of this update, else new ones."""
    if (
        session.last_scores
        and session.last_scores[0] == update
        and session.last_scores[1].keys() == session.parts.keys()
    ):
        return session.last_scores[1]
    return session.score(with_weights(session, tensors), ALONE)  # the other workers are done


def add_sources(part: Part, scores: Scores) -> None:
    """Add the sample's file as `source` to each entry with an `id` in the lists of the details, and how it was read."""
    lists = [value for value in scores.details.values() if isinstance(value, list)]
    named = [one for value in lists for one in value if isinstance(one, dict) and "id" in one]
    where = positions(part.validation, {one["id"] for one in named})
    depth = getattr(part.task.options, "depth", "")
    for one in named:
        if one["id"] in where:
            one["source"] = str(part.validation.source(where[one["id"]]))
            one |= {"depth": depth} if depth else {}
