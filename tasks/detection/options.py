"""What decides a detection task, as data. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Every choice of a detection task; a recipe writes them, `tasks.detection.KEY=` changes one."""

    data: str = ""  # the folder that the files below are in
    format: Literal["coco", "voc"] = "coco"
    head: Literal["faster_rcnn", "mask_rcnn", "one_stage"] = "faster_rcnn"
    train: Sequence[
        str
    ] = ()  # annotation files (COCO) or image lists (VOC), below data; by default found by their names
    val: Sequence[str] = ()
    train_images: str = ""  # the folder of a split's images, below data (COCO); by default found by its name
    val_images: str = ""
    on_bad_sample: Literal["stop", "skip"] = "stop"  # a picture that cannot be read
    on_bad_box: Literal["stop", "skip"] = "stop"  # an object without area, or outside its picture
    limit: int = 0  # only the first so many pictures with objects of a split; 0 takes all
    empty: bool = False  # train on pictures without objects too
    size: int = 800  # of the shorter side, in pixels
    longest: int = 1333  # at most, of the longer side
    sizes: Sequence[int] = ()  # train at one of these shorter sides each time
    flip: float = 0.5  # chance of a horizontal flip
    jitter: Sequence[float] = ()  # two scales between which a picture is resized to a square of `size`, and cropped
    photometric: bool = False  # random brightness, contrast, saturation, hue
    score: float = 0.05  # the lowest that is given out
    nms: float = 0.5  # overlap above which the lower of two boxes of a class is dropped
    detections: int = 100  # of a picture, at most
    as_torchvision: bool = False  # strides and scales as torchvision infers them: for its own checkpoints
