"""Annotations of events in three forms: the same events, and clear words for what cannot be used."""

import json

import numpy as np
import pytest

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.events.options import Options
from trunkline.tasks.events.reading import form_of, read_events, read_whole
from trunkline.tasks.formats import format_of

EVENTS = {"a": [("Diving", 1.0, 3.5), ("Shotput", 5.0, 9.0)], "b": [("Diving", 0.5, 2.0)], "c": []}
SPLIT = {"a": "train", "b": "val", "c": "train"}
LONG = 10.0


def features(root, names="abc", steps=40, channels=4, **said):
    (root / "features").mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(root / "features" / f"{name}.npy", np.zeros((steps, channels), np.float32))
        if said:
            (root / "features" / f"{name}.json").write_text(json.dumps({"file": f"/videos/{name}.mp4", **said}))
    return root


def database(root, subsets=("training", "validation"), change=lambda found: None):
    names = dict(zip(("train", "val"), subsets, strict=True))
    found = {
        name: {"subset": names[SPLIT[name]], "duration": LONG,
               "annotations": [{"label": n, "segment": [s, e]} for n, s, e in own]}
        for name, own in EVENTS.items()
    }  # fmt: skip
    change(found)
    (root / "events.json").write_text(json.dumps({"version": "1", "database": found}))
    return root


def texts(root):
    (root / "annotations").mkdir()
    for split, end in (("train", "val"), ("val", "test")):
        for label in ("Diving", "Shotput"):
            rows = [(v, s, e) for v, own in EVENTS.items() for n, s, e in own if n == label and SPLIT[v] == split]
            (root / "annotations" / f"{label}_{end}.txt").write_text("".join(f"{v}  {s} {e}\n" for v, s, e in rows))
    (root / "annotations" / "Ambiguous_test.txt").write_text("b 4 5\n")
    return root


def table(root, head="video,start,end,label,split,duration", rows=None):
    made = [f"{v},{s},{e},{n},{SPLIT[v]},{LONG}" for v, own in EVENTS.items() for n, s, e in own]
    (root / "events.csv").write_text("\n".join([head, *(rows or [*made, f"c,,,,train,{LONG}"])]) + "\n")
    return root


def said(found):
    return {
        split: {v.name: [(e.label, e.start, e.end) for e in v.events] for v in one.videos}
        for split, one in found.items()
    }


def expected(names="abc"):
    return {split: {v: EVENTS[v] for v in names if SPLIT[v] == split} for split in ("train", "val")}


@pytest.mark.parametrize(
    ("make", "form", "names"), [(database, "activitynet", "abc"), (texts, "thumos", "ab"), (table, "events", "abc")]
)
def test_three_forms_say_the_same(make, form, names, tmp_path):
    make(features(tmp_path, stride=1, times=[(i + 0.5) / 4 for i in range(40)]))
    assert form_of(tmp_path) == form == format_of(tmp_path)
    found = read_events(Options(data=str(tmp_path)))
    assert said(found) == expected(names) and found["train"].classes == ("Diving", "Shotput")
    sample = found["train"][0]
    assert sample.image.shape == (4, 40) and sample.targets["segments"].tolist() == [[4.0, 14.0], [20.0, 36.0]]
    assert sample.targets["labels"].tolist() == [0, 1]
    if form == "thumos":
        assert found["val"].videos[0].ambiguous == [(4.0, 5.0)]


def test_thumos_as_json_trains_on_its_validation(tmp_path):
    database(features(tmp_path), subsets=("Validation", "Test"))
    found = read_events(Options(data=str(tmp_path)))
    assert said(found) == expected() and any(
        "Validation is train and Test is val" in n for n in found["train"].remarks()
    )
    database(tmp_path, subsets=("one", "two"))
    with pytest.raises(
        DataError, match=r"has the subsets one, two; expected training and validation.*train= and val= name"
    ):
        read_events(Options(data=str(tmp_path)))
    assert said(read_events(Options(data=str(tmp_path), train="one", val="two"))) == expected()


def test_steps_lie_where_the_features_say(tmp_path):
    def one(**options):
        return read_events(Options(data=str(tmp_path), **options))["train"].steps(0)

    database(features(tmp_path), change=lambda d: [v.update(fps=8.0) for v in d.values()])
    assert one().clock.times[:2] == pytest.approx([0.125, 0.375]) and "spread over" in one().said
    assert one(stride=2, span=4).clock.times[:2] == pytest.approx([0.25, 0.5])
    with pytest.raises(
        DataError, match=r"40 steps, each 4 frames at 8 a second, end at 20\.00 s, and a is 10\.00 s long"
    ):
        one(stride=4, span=4)
    steps = one()
    assert steps.clock.when(steps.clock.place(np.array([-1.0, 0.1, 3.3, 9.99, 12]))) == pytest.approx(
        [-1.0, 0.1, 3.3, 9.99, 12]
    )


