"""What `show --memory` says, beside what a run takes."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import trunkline
from trunkline.backbones.contract import within
from trunkline.cluster.workers import Workers
from trunkline.heads.super_resolution.critic import make_critic
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.build import build
from trunkline.pipelines.recipe import Recipe
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipe.plain import to_plain
from trunkline.pipelines.runs.machine import resolve_machine
from trunkline.pipelines.training import memory
from trunkline.pipelines.training.parts import Part, mixture
from trunkline.pipelines.training.train import drawing, settle_micro_batches
from trunkline.tasks.super_resolution.scenes import write_pictures

GIB = 2**30


def shown(capsys, *words: str) -> dict:
    code = main(["show", "transfer", *words, "--memory", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["fits"] else 2)
    return found


def test_parts_add_up_and_stages_divide(scenes, capsys):
    words = [f"data={scenes}", "weights=none", "backbone=narrow", "size=32", "batch=8", "micro_batch=4", "ema=0.9",
             "optimizer.name=adamw"]  # fmt: skip
    alone, four = shown(capsys, *words), shown(capsys, *words, "--workers", "4", "--zero", "2")
    trained = 179_562  # of the narrow trunk with ten classes
    for plan in (alone, four):
        for stage in plan["stages"].values():
            assert stage["total"] == sum(v for k, v in stage.items() if k not in ("total", "refused"))
    none = alone["stages"]["none"]
    assert none["optimizer state"] == 8 * trained
    assert none["gradients and their sums"] == (4 + 4 + 8) * trained  # each micro-batch's, side by side, and summed
    assert none["weights"] == none["averaged weights"] == none["weights for evaluation"]
    assert four["stages"]["1"]["optimizer state"] == 12 * trained // 4 + 4 * trained
    assert four["stages"]["3"]["weights"] < four["stages"]["2"]["weights"]
    assert four["zero"] == "2" and four["workers"] == 4
    assert four["stages"]["1"]["refused"] is None
    assert shown(capsys, *words, "--workers", "3")["stages"]["1"]["refused"]
    assert main(["show", "transfer", *words, "--memory"]) == 0
    told = capsys.readouterr().out
    assert "forward and backward" in told and re.search(r"1 worker on this machine: \d\.\d\d of .* GiB .* fits", told)


def test_what_would_make_it_fit(scenes, capsys, monkeypatch):
    words = [f"data={scenes}", "weights=none", "backbone=resnet18", "size=224", "batch=16", "machine.precision=fp32"]
    monkeypatch.setattr(
        "trunkline.pipelines.tools.memory_plan._resident", lambda: 500 * 2**20
    )  # these tests' own grows
    needed = shown(capsys, *words)["stages"]["none"]["total"]
    monkeypatch.setattr("trunkline.pipelines.tools.memory_plan.free_memory", lambda: int(1.2 * needed))
    told = shown(capsys, *words)
    assert not told["fits"]
    advice = {line.partition(":")[0]: line for line in told["advice"]}
    (micro,) = [int(k.partition("=")[2]) for k in advice if k.startswith("micro_batch=")]
    assert micro < 16 and "network.checkpointing=true" in advice
    again = shown(capsys, *words, f"micro_batch={micro}")
    assert again["fits"] and again["stages"]["none"]["total"] <= 0.8 * 1.2 * needed
    monkeypatch.setattr("trunkline.pipelines.tools.memory_plan.free_memory", lambda: 2**20)
    assert "choose a smaller size= or backbone=" in shown(capsys, *words)["advice"][0]


def test_it_is_a_function_too(scenes):
    plan = trunkline.memory("transfer", data=scenes, weights="none", backbone="resnet18", size=32, batch=8)
    assert plan.fits and plan.need.total > 0.3 * GIB


SETTINGS = [
    (["backbone=resnet18", "size=64", "batch=8"], []),
    (["backbone=resnet50", "size=160", "batch=16"], []),
    (["backbone=resnet50", "size=160", "batch=16", "micro_batch=4", "ema=0.9", "optimizer.name=adamw"], []),
    (["backbone=resnet152", "size=96", "batch=16", "micro_batch=8", "optimizer.name=adamw"], []),
    (["backbone=resnet50", "size=160", "batch=16", "network.checkpointing=true"], []),
    (["backbone=resnet50", "size=160", "batch=16", "machine.precision=bf16", "machine.channels_last=true"], []),
    (["backbone=resnet50", "size=224", "batch=16"], []),
    *((["backbone=resnet152", "size=64", "batch=8", "micro_batch=2", "optimizer.name=adamw"], ["--workers", "2", "--zero", zero])
      for zero in ("none", "0", "1", "2", "3")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "launch"), SETTINGS)
def test_a_run_takes_what_is_said(scenes, tmp_path, capsys, settings, launch):
    """The peak of a worker's resident memory, from /proc, is within a fifth of the sum of the parts."""
    precision = [] if any("precision" in s for s in settings) else ["machine.precision=fp32"]
    words = [f"data={scenes}", "weights=none", *settings, *precision]
    assert 0.8 < said_of_taken("transfer", words, ["updates=3"], launch, tmp_path) < 1.25


