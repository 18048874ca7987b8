"""Runs that are killed at any moment, asked to end, or run out of disk: they end as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm.optim  # noqa: F401  (once here, not in every child)
import torch
from run_work import assert_equal, at_call, die, final, in_child

import trunkline
import trunkline.pipelines.training.train as train_module
from trunkline.cluster import checkpoint
from trunkline.cluster.checkpoint import read_tensors
from trunkline.cluster.engines import torch_engine as engine
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.ground.errors import DataError, EngineError, RecipeError
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.session import Session
from trunkline.pipelines.training.train import train

PLAIN = {"average.decay": 0.9, "checkpoints.updates": 4, "machine.threads": 1, "machine.precision": "fp32"}


def settings(data: Path, workers: int = 0, **more):
    given = {"data": str(data), "smoke": True, "backbone": "narrow", "micro_batch": 4,
             "tasks.classification.dropout": 0.2, "phases.0.updates": 11, "machine.loaders": workers,
             "log.tensorboard": False, **PLAIN, **more}  # fmt: skip
    return resolve("transfer", given)


KILLS = {
    "in a step, after its backward": lambda: at_call(TorchEngine, "_step", 5, die),
    "between two updates": lambda: at_call(Session, "log", 7, die, after=True),
    "in a save, half the files written": lambda: at_call(engine, "write_tensors", 5, die),
    "in a save, before its rename": lambda: at_call(checkpoint, "_sync", 12, die),
    "in a save, before `last` names it": lambda: at_call(checkpoint, "write_text", 2, die),
    "at an epoch's end, scored and not saved": lambda: at_call(Session, "evaluate", 1, die, after=True),
    "at the end, before the report": lambda: at_call(train_module, "finish", 1, die),
}


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert in_child(settings(scenes), run) == 0
    return run


def test_loader_workers_do_not_change_a_bit(scenes, undisturbed, tmp_path):
    assert in_child(settings(scenes, workers=2), tmp_path / "run") == 0
    assert_equal(tmp_path / "run", undisturbed)


QUICK = [
    "in a step, after its backward",
    "in a save, half the files written",
    "at an epoch's end, scored and not saved",
]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in KILLS])
def test_a_killed_run_ends_as_one_that_was_not(moment, workers, scenes, undisturbed, tmp_path):
    run = tmp_path / "run"
    assert in_child(settings(scenes, workers), run, KILLS[moment]) == -signal.SIGKILL, "it was not killed"
    left = [p for p in (run / "checkpoints").glob("[0-9]*")] if (run / "checkpoints").exists() else []
    for folder in left:  # whatever stands under a checkpoint's name is whole
        assert json.loads((folder / "state.json").read_text())["update"] == int(folder.name)
        read_tensors(folder / "optimizer.safetensors")
    assert in_child(settings(scenes, workers), run) == 0
    assert_equal(run, undisturbed)
    assert [p.name for p in (run / "checkpoints").glob(".*")] == []
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["update"] for m in lines if m["kind"] == "train"] == list(range(1, 12))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_and_goes_on(number, scenes, undisturbed, tmp_path):
    run = tmp_path / "run"
    ask = lambda: at_call(TorchEngine, "update", 7, lambda: os.kill(os.getpid(), number))  # noqa: E731
    assert in_child(settings(scenes, **{"checkpoints.updates": 0}), run, ask) == 128 + number
    assert (run / "checkpoints" / "last").read_text() == "000007"
    assert in_child(settings(scenes, **{"checkpoints.updates": 0}), run) == 0
    assert_equal(run, undisturbed)


def test_a_finished_run_is_left_as_it_is(scenes, undisturbed, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(undisturbed, run)
    assert in_child(settings(scenes), run) == 0
    assert_equal(run, undisturbed)


def test_a_run_can_be_made_longer_but_not_another(scenes, undisturbed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    with pytest.raises(RecipeError, match=r"another recipe.*\n.*optimizer\.lr: 0\.005 there, 0\.5 now"):
        train(settings(scenes, **{"optimizer.lr": 0.5}), run)
    assert in_child(settings(scenes, **{"phases.0.updates": 13}), run) == 0
    assert (run / "checkpoints" / "last").read_text() == "000013"


def test_data_that_changed_is_refused_with_what_differs(scenes, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scenes, data)
    assert in_child(settings(data, **{"phases.0.updates": 2}), run) == 0
    victim = sorted((data / "train").rglob("*.jpg"))[0]
    victim.rename(victim.with_name("other.jpg"))
    with pytest.raises(DataError, match=r"the train data changed.*1 added.*other\.jpg.*1 removed"):
        train(settings(data, **{"phases.0.updates": 4}), run)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(scenes, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        run = disk / "run"
        assert in_child(settings(scenes, **{"phases.0.updates": 2}), run) == 0
        before = final(run)
        with (disk / "ballast").open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - 2**20))
        with pytest.raises(EngineError, match=r"could not be written.*The last good one is .*000002.*make room"):
            train(settings(scenes), run)
        assert all(torch.equal(before[n], t) for n, t in final(run).items())
        (disk / "ballast").unlink()
        assert in_child(settings(scenes), run) == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def test_two_processes_do_not_write_one_run(scenes, tmp_path):
    from trunkline.pipelines.runs.run import Run, locked

    run = tmp_path / "run"
    with locked(Run(run)):
        assert in_child(settings(scenes), run, lambda: pytest.MonkeyPatch().setattr("traceback.print_exc", die)) < 0
        assert not (run / "recipe.json").exists()


def test_a_folder_that_is_no_run_is_not_touched(scenes, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"holds no run \(thesis\.txt\)"):
        train(settings(scenes), tmp_path)


def test_early_stopping_stays_stopped(scenes, tmp_path):
    run, early = tmp_path / "run", {"evaluation.patience": 1, "evaluation.every": 0.2, "optimizer.lr": 1e-9}
    assert in_child(settings(scenes, **early), run) == 0
    stopped = (run / "checkpoints" / "last").read_text()
    assert int(stopped) < 11
    assert in_child(settings(scenes, **early), run) == 0
    assert (run / "checkpoints" / "last").read_text() == stopped


def test_sigterm_from_outside_ends_the_command_line_in_time(scenes, tmp_path):
    """The real command, a real signal, and the exit code that says so."""
    run = tmp_path / "run"
    command = ["trunkline", "train", "transfer", f"data={scenes}", "smoke=true", "backbone=narrow", "--run", str(run),
               "log.tensorboard=false", "phases.0.updates=100000", "machine.threads=1"]  # fmt: skip
    process = subprocess.Popen(
        [str(Path(os.sys.executable).with_name(command[0])), *command[1:]], stderr=subprocess.PIPE
    )
    end = time.monotonic() + 90
    while time.monotonic() < end and not (run / "metrics.jsonl").exists():
        time.sleep(0.1)
    while time.monotonic() < end and '"kind": "train"' not in (run / "metrics.jsonl").read_text():
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert b"stopped at update" in errors and b"Traceback" not in errors
    assert trunkline.Run(run).metrics


def test_a_refused_resume_leaves_the_recipe_as_it_is(scenes, undisturbed, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(undisturbed, run)
    shutil.copytree(scenes, other)
    next((other / "train").rglob("*.jpg")).unlink()
    before = (run / "recipe.json").read_text()
    with pytest.raises(DataError, match="the train data changed"):
        train(settings(other), run)
    assert (run / "recipe.json").read_text() == before


def test_a_failed_start_does_not_remove_what_is_not_its_own(scenes, tmp_path):
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)
    (run / "data" / "photo.jpg").write_bytes(b"mine")
    (run / "recipe.json").write_text("{}")
    with pytest.raises(RecipeError):
        train(settings(scenes), run)
    assert (run / "data" / "photo.jpg").read_bytes() == b"mine"


def test_a_metric_is_compared_in_its_own_direction(scenes, tmp_path):
    run = train(settings(scenes, **{"evaluation.metric": "nll"}), tmp_path / "run")
    values = {m["update"]: m["metrics"]["nll"] for m in run.metrics if m["kind"] == "eval"}
    assert len(set(values.values())) > 1
    best = json.loads((run.checkpoints / (run.checkpoints / "best").read_text() / "state.json").read_text())["best"]
    assert best == {"update": min(values, key=lambda u: values[u]), "value": min(values.values()), "metric": "nll"}


def two_phases(data: Path, second: int = 5, **more):
    """A recipe of two phases; the first one's score cannot get better, so that patience ends it early."""
    resolved = settings(data, **{"evaluation.patience": 1, "evaluation.every": 0.4, "optimizer.lr": 1e-30, **more})
    phases = (replace(resolved.recipe.phases[0], updates=9), replace(resolved.recipe.phases[0], updates=second))
    return replace(resolved, recipe=replace(resolved.recipe, phases=phases))


