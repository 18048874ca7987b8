"""The head of several labels: padding counts for nothing, unknown labels count for nothing, and no host is asked."""

import math

import numpy as np
import pytest
import torch

from trunkline.backbones.contract import Preprocessing
from trunkline.heads.contract import HEAD, Batch
from trunkline.heads.multilabel import MultiLabelHead, pooled_inside
from trunkline.tasks.contract import Sample
from trunkline.tasks.detection.options import Options as Boxes
from trunkline.tasks.detection.transforms import eval_transform, train_transform
from trunkline.tasks.multilabel.options import Options
from trunkline.tasks.multilabel.task import MultiLabel


def head(classes: int = 3, **given) -> MultiLabelHead:
    torch.manual_seed(0)
    return MultiLabelHead(4, classes, stride=8, **given).eval()


def batch(labels, sizes=None) -> Batch:
    labels = torch.as_tensor(labels)
    return Batch("multilabel", [str(n) for n in range(len(labels))], sizes=sizes, targets={"labels": labels})


@pytest.mark.parametrize(("height", "width"), [(24, 40), (17, 33), (8, 1), (40, 40)])
def test_a_picture_is_pooled_over_its_own_cells_alone(height, width):
    """By hand: the cells whose upper left pixel is in the picture; what is beside them may be anything."""
    maps = torch.randn(1, 4, 5, 5)
    mean = torch.zeros(4)
    own = [(y, x) for y in range(5) for x in range(5) if y * 8 < height and x * 8 < width]
    for y, x in own:
        mean += maps[0, :, y, x]
    found = pooled_inside(maps, torch.tensor([[height, width]]), 8)
    assert torch.allclose(found[0], mean / len(own), atol=1e-6)
    cells = math.ceil(height / 8), math.ceil(width / 8)
    assert len(own) == cells[0] * cells[1]
    spoiled = torch.full((1, 4, 9, 9), float("nan"))
    spoiled[:, :, : cells[0], : cells[1]] = maps[:, :, : cells[0], : cells[1]]
    assert torch.allclose(pooled_inside(spoiled, torch.tensor([[height, width]]), 8), found, atol=1e-6)


def test_a_result_does_not_depend_on_what_else_is_in_the_batch():
    one, large = torch.randn(1, 4, 2, 3), torch.randn(1, 4, 6, 6)
    both = torch.randn(2, 4, 6, 6)
    both[0, :, :2, :3], both[1] = one[0], large[0]
    model = head()
    sizes = torch.tensor([[16, 20], [48, 48]])
    alone = model.predict({"c5": one}, Batch("multilabel", ["a"], sizes=sizes[:1]))
    together = model.predict({"c5": both}, Batch("multilabel", ["a", "b"], sizes=sizes))
    assert np.allclose(alone[0].probabilities, together[0].probabilities, atol=1e-6)
    plain = model.predict({"c5": one}, Batch("multilabel", ["a"]))
    assert np.allclose(alone[0].probabilities, plain[0].probabilities, atol=1e-6)
    assert alone[0].probabilities.dtype == np.float32 and alone[0].probabilities.shape == (3,)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
def test_the_loss_is_the_mean_over_known_pairs(dtype):
    model, features = head(), {"c5": torch.randn(2, 4, 3, 3)}
    labels = [[1, 0, -1], [-1, 1, -1]]
    logits = model(features, batch(labels)).tolist()
    terms = [
        math.log1p(math.exp(-x)) if y else math.log1p(math.exp(x))
        for row, said in zip(logits, labels, strict=True)
        for x, y in zip(row, said, strict=True)
        if y >= 0
    ]
    found = model.losses(features, batch(torch.tensor(labels, dtype=dtype)))
    assert list(found) == ["binary_cross_entropy"] and len(terms) == 3
    assert float(found["binary_cross_entropy"].detach()) == pytest.approx(sum(terms) / 3, abs=1e-6)


def test_where_nothing_is_known_the_loss_is_0_and_can_be_differentiated():
    model = head()
    features = {"c5": torch.randn(2, 4, 3, 3, requires_grad=True)}
    loss = model.losses(features, batch([[-1, -1, -1]] * 2))["binary_cross_entropy"]
    loss.backward()
    assert float(loss.detach()) == 0 and (features["c5"].grad == 0).all() and (model.fc.weight.grad == 0).all()


def test_unknown_labels_move_nothing():
    model, features = head(), {"c5": torch.randn(1, 4, 3, 3)}
    model.losses(features, batch([[1, -1, 0]]))["binary_cross_entropy"].backward()
    assert (model.fc.weight.grad[1] == 0).all() and (model.fc.weight.grad[[0, 2]] != 0).any()


