"""Small generated data for the plug-ins: smooth colours, with noise, over time."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(draw: np.random.Generator, high: int, wide: int) -> np.ndarray:
    """A ramp from one colour to another, `(high, wide, 3)` in 0..255."""
    ramp = np.linspace(draw.uniform(0, 255, 3), draw.uniform(0, 255, 3), wide)
    return np.broadcast_to(ramp, (high, wide, 3))


def save(pixels: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def write_pairs(root: Path, train: int = 8, val: int = 4, side: int = 40) -> Path:
    """`root/train/noisy/0.png`, `root/train/clean/0.png` …; noise of 20 grey levels; those of val are wider."""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            clean = picture(draw, side, side + 8 * (split == "val"))
            save(clean, root / split / "clean" / f"{i}.png")
            save(clean + draw.normal(0, 20, clean.shape), root / split / "noisy" / f"{i}.png")
    return root


def write_pictures(root: Path, train: int = 8, val: int = 4, side: int = 32) -> Path:
    """`root/train/0.png` …"""
    draw = np.random.default_rng(1)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            save(picture(draw, side, side), root / split / f"{i}.png")
    return root


def write_clips(root: Path, train: int = 4, val: int = 2, side: int = 32, frames: int = 3) -> Path:
    """`root/train/brighter/0/0.png` …: clips that grow brighter, or darker."""
    draw = np.random.default_rng(2)
    for split, count in (("train", train), ("val", val)):
        for name, step in (("brighter", 40), ("darker", -40)):
            for i in range(count):
                first = draw.uniform(60, 190, 3)
                for t in range(frames):
                    save(
                        np.broadcast_to(first + step * (t - 1), (side, side, 3)),
                        root / split / name / str(i) / f"{t}.png",
                    )
    return root
