"""Acceptance of segmentation on real pictures and weights, beside a plain loop around torchvision's and smp's modules."""

import json
import time
from pathlib import Path

import pytest
import torch
from real_run import run
from torch import nn
from torch.nn import functional as F

from trunkline.ground.keys import key
from trunkline.heads.model import Model
from trunkline.pipelines.bench.plain_segment import deeplab
from trunkline.pipelines.evaluation.measure import score
from trunkline.pipelines.feeding.draws import Draws
from trunkline.pipelines.feeding.mixture import Mixture, Share
from trunkline.pipelines.feeding.ordered import in_order
from trunkline.pipelines.feeding.plan import Plan
from trunkline.pipelines.feeding.updates import updates
from trunkline.pipelines.models.build import build
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.runs.machine import cores

pytestmark = pytest.mark.slow
smp = pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(autouse=True)
def all_cores():
    """Both sides have the same threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    yield
    torch.set_num_threads(before)


def settings(shared_data: Path, **changed) -> dict[str, str]:
    own = {"data": str(shared_data), "weights": str(shared_data / "weights/resnet50_v1.safetensors"), "crop": "256",
           "batch": "8", "epochs": "20", "machine.channels_last": "false"}  # fmt: skip
    return own | {k.replace("__", "."): str(v) for k, v in changed.items()}


def plain_of(ours: Model, dropout: float = 0.5) -> nn.Module:
    """torchvision's dilated ResNet-50 under smp's decoder and last layer, with the same tensors."""
    plain = deeplab("deeplabv3plus", 21, dropout)
    for stage in (plain.backbone.layer2, plain.backbone.layer3):  # these weights stride in the first convolution
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    first = plain.backbone.layer4[0].conv2  # so it comes behind what would stride, and sees every second pixel too
    first.dilation = first.padding = (2, 2)
    plain.load_state_dict({n.removeprefix("heads.segmentation."): t for n, t in ours.state_dict().items()})
    return plain


def plain_loop(plain: nn.Module, ours: Model, batches, total: int, lr: float = 0.01):
    """SGD with a polynomial rate, decay for all but norms and biases; the loss of every update."""
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    spared = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 - i / total) ** 0.9)
    plain.train()
    for update in batches:
        (batch,) = update.micro_batches
        loss = F.cross_entropy(plain(ours.normalise(batch)), batch.targets["mask"].long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


def begun(shared_data: Path, **changed):
    recipe = resolve("segment", settings(shared_data, **changed)).recipe
    tasks, model, _ = build(recipe)
    task = tasks["segmentation"]
    plan = Plan.over(task.samples("train"), 8, 8, key(recipe.seed, "phase", 0))
    return task, model, plan, Draws(task, task.samples("train"), plan.seed, training=True)


def test_twenty_updates_are_those_of_a_plain_loop(shared_data, tmp_path):
    changed = {"tasks__segmentation__dropout": 0.0}
    _, model, plan, draws = begun(shared_data, **changed)
    theirs = list(
        plain_loop(
            plain_of(model, 0.0),
            model,
            updates({"segmentation": draws}, Mixture((Share("segmentation", plan),)), 0, 20),
            20,
        )
    )
    words = [f"{k}={v}" for k, v in settings(shared_data, **changed).items() if k != "epochs"]
    words += ["updates=20", "evaluation.every=0", "machine.precision=fp32"]
    done, _ = run("train", "segment", *words, "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    ours = [line["losses"]["segmentation/cross_entropy"] for line in lines if "losses" in line]
    print("largest difference", max(abs(a - b) for a, b in zip(ours, theirs, strict=True)), ours[-1], theirs[-1])
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_voc_is_learnt_as_by_a_plain_loop(shared_data, tmp_path):
    """20 classes from 90 pictures: little to expect in absolute terms."""
    words = [f"{k}={v}" for k, v in settings(shared_data).items() if k != "machine.channels_last"]
    done, seconds = run("train", "segment", *words, "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    print(f"ours: mIoU {ours['mIoU']:.4f} in {seconds:.0f} s")
    done, seconds = run("evaluate", tmp_path / "run", "crf=true", "--json")
    crf = json.loads(done.stdout)["mIoU"]
    print(f"with a CRF {crf:.4f} in {seconds:.0f} s")
    task, model, plan, draws = begun(shared_data)
    total, start = plan.length(20, None), time.time()
    plain = plain_of(model)
    losses = list(
        plain_loop(
            plain, model, updates({"segmentation": draws}, Mixture((Share("segmentation", plan),)), 0, total), total
        )
    )
    state = plain.state_dict().items()
    model.load_state_dict({n if n.startswith("backbone.") else f"heads.segmentation.{n}": t for n, t in state})
    validation = task.samples("val")
    scores, _ = score(model, task, validation, in_order(Draws(task, validation, 0, training=False), 4), "fp32")
    print(f"theirs: mIoU {scores.metrics['mIoU']:.4f} in {time.time() - start:.0f} s, last loss {losses[-1]:.3f}")
    assert ours["mIoU"] >= scores.metrics["mIoU"] - 0.015
