"""What decides a segmentation task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..layout import of_data

FORMATS = ("voc", "pairs", "camvid", "cityscapes", "ade20k", "coco")


@dataclass(frozen=True)
class Options:
    """Every choice of a segmentation task; a recipe writes them, `tasks.segmentation.KEY=` changes one.

    `train` and `val` are lists (VOC), folders' names (`train` and `val` otherwise) or annotation files (COCO).
    """

    data: str = ""
    format: Literal["voc", "pairs", "camvid", "cityscapes", "ade20k", "coco"] = of_data("voc")
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    masks: str = of_data("")  # VOC: another folder of masks than SegmentationClass
    categories: tuple[str, ...] = of_data(())  # COCO: these, in this order, behind the background; empty: all
    limit: int = of_data(0)  # only the first so many pictures of a split; 0 takes all
    head: Literal["deeplabv3", "deeplabv3plus", "fcn", "unet", "fpn"] = "deeplabv3plus"
    dropout: float | None = None  # of the head; None leaves it as published
    cross_entropy: float = 1.0  # weights of the losses in their sum; 0 leaves one out
    dice: float = 0.0
    focal: float = 0.0
    lovasz: float = 0.0
    aux: float = 0.0  # of the cross-entropy of a second head, on c4
    class_weights: tuple[float, ...] = ()  # in the cross-entropy; a number for each class
    on_bad_sample: Literal["stop", "skip"] = "stop"  # a picture or mask that cannot be read
    crop: int = 512  # training sees squares of so many pixels
    short: int = 0  # the shorter side before the scale jitter; 0: the picture's own
    scale: tuple[float, float] = (0.5, 2.0)  # from where to where the jitter goes
    flip: float = 0.5  # chance of a horizontal flip
    photometric: bool = False  # random brightness, contrast, saturation, hue
    size: int = 0  # evaluation sees the shorter side at so many pixels; 0: in its own size
    window: int = 0  # see a larger picture through windows of so many pixels a side; 0: whole
    overlap: float = 0.33  # of neighbouring windows
    flips: bool = False  # see every picture mirrored too
    scales: tuple[float, ...] = ()  # see every picture at these multiples of its size
    crf: int = 0  # rounds of a fully connected CRF behind the network; 0 has none
    absent: Literal["truth", "either"] = "truth"  # which classes a mean is over: those of the truth, or of either side
    written: bool = False  # records hold the predicted masks
