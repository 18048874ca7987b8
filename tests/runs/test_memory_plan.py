"""What `show --memory` says, beside what a run takes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import trunkline
from trunkline.pipelines.command.cli import main

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
    words = [f"data={scenes}", "weights=none", *settings, *precision, "machine.threads=1", "machine.loaders=0"]
    asked = [sys.executable, "-m", "trunkline", "show", "transfer", *words, *launch, "--memory", "--json"]
    said = json.loads(subprocess.run(asked, capture_output=True, text=True).stdout)
    said = said["stages"][said["zero"]]["total"]
    command = [
        sys.executable,
        "-m",
        "trunkline",
        "train",
        "transfer",
        *words,
        "updates=3",
        "--run",
        str(tmp_path / "run"),
    ]
    process, peak = psutil.Popen([*command, *launch], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max([peak, *(high_water(p.pid) for p in [process, *process.children(recursive=True)])])
        time.sleep(0.1)
    assert process.returncode == 0
    print(f"{' '.join(settings + launch)}: said {said / GIB:.2f} GiB, took {peak / GIB:.2f} GiB ({said / peak:.2f})")
    assert 0.8 < said / peak < 1.25


def high_water(pid: int) -> int:
    """The most bytes that a process held; 0 where it is gone."""
    try:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) * 1024
    except (OSError, IndexError):
        return 0
