"""How scores are shown is the task's own: metrics, blocks, `shown.json`, and the pictures of examples."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from short_run import PLAIN, SHORT

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.runs.run import Metrics, Run
from trunkline.pipelines.show import scores_line
from trunkline.pipelines.training.progress import choose_metric
from trunkline.tasks.detection.predicted import PredictedObjects
from trunkline.tasks.scores import (
    Bar,
    Block,
    Curve,
    Examples,
    Line,
    Matrix,
    Metric,
    Picture,
    Scores,
    Table,
    blocks_of,
    joined,
    metrics_in,
    metrics_of,
)  # fmt: skip

BLOCKS = (
    Table("A", ("a", "b"), (("x", 1), ("y", None)), "said", ("", "range"), (("z", (0.0, 0.5, 1.0)),), "more"),
    Curve("B", (Line("one", (0.0, 1.0), (2.0, 3.0), "faint", "all"),), "x", "y", (0.0, 1.0), None, "", "percent",
          (Bar(0.0, 0.5, 3, None, 0.25),)),
    Matrix("C", ("a", "b"), ((1, 2), (3, 4)), "true", "said"),
    Examples("D", (Picture("a", ((("word", "good"),),), source="a.jpg"), Picture("b")), "note", "wide"),
)  # fmt: skip

OWN = '''
from dataclasses import dataclass

from PIL import Image

from trunkline.cluster.config import Optimizer
from trunkline.pipelines.recipe import Batches, Network, Phase, Recipe
from trunkline.tasks.classification import options, task
from trunkline.tasks.contract import Scores
from trunkline.tasks.table import Row


@dataclass(frozen=True)
class Options(options.Options):
    """As class folders."""


class Counted:
    """Names its metrics alone, and nothing else; one of them is never there."""

    metrics, lower_is_better = ("count", "gap"), frozenset(("gap",))

    def __init__(self):
        self.count = 0

    def measure(self, batch, predictions):
        return [{"id": name} for name in batch.ids]

    def add(self, records):
        self.count += len(records)

    def result(self):
        return Scores({"count": -1.0 * self.count, "gap": None}, samples=self.count)


class Plain(task.Classification):
    name, unit = "plain", "leaves"

    def evaluator(self, samples):
        return Counted()

    def draw(self, sample, prediction):
        return Image.new("L", (20, 10), 200)

    def truth(self, sample):
        return Image.new("RGB", (20, 30), "red") if TRUTH else None


TRUTH = True


def mine(data: str = "") -> Recipe:
    """A task of my own."""
    return Recipe({"plain": Options(data=data, size=32)}, Network("narrow", weights="none"), batch=Batches(8),
                  phases=(Phase(updates=1),), optimizer=Optimizer("adamw", lr=1e-3))


TASKS = {"plain": Row(Plain, Options)}
'''


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.kind)
def test_blocks_are_plain_data(block):
    document = json.loads(json.dumps(block.to_json()))
    assert document["kind"] == block.kind and Block.from_json(document) == block
    assert type(block).from_json({**document, "of a later version": 1}) == block
    other = next(one for one in BLOCKS if one.kind != block.kind)
    with pytest.raises(ValueError, match=f"'{block.kind}' is no kind of block"):
        type(other).from_json(document)
    with pytest.raises(ValueError, match="lacks something"):
        Block.from_json({"kind": block.kind, "title": "A"})


class Named:
    metrics, lower_is_better = ("good", "bad"), frozenset(("bad",))


class Told:
    metrics = {"sharp": Metric("Sharpness", "dB"), "slow": Metric("Slowness", better="lower")}


def test_an_evaluator_may_only_name_its_metrics():
    assert metrics_of(Named()) == {"good": Metric("good"), "bad": Metric("bad", better="lower")}
    assert metrics_of(Told()) == Told.metrics and blocks_of(Named(), Scores({})) == []
    assert choose_metric("bad", {"a": Named()}) == ("bad", True)
    assert choose_metric("", {"a": Told(), "b": Named()}) == ("a/sharp", False)
    assert choose_metric("slow", {"a": Told(), "b": Named()}) == ("a/slow", True)
    with pytest.raises(RecipeError, match="there are sharp, slow"):
        choose_metric("fast", {"a": Told()})


def test_a_metric_that_is_not_there_is_none_and_minus_one_is_a_number(capsys, tmp_path):
    scores = Scores({"gain": -1.0, "rest": None}, {"gain": (-2.0, 0.0)}, samples=3)
    assert scores_line(scores) == "gain -1.0000 (-2.000 to 0.000)   rest none"
    document = json.loads(json.dumps(scores.to_json()))
    assert document["rest"] is None and metrics_in(document | {"update": 4, "split": "val"}) == scores.metrics
    assert "<td>none there</td>" in scores._repr_html_() and "<td>-1.0000</td>" in scores._repr_html_()
    assert joined({"a": scores, "b": scores}).metrics == {
        "a/gain": -1.0,
        "a/rest": None,
        "b/gain": -1.0,
        "b/rest": None,
    }
    metrics = Metrics(Run(tmp_path), 0, tensorboard=True)
    metrics.add({"kind": "eval", "update": 1, "metrics": {"gain": -1.0}, "rest": None, "time": 0.0})
    metrics.close()


def test_a_task_whose_records_hold_no_picture_shows_examples(scenes, tmp_path, capsys):
    for truth, size, width in ((True, "pair", 42), (False, "wide", 20)):
        file, run = tmp_path / f"{truth}/mine.py", tmp_path / f"run_{truth}"
        file.parent.mkdir()
        file.write_text(OWN.replace("TRUTH = True", f"TRUTH = {truth}"))
        assert main(["train", str(file), f"data={scenes}", "--run", str(run), *PLAIN]) == 0
        said = capsys.readouterr()
        assert "none there" in said.out and "-20.0000" in said.out and "gap none" in said.err
        shown = json.loads((run / "shown.json").read_text())["plain"]
        assert shown["unit"] == "leaves" and shown["metrics"]["gap"]["better"] == "lower"
        (examples,) = shown["blocks"]
        first = [json.loads(line)["id"] for line in (run / "predictions/val.jsonl").read_text().splitlines()[:6]]
        assert [p["id"] for p in examples["pictures"]] == first and examples["size"] == size
        assert examples["pictures"][5]["file"] == "predictions/examples/5.jpg"
        with Image.open(run / "predictions/examples/5.jpg") as picture:
            assert picture.size == (width, 30 if truth else 10)
        evaluated = [m for m in Run(run).metrics if m["kind"] == "eval"]
        assert evaluated[-1]["metrics"] == {"count": -20.0}  # what is not there is left out
        assert json.loads((run / "scores.json").read_text())["gap"] is None
        assert (
            "leaves a second" in (run / "report.html").read_text()
            and main(["evaluate", str(run), "--json", f"plugin={file}"]) == 0
        )
        assert json.loads(capsys.readouterr().out)["gap"] is None


def test_a_classifier_shows_the_files_of_its_mistakes(short_run):
    shown = json.loads((short_run / "shown.json").read_text())["classification"]
    details = json.loads((short_run / "scores.json").read_text())["details"]
    assert [block["kind"] for block in shown["blocks"]] == ["matrix", "curve", "table", "examples"]
    pictures = shown["blocks"][-1]["pictures"]
    assert [p["id"] for p in pictures] == [m["id"] for m in details["mistakes"]]
    assert [p["source"] for p in pictures] == [m["source"] for m in details["mistakes"]]
    assert all(Path(p["source"]).is_file() for p in pictures) and not (short_run / "predictions/examples").exists()
    assert shown["metrics"]["nll"] == {
        "title": "Negative log-likelihood",
        "unit": "",
        "better": "lower",
        "chart": True,
        "most": None,
        "signed": False,
    }


@pytest.mark.parametrize(("score", "least"), [("0.05", 0.5), ("0.01", 0.01)])
def test_a_detectors_examples_are_what_its_records_say(tmp_path, monkeypatch, score, least):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    own = [w for w in SHORT if not w.startswith(("size", "batch", "updates"))]
    words = ["train", "detect", "smoke=true", "head=mask_rcnn", f"tasks.detection.score={score}", "updates=1",
             "tasks.detection.detections=10", "network.pyramid=none", "network.wrapper=slim_pool", "--run", str(run),
             *own]  # fmt: skip
    assert main(words) == 0
    table, curve, examples = (
        Block.from_json(b) for b in json.loads((run / "shown.json").read_text())["detection"]["blocks"]
    )
    assert isinstance(table, Table) and table.headings == ("class", "AP", "mask AP")
    assert isinstance(curve, Curve) and curve.lines[-1].name == "mean" and curve.x == "recall"
    assert isinstance(examples, Examples) and examples.note.endswith(f"score of at least {least:g}.")
    records = [json.loads(line) for line in (run / "predictions/val.jsonl").read_text().splitlines()]
    data = Path(json.loads((run / "scores.json").read_text())["data"])
    count = 0
    for record, picture in zip(records, examples.pictures, strict=True):
        assert picture.id == record.pop("id")
        (source,) = data.rglob(Path(picture.id).name)
        drawn = PredictedObjects.from_line({"file": str(source), **record, "drawn": least}).image()
        drawn.save(tmp_path / "drawn.jpg", quality=85)
        assert (run / picture.file).read_bytes() == (tmp_path / "drawn.jpg").read_bytes()
        count += sum(s >= least for s in record["scores"])
    assert (count > 8) == (least < 0.5)


def test_a_segmenters_examples_stand_beside_their_truth(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    words = ["train", "segment", "smoke=true", "backbone=narrow", "updates=1", "--run", str(run), *PLAIN]
    assert main(words) == 0
    table, examples = (
        Block.from_json(b) for b in json.loads((run / "shown.json").read_text())["segmentation"]["blocks"]
    )
    assert isinstance(table, Table) and table.headings == ("class", "IoU", "accuracy")
    assert isinstance(examples, Examples) and examples.size == "pair" and len(examples.pictures) == 8
    with Image.open(run / examples.pictures[0].file) as picture:
        assert picture.width > 2 * 64 and np.asarray(picture).std() > 10
