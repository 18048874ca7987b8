"""From a plan to batches: which samples, the same tensors whoever decodes them, and clear errors of workers."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.backbones.contract import Preprocessing
from trunkline.cluster.workers import Workers
from trunkline.ground.errors import DataError, EngineError, RecipeError
from trunkline.pipelines.feeding.ahead import one_ahead, sent_ahead
from trunkline.pipelines.feeding.cache import Cache
from trunkline.pipelines.feeding.draws import Draws
from trunkline.pipelines.feeding.loader import decoding
from trunkline.pipelines.feeding.mixture import Mixture, Share
from trunkline.pipelines.feeding.ordered import in_order
from trunkline.pipelines.feeding.plan import Plan
from trunkline.pipelines.feeding.updates import cached_updates
from trunkline.pipelines.feeding.updates import updates as updates_of
from trunkline.tasks.classification.options import Options
from trunkline.tasks.classification.task import Classification

SEED = 5


@pytest.fixture(scope="module")
def task(scenes) -> Classification:
    return Classification(Options(data=str(scenes), size=32), Preprocessing())


@pytest.fixture(scope="module")
def draws(task) -> Draws:
    return Draws(task, task.samples("train"), SEED, training=True)


@dataclass
class First:
    """The first `count` of a split."""

    samples: object
    count: int

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, name):
        return getattr(self.samples, name)

    def __getitem__(self, index):
        return self.samples[index]


def alone(plan: Plan) -> Mixture:
    """One task is a mixture of one."""
    return Mixture((Share("classification", plan),))


def updates(draws: Draws, plan: Plan, *more):
    return updates_of({"classification": draws}, alone(plan), *more)


def delivered(draws: Draws, plan: Plan, first: int, last: int, workers: int) -> dict[tuple[int, str], torch.Tensor]:
    """Every image by (epoch, id)."""
    found = {}
    for update in updates(draws, plan, first, last, workers):
        for batch in update.micro_batches:
            assert batch.images.dtype == torch.uint8
            for name, image in zip(batch.ids, batch.images, strict=True):
                place = update.number // plan.per_epoch, name
                assert place not in found, "twice in an epoch"
                found[place] = image.clone()
    return found


def assert_agree(found: dict, expected: dict) -> None:
    assert found and found.keys() <= expected.keys()
    assert [place for place, image in found.items() if not torch.equal(image, expected[place])] == []


@pytest.fixture(scope="module")
def expected(draws) -> dict[tuple[int, str], torch.Tensor]:
    """Every sample of three epochs, one after the other, in the data set's order."""
    return {(e, s.id): s.image for e in range(3) for i in range(len(draws.samples)) for s in [draws.draw((e, i, 0))]}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("batch", "micro"), [(8, 8), (10, 5), (16, 1)])
def test_the_same_sample_of_an_epoch_is_the_same_tensor_whoever_delivers_it(draws, expected, workers, batch, micro):
    plan = Plan(40, batch, micro, SEED)
    found = delivered(draws, plan, 0, 2 * plan.per_epoch, workers)
    assert len(found) == 2 * plan.per_epoch * batch
    assert_agree(found, expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [1, 3, 5, 7])
def test_a_resume_delivers_what_was_left(draws, expected, first, workers):
    plan = Plan(40, 10, 5, SEED)
    whole, rest = delivered(draws, plan, 0, 8, 0), delivered(draws, plan, first, 8, workers)
    assert_agree(rest, expected)
    assert list(rest) == list(whole)[first * 10 :]


def test_the_next_epoch_augments_otherwise(expected):
    names = {name for _, name in expected}
    changed = [name for name in names if not torch.equal(expected[0, name], expected[1, name])]
    assert len(names) == 40 and len(changed) == 40


def test_another_seed_and_another_repeat_augment_otherwise(draws, task):
    other = Draws(task, draws.samples, SEED + 1, training=True)
    for index in range(5):
        image = draws.draw((0, index, 0)).image
        assert not torch.equal(image, other.draw((0, index, 0)).image)
        assert not torch.equal(image, draws.draw((0, index, 1)).image)


def test_evaluation_has_no_chance_in_it(draws, task):
    still = Draws(task, draws.samples, SEED, training=False)
    assert torch.equal(still.draw((0, 3, 0)).image, still.draw((7, 3, 2)).image)