def change(name, **values):
    return lambda found: found[name].update(values)


def event(start, end, label="Diving"):
    return change("a", annotations=[{"label": label, "segment": [start, end]}])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (event(3, 1), "a: annotation 0: Diving from 3 to 1 s: ends before it starts"),
        (event(2, 2), "Diving from 2 to 2 s: has no length"),
        (event(-2, 3), "starts before the video"),
        (event(4, 14), "lies outside the video, which is 10 s long"),
        (event("x", 2), "annotation 0: 'x': expected seconds"),
        (event(float("nan"), 2), "expected seconds"),
        (change("a", annotations=[{"label": "Diving"}]), "expected an object with label and segment"),
        (change("a", annotations={"no": 1}), "expected a list"),
        (change("a", duration=-3), "duration=-3: expected a number above 0"),
        (
            change("b", annotations=[{"label": "Divving", "segment": [1, 2]}]),
            r"'Divving': no class of .*; nearest: Diving",
        ),
        (lambda found: found.update(zz=found.pop("a")), "events.json: zz: has no features in"),
    ],
)
def test_what_cannot_be_used_is_said_by_place(spoil, words, tmp_path):
    database(features(tmp_path), change=spoil)
    with pytest.raises(DataError, match=words):
        read_events(Options(data=str(tmp_path)))


def test_ends_a_little_behind_the_video_are_cut_and_counted_and_bad_events_can_be_left_out(tmp_path):
    database(features(tmp_path), change=event(4, 10.3))
    found = read_events(Options(data=str(tmp_path)))
    assert said(found)["train"]["a"] == [("Diving", 4.0, 10.0)]
    assert any("ends behind the video's cut to it in 1 event" in line for line in found["train"].remarks())
    database(tmp_path, change=lambda d: d["a"]["annotations"].append({"label": "Diving", "segment": [9, 3]}))
    found = read_events(Options(data=str(tmp_path), on_bad_event="skip"))
    assert said(found) == expected() and any("leaves out 1 event" in line for line in found["train"].remarks())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda root: np.save(root / "features/a.npy", np.zeros((40, 4, 2), np.float32)),
            r"holds 40 x 4 x 2; expected \(steps, channels\)",
        ),
        (lambda root: np.save(root / "features/a.npy", np.zeros((40, 4), int)), "holds int64; expected floats"),
        (lambda root: (root / "features/a.npy").write_text("no"), "cannot be read"),
        (lambda root: np.save(root / "features/a.npy", np.array([{}], object), allow_pickle=True), "cannot be read"),
        (
            lambda root: (root / "features/a.json").write_text('{"times": [1, 2]}'),
            "times: expected 40 ascending seconds",
        ),
    ],
)
def test_features_that_cannot_be_used_are_named(spoil, words, tmp_path):
    database(features(tmp_path))
    spoil(tmp_path)
    with pytest.raises(DataError, match=words):
        read_events(Options(data=str(tmp_path)))["train"].steps(0)


