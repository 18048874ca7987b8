"""Acceptance of detection on real pictures and weights, through the command line, as a user would."""

import json
from pathlib import Path

import pytest
from real_run import run


def trained(shared_data: Path, folder: Path, *settings: str) -> dict:
    weights = shared_data / "weights/resnet50_v1.safetensors"
    done, seconds = run("train", "detect", f"weights={weights}", *settings, "--run", folder, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    print(f"{' '.join(settings)}: {json.dumps({k: v for k, v in scores.items() if 'AP' in k})} in {seconds:.0f} s")
    return scores | {"said": done.stderr}


def cells(shared_data: Path) -> list[str]:
    short = ["size=320", "batch=4", "epochs=6"]
    return [f"data={shared_data / 'bccd'}", "format=voc", "val=ImageSets/Main/test.txt", *short]


def test_boxes_without_area_stop_the_run_by_name(shared_data, tmp_path):
    done, _ = run("train", "detect", "weights=none", *cells(shared_data), "--run", tmp_path / "run")
    assert done.returncode == 2
    assert "BloodImage_00343.jpg: RBC" in done.stderr and "on_bad_box=skip" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_blood_cells_are_found_by_both_heads(shared_data, tmp_path):
    """A plain loop around torchvision's classes reaches an AP50 of 0.885."""
    given = [*cells(shared_data), "on_bad_box=skip"]
    rcnn = trained(shared_data, tmp_path / "rcnn", *given)
    assert "without area or outside the picture" in rcnn["said"]
    assert rcnn["AP50"] >= 0.85
    one = trained(shared_data, tmp_path / "one", *given, "head=one_stage")
    assert one["AP50"] >= rcnn["AP50"] - 0.05


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart_with_their_masks(shared_data, tmp_path):
    file = "annotations/instances_train2017.json"
    words = [f"data={shared_data / 'coco-tiny'}", f"train={file}", f"val={file}", "limit=8", "head=mask_rcnn"]
    words += ["size=320", "batch=4", "updates=120", "optimizer.name=adamw", "lr=0.0003", "optimizer.weight_decay=0.05"]
    scores = trained(shared_data, tmp_path / "run", *words)
    assert scores["mask_AP50"] >= 0.5
