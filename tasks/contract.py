"""What a task is to the pipelines: a data set, its transforms, a head, a score and a drawing, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trunkline.ground.errors import DataError as DataError

from .data.scan import scan
from .predicted import Predicted, PredictedFields
from .samples import Sample as Sample
from .samples import Samples as Samples

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from ..backbones.contract import Backbone, Preprocessing
    from ..backbones.weights import Weights
    from ..heads.contract import Batch, Head, Prediction


@dataclass
class Scores:
    """The result of an evaluation: `metrics` by name, `intervals` (95 %, low and high) and `details` for reports.

    `headline` names the metrics that one line for people shows; where it is empty, all of them. Of `details` a report
    shows `class_ap`, `mask_class_ap`, `class_iou`, `class_accuracy`, `precision`, and draws the samples of `examples`.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    headline: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Metrics at the top level under their names; the rest under `intervals`, `details` and `samples`."""
        rest = asdict(self)
        rest.pop("headline")
        return {**rest.pop("metrics"), **rest}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{value:.4f}</td><td>{_interval(self.intervals.get(name))}</td></tr>"
            for name, value in self.metrics.items()
        )
        return f"<table><tr><th>metric</th><th>value</th><th>95 % interval</th></tr>{rows}</table>"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.4f} to {pair[1]:.4f}"


Record = dict[str, Any]


class Evaluator(Protocol):
    """`measure` on any worker; `add` in the data set's order, in one place; small whatever the data set's size."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that `result().metrics` may have."""
        ...

    @property
    def lower_is_better(self) -> frozenset[str]:
        """Those of them that are better when smaller."""
        ...

    def measure(self, batch: "Batch", predictions: "list[Prediction]") -> list[Record]: ...
    def add(self, records: list[Record]) -> None: ...
    def result(self) -> Scores: ...
    def results(self, records: list[Record]) -> dict[str, str | bytes]:
        """Files, by name below a folder, that the official tools of this task read."""
        return {}


class Task(Protocol):
    """Reader + transforms + head + evaluator + drawing. Built as `Task(options, preprocessing, facts)`.

    `facts` is what a checkpoint must say, besides tensors, for the task to be built again: class names above all. It
    is None for a new run, and then filled from the training split and the weights. A class that inherits from this one
    has the parts that have a body here.
    """

    name: str
    options: Any
    preprocessing: "Preprocessing"
    facts: dict[str, Any]
    predicted: ClassVar[type[Predicted]] = PredictedFields
    """What a prediction of one file becomes."""
    for_results: ClassVar[Mapping[str, Any]] = {}
    """The options that records need so that the evaluator's `results` finds everything in them."""

    together: ClassVar[int] = 32
    """How many pictures `evaluate` and `predict` take at once, unless they are told."""

    def stated(self) -> dict[str, str]:
        """What the header of its published weights says besides, so that `reads` finds the options again."""
        return {}

    @staticmethod
    def reads(weights: "Weights") -> dict[str, Any] | None:
        """The options that these weights were made with; None where they hold no head of this task."""
        return None

    def samples(self, split: str) -> Samples: ...
    def scan(self, samples: Samples, workers: int) -> dict[str, str]:
        """Decode everything; the ids that cannot be used, and why."""
        return scan(samples, workers)

    def transform(self, training: bool) -> Callable[[Sample], Sample]: ...
    def collate(self, samples: list[Sample]) -> "Batch": ...
    def head(self, backbone: "Backbone", weights: "Weights | None" = None) -> "Head": ...
    def infer(self, model: "nn.Module", batch: "Batch") -> "list[Prediction]":
        """One prediction a sample."""
        return model.predict(batch)  # type: ignore[operator]

    def evaluator(self, samples: Samples) -> Evaluator: ...
    def draw(self, sample: Sample, prediction: "Prediction") -> "Image": ...

    def truth(self, sample: Sample) -> "Image | None":
        """What a prediction of the sample should say, drawn, for a report's examples; None: only the prediction is shown."""
        return None
