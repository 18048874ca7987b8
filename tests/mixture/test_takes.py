"""Which batches each update takes, by `mixing`, against lists written down from what docs/joint.md says."""

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest
from shared_tasks import shared_tasks

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.feeding.mixture import Share, stretches
from trunkline.pipelines.feeding.plan import Plan
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Recipe
from trunkline.pipelines.recipe.mixtures import mixture_problems
from trunkline.pipelines.training.checks import divide
from trunkline.pipelines.training.parts import mixture, orders
from trunkline.pipelines.training.progress import Progress
from trunkline.pipelines.training.train import changed_tasks, statistics_begun
from trunkline.tasks.classification.options import Options as Classes


class Pictures(list):
    """So many samples."""

    def source(self, index: int) -> int:
        return index

    def units(self) -> None:
        return None

    def groups(self, training: bool) -> None:
        return None


def recipe_of(names: str, **given: Any) -> Recipe:
    return Recipe(
        tasks={name: Classes(data="demo:smoke") for name in names}, network=Network("narrow"), batch=Batches(2), **given
    )


def mixed(
    sizes: dict[str, int], ended: dict[str, int] | None = None, begun: dict[str, int] | None = None, **given: Any
):
    """The mixture of tasks with data of so many batches of 2."""
    parts: Any = {name: SimpleNamespace(training=Pictures(range(2 * size))) for name, size in sizes.items()}
    return mixture(recipe_of("".join(sizes), **given), parts, 0, Progress(ended=ended or {}, begun=begun or {}))


def taken(found, updates: int) -> dict[str, list[list[int]]]:
    """The numbers of the batches that each update takes, by task."""
    return {share.task: [[*share.batches(update)] for update in range(updates)] for share in found.shares}


EQUAL = {"a": 4, "b": 4, "c": 4}


def test_ratios_are_batches_an_update_on_average():
    found = mixed(EQUAL, mix={"a": 2, "c": 0.5})
    assert taken(found, 4) == {
        "a": [[0, 1], [2, 3], [4, 5], [6, 7]],
        "b": [[0], [1], [2], [3]],
        "c": [[], [0], [], [1]],
    }
    assert found.batch == 2 * (2 + 1 + 0.5) and found.per_epoch == 2, "a's four batches are two updates"


def test_data_of_n_batches_counts_as_its_root_of_the_temperature():
    """Of 16 and 4 batches: 16 to 4 of two an update; at temperature 2, 4 to 2 of two; with a factor, 16 to 4 * 4."""
    sizes = {"a": 16, "b": 4}
    assert taken(mixed(sizes, mixing="proportional"), 5) == {
        "a": [[0], [1, 2], [3], [4, 5], [6, 7]],  # 1.6, 3.2, 4.8, 6.4, 8 so far
        "b": [[], [], [0], [], [1]],  # 0.4, 0.8, 1.2, 1.6, 2
    }
    assert taken(mixed(sizes, mixing="proportional", temperature=2.0), 3) == {
        "a": [[0], [1], [2, 3]],  # 4/3, 8/3, 4
        "b": [[], [0], [1]],  # 2/3, 4/3, 2
    }
    even = {"a": [[0], [1]], "b": [[0], [1]]}
    assert taken(mixed(sizes, mixing="proportional", mix={"b": 4}), 2) == even
    near = mixed(sizes, mixing="proportional", temperature=1e6)
    assert [share.average for share in near.shares] == pytest.approx([1, 1], abs=1e-5), "large numbers are equal"


def test_tasks_of_equal_size_leave_no_update_empty():
    """Shares of a sum may be rounded to below 1, all of them: seven of 3 batches at temperature 3."""
    for count, size, temperature in itertools.product(range(2, 12), (3, 5, 7), (1.0, 3.0, 5.0)):
        sizes = dict.fromkeys("abcdefghijk"[:count], size)
        found = mixed(sizes, mixing="proportional", temperature=temperature)
        assert all(any(s.batches(update) for s in found.shares) for update in range(3))


