"""What decides an action recognition task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from trunkline.ground.ranges import SHARE, Range, ranged

from ..classification.options import HELD_OUT
from ..options import (
    DROPOUT,
    NUMBER_OF_RESULTS,
    PIXELS,
    TaskOptions,
    of_data,
    of_training,
    pair_problems,
)

FORMATS = ("folders", "csv", "ucf101", "hmdb51", "kinetics", "ssv2")
_FRAMES = Range(1, 512)
_STRIDE = Range(1, 512)
_RATE = Range(0, 1000, "frames a second, or 0 for each video's own")
_CLIPS = Range(1, 100)
_SECONDS = Range(0, 1e6, "seconds, or 0 for the length of what was trained on")
_WIDTH = Range(1, 16384)
_LAYERS = Range(1, 32)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of an action recognition task; a recipe writes them, `tasks.action.KEY=` changes one.

    `data` is a folder of class folders of clips (files, or folders of frames), with train/ and val/ or to be split by `val`;
    or tables (train.csv and val.csv, or one), or the files that UCF-101, HMDB-51, Kinetics and Something-Something v2 are
    published with. A clip is seen as `frames` frames: by `segments`, one of each of so many equal parts of the video; by
    `stride`, every `stride`-th from a start.
    """

    format: Literal["auto", "folders", "csv", "ucf101", "hmdb51", "kinetics", "ssv2"] = of_data("auto")
    val: float = of_data(0.0, within=HELD_OUT)  # share of each class held out for validation, where there is no val/
    split: int = of_data(1, within=Range(1, 3))  # which of the published splits of UCF-101 and HMDB-51
    frames: int = ranged(16, _FRAMES)
    sampling: Literal["segments", "stride"] = "segments"
    stride: int = ranged(1, _STRIDE)
    rate: float = ranged(0.0, _RATE)  # frames a second at which a video is seen; 0: all of its frames
    clips: int = ranged(1, _CLIPS)  # views of a video over time, in evaluation
    crops: Literal[1, 3] = 1  # views of each: the centre; or both ends of the longer side too
    size: int | None = ranged(None, PIXELS)  # side of the square crop; None takes the weights' own
    resize: tuple[int, ...] = ranged(
        (), PIXELS
    )  # before the crop: the shorter side, or height and width; empty: the weights'
    cached_side: int | None = ranged(
        None, PIXELS
    )  # each video's shorter side is resized to it once, and kept in the cache
    antialias: bool = True  # False resizes as torchvision's video models were scored
    scale: tuple[float, float] = of_training((0.5, 1.0))  # share of the area that a random crop covers
    ratio: tuple[float, float] = of_training((3 / 4, 4 / 3))  # the crop's width over its height
    short: tuple[int, ...] = of_training(
        (), within=PIXELS
    )  # two bounds of the shorter side, in place of scale and ratio, as is resize where that is set
    flip: float = of_training(0.5, within=SHARE)  # chance of a horizontal flip; none where a class names a side
    augment: bool = of_training(
        True
    )  # False trains on the evaluation's own frames and crop (what cached features need)
    head: Literal["average", "lstm", "transformer", "pool3d"] = ranged("average", of="network")
    width: int | None = ranged(None, _WIDTH, of="network")  # of the lstm or the transformer; None is the head's own
    layers: int | None = ranged(None, _LAYERS, of="network")
    label_smoothing: float = of_training(0.0, within=SHARE)
    dropout: float = of_training(0.0, within=DROPOUT)  # before the classifier
    top: int = ranged(5, NUMBER_OF_RESULTS)  # classes that a prediction names
    window: float = ranged(0.0, _SECONDS)  # seconds of video that one prediction of `predict` is about
    events: float = ranged(0.0, SHARE)  # probability above which neighbouring windows are one event; 0: none are listed

    def seen(self) -> str:
        """Say which frames of a video are seen, and how many views of it are scored."""
        rate = f"at {self.rate:g} frames/s" if self.rate else "at the video's own rate"
        each = (
            f"stride {self.stride} {rate}" if self.sampling == "stride" else f"one of each of {self.frames} equal parts"
        )
        views = (
            f"scores are over {self.clips} x {self.crops} views (clips x crops)" if self.clips * self.crops > 1 else ""
        )
        return "; ".join(filter(None, [f"clips of {self.frames} frames, {each}", views]))

    def uncached(self) -> str:
        """Say why these options exclude cached maps, or "".

        A map is cached once, so its frames must be the same each time.
        """
        if self.augment:
            return "augment=true cannot go with cached maps: set it to false"
        if self.clips * self.crops > 1:
            return f"clips={self.clips}, crops={self.crops}: cached maps are of one view: set both to 1"
        return ""

    def problems(self) -> list[str]:
        """Check the pairs, and settings that nothing would read."""
        found = pair_problems("scale", self.scale, most=1) + pair_problems("ratio", self.ratio)
        found += pair_problems("short", self.short)
        sides = ",".join(map(str, self.resize))
        if len(self.resize) > 2:
            found.append(f"resize={sides}: expected the shorter side, or a height and a width, as 128,171")
        if self.sampling == "segments" and self.stride != 1:
            found.append(
                f"stride={self.stride}: is read with sampling=stride; segments spread the frames over the video"
            )
        if self.sampling == "segments" and self.rate:
            found.append(f"rate={self.rate:g}: is read with sampling=stride; segments spread the frames over the video")
        return found
