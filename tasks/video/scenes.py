"""Generated clips whose class is the order of their frames: a shape falls, or the same clip backwards: it rises."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from trunkline.ground.keys import key

from ..scenes import VERSION, Scene, is_written, render, scene, written

CLASSES = ("falls", "rises")
FRAMES = 8


def write_clips(folder: Path | str, *, train: int = 400, val: int = 100, size: int = 64, seed: int = 0) -> Path:
    """Write `train/CLASS/00042/` and `val/…`: folders of FRAMES frames, PNGs of `size` pixels square, and return the folder.

    `train` and `val` count clips, in pairs: one and its reversal, in the same split. So no single frame, and no set of frames,
    tells the class. Shapes begin anywhere; they move straight down at a steady pace. The same arguments give the same files; a
    folder that is complete is used as it is.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if is_written(folder, asked):
        return folder
    for split, count in (("train", train), ("val", val)):
        for index in range(count // 2):
            pictures = frames(index, split, size, seed)
            for name, order in zip(CLASSES, (pictures, pictures[::-1]), strict=True):
                place = folder / split / name / f"{index:05d}"
                place.mkdir(parents=True, exist_ok=True)
                for number, picture in enumerate(order):
                    picture.save(place / f"{number:02d}.png")
    return written(folder, asked)


def frames(index: int, split: str = "train", size: int = 64, seed: int = 0) -> list[Image.Image]:
    """Draw the frames of a clip in which a shape falls, the first at the top of its way; a pure function of the arguments."""
    return [render(one, size) for one in moments(index, split, seed)]


def moments(index: int, split: str, seed: int) -> list[Scene]:
    """Describe the scenes of a clip: one shape moves before a cluttered ground."""
    rng = np.random.default_rng(key(seed, "clips", split, index))
    start = scene(index, seed=seed, split=f"clips {split}", objects=3)  # of three, so that each is small
    thing = start.objects[-1]
    way = rng.uniform(0.4, 0.7)
    top = rng.uniform(0.1, 0.9 - way)
    found = []
    for share in np.linspace(0, 1, FRAMES):
        moved = replace(thing, centre=(thing.centre[0], float(top + share * way)))
        found.append(replace(start, objects=(moved,)))
    return found