def test_patience_ends_a_phase_and_not_the_run(scenes, tmp_path):
    run = train(two_phases(scenes), tmp_path / "run")
    state = json.loads((run.checkpoints / (run.checkpoints / "last").read_text() / "state.json").read_text())
    assert (state["phase"], state["over"]) == (1, [[9, 4]])
    assert [m["update"] for m in run.metrics if m["kind"] == "train"] == list(range(1, state["update"] + 1))
    assert {m["phase"] for m in run.metrics if m["kind"] == "eval"} == {0, 1}
    assert sum(m["text"].startswith("stopped early") for m in run.metrics if m["kind"] == "note") == 2


@pytest.mark.slow
def test_a_run_of_two_phases_is_killed_between_them_and_in_the_second(scenes, tmp_path):
    lively = {"optimizer.lr": 0.01, "evaluation.patience": 0}
    assert in_child(two_phases(scenes, **lively), tmp_path / "whole") == 0
    for name, number in (("between", 2), ("second", 11)):
        owner = (train_module, "train_phase") if name == "between" else (TorchEngine, "update")
        kill = partial(at_call, *owner, number, die)
        assert in_child(two_phases(scenes, **lively), tmp_path / name, kill) == -signal.SIGKILL
        assert in_child(two_phases(scenes, **lively), tmp_path / name) == 0
        assert_equal(tmp_path / name, tmp_path / "whole")


