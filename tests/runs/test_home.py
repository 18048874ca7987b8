"""A `~` that begins a path is the home folder, for every verb, on the command line and as a function."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from short_run import PLAIN, SHORT

import trunkline
from trunkline.ground.storage import absolute, at_home
from trunkline.pipelines.command.cli import main

NARROW = ["network.backbone=narrow", *PLAIN]
RECIPE = """
from trunkline.pipelines.recipes.transfer import transfer

def mine(data: str = "", smoke: bool = False):
    return transfer(data=data, smoke=smoke)
"""


@pytest.fixture
def home(tmp_path, monkeypatch, scenes, short_run) -> Path:
    """A home with data, a run, a recipe's file, and results of detectors and segmenters; the work is done elsewhere."""
    folder = tmp_path / "home"
    shutil.copytree(scenes, folder / "data")
    shutil.copytree(short_run, folder / "run")
    (folder / "mine.py").write_text(RECIPE)
    for name in ("truth", "found"):
        (folder / name).mkdir()
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(folder / name / "1.png")
    (folder / "classes.txt").write_text("back\nfront\n")
    images, categories = [{"id": 1, "width": 9, "height": 9, "file_name": "a"}], [{"id": 1, "name": "a"}]
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}]
    truth = {"images": images, "categories": categories, "annotations": objects}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 1}])
    )
    (folder / "images.txt").write_text("1\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(folder))
    return folder


COMMANDS = {
    "train": (["train", "transfer", "data=~/data", "--run", "~/new/run", *SHORT], "new/run/weights.safetensors"),
    "train-from": (["train", "transfer", "data=~/data", "--run", "~/new", "weights=~/run", *SHORT[2:]], "new/report.html"),
    "train-file": (["train", "~/mine.py", "data=~/data", "smoke=true", "--run", "~/new", *NARROW], "new/report.html"),
    "evaluate": (["evaluate", "~/run", "data=~/data", "out=~/new.jsonl", "results=~/new"], "new/results.csv"),
    "evaluate-file": (["evaluate", "~/run/weights.safetensors", "data=~/data", "out=~/new.jsonl"], "new.jsonl"),
    "predict": (["predict", "~/run", "~/data/val", "~/data/train/*/*.jpg", "out=~/new"], "new/predictions.jsonl"),
    "check": (["check", "~/data"], ""),
    "check-run": (["check", "~/run"], ""),
    "score": (["score", "coco", "~/truth.json", "~/found.json", "images=~/images.txt", "plot=~/new.png"], "new.png"),
    "score-masks": (["score", "masks", "~/truth", "~/found", "classes=~/classes.txt"], ""),
    "show": (["show", "~/mine.py", "data=~/data"], ""),
    "memory": (["show", "transfer", "--memory", "data=~/data", *SHORT], ""),
    "profile": (["profile", "transfer", "data=~/data", *SHORT, "profile_updates=1", "out=~/new.json"], "new.json"),
    "bench": (["bench", "loader", "data=~/data", "size=32", "batch=4", "rounds=1", "images=8", "loaders=1"], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(home, capsys, name, one_core):
    words, made = COMMANDS[name]
    assert main(words) == 0, capsys.readouterr().err
    assert (home / made).exists()
    assert [*Path().iterdir()] == [], "nothing is written into a folder called ~"


def test_demo(home, monkeypatch):
    from trunkline.pipelines.recipe import demo_data
    from trunkline.pipelines.tools import demo
    from trunkline.pipelines.training import train

    monkeypatch.setattr(demo_data, "write", lambda name, folder: folder.mkdir(parents=True) or folder)
    monkeypatch.setattr(train, "train", lambda resolved, run: run)
    monkeypatch.setattr(demo, "_beside_bicubic", lambda upscaler, large, root: None)
    monkeypatch.setattr(demo, "_see", lambda run, clips, root: None)
    places = {"classification": "run", "super_resolution": "upscaler", "action": "actions"}
    assert trunkline.demo("~/demo", smoke=True) == {task: home / "demo" / name for task, name in places.items()}
    assert all((home / "demo" / name).is_dir() for name in ("data", "pictures", "clips"))


def test_functions(home, one_core):
    assert trunkline.Run("~/run").path == home / "run"
    assert trunkline.model("~/run").preprocessing and trunkline.model(Path("~/run/weights.safetensors")).preprocessing
    found = trunkline.predict(Path("~/run"), [Path("~/data/val")], out=Path("~/new"))
    assert len(found) == 20 and (home / "new/sheet.png").is_file() and not found[0].error
    assert trunkline.evaluate("~/run", data="~/data", out=Path("~/new.jsonl")).samples == 20
    assert trunkline.check(Path("~/data"), progress=False).ok
    assert trunkline.score("coco", "~/truth.json", Path("~/found.json")).metrics["AP"] == pytest.approx(1)
    run = trunkline.train(
        "transfer", "~/trained", data="~/data", smoke=True, backbone="narrow", **{"log.tensorboard": False}
    )
    assert run.path == home / "trained" and run.scores["data"] == str(home / "data")


def test_what_is_no_home_stays(home, capsys):
    assert at_home("s3://bucket/~/x") == "s3://bucket/~/x" and at_home("a/~/b") == "a/~/b" and at_home("~") == str(home)
    assert at_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert absolute("./~/x") == str(Path.cwd() / "~/x")
    assert main(["check", "~nobody-of-this-name/x"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
