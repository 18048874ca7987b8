"""Data and evaluations for the tests of a pool of workers."""

import json
import shutil
from pathlib import Path

from trunkline.pipelines.command.cli import main


def many(scenes: Path, folder: Path, count: int) -> Path:
    """As many validation pictures of the scenes as asked for, in class folders; links, where there are not enough."""
    photos = sorted((scenes / "val").rglob("*.jpg"))
    for number in range(count):
        photo = photos[number * 7 % len(photos)]
        to = folder / photo.parent.name / f"{number:05d}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.hardlink_to(photo)
    return folder


def split_of(scenes: Path, folder: Path, count: int) -> Path:
    many(scenes, folder / "val", count)
    shutil.copytree(scenes / "train", folder / "train")
    return folder


def evaluated(run: Path, data: Path, out: Path, capsys, *more: str) -> tuple[dict, bytes]:
    assert main(["evaluate", str(run), f"data={data}", "batch=4", "loaders=0", f"out={out}", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out), out.read_bytes()
