"""Files of a detector for a segmenter, and the other way round: the pyramid is taken, the head left out, and both are said."""

import pytest
import torch

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.backbones.weights import LoadReport, Weights
from trunkline.pipelines.models.assembly import make_task
from trunkline.tasks.detection.options import Options as Boxes
from trunkline.tasks.fitting import pyramid_tensors
from trunkline.tasks.segmentation.options import Options as Pixels

OPTIONS = {"semantic_fpn": Pixels(head="semantic_fpn"), "fcn": Pixels(head="fcn"), "faster_rcnn": Boxes(head="faster_rcnn"),
           "one_stage": Boxes(head="one_stage")}  # fmt: skip
KINDS = {"semantic_fpn": "pool", "faster_rcnn": "pool", "one_stage": "conv"}


def made(head: str, weights: Weights | None = None, classes=("background", "a", "b")):
    """A narrow trunk, its pyramid if the head needs one, and the head, filled from weights."""
    torch.manual_seed(len(head) + (weights is not None))
    trunk = backbone("narrow")
    trunk.report = LoadReport(0, 0)
    trunk = Pyramid(trunk, KINDS[head], 32) if head in KINDS else trunk
    task = make_task("any", OPTIONS[head], Preprocessing(), {"classes": list(classes)})
    return trunk, task.head(trunk, weights)


def held(head: str) -> Weights:
    """What a file holds of such a head."""
    trunk, module = made(head)
    rest = pyramid_tensors(trunk) | module.published(module.state_dict())
    return Weights({}, "narrow", classes=("a",), rest=rest, source="FILE")


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (
            "faster_rcnn",
            "semantic_fpn",
            "a new segmenter, as the file has a detector, 16 tensors of its pyramid",
        ),
        (
            "semantic_fpn",
            "faster_rcnn",
            "a new detector, as the file has a segmenter, 16 tensors of its pyramid",
        ),
        ("one_stage", "semantic_fpn", "a new segmenter, as the file has a detector, without its pyramid"),
        ("fcn", "faster_rcnn", "a new detector, as the file has a segmenter"),
        ("faster_rcnn", "fcn", "a new segmenter, as the file has a detector, without its pyramid"),
    ],
)
def test_the_pyramid_is_taken_and_the_head_is_new(there, here, said):
    weights = held(there)
    trunk, head = made(here, weights)
    assert getattr(trunk, "body", trunk).report.note == said
    own = pyramid_tensors(trunk)
    assert all(torch.equal(t, weights.rest.get(name, torch.empty(0))) for name, t in own.items()) is (
        "16 tensors" in said or not own
    )
    torch.manual_seed(len(here) + 1)
    fresh = made(here, Weights({}, "narrow"))[1]
    assert all(torch.equal(t, fresh.state_dict()[name]) for name, t in head.state_dict().items())


def test_a_pyramid_by_its_old_names_is_taken_too():
    weights = held("faster_rcnn")
    old = {name.replace(".0.weight", ".weight").replace(".0.bias", ".bias"): t for name, t in weights.rest.items()
           if ".fpn." in name}  # fmt: skip
    weights.rest = old | {name: t for name, t in weights.rest.items() if ".fpn." not in name}
    trunk, _ = made("semantic_fpn", weights)
    assert "16 tensors of its pyramid" in trunk.body.report.note
    assert torch.equal(trunk.fpn.inner_blocks[2][0].weight, old["backbone.fpn.inner_blocks.2.weight"])
