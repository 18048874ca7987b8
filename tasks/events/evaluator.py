"""Average precision of events by ActivityNet's or THUMOS' protocol; small records, in the data's order."""

from typing import Any

import numpy as np

from ...heads.contract import Batch, Prediction
from ..contract import Record, Scores
from ..data.groups import group_numbers
from ..intervals import over_groups
from ..scores import Block, Examples, Metric, Picture, Table, mean_over
from .annotations import Event
from .average_precision import Protocol, Segments
from .formats import activitynet, thumos
from .predicted import VideoEvents
from .samples import EventSamples
from .scoring import MAP, at, metrics_of, overlaps_of, said, score, truth_of

EXAMPLES = 8  # videos that a report shows


class EventEvaluator:
    """`mAP`: the mean over classes and overlaps; `mAP@0.5` and so on: over classes, at one overlap.

    A record is one video's events, best first: `segments` in seconds, `labels` by name, `scores`.
    """

    def __init__(self, samples: EventSamples) -> None:
        self.samples, o = samples, samples.options
        self.protocol: Protocol = o.protocol
        self.overlaps = overlaps_of(o.protocol, o.overlaps)
        self._rows: list[list[tuple[int, int, float, float, float]]] = []
        self._number = {name: n for n, name in enumerate(samples.classes)}

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics: the mean, and at each overlap."""
        return metrics_of(self.overlaps)

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Build one record a video."""
        found: list[Record] = []
        for p in predictions:
            assert isinstance(p, VideoEvents)
            labels = [self.samples.classes[n] for n in p.labels.tolist()]
            found.append(
                {
                    "id": p.id,
                    "segments": p.segments.tolist(),
                    "labels": labels,
                    "scores": p.scores.astype(float).tolist(),
                }
            )
        return found

    def add(self, records: list[Record]) -> None:
        """Add the records of the next videos, in the data's order."""
        for one in records:
            video, rows = len(self._rows), zip(one["segments"], one["labels"], one["scores"], strict=True)
            self._rows.append([(video, self._number[label], s, e, score) for (s, e), label, score in rows])

    def result(self) -> Scores:
        """Compute the metrics, their intervals over videos (or groups), and `details`: AP of the classes, counts, examples."""
        videos, classes = len(self._rows), self.samples.classes
        found = Segments.gathered([row for rows in self._rows for row in rows])
        truth, ambiguous = truth_of(self.samples.videos[:videos], classes)
        groups, over = over_groups(group_numbers(self.samples, self.samples.options.group), "videos")
        scored = score(truth, found, ambiguous, videos, classes, self.overlaps, self.protocol, groups)
        details = {
            "class_ap": scored.class_ap,
            "class_events": scored.class_events,
            "protocol": self.protocol,
            "overlaps": list(self.overlaps),
            "counts": {"videos": videos, "events": len(truth), "found": len(found)},
            "examples": [self.samples.id(i) for i in self._examples(videos)],
        }
        headline = (MAP, at(0.5)) if at(0.5) in scored.metrics else (MAP,)
        notes = (
            said(self.protocol, self.overlaps),
            *mean_over(MAP, scored.class_ap, "no event in the truth"),
            *over,
        )
        return Scores(scored.metrics, scored.intervals, details, samples=videos, headline=headline, notes=notes)

    def _examples(self, videos: int) -> list[int]:
        """Choose videos that are shown: spread over the split, those with events first."""
        having = [i for i in range(videos) if self.samples.videos[i].events] or list(range(videos))
        at = np.linspace(0, len(having) - 1, min(EXAMPLES, len(having))).round().astype(int)
        return [having[i] for i in dict.fromkeys(at.tolist())]

    def blocks(self, scores: Scores) -> list[Block]:
        """Build the blocks of a report: AP of the classes, and time lines of found, missed and false events."""
        details: dict[str, Any] = scores.details
        rows = tuple((name, details["class_events"][name], value) for name, value in details["class_ap"].items())
        table = Table(
            "Classes", ("class", "events", "AP"), rows, "AP is the mean over the overlaps.", ("", "", "percent")
        )
        note = (
            "Above what was found: green edges found a true event (overlap 0.5 at least), red ones none. Below what is true: "
            "grey edges were missed."
        )
        return [table, Examples("Time lines", tuple(map(Picture, details["examples"])), note, "wide")]

    def results(self, records: list[Record]) -> dict[str, str]:
        """Return the text of ActivityNet's `results.json`; for THUMOS' classes also of the kit's `results.txt`."""
        events = {
            one["id"]: [
                Event(s, e, label, score)
                for (s, e), label, score in zip(one["segments"], one["labels"], one["scores"], strict=True)
            ]
            for one in records
        }
        files = {"results.json": activitynet.results_text(events)}
        if {*self.samples.classes} <= {*thumos.CLASSES.values()}:
            files["results.txt"] = thumos.results_text(events)
        return files
