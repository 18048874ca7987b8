"""What a run shows of its scores: `shown.json`, and the pictures of its examples, which the tasks draw."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

from ...heads.model import Model
from ...tasks.samples import Samples
from ...tasks.scores import Block, Examples, Picture, Scores, Words, blocks_of, metrics_of
from ..evaluation.measure import inference
from ..evaluation.through_heads import takes_pictures, through_heads
from ..feeding.draws import Draws
from ..feeding.mixture import Member
from ..recipe.fields import batches_of
from ..report.shown import ALL, Learns
from .parts import Part, micro_of, mixture
from .session import Session

if TYPE_CHECKING:
    from PIL.Image import Image

FEW = 6  # examples of a task that does not say which


def write_shown(session: Session, tensors: dict[str, Tensor], found: Mapping[str, Scores]) -> None:
    """Write `shown.json`: for every task its word for a sample, what its metrics are, and the blocks of a report.

    Of several tasks it also says how each learnt, and has pictures that all heads have drawn.

    `tensors` are the weights that the examples are predicted with.
    """

    @cache
    def model() -> Model:
        return with_weights(session, tensors)

    document = {}
    for name, scores in found.items():
        part = session.parts[name]
        evaluator = part.task.evaluator(part.validation)
        shutil.rmtree(session.run.records(part.folder) / "examples", ignore_errors=True)
        blocks = _with_examples(part, scores, blocks_of(evaluator, scores))
        document[name] = {
            "unit": part.task.unit,
            "metrics": {metric: asdict(about) for metric, about in metrics_of(evaluator).items()},
            "blocks": [_drawn(session, part, model, block).to_json() for block in blocks],
        }
    if len(document) > 1:
        for name, learns in _learning(session).items():
            document[name]["learns"] = asdict(learns)
        document[ALL] = {"blocks": [_every_head(session, model()).to_json()]}
    session.run.write("shown.json", document)


def _learning(session: Session) -> dict[str, Learns]:
    """Say of each task how it learns in the last phase."""
    recipe, parts = session.recipe, session.parts
    found = {}
    for name, part in parts.items():
        own = batches_of(recipe, name)
        found[name] = Learns(len(part.training), len(part.validation), 0.0, own.size, micro_of(recipe, name), 0.0)
    for share in mixture(recipe, parts, len(recipe.phases) - 1).shares:
        members = share.members or (Member(share.task, share.loss_weight),)
        for member in members:
            others = tuple(other.task for other in members if other is not member)
            found[member.task] = replace(
                found[member.task], batches=share.average, loss_weight=member.loss_weight, shares=others
            )
    return found


def _every_head(session: Session, model: Model) -> Examples:
    """Draw some pictures by the heads of all tasks that take pictures, a row each."""
    parts = session.parts
    tasks = {name: part.task for name, part in parts.items() if takes_pictures(part.task)}
    splits = {name: parts[name].validation for name in tasks}
    folder = session.run.records(next(iter(parts.values())).folder) / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    precision, pictures = session.recipe.evaluation.precision, []
    rows = through_heads(model, tasks, splits, precision, session.device) if len(tasks) > 1 else ()
    for number, (address, row) in enumerate(rows):
        for seen in row:
            lines: list[Words] = [((seen.task, ""), ("" if seen.own else " (not its data)", "soft"))]
            file = folder / f"{number}-{seen.task}.jpg"
            if seen.picture:
                seen.picture.save(file, quality=85)
            else:
                lines.append(((f"not drawn: {seen.why}", "soft"),))
            name = file.relative_to(session.run.path).as_posix() if seen.picture else ""
            pictures.append(Picture(f"{address}: {seen.task}", tuple(lines), name))
    note = "Some pictures of the validation splits, each drawn by every task's head."
    if out := [f"{name} ({part.task.inputs_are})" for name, part in parts.items() if name not in tasks]:
        note += f" Left out, as what they take are no pictures: {', '.join(out)}."
    return Examples("One picture, every head", tuple(pictures), note, "wide", len(tasks))


def with_weights(session: Session, tensors: dict[str, Tensor]) -> Model:
    """Load these weights into the model that evaluates."""
    model = session.apart_from().to(session.device)
    model.load_state_dict(tensors)
    return model


def positions(samples: Samples, ids: set[str]) -> dict[str, int]:
    """Find the index in the split of each of these samples, by id; ids that no sample has are left out."""
    return {name: i for i in range(len(samples)) if (name := samples.id(i)) in ids} if ids else {}


def _with_examples(part: Part, scores: Scores, blocks: list[Block]) -> list[Block]:
    """Add a block of examples where none of the blocks has any.

    Its samples are those that the details of the scores name as `examples`, or else the first FEW of the split.
    """
    if any(isinstance(block, Examples) for block in blocks):
        return blocks
    first = [part.validation.id(i) for i in range(min(FEW, len(part.validation)))]
    pictures = tuple(map(Picture, scores.details.get("examples", first)))
    return [*blocks, Examples("Examples", pictures, "Samples of the validation split.", "wide")]


def _drawn(session: Session, part: Part, model: Callable[[], Model], block: Block) -> Block:
    """Draw those pictures of a block of examples that the task draws, and put their files into the block."""
    if not isinstance(block, Examples):
        return block
    where = positions(part.validation, {p.id for p in block.pictures if not p.file and not p.source})
    folder = session.run.records(part.folder) / "examples"
    pictures, size = [], block.size
    for picture in block.pictures:
        if picture.id in where:
            drawn, beside = _draw(session, part, model(), where[picture.id])
            size = "pair" if beside else size
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{where[picture.id]}.jpg"
            drawn.save(file, quality=85)
            picture = replace(picture, file=file.relative_to(session.run.path).as_posix())
        pictures.append(picture)
    return replace(block, pictures=tuple(pictures), size=size)


def _draw(session: Session, part: Part, model: Model, index: int) -> tuple["Image", bool]:
    """Draw what the model says of a sample, with the truth beside it where the task draws that.

    Return the picture (RGB), and whether the truth is in it.
    """
    recipe, task = session.recipe, part.task
    cached = session.caches.get((part.name, "val"))  # then the trunk has seen the sample already
    draws = Draws(task, part.validation, recipe.seed, training=False)
    batch = cached.batch([index]) if cached else draws.batch([(0, index, 0)])
    with inference(model, recipe.evaluation.precision, session.device):
        (prediction,) = task.infer(model, batch.to(session.device))
    sample = part.validation[index]
    picture, truth = task.draw(sample, prediction).convert("RGB"), task.truth(sample)
    if truth is not None:
        picture = _side_by_side(picture, truth)
    picture.thumbnail((640, 640) if truth is None else (1280, 1280))  # a legend stays legible
    return picture, truth is not None


def _side_by_side(left: "Image", right: "Image") -> "Image":
    from PIL import Image

    gap = max(2, left.width // 50)
    page = Image.new("RGB", (left.width + gap + right.width, max(left.height, right.height)), "white")
    page.paste(left)
    page.paste(right, (left.width + gap, 0))
    return page
