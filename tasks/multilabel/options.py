"""What decides a task of several labels a picture, as data. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Literal

from trunkline.ground.ranges import COUNT, SHARE, Range, ranged

from ..options import (
    DROPOUT,
    NUMBER_OF_RESULTS,
    PADDING,
    PIXELS,
    TaskOptions,
    depth_of_pictures,
    following,
    of_data,
    of_training,
    pair_problems,
)

LONGEST = Range(0, 65536, "a number of pixels from 1 to 65536", low_in=False)
SIZES = Range(0, 16384, "numbers of pixels from 1 to 16384", low_in=False)
ORIGIN = Range(0, 1, "0 or 1")
SHORTER, LONGER = 800, 1333
"""The sides at which whole pictures are seen where nothing says others, as detectors see them."""
_READ_BY = {
    "scale": "crop", "ratio": "crop", "augment": "crop",
    "longest": "fit", "padding": "fit", "sizes": "fit", "jitter": "fit", "photometric": "fit",
}  # fmt: skip


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a task of several labels; a recipe writes them, `tasks.multilabel.KEY=` changes one.

    `format=table` reads tables of files and labels; every other format is one of objects, as a detection task reads it, and
    the labels of a picture are the classes of its objects. `train` and `val` are as there; `val=0.2` holds out a fifth.
    """

    format: Literal["coco", "voc", "yolo", "yolo-seg", "yolo-obb", "labelme", "labelstudio", "csv", "table"] = of_data(
        "coco"
    )
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    train_images: str = of_data("")
    val_images: str = of_data("")
    categories: tuple[str, ...] = of_data(())  # only objects of these; without any, of all
    exif: Literal["stop", "turn", "ignore"] = of_data("stop")  # objects are of a picture as EXIF turns it, or as stored
    origin: int = of_data(1, within=ORIGIN)  # VOC: the number of the first pixel
    rotated: Literal["stop", "enclose"] = of_data("stop")  # Label Studio: take the upright box around a rotated one
    annotator: str = of_data("")  # Label Studio: whose labels count, an id or an address, first or last
    limit: int = of_data(0, within=COUNT)  # at most so many pictures of a split; 0 takes all
    depth: str = depth_of_pictures()
    on_bad_box: Literal["stop", "skip"] = "stop"  # an object without area, or outside its picture; skip: class unknown
    view: Literal["crop", "fit"] = (
        "crop"  # a square of the picture, as a classifier sees it, or the whole, as a detector
    )
    size: int | None = ranged(
        None, PIXELS
    )  # crop: the square, none: the weights' own; fit: the shorter side, none: 800
    longest: int | None = following("size", None, within=LONGEST)  # fit: the longer side at most; none: 5/3 of `size`
    padding: int = ranged(64, PADDING)  # fit: the sides of a batch are multiples of so many pixels, as a detector's
    sizes: tuple[int, ...] = of_training((), within=SIZES)  # fit: train at one of these shorter sides each time
    jitter: tuple[float, ...] = of_training(
        ()
    )  # fit: two scales between which a picture is resized to squares of `size`
    photometric: bool = of_training(False)  # fit: random brightness, contrast, saturation, hue
    scale: tuple[float, float] = of_training((0.08, 1.0))  # crop: share of the area that a random crop covers
    ratio: tuple[float, float] = of_training((3 / 4, 4 / 3))  # crop: the crop's width over its height
    augment: bool = of_training(True)  # crop: False trains on the evaluation's own crop (what cached features need)
    flip: float = of_training(0.5, within=SHARE)  # chance of a horizontal flip
    dropout: float = of_training(0.0, within=DROPOUT)  # before the classifier
    threshold: float = ranged(0.5, SHARE)  # a class of at least this probability is there
    top: int = ranged(5, NUMBER_OF_RESULTS)  # likeliest classes that a prediction names besides

    @property
    def sides(self) -> tuple[int, int]:
        """The shorter side of a whole picture, and the most of the longer one, in pixels."""
        size = SHORTER if self.size is None else self.size
        return size, max(size, round(size * LONGER / SHORTER)) if self.longest is None else self.longest

    def uncached(self) -> str:
        """Say why these options exclude cached maps, or "".

        A map is cached once and without its picture's size, so its picture must be the same each time and fill its map.
        """
        if self.view == "fit":
            return "view=fit cannot go with cached maps, which do not say how large a picture is in its batch: set view=crop"
        return "augment=true cannot go with cached maps: set it to false" if self.augment else ""

    def problems(self) -> list[str]:
        """Check the pairs, and that nothing is said which the view has no use for."""
        found = pair_problems("scale", self.scale, most=1) + pair_problems("ratio", self.ratio)
        found += pair_problems("jitter", self.jitter)
        usual = {f.name: f.default for f in fields(self)}
        for key, view in _READ_BY.items():
            if self.view != view and (value := getattr(self, key)) != usual[key]:
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
                found.append(f"{key}={shown}: view={self.view} has no use for this; leave it out, or set view={view}")
        return found
