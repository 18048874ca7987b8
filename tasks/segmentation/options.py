"""What decides a segmentation task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..layout import of_data


@dataclass(frozen=True)
class Options:
    """The choices of a segmentation task.

    `train` and `val` are lists (VOC) or names of folders (`train` and `val` otherwise).
    """

    data: str = ""
    format: Literal["voc", "pairs", "camvid", "cityscapes", "ade20k"] = of_data("voc")
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    masks: str = of_data("")  # VOC: another folder of masks than SegmentationClass
    limit: int = of_data(0)  # only the first so many pictures of a split; 0 takes all
    crop: int = 512  # training sees squares of so many pixels
    short: int = 0  # the shorter side before the scale jitter; 0: the picture's own
    scale: tuple[float, float] = (0.5, 2.0)  # from where to where the jitter goes
    flip: float = 0.5  # chance of a horizontal flip
    photometric: bool = False  # random brightness, contrast, saturation, hue
    size: int = 0  # evaluation sees the shorter side at so many pixels; 0: in its own size
    absent: Literal["truth", "either"] = "truth"  # which classes a mean is over: those of the truth, or of either side
    written: bool = False  # records hold the predicted masks
