"""Data and evaluations for the tests of a pool of workers."""

import json
import shutil
from pathlib import Path

import numpy as np

from trunkline.pipelines.command.cli import main
from trunkline.tasks.super_resolution.files import Picture, write_picture


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


def mixed(folder: Path) -> Path:
    """Eight pictures to make larger, of several sizes and kinds and in subfolders, and a file that is none."""
    draw = np.random.default_rng(3)
    kinds = {"deep.png": (14, 21, 3, np.uint16, False), "grey.png": (24, 9, 1, np.uint8, False),
             "a/clear.png": (17, 12, 3, np.uint8, True), "a/photo.jpg": (40, 56, 3, np.uint8, False),
             "a/b/deep.tif": (11, 30, 1, np.uint16, False), "a/b/clear.png": (13, 13, 1, np.uint16, True),
             "c/photo.webp": (31, 18, 3, np.uint8, False), "photo.bmp": (8, 33, 3, np.uint8, False)}  # fmt: skip
    for name, (height, width, channels, kind, alpha) in kinds.items():
        most, shape = int(np.iinfo(kind).max) + 1, (height, width)
        pixels = draw.integers(0, most, (*shape, channels), kind)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(folder / name, Picture(pixels, draw.integers(0, most, shape, kind) if alpha else None))
    (folder / "a/none.png").write_bytes(b"no picture")
    return folder


def evaluated(run: Path, data: Path, out: Path, capsys, *more: str) -> tuple[dict, bytes]:
    assert main(["evaluate", str(run), f"data={data}", "batch=4", "loaders=0", f"out={out}", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out), out.read_bytes()
