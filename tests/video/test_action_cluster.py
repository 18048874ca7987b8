"""Action recognition stands in the cluster's tables: the same bits on any workers and engines, after kills, and in batches."""

import functools
import itertools
import json
import os
import signal
from pathlib import Path

import pytest
from ray_cluster import Started, cluster, differ, on
from run_work import assert_equal, at_call, die, files_in, forked, in_child, pool_here, results_of
from video_files import X264, write

import trunkline
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training import session
from trunkline.tasks.video.scenes import write_clips

VIDEOS = 7  # that are scored: two workers and three have not as many each
VIEWS = {"tasks.action.clips": 3, "tasks.action.crops": 3}
SHORT = {"weights": "none", "size": 32, "frames": 4, "batch": 6, "batch.micro": 2, "updates": 2, "ema": 0.9,
         "evaluation.batch": 2, "evaluation.every": 0, "checkpoints.updates": 1, "machine.threads": 1, "machine.loaders": 0,
         "machine.precision": "fp32", "log.tensorboard": False, **VIEWS}  # fmt: skip
"""Updates of three micro-batches; each video is scored by nine views."""
FORMS = {
    "frames": {"backbone": "narrow", "head": "lstm"},
    "time": {"backbone": "narrow_clips", "network.wrapper": "none", "size": 16},
}
"""A trunk of pictures frame by frame, and one over time whose last map is one pixel; dropout before both classifiers."""
WHOLE = {
    "frames": {"backbone": "resnet18", "head": "lstm"},
    "shift": {"backbone": "narrow", "head": "transformer", "shift": True},
    "time": {"backbone": "r3d_18", "size": 16},
}
EVEN = {
    "batch": 4,
    "updates": 4,
    "optimizer.clip": 0,
    "checkpoints.updates": 2,
}  # two micro-batches: every stage is exact


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Folders of frames, and a video among the clips for training and among those that are scored."""
    os.environ["TRUNKLINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    data = write_clips(tmp_path_factory.mktemp("clips") / "clips", train=8, val=VIDEOS - 1, size=40)
    for place in ("train/falls", "val/rises"):
        write(data / place / "video.mp4", n=12, **X264)
    return data


def given(clips: Path, form: dict, **more) -> dict[str, str]:
    words = {"data": clips, **SHORT, **form, **more}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in words.items()}


def words(clips: Path, run: Path, form: dict, *more: str, **changed) -> list[str]:
    settings = given(clips, form, **changed)
    return ["train", "action", *(f"{k}={v}" for k, v in settings.items()), "--run", str(run), *more]


@pytest.fixture(scope="module")
def alone(clips, tmp_path_factory) -> dict[str, Path]:
    """The runs of one process."""
    root = tmp_path_factory.mktemp("alone")
    for name, form in FORMS.items():
        assert in_child(resolve("action", given(clips, form)), root / name) == 0
    return {name: root / name for name in FORMS}


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_workers_and_engines_end_with_the_bits_and_files_of_one_process(size, clips, alone, tmp_path):
    pytest.importorskip("deepspeed")
    zeros = {1: [None, 0, 1], 2: [None, 1], 3: [None, 0]}[size]  # stage 1 is for powers of two
    rows = list(itertools.product(FORMS, zeros))
    runs = [{"recipe": "action", "given": given(clips, FORMS[name]), "run": str(tmp_path / f"{name}-{zero}"), "zero": zero}
            for name, zero in rows]  # fmt: skip
    run_local(Job("run_work:several", {"runs": runs}, 120.0), size, tmp_path / "logs", 2)
    for name, zero in rows:
        run = tmp_path / f"{name}-{zero}"
        assert_equal(run, alone[name])
        assert results_of(run) == results_of(alone[name]), (name, zero)


@pytest.mark.parametrize("name", [pytest.param("frames", marks=pytest.mark.slow), "time"])
def test_killed_in_an_update_and_resumed_is_undisturbed(name, clips, alone, tmp_path):
    resolved, run = resolve("action", given(clips, FORMS[name])), tmp_path / "run"
    assert in_child(resolved, run, lambda: at_call(TorchEngine, "_step", 2, die)) == -signal.SIGKILL
    assert in_child(resolved, run) == 0
    assert_equal(run, alone[name])
    assert results_of(run) == results_of(alone[name])


@pytest.mark.parametrize("zero", ["none", "1"])
def test_what_evaluates_lies_in_memory_as_what_learns(zero, clips, tmp_path):
    """Its memory format decides last bits of maps over time; a stage that divides the weights copies the model before."""
    pytest.importorskip("deepspeed")

    def act():
        found, copied = [], session.apart
        session.apart = lambda model: found.append(model.channels_last) or copied(model)
        trunkline.train("action", tmp_path / "run", zero=zero, **given(clips, FORMS["time"], updates=1))
        assert found == [True]

    assert forked(act) == 0


def scored(run: Path, out: Path, capsys, *more: str) -> tuple[dict, bytes]:
    """Evaluate in batches of two videos: what is said, and the records."""
    capsys.readouterr()
    own = ["batch=2", "loaders=0", "threads=1", f"out={out}", "--json"]
    assert main(["evaluate", str(run), *own, *more]) == 0
    return json.loads(capsys.readouterr().out), out.read_bytes()


def predicted(run: Path, clips: Path, out: Path, *more: str) -> dict[str, bytes]:
    """Predict all clips that are scored, in windows of the videos, with pictures."""
    own = [f"out={out}", "threads=1", "batch=2", "window=0.2", "pictures=true"]
    assert main(["predict", str(run), str(clips / "val"), *own, *more]) == 0
    return files_in(out)


@pytest.fixture(scope="module")
def wanted(clips, alone, tmp_path_factory):
    """What one process predicts, by form."""
    root = tmp_path_factory.mktemp("predicted")
    return functools.cache(lambda name: predicted(alone[name], clips, root / name))


def complete(found: tuple[dict, bytes]) -> bool:
    """Say whether each video was counted once, by all of its views."""
    records = [json.loads(line) for line in found[1].splitlines()]
    ids = {record["id"] for record in records}
    return len(records) == len(ids) == found[0]["samples"] == VIDEOS and {r["views"] for r in records} == {9}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_records_and_predictions_of_a_pool_are_those_of_one_process(
    clips, alone, wanted, tmp_path, capsys, monkeypatch, workers
):
    pytest.importorskip("ray")
    monkeypatch.setattr("trunkline.cluster.launchers.ray_pool.pool", pool_here)
    monkeypatch.setenv("TRUNKLINE_CORES", "1")
    pool = ["--launch", "ray", "--workers", str(workers)]
    run = alone["frames"]
    one = scored(run, tmp_path / "one", capsys)
    assert complete(one) and scored(run, tmp_path / "pool", capsys, *pool) == one
    assert predicted(run, clips, tmp_path / "predicted", *pool) == wanted("frames")
    assert len(wanted("frames")["predictions.jsonl"].splitlines()) == VIDEOS


# On Ray, on every stage, and networks as they are published


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    with cluster(3) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_scores_records_and_predictions_on_ray_are_those_of_one_process(
    clips, alone, wanted, nodes, tmp_path, capsys, name
):
    one = scored(alone[name], tmp_path / "one", capsys)
    assert complete(one)
    for workers in (1, 2, 3):
        assert scored(alone[name], tmp_path / f"{workers}", capsys, *on(nodes, workers)) == one
        out = tmp_path / f"predicted-{workers}"
        assert predicted(alone[name], clips, out, *on(nodes, workers)) == wanted(name)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> dict[str, Path]:
    """The runs of one process, of networks as they are published."""
    root = tmp_path_factory.mktemp("whole")
    for name, form in WHOLE.items():
        assert in_child(resolve("action", given(clips, form, **EVEN)), root / name) == 0
    return {name: root / name for name in WHOLE}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("zero", ["none", "0", "1", "2", "3"])
def test_two_workers_end_with_the_bits_of_one_on_every_stage(clips, whole, tmp_path, name, zero):
    pytest.importorskip("deepspeed")
    run = tmp_path / "run"
    assert main(words(clips, run, WHOLE[name], "--workers", "2", "--zero", zero, **EVEN)) == 0
    assert differ(run, whole[name]) == []
    assert (run / "scores.json").read_bytes() == (whole[name] / "scores.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_killed_run_of_two_workers_goes_on_alone_to_the_same_bits(clips, whole, tmp_path, name):
    run = tmp_path / "run"
    started = Started(words(clips, run, WHOLE[name], "--workers", "2", **EVEN), run)
    started.until_update(3)
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    again = Started(words(clips, run, WHOLE[name], **EVEN), run)
    assert again.end() == 0 and "going on from update" in again.said()
    assert differ(run, whole[name]) == []


@pytest.mark.slow
def test_a_probe_of_three_workers_is_that_of_one(clips, tmp_path):
    """Features of frames are computed by all workers, each clip once."""
    form = {
        "backbone": "resnet18",
        "head": "transformer",
        "mode": "probe",
        "tasks.action.clips": 1,
        "tasks.action.crops": 1,
    }
    for workers in ("1", "3"):
        assert main(words(clips, tmp_path / workers, form, "--workers", workers)) == 0
    assert differ(tmp_path / "1", tmp_path / "3") == []
    assert results_of(tmp_path / "1") == results_of(tmp_path / "3")