def test_a_video_without_features_is_left_out_where_that_is_asked_for(tmp_path):
    database(features(tmp_path, "ab"))
    with pytest.raises(DataError, match="c: has no features in"):
        read_events(Options(data=str(tmp_path)))
    found = read_events(Options(data=str(tmp_path), on_bad_sample="skip"))
    assert len(found["train"]) == 1 and "has no features" in found["train"].excluded["c"]
    with pytest.raises(DataError, match="there is no such folder; features= takes"):
        read_events(Options(data=str(tmp_path), features=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("head", "rows", "words"),
    [
        ("video,begin,finish,label", ["a,1,2,Diving"], "has no column end"),
        ("video,start,end,label,split", ["a,1,2,Diving,dev"], "split='dev': expected train, val or test"),
        ("video,start,end,label", ["a,1,,Diving"], "line 2: end is empty"),
        ("video,start,end,label", ["a,1,2,"], "has no class"),
        ("video,start,end,label,duration", ["a,1,2,x,9", "a,3,4,x,8"], "duration=8: expected 9.0 as above"),
        ("video,start,end,label,group", ["a,1,2,x,p", "a,3,4,x,q"], "group='q': above, a is of 'p'"),
        ("video,start,end,label", ["a,1,2,x", "b,1,2,x"], "nothing says which videos validate"),
    ],
)
def test_tables_that_cannot_be_used(head, rows, words, tmp_path):
    table(features(tmp_path, duration=1, times=[i / 4 for i in range(40)]), head, rows)
    with pytest.raises(DataError, match=words):
        read_events(Options(data=str(tmp_path), format="events"))


def test_a_share_keeps_groups_together_and_all_can_be_divided(tmp_path):
    rows = [f"v{i},{1 + i % 3},{4 + i % 3},x,p{i // 3}" for i in range(12)]
    table(
        features(tmp_path, [f"v{i}" for i in range(12)], times=[i / 4 for i in range(40)]),
        "video,start,end,label,person",
        rows,
    )
    found = read_events(Options(data=str(tmp_path), val="0.3", group="person"))
    sides = [set(found[split].grouped or ()) for split in ("train", "val")]
    assert not sides[0] & sides[1] and all(sides) and sum(map(len, found.values())) == 12
    assert len(read_whole(Options(data=str(tmp_path), group="person"))) == 12
    table(tmp_path, "video,start,end,label,group", rows)
    with pytest.raises(
        DataError, match=r"group='persn': .* has no such column, and its column group says groups: leave group= out"
    ):
        read_events(Options(data=str(tmp_path), val="0.3", group="persn"))


def test_events_behind_features_that_know_their_times_are_outside(tmp_path, capsys):
    rows = ["a,1,3,x,train", "b,2,4,x,val", "b,39,99999,x,val"]
    table(features(tmp_path, "ab", times=[(i + 0.5) / 4 for i in range(40)]), "video,start,end,label,split", rows)
    assert (
        main(
            ["train", "events", f"data={tmp_path}", "width=8", "levels=2", "updates=1", "--run", str(tmp_path / "run")]
        )
        == 2
    )
    assert (
        "events.csv: line 4: x from 39 to 99999 s: lies outside the video, which is 10 s long"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (event(1, 2, None), "label=None: expected text"),
        (lambda d: d.update({"a.mp4": d["c"]}), r"a and a\.mp4 have the same features"),
        (lambda d: d.update({"take.1": dict(d["a"])}), r"take\.1: has no features in"),
    ],
)
def test_what_has_two_meanings_is_refused(spoil, words, tmp_path):
    database(features(tmp_path, ["a", "b", "c", "take"]), change=spoil)
    with pytest.raises(DataError, match=words):
        read_events(Options(data=str(tmp_path)))


def test_a_video_on_both_sides_and_an_event_twice_are_said(tmp_path):
    rows = ["a,1,3,x,train", "a,1,3,x,train", "b,2,4,x,val", "a,5,6,x,val"]
    table(features(tmp_path, "ab", times=[i / 4 for i in range(40)]), "video,start,end,label,split", rows)
    found = read_events(Options(data=str(tmp_path)))
    assert any("1 video in train and in val" in line for line in found["val"].remarks())
    assert any("1 events stand there twice" in line for line in found["train"].remarks())


def test_the_data_changes_with_what_says_when_its_steps_were(tmp_path):
    marks = []
    for duration in (LONG, 2 * LONG):
        database(features(tmp_path), change=lambda d, long=duration: [v.update(duration=long) for v in d.values()])
        marks.append(read_events(Options(data=str(tmp_path)))["train"].fingerprint()["digest"])
    features(tmp_path, duration=20.0)
    marks.append(read_events(Options(data=str(tmp_path)))["train"].fingerprint()["digest"])
    assert len({*marks}) == 3


def test_a_share_of_one_table_of_training(tmp_path):
    table(features(tmp_path, "ab", times=[i / 4 for i in range(40)]), "video,start,end,label", ["a,1,2,x", "b,1,2,x"])
    (tmp_path / "events.csv").rename(tmp_path / "train.csv")
    found = read_events(Options(data=str(tmp_path), val="0.5"))
    assert {split: len(one) for split, one in found.items()} == {"train": 1, "val": 1}


def test_events_outside_are_told_by_check_and_evaluate_too(tmp_path, capsys):
    rows = ["a,1,3,x,train", "b,39,99999,x,val"]
    table(features(tmp_path, "ab", times=[(i + 0.5) / 4 for i in range(40)]), "video,start,end,label,split", rows)
    assert main(["check", str(tmp_path), "loaders=0"]) == 2
    assert "b: " in (shown := capsys.readouterr().out) and "lies outside the video, which is 10 s long" in shown
    with pytest.raises(DataError, match="x from 39 to 99999 s: lies outside the video"):
        read_events(Options(data=str(tmp_path)))["val"][0]