def test_the_loss_is_in_fp32_under_autocast():
    model, features = head(), {"c5": torch.randn(2, 4, 3, 3)}
    with torch.autocast("cpu", torch.bfloat16):
        assert model.losses(features, batch([[1, 0, 1]] * 2))["binary_cross_entropy"].dtype == torch.float32
        assert model.losses(features, batch([[1, 0, 1]] * 2, torch.tensor([[9, 9]] * 2)))[
            "binary_cross_entropy"
        ].isfinite()


def test_it_runs_where_there_are_no_numbers():
    """On the meta device nothing can be read by the host; memory is counted there."""
    model = MultiLabelHead(4, 3, stride=8).to("meta")
    sizes, labels = (
        torch.empty(2, 2, dtype=torch.int64, device="meta"),
        torch.empty(2, 3, dtype=torch.int8, device="meta"),
    )
    features = {"c5": torch.empty(2, 4, 3, 3, device="meta")}
    for one in (None, sizes):
        loss = model.losses(features, Batch("multilabel", ["a", "b"], sizes=one, targets={"labels": labels}))
        loss["binary_cross_entropy"].backward()
        assert loss["binary_cross_entropy"].shape == ()


def test_condensed_maps_give_the_same():
    model, features = head(), {"c5": torch.randn(2, 4, 3, 3)}
    assert torch.equal(model(features, batch([[1, 0, 1]] * 2)), model(model.condense(features), batch([[1, 0, 1]] * 2)))
    assert all(hasattr(model, name) for name in HEAD)
    assert [*model.published(model.state_dict())] == ["fc.weight", "fc.bias"]


def task(**given) -> MultiLabel:
    return MultiLabel(Options(**given), Preprocessing(), {"classes": ["a", "b"]})


def test_whole_pictures_are_seen_as_a_detector_sees_them():
    given = {"size": 40, "longest": 60, "flip": 0.3, "sizes": (32, 40), "photometric": True}
    own, boxes = task(view="fit", **given), Boxes(**given)
    assert own.view(True) == train_transform(boxes) and own.view(False) == eval_transform(boxes)
    assert own.view(True) is not None and hash(own.view(True)) == hash(train_transform(boxes))
    assert task().view(True) is None and task().view(False) is None
    assert task(view="fit", size=480).view(False) == eval_transform(Boxes(size=480, longest=800))
    assert task(view="fit").view(False) == eval_transform(Boxes(size=800, longest=1333))


def test_batches_of_whole_pictures_say_how_large_each_is():
    own, labels = task(view="fit", size=16, longest=64, padding=1), torch.tensor([1, -1], dtype=torch.int8)
    samples = [
        own.transform(False)(Sample(str(n), str(n), torch.zeros(3, *size, dtype=torch.uint8), {"labels": labels}))
        for n, size in enumerate([(16, 20), (33, 16)])
    ]
    found = own.collate(samples)
    assert found.images.shape == (2, 3, 33, 20) and found.sizes.tolist() == [[16, 20], [33, 16]]
    wide = task(view="fit", size=16, longest=64).collate(samples)
    assert wide.images.shape == (2, 3, 64, 64) and wide.sizes.tolist() == found.sizes.tolist()
    assert found.targets["labels"].tolist() == [[1, -1]] * 2 and found.targets["labels"].dtype == torch.int8
    assert own.targets(samples, 64, 64).keys() == {"labels"}
    alone = own.collate([own.transform(False)(Sample("a", "a", torch.zeros(3, 8, 8, dtype=torch.uint8)))])
    assert alone.targets == {}
    square = task(size=16)
    crop = square.collate(
        [square.transform(True)(Sample("a", "a", torch.zeros(3, 30, 40, dtype=torch.uint8), {"labels": labels}))]
    )
    assert crop.sizes is None and crop.images.shape == (1, 3, 16, 16) and crop.targets["labels"].tolist() == [[1, -1]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sizes": (32, 64)}, "sizes=32,64: view=crop has no use for this; leave it out, or set view=fit"),
        ({"longest": 640}, "longest=640: view=crop has no use"),
        ({"photometric": True}, "photometric=true: view=crop has no use"),
        (
            {"view": "fit", "augment": False},
            "augment=false: view=fit has no use for this; leave it out, or set view=crop",
        ),
        ({"view": "fit", "jitter": (2.0, 1.0)}, "jitter=2,1: expected two numbers above 0, the smaller one first"),
        ({"scale": (0.5, 2.0)}, "scale=0.5,2: expected two numbers above 0, the smaller one first and none above 1"),
    ],
)
def test_what_a_view_has_no_use_for_is_told(given, said):
    assert any(line.startswith(said) for line in Options(**given).problems())
    assert Options().problems() == [] and "view=fit cannot go with cached maps" in Options(view="fit").uncached()
    assert Options().uncached() and not Options(augment=False).uncached()
