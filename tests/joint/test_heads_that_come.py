"""Heads that are added to a trained trunk, kept still, and published: what is frozen keeps its bits."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import trunkline
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.pipelines.models.build import build
from trunkline.pipelines.models.bundle import Bundle, write_bundle
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.train import train

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "updates": 2, "shared": False}  # fmt: skip
TWO = ("classification", "boxes")
STILL = {"loss_weights.classification": 0, "loss_weights.boxes": 0, "phases.0.frozen": 5, "phases.0.still": "pyramid"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(root) -> Path:
    train(resolve(FILE, {**PLAIN, "names": TWO}), root / "two")
    return root / "two"


@pytest.fixture(scope="module")
def three(root, two) -> Path:
    """A head more on the frozen trunk."""
    train(resolve(FILE, {**PLAIN, "network.weights": str(two), **STILL}), root / "three")
    return root / "three"


def scores(run: Path) -> dict[str, float]:
    return {name: value for name, value in json.loads((run / "scores.json").read_text()).items() if "/" in name}


def test_a_head_on_a_frozen_trunk_changes_no_bit_of_the_others(two, three):
    before, after = load_file(two / "weights.safetensors"), load_file(three / "weights.safetensors")
    assert [n for n in before if not torch.equal(before[n], after[n])] == [], "statistics are among them"
    assert {n.split(".")[1] for n in after.keys() - before.keys()} == {"some"}
    assert scores(two).items() <= scores(three).items()


def test_on_a_thawed_trunk_what_was_forgotten_shows(root, two):
    given = {"network.weights": str(two), "loss_weights.classification": 0, "loss_weights.boxes": 0}
    train(resolve(FILE, {**PLAIN, **given, "optimizer.lr": 0.1}), root / "thawed")
    found = trunkline.evaluate(str(root / "thawed"), tasks="all", loaders=0, threads=1)
    assert found.metrics["classification/nll"] != scores(two)["classification/nll"]


def test_a_head_that_is_still_keeps_its_weights_while_its_loss_moves_the_trunk(root, two):
    given = {"network.weights": str(two), "names": TWO, "phases.0.still": "boxes", "loss_weights.classification": 0}
    train(resolve(FILE, {**PLAIN, **given}), root / "still")
    before, after = load_file(two / "weights.safetensors"), load_file(root / "still" / "weights.safetensors")
    moved = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}
    assert moved == {"backbone"}


def test_a_head_is_taken_out_by_a_run_without_it(root, three):
    given = {"network.weights": str(three), "names": ("boxes", "some"), "loss_weights.boxes": 0, **{
        key: value for key, value in STILL.items() if key.startswith("phases")}}  # fmt: skip
    train(resolve(FILE, {**PLAIN, **given}), root / "without")
    before, after = load_file(three / "weights.safetensors"), load_file(root / "without" / "weights.safetensors")
    assert not any(n.startswith("heads.classification") for n in after)
    assert all(torch.equal(before[n], t) for n, t in after.items() if not n.startswith("heads.some"))


def test_one_file_for_all_scores_and_predicts_as_the_run(two, tmp_path):
    data = {n: o["data"] for n, o in json.loads((two / "recipe.json").read_text())["resolved"]["tasks"].items()}
    file, here = str(two / "weights.safetensors"), {"loaders": 0, "threads": 1}
    with pytest.raises(RecipeError, match=r"has several tasks: say which with task=, one of classification, boxes"):
        trunkline.evaluate(file, **here)
    with pytest.raises(RecipeError, match=r"give classification.data=FOLDER and boxes.data=FOLDER"):
        trunkline.evaluate(file, tasks="all", **here)
    whole = trunkline.evaluate(file, tasks="all", **{f"{n}.data": d for n, d in data.items()}, **here)
    assert whole.metrics == scores(two)
    one = trunkline.evaluate(file, weights_key="boxes", data=data["boxes"], **here)
    own = trunkline.evaluate(str(two / "weights/boxes.safetensors"), data=data["boxes"], **here)
    assert one.metrics == own.metrics == {n.removeprefix("boxes/"): v for n, v in scores(two).items() if "boxes" in n}
    assert trunkline.model(file, task="boxes", threads=1).heads.keys() == {"classification", "boxes"}
    text = Path(file).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        trunkline.evaluate(str(tmp_path / "cut.safetensors"), tasks="all", **here)


def test_a_file_of_several_is_a_model_of_all_and_names_what_it_does_not_know(two, tmp_path):
    file = two / "weights.safetensors"
    assert list(trunkline.model(file, threads=1).heads) == list(trunkline.model(two, threads=1).heads)
    with safe_open(file, "pt") as stored:
        header = {key: value.replace('"classification"', '"plugged"') for key, value in stored.metadata().items()}
    save_file(load_file(file), tmp_path / "odd.safetensors", header)
    with pytest.raises(RecipeError, match=r"odd.safetensors: .*plugged"):
        trunkline.model(tmp_path / "odd.safetensors")


def test_a_head_that_is_named_is_for_the_tasks_of_its_kind(two):
    """The others begin from those of their names; `some`, a detector, from the one that is named."""
    given = {**PLAIN, "network.weights": str(two), "network.weights_key": "boxes"}
    _, model, _ = build(placed(resolve(FILE, given).recipe))
    before = load_file(two / "weights.safetensors")
    same = {
        name for name, t in before.items() if name.startswith("heads.") and torch.equal(t, model.state_dict()[name])
    }
    assert same == {name for name in before if name.startswith("heads.")}
    assert all(
        torch.equal(t, before[f"heads.boxes.{name}"])
        for name, t in model.heads["some"].state_dict().items()
        if ".classes." not in f".{name}"
    )


def held(tasks: str, source: str = "cars:detection,signs:detection,labels:classification", key: str = ""):
    recipes = [resolve("joint", {"tasks": names, "data": "x"}).recipe for names in (source, tasks)]
    return Bundle("x", recipes[0], None, {}, 0, "FILE").heads(recipes[1].tasks, key)


def test_of_a_head_of_another_shape_the_trunk_alone_can_be_taken(two):
    given = {
        "network.weights": str(two),
        "names": ("boxes", "classification"),
        "shared": False,
        "tasks.boxes.head": "faster_rcnn",
    }
    given["network.pyramid"] = "pool"
    with pytest.raises(WeightsError, match=r"does not fit[^$]*with new heads: network.weights_key=trunk"):
        build(placed(resolve(FILE, given).recipe))
    *_, facts = build(placed(resolve(FILE, {**given, "network.weights_key": "trunk"}).recipe))
    assert facts.loaded.endswith("; boxes: a new head; classification: a new head")
    with pytest.raises(RecipeError, match=r"tasks.trunk: this is what weights_key= calls the trunk without heads"):
        resolve("joint", {"tasks": "trunk:detection,segmentation", "data": "x"})


def test_a_task_with_statistics_of_its_own_says_what_becomes_of_them(tmp_path):
    own = {"shared": False, "names": ("classification", "boxes"), "norms.boxes": "own"}
    recipe = placed(resolve(FILE, own).recipe)
    _, model, facts = build(recipe)
    write_bundle(tmp_path / "weights.safetensors", "x", recipe, facts, model.state_dict(), 1)
    given = {"shared": False, "names": own["names"], "network.weights": str(tmp_path / "weights.safetensors")}
    said = r"\d+ of \d+ tensors from .*; classification: its head; boxes: \d+ tensors of its detector"
    left = r"; boxes: the statistics that it has for itself there are left out, .*; norms.boxes=own with .* takes them"
    for kind, more in (("own", ""), ("shared", left)):
        *_, facts = build(placed(resolve(FILE, {**given, "norms.boxes": kind}).recipe))
        assert re.fullmatch(said + more, facts.loaded), facts.loaded


def test_which_head_each_task_begins_from():
    assert held("detection,classification", key="trunk") == {"detection": "", "classification": ""}
    assert held("cars:detection,labels:classification") == {"cars": "cars", "labels": "labels"}
    assert held("people:detection,classification", key="signs") == {"people": "signs", "classification": "labels"}
    assert held("cars:segmentation,signs:detection") == {"cars": "", "signs": "signs"}, (
        "of the same name, and another kind"
    )


@pytest.mark.parametrize(
    ("tasks", "key", "said"),
    [
        ("people:detection,classification", "", r"people could begin from cars or signs; say with weights_key= which"),
        (
            "cars:detection,classification",
            "signs",
            r"the task cars could begin from signs, which is named, or from cars, as",
        ),
        ("detection,classification", "sign", r"weights_key=sign: FILE holds the tasks cars, signs, labels"),
        (
            "segmentation,classification",
            "cars",
            r"weights_key=cars: is a head of the task detection in FILE, and here is none",
        ),
    ],
)
def test_a_head_that_two_could_be_or_none_is_refused(tasks, key, said):
    with pytest.raises(RecipeError, match=said):
        held(tasks, key=key)


@pytest.mark.parametrize("mode", ["full", "last", "append"])
def test_its_trunk_is_transferred_as_that_of_a_single_run(mode, root, two):
    more = {"machine.loaders": 0, "machine.threads": 1, "log.tensorboard": False}
    run = trunkline.train(
        "transfer", root / mode, data="demo:smoke", weights=str(two), mode=mode, updates=1, size=32, batch=8, **more
    )
    assert "tensors from" in json.loads((run.path / "load.json").read_text())["report"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"phases.0.still": "nobody"}, r"phases.0.still=nobody: expected a task, or pyramid"),
        (
            {**STILL, "loss_weights.boxes": 1, "phases.0.still": "pyramid,boxes"},
            r"phases.0.still=boxes: the whole trunk is frozen",
        ),
    ],
)
def test_what_cannot_be_still_is_told(given, said, root):
    with pytest.raises(RecipeError, match=said):
        train(resolve(FILE, {**PLAIN, **given}), root / "refused")
    assert not (root / "refused" / "checkpoints").exists()