def test_a_phase_that_is_over_keeps_its_length(scenes, tmp_path):
    run = tmp_path / "run"
    assert in_child(two_phases(scenes), run) == 0
    longer = two_phases(scenes, second=7, **{"evaluation.patience": 0})
    wrong = replace(longer.recipe.phases[0], updates=12), longer.recipe.phases[1]
    with pytest.raises(RecipeError, match=r"phases\.0: was to be 9 updates long, is over, and cannot be 12 long now"):
        train(replace(longer, recipe=replace(longer.recipe, phases=wrong)), run)
    train(longer, run)
    assert json.loads((run / "scores.json").read_text())["update"] == 4 + 7


def test_a_best_that_a_crash_did_not_name_is_named_on_resume(scenes, tmp_path):
    run = tmp_path / "run"
    kill = lambda: at_call(checkpoint, "write_text", 3, die)  # noqa: E731  (the second one is `last` at the first epoch)
    assert in_child(settings(scenes), run, kill) == -signal.SIGKILL
    state = json.loads((run / "checkpoints" / "000005" / "state.json").read_text())
    assert state["best"]["update"] == 5 and not (run / "checkpoints" / "best").exists()
    assert in_child(settings(scenes, **{"phases.0.updates": 11}), run) == 0
    assert (run / "checkpoints" / "best").exists()
