"""What decides a classification task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from trunkline.ground.ranges import SHARE, Range, ranged

from ..options import (
    DROPOUT,
    NUMBER_OF_RESULTS,
    PIXELS,
    TaskOptions,
    depth_of_pictures,
    of_data,
    of_training,
    pair_problems,
)

HELD_OUT = Range(0, 1, "0 (the folder's own val/) to below 1", high_in=False)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a classification task; a recipe writes them, `tasks.classification.KEY=` changes one.

    `data` is a folder with train/ and val/, or one folder of classes; then `val` says how much to hold out. With `format`
    "csv" a table beside the pictures says the classes, with "folders" their folders do; "auto" looks what is there.
    """

    format: Literal["auto", "folders", "csv"] = of_data("auto")
    val: float = of_data(0.0, within=HELD_OUT)  # share of each class held out for validation, where there is no val/
    depth: str = depth_of_pictures()
    size: int | None = ranged(None, PIXELS)  # side of the square crop; None takes the weights' own
    scale: tuple[float, float] = of_training((0.08, 1.0))  # share of the area that a random crop covers
    ratio: tuple[float, float] = of_training((3 / 4, 4 / 3))  # the crop's width over its height
    flip: float = of_training(0.5, within=SHARE)  # chance of a horizontal flip
    label_smoothing: float = of_training(0.0, within=SHARE)
    dropout: float = of_training(0.0, within=DROPOUT)  # before the classifier
    augment: bool = of_training(True)  # False trains on the evaluation's own crop (what cached features need)
    top: int = ranged(5, NUMBER_OF_RESULTS)  # classes that a prediction names
    append: bool = False  # add a linear layer on top of the weights' classifier, which stays frozen

    def uncached(self) -> str:
        """Say why these options exclude cached maps, or "".

        A map is cached once, so its picture must be the same each time.
        """
        return "augment=true cannot go with cached maps: set it to false" if self.augment else ""

    def problems(self) -> list[str]:
        """Check the scale and the ratio of the random crop."""
        return pair_problems("scale", self.scale, most=1) + pair_problems("ratio", self.ratio)
