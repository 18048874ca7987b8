"""Acceptance of events: long videos of people that were never seen; a head that learns bounds against windows of a classifier."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from long_videos import features_of, write

from trunkline.heads.events.events import STEPS
from trunkline.heads.video.segments import grouped
from trunkline.pipelines.models.ready import Source, ready
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.folds import run_recipe
from trunkline.tasks.events.average_precision import Segments, matched, mean_of
from trunkline.tasks.intervals import bootstrap

pytestmark = pytest.mark.slow
EACH = 12  # long videos of each person
PEOPLE = 8
OVERLAP = (0.5,)
WINDOWS = (0.48, 1.12, 1.76)  # seconds: 3, 7 and 11 steps
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COMMON = {"group": "person", "folds": "groups", "batch": 4, "evaluation.times": 1, "machine.loaders": 0}
LEARNT = {"levels": 4, "epochs": 20}
CLIPS = {"tasks.events.background": False}  # a classifier of events cut out, as people have one


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory):
    start = time.monotonic()
    features = features_of(shared_data / "clips", shared_data / "weights/resnet50_v1.safetensors")
    print(f"\nfeatures: {time.monotonic() - start:.0f} s")
    return write(tmp_path_factory.mktemp("long") / "data", shared_data / "clips", features, EACH)


def folds_of(data: Path, run: Path, **given) -> Path:
    run_recipe(resolve("events", {"data": str(data), **COMMON, **given}), run)
    return run


@torch.inference_mode()
def curves(task, model, samples) -> list[np.ndarray]:
    """Slide the classifier over each video: `(steps, classes)`."""
    head = model.heads["events"]
    return [head.said(task.collate([samples[i]]).features[STEPS]).curve.numpy() for i in range(len(samples))]


def truth_of(samples, first=0):
    number = {name: n for n, name in enumerate(samples.classes)}
    return [(first + i, number[e.label], e.start, e.end, 0.0) for i, v in enumerate(samples.videos) for e in v.events]


def found_in(samples, every, threshold, first=0):
    """Group the curves of some videos into events, in seconds."""
    rows = []
    for i, curve in enumerate(every):
        segments, labels, scores = grouped(curve, (threshold,), 0.6, 200)
        seconds = samples.steps(i).clock.when(segments)
        rows += [(first + i, int(n), *s, float(v)) for s, n, v in zip(seconds.tolist(), labels, scores, strict=True)]
    return rows


def score(truth, found, videos, classes):
    return matched(Segments.gathered(truth), Segments.gathered(found), videos, classes, OVERLAP, "activitynet")


def of_windows(runs: list[Path]) -> tuple[list, list, list[int]]:
    """Predict each fold by the window and the threshold that are best on its training people: truth, found, people."""
    truth, found, people = [], [], []
    for fold in range(PEOPLE):
        best = (-1.0, None)
        for run in runs:
            one = ready(Source(str(run / f"folds/{fold}"), threads=1))
            seen, unseen = one.task.samples("train"), one.task.samples("val")
            every = curves(one.task, one.model, seen)
            for threshold in THRESHOLDS:
                rows = found_in(seen, every, threshold)
                value = mean_of(score(truth_of(seen), rows, len(seen), len(seen.classes)), "activitynet")[0, 0]
                if value > best[0]:
                    best = (
                        value,
                        (run.name, threshold, found_in(unseen, curves(one.task, one.model, unseen), threshold)),
                    )
        shift = len(people)
        print(f"fold {fold}: {best[1][:2]} {best[0]:.3f} on its training people")
        truth += truth_of(unseen, shift)
        found += [(row[0] + shift, *row[1:]) for row in best[1][2]]
        people += [fold] * len(unseen)
    return truth, found, people


def of_records(run: Path, names: dict[str, int], classes: tuple[str, ...]) -> list:
    """Read what the folds of a run found, by the numbers of the videos."""
    rows, number = [], {name: n for n, name in enumerate(classes)}
    for line in (run / "predictions/val.jsonl").read_text().splitlines():
        one = json.loads(line)
        each = zip(one["segments"], one["labels"], one["scores"], strict=True)
        rows += [(names[one["id"]], number[label], s, e, score_) for (s, e), label, score_ in each]
    return rows


def test_a_head_that_learns_bounds_beats_windows_of_a_classifier_on_people_that_were_never_seen(data, tmp_path):
    start = time.monotonic()
    learnt = folds_of(data, tmp_path / "pyramid", **LEARNT)
    print(f"\nlearnt: {time.monotonic() - start:.0f} s")
    task = ready(Source(str(learnt / "folds/0"), threads=1)).task
    classes = task.classes
    runs = [folds_of(data, tmp_path / f"{w}", head="windows", window=w, epochs=20, **CLIPS) for w in WINDOWS]
    truth, of_classifier, people = of_windows(runs)
    steps = folds_of(data, tmp_path / "steps", head="windows", window=WINDOWS[1], epochs=20)
    whole = task.whole()
    order = [whole.id(i) for i in range(len(whole))]
    names = {video: n for n, video in enumerate(sorted(order, key=lambda v: (v.partition("_")[0], order.index(v))))}
    found = {"learnt": of_records(learnt, names, classes), "windows of a classifier": of_classifier,
             "windows that learn each step": of_records(steps, names, classes)}  # fmt: skip
    every = {name: score(truth, rows, len(people), len(classes)) for name, rows in found.items()}
    values = {name: float(mean_of(one, "activitynet")[0, 0]) for name, one in every.items()}
    groups = np.array(people)
    for name in [*found][1:]:

        def difference(weights, name=name):
            return mean_of(every["learnt"], "activitynet", weights) - mean_of(every[name], "activitynet", weights)

        low, high = bootstrap(difference, len(people), groups=groups)[:, 0]
        print(
            f"learnt {values['learnt']:.3f}, {name} {values[name]:.3f}: difference {low:+.3f} to {high:+.3f} over persons"
        )
        if name == "windows of a classifier":
            assert low > 0 and values[name] >= 0.65, values
    assert json.loads((learnt / "scores.json").read_text())["mAP@0.5"] == pytest.approx(values["learnt"], abs=1e-6)
