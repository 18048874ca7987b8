"""What decides a classification task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..options import of_data, of_training


@dataclass(frozen=True)
class Options:
    """Every choice of a classification task; a recipe writes them, `tasks.classification.KEY=` changes one."""

    data: str = ""  # a folder with train/ and val/, or one folder of classes (then `val` says how much to hold out)
    val: float = of_data(0.0)  # share of each class held out for validation, where the folder has no val/
    group: str = of_data(
        ""
    )  # a regular expression on the id: what its first group matches stays on one side of the split
    on_bad_sample: Literal["stop", "skip"] = "stop"
    size: int | None = None  # side of the square crop; None takes the weights' own
    scale: tuple[float, float] = of_training((0.08, 1.0))  # share of the area that a random crop covers
    ratio: tuple[float, float] = of_training((3 / 4, 4 / 3))  # its width over its height
    flip: float = of_training(0.5)  # chance of a horizontal flip
    label_smoothing: float = of_training(0.0)
    dropout: float = of_training(0.0)  # before the classifier
    augment: bool = of_training(True)  # False trains on the evaluation's own crop (what cached features need)
    top: int = 5  # classes that a prediction names
    append: bool = False  # one more linear layer on top of the kept classifier, which stays frozen
