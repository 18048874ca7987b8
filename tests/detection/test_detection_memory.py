"""Masks of a hundred objects on a photo of twelve million pixels, in little memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
MEASURE = """
import json, resource, sys
import psutil, torch
torch.set_num_threads(1)
from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.model import Model
from trunkline.pipelines.evaluation.measure import inference
from trunkline.tasks.contract import Sample
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.task import Detection
from trunkline.tasks.images.decode import read_image
torch.manual_seed(0)
task = Detection(Options(head="mask_rcnn", score=0.0), Preprocessing(), {"classes": ["a", "b", "c"]})
pyramid = Pyramid(backbone("resnet50", norm="frozen"))
model = Model(pyramid, {"detection": task.head(pyramid)}, Preprocessing()).eval()
before = psutil.Process().memory_info().rss
sample = task.transform(False)(Sample("a", sys.argv[1], read_image(sys.argv[1])))
with inference(model, "fp32", torch.device("cpu")):
    (found,) = task.infer(model, task.collate([sample]))
print(json.dumps({"above": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
                  "objects": len(found.codes), "size": found.codes[0]["size"]}))
"""


def test_a_hundred_masks_on_a_large_photo(tmp_path):
    photo = tmp_path / "photo.jpg"
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (300, 400, 3), dtype=np.uint8)).resize((4000, 3000)).save(photo)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(photo)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{found['above'] / 2**30:.2f} GiB above the model, {found['objects']} objects")
    assert found["objects"] == 100 and found["size"] == [3000, 4000]
    assert found["above"] < 1.5 * 2**30
