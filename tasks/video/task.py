"""Action recognition: clips in, one class for each out."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import nn

from trunkline.ground.errors import DataError, RecipeError

from ...backbones.contract import Backbone, Preprocessing, pooled_maps, sizes_of, within
from ...backbones.table import CLIPS, frames_problem
from ...backbones.weights import Weights, load
from ...heads.contract import Batch, Prediction
from ...heads.video.clip import ClipHead, clip_head, problems
from ..classification.folders import lacks
from ..contract import Published, Sample, Samples, Task
from ..data.folds import divided
from ..data.groups import group_numbers
from ..fitting import copy_head
from ..images.drawing import INK
from .decoding.looking import Decoded, look
from .decoding.room import room_for
from .decoding.video import decoder, open_video
from .draw import strip, with_lines
from .evaluator import ActionEvaluator
from .inputs import videos
from .options import Options
from .predicted import PredictedAction
from .reading import read_clip_splits, read_whole_clips
from .samples import ClipSamples
from .suffixes import picture
from .transforms import OVER_TIME, EvalTransform, train_transform
from .views import VideoPrediction, of_views, over_time

SIDES = re.compile(
    r"(?<![a-z])(left|right|leftwards?|rightwards?|clockwise|counterclockwise|anticlockwise)(?![a-z])", re.I
)
"""Words in a class's name that a mirrored clip contradicts."""
TORCHVISION = {"frames": 16, "sampling": "stride", "rate": 15.0, "clips": 5, "antialias": False, "head": "pool3d"}
"""How torchvision scores its video networks on Kinetics-400 (references/video_classification): 5 clips of 16 frames at 15 a
second, one crop, resized without antialiasing; accuracy by videos."""
SLOWFAST = {"frames": 32, "sampling": "stride", "stride": 2, "rate": 30.0, "clips": 10, "crops": 3, "antialias": False,
            "head": "pool3d"}  # fmt: skip
"""How PySlowFast scores SlowFast R50 on Kinetics-400 (its model zoo, configs/Kinetics): 10 clips x 3 crops of 256 pixels."""
TSM = {"frames": 8}
"""How TSN and TSM are scored on Kinetics-400 with uniform frames (mit-han-lab): one clip, the centre of 224 pixels."""
_COLOURS = {None: (58, 110, 190), True: (30, 132, 73), False: (196, 48, 43)}
_LINE = 5  # pixels below a strip
_LOOKED_AT = 64  # clips of which the usual length is known


