"""A run of folds, end to end: each sample is scored once, features are computed once, and a kill changes no byte."""

import json
import os
import shutil
import signal
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from run_work import assert_equal, at_call, die, forked
from short_run import PLAIN

from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.residual import ResNet
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.assembly import make_task
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipe.plain import from_plain
from trunkline.pipelines.runs.run import Run
from trunkline.pipelines.training import folds as folds_module
from trunkline.pipelines.training.folds import run_recipe
from trunkline.tasks.intervals import over_groups
from trunkline.tasks.scores import Examples, Picture

pytestmark = pytest.mark.usefixtures("one_core")
GROUP = r"000(\d)\d"  # the tens of a picture's number: four groups, of 20, 20, 10 and 10 pictures


def settings(data: Path, **more):
    plain = dict(word.split("=") for word in PLAIN)
    given = {"data": str(data), "weights": "none", "backbone": "narrow", "size": 32, "batch": 8, "updates": 6, "mode": "probe",
             "folds": 3, "group": GROUP, "checkpoints.updates": 2, **plain, **more}  # fmt: skip
    return resolve("transfer", given)


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory) -> tuple[Path, int]:
    """A run of three folds, and how many pictures went through its trunk."""
    run, counted = tmp_path_factory.mktemp("folds") / "run", []
    forward = ResNet.forward

    def counting(self, images):
        counted.append(len(images))
        return forward(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trunkline.pipelines.runs.machine.cores", lambda: 1)
        patch.setattr(ResNet, "forward", counting)
        run_recipe(settings(scenes), run)
    return run, sum(counted)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_sample_is_scored_once_by_a_model_that_never_saw_its_group(whole):
    run, _ = whole
    pooled, seen = lines(run / "predictions/val.jsonl"), defaultdict(set)
    assert len(pooled) == 60 and len({one["id"] for one in pooled}) == 60
    for fold in range(3):
        sides = [
            [line.split("\t")[0] for line in (run / f"folds/{fold}/data/{s}.tsv").read_text().splitlines()]
            for s in ("train", "val")
        ]
        groups = [{Path(name).stem[3] for name in side} for side in sides]
        assert not groups[0] & groups[1] and len(sides[0]) + len(sides[1]) == 60
        own = lines(run / f"folds/{fold}/predictions/val.jsonl")
        assert [one["id"] for one in own] == sides[1]
        assert all(one in pooled for one in own)
        for group in groups[1]:
            seen[group].add(fold)
    assert sorted(map(len, seen.values())) == [1, 1, 1, 1]


def test_the_pooled_scores_are_the_evaluators_of_all_records(whole):
    run, _ = whole
    scores, records = json.loads((run / "scores.json").read_text()), lines(run / "predictions/val.jsonl")
    assert scores["samples"] == 60 and scores["split"] == "all folds"
    right = np.array([one["predicted"] == one["label"] for one in records], float)
    assert scores["top1"] == pytest.approx(right.mean(), abs=1e-12)
    assert scores["nll"] == pytest.approx(np.mean([-np.log(one["label_probability"]) for one in records]), abs=1e-6)
    groups = np.array([int(Path(one["id"]).stem[3]) for one in records])
    chosen = np.random.Generator(np.random.PCG64(0)).integers(0, 4, size=(1000, 4))
    means = [np.concatenate([right[groups == g] for g in row]).mean() for row in chosen]
    assert np.allclose(scores["intervals"]["top1"], np.quantile(means, [0.025, 0.975]), rtol=0, atol=1e-9)
    assert over_groups(groups)[1][0] in scores["notes"]
    assert "pooled over 3 folds: each sample is scored once, by a model that never saw its group" in scores["notes"]
    own = [json.loads((run / f"folds/{n}/scores.json").read_text()) for n in range(3)]
    assert [one["top1"] for one in scores["details"]["folds"]] == [one["top1"] for one in own]
    page = (run / "report.html").read_text()
    assert all(f'href="folds/{n}/report.html"' in page for n in range(3)) and ">Folds<" in page
    notes = [m["text"] for m in Run(run).metrics if m["kind"] == "note"]
    own = "the data's own split does not count: 40 samples of train/ and 20 samples of val/ are divided into folds together"
    assert own in notes
    assert "3 folds of 4 groups: 60 samples, 20 in each" in notes


def test_each_samples_features_are_computed_once_whatever_the_folds(whole):
    run, forwards = whole
    assert forwards == 60
    assert [f.name for f in run.rglob("*.safetensors") if f.parent.name == "features"] == ["whole-fp32.safetensors"]


MOMENTS = {
    "in the second fold": lambda: at_call(TorchEngine, "_step", 11, die),
    "between two folds": lambda: at_call(folds_module, "train", 2, die, after=True),
    "before the pooled scores": lambda: at_call(folds_module, "pool", 1, die),
}


@pytest.mark.parametrize(
    "moment", [m if n == 0 else pytest.param(m, marks=pytest.mark.slow) for n, m in enumerate(MOMENTS)]
)
def test_a_killed_run_of_folds_ends_as_one_that_was_not(moment, scenes, whole, tmp_path):
    run = tmp_path / "run"
    assert forked(lambda: run_recipe(settings(scenes), run), MOMENTS[moment]) == -signal.SIGKILL, "it was not killed"
    assert not (run / "scores.json").exists()
    assert forked(lambda: run_recipe(settings(scenes), run)) == 0
    for n in range(3):
        assert_equal(run / f"folds/{n}", whole[0] / f"folds/{n}")
    for name in ("predictions/val.jsonl", "scores.json"):
        assert (run / name).read_bytes() == (whole[0] / name).read_bytes().replace(bytes(whole[0]), bytes(run))


def test_a_run_of_folds_that_is_asked_to_end_says_where_it_goes_on(scenes, whole, tmp_path, capfd):
    run = tmp_path / "run"
    ask = lambda: at_call(TorchEngine, "update", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))  # noqa: E731
    assert forked(lambda: run_recipe(settings(scenes), run), ask) == 128 + signal.SIGTERM
    assert (run / "folds/1/checkpoints/last").read_text() == "000003" and Run(run).saved == 6 and Run(run).trained
    with pytest.raises(RecipeError, match=r"classification\.folds: 3 there, 4 now"):
        run_recipe(settings(scenes, folds=4), run)
    assert (run / "folds/1/checkpoints/last").read_text() == "000003"


