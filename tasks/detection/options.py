"""What decides a detection task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..options import following, of_data, of_training


@dataclass(frozen=True)
class Options:
    """Every choice of a detection task; a recipe writes them, `tasks.detection.KEY=` changes one.

    `train` and `val` are annotation files (COCO) or image lists (VOC) below `data`, `train_images` and `val_images` the
    folders of the pictures (COCO); by default all of them are found by their names.
    """

    data: str = ""  # the folder that the files are in
    format: Literal["coco", "voc"] = of_data("coco")
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    train_images: str = of_data("")
    val_images: str = of_data("")
    limit: int = of_data(0)  # only the first so many pictures with objects of a split; 0 takes all
    head: Literal["faster_rcnn", "mask_rcnn", "one_stage"] = "faster_rcnn"
    on_bad_sample: Literal["stop", "skip"] = "stop"  # a picture that cannot be read
    on_bad_box: Literal["stop", "skip"] = "stop"  # an object without area, or outside its picture
    empty: bool = of_training(False)  # train on pictures without objects too
    size: int = 800  # of the shorter side, in pixels
    longest: int = following("size", 1333)  # at most, of the longer side
    sizes: tuple[int, ...] = of_training(())  # train at one of these shorter sides each time
    flip: float = of_training(0.5)  # chance of a horizontal flip
    jitter: tuple[float, ...] = of_training(())  # two scales between which a picture is resized to squares of `size`
    photometric: bool = of_training(False)  # random brightness, contrast, saturation, hue
    score: float = 0.05  # the lowest that is given out
    nms: float = 0.5  # overlap above which the lower of two boxes of a class is dropped
    detections: int = 100  # of a picture, at most
    tiles: int = 0  # see a larger picture in tiles of so many pixels a side, and whole; 0: whole only
    overlap: float = 0.25  # of neighbouring tiles
    flips: bool = False  # see every picture mirrored too
    scales: tuple[float, ...] = ()  # see every picture at these multiples of `size`
    as_torchvision: bool = False  # strides, scales and norms as torchvision's own checkpoints have them
