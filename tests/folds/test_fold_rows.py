"""Folds and groups as pure functions: groups whole, every row once, the same whatever the order; intervals over groups."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.ground.errors import DataError
from trunkline.tasks.classification.evaluator import ClassificationEvaluator
from trunkline.tasks.data.groups import groups_of, known_groups
from trunkline.tasks.data.split import fold_rows
from trunkline.tasks.intervals import bootstrap, over_groups

CLASSES = ("a", "b", "c")


@st.composite
def planted(draw) -> tuple[list[str], np.ndarray, list[str], int]:
    """Ids, labels and groups of 2 to 60 rows, and a number of folds that there are groups for."""
    size = draw(st.integers(2, 60))
    groups = [f"p{n}" for n in draw(st.lists(st.integers(0, 12), min_size=size, max_size=size))]
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    there = len({*groups})
    return [f"{i}.jpg" for i in range(size)], labels, groups, draw(st.integers(2, max(2, there)))


@given(planted(), st.integers(0, 3))
@settings(max_examples=120, deadline=None)
def test_groups_are_whole_and_no_fold_is_empty(rows, seed):
    ids, labels, groups, folds = rows
    if len({*groups}) < folds:
        with pytest.raises(DataError, match="two are needed"):
            fold_rows(ids, labels, CLASSES, folds, groups, seed)
        return
    found = fold_rows(ids, labels, CLASSES, folds, groups, seed)
    places = defaultdict(set)
    for group, fold in zip(groups, found.tolist(), strict=True):
        places[group].add(fold)
    assert all(len(own) == 1 for own in places.values())
    assert {*found.tolist()} == {*range(folds)}
    order = np.random.default_rng(seed).permutation(len(ids))  # the order of rows is nothing
    again = fold_rows([ids[i] for i in order], labels[order], CLASSES, folds, [groups[i] for i in order], seed)
    assert np.array_equal(again, found[order])
    one = fold_rows(ids, np.zeros(len(ids), np.int64), ("",), folds, groups, seed)
    sizes, largest = np.bincount(one), max(Counter(groups).values())
    assert sizes.max() - sizes.min() <= largest  # as of any schedule that fills the least full one first (Graham 1969)


@given(planted(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_without_groups_folds_differ_by_one_row_and_by_one_of_a_class(rows, seed):
    ids, labels, _, folds = rows
    folds = min(folds, len(ids))
    found = fold_rows(ids, labels, CLASSES, folds, None, seed)
    for own in (np.ones(len(ids), bool), *(labels == n for n in range(3))):
        counts = np.bincount(found[own], minlength=folds)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(seed).permutation(len(ids))
    assert np.array_equal(fold_rows([ids[i] for i in order], labels[order], CLASSES, folds, None, seed), found[order])


def test_classes_are_spread_over_folds_where_groups_allow_it():
    draw = np.random.default_rng(0)
    groups = [f"p{n}" for n in range(60) for _ in range(4)]
    labels = np.repeat(draw.integers(0, 3, 60), 4)  # each group is of one class
    found = fold_rows([str(i) for i in range(240)], labels, CLASSES, 5, groups)
    table = np.stack([np.bincount(found[labels == n], minlength=5) for n in range(3)])
    even = np.bincount(labels)[:, None] / 5
    assert np.abs(table - even).max() <= 4  # a group
    assert np.ptp(table.sum(0)) <= 8


def test_as_many_folds_as_groups_leave_one_out_in_the_order_of_their_names():
    groups = ["moshe", "ido", "ido", "eli", "moshe"]
    ids, labels = list("vwxyz"), np.array([0, 1, 0, 1, 1])
    for folds in (3, "groups"):
        assert fold_rows(ids, labels, CLASSES, folds, groups).tolist() == [2, 1, 1, 0, 2]


@pytest.mark.parametrize(
    ("folds", "groups", "said"),
    [
        (3, ["a", "a", "b"], "folds=3: there are 2 groups: give folds=2"),
        (9, None, "folds=9: there are 3 samples: give folds=3, or fewer"),
        ("groups", None, "folds=groups: nothing says which samples belong together; give group="),
        ("groups", ["a"] * 3, "there is 1 group: two are needed at least"),
    ],
)
def test_folds_that_cannot_be(folds, groups, said):
    with pytest.raises(DataError, match=said):
        fold_rows(list("xyz"), np.zeros(3, np.int64), ("",), folds, groups)


def test_what_file_names_say_of_groups():
    ucf = ["Archery/v_Archery_g01_c02.avi", "v_Archery_g01_c03", "v_Bowling_g01_c03.avi"]
    assert known_groups(ucf) == ["v_Archery_g01", "v_Archery_g01", "v_Bowling_g01"]
    hmdb = ["kick_ball/FIFA_11_kick_ball_u_cm_np1_ba_goo_2.avi", "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi"]
    assert known_groups(hmdb) == ["FIFA_11", "#20_Rhythm"]
    assert known_groups([*ucf, "another.avi"]) is None and known_groups([]) is None
    assert groups_of(["p1_a", "p2_b"], r"(p\d)_") == ["p1", "p2"] and groups_of(["p1_a"], r"p\d_") == ["p1_"]
    assert groups_of(["x", "y"], "", ["one", "two"]) == ["one", "two"]
    with pytest.raises(DataError, match="1 of 2 samples have an empty group"):
        groups_of(["x", "y"], "", ["one", ""])
    with pytest.raises(DataError, match=r"does not match 1 of 2 files, such as y"):
        groups_of(["x", "y"], "x")


def test_intervals_over_groups_are_those_of_a_plain_loop():
    draw = np.random.default_rng(3)
    groups = draw.integers(0, 6, 40)
    groups[:6] = np.arange(6)
    values = draw.normal(size=40) + groups
    found = bootstrap(lambda w: (w @ values / w.sum(1))[:, None], 40, 500, seed=1, groups=groups)
    chosen = np.random.Generator(np.random.PCG64(1)).integers(0, 6, size=(500, 6))
    means = [np.concatenate([values[groups == g] for g in row]).mean() for row in chosen]
    assert np.allclose(found[:, 0], np.quantile(means, [0.025, 0.975]), rtol=0, atol=1e-12)
    alone = bootstrap(lambda w: (w @ values / w.sum(1))[:, None], 40, 500, seed=1)
    assert np.ptp(found[:, 0]) > 1.5 * np.ptp(alone[:, 0])  # samples of a group are alike
    assert over_groups(np.zeros(3, np.int64))[0] is None and "one group" in over_groups(np.zeros(3, np.int64))[1][0]


def test_a_classifier_is_scored_over_groups():
    def records(wrong):
        return [{"id": str(i), "label": i % 3, "predicted": (i + (i in wrong)) % 3, "rank": 1, "confidence": 0.9,
                 "label_probability": 0.9} for i in range(24)]  # fmt: skip

    groups = np.arange(24) // 6

    def result(wrong, numbers):
        evaluator = ClassificationEvaluator(CLASSES, groups=numbers)
        evaluator.add(records(wrong))
        return evaluator.result()

    bad = {*range(6)}  # one group of four is all wrong
    alone, over = result(bad, None), result(bad, groups)
    assert alone.metrics == over.metrics and over.metrics["top1"] == 0.75
    assert over.intervals["top1"] == (0.25, 1.0) and alone.intervals["top1"][0] > 0.5
    assert over.notes == ("intervals are over 4 groups of samples (whole groups are drawn)",) and alone.notes == ()
    assert (
        result(set(), groups).intervals["top1"][0] < result(set(), None).intervals["top1"][0]
    )  # Wilson's, of 4 and of 24
