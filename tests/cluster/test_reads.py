"""How often an update reads back from its device, by place: the table in docs/benchmarks.md."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from counting import Reads
from test_operations import SIZE, micro_batches, model_of

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model, losses
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.pixels.pixel_losses import Weighted
from trunkline.heads.pixels.segmentation import SegmentationHead

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
ASIDE = (
    "Report.numbers",
    "_cross_entropy",
)  # of a GPU the report is read an update later, and the CPU has a form of its own


def pixels(loss: str) -> Model:
    trunk = backbone("narrow", output_stride=16)
    weighted = Weighted(0.0, **{loss: 1.0})
    head = SegmentationHead("deeplabv3plus", trunk.channels, 3, output_stride=16, weighted=weighted)
    return Model(trunk, {"task": head}, Preprocessing())


def one_stage() -> tuple[Model, list[Batch]]:
    trunk = Pyramid(backbone("narrow"), "conv", 32)
    model = Model(trunk, {"task": OneStageHead(32, trunk.strides, 2)}, Preprocessing())
    targets = {"boxes": [torch.tensor([[10.0, 10, 40, 40]])], "labels": [torch.tensor([1])]}
    images = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    return model, [Batch("task", ["a"], images, torch.tensor([[SIZE, SIZE]]), targets)]


CASES = {
    "a classifier": lambda: (model_of("resnet50", "narrow"), micro_batches("resnet50", 1)),
    "cross-entropy of pixels": lambda: (model_of("deeplabv3plus", "narrow"), micro_batches("deeplabv3plus", 1)),
    "Dice": lambda: (pixels("dice"), micro_batches("deeplabv3plus", 1)),
    "focal": lambda: (pixels("focal"), micro_batches("deeplabv3plus", 1)),
    "Lovász": lambda: (pixels("lovasz"), micro_batches("deeplabv3plus", 1)),
    "the one-stage head": one_stage,
    "Mask R-CNN": lambda: (model_of("mask_rcnn", "narrow"), micro_batches("mask_rcnn", 1)),
    "fp16's scaler": lambda: (model_of("resnet50", "narrow"), micro_batches("resnet50", 1)),
}


def counted(name: str) -> Counter[str]:
    """Count in the second update; what is of the first alone does not matter."""
    torch.manual_seed(0)
    model, batches = CASES[name]()
    machine = Machine(
        "cpu", "fp16" if "fp16" in name else "fp32", channels_last=False, deterministic=True, threads=1, loaders=0
    )
    learning = Learning(Optimizer("sgd", lr=1e-3, clip=1.0), Schedule("constant"), Average(0.9), 10, 5)
    engine = TorchEngine(model, losses, learning, machine)
    engine.update(batches)
    with Reads() as reads:
        engine.update(batches)
    return Counter({place: n for place, n in reads.found.items() if not place.endswith(ASIDE)})


@pytest.mark.parametrize("name", CASES)
def test_the_page_names_the_places(name):
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |"))
    total, places = (cell.strip() for cell in row.split("|")[2:4])
    stated = Counter({place: int(number) for place, number in re.findall(r"`([^`]+)` (\d+)", places)})
    found = counted(name)
    assert found == stated, f"{name}: {dict(found)}"
    assert int(total) == found.total()