@pytest.mark.parametrize(("samples", "batch", "micro"), [(40, 8, 8), (41, 8, 2), (17, 4, 4), (7, 7, 1), (5, 1, 1)])
def test_an_epoch_is_a_permutation_cut_into_updates(samples, batch, micro):
    plan = Plan(samples, batch, micro, SEED)
    assert plan.per_epoch == samples // batch and plan.dropped == samples % batch
    orders = []
    for epoch in range(4):
        seen: list[int] = []
        for update in range(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch):
            lists = plan.micro_batches(update)
            assert [len(one) for one in lists] == [micro] * (batch // micro)
            assert {(e, repeat) for one in lists for e, _, repeat in one} == {(epoch, 0)}
            seen += [index for one in lists for _, index, _ in one]
        assert len(seen) == len(set(seen)) == samples - plan.dropped
        assert set(seen) <= set(range(samples))
        orders.append(seen)
    assert len({tuple(order) for order in orders}) == 4
    if plan.dropped:
        left = [set(range(samples)) - set(order) for order in orders]
        assert all(len(one) == plan.dropped for one in left)
        assert set.intersection(*left) == set(), "what one epoch leaves out another takes"


@pytest.mark.parametrize("groups", [None, np.arange(7) % 2])
@pytest.mark.parametrize("units", [None, np.arange(7) // 3])
def test_an_epoch_may_see_each_sample_several_times(groups, units):
    plan = Plan(7, 2, 2, SEED, units, groups, repeats=4)
    assert (plan.per_epoch, plan.dropped) == (14, 0)
    for epoch in (0, 1):
        lists = [one for u in range(14) for one in plan.micro_batches(14 * epoch + u)]
        assert sorted(at for one in lists for at in one) == [(epoch, i, r) for i in range(7) for r in range(4)]
    assert Plan(40, 8, 8, SEED, repeats=1).micro_batches(3) == Plan(40, 8, 8, SEED).micro_batches(3)
    with pytest.raises(
        RecipeError, match=r"larger than the 7 training samples seen batch\.repeats=2 times: set batch=7"
    ):
        Plan(7, 16, 16, 0, repeats=2)


def test_micro_batches_do_not_change_which_samples_an_update_takes():
    def flat(micro: int, update: int) -> list:
        return [at for one in Plan(40, 8, micro, SEED).micro_batches(update) for at in one]

    assert all(flat(8, u) == flat(2, u) == flat(1, u) for u in range(12))


def test_the_order_depends_on_the_seed_only():
    assert Plan(40, 8, 8, 1).micro_batches(0) == Plan(40, 8, 8, 1).micro_batches(0)
    assert Plan(40, 8, 8, 1).micro_batches(0) != Plan(40, 8, 8, 2).micro_batches(0)


@pytest.mark.parametrize(
    ("epochs", "updates", "length"),
    [(2, None, 10), (0.5, None, 3), (0.01, None, 1), (1.5, None, 8), (None, 7, 7), (None, 1, 1)],
)
def test_the_length_of_a_phase(epochs, updates, length):
    assert Plan(40, 8, 8, 0).length(epochs, updates) == length


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(RecipeError, match=r"batch\.size=64 is larger than the 40 training samples: set batch=20"):
        Plan(40, 64, 64, 0)
    assert Plan(40, 40, 40, 0).per_epoch == 1


def test_keys_of_micro_batches_differ_and_do_not_depend_on_workers(draws):
    plan = Plan(40, 8, 2, SEED)
    keys = [[b.key for t in updates(draws, plan, 0, 3, w) for b in t.micro_batches] for w in (0, 1)]
    assert keys[0] == keys[1] and len(set(keys[0])) == 12
    assert [b.key for t in updates(draws, plan, 2, 3) for b in t.micro_batches] == keys[0][8:]


@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("workers", [0, 2])
def test_in_order_sees_every_sample_once(task, batch, workers):
    samples = First(task.samples("val"), 17)
    still = Draws(task, samples, SEED, training=False)
    batches = list(in_order(still, batch, workers).mine)
    assert [name for b in batches for name in b.ids] == [samples.id(i) for i in range(17)]
    assert [len(b) for b in batches] == [batch] * (17 // batch) + [17 % batch] * (17 % batch > 0)
    images = torch.cat([b.images for b in batches])
    assert torch.equal(images, torch.stack([still.draw((0, i, 0)).image for i in range(17)]))
    labels = torch.cat([b.targets["label"] for b in batches])
    assert labels.tolist() == [samples[i].targets["label"] for i in range(17)]


@pytest.mark.parametrize("counts", [(7, 6), (20, 1), (1, 1, 1, 1), (3, 3, 2), (40, 33, 2)])
def test_micro_batches_hold_one_group_and_leave_none_out(counts):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    plan = Plan(len(groups), 4, 2, 0, None, groups)
    assert plan.per_epoch == len(groups) // 4
    epochs, trained = [], set()
    for epoch in range(30):
        updates = [plan.micro_batches(epoch * plan.per_epoch + n) for n in range(plan.per_epoch)]
        micros = [[i for _, i, _ in micro] for update in updates for micro in update]
        seen = [i for micro in micros for i in micro]
        assert len(seen) == len(set(seen)) == plan.per_epoch * 4 and {len(m) for m in micros} == {2}
        mixed = [m for m in micros if len({groups[i] for i in m}) > 1]
        assert len(mixed) <= len(counts) // 2
        epochs.append(seen)
        trained |= set(seen)
    assert trained == set(range(len(groups)))
    assert epochs[0] != epochs[1]


def test_in_order_does_not_mix_groups(task):
    class Grouped(First):
        def groups(self, training: bool):
            return np.array([index // 3 for index in range(len(self))])

    batches = list(in_order(Draws(task, Grouped(task.samples("val"), 8), SEED, training=False), 2).mine)
    assert [len(b) for b in batches] == [2, 1, 2, 1, 2]


def test_cached_maps_come_by_the_same_plan(draws):
    plan = Plan(40, 8, 4, SEED)
    ids = [draws.samples.id(i) for i in range(40)]
    cache = Cache("classification", ids, {"c5": torch.arange(40.0).view(40, 1, 1, 1)}, {"label": torch.arange(40)})
    for cached, decoded in zip(
        cached_updates({"classification": cache}, alone(plan), 3, 7), updates(draws, plan, 3, 7), strict=True
    ):
        for one, other in zip(cached.micro_batches, decoded.micro_batches, strict=True):
            assert (one.ids, one.key) == (other.ids, other.key)
            assert [ids[int(i)] for i in one.features["c5"].flatten()] == one.ids
            assert one.targets["label"].tolist() == one.features["c5"].flatten().tolist()
    assert [len(b) for b in cache.in_order(32).mine] == [32, 8]
    assert [n for b in cache.in_order(32).mine for n in b.ids] == ids


class Spoilt(First):
    """A split of which one sample does something else when it is read."""

    def __init__(self, samples, act, at: int):
        super().__init__(samples, len(samples))
        self.act, self.at = act, at

    def __getitem__(self, index):
        if index == self.at:
            self.act()
        return self.samples[index]


def spoilt(draws: Draws, act, at: int) -> Draws:
    other = Draws(draws.task, draws.samples, draws.seed, training=True)
    other.samples = Spoilt(draws.samples, act, at)
    return other


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_is_killed_is_one_clear_error(draws, workers):
    parent = os.getpid()

    def act() -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    plan = Plan(40, 8, 8, SEED)
    victim = plan.micro_batches(2)[0][0][1]
    message = r"a process that decodes was killed .*memory ran out: set machine\.loaders="
    with pytest.raises(EngineError, match=message) as told, decoding(workers):
        list(updates(spoilt(draws, act, victim), plan, 0, 5, workers))
    assert f"machine.loaders={workers // 2}" in str(told.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_photo_arrives_as_itself_with_its_name(task, scenes, tmp_path, workers):
    import shutil

    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    own = Classification(replace(task.options, data=str(data)), Preprocessing())
    samples = own.samples("train")
    plan = Plan(40, 8, 8, SEED)
    victim = Path(samples.source(plan.micro_batches(1)[0][3][1]))
    victim.write_bytes(victim.read_bytes()[:300])
    feed = updates(Draws(own, samples, SEED, training=True), plan, 0, 5, workers)
    assert len(next(feed).micro_batches[0]) == 8
    with pytest.raises(DataError) as told:
        list(feed)
    assert str(told.value).startswith(f"{victim}: ") and "Traceback" not in str(told.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_is_not_taken_for_a_users(draws, workers):
    def act() -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        list(updates(spoilt(draws, act, 3), Plan(40, 8, 8, SEED), 0, 5, workers))


@pytest.mark.slow
def test_a_program_that_an_error_ends_does_not_wait_for_those_who_decode(scenes):
    """They pass over SIGTERM, which Python sends at its exit to what still runs."""
    code = f"""
from trunkline.backbones.contract import Preprocessing
from trunkline.pipelines.feeding.draws import Draws
from trunkline.pipelines.feeding.mixture import Mixture, Share
from trunkline.pipelines.feeding.plan import Plan
from trunkline.pipelines.feeding.updates import updates
from trunkline.tasks.classification.options import Options
from trunkline.tasks.classification.task import Classification
task = Classification(Options(data={str(scenes)!r}, size=32), Preprocessing())
draws = {{"classification": Draws(task, task.samples("train"), 0, training=True)}}
kept = updates(draws, Mixture((Share("classification", Plan(40, 8, 4, 0)),)), 0, 1000, 2)
next(kept)
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr


def test_an_updates_first_micro_batch_is_sent_while_the_one_before_is_still_to_be_done(draws):
    """On a GPU: sent early, taken when its turn comes, and each update as it would be without."""
    plan = Plan(len(draws.samples), 4, 2, SEED)
    plain, log = list(updates(draws, plan, 0, 4)), []

    def send(batch):
        log.append(("sent", batch.key))
        return lambda: log.append(("taken", batch.key)) or batch

    for update, same in zip(one_ahead(iter(plain), send), plain, strict=True):
        log.append(("done", update.number))
        assert [b.key for b in update.micro_batches] == [b.key for b in same.micro_batches]
    first = [u.micro_batches[0].key for u in plain]
    expected = [("sent", first[0])]
    for n, k in enumerate(first):
        expected += [("sent", first[n + 1])] if n + 1 < len(first) else []
        expected += [("taken", k), ("done", n)]
    assert log == expected
    assert sent_ahead(marker := iter(plain), torch.device("cpu")) is marker


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_workers_divide_what_is_to_be_done(size):
    """Nobody does another's: a mean over what all did twice would be the same, at twice the price."""
    items, parts = list(range(7)), []
    for rank in range(size):
        worker = object.__new__(Workers)
        worker.rank, worker.size = rank, size
        parts.append(list(worker.mine(items)))
    assert sorted(i for part in parts for i in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
