"""Pictures with the classes that a model sees in them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...heads.multilabel import MultiLabelPrediction
from ..classification.draw import BLUE, GREEN, RED, page_of
from ..contract import Sample

_FEWEST, _MOST = 3, 6  # bars


def draw(
    sample: Sample, prediction: MultiLabelPrediction, classes: Sequence[str], threshold: float, width: int = 320
) -> Image.Image:
    """Draw the picture with its likeliest classes as bars: those of at least `threshold`, of which six, and at least three.

    Where the sample has `labels`, a class of at least the threshold is green if it is there, red if it is not, and a line says
    which classes the model lacks.
    """
    labels = sample.targets.get("labels")
    p = prediction.probabilities
    order = np.argsort(-p, kind="stable")
    count = int(np.clip((p >= threshold).sum(), _FEWEST, _MOST))
    bars = []
    for n in order[:count].tolist():
        known = labels is not None and int(labels[n]) >= 0 and p[n] >= threshold
        colour = (GREEN if int(labels[n]) else RED) if known and labels is not None else BLUE
        bars.append((classes[n], float(p[n]), colour))
    lacking = (
        [] if labels is None else [classes[int(n)] for n in order.tolist() if int(labels[n]) == 1 and p[n] < threshold]
    )
    return page_of(sample.image, bars, [f"not seen: {', '.join(lacking)}"] if lacking else [], width)
