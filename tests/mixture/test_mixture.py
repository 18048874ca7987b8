"""Two tasks on one trunk against a loop written out by hand: the same bits, whoever computes."""

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_work import at_call, die, final, in_child
from torch import nn

from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_sample
from trunkline.pipelines.models.build import build
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.knobs import resolve

FILE = str(Path(__file__).parents[1] / "two_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "checkpoints.updates": 2}  # fmt: skip
UPDATES = 4


def resolved(**more):
    return resolve(FILE, {**PLAIN, "updates": UPDATES, **more})


class Batches:
    """The micro-batches of one task, in the order that its seed gives: drawn and put together by hand."""

    def __init__(self, task, name: str, size: int, micro: int, seed: int):
        self.task, self.samples, self.size, self.micro = task, task.samples("train"), size, micro
        self.seed, self.transform = key(seed, "phase", 0, name), task.transform(True)

    def of(self, number: int, update: int) -> list:
        per_epoch = len(self.samples) // self.size
        epoch, place = divmod(number, per_epoch)
        draw = np.random.Generator(np.random.PCG64(key(self.seed, "order", epoch)))
        mine = draw.permutation(len(self.samples))[place * self.size : (place + 1) * self.size]
        made = []
        for m in range(self.size // self.micro):
            drawn = []
            for index in mine[m * self.micro : (m + 1) * self.micro]:
                sample = self.samples[int(index)]
                seed_sample(key(self.seed, epoch, int(index), 0))
                drawn.append(self.transform(sample))
            made.append(replace(self.task.collate(drawn), key=key(self.seed, "model", update, m)))
        return made


def by_hand(recipe, updates: int) -> dict[str, torch.Tensor]:
    """Gradients of micro-batches, each of the task's weight times M over its number, summed in fp64 and divided by M."""
    recipe = placed(recipe)
    tasks, model, _ = build(recipe)
    model.train()
    data = {name: Batches(tasks[name], name, recipe.batches[name].size, recipe.batches[name].micro, recipe.seed)
            for name in tasks}  # fmt: skip
    weights = {"classification": 1.0, "detection": 0.3}
    parameters = [p for p in model.parameters() if p.requires_grad]
    wide = [p for p in parameters if p.ndim > 1]
    groups = [
        {"params": wide, "weight_decay": 1e-3},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.005, momentum=0.9)
    buffers = [b for n, b in model.named_buffers() if n in model.state_dict()]
    live = {n: t for n, t in [*model.named_parameters(), *model.named_buffers()] if n in model.state_dict()}
    shadow = {n: t.detach().clone() for n, t in live.items()}
    for update in range(updates):
        made = {"classification": data["classification"].of(update, update)}
        made["detection"] = data["detection"].of(update // 2, update) if update % 2 else []
        count = sum(len(batches) for batches in made.values())
        sums: dict[nn.Parameter, torch.Tensor] = {}
        first = [b.clone() for b in buffers]
        means = [torch.zeros_like(b, dtype=torch.float64) for b in buffers]
        for name, batches in made.items():
            for batch in batches:
                total = torch.stack([v.float() for v in model.losses(batch).values()]).sum()
                for mean, b, start in zip(means, buffers, first, strict=True):
                    mean.add_(b)
                    b.data.copy_(start)
                (total * (weights[name] * count / len(batches))).backward()
                for p in parameters:
                    if p.grad is not None:
                        sums[p] = sums.get(p, torch.zeros_like(p, dtype=torch.float64)) + p.grad
                        p.grad = None
        for p in parameters:
            p.grad = (sums[p] / count).to(p.dtype) if p in sums else None
        for mean, b in zip(means, buffers, strict=True):
            b.copy_(mean / count if b.is_floating_point() else (mean / count).round())
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * ((1 + math.cos(math.pi * update / updates)) / 2)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(0.9, (1 + update) / (10 + update))
        for n, t in live.items():
            shadow[n].lerp_(t.detach(), 1 - decay) if t.is_floating_point() else shadow[n].copy_(t)
    return {f"model:{n}": t.detach() for n, t in live.items()} | {f"ema:{n}": t for n, t in shadow.items()}


def wrong(run: Path, wanted: dict[str, torch.Tensor]) -> list[str]:
    found = final(run)
    assert wanted.keys() <= found.keys()
    return [n for n in wanted if not torch.equal(wanted[n], found[n])]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def wanted(cache) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    return by_hand(resolved().recipe, UPDATES)


@pytest.fixture(scope="module")
def one(cache, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "one"
    assert in_child(resolved(), run) == 0
    return run


def test_one_process_is_the_loop_by_hand(one, wanted):
    assert wrong(one, wanted) == []


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_workers_and_the_stages_that_can_are_the_loop_by_hand(size, wanted, tmp_path, monkeypatch):
    import os

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    given = {k: str(v) for k, v in {**PLAIN, "updates": UPDATES}.items()}
    zeros = [None, 0, *([1] if size == 2 else [])]
    runs = [{"recipe": FILE, "given": given, "run": str(tmp_path / f"run-{zero}"), "zero": zero} for zero in zeros]
    run_local(Job("run_work:several", {"runs": runs}, 120.0), size, tmp_path / "logs", 2)
    assert {zero: wrong(tmp_path / f"run-{zero}", wanted) for zero in zeros} == {zero: [] for zero in zeros}


def test_a_head_without_a_micro_batch_does_not_move(cache, tmp_path):
    from trunkline.cluster.checkpoint import read_tensors

    run = tmp_path / "run"
    assert in_child(resolved(updates=3, **{"checkpoints.keep": 9, "checkpoints.updates": 1}), run) == 0
    at = [read_tensors(run / f"checkpoints/{u:06d}/model.safetensors") for u in (1, 2, 3)]
    head = [n for n in at[0] if n.startswith("heads.detection.")]
    assert any(not torch.equal(at[0][n], at[1][n]) for n in head), "the second update has boxes"
    assert all(torch.equal(at[1][n], at[2][n]) for n in head), "the third has none: momentum and decay do not move it"


def test_a_task_of_weight_0_changes_no_bit_of_the_others(cache, tmp_path):
    """Neither where it has data of its own nor in the keys: the trunk and the other head are those of the task alone."""
    both, alone = tmp_path / "both", tmp_path / "alone"
    given = {"loss_weights.detection": 0}
    assert in_child(resolved(**given), both) == 0
    whole = resolved()
    recipe = replace(
        whole.recipe, tasks={"classification": whole.recipe.tasks["classification"]}, loss_weights={}, mix={},
        batches={}, batch=whole.recipe.batches["classification"],
    )  # fmt: skip
    assert in_child(replace(whole, recipe=recipe), alone) == 0
    a, b = final(both), final(alone)
    assert [n for n in b if n.startswith("model:") and not torch.equal(a[n], b[n])] == []
    scores = json.loads((both / "scores.json").read_text())
    assert scores["classification/top1"] == json.loads((alone / "scores.json").read_text())["top1"]
    assert "detection/AP" in scores, "it is scored all the same"


@pytest.mark.parametrize(
    "moment",
    [
        lambda: at_call(TorchEngine, "_step", 3, die),
        pytest.param(lambda: at_call(TorchEngine, "save", 2, die), marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(moment, one, cache, tmp_path):
    run = tmp_path / "run"
    assert in_child(resolved(), run, moment) == -signal.SIGKILL
    assert in_child(resolved(), run) == 0
    a, b = final(run), final(one)
    assert a.keys() == b.keys() and [n for n in a if not torch.equal(a[n], b[n])] == []


def test_every_task_has_its_files_and_scores(one):
    scores = json.loads((one / "scores.json").read_text())
    assert {"classification/top1", "detection/AP50"} <= scores.keys()
    state = json.loads((one / "checkpoints/000004/state.json").read_text())
    assert state["best"]["metric"] == "classification/top1"
    there = {str(p.relative_to(one)) for p in one.rglob("*") if p.is_file()}
    for name in ("classification", "detection"):
        assert {
            f"data/{name}/train.tsv",
            f"data/{name}/val.tsv",
            f"predictions/{name}/val.jsonl",
            f"weights/{name}.safetensors",
        } <= there


def test_evaluate_and_predict_take_a_run_of_several(one, cache, tmp_path, capsys):
    import trunkline
    from trunkline.pipelines.command.cli import main

    whole = trunkline.evaluate(str(one), loaders=0, threads=1, batch=10)
    stored = json.loads((one / "scores.json").read_text())
    assert {n: v for n, v in whole.metrics.items() if v is not None} == {
        n: stored[n] for n in whole.metrics if stored[n] is not None
    }
    alone = trunkline.evaluate(str(one), task="classification", loaders=0, threads=1, batch=10)
    assert alone.metrics["top1"] == stored["classification/top1"]
    photo = next(
        Path(json.loads((one / "recipe.json").read_text())["resolved"]["tasks"]["detection"]["data"]).rglob("*.jpg")
    )
    assert main(["predict", str(one), str(photo)]) == 2
    assert "say which with task=, one of classification, detection" in capsys.readouterr().err
    (found,) = trunkline.predict(str(one), photo, task="classification", threads=1)
    assert found.label
    published = tmp_path / "one.safetensors"
    shutil.copy(one / "weights/classification.safetensors", published)
    (again,) = trunkline.predict(str(published), photo, threads=1)
    assert again.top == found.top
    assert main(["check", str(one), "task=detection", "loaders=0"]) == 0
    assert "objects in 6 classes" in capsys.readouterr().out
    assert main(["check", str(one), "loaders=0"]) == 2
    assert "say which with task=" in capsys.readouterr().err
    assert main(["evaluate", str(one), "task=boxes"]) == 2
    assert "task=boxes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_weights.detect": 1}, r"loss_weights.detect: there is no such task; nearest: detection"),
        ({"loss_weights.detection": -1}, r"loss_weights.detection=-1.0: expected a number from 0, not infinite"),
        ({"loss_weights.detection": "inf"}, r"loss_weights.detection=inf: expected a number from 0, not infinite"),
        ({"loss_weights.detection": "none"}, r"loss_weights.detection=none: expected a number"),
        ({"loss_weights": 0.5}, r"loss_weights=0.5: expected a value for each name; give loss_weights.NAME=VALUE"),
        ({"loss_weights.detection": 0, "loss_weights.classification": 0}, r"every task has the weight 0"),
        ({"mix.detection": 0}, r"mix.detection=0.0: expected a number above 0"),
        ({"mix.detection": 1e9}, r"mix.detection=1000000000.0: expected a number above 0 and at most 100"),
        (
            {"batch.size": 64},
            r"batch.size=64: every task has batches of its own here; give batches.classification.size",
        ),
        ({"mix.classification": 0.5}, r"mix.classification=0.5, mix.detection=0.5: an update would be empty"),
        ({"batches.detection.micro": 2}, r"batches.detection.micro=2 does not divide batches.detection.size=3"),
        (
            {"batches.boxes.size": 2},
            r"batches.boxes.size=2: there is no such task; there are classification, detection",
        ),
    ],
)
def test_a_wrong_mixture_is_one_clear_line(given, message):
    with pytest.raises(RecipeError, match=message):
        resolved(**given)


def test_a_task_that_no_update_takes_is_told(cache, tmp_path, capsys):
    from trunkline.pipelines.training.train import train

    train(resolved(updates=1, **{"mix.detection": 1e-3}), tmp_path / "run")
    said = capsys.readouterr().err
    assert "detection: mix.detection=0.001 gives it no batch in 1 updates: it learns nothing here" in said


def test_a_metric_that_two_tasks_could_mean_is_asked_for(cache, tmp_path):
    from trunkline.pipelines.training.train import train

    with pytest.raises(RecipeError, match=r"evaluation.metric=AP5: no task has such metric.*detection/AP50"):
        train(resolved(**{"evaluation.metric": "AP5"}), tmp_path / "run")
