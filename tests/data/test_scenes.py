import dataclasses
import json
import math
from collections import Counter
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.images.outlines import CLASSES, outline
from trunkline.tasks.scenes import MARKER, coverage, masks, oklch, render, scene, write_scenes

SMALL = {"classes": 10, "train": 30, "val": 12, "size": 32}


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.jpg"))}


def test_same_arguments_give_the_same_bytes_and_other_seeds_others(tmp_path):
    first = digests(write_scenes(tmp_path / "a", **SMALL))
    assert first == digests(write_scenes(tmp_path / "b", **SMALL))
    other = digests(write_scenes(tmp_path / "c", **SMALL, seed=1))
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())
    assert len(set(first.values())) == 42  # no picture twice, in particular none of train in val


def test_format_and_balance(tmp_path):
    folder = write_scenes(tmp_path / "scenes", **SMALL)
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "train", "val"]
    for split, count in (("train", 30), ("val", 12)):
        files = list((folder / split).rglob("*.jpg"))
        per_class = Counter(p.parent.name for p in files)
        assert len(files) == count and set(per_class) == set(CLASSES[:10])
        assert max(per_class.values()) - min(per_class.values()) <= 1
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))


def test_a_complete_folder_is_used_as_it_is(tmp_path):
    folder = write_scenes(tmp_path / "scenes", **SMALL)
    path = next(folder.rglob("*.jpg"))
    path.write_bytes(b"touched")
    assert write_scenes(folder, **SMALL) == folder
    assert path.read_bytes() == b"touched"


@pytest.mark.parametrize("lost", ["picture", "completion"])
def test_a_folder_cut_short_is_written_again(tmp_path, lost):
    folder = write_scenes(tmp_path / "scenes", **SMALL)
    whole = digests(folder)
    path = next(folder.rglob("*.jpg"))
    if lost == "picture":
        path.unlink()
    else:
        path.write_bytes(b"half")
        marker = json.loads((folder / MARKER).read_text())
        (folder / MARKER).write_text(json.dumps({**marker, "complete": False}))
    assert digests(write_scenes(folder, **SMALL)) == whole
    assert json.loads((folder / MARKER).read_text())["complete"] is True


def test_other_arguments_are_refused_by_name(tmp_path):
    folder = write_scenes(tmp_path / "scenes", **SMALL)
    before = digests(folder)
    with pytest.raises(DataError, match=r"holds other scenes \(val=12 there, 20 asked; seed=0 there, 5 asked\)"):
        write_scenes(folder, **{**SMALL, "val": 20}, seed=5)
    assert digests(folder) == before


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_of_someone_else_is_refused_untouched(tmp_path, content):
    (tmp_path / "notes.txt").write_text("mine")
    if content is not None:
        (tmp_path / MARKER).write_text(content)
    with pytest.raises(DataError, match=rf"not empty, and holds no readable {MARKER}"):
        write_scenes(tmp_path, **SMALL)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "scenes").write_text("a file")
    with pytest.raises(DataError, match="not empty"):
        write_scenes(tmp_path / "scenes", **SMALL)


def test_arguments_out_of_range_are_reported_together(tmp_path):
    with pytest.raises(DataError, match=r"classes=13: 2 to 12; val=5: at least one a class; size=8: at least 16"):
        write_scenes(tmp_path / "scenes", classes=13, train=30, val=5, size=8)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("name", CLASSES)
def test_mask_is_what_drawing_the_object_changes(name):
    drawn = scene(CLASSES.index(name), classes=len(CLASSES), split="val")
    assert [thing.name for thing in drawn.objects] == [name]
    without = dataclasses.replace(drawn, objects=())
    pair = (np.asarray(render(s, 96)).astype(int) for s in (drawn, without))
    changed = np.abs(np.subtract(*pair)).max(-1) > 24
    mask = masks(drawn, 96)[0]
    assert (changed & mask).sum() / (changed | mask).sum() > 0.9
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 96
    assert np.abs(box - drawn.objects[0].box).max() < 2.5 / 96


