"""What is said of one video: its likeliest classes, as a whole and over time."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ...heads.video.segments import grouped
from ..classification.predicted import PredictedClass

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction

_WIDTH = 640


@dataclass
class PredictedAction(PredictedClass):
    """The likeliest classes of a video; `windows` are those of its parts: (start, end, classes), in seconds.

    `events` are runs of windows that are sure of one class, best first, where they are asked for.
    """

    has_features: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("label", "confidence", "seconds", "windows")

    windows: list[tuple[float, float, list[tuple[str, float]]]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """List the likeliest classes of the video and of each window; the task's `top` says how many."""
        found = super().of(file, prediction, task)
        seen: Any = prediction
        for window in seen.windows:
            order = (-window.probabilities).argsort(kind="stable")[: task.options.top]
            best = [(task.classes[i], float(window.probabilities[i])) for i in order]
            found.windows.append((round(window.start, 3), round(window.end, 3), best))
        found.remarks = seen.remarks
        if task.options.events:
            found.events = _events(seen.windows, task.options.events, task.classes)
        return found

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Rebuild a prediction from a line of JSON."""
        windows = [(w["start"], w["end"], [(n, p) for n, p in w["top"]]) for w in line.get("windows", ())]
        return super().from_line({**line, "windows": windows})

    def found(self) -> dict[str, Any]:
        """Return label, confidence and likeliest classes, those of each window with its ends in seconds, and the events."""
        each = [{"start": s, "end": e, "top": [list(pair) for pair in top]} for s, e, top in self.windows]
        return {**super().found(), "windows": each} | ({"events": self.events} if self.events else {})

    def row(self) -> list[str]:
        """Return label, confidence, the video's length in seconds, and the number of windows as text."""
        seconds = f"{self.windows[-1][1]:.3f}" if self.windows else ""
        return [*super().row(), seconds, str(len(self.windows))]

    def cells(self) -> list[str]:
        """Return label, confidence, and the next two classes with theirs, as text."""
        return PredictedClass.cells(self)

    def small(self) -> Any:
        """Draw the frame in the middle."""
        from PIL import Image

        from .decoding.video import open_video

        with open_video(self.file) as video:
            return Image.fromarray(video.read([video.count // 2])[0])

    def image(self) -> "Image":
        """Draw a strip of frames, the likeliest class, and the classes over time."""
        from PIL import Image

        from .draw import strip, timeline, with_lines

        above = with_lines(strip(self.file, _WIDTH), [(self.caption(), (28, 30, 34))])
        if len(self.windows) < 2:
            return above
        below = timeline(self.windows, above.width)
        page = Image.new("RGB", (above.width, above.height + below.height), (255, 255, 255))
        page.paste(above, (0, 0))
        page.paste(below, (0, above.height))
        return page

    def write_clip(self, out: Path) -> None:
        """Write the video again with the likeliest classes of each moment below it, as an MP4; without PyAV, nothing."""
        if find_spec("av") is None:  # of folders of frames, which need none
            return
        from .draw import annotated

        annotated(self.file, self.windows, out)


def _events(windows: list[Any], threshold: float, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Group windows of which a class's probability is above the threshold: label, start and end in seconds, and mean score."""
    curve = np.stack([window.probabilities for window in windows])
    segments, labels, scores = grouped(curve, (threshold,), 1.0, len(windows) * len(classes))
    ends = [*(window.start for window in windows), windows[-1].end]
    return [
        {
            "label": classes[n],
            "start": round(ends[int(s)], 3),
            "end": round(ends[int(e)], 3),
            "score": round(float(p), 6),
        }
        for (s, e), n, p in zip(segments.tolist(), labels.tolist(), scores, strict=True)
    ]
