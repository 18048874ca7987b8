"""Generated scenes with a class for every pixel, as folders of pictures and masks."""

from pathlib import Path

import numpy as np

from ...heads.contract import VOID
from ..images.outlines import CLASSES
from ..scenes import VERSION, is_written, masks, render, scene, written
from .formats.encoding import voc_colour
from .formats.palette_png import palette_png


def write_pixel_scenes(
    folder: Path | str, *, classes: int = 6, train: int = 400, val: int = 100, size: int = 128, seed: int = 0
) -> Path:
    """Write `images/{train,val}/`, `masks/{train,val}/` and `classes.txt`: the background and `classes` shapes.

    Pictures are `size` pixels square, with one to four objects; the masks are palette PNGs, with void (255) where two
    objects touch. The same arguments give the same files; a folder that is complete is used as it is. Returns the
    folder.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "classes": classes, "train": train, "val": val, "size": size, "seed": seed}
    if is_written(folder, asked):
        return folder
    names = CLASSES[:classes]
    palette = [voc_colour(n) for n in range(classes + 1)]
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            things = scene(index, seed=seed, split=f"pixels {split}", classes=classes, objects=1 + index * 7 % 4)
            render(things, size).save(folder / f"images/{split}/{index:05d}.jpg", quality=92, subsampling=0)
            labels = np.zeros((size, size), np.uint8)
            for thing, mask in zip(things.objects, masks(things, size), strict=True):
                labels[mask] = 1 + names.index(thing.name)
            (folder / f"masks/{split}/{index:05d}.png").write_bytes(palette_png(_with_void(labels), palette))
    (folder / "classes.txt").write_text("\n".join(["background", *names, f"{VOID} void"]) + "\n", encoding="utf-8")
    return written(folder, asked)


def _with_void(labels: np.ndarray) -> np.ndarray:
    """Mark as void the pixels where two objects touch, as annotators do."""
    result = labels.copy()
    for axis in (0, 1):
        before, after = np.delete(labels, -1, axis), np.delete(labels, 0, axis)
        touching = (before != after) & (before > 0) & (after > 0)
        for start in (0, 1):
            view = (
                result[start : start + touching.shape[0]] if axis == 0 else result[:, start : start + touching.shape[1]]
            )
            view[touching] = VOID
    return result
