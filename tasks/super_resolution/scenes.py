"""Generated pictures with edges and textures, as folders of large pictures."""

from pathlib import Path

from PIL import Image

from ..scenes import VERSION, is_written, render, scene, written


def write_pictures(folder: Path | str, *, train: int = 200, val: int = 20, size: int = 192, seed: int = 0) -> Path:
    """Write `train/` and `val/`: PNGs of `size` pixels square, rendered at twice that size and made smaller.

    The same arguments give the same files; a folder that is complete is used as it is. Returns the folder.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if is_written(folder, asked):
        return folder
    for split, count in (("train", train), ("val", val)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            things = scene(index, seed=seed, split=f"pictures {split}", classes=10, objects=2 + index * 7 % 6)
            picture = render(things, 2 * size).resize((size, size), Image.Resampling.LANCZOS)
            picture.save(folder / f"{split}/{index:05d}.png")
    return written(folder, asked)