def said_of_taken(recipe: str, words: list[str], updates: list[str], launch: list[str], folder: Path) -> float:
    """What `show --memory` says, divided by the peak of a worker of a run of so many updates."""
    words = [*words, "machine.threads=1", "machine.loaders=0"]
    asked = [sys.executable, "-m", "trunkline", "show", recipe, *words, *updates, *launch, "--memory", "--json"]
    said = json.loads(subprocess.run(asked, capture_output=True, text=True).stdout)
    said = said["stages"][said["zero"]]["total"]
    command = [sys.executable, "-m", "trunkline", "train", recipe, *words, *updates, "--run", str(folder / "run")]
    process, peak = psutil.Popen([*command, *launch], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max([peak, *(high_water(p.pid) for p in [process, *process.children(recursive=True)])])
        time.sleep(0.1)
    assert process.returncode == 0
    print(f"{' '.join(words[2:] + launch)}: said {said / GIB:.2f} GiB, took {peak / GIB:.2f} GiB ({said / peak:.2f})")
    return said / peak


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["batch=16", "crop=192"], ["batch=16", "perceptual", "crop=192"],
                                      ["batch=32", "batch.micro=2", "perceptual"]], ids=" ".join)  # fmt: skip
def test_a_run_with_a_critic_takes_what_is_said(pictures, maps, tmp_path, settings):
    """As above; a network that only passes gradients on keeps less in a backward than is reckoned: two fifths more with one."""
    most = 1.4 if "perceptual" in settings else 1.25
    settings = [f"perceptual={maps('resnet50')}" if s == "perceptual" else s for s in settings]
    words = [f"data={pictures}", "machine.precision=fp32", *settings]
    assert 0.8 < said_of_taken("upscale", words, ["updates=1", "adversarial=2"], [], tmp_path) < most


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "p", train=32, val=1, size=256)


@pytest.fixture
def maps(tmp_path):
    """Weights of a trunk whose maps a perceptual loss compares."""

    def file(arch: str) -> Path:
        torch.save(getattr(torchvision.models, arch)().state_dict(), tmp_path / f"{arch}.pth")
        return tmp_path / f"{arch}.pth"

    return file


def held(module: torch.nn.Module) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def test_a_critic_and_the_network_of_a_perceptual_loss_are_counted(pictures, maps):
    settings = {
        "data": str(pictures),
        "blocks": 1,
        "width": 8,
        "crop": 64,
        "crops": 2,
        "batch": 8,
        "machine.precision": "fp32",
    }
    pixels = trunkline.memory("upscale", **settings).need.parts
    file = maps("resnet18")
    against = {**settings, "adversarial": 2, "tasks.super_resolution.adversarial.width": 16}
    alone, both = (trunkline.memory("upscale", **against, **more) for more in ({}, {"perceptual": str(file)}))
    parts = alone.need.parts

    critic = make_critic("vgg", 64, 16, "spectral").train()
    optimizer = torch.optim.Adam(critic.parameters())
    pictures_ = torch.rand(8, 3, 64, 64)
    critic(pictures_).sum().backward()
    optimizer.step()
    gradients = sum(p.grad.nbytes for p in critic.parameters())
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.ndim)
    assert parts["weights"] - pixels["weights"] == held(critic)
    assert parts["gradients and their sums"] - pixels["gradients and their sums"] == gradients
    assert parts["optimizer state"] - pixels["optimizer state"] == state
    assert parts["averaged weights"] == pixels["averaged weights"]  # the recipe averages the generator alone
    assert parts["weights for evaluation"] == pixels["weights for evaluation"]
    averaged = trunkline.memory("upscale", **against, **{"players.critic.average.decay": 0.9}).need.parts
    assert averaged["averaged weights"] - parts["averaged weights"] == held(critic)

    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        critic(pictures_)  # of the generator's turn, whose own maps are those of the pixels
    assert parts["forward and backward"] > pixels["forward and backward"] + kept / 2
    trunk = torchvision.models.resnet18()
    trunk.layer4, trunk.fc = torch.nn.Sequential(), torch.nn.Sequential()  # c4 is the deepest map
    numbers = sum(t.nbytes for n, t in trunk.state_dict().items() if not n.endswith("num_batches_tracked"))
    assert both.need.parts["networks that do not learn"] == pytest.approx(numbers, rel=1e-3)
    assert both.need.parts["weights"] == parts["weights"] and "networks that do not learn" not in parts
    assert both.need.parts["forward and backward"] > parts["forward and backward"]
    refused = {n.zero: n.refused for n in alone.needs}
    assert "players in turns (the model, critic)" in refused[2] and refused[2] == refused[3] and not refused[1]


