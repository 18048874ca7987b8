"""PSNR and SSIM over a split, on studio-range Y and on RGB; small records, in the data's order."""

from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ...heads.contract import Batch, Prediction
from ..contract import Record, Scores
from ..data.groups import group_numbers
from ..intervals import over_groups
from ..scores import Block, Examples, Metric, Picture, Table
from .measures.of_piq import NAMES as MORE
from .measures.protocol import METRICS, compare, psnr_y, summary
from .options import Options
from .resize import resized_integers, to_integers
from .samples import PicturePairs
from .seeing import Enlarged

EXAMPLES = 6  # pictures that a report shows


def metrics_of(options: Options) -> dict[str, Metric]:
    """List the metrics that the options ask for, with what people are told of each."""
    return {**METRICS, **{name: MORE[name] for name in options.more}}


class PictureEvaluator:
    """Scores each picture, without `edge` pixels at its sides; a metric is the mean over pictures.

    `bicubic` keeps what bicubic scores on each picture, by its id, so that it is computed once for several evaluations.
    """

    def __init__(self, samples: PicturePairs, bicubic: dict[str, float] | None = None) -> None:
        self.samples, self.options = samples, samples.options
        self._bicubic = {} if bicubic is None else bicubic
        self._records: list[Record] = []

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name."""
        return metrics_of(self.options)

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Measure each prediction against the large picture. Raises DataError where `compare` cannot."""
        o, records = self.options, []
        edge = o.scale if o.edge is None else o.edge
        for row, (prediction, large) in enumerate(zip(predictions, batch.targets["hr"], strict=True)):
            assert isinstance(prediction, Enlarged)
            truth = large.cpu().permute(1, 2, 0).numpy()
            if truth.shape[:2] != prediction.picture.shape[:2]:
                sizes = [f"{p.shape[1]} x {p.shape[0]}" for p in (prediction.picture, truth)]
                raise DataError(f"{prediction.id}: is {sizes[0]} pixels; the truth is {sizes[1]}")
            try:
                if prediction.id not in self._bicubic:
                    larger = resized_integers(_small(batch, row), *truth.shape[:2])
                    self._bicubic[prediction.id] = psnr_y(truth, larger, edge, o.grey, key="edge")
                scores = compare(truth, prediction.picture, edge, o.grey, o.more, key="edge")
            except DataError as error:
                raise DataError(f"{self.samples.root / prediction.id}: {error}") from None
            record: Record = {"id": prediction.id, **scores, "bicubic": self._bicubic[prediction.id]}
            records.append(record | ({"remark": prediction.remark} if prediction.remark else {}))
        return records

    def add(self, records: list[Record]) -> None:
        """Add the records of the next pictures."""
        self._records += records

    def result(self) -> Scores:
        """Compute the means, their intervals over pictures, and `details`: each picture's, the worst ones first."""
        names = list(self.metrics)
        groups, over = over_groups(group_numbers(self.samples, self.options.group), "pictures")
        found = summary(({name: one[name] for name in names} for one in self._records), groups)
        worst = sorted(self._records, key=lambda one: one["psnr_y"])
        details: dict[str, Any] = {"pictures": worst, "examples": [one["id"] for one in worst[:EXAMPLES]]}
        remarks = dict.fromkeys(one["remark"] for one in self._records if "remark" in one)
        bicubic = summary({"psnr_y": one["bicubic"]} for one in self._records).metrics["psnr_y"]
        said = (
            [] if bicubic is None else [f"bicubic has psnr_y {bicubic:.2f} dB on these {len(self._records)} pictures"]
        )
        notes = (*remarks, *found.notes, *said, *over)
        return Scores(found.metrics, found.intervals, details, len(self._records), ("psnr_y", "ssim_y"), notes)

    def blocks(self, scores: Scores) -> list[Block]:
        """Build a table of the worst pictures, and them beside bicubic and the truth."""
        names = list(self.metrics)
        rows = tuple((one["id"], *(one[name] for name in names)) for one in scores.details["pictures"][:20])
        note = "The pictures with the lowest PSNR, each where it is farthest from its truth: bicubic, the network, the truth."
        return [
            Table("Worst pictures", ("picture", *names), rows),
            Examples("Examples", tuple(map(Picture, scores.details["examples"])), note, "pair"),
        ]

    def results(self, records: list[Record]) -> dict[str, str | bytes]:
        """Return {}: `predict` writes the pictures."""
        return {}


def _small(batch: Batch, row: int) -> np.ndarray:
    """Take a small picture of a batch as the integers of its file: `(h, w, C)`, C and the bits those of the large one."""
    assert batch.images is not None and batch.sizes is not None
    height, width = batch.sizes[row].tolist()
    channels, bits = batch.targets["kind"][row].tolist()
    pixels = batch.images[row, :channels, :height, :width].cpu().permute(1, 2, 0).numpy()
    return to_integers(pixels.astype(np.float64) * 257, 16) if bits == 16 else to_integers(pixels, 8)
