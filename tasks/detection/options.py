"""What decides a detection task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from trunkline.ground.ranges import COUNT, SHARE, Range, ranged

from ..options import (
    NUMBER_OF_RESULTS,
    OVERLAP,
    PADDING,
    PIXELS,
    SCALES,
    TILES,
    TaskOptions,
    depth_of_pictures,
    following,
    of_data,
    of_training,
    pair_problems,
    window_problems,
)

LONGEST = Range(0, 65536, "a number of pixels from 1 to 65536", low_in=False)
SIZES = Range(0, 16384, "numbers of pixels from 1 to 16384", low_in=False)


ORIGIN = Range(0, 1, "0 or 1")
_TWO_PLACES = (
    64  # pixels of one place before the coarsest level; of such a map oneDNN's gradient in bf16 is not a number
)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a detection task; a recipe writes them, `tasks.detection.KEY=` changes one.

    `train` and `val` are annotation files (COCO), image lists or folders (VOC), folders, lists or tables (others) below
    `data`, `train_images` and `val_images` the folders of the pictures (COCO); by default all are found by their names.
    `val=0.2` holds out a fifth of the pictures.
    """

    format: Literal["coco", "voc", "yolo", "yolo-seg", "yolo-obb", "labelme", "labelstudio", "csv"] = of_data("coco")
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    train_images: str = of_data("")
    val_images: str = of_data("")
    categories: tuple[str, ...] = of_data(())  # only objects of these; without any, of all
    exif: Literal["stop", "turn", "ignore"] = of_data(
        "stop"
    )  # labels are of a picture as EXIF turns it, or as it is stored
    origin: int = of_data(1, within=ORIGIN)  # VOC: the number of the first pixel
    rotated: Literal["stop", "enclose"] = of_data("stop")  # Label Studio: take the upright box around a rotated one
    annotator: str = of_data("")  # Label Studio: whose labels count, an id or an address, first or last
    limit: int = of_data(0, within=COUNT)  # at most so many pictures of a split, the first with objects; 0 takes all
    depth: str = depth_of_pictures()
    head: Literal["faster_rcnn", "mask_rcnn", "one_stage"] = "faster_rcnn"
    on_bad_box: Literal["stop", "skip"] = "stop"  # for an object without area, or outside its picture
    empty: bool = of_training(False)  # train on pictures without objects too
    size: int = ranged(800, PIXELS)  # pixels of the shorter side
    longest: int = following("size", 1333, within=LONGEST)  # most pixels of the longer side
    padding: int | None = ranged(
        None, PADDING
    )  # the sides of a batch are multiples of so many pixels; none: the coarsest level's stride, 64 or 128
    sizes: tuple[int, ...] = of_training((), within=SIZES)  # train at one of these shorter sides each time
    flip: float = of_training(0.5, within=SHARE)  # chance of a horizontal flip
    jitter: tuple[float, ...] = of_training(())  # two scales between which a picture is resized to squares of `size`
    photometric: bool = of_training(False)  # random brightness, contrast, saturation, hue
    score: float = ranged(0.05, SHARE)  # lowest score of a predicted object
    nms: float = ranged(0.5, SHARE)  # overlap above which the lower of two boxes of a class is dropped
    detections: int = ranged(100, NUMBER_OF_RESULTS)  # most objects of a picture
    tiles: int = ranged(0, TILES)  # see a larger picture whole and in tiles of so many pixels a side; 0: only whole
    overlap: float = ranged(0.25, OVERLAP)  # share by which neighbouring tiles overlap
    flips: bool = False  # see every picture mirrored too
    scales: tuple[float, ...] = ranged((), SCALES)  # see every picture at these multiples of `size`
    as_torchvision: bool = False  # strides, scales and norms as torchvision's own checkpoints have them

    def problems(self) -> list[str]:
        """Check the pair of scales, the windows with their overlap, and the padding of small pictures."""
        found = pair_problems("jitter", self.jitter) + window_problems(self.tiles, self.overlap)
        if self.head == "one_stage" and self.padding is not None and self.padding <= _TWO_PLACES:
            found.append(
                f"padding={self.padding}: head=one_stage makes its coarsest level of maps that are two places wide at least; "
                f"give more than {_TWO_PLACES}"
            )
        return found
