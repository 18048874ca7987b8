"""Generated scenes: a small data set that needs no download, drawn from descriptions that know every object's outline.

A scene is data (objects with a class, a pose, a polygon and colours, back to front, and a background); drawing it is a
separate step, at any size, so that boxes, masks, pairs of sizes and clips can come from the same scenes. Classes differ
by their outline alone: colour, texture, position, size, rotation and background are drawn alike for all of them.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trunkline.ground.errors import DataError
from trunkline.ground.keys import key

from .images.outlines import CLASSES, blob, outline, stick

VERSION = 1  # of the drawing; raised with every change that gives other pictures
TEXTURES = ("plain", "stripes", "checks", "dots")
MARKER = "scenes.json"
_SUPERSAMPLING = 4  # coverage is counted on this many sub-pixels a side

Colour = tuple[float, float, float]  # red, green, blue in 0..1


@dataclass(frozen=True)
class SceneObject:
    """One object. Lengths are in units of the picture's side, x to the right and y down, (0, 0) the top left corner.

    `outline` is `(P, 2)` around the origin, at most 1 from it; `radius`, `angle` (radians) and `centre` place it, so
    that moving an object, with its texture, is `dataclasses.replace(thing, centre=...)`.
    """

    name: str
    outline: np.ndarray
    centre: tuple[float, float]
    radius: float
    angle: float
    colour: Colour
    accent: Colour
    texture: str
    pitch: float  # periods of the texture along the radius

    @property
    def polygon(self) -> np.ndarray:
        """`(P, 2)` float64, the outline in the picture; one closed ring (a hole is joined by a seam of no width)."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.outline @ np.array([[cos, sin], [-sin, cos]]) * self.radius + np.array(self.centre)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the part inside the picture."""
        (left, top), (right, bottom) = np.clip(self.polygon, 0, 1).min(0), np.clip(self.polygon, 0, 1).max(0)
        return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True)
class Patch:
    """A piece of background clutter: `polygon` `(P, 2)` in the picture, its colour, and how opaque it is (0..1)."""

    polygon: np.ndarray
    colour: Colour
    opacity: float


@dataclass(frozen=True)
class Background:
    """A gradient of two colours along `angle` (radians), clutter from back to front."""

    colours: tuple[Colour, Colour]
    angle: float
    clutter: tuple[Patch, ...]


@dataclass(frozen=True)
class Scene:
    """`objects` from back to front; `noise` is the standard deviation of the grain (0..1), drawn from `key`."""

    objects: tuple[SceneObject, ...]
    background: Background
    noise: float
    key: int


def scene(index: int, *, seed: int = 0, split: str = "train", classes: int = 10, objects: int = 1) -> Scene:
    """Describe scene `index` of a split, a pure function of its arguments.

    The first object's class is `CLASSES[index % classes]`, so that every run of `classes` scenes is balanced. The
    others are of any of these classes and stand in front of it. The more objects, the smaller each.
    """
    number = key(seed, split, index)
    rng = np.random.default_rng(number)
    dark = bool(rng.integers(2))  # a bright object on a dark ground, or the other way round: brightness tells nothing
    names = [CLASSES[index % classes], *(CLASSES[i] for i in rng.integers(classes, size=objects - 1))]
    things = tuple(_object(name, rng, dark, 1 / math.sqrt(objects)) for name in names)
    return Scene(things, _background(rng, dark), float(rng.uniform(0.005, 0.03)), number)


def _object(name: str, rng: np.random.Generator, dark: bool, scale: float) -> SceneObject:
    radius = float(rng.uniform(0.29, 0.44)) * scale
    lightness, hue = rng.uniform(0.70, 0.90) if dark else rng.uniform(0.32, 0.52), rng.uniform(0, 2 * math.pi)
    accent = lightness + rng.uniform(0.05, 0.10) * (1 if dark else -1)
    x, y = rng.uniform(radius, 1 - radius, 2)
    return SceneObject(
        name=name,
        outline=outline(name, rng),
        centre=(float(x), float(y)),
        radius=radius,
        angle=float(rng.uniform(-0.45, 0.45)),
        colour=oklch(lightness, rng.uniform(0.08, 0.18), hue),
        accent=oklch(accent, rng.uniform(0.05, 0.15), hue + rng.uniform(-0.8, 0.8)),
        texture=TEXTURES[rng.integers(len(TEXTURES))],
        pitch=float(rng.uniform(1.5, 3.0)),
    )


