"""What decides a segmentation task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..options import of_data, of_training


@dataclass(frozen=True)
class Options:
    """Every choice of a segmentation task; a recipe writes them, `tasks.segmentation.KEY=` changes one.

    `train` and `val` are lists (VOC, SBD), annotation files (COCO) or names of folders (`train` and `val` otherwise), below
    `data`.
    """

    data: str = ""  # the folder that the files are in
    format: Literal["voc", "sbd", "coco", "pairs", "camvid", "cityscapes", "ade20k"] = of_data("voc", kept=True)
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    masks: str = of_data("")  # VOC: another folder of masks than SegmentationClass
    sbd: str = of_data("")  # VOC: SBD's folder below data, whose pictures join the training (trainaug)
    train_images: str = of_data("")  # COCO: the folders of the pictures
    val_images: str = of_data("")
    categories: tuple[str, ...] = of_data(())  # COCO: only these; the others are background
    least: int = of_data(0)  # COCO: train on pictures alone whose objects cover more pixels than this
    limit: int = of_data(0)  # only the first so many pictures of a split; 0 takes all
    head: Literal["deeplabv3", "deeplabv3plus", "fcn", "unet", "fpn"] = "deeplabv3plus"
    dropout: float | None = of_training(None)  # of the head; none leaves it as published
    aux: float = 0.0  # weight of an FCN on c4 that is trained beside; 0 has none
    cross_entropy: float = of_training(1.0)  # the losses' weights; 0 leaves one out
    dice: float = of_training(0.0)
    focal: float = of_training(0.0)
    lovasz: float = of_training(0.0)
    class_weights: tuple[float, ...] = of_training(())  # in the cross-entropy, one for each class
    on_bad_sample: Literal["stop", "skip"] = "stop"  # a picture or mask that is missing or cannot be used
    crop: int = of_training(512)  # training sees squares of so many pixels
    short: int | None = of_training(None)  # the shorter side before the jitter; none: the picture's own
    jitter: tuple[float, ...] = of_training((0.5, 2.0))  # two scales between which a picture is resized
    cat_max_ratio: float = of_training(1.0)  # look for another crop, ten times, where one class covers more than this
    flip: float = of_training(0.5)  # chance of a horizontal flip
    photometric: bool = of_training(False)  # random brightness, contrast, saturation, hue
    size: int | None = None  # evaluation sees the shorter side at so many pixels; none: in its own size
    tiles: int = 0  # see a larger picture in windows of so many pixels a side; 0: whole
    overlap: float = 0.5  # of neighbouring windows
    flips: bool = False  # see every picture mirrored too
    scales: tuple[float, ...] = ()  # see every picture at these multiples of its size
    crf: bool = False  # let a fully connected CRF follow the picture's edges
    absent: Literal["truth", "either"] = "truth"  # which classes a mean is over: those of the truth, or of either side
    palette: tuple[
        tuple[int, int, int], ...
    ] = ()  # the classes' colours in what is drawn and written; empty: the data's
    written: bool = False  # records hold the predicted masks
