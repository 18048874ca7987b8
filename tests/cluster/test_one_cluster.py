"""Training and evaluation on one Ray cluster of three nodes: what every commit must hold of it."""

import json
import re
import time
from pathlib import Path

import pytest
from pool_work import evaluated, split_of
from ray_cluster import Started, cluster, differ, on, words, workers_of

from trunkline.pipelines.command.cli import main

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes():
    with cluster(3) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(words(scenes, run)) == 0
    return run


def test_a_killed_worker_is_started_again_and_the_run_ends_as_if_nothing_had_happened(
    scenes, nodes, undisturbed, tmp_path
):
    started = Started(words(scenes, tmp_path / "run", *on(nodes, 2)), tmp_path / "run")
    started.until_update(10)
    next(w for node in reversed(nodes.own) for w in workers_of(node)).kill()
    seconds = started.step_after(time.time())
    assert started.end() == 0, started.said()
    print(f"from kill to next step: {seconds:.1f} s")
    assert differ(undisturbed, tmp_path / "run") == []
    here, there = ({p.name for p in run.iterdir()} - {"logs"} for run in (tmp_path / "run", undisturbed))
    assert here == there
    assert re.search(r"going on from update [1-9]", started.said()) and "Traceback" not in started.said()


def test_scores_and_records_are_those_of_one_process(scenes, short_run, nodes, tmp_path, capsys):
    data = split_of(scenes, tmp_path / "data", 17)
    wanted = evaluated(short_run, data, tmp_path / "alone.jsonl", capsys)
    assert wanted[0]["samples"] == 17 == len({json.loads(line)["id"] for line in wanted[1].splitlines()})
    assert evaluated(short_run, data, tmp_path / "two.jsonl", capsys, *on(nodes, 2)) == wanted
