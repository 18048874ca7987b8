"""Bicubic resizing: the formula stated apart in loops, and the shared pictures that MATLAB's rule gives."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.super_resolution.resize import resized, resized_integers, shrunk, to_integers

SHARED = [("LRx4_mirror", 4, "mirror"), ("LRx2_mirror", 2, "mirror"), ("LRx4_replicate", 4, "replicate")]
PICTURES = ["baby", "bird", "butterfly", "head", "woman"]


def keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def line(values: list[float], size: int, border: str) -> list[float]:
    """A row of numbers at another length, as the formula says: MATLAB counts from 1."""
    n, scale = len(values), size / len(values)
    width, made = (4 / scale if scale < 1 else 4), []
    for x in range(1, size + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        total = weight = 0.0
        for at in range(left, left + math.ceil(width) + 2):
            w = scale * keys(scale * (u - at)) if scale < 1 else keys(u - at)
            inside = at
            while border == "mirror" and not 1 <= inside <= n:
                inside = 1 - inside if inside < 1 else 2 * n + 1 - inside
            total += w * values[min(max(inside, 1), n) - 1]
            weight += w
        made.append(total / weight)
    return made


def plain(pixels: np.ndarray, height: int, width: int, border: str) -> np.ndarray:
    columns = [line(list(pixels[:, x]), height, border) for x in range(pixels.shape[1])]
    rows = np.array(columns).T
    return np.array([line(list(row), width, border) for row in rows])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 23)] * 4),
    border=st.sampled_from(["mirror", "replicate"]),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_formula_at_any_size(sizes, border, seed):
    height, width, to_height, to_width = sizes
    pixels = np.random.default_rng(seed).uniform(0, 255, (height, width))
    found = resized(pixels, to_height, to_width, border=border)
    assert found.dtype == np.float64 and found.shape == (to_height, to_width)
    assert np.abs(found - plain(pixels, to_height, to_width, border)).max() < 1e-6


@settings(max_examples=20, deadline=None)
@given(
    scale=st.sampled_from([2, 3, 4, 8]),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    border=st.sampled_from(["mirror", "replicate"]),
    seed=st.integers(0, 2**31),
)
def test_the_downsampler_is_the_formula(scale, sides, border, seed):
    pixels = np.random.default_rng(seed).uniform(0, 255, (sides[0] * scale, sides[1] * scale, 3))
    found = shrunk(pixels, scale, border)
    for channel in range(3):
        assert np.abs(found[..., channel] - plain(pixels[..., channel], *sides, border)).max() < 1e-6


@pytest.mark.parametrize(("folder", "scale", "border"), SHARED)
def test_the_shared_pictures_come_bit_for_bit(shared_data, folder, scale, border):
    for name in PICTURES:
        truth = np.array(Image.open(shared_data / f"sr/Set5/HR/{name}.png"))
        theirs = np.array(Image.open(shared_data / f"sr/Set5/{folder}/{name}.png"))
        ours = shrunk(truth, scale, border)
        assert ours.dtype == np.uint8 and np.array_equal(ours, theirs), name
        assert not np.array_equal(to_integers(shrunk(truth.astype(float), scale, border), 8), theirs), name


def test_integers_are_rounded_after_each_pass_the_height_first():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16)).astype(np.uint8)
    rows = np.array([line(list(column), 6, "mirror") for column in pixels.T.astype(float)]).T
    rounded = np.floor(rows.clip(0, 255) + 0.5)
    both = np.array([line(list(row), 4, "mirror") for row in rounded])
    assert np.array_equal(shrunk(pixels, 4), np.floor(both.clip(0, 255) + 0.5).astype(np.uint8))
    assert np.abs(resized(pixels, 6, 4) - both).max() < 1e-9  # the last pass is left as it is


def test_the_dimension_that_shrinks_more_goes_first():
    pixels = np.random.default_rng(1).integers(0, 65536, (8, 24)).astype(np.uint16)
    columns = np.array([line(list(row), 6, "mirror") for row in pixels.astype(float)])
    rounded = np.floor(columns.clip(0, 65535) + 0.5)
    both = np.array([line(list(column), 4, "mirror") for column in rounded.T]).T
    found = to_integers(resized(pixels, 4, 6), 16)
    assert found.dtype == np.uint16 and np.array_equal(found, np.floor(both.clip(0, 65535) + 0.5))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_bands_change_nothing(monkeypatch, kind):
    pixels = np.random.default_rng(2).integers(0, np.iinfo(kind).max + 1, (31, 45, 3)).astype(kind)
    for height, width in ((124, 180), (10, 20), (40, 30)):
        whole = to_integers(resized(pixels, height, width), pixels.dtype.itemsize * 8)
        monkeypatch.setattr("trunkline.tasks.super_resolution.resize._BAND", 700)
        found = resized_integers(pixels, height, width)
        assert found.dtype == kind and np.array_equal(found, whole)


def test_halves_go_up_and_values_are_clipped():
    values = np.array([-3.0, -0.5, 0.49, 0.5, 1.5, 2.5, 2.5 - 1e-12, 254.5, 300.0])
    assert to_integers(values, 8).tolist() == [0, 0, 0, 1, 2, 3, 3, 255, 255]
    assert to_integers(np.array([65534.5, 7e4]), 16).tolist() == [65535, 65535]
    assert to_integers(np.array([300, 7], np.int64), 8).tolist() == [255, 7]


def test_flat_pictures_stay_flat_and_sizes_stay_exact():
    flat = np.full((12, 20, 3), 77, np.uint8)
    assert (shrunk(flat, 4) == 77).all() and (to_integers(resized(flat, 37, 41), 8) == 77).all()
    assert np.array_equal(resized(flat, 12, 20), flat)


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(DataError, match=r"30 x 21 pixels .* multiple of the scale 4: crop it to 28 x 20"):
        shrunk(np.zeros((21, 30, 3), np.uint8), 4)
    with pytest.raises(DataError, match="cannot be made 0 x 4"):
        resized(np.zeros((4, 4)), 4, 0)
    with pytest.raises(DataError, match="border=wrap: expected mirror or replicate"):
        resized(np.zeros((4, 4)), 2, 2, border="wrap")
    for scale in (0, -2, 0.5):
        with pytest.raises(DataError, match=f"scale={scale}: expected a whole number"):
            shrunk(np.zeros((4, 4), np.uint8), scale)
    for kind in (np.int64, np.uint32, np.bool_, np.complex64):
        for call in (lambda p: shrunk(p, 2), lambda p: resized(p, 2, 2), lambda p: resized_integers(p, 2, 2)):
            with pytest.raises(
                DataError, match=rf"{np.dtype(kind)} cannot be resized: expected uint8, uint16 or floats"
            ):
                call(np.zeros((4, 4), kind))
    with pytest.raises(DataError, match="float32 have no integers"):
        resized_integers(np.zeros((4, 4), np.float32), 2, 2)
    with pytest.raises(DataError, match="list: expected a picture as an array of numpy"):
        shrunk([[1, 2], [3, 4]], 2)
    with pytest.raises(DataError, match=r"shape \(4,\) cannot be resized: expected \(H, W\)"):
        shrunk(np.zeros(4, np.uint8), 2)
    with pytest.raises(DataError, match="NaN"):
        to_integers(np.array([np.nan]), 8)
    with pytest.raises(DataError, match="bits=12"):
        to_integers(np.array([1.0]), 12)
