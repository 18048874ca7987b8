"""What results may mean where almost nothing of them matches the truth: boxes as corners, shares of 1, shifted categories."""

from collections.abc import Callable

import numpy as np

from .coco_file import Images, Objects

FEW = 0.05  # AP at an overlap of one half, below which it is asked what the results may mean
_LOOKED_AT = 300  # pictures
_OVERLAP = 0.5
_LEAST, _TIMES = (
    0.2,
    4,
)  # the share of the truth that another reading must match, and how many times as much as the plain one


def hints(
    truth: Objects, found: Objects, sizes: dict[int, tuple[int, int]] | None = None, corners: bool = False
) -> list[str]:
    """Say how results would match the truth better than as they stand; empty where no other reading does.

    Both have boxes x, y, width, height in pixels. `sizes` are height and width by image, for shares of 1. `corners`: the
    results' file has corners, as VOC's has.
    """
    readings = {
        what: change
        for what, change in _READINGS.items()
        if change not in ((_corners, _centres) if corners else (_sides,))
    }
    ids = np.unique(truth.image_ids)
    ids = ids[:: max(1, len(ids) // _LOOKED_AT)]
    truth, found = truth.at(np.isin(truth.image_ids, ids)), found.at(np.isin(found.image_ids, ids))
    if not len(truth) or not len(found):
        return []
    plain = _matched(truth, found.boxes, found.category_ids, found.image_ids)
    best, said = max(_LEAST, _TIMES * plain), ""
    for what, change in readings.items():
        boxes, categories = change(found, sizes or {})
        if boxes is None:
            continue
        share = _matched(truth, boxes, categories, found.image_ids)
        if share > best or (share == best and not said):
            best, said = share, f"almost nothing matches as it stands; {share:.0%} of the truth would, {what}"
    return [said] if said else []


def sizes_of(images: Images) -> dict[int, tuple[int, int]]:
    """List height and width by image, where they are known."""
    sides = zip(images.ids.tolist(), images.heights.tolist(), images.widths.tolist(), strict=True)
    return {image: (height, width) for image, height, width in sides if height}


Change = Callable[[Objects, dict[int, tuple[int, int]]], tuple[np.ndarray | None, np.ndarray]]


def _corners(found: Objects, sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray | None, np.ndarray]:
    x, y, right, low = found.boxes.T
    return np.stack([x, y, right - x, low - y], 1), found.category_ids


def _sides(found: Objects, sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray | None, np.ndarray]:
    x, y, width, height = found.boxes.T
    return np.stack([x, y, width + x, height + y], 1), found.category_ids


def _shares(found: Objects, sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray | None, np.ndarray]:
    if not sizes or np.percentile(np.abs(found.boxes), 95) > 1.5:
        return None, found.category_ids
    sides = np.array([sizes.get(i, (1, 1))[::-1] * 2 for i in found.image_ids.tolist()], np.float64)
    return found.boxes * sides, found.category_ids


def _centres(found: Objects, sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray | None, np.ndarray]:
    boxes, categories = _shares(found, sizes)
    boxes = found.boxes if boxes is None else boxes
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1), categories


def _moved(by: int) -> Change:
    return lambda found, sizes: (found.boxes, found.category_ids + by)


_READINGS: dict[str, Change] = {
    "were the boxes x1, y1, x2, y2: expected are x, y, width, height": _corners,
    "were the boxes x, y, width, height: expected are xmin, ymin, xmax, ymax": _sides,
    "were the boxes shares of the pictures' sides: expected are pixels": _shares,
    "were the boxes' x and y their centres: expected is the upper left corner": _centres,
    "were each category's number one larger": _moved(1),
    "were each category's number one smaller": _moved(-1),
}


def _matched(truth: Objects, boxes: np.ndarray, categories: np.ndarray, images: np.ndarray) -> float:
    """Compute the share of the true objects that some result of their image and category overlaps by half."""
    order = np.argsort(images, kind="stable")
    starts = (
        np.searchsorted(images[order], truth.image_ids, "left"),
        np.searchsorted(images[order], truth.image_ids, "right"),
    )
    hit = 0
    for box, category, first, last in zip(truth.boxes, truth.category_ids, *starts, strict=True):
        rows = order[first:last]
        own = boxes[rows[categories[rows] == category]]
        hit += bool(len(own)) and bool((_overlaps(box, own) >= _OVERLAP).any())
    return hit / len(truth)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    inner = np.clip(high - low, 0, None).prod(1)
    union = box[2] * box[3] + others[:, 2].clip(0) * others[:, 3].clip(0) - inner
    return inner / np.maximum(union, 1e-12)
