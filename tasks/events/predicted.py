"""What is said of one long video: its events, and the scores of the classes over time."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from trunkline.ground.errors import DataError

from ...heads.events.events import EventPrediction
from ..predicted import Predicted
from .annotations import Event
from .features import Clock, said_of
from .formats import activitynet, thumos

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction

LINES, POINTS = 5, 400  # classes and points of the curves that are kept
_TABLE = ("video", "start", "end", "label", "score")

Curve = tuple[str, list[tuple[float, float]]]
"""A class, and its scores at seconds."""


@dataclass
class VideoEvents(EventPrediction):
    """An EventPrediction whose bounds are seconds; `times` `(T,)` are those of its steps."""

    times: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def length(self) -> float:
        """The video's length in seconds, as far as its steps say it."""
        return Clock(self.times).end

    def events(self, classes: tuple[str, ...]) -> list[Event]:
        """List the events, best score first."""
        rows = zip(self.segments.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True)
        return [Event(round(s, 4), round(e, 4), classes[n], round(score, 6)) for (s, e), n, score in rows]

    def lines(self, classes: tuple[str, ...]) -> list[Curve]:
        """Return the curves of the classes with the highest peaks, each the highest of as many steps as make POINTS of all."""
        if not len(self.curve):
            return []
        each = -(-len(self.curve) // POINTS)
        starts = np.arange(0, len(self.curve), each)
        peaks, times = np.maximum.reduceat(self.curve, starts), self.times[starts]
        best = np.argsort(-peaks.max(0), kind="stable")[:LINES]
        seconds = [round(t, 3) for t in times.tolist()]
        return [
            (classes[n], list(zip(seconds, np.round(peaks[:, n].astype(float), 3).tolist(), strict=True)))
            for n in best.tolist()
        ]


@dataclass
class PredictedEvents(Predicted):
    """The events of a video, best first; `curves` are the scores of the likeliest classes over its `seconds`."""

    columns: ClassVar[tuple[str, ...]] = ("seconds", "events", "best", "start", "end", "score")
    headings: ClassVar[tuple[str, ...]] = ("events", "best", "start", "end", "score")
    labels_as: ClassVar[tuple[str, ...]] = ("activitynet", "thumos", "csv")

    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    curves: list[Curve] = field(default_factory=list)

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Take the events and the curves of a prediction."""
        assert isinstance(prediction, VideoEvents)
        classes = task.classes
        return cls(file, None, prediction.events(classes), round(prediction.length, 3), prediction.lines(classes))

    def found(self) -> dict[str, Any]:
        """Convert the events to JSON: label, start and end in seconds, score; and the curves."""
        events = [{"label": e.label, "start": e.start, "end": e.end, "score": e.score} for e in self.events]
        curves = [{"label": name, "points": [list(pair) for pair in points]} for name, points in self.curves]
        return {"seconds": self.seconds, "events": events, "curves": curves}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Rebuild a prediction from a line of JSON."""
        events = [Event(e["start"], e["end"], e["label"], e["score"]) for e in line.get("events", ())]
        curves = [(c["label"], [(t, s) for t, s in c["points"]]) for c in line.get("curves", ())]
        return super().from_line({**line, "events": events, "curves": curves})

    def row(self) -> list[str]:
        """Return the seconds, the number of events, and the best one as text."""
        return [f"{self.seconds:.3f}", *self.cells()]

    def cells(self) -> list[str]:
        """Return the number of events and the best one as text."""
        if not self.events:
            return ["0", "", "", "", ""]
        best = self.events[0]
        return [str(len(self.events)), best.label, f"{best.start:.2f}", f"{best.end:.2f}", f"{best.score:.3f}"]

    def caption(self) -> str:
        """Write the number of events and the best one's class."""
        return (
            f"{len(self.events)} events, {self.events[0].label} {self.events[0].score:.0%}"
            if self.events
            else "no event"
        )

    def image(self) -> "Image":
        """Draw the time line: the scores of the classes, and what was found."""
        from .draw import time_line

        return time_line(self.events, self.curves, self.seconds)

    def small(self) -> Any:
        """Draw the time line."""
        return self.image()

    @classmethod
    def write_labels(cls, form: str, folder: Path, found: Iterable[Self], task: Any) -> list[str]:
        """Write all events as a results file: ActivityNet's JSON, THUMOS' lines, or a table."""
        good = [one for one in found if not one.error]
        names = [said_of(Path(one.file)) for one in good]
        again = {name for name in names if names.count(name) > 1}  # of two folders
        rows = {one.file if name in again else name: one.events for name, one in zip(names, good, strict=True)}
        folder.mkdir(parents=True, exist_ok=True)
        if form == "activitynet":
            (folder / "results.json").write_text(activitynet.results_text(rows), encoding="utf-8")
        elif form == "thumos":
            try:
                text = thumos.results_text(rows)
            except DataError as error:
                return [str(error)]
            (folder / "results.txt").write_text(text, encoding="utf-8")
        else:
            with (folder / "results.csv").open("w", encoding="utf-8", newline="") as out:
                table = csv.writer(out, lineterminator="\n")
                table.writerow(_TABLE)
                table.writerows((name, e.start, e.end, e.label, e.score) for name, own in rows.items() for e in own)
        return []