def test_visible_masks_follow_the_depth_order():
    drawn = scene(7, objects=4, seed=3)
    shown = masks(drawn, 64)
    assert len(drawn.objects) == 4 and shown.sum(0).max() == 1
    full = [coverage(thing.polygon, 64) >= 0.5 for thing in drawn.objects]
    assert np.array_equal(shown[-1], full[-1])
    assert np.array_equal(shown.any(0), np.any(full, axis=0))


@pytest.mark.parametrize("name", ["circle", "square", "triangle", "ring", "cross"])
def test_coverage_is_the_polygons_area(name):
    points = outline(name, np.random.default_rng(0))
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    polygon = points * 0.4 + 0.5
    x, y = polygon.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2  # shoelace
    assert coverage(polygon, 128).mean() == pytest.approx(area, rel=0.03)


def test_a_moved_object_takes_its_outline_and_texture_along():
    drawn = scene(3, seed=2)
    thing = dataclasses.replace(drawn.objects[0], centre=(0.45, 0.5), radius=0.25)
    moved = dataclasses.replace(thing, centre=(0.45 + 6 / 64, 0.5))
    assert np.allclose(moved.polygon - thing.polygon, [6 / 64, 0])
    before, after = (
        np.asarray(render(dataclasses.replace(drawn, objects=(t,), noise=0.0), 64)).astype(int) for t in (thing, moved)
    )
    inside = coverage(thing.polygon, 64) == 1
    assert np.abs(np.roll(after, -6, axis=1) - before)[inside].max() <= 1


def test_a_scene_is_one_picture_at_every_size():
    drawn = dataclasses.replace(scene(5), noise=0.0)
    large = np.asarray(render(drawn, 128).reduce(2)).astype(int)
    small = np.asarray(render(drawn, 64)).astype(int)
    assert np.abs(large - small).mean() < 2.0


def test_oklch_against_known_colours():
    assert oklch(1.0, 0.0, 0.0) == pytest.approx((1, 1, 1), abs=1e-3)
    assert oklch(0.62796, 0.25768, math.radians(29.234)) == pytest.approx((1, 0, 0), abs=2e-3)
    assert oklch(0.45201, 0.31321, math.radians(264.052)) == pytest.approx((0, 0, 1), abs=2e-3)


@cache
def arrays(split: str, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = np.stack([np.asarray(render(scene(i, split=split), size)) for i in range(count)])
    return torch.from_numpy(pictures).float().flatten(1) / 255, torch.arange(count) % 10


def linear_top1(train, val, decay: float) -> float:
    """Top-1 on val of multinomial logistic regression with an L2 penalty, by L-BFGS (40 iterations)."""
    (x, y), (xv, yv) = train, val
    mean, std = x.mean(0), x.std()
    x, xv = (x - mean) / std, (xv - mean) / std
    weight = torch.zeros(10, x.shape[1], requires_grad=True)
    bias = torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=40, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return ((xv @ weight.T + bias).argmax(1) == yv).float().mean().item()


def check_linear(train: int, val: int, size: int) -> None:
    data = arrays("train", train, size), arrays("val", val, size)
    best = max(linear_top1(*data, decay) for decay in (1e-2, 1e-1, 1.0, 10.0))
    assert 0.05 < best < 0.40


def test_a_linear_model_on_pixels_stays_below_forty_per_cent():
    check_linear(800, 300, 32)


@pytest.mark.slow
def test_a_linear_model_on_all_pixels_stays_below_forty_per_cent():
    check_linear(2000, 500, 64)


def test_colour_and_brightness_do_not_tell_the_class():
    """A linear model on each channel's mean and standard deviation, and on the corner's colour, is near chance."""

    def summary(split, count):
        x, y = arrays(split, count, 32)
        pixels = x.view(count, -1, 3)
        features = torch.cat([pixels.mean(1), pixels[:, 0], pixels[:, -1]], dim=1)
        return features, y

    assert linear_top1(summary("train", 800), summary("val", 300), 1e-2) < 0.22
