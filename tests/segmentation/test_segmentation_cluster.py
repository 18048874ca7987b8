"""Segmentation stands in the cluster's tables: the same bits on any workers and stages, after kills, and in batch evaluation."""

import json
import os
import signal
from pathlib import Path

import pytest
from ray_cluster import Started, differ

from trunkline.pipelines.command.cli import main
from trunkline.tasks.segmentation.scenes import write_pixel_scenes

pytestmark = pytest.mark.slow
pytest.importorskip("deepspeed")
pytest.importorskip("segmentation_models_pytorch")
HEADS = ("deeplabv3plus", "fcn")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> Path:
    os.environ["TRUNKLINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return write_pixel_scenes(tmp_path_factory.mktemp("pixels") / "data", train=16, val=17, size=64)


def words(data: Path, head: str, run: Path, *more: str, **changed) -> list[str]:
    settings = {
        "data": data, "format": "pairs", "head": head, "weights": "none", "backbone": "resnet18", "crop": 64, "batch": 4,
        "micro_batch": 2, "updates": 4, "tasks.segmentation.aux": 0.4, "tasks.segmentation.dice": 1.0, "ema": 0.9,
        "checkpoints.updates": 2, "evaluation.every": 0, "machine.threads": 1, "machine.loaders": 0,
        "machine.precision": "fp32", "log.tensorboard": "false", **changed,
    }  # fmt: skip
    return ["train", "segment", *(f"{k}={v}" for k, v in settings.items()), "--run", str(run), *more]


@pytest.fixture(scope="module")
def alone(pixels, tmp_path_factory) -> dict[str, Path]:
    """The runs of one process."""
    root = tmp_path_factory.mktemp("alone")
    for head in HEADS:
        assert main(words(pixels, head, root / head)) == 0
    return {head: root / head for head in HEADS}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("zero", ["none", "0", "1", "2", "3"])
def test_two_workers_end_with_the_bits_of_one(pixels, alone, tmp_path, head, zero):
    run = tmp_path / "run"
    assert main(words(pixels, head, run, "--workers", "2", "--zero", zero)) == 0
    assert differ(run, alone[head]) == []
    assert (run / "scores.json").read_bytes() == (alone[head] / "scores.json").read_bytes()


@pytest.mark.parametrize("head", HEADS)
def test_a_killed_run_goes_on_to_the_same_bits(pixels, alone, tmp_path, head):
    run = tmp_path / "run"
    started = Started(words(pixels, head, run), run)
    started.until_update(3)
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    again = Started(words(pixels, head, run), run)
    assert again.end() == 0 and "going on from update" in again.said()
    assert differ(run, alone[head]) == []


def test_batch_evaluation_gives_the_same_masks_on_any_number_of_workers(pixels, alone, tmp_path, capsys):
    pytest.importorskip("ray")
    run, found = alone["deeplabv3plus"], {}
    for name, more in (("here", []), *((str(n), ["--launch", "ray", "--workers", str(n)]) for n in (1, 2, 3))):
        out, results = tmp_path / f"{name}.jsonl", tmp_path / f"results-{name}"
        capsys.readouterr()
        own = ["batch=4", "loaders=0", "threads=1", f"out={out}", f"results={results}", "--json"]
        assert main(["evaluate", str(run), *own, *more]) == 0
        files = {file.name: file.read_bytes() for file in sorted(results.rglob("*.png"))}
        found[name] = (json.loads(capsys.readouterr().out), out.read_bytes(), files)
    assert len(found["here"][2]) == 17
    assert all(other == found["here"] for other in found.values())
