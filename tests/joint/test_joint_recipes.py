"""Recipes of several tasks: what they refuse, what they share, and a smoke run of each."""

import json
import re
from pathlib import Path

import pytest
import torch
from short_run import PLAIN
from torch import nn

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import RecipeError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.assembly import make_task
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.fields import batches_of, shared_groups
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipe.plain import from_plain, to_plain
from trunkline.pipelines.recipe.task_names import OF_TORCH
from trunkline.pipelines.training.checks import preflight
from trunkline.pipelines.training.sharing import head_problems

NARROW = ["network.backbone=narrow", *PLAIN]
SLIM = ["network.pyramid=none", "network.wrapper=slim_pool"]
VOC = {
    "tasks": "detection,segmentation,multilabel",
    "format": "voc",
    "shared_batch": "detection,segmentation,multilabel",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def refused(recipe: str = "joint", **given) -> list[str]:
    with pytest.raises(RecipeError) as told:
        resolve(recipe, given)
    return told.value.problems


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("detection", "expected two tasks or more; one task by itself is trained by trunkline train detect"),
        ("multilabel", "one task by itself is trained by a recipe of your own, as docs/multilabel.md has one"),
        ("detektion,action", "tasks=detektion: there is no such kind; nearest: detection"),
        ("detection,super_resolution", "tasks=super_resolution: its trunk keeps the pictures' own pixels (stride 1)"),
        ("detection,events", "tasks=events: it reads features over time"),
        ("detection,detection", "the name detection stands there twice; give each a name of its own, as a:detection"),
        ("cars:detection,cars:segmentation", "tasks=cars:segmentation: the name cars stands there twice"),
        ("segmentation:detection,action", "segmentation is the name of another kind; choose another, as my_detection:"),
        (
            "a.b:detection,action",
            "tasks.a.b: expected a name of letters, digits and _ that begins with a letter, as a_b",
        ),
        (
            "my-detection:detection,action",
            "tasks.my-detection: expected a name of letters, digits and _ that begins with a",
        ),
        (
            "all:detection,action",
            "tasks.all: this stands for all tasks, as in tasks=all; choose another name, as my_all",
        ),
        ("training:detection,action", "tasks.training: this is a name that torch's modules have for themselves"),
        ("layer4:detection,action", "tasks.layer4: this is a part of the network, which optimizer.rates names"),
        (
            "depth:detection,action",
            "tasks.depth: this is a field of the lines that predict writes; choose another name",
        ),
    ],
)
def test_tasks_that_cannot_learn_together_are_one_clear_line(tasks, told):
    (line,) = refused(tasks=tasks, data="x")
    assert told in line


def test_every_name_that_torch_keeps_for_itself_is_known():
    """Whatever torch is installed: a head of such a name could not be added, or would hide what it stands for."""
    assert {name for name in dir(nn.ModuleDict()) if not name.startswith("_")} <= {*OF_TORCH}


def test_every_mistake_is_told_at_once_and_none_of_other_tasks():
    given = {
        "tasks": "detectin,multilabel,events",
        "tasks.multilabel.siz": "3",
        "lr": "fast",
        "epochs": "1",
        "updates": "2",
    }
    found = refused(**given)
    assert [line.split(":")[0] for line in found] == [
        "lr=fast", "tasks=detectin", "tasks=events", "epochs=1 and updates=2 both say how long",
    ]  # fmt: skip
    given = {"tasks": "detection,multilabel", "tasks.multilabel.siz": "3", "batch": "5", "micro_batch": "2"}
    assert [line.partition(":")[0] for line in refused(**given, **{"tasks.detection.data": "x"})] == [
        "tasks.multilabel.siz=3",
        "batches.detection.micro=2 does not divide batches.detection.size=5",
        "batches.multilabel.micro=2 does not divide batches.multilabel.size=5",
        "tasks.multilabel.data= is missing",
    ]


def test_data_is_one_folder_for_all_or_each_tasks_own():
    assert refused() == [
        f"tasks.{name}.data= is missing: give the folder of its data"
        for name in ("classification", "detection", "segmentation")
    ]
    own = {"tasks.detection.data": "boxes", "tasks.detection.format": "yolo", "tasks.multilabel.data": "labels"}
    recipe = resolve("joint", {"tasks": "detection,multilabel", **own}).recipe
    assert [(o.data, o.format) for o in recipe.tasks.values()] == [("boxes", "yolo"), ("labels", "coco")]
    (line,) = refused(tasks="detection,multilabel", data="x", format="vox")
    assert line.startswith("format=vox: no task reads it; nearest: voc; there are coco, voc, yolo, ")
    (line,) = refused(tasks="classification,detection", data="x", format="voc")
    assert line.startswith("format=voc: classification reads auto, folders, csv; give each task its own")
    shown = {key: value for key, value, _ in api.show("joint").rows}
    assert shown["tasks.segmentation.data"] == "FOLDER" and shown["tasks.segmentation.head"] == "semantic_fpn"
    one = {"tasks.detection.data": "boxes", "tasks": "detection,multilabel"}
    shown = {key: (value, origin) for key, value, origin in api.show("joint", **one).rows}
    assert shown["tasks.detection.data"] == ("boxes", "tasks.detection.data=boxes")
    assert shown["tasks.multilabel.data"][0] == "FOLDER"
    with pytest.raises(RecipeError) as told:
        api.show("joint", **one, **{"tasks.detection.siz": "3"})
    assert [line.partition(":")[0] for line in told.value.problems] == ["tasks.detection.siz=3"]