def test_round_robin_has_one_batch_of_one_task_so_many_updates_in_a_row():
    found = mixed(EQUAL, mixing="round_robin", mix={"a": 2})
    assert taken(found, 5) == {
        "a": [[0], [1], [], [], [2]],
        "b": [[], [], [0], [], []],
        "c": [[], [], [], [0], []],
    }
    assert found.batch == 2 and found.per_epoch == 8, "a's four batches are eight updates"


def test_where_one_task_learns_its_updates_have_one_batch_too():
    """A task of weight 0 is only scored: the other learns as if it were not there."""
    found = mixed({"a": 4, "b": 4}, mixing="round_robin", mix={"a": 3}, loss_weights={"b": 0.0})
    assert taken(found, 2) == {"a": [[0], [1]]} and (found.batch, found.per_epoch) == (2, 4)


def test_turns_of_a_task_that_has_ended_fall_to_the_others():
    found = mixed(EQUAL, {"b": 5}, mixing="round_robin", mix={"a": 2})
    assert taken(found, 9) == {
        "a": [[0], [1], [], [], [2], [3], [4], [], [5]],  # from update 5 on: a, a, c
        "b": [[], [], [0], [], [], [], [], [], []],
        "c": [[], [], [], [0], [], [], [], [1], []],
    }
    assert found.batch == 2 and found.per_epoch == 8, "a phase's length and epochs stay"
    last = mixed(EQUAL, {"b": 5, "a": 6}, mixing="round_robin", mix={"a": 2})
    assert taken(last, 9)["c"] == [[], [], [], [0], [], [], [1], [2], [3]]


def test_others_go_on_as_they_did_and_no_update_is_empty():
    kept = mixed(EQUAL, {"a": 3}, mix={"c": 0.5})
    assert taken(kept, 6) == {
        "a": [[0], [1], [2], [], [], []],
        "b": [[0], [1], [2], [3], [4], [5]],
        "c": [[], [0], [], [1], [], [2]],
    }
    assert kept.batch == 2 * 1.5, "what the speed and the report count"
    small = mixed(EQUAL, {"a": 3}, mix={"b": 0.5, "c": 0.25})
    assert taken(small, 7) == {
        "a": [[0], [1], [2], [], [], [], []],
        "b": [[], [0], [], [1], [2], [3], [4]],  # one an update from 3 on
        "c": [[], [], [], [], [0], [], [1]],  # and half of that
    }
    assert small.per_epoch == 4


def test_a_task_that_joins_has_its_turns_from_there_on():
    found = mixed(EQUAL, begun={"c": 3}, mixing="round_robin")
    assert taken(found, 7) == {
        "a": [[0], [], [1], [2], [], [], [3]],
        "b": [[], [0], [], [], [1], [], []],
        "c": [[], [], [], [], [], [0], []],
    }


@pytest.mark.parametrize("in_turns", [False, True])
def test_whatever_ends_no_update_is_empty_and_what_is_past_stays(in_turns):
    """A resumed run knows of more ends than the one that began: the batches before them are the same, none twice or left out."""
    chance = random.Random(1)
    for _ in range(60):
        takes = [float(chance.randint(1, 3)) if in_turns else chance.choice([0.1, 0.3, 0.5, 1, 2.5]) for _ in range(4)]
        takes[0] = max(takes[0], 1.0)
        ends = [chance.randint(1, 30) for _ in range(3)]
        order = chance.sample(range(4), 4)
        known = [dict(zip(order[:count], sorted(ends), strict=False)) for count in range(4)]
        plans = []
        for ended in known:
            found = stretches(takes, [(0, ended.get(n)) for n in range(4)], in_turns)
            plans.append([Share(str(n), Plan(8, 2, 2, 0), stretches=own) for n, own in enumerate(found)])
        for update in range(40):
            counts = [len(share.batches(update)) for share in plans[-1]]
            assert sum(counts) == 1 if in_turns else sum(counts) >= 1
            assert not any(counts[n] for n, last in known[-1].items() if update >= last)
        for earlier, later, ended in zip(plans, plans[1:], known[1:], strict=False):
            past = range(max(ended.values()))
            assert [s.batches(u) for s in earlier for u in past] == [s.batches(u) for s in later for u in past]
        for share in plans[-1]:
            assert [n for u in range(40) for n in share.batches(u)] == [*range(share.before(40))]


