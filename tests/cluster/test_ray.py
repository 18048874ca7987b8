"""Training on a Ray cluster, through failures, to the weights of a run that nothing happened to."""

import json
import signal
import time
from pathlib import Path

import pytest
from ray_cluster import Started, cluster, differ, on, words, workers_of

from trunkline.pipelines.command.cli import main

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(words(scenes, run)) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("what", ["worker", "node"])
def test_whatever_dies(scenes, undisturbed, tmp_path, workers, what):
    with cluster(workers + (what == "node")) as made:
        started = Started(words(scenes, tmp_path / "run", *on(made, workers), "--zero", "none"), tmp_path / "run")
        started.until_update(10)
        victim = next(node for node in reversed(made.own) if workers_of(node))
        if what == "worker":
            workers_of(victim)[0].kill()
        else:
            made.remove_node(victim, allow_graceful=False)
        seconds = started.step_after(time.time())
        assert started.end() == 0, started.said()
    print(f"{what} of {workers}: from kill to next step {seconds:.1f} s")
    assert differ(undisturbed, tmp_path / "run") == []


@pytest.mark.slow
def test_a_run_without_room_says_so_and_hears_a_signal(scenes, tmp_path):
    with cluster(2) as made:
        waiting = Started(words(scenes, tmp_path / "more", *on(made, 3)), tmp_path / "more")
        waiting.until(lambda: "waiting for room: 3 workers need 3 CPU, 0 GPU; the cluster has 2 CPU" in waiting.said())
        waiting.process.terminate()
        assert waiting.end(60) == 128 + signal.SIGTERM, waiting.said()
        assert "stopped before there was anything to save" in waiting.said() and "Traceback" not in waiting.said()


@pytest.mark.slow
def test_a_node_that_never_comes_back(scenes, undisturbed, tmp_path):
    """An elastic run goes on with fewer workers, in at most 45 s, and with the same batch."""
    with cluster(3) as made:
        started = Started(words(scenes, tmp_path / "run", *on(made, "2,3")), tmp_path / "run")
        started.until_update(10)
        made.remove_node(next(node for node in reversed(made.own) if workers_of(node)), allow_graceful=False)
        seconds = started.step_after(time.time())
        assert started.end() == 0, started.said()
    print(f"from the loss of a node to the next step with fewer workers: {seconds:.1f} s")
    assert "started again: 2 workers" in started.said()
    assert seconds <= 45
    assert differ(undisturbed, tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "micro", "epochs"), [(32, 8, 8), (30, 10, 4)])
def test_three_nodes_train_the_demonstration(tmp_path, batch, micro, epochs):
    """To within a point of the local run's metrics; of four micro-batches, too, which three workers do not divide."""
    settings = [
        f"epochs={epochs}",
        f"batch.size={batch}",
        f"batch.micro={micro}",
        "machine.loaders=0",
        "log.tensorboard=false",
    ]
    found = {}
    with cluster(3) as made:
        for name, more in (("alone", []), ("three", on(made, 3))):
            started = Started(["train", "demo", *settings, "--run", str(tmp_path / name), *more], tmp_path / name)
            assert started.end(900) == 0, started.said()
            found[name] = json.loads((tmp_path / name / "scores.json").read_text())
    print({name: (scores["top1"], scores["ece"]) for name, scores in found.items()})
    assert found["alone"]["top1"] > 0.8
    for metric in ("top1", "top5", "mean_per_class", "ece"):
        assert abs(found["three"][metric] - found["alone"][metric]) <= 0.01, metric


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_dies_or_is_asked_to_end(scenes, undisturbed, tmp_path, signum):
    """The same command goes on."""
    with cluster(2) as made:
        command = words(scenes, tmp_path / "run", *on(made, 2))
        started = Started(command, tmp_path / "run")
        started.until_update(10)
        started.process.send_signal(signum)
        assert started.end(60) == (-9 if signum == signal.SIGKILL else 128 + signum), started.said()
        if signum != signal.SIGKILL:
            assert "stopped at update" in started.said() and "Traceback" not in started.said()
        again = Started(command, tmp_path / "run")
        assert again.end() == 0, again.said()
    assert differ(undisturbed, tmp_path / "run") == []
