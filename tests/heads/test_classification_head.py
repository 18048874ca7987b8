import math

import numpy as np
import pytest
import torch
from torch import nn

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.heads.classification import ClassificationHead, ClassPrediction
from trunkline.heads.contract import Batch, Head
from trunkline.heads.model import Model


def given(n=6, channels=5, classes=4, seed=0):
    torch.manual_seed(seed)
    features = {"c5": torch.randn(n, channels, 3, 2)}
    labels = torch.arange(n) % classes
    return features, Batch("classification", [f"s{i}" for i in range(n)], targets={"label": labels})


def by_hand(c5, weight, bias, labels, smoothing):
    """Logits, probabilities and mean cross-entropy in fp64 loops."""
    k, probabilities, losses = len(bias), [], []
    for maps, label in zip(c5.double().numpy(), labels.tolist(), strict=True):
        pooled = [m.sum() / m.size for m in maps]
        logits = [sum(w * x for w, x in zip(row, pooled, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        total = sum(math.exp(v) for v in logits)
        p = [math.exp(v) / total for v in logits]
        target = [(1 - smoothing) * (j == label) + smoothing / k for j in range(k)]
        losses.append(-sum(t * math.log(q) for t, q in zip(target, p, strict=True)))
        probabilities.append(p)
    return np.array(probabilities), sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_predictions_are_the_formulas(smoothing):
    features, batch = given()
    head = ClassificationHead(5, 4, label_smoothing=smoothing)
    weight, bias = head.fc.weight.detach().double().numpy(), head.fc.bias.detach().double().numpy()
    probabilities, loss = by_hand(features["c5"], weight, bias, batch.targets["label"], smoothing)
    found = head.losses(features, batch)
    assert list(found) == ["cross_entropy"] and found["cross_entropy"].ndim == 0
    assert found["cross_entropy"].item() == pytest.approx(loss, rel=1e-6)
    predictions = head.predict(features, batch)
    assert [p.id for p in predictions] == batch.ids
    assert all(isinstance(p, ClassPrediction) and p.probabilities.dtype == np.float32 for p in predictions)
    np.testing.assert_allclose(np.stack([p.probabilities for p in predictions]), probabilities, rtol=1e-5)


@pytest.mark.parametrize("kept", [False, True])
def test_condensed_maps_give_the_same_bits(kept):
    features, batch = given()
    head = ClassificationHead(5, 4, kept=nn.Linear(5, 7) if kept else None).eval()
    small = head.condense(features)
    assert small["c5"].shape == (6, 5, 1, 1)
    assert torch.equal(head.losses(features, batch)["cross_entropy"], head.losses(small, batch)["cross_entropy"])
    for a, b in zip(head.predict(features, batch), head.predict(small, batch), strict=True):
        np.testing.assert_array_equal(a.probabilities, b.probabilities)


def test_append_keeps_the_classifier_and_trains_the_new_layer():
    features, batch = given()
    kept = nn.Linear(5, 7)
    before = kept.weight.clone()
    head = ClassificationHead(5, 4, kept=kept)
    assert {n: p.requires_grad for n, p in head.named_parameters()} == {
        "fc.weight": False, "fc.bias": False, "extra.weight": True, "extra.bias": True,
    }  # fmt: skip
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.5)
    first = head.losses(features, batch)["cross_entropy"]
    for _ in range(50):
        optimizer.zero_grad()
        head.losses(features, batch)["cross_entropy"].backward()
        optimizer.step()
    assert torch.equal(head.fc.weight, before)
    assert head.losses(features, batch)["cross_entropy"] < 0.8 * first
    logits = kept(features["c5"].mean((2, 3)))
    expected = (logits @ head.extra.weight.T + head.extra.bias).softmax(1).detach().numpy()
    found = np.stack([p.probabilities for p in head.eval().predict(features, batch)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_kept_classifier_of_another_trunk_is_refused():
    with pytest.raises(ValueError, match="reads 9 channels, the trunk gives 5"):
        ClassificationHead(5, 4, kept=nn.Linear(9, 7))


@pytest.mark.parametrize("kept", [False, True])
def test_dropout_acts_in_training_on_the_layer_that_learns(kept):
    features, batch = given(channels=200)
    head = ClassificationHead(200, 4, dropout=0.5, kept=nn.Linear(200, 300) if kept else None)
    learns = head.extra if kept else head.fc
    seen = []
    learns.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    torch.manual_seed(0)
    head.train().losses(features, batch)
    head.eval().losses(features, batch)
    trained, evaluated = seen
    dropped = trained == 0
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.06) and not (evaluated == 0).any()
    torch.testing.assert_close(trained[~dropped], 2 * evaluated[~dropped])


def test_softmax_and_loss_are_taken_in_fp32_under_autocast():
    torch.manual_seed(0)
    features, batch = given(channels=64, classes=4)
    head = ClassificationHead(64, 4)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
        found = np.stack([p.probabilities for p in head.predict(features, batch)])
        loss = head.losses(features, batch)["cross_entropy"]
    assert logits.dtype == torch.bfloat16 and loss.dtype == torch.float32
    np.testing.assert_array_equal(found, logits.float().softmax(1).detach().numpy())
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)  # bf16 would miss by 1e-3


def test_fp64_stays_fp64():
    features, batch = given()
    head = ClassificationHead(5, 4).double()
    assert head.losses({"c5": features["c5"].double()}, batch)["cross_entropy"].dtype == torch.float64


def test_names_and_initialisation_are_torchvisions():
    torchvision = pytest.importorskip("torchvision")
    head = ClassificationHead(512, 1000)
    theirs = {k for k in torchvision.models.resnet18().state_dict() if k.startswith("fc.")}
    assert set(head.state_dict()) == theirs
    assert 0.99 / math.sqrt(512) < head.fc.weight.abs().max() <= 1 / math.sqrt(512)
    assert isinstance(head, Head) and head.needs == ("c5",)


def test_pictures_are_normalised_by_the_mean_and_std_of_the_weights():
    trunk, preprocessing = backbone("narrow"), Preprocessing(mean=(0.1, 0.5, 0.9), std=(0.2, 0.4, 0.8))
    model = Model(trunk, {"task": ClassificationHead(trunk.channels["c5"], 2)}, preprocessing)
    images = torch.tensor([0, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    found = model.normalise(Batch("task", ["a", "b"], images))
    wanted = torch.tensor([(0.0 - 0.1) / 0.2, (0.4 - 0.5) / 0.4, (1.0 - 0.9) / 0.8]).view(1, 3, 1, 1)
    torch.testing.assert_close(found, wanted.expand_as(found))
