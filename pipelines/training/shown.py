"""What a run shows of its scores: `shown.json`, and the pictures of its examples, which the tasks draw."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

from ...heads.model import Model
from ...tasks.samples import Samples
from ...tasks.scores import Block, Examples, Picture, Scores, blocks_of, metrics_of
from ..evaluation.measure import inference
from ..feeding.draws import Draws
from .parts import Part
from .session import Session

if TYPE_CHECKING:
    from PIL.Image import Image

FEW = 6  # examples of a task that does not say which


def write_shown(session: Session, tensors: dict[str, Tensor], found: Mapping[str, Scores]) -> None:
    """Write `shown.json`: for every task its word for a sample, what its metrics are, and the blocks of a report.

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
    session.run.write("shown.json", document)


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
