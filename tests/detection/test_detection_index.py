"""The index of an annotation file as large as COCO's train2017: time and memory, the first time and from its cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
IMAGES, OBJECTS = 118_000, 860_000
MEASURE = """
import json, os, resource, sys, time
import psutil
from trunkline.tasks.detection import samples  # what it imports is not counted
process = psutil.Process()
before = process.memory_full_info().uss
start = time.perf_counter()
index = samples.coco_index(sys.argv[1], masks=True)
took = time.perf_counter() - start
found = {"seconds": took, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
         "kept": process.memory_full_info().uss - before, "images": len(index), "objects": len(index.labels)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Generated annotations with polygons as long as COCO's: 24 points on average, two decimals."""
    draw = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("large") / "instances_train.json"
    points = draw.gamma(1.6, 15, OBJECTS).astype(int) + 3
    image = np.sort(draw.integers(1, IMAGES + 1, OBJECTS))
    with file.open("w") as out:
        out.write('{"images": [')
        out.write(", ".join(json.dumps({"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480, "license": 1,
                                        "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg"})
                            for i in range(1, IMAGES + 1)))  # fmt: skip
        out.write('], "categories": [')
        out.write(
            ", ".join(json.dumps({"id": i, "name": f"class {i}", "supercategory": "thing"}) for i in range(1, 81))
        )
        out.write('], "annotations": [')
        for n in range(OBJECTS):
            polygon = np.round(draw.random(2 * points[n]) * 400, 2).tolist()
            row = {"segmentation": [polygon], "area": 1234.5, "iscrowd": 0, "image_id": int(image[n]),
                   "bbox": [10.5, 20.25, 100.0, 50.0], "category_id": 1 + n % 80, "id": n + 1}  # fmt: skip
            out.write((", " if n else "") + json.dumps(row))
        out.write("]}")
    return file


def test_the_first_time_and_from_the_cache(large, tmp_path):
    environment = os.environ | {"TRUNKLINE_CACHE": str(tmp_path)}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(large)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    first, again = found
    print(f"{large.stat().st_size / 2**20:.0f} MiB: {first}, then {again}")
    assert first["images"] == again["images"] == IMAGES and first["objects"] == OBJECTS
    assert first["seconds"] <= 45 and first["peak"] <= 3 * 2**30 and first["kept"] <= 2**29
    assert again["seconds"] <= 2 and again["kept"] <= 2**29
