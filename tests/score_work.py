"""Random sets that detectors are scored on: crowds, ties, areas at the range borders, empty classes and images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 400


def random_coco(
    seed: int, images: int = 6, categories: int = 4, masks: bool = False, wrong: float = 0.0
) -> tuple[dict, list[dict]]:
    """An annotation document and results for it, of which the share `wrong` are what no detector should say."""
    draw = np.random.default_rng(seed)
    ids = draw.choice(np.arange(1, 900), images, replace=False).tolist()
    names = [{"id": int(c), "name": f"c{c}"} for c in draw.choice(np.arange(1, 90), categories, replace=False)]
    used = names[:-1]  # one category has no object
    annotations, results = [], []
    for image in ids[: images - 1]:  # one image has none
        for _ in range(draw.integers(0, 7)):
            box = _box(draw)
            crowd = int(draw.random() < 0.15)
            row = {"id": len(annotations) + 1, "image_id": image, "category_id": used[draw.integers(len(used))]["id"],
                   "bbox": box, "area": _area(draw, box), "iscrowd": crowd}  # fmt: skip
            if masks:
                row["segmentation"] = _rle(draw, box) if crowd else _polygon(box)
            annotations.append(row)
    for image in ids:
        for _ in range(draw.integers(0, 30)):
            near = [a for a in annotations if a["image_id"] == image]
            if near and draw.random() < 0.7:
                source = near[draw.integers(len(near))]
                box, category = _moved(draw, source["bbox"]), source["category_id"]
            else:
                box, category = _box(draw), names[draw.integers(len(names))]["id"]
            row = {"image_id": image, "category_id": category, "score": float(draw.integers(0, 11) / 10)}
            row |= {"segmentation": _rle(draw, box)} if masks else {"bbox": box}
            results.append(row)
    results = [_spoilt(draw, row) if not masks and draw.random() < wrong else row for row in results]
    header = [{"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.jpg"} for i in ids]
    return {"images": header, "categories": names, "annotations": annotations}, results


def _box(draw: Any) -> list[float]:
    exact = draw.random() < 0.3  # areas at the borders of the ranges
    w, h = ((32, 32), (96, 96), (16, 64), (48, 192))[draw.integers(4)] if exact else draw.integers(1, 260, 2)
    x, y = draw.integers(0, 2 * (SIDE - int(w)) + 1) / 2, draw.integers(0, 2 * (SIDE - int(h)) + 1) / 2
    return [float(x), float(y), float(w), float(h)]


def _spoilt(draw: Any, row: dict) -> dict:
    """A result with a box that is inverted, without area or far outside, or of a category that there is not."""
    x, y, w, h = row["bbox"]
    boxes = ([x + w, y + h, -w, -h], [x + w, y, -w, h], [x, y, w, -h], [x, y, 0.0, h], [x, y, w, 0.0], [x, y, 0.0, 0.0],
             [x - 5000, y, w, h], [x, y + 1e7, w, h], [-x, -y, 2 * w, 2 * h], [x, y, w, h])  # fmt: skip
    kind = int(draw.integers(len(boxes)))
    return row | {"bbox": boxes[kind]} | ({"category_id": 950} if kind == len(boxes) - 1 else {})


def _moved(draw: Any, box: list[float]) -> list[float]:
    shift = draw.integers(-6, 7, 2) / 2
    x, y = (float(np.clip(v + s, 0, SIDE - d)) for v, s, d in zip(box[:2], shift, box[2:], strict=True))
    return [x, y, box[2], box[3]]


def _area(draw: Any, box: list[float]) -> float:
    whole = box[2] * box[3]
    return float((whole, whole, 1024.0, 9216.0, whole * 0.75)[draw.integers(5)])


def _polygon(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h, x, y + h / 2]]


def _rle(draw: Any, box: list[float]) -> dict[str, Any]:
    from pycocotools import mask

    canvas = np.zeros((SIDE, SIDE), np.uint8, order="F")
    x, y, w, h = (int(v) for v in box)
    canvas[y : y + max(1, h), x : x + max(1, w)] = 1
    canvas[y + h // 2 :, x] = 0
    found = mask.encode(canvas)
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def write(folder: Path, truth: dict, results: list[dict]) -> tuple[Path, Path]:
    """Both as files."""
    folder.mkdir(parents=True, exist_ok=True)
    there, found = folder / "truth.json", folder / "results.json"
    there.write_text(json.dumps(truth))
    found.write_text(json.dumps(results))
    return there, found


def by_pycocotools(truth: dict, results: list[dict], kind: str, limits: tuple[int, ...] = (1, 10, 100)) -> Any:
    """pycocotools itself: the evaluated `COCOeval`."""
    import contextlib
    import copy
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = copy.deepcopy(truth)
        theirs.createIndex()
        ev = COCOeval(theirs, theirs.loadRes(copy.deepcopy(results)), kind)
        ev.params.maxDets = [*limits]
        ev.evaluate()
        ev.accumulate()
        if len(limits) == 3:
            ev.summarize()
    return ev
