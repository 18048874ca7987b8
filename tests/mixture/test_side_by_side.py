"""What people see of several tasks: the page's table and charts, pictures through every head, lines on the terminal."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_run import fake_run
from PIL import Image

from trunkline.heads.contract import Batch, Prediction
from trunkline.pipelines.evaluation.through_heads import Seen, through_heads
from trunkline.pipelines.report.figures import stretches
from trunkline.pipelines.report.report import write_report
from trunkline.pipelines.show import scores_lines
from trunkline.pipelines.training.shown import _every_head
from trunkline.tasks.samples import Sample
from trunkline.tasks.scores import Scores

TASKS = ("near", "far", "high", "low", "deep")


def page_of(folder: Path, tasks: tuple[str, ...], learns: dict[str, Any]) -> str:
    """The page of a run of these tasks, each of which lost two things and has a balance, gradients and cosines."""
    fake_run(folder, ["ants", "bees"])
    about = {"right": {"title": "Right", "unit": "percent"}}
    shown = {task: {"unit": "clips", "metrics": about, "blocks": [], "learns": learns} for task in tasks[1:]}
    shown = {tasks[0]: {"unit": "clips", "metrics": about, "blocks": []}, **shown}
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["resolved"]["tasks"] = {task: {"data": f"/a/place/of/{task}"} for task in tasks}
    scores = {f"{task}/right": 0.25 * n for n, task in enumerate(tasks)}
    ends = {f"{tasks[1]}/right": [0.125, 0.5]}
    lines = [
        {
            "kind": "train", "update": u, "loss": 5.0,
            "losses": {f"{task}/{name}": 1.0 / u for task in tasks for name in ("box", "kind")},
            "measured": {f"balance/{task}": 2.0 for task in tasks} | {f"gradient/{task}": 3.0 for task in tasks}
            | {f"cosine/{one}/{other}": 0.5 for n, one in enumerate(tasks) for other in tasks[n + 1 :]},
        }
        for u in (1, 2)
    ]  # fmt: skip
    for name, document in (("recipe.json", recipe), ("shown.json", shown)):
        (folder / name).write_text(json.dumps(document))
    (folder / "scores.json").write_text(json.dumps({**scores, "intervals": ends, "details": {}, "samples": 4}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_report(folder).read_text(encoding="utf-8")


LEARNS = {
    "train": 1000,
    "val": 20,
    "batches": 0.375,
    "size": 8,
    "micro": 4,
    "loss_weight": 0.5,
    "shares": ["high", "low"],
}


def words(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S).split())


def charts(page: str) -> list[str]:
    return re.findall(r'<svg[^>]*aria-label="([^"]*)"', page)


def test_the_table_says_how_each_task_learns(tmp_path):
    page = page_of(tmp_path / "run", TASKS[:2], LEARNS)
    text = words(page)
    assert "of 2 tasks, resnet" in text or "of 2 tasks, from" in text
    assert "near Right 0.0 % …/of/near" in text, "an older run says no more"
    assert (
        "far Right 25.0 % 12.5 to 50.0 % …/of/far 1,000 train, 20 val 0.375 × 8 clips micro-batches of 4 0.5 high, low"
        in text
    )
    idle = page_of(tmp_path / "idle", TASKS[:2], {**LEARNS, "batches": 0.0, "loss_weight": 0.0, "shares": []})
    assert "nothing it is only scored 0" in words(idle)


def test_losses_gradients_and_cosines_have_charts_of_their_own(tmp_path):
    two = charts(page_of(tmp_path / "two", TASKS[:2], LEARNS))
    of_task = ["training loss", "loss: box", "loss: kind", "Gradient on the trunk, norm"]
    assert two == ["training loss", "Loss balance", "Cosine: near, far", *of_task, *of_task]
    page = page_of(tmp_path / "five", TASKS, LEARNS)
    many = [name for name in charts(page) if name.startswith("Cosine")]
    assert many == [f"Cosine: {task} and" for task in TASKS], "ten pairs: a chart for each task with all others"
    assert page.count('class="legend many"') == 1 + len(TASKS)


def test_a_run_whose_tasks_changed_says_so_and_its_curves_are_broken_there(tmp_path):
    page_of(tmp_path / "run", TASKS[:2], LEARNS)
    file = tmp_path / "run/recipe.json"
    recipe = json.loads(file.read_text())
    recipe["changes"] = [{"update": 4, "added": [], "removed": ["far"]}, {"update": 8, "added": ["far"], "removed": []}]
    file.write_text(json.dumps(recipe))
    lines = [
        {"kind": "train", "update": u, "loss": 1.0, "batch": 4 if 4 < u <= 8 else 6,
         "losses": {f"{task}/box": 1.0 / u for task in TASKS[: 1 if 4 < u <= 8 else 2]}}
        for u in range(1, 13)
    ]  # fmt: skip
    lines += [{"kind": "eval", "update": u, "metrics": {"far/right": 0.1}} for u in (2, 4, 10, 12)]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "12 updates of 4 to 6 samples" in words(page)
    said = "far left at update 4; far joined at update 8"
    assert f"does not repeat the run, as its tasks changed while it went on: {said}." in words(page)
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    of = {name: [svg.count("<polyline") for svg in drawn if f'aria-label="{name}"' in svg] for name in charts(page)}
    assert of["training loss"] == [1, 1, 2] and of["Right"] == [2], "of all, of near, of far"
    assert [svg.count('class="mark"') for svg in drawn] == [2] * len(drawn)
    once = words(page_of(tmp_path / "once", TASKS[:2], LEARNS))
    assert "does not repeat" not in once and "Upright lines" not in once


def test_a_line_is_divided_behind_each_break():
    assert stretches([1, 2, 3, 4], [2, 3.5, 0, 9, 2]) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert stretches([1, 2], []) == [slice(0, 2)]


class Told:
    """A task that draws its name's first letter's colour, and cannot read what is not its own where it is `strict`."""

    inputs_are = "photo"

    def __init__(self, colour: str, strict: bool = False, inputs_are: str = "photo"):
        self.colour, self.strict, self.inputs_are = colour, strict, inputs_are

    def read(self, address: str) -> Sample:
        if self.strict:
            raise KeyError("label")
        return Sample(address, address, torch.zeros(3, 4, 4))

    def transform(self, training: bool):
        return lambda sample: sample

    def collate(self, samples: list[Sample]) -> Batch:
        return Batch("", [sample.id for sample in samples], torch.stack([sample.image for sample in samples]))

    def infer(self, model: Any, batch: Batch) -> list[Prediction]:
        return [Prediction(name) for name in batch.ids]

    def draw(self, sample: Sample, prediction: Prediction) -> Image.Image:
        return Image.new("RGB", (8, 8), self.colour)


class Split(list):
    """Samples by their addresses."""

    def source(self, index: int) -> str:
        return list.__getitem__(self, index)

    def __getitem__(self, index: Any) -> Any:
        return Sample(self.source(index), self.source(index), torch.zeros(3, 4, 4))


def test_pictures_come_from_each_task_those_that_more_have_first():
    tasks: Any = {"red": Told("red"), "blue": Told("blue", strict=True)}
    splits: Any = {"red": Split(f"r{n}" for n in range(9)), "blue": Split(["b0", "r3", "r5"])}
    model: Any = torch.nn.Linear(1, 1)
    rows = list(through_heads(model, tasks, splits, "fp32", torch.device("cpu")))
    assert [address for address, _ in rows] == ["r3", "r5"], "what both have"
    splits["blue"] = Split(["b0", "b1"])
    rows = dict(through_heads(model, tasks, splits, "fp32", torch.device("cpu")))
    assert [*rows] == ["r2", "b0", "r6", "b1"]
    assert rows["r2"][1] == Seen("blue", None, False, "KeyError: 'label'")
    assert [(seen.own, seen.picture is not None) for seen in rows["b0"]] == [(False, True), (True, True)]
    tasks["blue"].collate = tasks["blue"].read
    with pytest.raises(KeyError):  # of its own data, it is a fault
        list(through_heads(model, tasks, splits, "fp32", torch.device("cpu")))


def test_what_takes_no_pictures_is_left_out_and_said(tmp_path):
    tasks = {"red": Told("red"), "blue": Told("blue", strict=True), "clips": Told("green", inputs_are="video")}
    parts = {
        name: SimpleNamespace(task=task, validation=Split([f"{name}.jpg"]), folder=name) for name, task in tasks.items()
    }
    session: Any = SimpleNamespace(
        parts=parts, device=torch.device("cpu"), recipe=SimpleNamespace(evaluation=SimpleNamespace(precision="fp32")),
        run=SimpleNamespace(path=tmp_path, records=lambda task: tmp_path / "predictions" / task),
    )  # fmt: skip
    block = _every_head(session, torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    assert block.across == 2 and block.note.endswith("Left out, as what they take are no pictures: clips (video).")
    assert [p.file for p in block.pictures] == [
        "predictions/red/examples/0-red.jpg",
        "",
        "predictions/red/examples/1-red.jpg",
        "predictions/red/examples/1-blue.jpg",
    ]
    assert block.pictures[1].caption[1] == (("not drawn: KeyError: 'label'", "soft"),)
    del parts["blue"]
    assert _every_head(session, torch.nn.Linear(1, 1)).pictures == ()  # type: ignore[arg-type]


def test_each_task_has_a_line_of_its_own():
    one, other = Scores({"gain": 1.5}, {"gain": (1.0, 2.0)}), Scores({"rest": None, "more": 0.25}, headline=("rest",))
    assert scores_lines({"only": one}) == " gain 1.5000 (1.000 to 2.000)"
    assert scores_lines({"a": one, "longer": other}) == "\n  a       gain 1.5000 (1.000 to 2.000)\n  longer  rest none"
