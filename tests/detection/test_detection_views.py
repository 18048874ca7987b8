"""Tiles, mirrored and resized views of a picture: where they lie, and that boxes come back to where they are."""

import itertools

import numpy as np
import pytest
import torch

from trunkline.heads.boxes import BoxPrediction
from trunkline.tasks.contract import Sample
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.views import see, tiles, views


@pytest.mark.parametrize(("height", "width"), [(100, 100), (333, 1000), (64, 65), (1000, 50), (640, 480)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_tiles_cover_the_picture_and_overlap(height, width, overlap):
    found = tiles(height, width, 64, overlap)
    covered = np.zeros((height, width), int)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert right - left == min(64, width) and bottom - top == min(64, height)
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    columns = sorted({left for left, *_ in found})
    assert all(64 - (b - a) >= 64 * overlap - 1 for a, b in itertools.pairwise(columns))


def detector(samples: list[Sample]) -> list[BoxPrediction]:
    """Finds the bright rectangle of a picture, with the share of the picture's pixels that it shows as a mask."""
    found = []
    for sample in samples:
        y, x = np.nonzero(sample.image[0].numpy() > 127)
        if not len(x):
            empty = np.zeros((0, 4), np.float32)
            found.append(
                BoxPrediction(sample.id, empty, np.zeros(0, np.int64), empty[:, 0], np.zeros((0, 28, 28), np.float32))
            )
            continue
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        mask = np.tile(np.linspace(0, 1, 28, dtype=np.float32), (1, 28, 1))
        found.append(BoxPrediction(sample.id, box, np.zeros(1, np.int64), np.full(1, 0.9, np.float32), mask))
    return found


@pytest.mark.parametrize(
    "options",
    [
        Options(size=200, longest=300, tiles=80),
        Options(size=200, longest=300, flips=True),
        Options(size=200, longest=300, scales=(0.5, 1.0, 2.0)),
        Options(size=100, longest=150, tiles=80, flips=True, scales=(1.0, 1.5)),
    ],
)
@pytest.mark.parametrize("box", [(20, 30, 50, 60), (150, 100, 190, 150), (5, 5, 280, 190)])
def test_every_view_finds_the_same_box_where_it_is(options, box):
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    x0, y0, x1, y1 = box
    image[:, y0:y1, x0:x1] = 255
    found = see(Sample("a", "a", image), detector, options)
    assert len(found.scores) == 1
    assert np.abs(found.boxes[0] - np.array(box)).max() <= 2.5
    assert found.masks.shape == (1, 28, 28)


def test_a_mirrored_mask_is_turned_back():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    image[:, 40:60, 10:30] = 255
    plain = see(Sample("a", "a", image), detector, Options(size=100, longest=100, scales=(1.0,)))
    only = [v for v in views(100, 100, Options(flips=True)) if v.mirrored]
    assert len(only) == 1 and plain.masks[0, 0, 0] < plain.masks[0, 0, -1]
    from trunkline.tasks.detection.views import _back, _through

    mirrored = _back(
        _through(Sample("a", "a", image), only[0], detector, Options(size=100, longest=100)), only[0], 100, 100
    )
    assert np.allclose(mirrored.boxes, plain.boxes) and np.allclose(mirrored.masks, plain.masks[:, :, ::-1])
