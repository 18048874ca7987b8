"""Windows over a large photo: what one look says, in bounded memory."""

import json
import subprocess
import sys

import pytest
import torch

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.heads.model import Model
from trunkline.tasks.contract import Sample
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.task import Segmentation
from trunkline.tasks.segmentation.views import see, whole

pytestmark = pytest.mark.slow
# a pixel of ResNet-18's c5 sees 435 pixels a side, an FCN's 3 x 3 on it two more cells of 32, the upsampling one more
SEEN = 435 + 2 * 32 + 32


def test_windows_that_overlap_by_what_a_pixel_sees_change_nothing():
    """Away from the photo's border; on a photo-like picture with detail at all sizes, after norms that have seen it."""
    torch.manual_seed(0)
    task = Segmentation(Options(head="fcn"), Preprocessing(), {"classes": [f"class {n}" for n in range(21)]})
    trunk = backbone("resnet18")
    model = Model(trunk, {"segmentation": task.head(trunk)}, Preprocessing())
    noise = [
        torch.nn.functional.interpolate(torch.rand(1, 3, 38 * 2**n, 50 * 2**n), size=(1216, 1600)) for n in range(5)
    ]
    picture = (255 * torch.stack(noise).mean(0)[0]).byte()

    def logits(image):
        batch = task.collate([Sample("a", "a", image, {"original": tuple(image.shape[-2:])})])
        return model.heads["segmentation"].logits(model.maps(batch), batch)[0]

    with torch.inference_mode():
        model.train()
        for _ in range(20):
            logits(picture[:, :512, :512])
        model.eval()
        spread = logits(picture[:, :512, :512]).std((1, 2)).mean()
        for parameter in list(model.heads["segmentation"].parameters())[-2:]:
            parameter.mul_(2 / spread)  # a fresh head is undecided everywhere, and that would be compared with itself
        reference = logits(picture).softmax(0)
        options = Options(head="fcn", tiles=1088, overlap=SEEN / 1088)
        found = list(see(picture, logits, options))
        assert len(found) == 4
        difference = (whole(iter(found), 1216, 1600) - reference).abs()[:, 16:-16, 16:-16].max()
        small = whole(see(picture, logits, Options(head="fcn", tiles=320, overlap=0.1)), 1216, 1600)
    print("largest difference", float(difference), "with windows too small", float((small - reference).abs().max()))
    assert reference.max(0).values.std() > 0.1 and difference < 1e-3
    assert (small - reference).abs().max() > 1e-3  # the check can fail


MEMORY = r"""
import json, psutil, re, sys, torch
from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.heads.model import Model
from trunkline.tasks.contract import Sample
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.task import Segmentation
options = Options(head="deeplabv3", tiles=int(sys.argv[1]), overlap=0.5)
task = Segmentation(options, Preprocessing(), {"classes": [str(n) for n in range(21)]})
trunk = backbone("resnet50", output_stride=16)
model = Model(trunk, {"segmentation": task.head(trunk)}, Preprocessing()).eval()
def peak():  # getrusage's would be that of the process that started this one, where it was larger
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
photo = torch.randint(0, 256, (3, 3000, 4000), dtype=torch.uint8)
before = psutil.Process().memory_info().rss
with torch.inference_mode():
    (found,) = task.infer(model, task.collate([task.transform(False)(Sample("a", "a", photo))]))
print(json.dumps({"above": peak() - before, "shape": found.labels.shape}))
"""


def test_windows_on_a_photo_of_12_megapixels_stay_small():
    done = subprocess.run([sys.executable, "-c", MEMORY, "1024"], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    print(f"{said['above'] / 2**30:.2f} GiB above the model")
    assert said["shape"] == [3000, 4000] and 2**26 < said["above"] < 2 * 2**30
