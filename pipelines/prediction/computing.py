"""From a batch of file names to its predictions."""

from collections.abc import Callable
from typing import Any

from trunkline.ground.errors import DataError

from ...tasks.contract import Task
from ...tasks.images.decode import HOW_TO_GO_ON
from ...tasks.predicted import Predicted, Writing
from ...tasks.samples import Sample
from ..evaluation.measure import inference
from ..models.assembly import Ready
from ..models.blend import blend_of
from ..models.ready import Source, chosen, ready
from .several import computer_of


def computer(
    settings: dict[str, Any], say: Callable[[str], None] | None = None, found: Ready | None = None
) -> Callable[[list[str]], list[Predicted]]:
    """Load the model unless it is `found`, and return a function from a batch's file names to its predictions, one for each.

    `say` is told what was loaded from a weights file, and what was mixed in.
    """
    found = found or ready(Source(**settings["source"]))
    if say:
        for line in _begun_from(found, settings):
            say(line)
    if settings["source"]["tasks"] and len(names := chosen(Source(**settings["source"]))) > 1:
        return computer_of(found, names, settings)
    task, kind = found.task, found.task.predicted
    task.writing = Writing(**settings["writing"])
    transform, device = task.transform(False), next(found.model.parameters()).device
    depth = getattr(task.options, "depth", "")
    exif = "ignore" if getattr(task.options, "exif", "") == "ignore" else ""

    def failed(file: str, error: DataError) -> Predicted:
        if settings["on_bad_sample"] == "stop":
            raise error
        return kind(file, error=str(error).partition(f"; {HOW_TO_GO_ON}")[0])

    def of(sample: Sample, prediction: Any) -> Predicted:
        try:
            return kind.of(sample.id, prediction, task)
        except DataError as error:
            return failed(sample.id, error)

    def compute(files: list[str]) -> list[Predicted]:
        group: list[Sample | Predicted] = []
        for file in files:
            try:
                group.append(transform(task.read(file)))
            except DataError as error:
                group.append(failed(file, error))
        samples = [g for g in group if isinstance(g, Sample)]
        named: dict[str, Any] = {}

        def infer(alike: list[Sample]) -> None:
            try:
                named.update({p.id: p for p in task.infer(found.model, task.collate(alike).to(device))})
            except DataError as error:  # of what is read while it is predicted: the others are taken without it
                if len(alike) == 1:
                    named[alike[0].id] = failed(alike[0].id, error)
                    return
                for sample in alike:
                    infer([sample])

        with inference(found.model, settings["precision"], device):
            for alike in _alike(task, samples):  # the other samples of a batch do not change a sample's result
                infer(alike)
        done = {name: p if isinstance(p, Predicted) else None for name, p in named.items()}
        result = [done[g.id] or of(g, named[g.id]) if isinstance(g, Sample) else g for g in group]
        for predicted in result:
            predicted.depth, predicted.exif = depth, exif
        return result

    return compute


def _begun_from(found: Ready, settings: dict[str, Any]) -> list[str]:
    """List what people are told first: what was loaded, what was mixed in, and how inputs are read."""
    loaded = [] if "checkpoint" in found.origin else [f"weights: {found.facts.loaded}"]
    return [*loaded, *filter(None, [blended(settings)]), *found.task.said()]


def _alike(task: Task, samples: list[Sample]) -> list[list[Sample]]:
    found: dict[Any, list[Sample]] = {}
    for sample in samples:
        found.setdefault(task.alike(sample), []).append(sample)
    return list(found.values())


def blended(settings: dict[str, Any]) -> str:
    """Say which two networks are mixed; empty where none is mixed in."""
    source = settings["source"]
    return blend_of(source["blend"]).said(source["source"]) if source["blend"] else ""