def _background(rng: np.random.Generator, dark: bool) -> Background:
    low, high = (0.22, 0.42) if dark else (0.78, 0.95)
    hue = rng.uniform(0, 2 * math.pi)

    def colour() -> Colour:
        return oklch(rng.uniform(low, high), rng.uniform(0.02, 0.08), hue + rng.uniform(-1.2, 1.2))

    patches = [Patch(blob(rng), colour(), float(rng.uniform(0.4, 0.9))) for _ in range(rng.integers(2, 6))]
    lift = 0.14 if dark else -0.14  # sticks stand out from the ground a little, as objects do
    patches += [
        Patch(stick(rng), oklch(rng.uniform(low, high) + lift, rng.uniform(0.03, 0.10), hue + rng.uniform(-2, 2)), 0.8)
        for _ in range(rng.integers(1, 4))
    ]
    return Background((colour(), colour()), float(rng.uniform(0, 2 * math.pi)), tuple(patches))


def oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Convert a colour in Oklab's cylinder to sRGB (0..1, clipped). Equal steps look equally large (Ottosson, 2020).

    `hue` is in radians.
    """
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    red, green, blue = (_gamma(min(max(value, 0.0), 1.0)) for value in linear)
    return red, green, blue


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def coverage(polygon: np.ndarray, size: int) -> np.ndarray:
    """Measure the share of each pixel that the polygon `(P, 2)` covers: `(size, size)` float32, 0..1."""
    side = size * _SUPERSAMPLING
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).polygon([tuple(point) for point in (polygon * side - 0.5).tolist()], fill=255)
    return np.asarray(image.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


def masks(scene: Scene, size: int) -> np.ndarray:
    """Find the visible pixels of each object, without those hidden by objects in front: `(N, size, size)` bool."""
    shown = np.stack([coverage(thing.polygon, size) >= 0.5 for thing in scene.objects])
    for i in range(len(shown) - 1):
        shown[i] &= ~shown[i + 1 :].any(0)
    return shown


def render(scene: Scene, size: int) -> Image.Image:
    """Draw the picture, RGB, `size` x `size`, antialiased. Equal scenes and sizes give equal pixels."""
    x, y = np.meshgrid(*2 * [(np.arange(size, dtype=np.float32) + 0.5) / size])
    ground = scene.background
    along = (x - 0.5) * math.cos(ground.angle) + (y - 0.5) * math.sin(ground.angle)
    canvas = _mix(ground.colours[0], ground.colours[1], np.clip(along / 1.2 + 0.5, 0, 1))
    for patch in ground.clutter:
        _paint(canvas, patch.polygon, np.array(patch.colour, np.float32), patch.opacity)
    for thing in scene.objects:
        _paint(canvas, thing.polygon, _textured(thing, x, y), 1.0)
    grain = np.random.default_rng(scene.key).standard_normal((size, size, 1), dtype=np.float32)
    return Image.fromarray((np.clip(canvas + scene.noise * grain, 0, 1) * 255 + 0.5).astype(np.uint8))


def _mix(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    first_, second_ = np.array(first, np.float32), np.array(second, np.float32)
    return first_ + (second_ - first_) * share[..., None]


def _paint(canvas: np.ndarray, polygon: np.ndarray, colour: np.ndarray, opacity: float) -> None:
    canvas += (colour - canvas) * (coverage(polygon, len(canvas)) * opacity)[..., None]


def _textured(thing: SceneObject, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    dx, dy = (x - thing.centre[0]) / thing.radius, (y - thing.centre[1]) / thing.radius
    u, v = math.pi * thing.pitch * (dx * cos + dy * sin), math.pi * thing.pitch * (dy * cos - dx * sin)
    waves = {
        "plain": np.zeros_like(u) - 1,
        "stripes": np.sin(2 * u),
        "checks": np.sin(u) * np.sin(v),
        "dots": np.cos(u) ** 2 * np.cos(v) ** 2 - 0.4,
    }
    sharpness = 0.35 * len(x) * thing.radius / thing.pitch  # about one pixel from one colour to the other
    shaded = _mix(thing.colour, thing.accent, np.clip(0.5 + sharpness * waves[thing.texture], 0, 1))
    return np.clip(shaded * (1 - 0.10 * (dx + dy))[..., None], 0, 1)  # lit from the top left


def write_scenes(
    folder: Path | str, *, classes: int = 10, train: int = 2000, val: int = 500, size: int = 64, seed: int = 0
) -> Path:
    """Write scenes of one object as class folders, `train/CLASS/00042.jpg` and `val/...`, and return the folder.

    `train` and `val` count pictures (at least one a class; classes differ by one at most), `size` is their side in
    pixels. The bytes depend on the arguments and on Pillow's version. A marker, `scenes.json`, holds the arguments. A
    complete folder is used as it is; one whose writing was cut short is written again.

    Raises `DataError` for an argument out of range, and for a folder that holds anything else or has other arguments.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "classes": classes, "train": train, "val": val, "size": size, "seed": seed}
    _check_arguments(asked)
    found = _read_marker(folder)
    if found is not None:
        _check_same(folder, {name: found.get(name) for name in asked}, asked)
    pictures = [(split, i) for split, count in (("train", train), ("val", val)) for i in range(count)]
    if found and found.get("complete") and all(_path(folder, *picture, classes).is_file() for picture in pictures):
        return folder
    for split in ("train", "val"):
        for name in CLASSES[:classes]:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    _write_marker(folder, asked, complete=False)
    for split, index in pictures:
        picture = render(scene(index, seed=seed, split=split, classes=classes), size)
        picture.save(_path(folder, split, index, classes), quality=92, subsampling=0)
    _write_marker(folder, asked, complete=True)
    return folder


