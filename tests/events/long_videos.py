"""Long videos put together from short clips: seven actions in random order, and between them the same person's walk, no event."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from trunkline.backbones import backbone
from trunkline.tasks.video.decoding.video import open_video

EVERY = 4  # frames from one step to the next
RATE = 25.0  # frames a second
SECONDS = EVERY / RATE
NO_EVENT = "walk"
SIDE = 160  # pixels of the shorter side
GAP = (12, 32)  # frames of walking between two actions
TRIM = 0.2  # of a clip, at most, at either end


def rows_of(clips: Path) -> list[dict[str, str]]:
    """Read both tables of the clips."""
    rows = []
    for name in ("train.csv", "val.csv"):
        with (clips / name).open() as file:
            rows += list(csv.DictReader(file))
    return rows


@torch.inference_mode()
def features_of(clips: Path, weights: Path) -> dict[str, np.ndarray]:
    """Compute of each clip, by its path, the trunk's mean over space of every 4th frame: `(n, 2048)` fp32."""
    trunk = backbone(weights=weights).eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (trunk.preprocessing.mean, trunk.preprocessing.std))
    found = {}
    for row in rows_of(clips):
        with open_video(clips / row["path"]) as video:
            frames = torch.from_numpy(video.read(range(EVERY // 2, video.count, EVERY))).permute(0, 3, 1, 2)
        height, width = frames.shape[-2:]
        size = (SIDE, round(SIDE * width / height))
        frames = torch.nn.functional.interpolate(frames.float(), size, mode="bilinear", antialias=True)
        found[row["path"]] = trunk((frames / 255 - mean) / std)["c5"].mean((2, 3)).numpy()
    return found


def write(folder: Path, clips: Path, features: dict[str, np.ndarray], each: int, seed: int = 0) -> Path:
    """Write `each` long videos of every person: features, the seconds of their steps, and a table of events with persons."""
    draw = np.random.Generator(np.random.PCG64(seed))
    (folder / "features").mkdir(parents=True)
    by_person: dict[str, dict[str, np.ndarray]] = {}
    for row in rows_of(clips):
        by_person.setdefault(row["person"], {})[row["label"]] = features[row["path"]]
    lines = []
    for person, own in sorted(by_person.items()):
        actions = sorted(own.keys() - {NO_EVENT})
        for number in range(each):
            parts, events, at = [_walk(own[NO_EVENT], draw)], [], 0
            at = len(parts[0])
            for name in draw.permutation(actions).tolist():
                steps = own[name]
                first, last = (int(draw.integers(0, max(1, int(TRIM * len(steps)) + 1))) for _ in range(2))
                steps = steps[first : len(steps) - last]
                events.append((at * SECONDS, (at + len(steps)) * SECONDS, name))
                parts += [steps, _walk(own[NO_EVENT], draw)]
                at += len(steps) + len(parts[-1])
            video, rows = f"{person}_{number}", np.concatenate(parts).astype(np.float32)
            np.save(folder / "features" / f"{video}.npy", rows)
            times = ((np.arange(len(rows)) + 0.5) * SECONDS).tolist()
            (folder / "features" / f"{video}.json").write_text(json.dumps({"file": f"{video}.avi", "times": times}))
            lines += [f"{video},{start:.4f},{end:.4f},{name},{person}" for start, end, name in events]
    (folder / "events.csv").write_text("\n".join(["video,start,end,label,person", *lines]) + "\n")
    return folder


def _walk(steps: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Cut some frames of walking, as many as GAP says."""
    length = int(draw.integers(GAP[0] // EVERY, GAP[1] // EVERY + 1))
    first = int(draw.integers(0, len(steps) - length + 1))
    return steps[first : first + length]
