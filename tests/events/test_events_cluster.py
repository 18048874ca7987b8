"""Events stand in the cluster's tables: the same bits on any workers and engines, after kills, and in batches."""

import json
import os
import signal
from pathlib import Path

import pytest
from ray_cluster import Started, cluster, differ, on
from run_work import assert_equal, at_call, die, files_in, in_child, pool_here, results_of

from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.events.scenes import write_videos

VIDEOS = 7  # that are scored: two workers and three have not as many each
SHORT = {"width": 16, "levels": 3, "batch": 6, "batch.micro": 2, "updates": 2, "ema": 0.9, "evaluation.batch": 2,
         "evaluation.every": 0, "evaluation.times": 0, "checkpoints.updates": 1, "machine.threads": 1, "machine.loaders": 0,
         "log.tensorboard": False, "tasks.events.longest": 32}  # fmt: skip
"""Updates of three micro-batches, of cuts of long videos."""
HEADS = ("pyramid", "windows")
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
def data(tmp_path_factory) -> Path:
    return write_videos(tmp_path_factory.mktemp("events") / "data", train=10, val=VIDEOS, size=48)


def given(data: Path, head: str, **more) -> dict[str, str]:
    words = {"data": data, "head": head, **SHORT, **more}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in words.items()}


def words(data: Path, run: Path, head: str, *more: str, **changed) -> list[str]:
    return ["train", "events", *(f"{k}={v}" for k, v in given(data, head, **changed).items()), "--run", str(run), *more]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> dict[str, Path]:
    """The runs of one process."""
    root = tmp_path_factory.mktemp("alone")
    for head in HEADS:
        assert in_child(resolve("events", given(data, head)), root / head) == 0
    return {head: root / head for head in HEADS}


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_workers_and_engines_end_with_the_bits_and_files_of_one_process(size, data, alone, tmp_path):
    pytest.importorskip("deepspeed")
    zeros = {1: [None, 0, 1], 2: [None, 1], 3: [None, 0]}[size]  # stage 1 is for powers of two
    rows = [(head, zero) for head in HEADS for zero in zeros]
    runs = [{"recipe": "events", "given": given(data, head), "run": str(tmp_path / f"{head}-{zero}"), "zero": zero}
            for head, zero in rows]  # fmt: skip
    run_local(Job("run_work:several", {"runs": runs}, 120.0), size, tmp_path / "logs", 2)
    for head, zero in rows:
        run = tmp_path / f"{head}-{zero}"
        assert_equal(run, alone[head])
        assert results_of(run) == results_of(alone[head]), (head, zero)


def test_killed_in_an_update_and_resumed_is_undisturbed(data, alone, tmp_path):
    resolved, run = resolve("events", given(data, "pyramid")), tmp_path / "run"
    assert in_child(resolved, run, lambda: at_call(TorchEngine, "_step", 2, die)) == -signal.SIGKILL
    assert in_child(resolved, run) == 0
    assert_equal(run, alone["pyramid"])
    assert results_of(run) == results_of(alone["pyramid"])


def scored(run: Path, out: Path, capsys, *more: str) -> tuple[dict, bytes]:
    """Evaluate in batches of two videos: what is said, and the records."""
    capsys.readouterr()
    own = ["batch=2", "loaders=0", "threads=1", f"out={out}", "--json"]
    assert main(["evaluate", str(run), *own, *more]) == 0
    return json.loads(capsys.readouterr().out), out.read_bytes()


def predicted(run: Path, data: Path, out: Path, *more: str) -> dict[str, bytes]:
    own = [f"out={out}", "threads=1", "batch=2", "pictures=true", "labels=csv"]
    assert main(["predict", str(run), str(data / "features"), *own, *more]) == 0
    return files_in(out)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_records_and_predictions_of_a_pool_are_those_of_one_process(
    data, alone, tmp_path, capsys, monkeypatch, workers
):
    pytest.importorskip("ray")
    monkeypatch.setattr("trunkline.cluster.launchers.ray_pool.pool", pool_here)
    monkeypatch.setenv("TRUNKLINE_CORES", "1")
    pool = ["--launch", "ray", "--workers", str(workers)]
    one = scored(alone["pyramid"], tmp_path / "one", capsys)
    assert one[0]["samples"] == VIDEOS and scored(alone["pyramid"], tmp_path / "pool", capsys, *pool) == one
    wanted = predicted(alone["windows"], data, tmp_path / "wanted")
    assert predicted(alone["windows"], data, tmp_path / "predicted", *pool) == wanted
    assert len(wanted["predictions.jsonl"].splitlines()) == 10 + VIDEOS


# On Ray, and on every stage


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    with cluster(3) as made:
        yield made


@pytest.mark.slow
def test_scores_records_and_predictions_on_ray_are_those_of_one_process(data, alone, nodes, tmp_path, capsys):
    for head in HEADS:
        one = scored(alone[head], tmp_path / head, capsys)
        wanted = predicted(alone[head], data, tmp_path / f"{head}-wanted")
        for workers in (1, 2, 3):
            assert scored(alone[head], tmp_path / f"{head}-{workers}", capsys, *on(nodes, workers)) == one
            out = tmp_path / f"predicted-{head}-{workers}"
            assert predicted(alone[head], data, out, *on(nodes, workers)) == wanted


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert in_child(resolve("events", given(data, "pyramid", **EVEN)), run) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["none", "0", "1", "2", "3"])
def test_two_workers_end_with_the_bits_of_one_on_every_stage(data, whole, tmp_path, zero):
    pytest.importorskip("deepspeed")
    run = tmp_path / "run"
    assert main(words(data, run, "pyramid", "--workers", "2", "--zero", zero, **EVEN)) == 0
    assert differ(run, whole) == []
    assert (run / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()


@pytest.mark.slow
def test_a_killed_run_of_two_workers_goes_on_alone_to_the_same_bits(data, whole, tmp_path):
    run = tmp_path / "run"
    started = Started(words(data, run, "pyramid", "--workers", "2", **EVEN), run)
    started.until_update(3)
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    again = Started(words(data, run, "pyramid", **EVEN), run)
    assert again.end() == 0 and "going on from update" in again.said()
    assert differ(run, whole) == []
