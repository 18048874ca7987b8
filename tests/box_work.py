"""What tests of detection share: generated pictures with boxes, a copy to spoil, a cache of their own."""

import json
import shutil
from pathlib import Path

import pytest

from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.scenes import write_box_scenes

SHORT = ["weights=none", "backbone=narrow", "size=64", "batch=2", "updates=2", "machine.threads=1", "machine.loaders=0",
         "machine.precision=fp32", "log.tensorboard=false", "tasks.detection.detections=5"]  # fmt: skip


SLIM = ["network.pyramid=none", "network.wrapper=slim_pool"]  # beside SHORT: what costs most is a pyramid's channels
SLIM_CONV = ["head=one_stage", "network.pyramid=none", "network.wrapper=slim_conv"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_box_scenes(tmp_path_factory.mktemp("boxes") / "data", train=12, val=4, size=64)


@pytest.fixture
def boxes(written, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "data"))


def options(folder: Path, **changed) -> Options:
    return Options(data=str(folder), size=64, longest=128, **changed)


def change(folder: Path, edit, split: str = "train") -> None:
    file = folder / f"annotations/instances_{split}.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))
