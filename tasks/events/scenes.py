"""Generated long videos, as features over time: events of three classes amid noise, none of which a single step tells."""

import json
from pathlib import Path

import numpy as np

CLASSES = ("rise", "fall", "hold")
CHANNELS = 16
SECONDS = 0.25  # of a step
_LONG = (6, 20)  # steps of an event


def write_videos(folder: Path, train: int, val: int, size: int, seed: int = 0) -> Path:
    """Write annotations in ActivityNet's form and features of so many videos of `size` steps.

    Some channels go up, go down or stay high during an event of the three classes; all have noise, and half of the videos
    begin with a stretch that looks like an event and belongs to none.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    (folder / "features").mkdir(parents=True, exist_ok=True)
    patterns, other = draw.normal(size=(len(CLASSES), CHANNELS)), draw.normal(size=CHANNELS)
    database = {}
    for number in range(train + val):
        name, rows, annotations = f"video_{number:04d}", draw.normal(0, 0.6, (size, CHANNELS)), []
        at = int(draw.integers(2, 8))
        if draw.random() < 0.5:
            rows[at : at + 6] += 2 * other
            at += 6 + int(draw.integers(2, 8))
        while at + _LONG[0] < size - 2:
            length = int(draw.integers(_LONG[0], min(_LONG[1], size - 2 - at) + 1))
            label = int(draw.integers(len(CLASSES)))
            shape = {"rise": np.linspace(0.3, 1, length), "fall": np.linspace(1, 0.3, length), "hold": np.ones(length)}
            rows[at : at + length] += 2 * shape[CLASSES[label]][:, None] * patterns[label]
            annotations.append({"label": CLASSES[label], "segment": [at * SECONDS, (at + length) * SECONDS]})
            at += length + int(draw.integers(3, 12))
        np.save(folder / "features" / f"{name}.npy", rows.astype(np.float32))
        subset = "training" if number < train else "validation"
        database[name] = {"subset": subset, "duration": size * SECONDS, "annotations": annotations}
    (folder / "events.json").write_text(json.dumps({"version": "generated", "database": database}), encoding="utf-8")
    return folder
