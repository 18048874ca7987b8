"""A split of long videos: features over time, with the events in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trunkline.ground.errors import DataError

from ..data.fingerprint import digest, manifest_lines
from ..samples import Sample
from .annotations import Video, outside, stop
from .features import Steps, open_steps
from .options import Options


@dataclass(frozen=True)
class EventSamples:
    """One split; a `Samples`. `files[i]` has the features of `videos[i]`.

    A sample's `image` is `(C, T)` fp32; its targets are `segments` `(n, 2)` fp32, start and end in steps, `labels` `(n,)`
    int64, positions in `classes`, and `times` `(T,)` fp64, the seconds of each step.
    """

    root: str
    videos: tuple[Video, ...]
    files: tuple[Path, ...]
    classes: tuple[str, ...]
    options: Options
    excluded: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Sample:
        """Read a video's features. Raises DataError with the file's name."""
        steps, video = self.steps(index), self.videos[index]
        times = np.array([(event.start, event.end) for event in video.events], np.float64).reshape(-1, 2)
        number = {name: n for n, name in enumerate(self.classes)}
        labels = [number[event.label] for event in video.events]
        try:
            features = torch.from_numpy(steps.rows(0, len(steps.array))).transpose(0, 1)
        except DataError as error:
            raise DataError(f"{self.files[index]}: {error}") from None
        targets = {
            "segments": torch.from_numpy(steps.clock.place(times).astype(np.float32)),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "times": torch.from_numpy(steps.clock.times),
        }
        return Sample(self.id(index), self.files[index], features, targets)

    def steps(self, index: int) -> Steps:
        """Open a video's features without reading them. Raises DataError, also where its events lie behind their end."""
        o, video = self.options, self.videos[index]
        steps = open_steps(self.files[index], video, o.stride, o.span, o.rate)
        stop(outside(video, steps.clock.end))
        return steps

    def id(self, index: int) -> str:
        """Return the video's name."""
        return self.videos[index].name

    def source(self, index: int) -> Path:
        """Return the file of features."""
        return self.files[index]

    def remarks(self) -> list[str]:
        """Say what was mended or left out, and which classes no event is of."""
        there = {event.label for video in self.videos for event in video.events}
        lacking = [name for name in self.classes if name not in there]
        return [
            *self.notes,
            *([f"no event of {', '.join(lacking[:8])}{' …' if len(lacking) > 8 else ''}"] if lacking else []),
        ]

    @property
    def grouped(self) -> list[str] | None:
        """The group of each video, where a table says them."""
        said = [video.group for video in self.videos]
        return (
            None
            if all(one is None for one in said)
            else [one or video.name for one, video in zip(said, self.videos, strict=True)]
        )

    def groups(self, training: bool) -> None:
        """Return None: shorter videos are padded."""

    def units(self) -> None:
        """Return None: no files lie together."""

    def without(self, reasons: Mapping[str, str]) -> "EventSamples":
        """Leave out these ids (id to reason), which join `excluded`. Raises DataError where nothing is left."""
        kept = np.array([self.id(i) not in reasons for i in range(len(self))], bool)
        if not kept.any():
            raise DataError(f"{self.root}: no video can be used: {next(iter(reasons.values()))}")
        return replace(self._only(kept), excluded={**self.excluded, **reasons})

    def take(self, rows: np.ndarray, split: str) -> "EventSamples":
        """Keep the videos where `rows` `(N,)` bool is true, as a split; what is said of all stays with train."""
        kept = self._only(rows)
        return kept if split == "train" else replace(kept, excluded={}, notes=())

    def _only(self, rows: np.ndarray) -> "EventSamples":
        at: Sequence[int] = np.flatnonzero(rows).tolist()
        return replace(self, videos=tuple(self.videos[i] for i in at), files=tuple(self.files[i] for i in at))

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`; equal digests mean equal features and events."""
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}

    def manifest(self) -> list[str]:
        """List one line a video: its name, a digest of its events, and its features' size and checksum."""
        files = [(v.name, str(f), _mark(v, f), None) for v, f in zip(self.videos, self.files, strict=True)]
        return list(manifest_lines(files, len(files)))


def _mark(video: Video, file: Path) -> str:
    """Compute a mark of a video's events and of what says when its steps were."""
    beside = file.with_suffix(".json")
    said = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    lines = [f"{e.label}\t{e.start!r}\t{e.end!r}" for e in video.events]
    return digest([*lines, f"{video.duration!r} {video.rate!r} {video.ambiguous!r}", said])[:12]
