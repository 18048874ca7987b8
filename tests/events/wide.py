"""Predict a minute and then two hours of wide features, and print the most memory in MiB after each."""

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.video.given import GivenFeatures
from trunkline.heads.model import Model
from trunkline.tasks.events.options import Options
from trunkline.tasks.events.task import Events

CHANNELS = 2048
torch.set_num_threads(1)
folder = Path(sys.argv[1])
facts = {"classes": ["a", "b"], "channels": CHANNELS, "seconds": 0.16, "even": 0.16, "rate": 0.0}
task = Events(Options(), Preprocessing(), facts)
trunk = GivenFeatures()
model = Model(trunk, {"events": task.head(trunk)}, Preprocessing()).eval()
for name, steps in (("minute", 375), ("hours", 45_000)):
    file = folder / f"{name}.npy"
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (steps, CHANNELS)})
        for _ in range(steps // 125):
            out.write(np.full((125, CHANNELS), 0.1, np.float32).tobytes())
    with torch.inference_mode():
        task.infer(model, task.collate([task.read(str(file))]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
