"""What a task is to the pipelines: a data set, its transforms, a head, a score and a drawing, by name."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trunkline.ground.errors import DataError as DataError
from trunkline.ground.errors import RecipeError, UnknownClasses

from .options import belonging
from .predicted import Predicted, PredictedFields, Writing
from .samples import Sample as Sample
from .samples import Samples as Samples
from .scores import Block, Metric
from .scores import Scores as Scores

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from ..backbones.contract import Backbone, Preprocessing
    from ..backbones.weights import Weights
    from ..heads.contract import Batch, Head, Player, Prediction
    from ..heads.model import Model


Record = dict[str, Any]


EVALUATOR = ("metrics", "measure", "add", "result")
"""What an evaluator must have."""


class Evaluator(Protocol):
    """Scores predictions. `measure` runs on any worker; `add` in one place, in the data set's order.

    It stays small whatever the data set's size.
    """

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What `result().metrics` may have, by name, and what people are told of each; or the names alone."""
        ...

    def measure(self, batch: "Batch", predictions: "list[Prediction]") -> list[Record]: ...
    def add(self, records: list[Record]) -> None: ...
    def result(self) -> Scores: ...
    def results(self, records: list[Record]) -> dict[str, str | bytes]:
        """Give the files that the official tools of this task read, by name below a folder; empty: none."""
        return {}

    def blocks(self, scores: Scores) -> list[Block]:
        """Give what a report shows of its scores besides the metrics: tables, curves, matrices, examples."""
        return []