def test_settings_fit_the_tasks():
    recipe = resolve("joint", {"tasks": "small:detection,large:detection,classification,action", "data": "x"}).recipe
    assert (recipe.network.pyramid, recipe.network.wrapper, recipe.optimizer.name) == ("pool", "frames", "adamw")
    assert [batches_of(recipe, name).size for name in recipe.tasks] == [4, 4, 16, 4]
    assert from_plain(json.loads(json.dumps(to_plain(recipe)))) == recipe
    recipe = resolve("joint", {"tasks": "classification,multilabel", "data": "x"}).recipe
    assert (recipe.network.pyramid, recipe.network.wrapper, recipe.optimizer.name) == ("none", "none", "momentum")
    given = {"tasks": "detection,segmentation,multilabel", "data": "x", "head": "one_stage"}
    recipe = resolve("joint", {**given, "shared_batch": "detection,segmentation,multilabel"}).recipe
    assert (recipe.network.pyramid, recipe.tasks["segmentation"].head) == ("conv", "fcn")
    assert shared_groups(recipe) == [("detection", "segmentation", "multilabel")]


def test_small_pictures_are_padded_as_far_as_the_coarsest_level_needs():
    given = {"tasks": "detection,multilabel", "data": "x", "head": "one_stage"}
    assert resolve("joint", {**given, "tasks.detection.padding": "96"}).recipe.tasks["detection"].padding == 96
    (line,) = refused(**given, **{"tasks.detection.padding": "64"})
    assert line.startswith("tasks.detection.padding=64: head=one_stage makes its coarsest level")


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory) -> str:
    """A trunk's tensors without a header."""
    path = tmp_path_factory.mktemp("weights") / "trunk.pth"
    torch.save(backbone("resnet18").state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"network.pyramid": "none"},
            r"tasks.classes: head=one_stage needs a pyramid around the trunk: set network.pyramid=conv",
        ),
        (
            {"optimizer.rates.classes": 0.1},
            r"optimizer.rates.classes: is the name of a task and of a part of the network",
        ),
    ],
)
def test_heads_are_tried_on_the_trunk_of_a_file_that_says_nothing(given, said, plain_file):
    whole = {"tasks": "classes:detection,multilabel", "data": "x", "weights": plain_file, "head": "one_stage", **given}
    recipe = resolve("joint", whole).recipe
    tasks = {n: make_task(n, own, Preprocessing(), {"classes": ["a"]}) for n, own in recipe.tasks.items()}
    (line,) = head_problems(recipe, tasks)
    assert re.match(said, line)


@pytest.mark.parametrize("head", ["faster_rcnn", "one_stage"])
def test_whole_pictures_of_one_folder_can_share_batches(head):
    """Of generated scenes by COCO's file: the views are equal, whatever the head."""
    given = {**VOC, "smoke": "true", "head": head, "network.backbone": "narrow"}
    preflight(placed(resolve("joint", {**given, "machine.device": "cpu"}).recipe))


def test_the_command_of_the_docs_reads_voc(shared_data):
    given = {**VOC, "data": str(shared_data / "VOCdevkit/VOC2012"), "weights": "none", "machine.device": "cpu"}
    preflight(placed(resolve("joint", given).recipe))


@pytest.mark.parametrize("recipe", ["joint", "joint-voc", "joint-coco"])
def test_a_smoke_run_has_every_task(recipe, tmp_path, one_core):
    run = tmp_path / "run"
    assert main(["train", recipe, "smoke=true", "--run", str(run), *NARROW, *SLIM]) == 0
    tasks = ("classification" if recipe == "joint" else "multilabel", "detection", "segmentation")
    assert {f"{name}.safetensors" for name in tasks} == {file.name for file in (run / "weights").iterdir()}
    scores = json.loads((run / "scores.json").read_text())
    assert {"detection/AP50", "segmentation/mIoU"} < {*scores} and (run / "report.html").is_file()
    assert ("detection/mask_AP" in scores) is (recipe == "joint-coco")


def test_pictures_and_clips_go_through_one_trunk_with_a_pyramid(tmp_path, one_core):
    """The published detector of a trunk that frames of clips go through, too, is read as any other."""
    run = tmp_path / "run"
    words = ["tasks=detection,action,classification", "head=one_stage", "smoke=true", "batch=1"]
    assert main(["train", "joint", *words, "--run", str(run), *NARROW]) == 0
    scores = json.loads((run / "scores.json").read_text())
    data = json.loads((run / "recipe.json").read_text())["resolved"]["tasks"]
    for name, metric in (("detection", "AP"), ("action", "video_top1"), ("classification", "top1")):
        found = api.evaluate(run / f"weights/{name}.safetensors", data=data[name]["data"], loaders=0, threads=1)
        assert found.metrics[metric] == pytest.approx(scores[f"{name}/{metric}"], abs=1e-6)


def test_the_published_recipes_say_what_is_missing():
    assert "data= is missing: give the folder VOC2012" in refused("joint-voc")[0]
    assert "data= is missing: give COCO's folder" in refused("joint-coco")[0]
    coco = resolve("joint-coco", {"data": "coco"}).recipe
    assert (coco.optimizer.lr, coco.phases[0].updates, coco.loss_weights["segmentation"]) == (0.02, 90_000, 0.5)
    assert [round(share * 90_000) for share in coco.schedule.milestones] == [60_000, 80_000]
    assert round(coco.schedule.warmup * 90_000) == 1000 and Path("coco").name == coco.tasks["multilabel"].data
