"""Acceptance of action recognition: people that were never seen, and clips whose order of frames is all they say. Two cores."""

import json
import statistics
from pathlib import Path

import pytest
from real_run import run

from trunkline.backbones.video.frames import Frames
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.folds import run_recipe

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
CLIPS, FRAMES = 64, 16
ASKED = 57
"""Right of 64, leaving one person out: a plain loop has 58, 59, 58 with an average of frames, 55 with an LSTM."""
SHAPES = {"data": "demo:clips", "weights": "none", "backbone": "resnet18", "size": 64, "frames": 4, "stride": 2, "lr": 1e-3,
          "batch": 8, "epochs": 10, "tasks.action.dropout": 0, "tasks.action.clips": 2}  # fmt: skip
"""Two views of 4 of 8 frames: a clip and its reversal show the same frames, so that only their order tells them apart."""


def settings(data: Path) -> dict[str, object]:
    return {"data": str(data / "clips"), "weights": str(data / "weights/resnet50_v1.safetensors"), "format": "csv",
            "group": "person", "folds": "groups", "mode": "probe"}  # fmt: skip


def done(*words: object) -> tuple[dict, float]:
    found, seconds = run(*words)
    assert found.returncode == 0, found.stdout + found.stderr
    return json.loads((Path(words[-1]) / "scores.json").read_text()), seconds


@pytest.mark.parametrize(
    ("head", "seeds", "asked"), [("average", SEEDS, ASKED), ("lstm", (0,), 54), ("transformer", (0,), 54)]
)
def test_people_that_were_never_seen(head, seeds, asked, shared_data, tmp_path):
    """The average within three minutes, each seed with its features computed anew."""
    found = []
    for seed in seeds:
        words = [f"{key}={value}" for key, value in settings(shared_data).items()]
        scores, seconds = done("train", "action", *words, f"head={head}", f"seed={seed}", "--run", tmp_path / f"{seed}")
        assert scores["samples"] == CLIPS
        found.append(round(CLIPS * scores["video_top1"]))
        print(f"\n{head}, seed {seed}: {found[-1]} of {CLIPS}, {seconds:.0f} s")
        assert seconds < 180 or head != "average"
    assert statistics.mean(found) >= asked, found


def test_each_frame_goes_through_the_trunk_once(shared_data, tmp_path, monkeypatch):
    counted, forward = [], Frames.forward

    def counting(self, clips):
        counted.append(clips.shape[0] * clips.shape[2])
        return forward(self, clips)

    monkeypatch.setattr(Frames, "forward", counting)
    run_recipe(resolve("action", {**settings(shared_data), "epochs": 1, "size": 64}), tmp_path / "run")
    assert sum(counted) == CLIPS * FRAMES


@pytest.mark.parametrize(
    ("name", "knobs", "sees"),
    [
        ("lstm", "head=lstm", True),
        ("transformer", "head=transformer", True),
        ("tsm", "shift=true", True),
        ("average", "head=average", False),
    ],
)
def test_only_who_sees_order_knows_what_falls_from_what_rises(name, knobs, sees, tmp_path):
    words = [f"{key}={value}" for key, value in SHAPES.items()]
    scores, seconds = done("train", "action", *words, knobs, "--run", tmp_path / name)
    print(f"\n{name}: {scores['video_top1']:.2f}, {seconds:.0f} s")
    assert seconds < 300
    assert scores["video_top1"] > 0.9 if sees else abs(scores["video_top1"] - 0.5) <= 0.02