def test_one_fold_by_itself_is_the_same_run(scenes, whole, tmp_path):
    assert forked(lambda: run_recipe(settings(scenes, **{"tasks.classification.fold": 1}), tmp_path / "run")) == 0
    assert_equal(tmp_path / "run", whole[0] / "folds/1")


def test_a_run_of_folds_has_no_model_of_its_own(scenes, whole, capsys):
    run, _ = whole
    for words in (["evaluate", str(run)], ["predict", str(run), str(scenes / "val")]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"take one of them, such as {run}/folds/0" in said and f"stand in {run}/scores.json" in said
    assert main(["evaluate", str(run / "folds/2"), "--json"]) == 0
    stored = json.loads((run / "folds/2/scores.json").read_text())
    assert json.loads(capsys.readouterr().out)["nll"] == pytest.approx(stored["nll"], abs=1e-6)
    recipe = json.loads((run / "folds/2/recipe.json").read_text())
    assert recipe["knobs"]["tasks.classification.fold"] == 2


def test_data_that_changed_between_folds_is_refused(scenes, whole, tmp_path, capsys):
    data, run = shutil.copytree(scenes, tmp_path / "data"), shutil.copytree(whole[0], tmp_path / "run")
    sorted(data.rglob("*.jpg"))[0].unlink()
    words = [f"{key}={value}" for key, value in {**settings(scenes).given, "data": str(data)}.items()]
    assert main(["train", "transfer", *words, "--run", str(run)]) == 2
    assert "the whole data changed since" in capsys.readouterr().err


def test_a_mistake_stops_before_any_training_and_leaves_no_folder(scenes, tmp_path, capsys):
    words = ["weights=none", "backbone=narrow", "size=32", "updates=2", *PLAIN, "--run", str(tmp_path / "run")]
    for more, said in (
        (["folds=5", f"group={GROUP}"], "folds=5: there are 4 groups: give folds=4, or fewer"),
        (["folds=groups"], "folds=groups: nothing says which samples belong together"),
        (["folds=3", "group=z"], "group='z': does not match 60 of 60 files"),
    ):
        assert main(["train", "transfer", f"data={scenes}", *more, *words]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_damaged_file_is_left_out_of_all_folds(scenes, tmp_path):
    data = shutil.copytree(scenes, tmp_path / "data")
    bad = sorted((data / "train").rglob("*.jpg"))[7]
    bad.write_bytes(b"no picture")
    run = tmp_path / "run"
    assert forked(lambda: run_recipe(settings(data, on_bad_sample="skip", updates=1), run)) == 0
    ids = {one["id"] for one in lines(run / "predictions/val.jsonl")}
    assert len(ids) == 59 and bad.relative_to(data).as_posix() not in ids
    assert all(bad.relative_to(data).as_posix() in Run(run / f"folds/{n}").excluded() for n in range(3))  # type: ignore[operator]


@pytest.mark.slow
def test_two_workers_make_the_same_folds(scenes, whole, tmp_path):
    words = [f"{key}={value}" for key, value in settings(scenes).given.items()]
    assert main(["train", "transfer", *words, "micro_batch=4", "--run", str(tmp_path / "one")]) == 0
    assert main(["train", "transfer", *words, "micro_batch=4", "workers=2", "--run", str(tmp_path / "two")]) == 0
    for n in range(3):
        assert_equal(tmp_path / f"one/folds/{n}", tmp_path / f"two/folds/{n}")
    assert (tmp_path / "one/predictions/val.jsonl").read_bytes() == (
        tmp_path / "two/predictions/val.jsonl"
    ).read_bytes()


OTHERS = {
    "detect": ("demo:boxes:smoke", ["size=64", "head=one_stage", "network.pyramid=none", "network.wrapper=slim_conv",
                                    "tasks.detection.detections=5"]),
    "segment": ("demo:pixels:smoke", ["format=pairs", "crop=64", "head=fcn"]),
}  # fmt: skip


@pytest.mark.parametrize("recipe", OTHERS)
def test_boxes_and_masks_are_pooled_as_their_evaluators_do(recipe, tmp_path, monkeypatch):
    pytest.importorskip("pycocotools")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    data, more = OTHERS[recipe]
    run = tmp_path / "run"
    words = ["weights=none", "backbone=narrow", "batch=2", "updates=1", "folds=2", r"group=(\d)\D*$", *more, *PLAIN]
    assert main(["train", recipe, f"data={data}", *words, "--run", str(run)]) == 0
    scores, records = json.loads((run / "scores.json").read_text()), lines(run / "predictions/val.jsonl")
    ((name, options),) = from_plain(Run(run).recipe["resolved"]).tasks.items()
    task = make_task(name, options, Preprocessing())
    samples = task.whole()
    assert [one["id"] for one in records] == [samples.id(i) for i in range(len(samples))] and len(records) == 24
    evaluator = task.evaluator(samples)
    evaluator.add(records)
    found = evaluator.result()
    assert {n: scores[n] for n in found.metrics} == found.metrics and scores[
        "intervals"
    ].keys() == found.intervals.keys()
    assert any("groups of pictures (whole groups are drawn)" in line for line in scores["notes"])
    shown = json.loads((run / "shown.json").read_text())
    (drawn,) = [b for b in next(iter(shown.values()))["blocks"] if b["kind"] == "examples"]
    assert drawn["pictures"] and all((run / one["file"]).is_file() for one in drawn["pictures"])


def test_pictures_of_folds_that_lie_elsewhere_are_copied_into_the_run(tmp_path):
    """As of runs at an address: the folder in which a fold was worked on is none of the run's."""
    runs, run = [Run(tmp_path / f"elsewhere{n}") for n in range(2)], Run(tmp_path / "run")
    for n, fold in enumerate(runs):
        drawn = Examples(
            "Examples", (Picture("a", file="predictions/examples/0.jpg"), Picture("b")), "", "pair"
        ).to_json()
        (fold.path / "predictions/examples").mkdir(parents=True)
        (fold.path / "predictions/examples/0.jpg").write_bytes(bytes([n]))
        fold.write("shown.json", {"task": {"blocks": [drawn]}})
    block = folds_module._with_drawn(Examples("Examples", (Picture("a"),), "", "wide"), runs, run)
    assert isinstance(block, Examples) and block.size == "pair"
    assert [(run.path / picture.file).read_bytes() for picture in block.pictures] == [b"\0", b"\1"]
