"""Steps that read clean data, for `same_speed.py data`: they run in both states of the code."""

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

IMAGES, OBJECTS = 1500, 30_000


def large_coco(folder: Path) -> tuple[Path, Path]:
    """Write an annotation file with polygons, and results."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 300, (OBJECTS, 2)), rng.uniform(8, 200, (OBJECTS, 2))], 1).round(2)
    image, kind = rng.integers(1, IMAGES + 1, OBJECTS).tolist(), rng.integers(1, 81, OBJECTS).tolist()
    images = [{"id": i, "file_name": f"{i:06d}.jpg", "width": 640, "height": 480} for i in range(1, IMAGES + 1)]
    annotations, results = [], []
    for n, (x, y, w, h) in enumerate(boxes.tolist()):
        row = {"id": n + 1, "image_id": image[n], "category_id": kind[n], "bbox": [x, y, w, h]}
        annotations.append(
            {**row, "area": w * h, "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        )
        results.append(
            {
                "image_id": image[n],
                "category_id": kind[n],
                "bbox": [x + 2, y + 1, w, h],
                "score": (n * 37 % 1000) / 1000,
            }
        )
    said = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": f"c{k}"} for k in range(1, 81)],
    }
    for name, content in (("truth.json", said), ("results.json", results)):
        (folder / name).write_text(json.dumps(content))
    return folder / "truth.json", folder / "results.json"


def steps() -> dict[str, Callable[[], Any]]:
    """Build the steps: indices, looks at folders, samples read, and scores."""
    from trunkline.tasks.check import check
    from trunkline.tasks.classification.folders import read_splits
    from trunkline.tasks.detection.options import Options
    from trunkline.tasks.detection.scenes import write_box_scenes
    from trunkline.tasks.objects.coco_file import read_results, read_truth
    from trunkline.tasks.scenes import write_scenes
    from trunkline.tasks.segmentation.options import Options as MaskOptions
    from trunkline.tasks.segmentation.scenes import write_pixel_scenes
    from trunkline.tasks.segmentation.splits import read_split as read_masks

    try:
        from trunkline.tasks.detection.splits import read_split
    except ImportError:  # the older state
        from trunkline.tasks.detection.samples import read_split
    try:
        from trunkline.pipelines.score.score_coco import coco
        from trunkline.pipelines.score.score_voc import voc
    except ImportError:
        from trunkline.pipelines.score.score import coco, voc
    from trunkline.pipelines.score.score_masks import masks

    root = Path(tempfile.mkdtemp())
    os.environ["TRUNKLINE_CACHE"] = str(root / "cache")
    truth, results = large_coco(root)
    boxes = write_box_scenes(root / "boxes", train=300, val=100, size=160)
    photos, pairs = (
        write_scenes(root / "photos", train=600, val=100, size=96),
        write_pixel_scenes(root / "pairs", train=200, val=40, size=160),
    )
    kept = read_truth(truth)
    own = {form: read_split(Options(data=str(boxes), format=form), "train") for form in ("coco", "voc")}
    folders = read_splits(photos)["train"]
    masked = read_masks(MaskOptions(data=str(pairs), format="pairs"), "train")
    xml, names = boxes / "Annotations", boxes / "ImageSets/Main/val.txt"
    found = root / "comp4"
    found.mkdir()
    lines: dict[str, list[str]] = {kind: [] for kind in ("circle", "square", "triangle", "star", "cross", "ring")}
    for name in names.read_text().split():  # the objects themselves, a little off, and two boxes of nothing
        for n, item in enumerate(ElementTree.parse(xml / f"{name}.xml").iter("object")):
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
            lines[item.findtext("name", "")].append(f"{name} 0.{9 - n % 9} {x1 + 1} {y1} {x2 + 2} {y2 + 1}\n")
        for n, kind in enumerate(lines):
            lines[kind] += [f"{name} 0.{k} {10 * k + n + 1} {8 * k + 1} {10 * k + 60} {8 * k + 50}\n" for k in (1, 3)]
    for kind, said in lines.items():
        (found / f"comp4_det_val_{kind}.txt").write_text("".join(said))

    for file in (pairs / "masks/val").iterdir():  # what a segmenter says has no void
        mask = np.asarray(Image.open(file))
        (root / "said").mkdir(exist_ok=True)
        Image.fromarray(np.where(mask == 255, 0, mask).astype(np.uint8)).save(root / "said" / file.name)

    def read(samples: Any) -> None:
        for i in range(0, len(samples), 3):
            samples[i]

    quiet = {"loaders": 0, "progress": False}
    return {
        "index, coco": partial(read_truth, truth, True),
        "index, voc": lambda: read_split(Options(data=str(boxes), format="voc"), "train"),
        "index, folders": partial(read_splits, photos), "results, coco": partial(read_results, results, kept),
        "check, folders": partial(check, photos, **quiet), "check, coco": partial(check, boxes, format="coco", **quiet),
        "check, pairs": partial(check, pairs, **quiet), "loader, folders": partial(read, folders),
        "loader, coco": partial(read, own["coco"]), "loader, voc": partial(read, own["voc"]),
        "loader, pairs": partial(read, masked), "score, coco": partial(coco, truth, results),
        "score, voc": partial(voc, xml, found, list=names),
        "score, masks": partial(masks, pairs / "masks/val", root / "said", classes=str(pairs / "classes.txt")),
    }  # fmt: skip
