"""The options of finding events in long videos. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from trunkline.ground.ranges import Range, ranged

from ..options import DROPOUT, NUMBER_OF_RESULTS, TaskOptions, of_data, of_scores, of_training

_STEPS = Range(16, 1e6, "a number of steps from 16 on")
_STRIDE = Range(0, 4096, "frames from one step to the next, or 0 where the files or the videos' lengths say it")
_FRAMES = Range(0, 4096, "frames that a step was computed from, or 0")
_RATE = Range(0, 1000, "frames a second, or 0 where the annotations say it")
_SECONDS = Range(0, 1e6, "seconds above 0", low_in=False)
_UNIT = Range(0, 1)
_SHARE = Range(0, 1, "a share above 0", low_in=False)
_WIDTH, _LEVELS, _DEPTH = Range(8, 4096), Range(1, 10), Range(1, 8)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a task of events; a recipe writes them, `tasks.events.KEY=` changes one.

    `data` is a folder with ActivityNet's JSON, THUMOS' texts, or tables (video, start, end, label; seconds). `features` is the
    folder of the videos' features, one `.npy` `(steps, channels)` each: those that `predict RUN features=` writes say when each
    step was; of published ones `stride`, `span` and `rate` say it, or else the steps are spread over the video's length.
    """

    format: Literal["auto", "activitynet", "thumos", "events"] = of_data("auto")
    features: str = of_data("")  # a folder; by default the folder features in data
    train: str = of_data("")  # of a JSON the subset, of a table the file, that is trained on
    val: str = of_data("")  # the same for validation; or a share of the videos, as 0.2
    on_bad_event: Literal["stop", "skip"] = of_data("stop")  # events without length or outside their video
    stride: int = ranged(0, _STRIDE)
    span: int = ranged(0, _FRAMES)  # frames that a step was computed from
    rate: float = ranged(0.0, _RATE)
    longest: int = of_training(2304, _STEPS)  # steps; a longer video is cut at random in training
    head: Literal["pyramid", "windows"] = ranged("pyramid", of="network")
    width: int = ranged(256, _WIDTH, of="network")  # of the pyramid
    levels: int = ranged(5, _LEVELS, of="network")  # of the pyramid, each half as long as the one before
    convolutions: int = ranged(2, _DEPTH, of="network")  # of its towers
    window: float = ranged(1.0, _SECONDS, of="network")  # seconds of a window
    background: bool = ranged(
        True, of="network"
    )  # of windows: nothing is a class too; false: a classifier of clips, slid
    dropout: float = of_training(0.0, within=DROPOUT)
    score: float = ranged(0.01, _UNIT)  # the lowest that the pyramid gives out
    thresholds: tuple[float, ...] = ranged(
        (0.3, 0.5), _UNIT
    )  # of windows: probabilities above which steps are of one event
    nms: float = ranged(0.6, _UNIT)  # overlap that suppresses
    sigma: float = ranged(0.5, _UNIT)  # of the pyramid: 0 suppresses by nms, else overlapping events lose score
    detections: int = ranged(200, NUMBER_OF_RESULTS)  # of a video, at most
    protocol: Literal["activitynet", "thumos"] = of_scores("activitynet")
    overlaps: tuple[float, ...] = of_scores((), within=_SHARE)  # over which the mean is; empty: the protocol's own

    def problems(self) -> list[str]:
        """Check what goes together."""
        found = []
        if self.head == "windows" and not self.thresholds:
            found.append("thresholds=: expected one probability at least, as 0.3,0.5")
        if self.head == "pyramid" and not self.background:
            found.append("background=false: is read with head=windows")
        if len({*map(float, self.overlaps)}) < len(self.overlaps):
            found.append(f"overlaps={','.join(f'{o:g}' for o in self.overlaps)}: one stands there twice")
        if self.rate and not self.stride:
            found.append(f"rate={self.rate:g}: is read with stride=, the frames from one step to the next")
        if self.span and not self.stride:
            found.append(f"span={self.span}: is read with stride=, the frames from one step to the next")
        return found
