"""Run-length codes of predicted masks are those of torchvision's pasted ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codes
from torchvision.models.detection.roi_heads import paste_masks_in_image

from trunkline.tasks.images.fit import resized
from trunkline.tasks.objects.geometry import back
from trunkline.tasks.objects.masks import to_bitmap, to_rle


def by_torchvision(masks, boxes, height, width):
    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (height, width))
    found = [codes.encode(np.asfortranarray((m[0] > 0.5).numpy().astype(np.uint8))) for m in pasted]
    return [{"size": list(f["size"]), "counts": f["counts"].decode()} for f in found]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 90), width=st.integers(1, 90), smooth=st.booleans())
def test_codes_are_those_of_torchvision(seed, height, width, smooth):
    draw = np.random.default_rng(seed)
    n = 6
    masks = draw.random((n, 28, 28)).astype(np.float32)
    if smooth:
        masks = torch.nn.functional.avg_pool2d(torch.from_numpy(masks)[:, None], 9, 1, 4)[:, 0].numpy()
    masks[0], masks[1] = 1.0, 0.0
    corner = draw.random((n, 2)) * [width, height]
    boxes = np.hstack([corner, corner + draw.random((n, 2)) * ([width, height] - corner)]).astype(np.float32)
    boxes[0] = [0, 0, width, height]  # full columns join
    assert to_rle(masks, boxes, height, width) == by_torchvision(masks, boxes, height, width)


def test_bitmaps_of_polygons_and_codes():
    square = to_bitmap([[2.0, 1, 6, 1, 6, 4, 2, 4]], 8, 10)
    assert square.shape == (8, 10) and square.sum() == 12 and square[1:4, 2:6].all()
    whole = codes.encode(np.asfortranarray(square))
    assert np.array_equal(to_bitmap({"size": [8, 10], "counts": whole["counts"].decode()}, 8, 10), square)
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, square.reshape(-1, order="F"), 0])), prepend=0).tolist()
    listed = {"size": [8, 10], "counts": [*runs, 80 - sum(runs)]}
    assert np.array_equal(to_bitmap(listed, 8, 10), square)


@pytest.mark.parametrize("original", [(60, 200), (200, 60), (97, 31)])
def test_boxes_come_back_to_a_picture_that_is_not_square(original):
    """Each side has its own ratio, as rounding the shorter one gives another than the longer one's."""
    height, width = seen = resized(*original, 48, 333)
    box = np.array([[0.1, 0.2, 0.7, 0.9]])
    there = back(box * [width, height, width, height], seen, original)
    assert there.dtype == np.float32
    assert np.allclose(there, box * [original[1], original[0], original[1], original[0]], atol=1e-4)