def test_a_micro_batch_that_is_found_changes_no_bit_of_either_player(pictures, tmp_path):
    words = {"data": str(pictures), "blocks": 1, "width": 8, "crop": 32, "crops": 2, "batch": 4, "updates": 1, "adversarial": 1,
             "tasks.super_resolution.adversarial.width": 4, "machine.threads": 1, "machine.loaders": 0,
             "log.tensorboard": False}  # fmt: skip
    for micro in ("auto", 2):
        trunkline.train("upscale", tmp_path / str(micro), **words, **{"batch.micro": micro})
    files = sorted(p.relative_to(tmp_path / "2") for p in (tmp_path / "2/checkpoints").rglob("*model.safetensors"))
    assert any("critic" in str(file) for file in files)
    for file in files:
        one, two = (load_file(tmp_path / micro / file) for micro in ("auto", "2"))
        assert all(torch.equal(one[name], two[name]) for name in one)


MIXED = str(Path(__file__).parents[1] / "shared_tasks.py")


def mixed(tmp_path, monkeypatch, **more) -> tuple[dict, dict, nn.Module, Recipe]:
    """A mixture's plan, its tasks with their data, its model, its recipe."""
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    settings = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", **more}
    plan = trunkline.memory(MIXED, **settings).to_json()
    recipe = placed(resolve(MIXED, settings).recipe)
    recipe = replace(recipe, machine=resolve_machine(recipe.machine)[0])
    tasks, model, _ = build(recipe)
    parts = {n: Part(n, task, task.samples("train"), task.samples("val"), n) for n, task in tasks.items()}
    return plan, parts, model, recipe


