"""Several tasks on a Ray cluster: trained, scored and predicted as one process does, to the bit."""

import json
import os
import signal
from pathlib import Path

import pytest
from ray_cluster import Started, cluster, differ, on
from run_work import files_in

from trunkline.pipelines.command.cli import main

pytestmark = pytest.mark.slow
FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
SETTINGS = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": "false",
            "log.tensorboard": "false", "updates": 12, "checkpoints.updates": 3, "balance": "gradient_norm"}  # fmt: skip


def train(run: Path, *more: str) -> list[str]:
    return ["train", FILE, *(f"{k}={v}" for k, v in SETTINGS.items()), "--run", str(run), *more]


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory):
    """A cache, and where workers find the recipe and the narrow network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(FILE).parent), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def alone(places, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    started = Started(train(run), run)
    assert started.end() == 0, started.said()
    return run


@pytest.fixture(scope="module")
def nodes(places):
    pytest.importorskip("ray")
    with cluster(3) as made:
        yield made


@pytest.mark.parametrize("workers", [2, 3])
def test_trained_on_ray_and_killed_is_the_run_of_one_process(workers, alone, nodes, tmp_path):
    run = tmp_path / "run"
    started = Started(train(run, *on(nodes, workers)), run)
    started.until_update(4)
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    again = Started(train(run, *on(nodes, workers)), run)
    assert again.end() == 0, again.said()
    assert "going on from update" in again.said() and differ(run, alone) == []
    assert (run / "scores.json").read_bytes() == (alone / "scores.json").read_bytes()


def test_all_heads_scored_and_predicted_by_a_pool_are_those_of_one_process(alone, nodes, tmp_path, capsys):
    data = json.loads((alone / "recipe.json").read_text())["resolved"]["tasks"]["boxes"]["data"]

    def results(out: Path, *more: str) -> tuple[dict, dict[str, bytes], dict[str, bytes]]:
        capsys.readouterr()
        own = ["tasks=all", "threads=1"]
        assert main(["evaluate", str(alone), *own, "loaders=0", f"out={out}/scored", "--json", *more]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert main(["predict", str(alone), data, *own, f"out={out}/predicted", "pictures=true", *more]) == 0
        return scores, files_in(out / "scored"), files_in(out / "predicted")

    one = results(tmp_path / "one")
    assert {"classification/top1", "boxes/AP50", "some/AP50"} < {*one[0]}
    for workers in (1, 2, 3):
        assert results(tmp_path / str(workers), *on(nodes, workers)) == one
