"""Evaluations of several tasks in a run: some at a time, tasks that end early, the change against single runs; and its report."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from run_work import final
from test_side_by_side import words

from trunkline.backbones.contract import Preprocessing
from trunkline.cluster.config import Average, Machine, Optimizer, Schedule
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.evaluation.changes import CHANGE, with_change, with_singles
from trunkline.pipelines.evaluation.singles import compare_singles
from trunkline.pipelines.models.assembly import make_task
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.fields import Log
from trunkline.pipelines.recipe.knobs import Resolved, complete
from trunkline.pipelines.runs.run import Run
from trunkline.pipelines.training.session import Session
from trunkline.pipelines.training.train import train
from trunkline.tasks.classification.options import Options as Classes
from trunkline.tasks.scores import Metric, Scores


def recipe_of(updates: int, evaluation: dict[str, Any], **given: Any) -> Recipe:
    """Two tasks of classes, each with 8 samples a batch of 40, which are scored after every update."""
    return Recipe(
        tasks={name: Classes(data="demo:smoke", size=32) for name in ("far", "near")},
        network=Network(backbone="narrow", weights="none", norm="group"),  # without running statistics, which move too
        batch=Batches(8, 4),
        phases=(Phase(updates=updates),),
        optimizer=Optimizer("momentum", lr=1e-12),  # so small that no score gets better
        schedule=Schedule("constant"),
        average=Average(0.0),
        machine=Machine(threads=1, loaders=0, precision="fp32", channels_last=False),
        evaluation=Evaluation(every=0.01, batch=10, **evaluation),
        log=Log(tensorboard=False),
        **given,
    )


def trained(recipe: Recipe, run: Path) -> Path:
    train(Resolved("joint", {}, complete(recipe), {}), run)
    return run


def lines_of(run: Path, kind: str) -> list[dict[str, Any]]:
    return [m for line in (run / "metrics.jsonl").read_text().splitlines() if (m := json.loads(line))["kind"] == kind]


def state_of(run: Path) -> dict[str, Any]:
    last = (run / "checkpoints/last").read_text()
    return json.loads((run / "checkpoints" / last / "state.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(folder / "cache"))
        patch.setattr("trunkline.pipelines.runs.machine.cores", lambda: 1)
        yield folder


@pytest.fixture(scope="module")
def some(root) -> Path:
    """Five evaluations: of none, far, near, far, and at the end of both. The scores have a line to read."""
    evaluation = {"nth": {"far": 2, "near": 3}, "metric": CHANGE, "patience": 1}
    scored = Session.score

    def noted(*args: Any) -> Any:
        found = scored(*args)
        for name, (scores, _) in found.items():
            scores.notes = (f"over what is {name}",)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "score", noted)
        return trained(recipe_of(5, {**evaluation, "single": {"far": "top1:0.5", "near": "nll:4"}}), root / "some")


TURNS = {"mixing": "round_robin", "mix": {"far": 2}}
ENDS = {"patience_of": {"far": 1}, "single": {"near": "0.25"}}


@pytest.fixture(scope="module")
def ended(root) -> Path:
    """Of six updates `far` has the first two: its second evaluation is no better, and it learns no more."""
    return trained(recipe_of(6, ENDS, **TURNS), root / "ended")


def test_each_task_is_scored_at_its_evaluations_and_all_at_the_last(some):
    found = {line["update"]: {name.partition("/")[0] for name in line["metrics"]} for line in lines_of(some, "eval")}
    assert found == {2: {"far"}, 3: {"near"}, 4: {"far"}, 5: {"far", "near", "all"}}
    state = state_of(some)
    assert [entry["update"] for entry in state["scores"]] == [1, 2, 3, 4, 5] and state["scores"][0]["metrics"] == {}
    notes = [(line["text"], line["update"]) for line in lines_of(some, "note") if "over what is" in line["text"]]
    assert notes == [("far: over what is far", 2), ("near: over what is near", 3)], (
        "each at its task's first evaluation"
    )


def test_the_mean_change_is_that_of_the_formula_and_chooses_the_best(some):
    scores, state = json.loads((some / "scores.json").read_text()), state_of(some)
    by_hand = ((scores["far/top1"] - 0.5) / 0.5 - (scores["near/nll"] - 4) / 4) / 2
    assert scores[CHANGE] == pytest.approx(by_hand, rel=1e-12)
    assert state["best"] == {"update": 5, "metric": CHANGE, "value": scores[CHANGE]}
    assert state["update"] == 5, "evaluations without it cost no patience"


def test_a_task_that_has_ended_learns_no_more_and_the_others_go_on(ended):
    tasks = [{name.partition("/")[0] for name in line["losses"]} for line in lines_of(ended, "train")]
    assert tasks == [{"far"}, {"far"}, {"near"}, {"near"}, {"near"}, {"near"}]
    assert state_of(ended)["ended"] == {"far": 2}
    said = {line["text"]: line["update"] for line in lines_of(ended, "note")}
    assert said["far: learns no more: 1 evaluations without a better top1"] == 2
    assert (
        "near: from here on an update takes 1 of its batches, on average, in place of 0.333, so that none is empty"
        in said
    )


def test_a_run_that_goes_on_after_the_end_of_a_task_takes_the_same_batches(root, ended):
    again = trained(recipe_of(4, ENDS, **TURNS), root / "again")
    trained(recipe_of(6, ENDS, **TURNS), again)
    assert [m["losses"] for m in lines_of(again, "train")] == [m["losses"] for m in lines_of(ended, "train")]
    one, other = final(again), final(ended)
    assert one.keys() == other.keys() and [n for n in one if not torch.equal(one[n], other[n])] == []


def test_the_report_has_the_mixtures_own_numbers(ended, some):
    text = words((ended / "report.html").read_text(encoding="utf-8"))
    assert "6 updates of 8 samples with momentum" in text, "one batch of one task an update"
    train = lines_of(ended, "train")
    spent = sum(8 / line["images_per_second"] for line in train)
    told = re.findall(r"(?:updates|waiting for data) ([\d.]+) s", text[text.index(" images a second ") :])
    assert sum(map(float, told)) == pytest.approx(spent, abs=0.11)
    assert "5 updates of 16 samples" in words((some / "report.html").read_text(encoding="utf-8"))


def test_what_chose_the_best_stands_first_and_the_mean_change_beside(ended, some):
    title = "Mean change against single runs"
    for run, first in ((ended, "far: Top-1 accuracy"), (some, title)):
        page = (run / "report.html").read_text(encoding="utf-8")
        scores = json.loads((run / "scores.json").read_text())
        assert re.findall(r"<h1>(.*?)</h1>", page) == [first]
        assert f"{title} {100 * scores[CHANGE]:+.1f} %" in words(page) and "mean_change" not in words(
            page[: page.index('id="recipe"')]
        )


def run_with(folder: Path, **scores: float) -> Path:
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps({**scores, "samples": 3}))
    return folder


def test_a_single_run_that_nothing_can_be_compared_with_is_refused_before_training(tmp_path):
    run = run_with(tmp_path / "run", AP=0.0, AP50=0.5, odd=float("nan"))
    only = run_with(tmp_path / "only", AP=0.0)
    single = {"a": str(run), "b": f"{run}:odd", "c": str(only), "d": "AP:0", "e": "nan", "f": "AP:inf", "g": "0.0"}
    with pytest.raises(RecipeError) as told:
        with_singles(recipe_of(1, {"single": single}))
    why, leave = "a change in proportion to it says nothing", "out of evaluation.single"
    more = f"{why}; give a number that is finite and not 0, another metric (METRIC:NUMBER), or leave"
    assert told.value.problems == [
        f"evaluation.single.a={run}: {run}/scores.json says AP=0, and {why}; name another metric ({run}:METRIC, one of AP50), "
        f"or leave a {leave}",
        f"evaluation.single.b={run}:odd: {run}/scores.json says odd=nan, and {why}; name another metric ({run}:METRIC, one of "
        f"AP50), or leave b {leave}",
        f"evaluation.single.c={only}: {only}/scores.json says AP=0, and {why}; leave c {leave}",
        *(f"evaluation.single.{task}={single[task]}: {more} {task} {leave}" for task in "defg"),
    ]
    good = with_singles(recipe_of(1, {"single": {"far": f"{run}:AP50", "near": "AP:-2"}})).evaluation.single
    assert good == {"far": "AP50:0.5", "near": "AP:-2"}


@pytest.fixture(scope="module")
def alone(root) -> tuple[Any, Any]:
    """The task `far` and its validation split, as a joint run reads them."""
    task = make_task("far", placed(recipe_of(1, {})).tasks["far"], Preprocessing())
    task.samples("train")
    return task, task.samples("val")


def single_of(folder: Path, task: Any, lines: list[str] | None, count: int, **given: Any) -> str:
    """A run of classes alone that was scored on samples with these lines; returns its folder."""
    options = {"data": "/another/place", **given.get("options", {})}
    run_with(folder, top1=0.5)
    run = Run(folder)
    run.write("scores.json", {"top1": 0.5, "samples": count, "data": options["data"]})
    tasks = given.get("tasks", {"classification": options})
    run.write("recipe.json", {"recipe": "transfer", "resolved": {"tasks": tasks}})
    if lines is not None:
        run.keep_manifest("val", lines)
    if "classes" in given:
        state = folder / "checkpoints/000001/state.json"
        state.parent.mkdir(parents=True)
        (state.parents[1] / "last").write_text("000001")
        state.write_text(json.dumps({"facts": {"tasks": {"classification": {"classes": given["classes"]}}}}))
    return str(folder)


def test_a_single_run_on_other_data_is_refused_and_a_moved_folder_is_no_difference(alone, tmp_path):
    task, samples = alone
    lines, data = samples.manifest(), task.options.data

    def told(name: str, *stored: Any, **given: Any) -> Any:
        single = {"far": single_of(tmp_path / name, task, *stored, **given)}
        return compare_singles(recipe_of(1, {"single": single}), {"far": alone})

    moved = {"classes": [*samples.classes]}
    assert told("moved", lines, len(lines), **moved) == []
    assert compare_singles(recipe_of(1, {"single": {"far": "top1:0.5"}}), {"far": alone}) == []
    with pytest.raises(RecipeError) as other:
        told("fewer", lines[1:], len(lines) - 1)
    name = lines[0].partition("\t")[0]
    assert other.value.problems == [
        f"evaluation.single.far={tmp_path / 'fewer'}: was scored on {len(lines) - 1} samples of /another/place, and far is "
        f"scored on {len(lines)} of {data} here (1 added ({name})), so that the two cannot be compared. Score that run on "
        f"this data (trunkline evaluate {tmp_path / 'fewer'} data={data}) and give METRIC:NUMBER as it says; or give "
        "METRIC:NUMBER of that run if you know that it is comparable"
    ]
    with pytest.raises(RecipeError, match=r"1 changed"):
        told("changed", [lines[0].rpartition("\t")[0] + "\tffff", *lines[1:]], len(lines))
    with pytest.raises(RecipeError, match=r"scored on 3 samples of /another/place, and far is scored on "):
        told("unlisted", None, 3)
    (unsure,) = told("as many", None, len(lines))
    assert "lists no samples, as data/val.tsv is not there: taken as the same as they are as many" in unsure
    with pytest.raises(RecipeError, match=r"has the classes ant, bee, and far has "):
        told("classes", lines, len(lines), classes=["ant", "bee"])
    with pytest.raises(RecipeError, match=r"is a run of the task multilabel, and far is of classification here"):
        told("kind", lines, len(lines), tasks={"multilabel": {}})


def test_a_joint_run_is_no_single_run(alone, tmp_path):
    joint = single_of(tmp_path / "joint", alone[0], None, 3, tasks={"far": {}, "near": {}})
    with pytest.raises(
        RecipeError, match=r"that run has the tasks far, near on one trunk, so that it does not say what far "
    ):
        with_singles(recipe_of(1, {"single": {"far": f"{joint}:far/top1"}}))


def test_other_data_is_told_before_the_first_update_and_leaves_no_folder(alone, root):
    lines = alone[1].manifest()
    single = single_of(root / "single", alone[0], lines[:-1], len(lines) - 1)
    with pytest.raises(RecipeError, match=r"evaluation\.single\.far=.*: was scored on "):
        trained(recipe_of(1, {"single": {"far": single}}), root / "refused")
    assert not (root / "refused").exists()


def test_the_table_says_what_each_task_reached_alone_and_its_own_change(ended, some):
    scores, text = (json.loads((some / "scores.json").read_text()), words((some / "report.html").read_text("utf-8")))
    nll = scores["near/nll"]
    assert f" 50.0 % {100 * (scores['far/top1'] - 0.5) / 0.5:+.1f} % here" in text and "main metric alone data" in text
    assert f"4.000 {-100 * (nll - 4) / 4:+.1f} % here" in text, "smaller is better: the sign is turned"
    text = words((ended / "report.html").read_text(encoding="utf-8"))
    (near,) = [line["metrics"]["near/top1"] for line in lines_of(ended, "eval")][-1:]
    assert f"25.0 % {100 * (near - 0.25) / 0.25:+.1f} % here" in text and text.count(" % here") == 1


def test_what_a_task_reached_alone_is_a_level_line_in_the_chart_of_that_metric(ended):
    page = (ended / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure>.*?</figure>", page, flags=re.S)
    lined = [figure for figure in figures if "dashed line" in figure]
    assert [re.findall(r"<h3>(.*?)</h3>", figure) for figure in lined] == [["Top-1 accuracy"]], "that of near alone"
    (points,) = re.findall(r'dashed line"[^>]*points="([^"]*)"', lined[0])
    assert len({point.partition(",")[2] for point in points.split()}) == 1
    assert '<i class="dashed"></i>alone 25.0 %</span>' in lined[0]


class Told:
    metrics = {"more": Metric("More"), "less": Metric("Less", better="lower")}


def test_the_change_is_none_where_a_metric_could_not_be_measured_and_absent_where_a_task_was_not_scored():
    recipe = recipe_of(1, {"single": {"far": "0.5", "near": "less:-2"}})
    evaluators: Any = {"far": Told, "near": Told}

    def change(**metrics: float | None) -> Any:
        return with_change(Scores({n.replace("_", "/"): v for n, v in metrics.items()}), recipe, evaluators).metrics

    assert change(far_more=0.75, near_less=-3.0)[CHANGE] == pytest.approx((0.5 + 0.5) / 2)
    assert change(far_more=0.75, near_less=None)[CHANGE] is None
    assert CHANGE not in change(far_more=0.75)
