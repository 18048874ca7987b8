"""All heads of a run scored and predicted together: one pass of the trunk where they see the same pixels."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_work import files_in, pool_here

import trunkline
from trunkline.cluster.config import Launch
from trunkline.ground.errors import RecipeError
from trunkline.heads.model import Model
from trunkline.pipelines.evaluation.evaluate import evaluate
from trunkline.pipelines.evaluation.together import circles
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.train import train

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "updates": 2}  # fmt: skip
HERE = {"loaders": 0, "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("runs") / "run"
        train(resolve(FILE, PLAIN), folder)
        yield folder


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """How many pictures each pass of the trunk has."""
    passes, original = [], Model.maps

    def counted(self, batch):
        if batch.features is None:
            passes.append(len(batch.images))
        return original(self, batch)

    monkeypatch.setattr(Model, "maps", counted)
    return passes


def test_each_picture_goes_through_the_trunk_once_and_scores_are_each_heads_own(run, seen):
    together = trunkline.evaluate(str(run), tasks="boxes,some", **HERE)
    assert sum(seen) == 8, "8 pictures, whose boxes both score"
    for name in ("boxes", "some"):
        seen.clear()
        alone = trunkline.evaluate(str(run), task=name, **HERE)
        assert sum(seen) == 8
        assert {
            f"{name}/{metric}": value for metric, value in alone.metrics.items()
        }.items() <= together.metrics.items()
    seen.clear()
    whole = trunkline.evaluate(str(run), **HERE)
    assert sum(seen) == 28, "and 20 of the classes"
    stored = json.loads((run / "scores.json").read_text())
    assert {n: stored[n] for n in whole.metrics} == whole.metrics


def test_options_go_to_the_task_that_has_them(run, tmp_path):
    found = trunkline.evaluate(str(run), tasks="boxes,some", **{"boxes.score": 0.99}, out=tmp_path / "out", **HERE)
    assert found.metrics["boxes/AR100"] == 0 and found.details["origin"]["task"] == ["boxes", "some"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["boxes.jsonl", "some.jsonl"]
    records = [json.loads(line) for line in (tmp_path / "out/some.jsonl").read_text().splitlines()]
    assert [r["id"] for r in records] == sorted(r["id"] for r in records) and len(records) == 8


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_of_a_pool_score_and_write_the_same(workers, run, seen, tmp_path, monkeypatch):
    from trunkline.cluster.launchers import table

    wanted = evaluate(run, results=tmp_path / "here", **HERE, options={"boxes.size": 64})
    once = sum(seen)
    seen.clear()
    monkeypatch.setattr(table, "pool", pool_here)
    found = evaluate(
        run, results=tmp_path / "there", launch=Launch(workers=workers), **HERE, options={"boxes.size": 64}
    )
    assert found.metrics == wanted.metrics and found.intervals == wanted.intervals
    assert files_in(tmp_path / "here") == files_in(tmp_path / "there") and sum(seen) == once == 28


def test_predict_gives_what_every_head_says_of_a_picture(run, seen, tmp_path):
    data = Path(json.loads((run / "recipe.json").read_text())["resolved"]["tasks"]["boxes"]["data"])
    folder, bad = data / "JPEGImages", tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    inputs = [*sorted(folder.iterdir())[:3], bad]
    found = trunkline.predict(str(run), inputs, tasks="all", out=tmp_path / "out", pictures=True, threads=1)
    assert sum(seen) == 6, "the classes at 32 pixels, both kinds of boxes at 64"
    assert [list(p.by_task) for p in found[:3]] == [["classification", "boxes", "some"]] * 3
    for name in found[0].by_task:
        alone = trunkline.predict(str(run), inputs, task=name, threads=1)
        assert [p.line() for p in alone[:3]] == [p.by_task[name].line() for p in found[:3]]
    assert "no image" in found[3].error and not found[3].by_task
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"file", "classification", "boxes", "some"}] * 3 + [{"file", "error"}]
    again = [type(found[0]).from_line(line) for line in lines]
    assert [p.line() for p in again] == [p.line() for p in found]
    said = [found[0].by_task[name].caption() for name in ("classification", "boxes", "some")]
    assert found[0].below() == [f"{name}: {words}" for name, words in zip(found[0].by_task, said, strict=True)]
    assert (tmp_path / "out/sheet.png").is_file() and len(list((tmp_path / "out/pictures").iterdir())) == 3
    head = (tmp_path / "out/predictions.csv").read_text().splitlines()[0].split(",")
    assert head[:3] == ["file", "classification label", "classification confidence"] and head[-1] == "error"


def test_columns_stand_in_the_order_that_is_asked_for(run, tmp_path):
    data = Path(json.loads((run / "recipe.json").read_text())["resolved"]["tasks"]["boxes"]["data"])
    file = next((data / "JPEGImages").iterdir())
    (found,) = trunkline.predict(str(run), file, tasks="some,classification", out=tmp_path / "out", threads=1)
    with (tmp_path / "out/predictions.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert [*row][1].startswith("some ") and list(found.by_task) == ["some", "classification"]
    assert row["classification label"] == found.by_task["classification"].line()["label"]


class Files:
    """Samples of files, by their names."""

    def __init__(self, names: str):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def source(self, index: int) -> str:
        return self.names[index]


def test_only_tasks_with_one_sample_a_file_share_pictures():
    samples: Any = {"twice": Files("aab"), "some": Files("bc"), "more": Files("cd"), "other": Files("xy")}
    assert circles(samples) == [["twice"], ["some", "more"], ["other"]]


def test_a_model_is_called_with_images(run, seen):
    model = trunkline.model(run, threads=1)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        found, one = model(images), model(images, ["some"])
    assert list(found) == ["classification", "boxes", "some"] and list(one) == ["some"] and seen == [2, 2]
    assert [p.id for p in found["boxes"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"tasks": "boxes,nobody"},
            r"tasks=boxes,nobody: .* has no task nobody; it has classification, boxes, some, or all",
        ),
        ({"tasks": "boxes,boxes"}, r"a task stands there twice"),
        ({"tasks": "boxes", "task": "some"}, r"task=some and tasks=boxes say both which: give one of them"),
        ({"tasks": "all", "score": 0.3}, r"score=0.3: several tasks have it; give boxes.score= and some.score="),
        (
            {"tasks": "all", "data": "x"},
            r"has several tasks, each with its own; give classification.data= or boxes.data=",
        ),
        ({"boxes.scor": 1}, r"^boxes\.scor=1: there is no such setting; nearest: score; the task boxes has data, "),
        ({"boxes.scor": 1, "task": "boxes"}, r"^boxes\.scor=1: there is no such setting"),
        ({"threshold": 1, "task": "boxes"}, r"^threshold=1: there is no such setting; this task has data, "),
        ({"tasks": "all", "boxes.score": "x"}, r"^boxes\.score=x: expected a number"),
        ({"tasks": "all", "boxes.size": -1}, r"^boxes\.size=-1: "),
        (
            {"tasks": "some", "boxes.score": 0.3},
            r"^boxes\.score=0\.3: boxes is not among the chosen tasks, some: choose it too, or leave this out$",
        ),
        ({"tasks": "some", "boxs.score": 1}, r"^boxs\.score=1: there is no task boxs; nearest: boxes; there are class"),
    ],
)
def test_wrong_settings_of_several_are_told(given, said, run):
    with pytest.raises(RecipeError, match=said):
        trunkline.evaluate(str(run), **given, **HERE)


def test_what_one_task_alone_can_do_is_refused_of_several(run, tmp_path):
    with pytest.raises(RecipeError, match=r"labels=coco: is for one task; give task=, one of boxes, some"):
        trunkline.predict(str(run), str(run), tasks="boxes,some", labels="coco", out=tmp_path / "out")