class Action(Task):
    """Clips in; `facts` are the class names, the usual length of the clips in seconds, and what decodes them."""

    name = "action"
    unit = "clips"
    inputs_are = "video or folder of frames"
    together = 4
    predicted = PredictedAction

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing.at(options.size), facts)
        self._splits: dict[str, ClipSamples] | None = None
        self._whole: ClipSamples | None = None

    @classmethod
    def reads(cls, weights: Weights) -> Published | None:
        """Read what a file says: ours in its header; torchvision's networks by their classifier, with its protocol."""
        if (own := super().reads(weights)) is not None:
            return own
        if weights.info.get("trunkline_task") or not weights.classes or not cls.outputs(weights):
            return None
        known = SLOWFAST if weights.arch.startswith("slowfast") else TORCHVISION if weights.arch in CLIPS else TSM
        return Published(dict(known), {"classes": list(weights.classes)})

    @classmethod
    def outputs(cls, weights: Weights) -> int:
        """Count the classifier's rows; 0 without one, and in networks for pictures."""
        return len(weights.tensors.get("fc.weight", ())) if weights.over_time else 0

    # The data

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`. Raises DataError with every problem of its layout."""
        o = self.options
        if self._splits is None and o.folds:
            folds = divided(self.whole(), o)
            self._splits = {name: folds.split(name, o.fold or 0) for name in ("train", "val")}
        if self._splits is None:
            self._splits = read_clip_splits(o, self.known("classes"))
        if split not in self._splits:
            raise DataError(lacks(o.data, split, self._splits))
        return self._splits[split]

    def whole(self) -> ClipSamples:
        """Read all clips, whatever split they are of."""
        if self._whole is None:
            self._whole = read_whole_clips(self.options, self.known("classes"))
        return self._whole

    def facts_of(self, training: Samples) -> dict[str, Any]:
        """Return the class names, the median length in seconds of some clips, and the decoder."""
        places = sorted({i * len(training) // _LOOKED_AT for i in range(_LOOKED_AT)} & {*range(len(training))})
        lengths, files = [], False
        for i in places:
            files = files or not Path(training.source(i)).is_dir()
            try:
                with open_video(training.source(i)) as video:
                    lengths.append(video.count / (float(video.rate) or 25.0))
            except DataError:
                continue  # it is told where it is used
        seconds = round(median(lengths), 3) if lengths else 0.0
        return {"classes": list(training.classes), "seconds": seconds, "decoder": decoder() if files else ""}

    def before_training(self) -> None:
        """Raise RecipeError where a run that goes on was begun with another decoder, whose frames may be others."""
        begun = self.facts.get("decoder")
        if begun and begun != decoder():
            raise RecipeError(
                f"the run was begun with {begun}, and here is {decoder()}: frames may be others, and so the weights. Go on with "
                "the decoder that it was begun with, or begin a new run (weights= takes this one's)"
            )
        if side := self.options.cached_side:
            sources = [s.source(i) for s in map(self.samples, ("train", "val")) for i in range(len(s))]
            found = room_for([*map(str, sources)], side)
            if found.needed > found.free:
                raise RecipeError(
                    f"cached_side={side}: resized frames take {found}: make room, let TRUNKLINE_CACHE name a folder that has "
                    "some, or leave cached_side out"
                )

    def said(self) -> list[str]:
        """Say how frames are chosen, and what decodes videos, and did in training where that was another."""
        begun, side = self.facts.get("decoder"), self.options.cached_side
        lines = [self.options.seen()]
        lines += [f"cached_side={side}: frames are resized to a shorter side of {side} pixels first"] if side else []
        if not begun:
            return lines
        here = decoder()
        said = f"videos are decoded by {here}" + ("" if begun == here else f"; in training they were by {begun}")
        return [said, *lines]

    def look(self, samples: Samples, loaders: int) -> list[str]:
        """Open every clip. List what their files say, alike lines once; raise DataError with all that cannot be opened."""
        return look(samples, loaders)

    def scan(self, samples: Samples, loaders: int) -> dict[str, str]:
        """Decode every frame of every clip, and return id to reason of those that cannot be used."""
        from ..data.scan import scan

        return scan(Decoded(samples), loaders)  # type: ignore[arg-type]

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build what picks, decodes and crops frames: at random in training, the fixed views in evaluation."""
        if not training:
            return EvalTransform(self.preprocessing, self.options)
        return train_transform(self.preprocessing, self.options, 0.0 if self.sided() else self.options.flip)

    def sided(self) -> list[str]:
        """List the classes whose names say a side, so that a mirrored clip would be of another class."""
        return [name for name in self.classes if SIDES.search(name.replace("_", " "))]

    def collate(self, samples: list[Sample]) -> Batch:
        """Join clips to `(N, 3, T, H, W)` uint8, or views of evaluation to `(N * V, 3, T, H, W)`; `label` is `(N,)` int64.

        `frames` counts the frames of each that do not repeat the last one.
        """
        targets: dict[str, Any] = {}
        if "label" in samples[0].targets:
            targets["label"] = torch.tensor([s.targets["label"] for s in samples])
        if OVER_TIME in samples[0].targets:
            return Batch(self.name, [s.id for s in samples], targets=targets | {OVER_TIME: torch.ones(len(samples))})
        targets["frames"] = torch.cat([s.targets["frames"] for s in samples])
        join = torch.cat if samples[0].image.ndim == 5 else torch.stack
        remarks = {s.id: s.remarks for s in samples if s.remarks}
        return Batch(
            self.name, [s.id for s in samples], join([s.image for s in samples]), targets=targets, remarks=remarks
        )

    # The model

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say whether the trunk takes so many frames, and such crops, and whether the head goes with it."""
        o, found = self.options, []
        if said := frames_problem(backbone.arch, o.frames):
            found.append(f"frames={o.frames}: {said}")
        if said := sizes_of(backbone).misfit(self.preprocessing.size, "size"):
            found.append(said)
        reads = pooled_maps(backbone)
        return found + problems(o.head, backbone.channels, reads, backbone.time_strides, o.width, o.layers)

    def head(self, backbone: Backbone, weights: Weights | None = None) -> ClipHead:
        """Build the head on this trunk, filled from weights whose classes are the same. Raises WeightsError."""
        o = self.options
        head = clip_head(
            o.head, backbone.channels, len(self.classes), time_strides=backbone.time_strides, reads=pooled_maps(backbone),
            width=o.width, layers=o.layers, dropout=o.dropout, label_smoothing=o.label_smoothing,
        )  # fmt: skip
        said = self.reads(weights) if weights is not None else None
        if weights is None or not self._same_classes(weights, said):
            return head
        if "fc.weight" in weights.tensors and not head.over_time.width:
            trunk = within(backbone)  # frames may stand around it
            trunk.report = load(weights, trunk, head.fc)
        elif said is not None:
            copy_head(weights, type(self).name, head)
        return head

    def _same_classes(self, weights: Weights, said: Published | None) -> bool:
        names = said.facts.get("classes", ()) if said is not None else weights.classes or ()
        return tuple(names) == self.classes

    def infer(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predict each video: the mean of its views, or of windows over its time where it is to be predicted over time."""
        if OVER_TIME not in batch.targets:
            return of_views(model, batch)
        seconds, device = float(self.facts.get("seconds", 0.0)), next(model.parameters()).device
        see = partial(over_time, model, self.name, preprocessing=self.preprocessing, options=self.options,
                      seconds=seconds, device=device, features=self.writing.features)  # fmt: skip
        return [see(address) for address in batch.ids]

    # Prediction

    @classmethod
    def inputs(cls, given: str) -> Iterator[Path]:
        """List the videos, and the folders of frames, that a name stands for."""
        return videos(given)

    def read(self, address: str) -> Sample:
        """Make a sample that is predicted over time. Raises DataError where the file is no video."""
        if Path(address).is_file() and (said := picture(Path(address).suffix.lower())):
            raise DataError(f"{address}: {said}")
        with open_video(address):
            return Sample(address, Path(address), torch.empty(0, dtype=torch.uint8), {OVER_TIME: True})

    # Scores and pictures

    def evaluator(self, samples: Samples) -> ActionEvaluator:
        """Build the evaluator of these videos."""
        o = self.options
        return ActionEvaluator(self.classes, o.clips * o.crops, group_numbers(samples, o.group))

    def draw(self, sample: Sample, prediction: Prediction) -> Image:
        """Draw a strip of frames above a line: green where the likeliest class is right, red where it is another one.

        Its name stands beside it in a report. Of a clip that cannot be decoded there, the reason is written instead.
        """
        assert isinstance(prediction, VideoPrediction)
        label = sample.targets.get("label")
        right = None if label is None else int(label) == int(prediction.probabilities.argmax())
        try:
            frames = strip(sample.source)
        except DataError as error:
            return with_lines(new_image("RGB", (640, 8)), [(str(error), INK)])
        page = new_image("RGB", (frames.width, frames.height + _LINE), _COLOURS[right])
        page.paste(frames, (0, 0))
        return page