def kept_by(model: nn.Module, batch) -> int:
    """The bytes that a forward of these pictures keeps for its backward, each tensor counted once."""
    kept, own = {}, {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        total = sum(model.train().losses(batch).values())
    del total
    return sum(kept.values())


def test_of_a_mixture_the_largest_pass_counts_and_a_shared_one_has_all_heads(tmp_path, monkeypatch):
    plan, parts, model, recipe = mixed(tmp_path, monkeypatch)
    shares = {share.task: share for share in mixture(recipe, parts, 0).shares}
    assert plan["passes"].keys() == shares.keys() == {"classification", "boxes+some"}
    for name, share in shares.items():
        draws, micro = drawing(share, parts), share.plan.micro
        kept = kept_by(model, draws.batch([(0, i, 0) for i in range(micro)]))
        assert plan["passes"][name] == pytest.approx(1.5 * kept, rel=0.15), name
    none = plan["stages"]["none"]
    assert none["forward and backward"] == max(plan["passes"].values())
    counters = 4 * sum(
        n.endswith("num_batches_tracked") for n in model.state_dict()
    )  # are of eight bytes, reckoned as four
    assert none["weights"] == held(model) - counters, "one trunk and every head, once"
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert none["gradients and their sums"] == (4 + 4 + 8) * trained
    assert plan["stages"]["2"]["refused"].startswith("a mixture of tasks needs zero=0 or zero=1")
    apart = trunkline.memory(MIXED, shared=False, **{"machine.precision": "fp32"}).passes
    assert max(apart["boxes"], apart["some"]) < plan["passes"]["boxes+some"] < apart["boxes"] + apart["some"]
    idle = trunkline.memory(MIXED, **{"loss_weights.boxes": 0, "mix.classification": 0.1, "updates": 4}).passes
    assert [*idle] == ["some"], "a weight of 0 leaves one out, a phase too short another"


def test_gradients_that_are_compared_take_room(tmp_path, monkeypatch):
    found, _, model, _ = mixed(tmp_path, monkeypatch, **{"log.cosines": 2, "loss_weights.some": 0})
    trunk = sum(p.numel() for p in within(model.backbone).parameters() if p.requires_grad)
    for stage in ("none", "1"):
        assert found["stages"][stage]["gradients of each task"] == trunk * (8 + 8 + 4), "of the two that learn"
    plain = mixed(tmp_path, monkeypatch, **{"loss_weights.some": 0})[0]["stages"]["none"]
    assert found["stages"]["none"].keys() - plain.keys() == {"gradients of each task"}


def test_advice_for_a_mixture_names_its_micro_batches(tmp_path, monkeypatch):
    settings = {"batches.boxes.size": 16, "batches.some.size": 16, "batches.boxes.micro": 16, "batches.some.micro": 16}
    plan = mixed(tmp_path, monkeypatch, **settings)[0]
    none = plan["stages"]["none"]
    program = "trunkline.pipelines.tools.memory_plan._resident"
    monkeypatch.setattr(program, lambda: none["program"] - 300 * 2**20)
    room = none["total"] - plan["passes"]["boxes+some"] // 2
    monkeypatch.setattr("trunkline.pipelines.tools.memory_plan.free_memory", lambda: int(room / 0.8))
    found = trunkline.memory(MIXED, **{"machine.precision": "fp32", **settings})
    assert not found.fits
    micro = next(line for line in found.advice if line.startswith("batches."))
    settings |= {word.split("=")[0]: int(word.split("=")[1]) for word in micro.partition(":")[0].split()}
    assert (
        settings["batches.boxes.micro"] == settings["batches.some.micro"] == 4 and "batches.classification" not in micro
    )
    assert trunkline.memory(MIXED, **{"machine.precision": "fp32", **settings}).fits


def test_tasks_that_share_batches_have_one_micro_batch_that_is_found(tmp_path, monkeypatch):
    """As large as fits the joint pass, where either task alone would have had a larger one."""
    auto = {
        f"batches.{name}.{key}": value for name in ("boxes", "some") for key, value in (("size", 8), ("micro", "auto"))
    }
    plan, parts, model, recipe = mixed(tmp_path, monkeypatch, **auto)
    each = plan["passes"]["boxes+some"] / 8 / 1.5
    fixed = 20 * sum(p.numel() for p in model.parameters() if p.requires_grad) + 300 * 2**20
    monkeypatch.setattr(memory, "free_memory", lambda: int((fixed + 2 * 5 * each) / 0.8))
    document, notes = {"resolved": to_plain(recipe), "auto": {}}, []
    run = SimpleNamespace(recipe=document, write=lambda *_: None)
    session: Any = SimpleNamespace(
        recipe=recipe, run=run, parts=parts, model=model, workers=Workers(), note=notes.append
    )
    settled = settle_micro_batches(session)
    assert {settled.batches[name].micro for name in ("boxes", "some")} == {4} and settled.batches[
        "classification"
    ].micro == 4
    assert {document["resolved"]["batches"][name]["micro"] for name in ("boxes", "some")} == {4}
    assert document["auto"].keys() == {"batches.boxes.micro", "batches.some.micro"}
    assert len(notes) == 1 and notes[0].startswith("boxes+some: micro-batches of 4 samples")


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["true", "false"])
def test_a_mixture_takes_what_is_said(tmp_path, monkeypatch, shared):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    words = [f"shared={shared}", "network.backbone=resnet50", "machine.precision=fp32", "tasks.classification.size=96",
             "batches.classification.size=32", "batches.classification.micro=16"]  # fmt: skip
    for name in ("boxes", "some"):
        words += [
            f"tasks.{name}.size=256",
            f"tasks.{name}.longest=256",
            f"batches.{name}.size=8",
            f"batches.{name}.micro=4",
        ]
    assert 0.8 < said_of_taken(MIXED, words, ["updates=2"], [], tmp_path) < 1.25


def high_water(pid: int) -> int:
    """The most bytes that a process held; 0 where it is gone."""
    try:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) * 1024
    except (OSError, IndexError):
        return 0
