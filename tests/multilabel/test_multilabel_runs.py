"""Runs of several labels a picture: trained, scored, predicted, published, and on two workers to the same bits."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from run_work import assert_equal, in_child
from safetensors import safe_open

import trunkline
from trunkline.backbones import backbone, read_weights
from trunkline.backbones.contract import Preprocessing
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.assembly import make_task
from trunkline.pipelines.models.build import held_by
from trunkline.pipelines.recipe.demo_data import write
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.classification.options import Options
from trunkline.tasks.classification.task import Classification
from trunkline.tasks.multilabel.options import Options as Labels
from trunkline.tasks.multilabel.predicted import PredictedLabels
from trunkline.tasks.multilabel.task import MultiLabel

FILE = str(Path(__file__).parent / "labels_file.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": False}
KINDS = {"crop": {}, "fit": {"view": "fit"}, "cached": {"cached": True}}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write("demo:labels:smoke", tmp_path_factory.mktemp("labels") / "data")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, Path]:
    """Each trained in one process."""
    root = tmp_path_factory.mktemp("runs")
    for name, given in KINDS.items():
        assert in_child(resolve(FILE, {"data": str(data), **PLAIN, **given}), root / name) == 0
    return {name: root / name for name in KINDS}


def test_two_workers_end_with_the_bits_of_one(runs, data, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(FILE).parents[1]), os.environ.get("PYTHONPATH", "")]))
    specs = [
        {"recipe": FILE, "plugin": FILE, "run": str(tmp_path / name), "given": {k: str(v) for k, v in given.items()}}
        for name, given in ((name, {"data": data, **PLAIN, **given}) for name, given in KINDS.items())
    ]
    run_local(Job("run_work:several", {"runs": specs}, 120.0), 2, tmp_path / "logs", 2)
    for name in KINDS:
        assert_equal(tmp_path / name, runs[name])
        assert (tmp_path / name / "scores.json").read_bytes() == (runs[name] / "scores.json").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_scores_records_and_a_report(runs, kind):
    scores = json.loads((runs[kind] / "scores.json").read_text())
    assert 0 < scores["mAP"] <= 1 and {*scores["intervals"]} == {"mAP", "micro_f1", "macro_f1", "exact_match"}
    records = [json.loads(line) for line in (runs[kind] / "predictions/val.jsonl").read_text().splitlines()]
    assert len(records) == 8 and all(len(r["probabilities"]) == 6 and {*r["present"]} <= {*SHAPES} for r in records)
    page = (runs[kind] / "report.html").read_text()
    assert "Mean average precision" in page and "Surest mistakes" in page and "circle" in page
    assert (runs[kind] / "data/train.tsv").read_text().count("\n") == 16


def test_a_run_and_its_file_are_scored_alike(runs, data, tmp_path):
    """The file of crops, and that of whole pictures, with the options that it states."""
    for kind in ("crop", "fit"):
        stored = json.loads((runs[kind] / "scores.json").read_text())
        alone = shutil.copy(runs[kind] / "weights.safetensors", tmp_path / f"{kind}.safetensors")
        for source, more in ((runs[kind], {"plugin": FILE}), (alone, {"data": str(data)})):
            found = trunkline.evaluate(str(source), loaders=0, threads=1, **more)
            assert found.metrics == {name: stored[name] for name in found.metrics}


def test_a_published_file_is_one_of_several_labels(runs):
    file = runs["crop"] / "weights.safetensors"
    with safe_open(str(file), "pt") as stored:
        assert {"fc.weight", "fc.bias", "conv1.weight"} <= {*stored.keys()}
    weights = read_weights(file)
    held = held_by(file, weights)
    assert held.task == "multilabel" and held.said.facts["classes"] == list(SHAPES) and held.said.options["size"] == 64
    assert Classification.reads(weights) is None and MultiLabel.reads(weights) is not None


def test_a_run_begins_from_a_file_with_its_classifier_and_another_task_without(runs, data, tmp_path):
    given = {"data": str(data), "network.weights": str(runs["fit"] / "weights.safetensors"), "phases.0.updates": 1}
    assert in_child(resolve(FILE, {**PLAIN, **given, "optimizer.lr": 1e-9}), tmp_path / "again") == 0
    a, b = (read_weights(run / "weights.safetensors").tensors["fc.weight"] for run in (runs["fit"], tmp_path / "again"))
    assert torch.allclose(a, b, atol=1e-6)
    loaded = json.loads((tmp_path / "again/load.json").read_text())
    assert "kept" in json.dumps(loaded)
    weights = read_weights(runs["fit"] / "weights.safetensors")
    for name, options, classifier in (
        ("classification", Options(), "new"),
        ("multilabel", Options(), "new"),  # whatever a recipe calls it
        ("tags", Labels(), "kept"),
    ):
        task = make_task(name, options, Preprocessing(), {"classes": list(SHAPES)})
        head = task.head(backbone("narrow", weights=weights), weights)
        assert task.facts["classifier"] == classifier and torch.equal(head.fc.weight, a) is (classifier == "kept")


def test_predictions_list_the_classes_above_the_threshold(runs, data, tmp_path):
    inputs, out = str(data / "JPEGImages"), tmp_path / "out"
    words = ["predict", str(runs["crop"]), inputs, f"plugin={FILE}", "threshold=0.4", f"out={out}", "pictures=true"]
    assert main([*words, "threads=1"]) == 0
    found = [
        PredictedLabels.from_line(json.loads(line)) for line in (out / "predictions.jsonl").read_text().splitlines()
    ]
    assert (
        len(found) == 24 and all(p >= 0.4 for one in found for _, p in one.labels) and any(one.labels for one in found)
    )
    assert all(
        len(one.top) == 5 and [p for _, p in one.top] == sorted((p for _, p in one.top), reverse=True) for one in found
    )
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert rows[0]["labels"].split("|") == ([name for name, _ in found[0].labels] or [""])
    assert len(list((out / "pictures").glob("*.png"))) == 24 and (out / "sheet.png").is_file()
    again = [PredictedLabels.from_line(one.line()) for one in found]
    assert again == found and PredictedLabels("a").row() == ["", ""] and PredictedLabels("a").cells()[0] == "none"
    few = trunkline.predict(str(runs["crop"]), inputs, plugin=FILE, threads=1, threshold=1.0, top=2)
    assert all(one.labels == [] and len(one.top) == 2 and one.caption() == "none" for one in few)


def test_whole_pictures_cannot_be_cached_and_show_lists_what_there_is(capsys):
    with pytest.raises(RecipeError, match="view=fit cannot go with cached maps"):
        resolve(FILE, {"view": "fit", "phases.0.cached": True, "phases.0.frozen": 5})
    assert main(["show", FILE]) == 0
    said = capsys.readouterr().out
    assert all(f"tasks.multilabel.{key}" in said for key in ("view", "longest", "threshold", "format", "on_bad_box"))


def test_folds_score_every_picture_once(data, tmp_path):
    run = tmp_path / "run"
    given = {"data": data, **PLAIN, "folds": 2, "phases.0.updates": 1}
    assert main(["train", FILE, *(f"{key}={value}" for key, value in given.items()), "--run", str(run)]) == 0
    records = [json.loads(line)["id"] for line in (run / "predictions/val.jsonl").read_text().splitlines()]
    assert len(records) == len({*records}) == 24
    assert json.loads((run / "scores.json").read_text())["samples"] == 24