class Task(ABC):
    """A reader, transforms, a head, an evaluator and a drawing. Built as `Task(options, preprocessing, facts)`.

    A task must write what is abstract here, and may write the rest. What it forgets is named when it is loaded.

    `facts` is what a checkpoint must say, besides tensors, for the task to be built again: class names above all. Where
    it is given, it is taken as it is and no data is touched. Otherwise it is read from the training split on first use.
    """

    name: str
    """As tables call it; of a task in a run, as its recipe does."""
    unit: ClassVar[str] = "images"
    """What a sample is called, where people are told how many there are a second."""
    inputs_are: ClassVar[str] = "photo"
    """What `inputs` looks for in a folder, in a word."""
    together: ClassVar[int] = 32
    """How many samples `evaluate` and `predict` take at once, unless they are told, and the making of cached maps always."""
    predicted: ClassVar[type[Predicted]] = PredictedFields
    """What a prediction of one input becomes."""
    for_results: ClassVar[Mapping[str, Any]] = {}
    """The options that records need so that the evaluator's `results` finds everything in them."""
    writing: Writing = Writing()
    """How predictions that are files of their own are written, where `predict` was told."""

    def __init__(self, options: Any, preprocessing: "Preprocessing", facts: dict[str, Any] | None = None):
        self.options, self.preprocessing = options, preprocessing
        self._facts = None if facts is None else dict(facts)
        self._of_model = facts is not None

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of the task; a head may add to it."""
        if self._facts is None:
            self._facts = self.facts_of(self.samples("train"))
        return self._facts

    def known(self, fact: str) -> Any:
        """Return a fact that was given or is known by now, else None. Reads no data."""
        return (self._facts or {}).get(fact)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say of classes that are not known whose they are: a model's, where facts were given, else the training split's."""
        try:
            yield
        except UnknownClasses as error:
            if self._of_model:
                raise
            raise DataError(error.in_training) from None

    def facts_of(self, training: Samples) -> dict[str, Any]:
        """Return what the training split says: its class names, where it has any."""
        return {"classes": list(training.classes)} if training.classes else {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the head's order; empty where the task has none."""
        return tuple(self.facts.get("classes", ()))

    # The data

    @abstractmethod
    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`. Raises DataError with every problem of its files.

        Where the options say `folds`, it is `data.folds.fold_of(self.whole(), self.options, split)`.
        """

    def whole(self) -> Samples:
        """Read all samples of the data, whatever split they are of, to be divided into folds; they have `take`.

        Raises DataError as `samples`, and RecipeError where the task's reader cannot.
        """
        raise RecipeError(
            f"tasks.{self.name}.folds={self.options.folds}: this task's reader gives no whole to be divided; leave folds= out, "
            "or write the task's `whole` (docs/adding-a-task.md)"
        )

    def scan(self, samples: Samples, loaders: int) -> dict[str, str]:
        """Decode every sample, and return id to reason of those that cannot be used."""
        from .data.scan import scan

        return scan(samples, loaders)

    def look(self, samples: Samples, loaders: int) -> list[str]:
        """Look at every sample of a split before the first update; list what people should know, a line each.

        Raises DataError with all that cannot be used, as far as it sees. By default nothing is looked at: samples are read
        when they are asked for.
        """
        return []

    @abstractmethod
    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build what prepares a sample for a batch. In training it draws at random."""

    @abstractmethod
    def collate(self, samples: list[Sample]) -> "Batch":
        """Join samples to a batch, with their targets where they have any."""

    # The model

    # What tasks of one data set can share

    @property
    def padding(self) -> int:
        """Of how many pixels the sides of a padded batch are multiples."""
        return 1

    def view(self, training: bool) -> Hashable:
        """Say how pictures become input, as data that can be compared; it is what `transform` returns.

        Tasks of one data set whose views are equal can share a pass of the trunk. It then has `together(image, targets)`,
        which changes a picture and the targets that each task has of it. None: the task shares none.
        """
        return None

    def targets(self, samples: list[Sample], height: int, width: int) -> dict[str, Any]:
        """Put the targets of transformed samples together, for images padded to (height, width), as `collate` does.

        Only tasks that have a `view` need it.
        """
        raise RecipeError(f"the task {self.name} has no targets that go with another task's pictures")

    @abstractmethod
    def head(self, backbone: "Backbone", weights: "Weights | None" = None) -> "Head":
        """Build the head on this trunk, with its tensors from the weights where they hold a head of this task."""

    def misfits(self, backbone: "Backbone") -> list[str]:
        """Say what of the options does not go with this trunk, one line each; it is asked before any data is read.

        The trunk lies on the meta device: it computes shapes alone.
        """
        return []

    def beside(self) -> "dict[str, nn.Module]":
        """Build networks that learn beside the model and are no part of it (a critic), by the name of their player."""
        return {}

    def players(self, model: "Model", playing: tuple[str, ...]) -> "dict[str, Player]":
        """Say who learns in an update, in the order of their turns: the model first, then networks of `model.beside`.

        `playing` are the names that the phase says; empty: all. By default the model alone.
        """
        from ..heads.contract import Player
        from ..heads.model import losses

        return {"model": Player(model, losses)}

    def before_training(self) -> None:
        """Read what training needs besides the data and `weights=`: it is asked for before the first update of a run.

        Raises WeightsError or RecipeError where something is missing, so that no phase is lost to that. By default there is
        nothing.
        """
        return None

    def said(self) -> list[str]:
        """List what a person should know of how inputs are read, a line each; `evaluate` and `predict` tell it first."""
        return []

    # What a published file says

    def stated(self) -> dict[str, str]:
        """Return what the header of its published weights says besides, so that `reads` finds the options again.

        By default the facts, and the options that belong neither to a data set nor to training.
        """
        idle = {
            *belonging(self.options, "data"),
            *belonging(self.options, "training"),
            "data",
            "on_bad_sample",
            "strict",
        }
        options = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in idle}
        return {"trunkline_options": json.dumps(options), "trunkline_facts": json.dumps(self.facts)}

    @classmethod
    def reads(cls, weights: "Weights") -> "Published | None":
        """Read from these weights what they say of a task of this kind; None where they hold no head of it."""
        if weights.info.get("trunkline_task") != cls.name:
            return None
        options, facts = (json.loads(weights.info.get(f"trunkline_{what}", "{}")) for what in ("options", "facts"))
        return Published({name: _tuples(value) for name, value in options.items()}, facts)

    @classmethod
    def outputs(cls, weights: "Weights") -> int:
        """Count the classes that a head of this kind in these weights tells apart; 0: there is no such head."""
        return 0

    # Prediction

    @classmethod
    def inputs(cls, given: str) -> Iterator[Path]:
        """List the inputs that a name given to `predict` stands for. By default photos: a file, a folder, a pattern."""
        from .images.photos import photos

        return photos(given)

    @classmethod
    def left_out(cls, given: str) -> str:
        """Say which files of a folder look like inputs and are none; "" where there are none, or it is no folder.

        By default that is known of photos alone.
        """
        from .images.photos import left_out

        return left_out(given) if cls.inputs.__func__ is Task.inputs.__func__ else ""

    def read(self, address: str) -> Sample:
        """Read one input as a sample without targets. Raises DataError where it cannot be used."""
        from .images.decode import read_as

        depth, exif = (getattr(self.options, name, "") for name in ("depth", "exif"))
        return Sample(address, Path(address), read_as(address, depth, exif))

    def alike(self, sample: Sample) -> Hashable:
        """Return a mark of a transformed sample, by default its shape: samples with equal marks fit in one batch."""
        return tuple(sample.image.shape)

    def infer(self, model: "nn.Module", batch: "Batch") -> "list[Prediction]":
        """Predict a batch: one prediction a sample.

        By default the head's. Tiles, several views, and what is done to the head's output belong here.
        """
        return model.predict(batch)  # type: ignore[operator]

    # Scores and pictures

    @abstractmethod
    def evaluator(self, samples: Samples) -> Evaluator:
        """Build what scores predictions of these samples."""

    @abstractmethod
    def draw(self, sample: Sample, prediction: "Prediction") -> "Image":
        """Draw a sample, as it was read, with what the model says of it."""

    def truth(self, sample: Sample) -> "Image | None":
        """Draw what a prediction of the sample should say, for reports. None: they show the prediction alone."""
        return None


@dataclass(frozen=True)
class Published:
    """What a file of weights says of a task: options and facts, and the network where the file needs another one.

    `network` has fields of a recipe's network (norm, pyramid, output_stride) that differ from the usual ones.
    """

    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)


def forgotten(kind: Any) -> list[str]:
    """List the methods and attributes that a task's class lacks."""
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    return missing + ([] if getattr(kind, "name", "") else ["name"])


def check_has(thing: Any, what: str, attributes: Iterable[str]) -> None:
    """Raise RecipeError naming those of the attributes that something of a plug-in lacks."""
    if lacking := [name for name in attributes if not hasattr(thing, name)]:
        raise RecipeError(
            f"{what} ({type(thing).__module__}.{type(thing).__qualname__}) lacks {', '.join(lacking)}: add "
            f"{'it' if len(lacking) == 1 else 'them'}, as docs/adding-a-task.md says"
        )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
