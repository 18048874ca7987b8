"""A run that goes on with a task added or taken out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = Path(__file__).with_name("changed_work.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    env = {**os.environ, "TRUNKLINE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(WORK), str(folder)], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


def test_a_killed_run_that_got_a_task_ends_as_one_that_was_not(told):
    assert told["began"] == -9 and told["went on"] == 0 and told["killed again"] == [-9, -9] and told["resumed"] == 0
    assert told["differ"] == []


def test_a_new_task_has_a_head_and_epochs_of_its_own(told):
    assert told["new"] == ["some"] and told["moved"] and told["new elsewhere"] == []
    assert told["batches"] and all(own == shared + 2 for own, shared in told["batches"]), (
        "its statistics begin as the others'"
    )
    assert told["begun"] == {"some": 2} and told["changes"] == [{"update": 2, "added": ["some"], "removed": []}]
    assert any("some: joins at update 2, where its first epoch begins" in note for note in told["notes"])


def test_a_task_can_be_taken_out(told):
    assert told["taken out"] == [-9, 0] and told["left"] == ["boxes", "classification"]


def test_a_run_that_is_over_gets_no_task_and_one_task_stays_one(told):
    assert told["over"] == 1 and told["single"] == 1
    assert "tasks.some: the run is over, so that a task that is added to it would learn nothing" in told["stderr"]
    assert "has the tasks classification, boxes, some, and boxes now: a run goes on with a task added" in told["stderr"]


def test_a_checkpoint_from_before_has_the_tasks_that_it_had(told):
    assert told["before"] == ["classification", "boxes"], "a task joined the run since"
    assert told["gone"]["task"] == "some" and told["gone"]["checkpoint"] == "000004"
    assert told["begun from"] == ["classification", "boxes", "some"]


def test_it_is_said_when_a_task_joined_and_left(told):
    assert (
        "has no such task; it has classification, boxes (it joined at update 2: checkpoint= chooses" in told["not yet"]
    )
    assert "(it joined at update 2, it left at update 4: checkpoint= chooses one with it)" in told["no more"]