def is_written(folder: Path, asked: dict[str, Any]) -> bool:
    """Say whether a folder holds the scenes that were written with these arguments, complete, as `written` marks them."""
    marker = folder / MARKER
    return marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == asked


def written(folder: Path, asked: dict[str, Any]) -> Path:
    """Mark a folder as complete, written with these arguments, and return it."""
    (folder / MARKER).write_text(json.dumps(asked), encoding="utf-8")
    return folder


def _path(folder: Path, split: str, index: int, classes: int) -> Path:
    return folder / split / CLASSES[index % classes] / f"{index:05d}.jpg"


def _check_arguments(asked: dict[str, Any]) -> None:
    classes, wrong = asked["classes"], []
    if not 2 <= classes <= len(CLASSES):
        wrong.append(f"classes={classes}: 2 to {len(CLASSES)}")
    wrong += [f"{name}={asked[name]}: at least one a class" for name in ("train", "val") if asked[name] < classes]
    if asked["size"] < 16:
        wrong.append(f"size={asked['size']}: at least 16 pixels")
    if wrong:
        raise DataError("scenes cannot be drawn so; expected " + "; ".join(wrong))


def _read_marker(folder: Path) -> dict[str, Any] | None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{folder}: not empty, and holds no readable {MARKER}; name a new or empty folder for the scenes"
        )
    return found


def _write_marker(folder: Path, asked: dict[str, Any], complete: bool) -> None:
    (folder / MARKER).write_text(json.dumps({**asked, "complete": complete}, indent=2) + "\n")


def _check_same(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    different = [f"{name}={found[name]} there, {asked[name]} asked" for name in asked if found[name] != asked[name]]
    if different:
        raise DataError(
            f"{folder}: holds other scenes ({'; '.join(different)}); name another folder, or delete this one first"
        )
