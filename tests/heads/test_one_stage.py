"""The one-stage head: who is assigned what, its losses, and what it finds once it has learnt a few pictures by heart."""

import numpy as np
import pytest
import torch

from trunkline.backbones import backbone
from trunkline.backbones.pyramid import Pyramid
from trunkline.heads.contract import Batch
from trunkline.heads.dense import assign
from trunkline.heads.model import Model
from trunkline.heads.one_stage import OneStageHead


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    trunk = backbone("narrow")
    pyramid = Pyramid(trunk, "conv", 32)
    return Model(pyramid, {"boxes": OneStageHead(32, pyramid.strides, 3)}, trunk.preprocessing)


def batch(boxes, labels, side=128) -> Batch:
    torch.manual_seed(1)
    images = torch.randint(0, 255, (len(boxes), 3, side, side), dtype=torch.uint8)
    targets = {"boxes": [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in boxes],
               "labels": [torch.tensor(c, dtype=torch.int64) for c in labels]}  # fmt: skip
    return Batch("boxes", [str(i) for i in range(len(boxes))], images, targets=targets, key=3)


def grid(side: int, stride: int) -> torch.Tensor:
    centres = (torch.arange(side // stride) + 0.5) * stride
    return torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).reshape(-1, 2)


def test_an_object_gets_the_places_within_it_that_overlap_it_best():
    places = grid(64, 8)
    strides = torch.full((64,), 8.0)
    boxes = torch.cat([places - 10, places + 10], 1)
    truth = torch.tensor([[2.0, 2.0, 22.0, 22.0], [30.0, 30.0, 62.0, 62.0]])
    scores = torch.full((64, 2), 0.5)
    at, of, quality = assign(scores, boxes, places, strides, truth, torch.tensor([0, 1]))
    for place, owner in zip(at, of, strict=True):
        x, y = places[place]
        assert truth[owner, 0] < x < truth[owner, 2] and truth[owner, 1] < y < truth[owner, 3]
    assert set(of.tolist()) == {0, 1} and (of == 0).sum() <= 10
    best = at[of == 0][quality[of == 0].argmax()]
    assert torch.equal(places[best], torch.tensor([12.0, 12.0])) and quality[of == 0].max() == pytest.approx(1.0)
    assert ((quality >= 0) & (quality <= 1)).all()


def test_a_box_between_all_places_gets_the_nearest_one():
    places = grid(64, 8)
    truth = torch.tensor([[5.0, 5.0, 7.0, 7.0]])
    boxes = torch.cat([places - 4, places + 4], 1)
    at, of, quality = assign(torch.full((64, 1), 0.1), boxes, places, torch.full((64,), 8.0), truth, torch.tensor([0]))
    assert at.tolist() == [0] and of.tolist() == [0] and quality.item() > 0


def test_a_place_within_two_objects_goes_to_the_one_that_it_overlaps_most():
    places = torch.tensor([[20.0, 20.0]])
    truth = torch.tensor([[0.0, 0.0, 40.0, 40.0], [12.0, 12.0, 28.0, 28.0]])
    boxes = torch.tensor([[11.0, 11.0, 29.0, 29.0]])
    at, of, _ = assign(torch.full((1, 2), 0.5), boxes, places, torch.tensor([8.0]), truth, torch.tensor([0, 1]))
    assert at.tolist() == [0] and of.tolist() == [1]


def test_losses_are_finite_and_reach_every_parameter(model):
    found = model.train().losses(batch([[[10, 10, 60, 70], [40, 40, 44, 44]], []], [[0, 2], []]))
    assert found.keys() == {"boxes/classes", "boxes/boxes"} and all(v > 0 and torch.isfinite(v) for v in found.values())
    sum(found.values()).backward()
    assert all(p.grad is not None for p in model.heads.parameters())
    empty = model.losses(batch([[], []], [[], []]))
    assert empty["boxes/boxes"] == 0 and torch.isfinite(empty["boxes/classes"])
    sum(empty.values()).backward()


def test_a_tiny_overlap_is_not_lost_in_the_measure(model):
    """Overlaps to the power of six go below what fp32 holds; an object whose boxes are all bad must still learn."""
    places = grid(64, 8)
    boxes = torch.cat([places - 0.02, places + 0.02], 1)
    truth = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    at, _, quality = assign(torch.full((64, 1), 1e-4), boxes, places, torch.full((64,), 8.0), truth, torch.tensor([0]))
    assert len(at) and quality.max() > 0


def test_it_learns_a_few_pictures_by_heart(model):
    data = batch([[[4, 4, 36, 40]], [[30, 10, 62, 50], [2, 40, 22, 62]]], [[0], [1, 2]], side=64)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for _ in range(70):
        optimizer.zero_grad()
        sum(model.losses(data).values()).backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        found = model.predict(data)
    for p, boxes, labels in zip(found, data.targets["boxes"], data.targets["labels"], strict=True):
        n = len(labels)
        assert sorted(p.labels[:n]) == sorted(labels.tolist()) and (p.scores[:n] > 0.5).all()
        for box, label in zip(boxes.numpy(), labels.tolist(), strict=True):
            assert np.abs(p.boxes[:n][p.labels[:n] == label][0] - box).max() < 6
        assert (np.diff(p.scores) <= 0).all() and len(p.scores) <= 100


def test_no_more_than_the_limit_and_nothing_below_the_score(model):
    head = model.heads["boxes"]
    head.score, head.detections = 0.0, 7
    with torch.inference_mode():
        (found,) = model.eval().predict(batch([[]], [[]]))
    assert len(found.scores) == 7
    head.score = 0.99
    with torch.inference_mode():
        (found,) = model.predict(batch([[]], [[]]))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)
