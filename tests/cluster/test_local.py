"""Workers on this machine: what a run with several says and leaves behind, and what happens when one of them fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from group_work import mixture, phases
from ray_cluster import Started, differ, words
from safetensors.torch import load_file

from trunkline.cluster.config import Machine, Optimizer
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.outcome import WorkerDied, WorkerFailed
from trunkline.cluster.launchers.worker import Job
from trunkline.cluster.workers import Workers
from trunkline.ground.errors import EngineError
from trunkline.heads.model import losses
from trunkline.pipelines.command.cli import main


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )


@pytest.mark.slow
def test_a_run_of_three_workers_is_the_run_of_one(scenes, tmp_path):
    """The same weights, scores and files, from cached features and from pictures."""
    for mode in ("full", "probe"):
        for workers in (1, 3):
            run = tmp_path / f"{mode}-{workers}"
            assert main(words(scenes, run, "--workers", str(workers), mode=mode, updates=4)) == 0
        one, three = tmp_path / f"{mode}-1", tmp_path / f"{mode}-3"
        assert differ(one, three) == []
        assert {p.name for p in three.iterdir()} - {"logs"} == {p.name for p in one.iterdir()}
        for file in ("scores.json", "predictions/val.jsonl", "data/train.tsv"):
            assert (one / file).read_text() == (three / file).read_text(), file


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["none", "0", "2", "3"])
def test_a_worker_without_a_micro_batch_changes_nothing(scenes, tmp_path, zero):
    pytest.importorskip("deepspeed")
    given = {"updates": 4, "batch": 12, "micro_batch": 6, "optimizer.clip": 0, "ema": 0}
    for run, workers in (("one", "1"), ("three", "3")):
        more = [] if workers == "1" else ["--workers", workers, "--zero", zero]
        assert main(words(scenes, tmp_path / run, *more, **given)) == 0
    one, three = (load_file(tmp_path / run / "weights.safetensors") for run in ("one", "three"))
    far = max(float((one[n].double() - three[n].double()).abs().max()) for n in one)
    assert far == 0 if zero in ("none", "0") else far < 1e-4


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("mistake", EngineError, "photos/7.jpg: is damaged"),
        ("bug", WorkerFailed, "worker 1 on .*KeyError: 'nothing there'; its log: .*worker-1.log"),
        ("kill", WorkerDied, "worker 1 on .* was killed by signal 9 .SIGKILL.; mostly memory ran out"),
        (
            "hang",
            WorkerDied,
            "waited in an update for another worker, which hangs, failed or is gone .after at most 3 s",
        ),
    ],
)
def test_the_error_of_the_worker_that_failed_first_is_told(tmp_path, what, kind, says):
    start = time.monotonic()
    with pytest.raises(kind, match=says):
        run_local(Job("group_work:misbehave", {"rank": 1, "what": what}, 3.0), 2, tmp_path / "logs", 2)
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_storage_that_one_worker_alone_sees_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"run: worker 1 on .* cannot see what worker 0 wrote there.*all nodes share"):
        run_local(Job("group_work:differing_storage", {"folder": str(tmp_path)}, 30.0), 2, tmp_path / "logs", 2)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_goes_on_alone(scenes, tmp_path, signum):
    run, alone = tmp_path / "run", tmp_path / "alone"
    started = Started(words(scenes, run, "--workers", "2", updates=8), run)
    started.until_update(4)
    started.process.send_signal(signum)
    assert started.end(60) == (-9 if signum == signal.SIGKILL else 128 + signum), started.said()
    if signum != signal.SIGKILL:
        assert "stopped at update" in started.said() and "Traceback" not in started.said()
    time.sleep(1.0)  # workers notice within it that their launcher is gone
    assert main(words(scenes, run, updates=8)) == 0
    assert main(words(scenes, alone, updates=8)) == 0
    assert differ(run, alone) == []


@pytest.mark.parametrize(
    ("signum", "there"),
    [
        (signal.SIGTERM, ".lock"),  # before anything listens
        (signal.SIGINT, ".lock"),
        (signal.SIGINT, "data/train.tsv"),  # about when features are computed
    ],
)
@pytest.mark.slow
def test_workers_that_are_stopped_early_say_so_in_a_line(scenes, tmp_path, signum, there):
    run = tmp_path / "run"
    started = Started(words(scenes, run, "--workers", "2", updates=10, mode="probe"), run)
    started.until(lambda: (run / there).exists())
    started.process.send_signal(signum)
    assert started.end(60) == 128 + signum, started.said()
    (line,) = [line for line in started.said().splitlines() if line.startswith("stopped ")]
    assert re.fullmatch(
        r"stopped (before there was anything to save|at update \d+ and saved); the same command .*", line
    )
    assert "Traceback" not in started.said() and "error" not in started.said()


def test_a_mistake_of_the_recipe_is_told_as_ever_and_leaves_nothing(scenes, tmp_path, capsys):
    assert main(words(scenes / "none", tmp_path / "run", "--workers", "2")) == 2
    told = capsys.readouterr().err
    assert "none" in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [("--workers", "2"), ("--launch", "ray", "--workers", "2")])
def test_nothing_is_written_into_a_folder_that_is_no_run(scenes, capsys, more):
    there = sorted(scenes.rglob("*"))
    assert main(words(scenes, scenes, *more)) == 2
    assert "is there and holds no run" in capsys.readouterr().err
    assert sorted(scenes.rglob("*")) == there


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--workers", "0"], "workers=0: expected a number above 0"),
        (["--workers", "2,4"], "workers=2,4: a range of workers needs launch=ray"),
        (["--workers", "x"], "workers=x: expected a whole number or 2 numbers separated by commas"),
        (["--launch", "rey"], "launch=rey: expected one of local, ray; nearest: ray"),
        (["--timeout", "0"], "timeout=0: expected seconds above 0"),
        (["--timeout", "inf"], "timeout=inf: expected seconds above 0"),
        (["--cpus", "0", "lr=much"], "cpus=0: expected a number of cores above 0\nlr=much: expected a number or none"),
        (["--gpus=-1"], "gpus=-1: expected 0 or more"),
        (["--address", "auto"], "address=auto: is of Ray alone; add launch=ray, or leave it out"),
        (["--failures=-2"], "failures=-2: expected a number, or -1 for no end"),
        (["--adress", "auto"], "adress=auto: there is no such setting; nearest: address"),
        (["--launch", "ray", "--address", "127.0.0.1:1"], "address=127.0.0.1:1: no Ray cluster answers there"),
        (["--launch", "ray", "--address", "head:x"], "address=head:x: expected host:port, or auto"),
        (["--offload", "true"], "offload=true needs zero=1, 2 or 3"),
        (["--zero", "1", "--workers", "3"], "zero=1 with workers=3: its own reduction is exact for 2, 4, 8"),
        (["--zero", "2", "optimizer.name=lamb"], "zero=2 with optimizer.name=lamb: a stage that divides tensors suits"),
        (["--zero", "3", "optimizer.l1=0.1"], "zero=3: optimizer.l1 and optimizer.clip do not go together there"),
        (["--zero", "0", "machine.precision=fp16"], "zero=0: fp16 scales the loss"),
        (["--zero", "2", "machine.precision=fp64"], "zero=2: DeepSpeed keeps weights in fp32 at most"),
        (["--zero", "5"], "zero=5: expected one of 0, 1, 2, 3, none"),
    ],
)
def test_what_a_launch_cannot_give_is_told_before_anything_starts(scenes, tmp_path, capsys, more, says):
    pytest.importorskip("deepspeed")
    settings = dict(w.split("=") for w in more if "=" in w)
    given = words(scenes, tmp_path / "run", *[w for w in more if "=" not in w], **settings)
    assert main(given) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", [["evaluate", "run"], ["predict", "run", "pictures"]])
def test_what_is_of_training_alone_is_no_setting_of_other_verbs(capsys, verb):
    assert main([*verb, "--launch", "ray", "--zero", "1", "--grow", "9"]) == 2
    told = capsys.readouterr().err
    assert "zero=1: is of training alone; leave it out here" in told and "grow=9: is of training alone" in told


def test_without_ray_or_deepspeed_the_rest_works(scenes, tmp_path):
    """In an interpreter that cannot import them."""
    code = (
        "import sys, importlib.util as u; own = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('ray', 'deepspeed') else own(n, *a)\n"
        "sys.modules['ray'] = sys.modules['deepspeed'] = None\n"
        "from trunkline.pipelines.command.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    own = words(scenes, tmp_path / "run", updates=1)
    for more, said in ((["--launch", "ray"], "launch=ray needs Ray"), (["--zero", "0"], "zero=0 needs DeepSpeed")):
        done = subprocess.run([sys.executable, "-c", code, *own, *more], capture_output=True, text=True)
        assert done.returncode == 2 and f"{said}: install it with pip install 'trunkline[cluster]'" in done.stderr
    done = subprocess.run([sys.executable, "-c", code, *own], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_head_without_a_micro_batch_is_not_moved(tmp_path):
    """Two heads on two workers, in TorchEngine and the stages that take mixtures, beside one process."""
    pytest.importorskip("deepspeed")
    order = ["abba", "aaaa", "ab", "bb", "aaaa", "abab"]
    mixture({"zeros": [None], "order": order, "folder": str(tmp_path / "alone")}, Workers())
    args = {"zeros": [None, 0, 1], "order": order, "folder": str(tmp_path / "group")}
    run_local(Job("group_work:mixture", args, 60.0), 2, tmp_path / "logs", 2)
    for part in ("model", "ema", "optimizer"):
        wanted = load_file(tmp_path / "alone/mixture-None" / f"{part}.safetensors")
        for zero in args["zeros"]:
            found = load_file(tmp_path / f"group/mixture-{zero}" / f"{part}.safetensors")
            wrong = [n for n in wanted if not torch.equal(wanted[n], found[n])]
            assert wanted.keys() == found.keys() and wrong == [], (zero, part)


def test_stages_that_would_move_it_refuse_the_mixture():
    from trunkline.cluster.config import Average, Learning, Schedule
    from trunkline.cluster.engines.zero import DeepSpeedEngine, Zero

    learning = Learning(Optimizer(), Schedule(), Average(), 1, 1)

    with pytest.raises(EngineError, match=r"zero=2: DeepSpeed moves a head.*needs zero=0 or zero=1"):
        DeepSpeedEngine(
            torch.nn.Linear(2, 2), losses, learning, Machine("cpu"), Workers(), Zero(2, units=("heads.a.", "heads.b."))
        )


@pytest.mark.slow
def test_a_model_goes_from_one_phases_engine_to_the_next(tmp_path):
    phases({"zeros": [None], "folder": str(tmp_path)}, Workers())
    zeros = [None, 0, 1, 2, 3]
    run_local(Job("group_work:phases", {"zeros": zeros, "folder": str(tmp_path)}, 60.0), 2, tmp_path / "logs", 2)
    wanted = torch.load(tmp_path / "phases-None-1.pt")
    for zero in zeros:
        found = torch.load(tmp_path / f"phases-{zero}-2.pt")
        assert [n for n in wanted if not torch.equal(wanted[n], found[n])] == [], zero


@pytest.mark.slow
def test_workers_have_processes_that_decode(scenes, tmp_path):
    """A worker listens for its launcher in a thread, which must hold no lock that a forked process waits for."""
    started = Started(
        words(scenes, tmp_path / "run", "--workers", "2", machine__workers=1, updates=2), tmp_path / "run"
    )
    assert started.end(120) == 0, started.said()


@pytest.mark.parametrize("how", ["deadlocked", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_worker_that_hangs_while_the_others_wait_without_end_is_named(tmp_path, how):
    """Nobody may wait for a day where one worker will never come; one that works may take its time."""
    start = time.monotonic()
    with pytest.raises(
        WorkerDied, match=r"worker 0 on .* waited in another meeting for worker 1 on .*, silent for 3 s"
    ):
        run_local(Job("group_work:silence", {"how": how}, 3.0), 2, tmp_path, 2)
    assert time.monotonic() - start < 60


def test_stdout_is_for_results_under_deepspeed_too(scenes, tmp_path):
    given = words(scenes, tmp_path / "run", "--zero", "1", "--json", updates=1)
    ended = subprocess.run([sys.executable, "-m", "trunkline", *given], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "top1" in json.loads(ended.stdout)
