"""Events in long videos: features over time in; events with a class, a start and an end out."""

import glob
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import DataError

from ...backbones.contract import Backbone
from ...backbones.weights import Weights
from ...heads.contract import Batch, Prediction
from ...heads.events.events import REAL, STEPS, joined, parts_of
from ...heads.events.pyramid import EventPyramid
from ...heads.events.windows import EventWindows
from ..contract import Sample, Samples, Task
from ..data.folds import divided
from ..fitting import copy_head
from .annotations import Event, Video, stop
from .draw import time_line
from .evaluator import EventEvaluator
from .features import Clock, Steps, open_steps
from .predicted import PredictedEvents, VideoEvents
from .reading import read_events, read_whole
from .samples import EventSamples
from .transforms import Cut, as_it_is

PART = 2048
"""Steps of a long video that are in memory at once."""
LONG = "long"
"""A target of samples whose features are read part by part when they are predicted."""


class Events(Task):
    """Features of videos in; `facts` are the class names, the features' width, and the usual seconds of a step."""

    name = "events"
    unit = "videos"
    inputs_are = "file of features (.npy)"
    together = 1
    predicted = PredictedEvents

    def __init__(self, options: Any, preprocessing: Any, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing, facts)
        self._splits: dict[str, EventSamples] | None = None
        self._whole: EventSamples | None = None

    # The data

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`. Raises DataError with every problem of its files."""
        o = self.options
        if self._splits is None and o.folds:
            folds = divided(self.whole(), o)
            self._splits = {name: folds.split(name, o.fold or 0) for name in ("train", "val")}
        if self._splits is None:
            self._splits = read_events(o, self.known("classes"))
        if split not in self._splits:
            raise DataError(f"{o.data}: has no events of {split}, only of {', '.join(self._splits)}")
        return self._splits[split]

    def whole(self) -> EventSamples:
        """Read all videos, whatever split they are of."""
        if self._whole is None:
            self._whole = read_whole(self.options, self.known("classes"))
        return self._whole

    def facts_of(self, training: Samples) -> dict[str, Any]:
        """Return the class names, the features' width, and what a video without a JSON beside its features needs.

        `seconds` is the median from step to step, `even` the same where all videos have it, else 0; `rate` is the frames a second
        that all have, else 0.
        """
        assert isinstance(training, EventSamples)
        opened = []
        for i in range(len(training)):
            try:
                opened.append(training.steps(i))
            except DataError:
                if not opened and i == len(training) - 1:
                    raise
                continue  # it is told where it is looked at
        seconds = sorted(one.clock.seconds for one in opened)
        middle, rates = seconds[len(seconds) // 2], {video.rate for video in training.videos}
        even = all(
            abs(one.clock.seconds - middle) < 1e-3 * middle and abs(one.clock.times[0] - middle / 2) < 1e-3 * middle
            for one in opened
        )
        return {
            "classes": list(training.classes),
            "channels": Counter(one.array.shape[1] for one in opened).most_common(1)[0][0],
            "seconds": round(middle, 6),
            "even": round(middle, 6) if even else 0.0,
            "rate": self.options.rate or (rates.pop() if len(rates) == 1 else 0.0),
        }

    def scan(self, samples: Samples, loaders: int) -> dict[str, str]:
        """Read all features, and return id to reason of those that cannot be used, or are of another width than the others."""
        assert isinstance(samples, EventSamples)
        found = super().scan(samples, loaders)
        for i in (i for i in range(len(samples)) if samples.id(i) not in found):
            try:
                self._fits(samples.steps(i), samples.source(i))
            except DataError as error:
                found[samples.id(i)] = str(error)
        return found

    def look(self, samples: Samples, loaders: int) -> list[str]:
        """Open all features, which must be of one width and as long as their videos. Raises DataError with all that are not."""
        assert isinstance(samples, EventSamples)
        problems, said = list[str](), dict[str, list[str]]()
        for i in range(len(samples)):
            try:
                steps = samples.steps(i)
                self._fits(steps, samples.source(i))
                said.setdefault(steps.said.partition(" at ")[0], []).append(samples.id(i))
            except DataError as error:
                problems.append(str(error))
        stop(problems)
        return [f"{len(names)} videos' steps are {how}" for how, names in said.items()]

    def _fits(self, steps: Steps, file: str | Path) -> None:
        channels = self.facts["channels"]
        if steps.array.shape[1] != channels:
            raise DataError(
                f"{file}: has {steps.array.shape[1]} channels, and the others {channels}: features of another network?"
            )

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build what cuts a part of long videos in training."""
        return Cut(self.options.longest) if training else as_it_is

    def collate(self, samples: list[Sample]) -> Batch:
        """Join features to `(N, C, T)` fp32, shorter ones padded with zeros behind; `real` `(N,)` counts the others' steps."""
        names = [s.id for s in samples]
        if LONG in samples[0].targets:
            return Batch(self.name, names, targets={LONG: torch.ones(len(samples))})
        count = max(s.image.shape[1] for s in samples)
        steps = torch.stack([F.pad(s.image, (0, count - s.image.shape[1])) for s in samples])
        targets: dict[str, Any] = {REAL: torch.tensor([s.image.shape[1] for s in samples])}
        targets |= {name: [s.targets[name] for s in samples] for name in ("segments", "labels", "times")}
        return Batch(self.name, names, targets=targets, features={STEPS: steps})

    # The model

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say that features stand in place of a trunk."""
        return (
            []
            if STEPS in backbone.channels
            else [f"network.backbone={backbone.arch}: the task events reads features: give features"]
        )

    def head(self, backbone: Backbone, weights: Weights | None = None) -> nn.Module:
        """Build the head, filled from weights of this task with the same classes."""
        o, channels, classes = self.options, int(self.facts["channels"]), len(self.classes)
        shared = {"dropout": o.dropout, "nms": o.nms, "detections": o.detections}
        if o.head == "pyramid":
            shared |= {
                "width": o.width,
                "levels": o.levels,
                "depth": o.convolutions,
                "score": o.score,
                "sigma": o.sigma,
            }
            head: nn.Module = EventPyramid(channels, classes, **shared)
        else:
            steps = max(1, round(o.window / float(self.facts["seconds"])))
            head = EventWindows(
                channels,
                classes,
                window=steps + 1 - steps % 2,
                background=o.background,
                thresholds=o.thresholds,
                **shared,
            )
        said = self.reads(weights) if weights is not None else None
        if said is not None and tuple(said.facts.get("classes", ())) == self.classes:
            copy_head(weights, type(self).name, head)
        return head

    def infer(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predict each video, part by part where it is long; bounds become seconds."""
        return [self._one(model, batch, i) for i in range(len(batch))]

    def _one(self, model: Any, batch: Batch, i: int) -> VideoEvents:
        head, device = model.heads[self.name], next(model.parameters()).device
        if batch.features is None:
            steps = self._open(batch.ids[i])
            count, clock = len(steps.array), steps.clock

            def read(first: int, end: int) -> Tensor:
                try:
                    return torch.from_numpy(steps.rows(first, end)).transpose(0, 1)
                except DataError as error:
                    raise DataError(f"{batch.ids[i]}: {error}") from None
        else:
            own, count = batch.features[STEPS][i], int(batch.targets[REAL][i])
            if len(own) != (channels := int(self.facts["channels"])):
                raise DataError(
                    f"{batch.ids[i]}: has {len(own)} channels, and the run learnt {channels}: features of another network?"
                )
            clock = Clock(batch.targets["times"][i].cpu().numpy())

            def read(first: int, end: int) -> Tensor:
                return own[:, first:end]

        parts = list(parts_of(count, PART, head))
        said = [head.said(read(first, end)[None].to(device)) for first, end, _, _ in parts]
        found = joined(said, [p[0] for p in parts], [(p[2], p[3]) for p in parts])
        segments, labels, scores = head.events(found)
        curve = found.curve.float().cpu().numpy()
        return VideoEvents(batch.ids[i], clock.when(segments).clip(0), labels, scores, curve, clock.times)

    def _open(self, address: str) -> Steps:
        o = self.options
        usual = 0.0 if o.stride else float(self.facts["even"])
        steps = open_steps(
            address, Video(Path(address).stem), o.stride, o.span, o.rate or float(self.facts["rate"]), usual
        )
        self._fits(steps, address)
        return steps

    # Prediction

    @classmethod
    def inputs(cls, given: str) -> Iterator[Path]:
        """List the files of features (.npy) that a name stands for: a file, those in a folder, or what a pattern matches."""
        path = Path(given)
        if path.is_dir():
            yield from sorted(path.rglob("*.npy"))
        elif path.is_file():
            yield path
        else:
            yield from (file for file in map(Path, sorted(glob.glob(given, recursive=True))) if file.is_file())  # noqa: PTH207

    def read(self, address: str) -> Sample:
        """Make a sample whose features are read part by part. Raises DataError where the file holds none."""
        if Path(address).suffix.lower() != ".npy":
            raise DataError(
                f"{address}: is no file of features; of a video a run of the recipe action writes them: "
                f"trunkline predict RUN_OF_ACTION {address} features=FOLDER"
            )
        self._open(address)
        return Sample(address, Path(address), torch.empty(0), {LONG: True})

    # Scores and pictures

    def evaluator(self, samples: Samples) -> EventEvaluator:
        """Build the evaluator of these videos."""
        assert isinstance(samples, EventSamples)
        return EventEvaluator(samples)

    def draw(self, sample: Sample, prediction: Prediction) -> Image:
        """Draw a time line: the scores of the classes, what was found, and below it what is true."""
        assert isinstance(prediction, VideoEvents)
        clock = Clock(sample.targets["times"].numpy()) if "times" in sample.targets else Clock(prediction.times)
        truth = None
        if "segments" in sample.targets:
            bounds = clock.when(sample.targets["segments"].double().numpy()).tolist()
            truth = [
                Event(s, e, self.classes[n])
                for (s, e), n in zip(bounds, sample.targets["labels"].tolist(), strict=True)
            ]
        return time_line(prediction.events(self.classes), prediction.lines(self.classes), prediction.length, truth)