def test_pictures_that_tasks_share_are_counted_once():
    recipe = shared_tasks()
    parts: Any = {name: SimpleNamespace(training=Pictures(range(20))) for name in recipe.tasks}
    assert mixture(recipe, parts, 0).batch == 8 + 4, "boxes and some see the same four"


def test_workers_divide_what_is_left_too():
    """The micro-batches that synchronised norms count on may be fewer once a task has ended, also after many updates."""
    recipe = recipe_of("ab", mix={"a": 1, "b": 1}, evaluation=Evaluation(patience_of={"a": 1}))
    sync: Any = SimpleNamespace(
        workers=SimpleNamespace(size=2), recipe=SimpleNamespace(network=SimpleNamespace(norm="sync")), note=print
    )
    divide(sync, mixed({"a": 4, "b": 4}))
    with pytest.raises(RecipeError, match=r"network.norm=sync with 2 workers and 1 micro-batches an update"):
        divide(sync, mixed({"a": 4, "b": 4}, {"a": 5000}))
    assert mixture_problems(recipe) == []


def test_patience_of_a_task_that_learns_nothing_is_refused():
    recipe = recipe_of("ab", loss_weights={"a": 0.0}, evaluation=Evaluation(patience_of={"a": 1}))
    assert mixture_problems(recipe) == [
        "evaluation.patience_of.a: loss_weights.a=0, so that it learns nothing; leave it out"
    ]


def samples_of(sizes: dict[str, int], progress: Progress) -> dict[str, list]:
    parts: Any = {name: SimpleNamespace(training=Pictures(range(2 * size))) for name, size in sizes.items()}
    found = mixture(recipe_of("".join(sizes)), parts, 0, progress)
    return {share.task: share.plan.micro_batches(0) for share in found.shares}


def test_the_order_of_a_tasks_samples_stays_when_others_come_and_go():
    one, two = {"a": 4}, {"a": 4, "b": 4}
    alone, beside = Progress(), Progress()
    alone.named, beside.named = (orders(recipe_of(names), Progress()) for names in ("a", "ab"))
    assert alone.named == {"a": False} and beside.named == {"a": True, "b": True}
    first, both = samples_of(one, alone), samples_of(two, beside)
    assert first["a"] != both["a"], "of several, each has an order of its own"
    assert samples_of(two, alone)["a"] == first["a"] and samples_of(two, alone)["b"] == both["b"]
    assert samples_of(one, beside)["a"] == both["a"]


def test_a_task_that_comes_again_begins_anew():
    progress = Progress(begun={"b": 3}, ended={"b": 5}, patient={"b": [0.5, 2]}, named={"a": True, "b": True})
    state = {"facts": {"tasks": {"a": {}, "b": {}}}, "phase": 0, "engine": {"updates": 7}}
    assert changed_tasks(recipe_of("a"), progress, state) == ([], ["b"])
    assert (progress.begun, progress.ended, progress.patient, progress.named) == ({}, {}, {}, {"a": True})
    state["facts"]["tasks"] = {"a": {}}
    assert changed_tasks(recipe_of("ab"), progress, state) == (["b"], []) and progress.begun == {"b": 7}


@pytest.mark.parametrize(
    ("norms", "begins"),
    [({}, ""), ({"b": "own"}, ""), ({"a": "own", "b": "own"}, "a"), ({"a": "frozen", "b": "own"}, "b")],
)
def test_statistics_of_a_task_that_joins_begin_as_some_that_were_moved(norms, begins):
    recipe = recipe_of("abc", norms={**norms, "c": "own"})
    assert statistics_begun(recipe, {"facts": {"tasks": {"a": {}, "b": {}}}}) == begins
