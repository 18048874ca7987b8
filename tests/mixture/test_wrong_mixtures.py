"""Mixtures that cannot be trained are refused with the reason before a model is built, and leave no folder."""

import re
import shutil
from pathlib import Path

import pytest

from trunkline.ground.errors import Mistake, RecipeError
from trunkline.pipelines.feeding.joint import Joint
from trunkline.pipelines.recipe.demo_data import write
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipe.mixtures import BALANCES, PROJECTED

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "updates": 1}  # fmt: skip
SMOKE = {"smoke": True, "network.backbone": "narrow", "machine.device": "cpu", "machine.threads": 1}
ONE = {"loss_weights.boxes": 0, "loss_weights.some": 0}
APART = {"names": ("classification", "boxes"), "shared": False}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Train by a recipe that is refused: all that is wrong with it. Nothing is built, and no folder is left."""
    from trunkline.pipelines.training import train

    built = []
    monkeypatch.setattr(train, "build", lambda *given: built.append(given))

    def told(recipe: str, given: dict) -> list[str]:
        run = tmp_path / "runs/run"
        with pytest.raises(Mistake) as refusal:
            train.train(resolve(recipe, given), run)
        assert not built and not run.exists(), "told too late"
        return getattr(refusal.value, "problems", [str(refusal.value)])

    return told


ABSENT = r"there is no such task; nearest: some; there are classification, boxes, some"
REFUSED = {
    "no data": ({"tasks.some.data": ""}, r"tasks\.some\.data= is missing: give the folder of its data"),
    "data elsewhere": ({"tasks.some.data": "nowhere"}, r"tasks\.some: .*nowhere: no annotation file"),
    "a weight": ({"loss_weights.sone": 1}, rf"loss_weights\.sone: {ABSENT}"),
    "a ratio": ({"mix.sone": 1}, rf"mix\.sone: {ABSENT}"),
    "a norm": ({"norms.sone": "own"}, rf"norms\.sone: {ABSENT}"),
    "a batch": ({"batches.sone.size": 4}, rf"batches\.sone\.size=4: {ABSENT}"),
    "an option": ({"tasks.sone.size": 4}, rf"tasks\.sone\.size=4: {ABSENT}"),
    "a rate": ({"optimizer.rates.sone": 2}, r"optimizer\.rates\.sone: no parameter has this part .*nearest: some"),
    "a spread's rate": ({"optimizer.rates.log_variance": 2}, r"optimizer\.rates\.log_variance: no parameter has this"),
    "a turn": ({"evaluation.nth.sone": 2}, rf"evaluation\.nth\.sone: {ABSENT}"),
    "patience": ({"evaluation.patience_of.sone": 2}, rf"evaluation\.patience_of\.sone: {ABSENT}"),
    "a single run": ({"evaluation.single.sone": "0.5"}, rf"evaluation\.single\.sone: {ABSENT}"),
    "a still head": ({"phases.0.still": "sone"}, r"phases\.0\.still=sone: expected a task, or pyramid .*nearest: some"),
    "a sharer": ({"shared_batch": "boxes,sone"}, rf"shared_batch=boxes,sone: sone: {ABSENT}"),
    "a metric": ({"evaluation.metric": "sone/AP"}, r"evaluation\.metric=sone/AP: no task has such metric"),
    "a change of nothing": (
        {"evaluation.metric": "all/mean_change"},
        r"evaluation\.metric=all/mean_change: needs evaluation\.single\.NAME=RUN, .*; without it there are classification/",
    ),
    "no pyramid": ({"network.pyramid": "none"}, r"tasks\.some: head=one_stage needs a pyramid around the trunk: set"),
    "no weight": ({"loss_weights.classification": 0, **ONE}, r"loss_weights: every task has the weight 0"),
    "a stride": (
        {"tasks.some.output_stride": 16},
        r"tasks\.some\.output_stride=16: one trunk serves all tasks, and has one output_stride, network\.output_stride",
    ),
    "shared sizes": (
        {"tasks.some.size": 32},
        r"shared_batch=boxes\+some: tasks\.boxes\.size=64 and tasks\.some\.size=32 differ; a shared batch has one picture",
    ),
    "shared flips": ({"tasks.some.flip": 0}, r"tasks\.boxes\.flip=0\.5 and tasks\.some\.flip=0\.0 differ"),
    "shared depths": ({"tasks.some.depth": "0:4095"}, r"tasks\.boxes\.depth=none and tasks\.some\.depth=0:4095 differ"),
    "shared turns": ({"tasks.some.exif": "ignore"}, r"tasks\.boxes\.exif=stop and tasks\.some\.exif=ignore differ"),
    "a sharer twice": ({"shared_batch": "boxes,boxes"}, r"shared_batch=boxes,boxes: boxes stands there twice"),
    "one sharer": ({"shared_batch": "boxes"}, r"shared_batch=boxes: boxes stands alone; name the tasks that share"),
    "shared batches": ({"batches.some.size": 6}, r"batches\.boxes=4 .* batches\.some=6 .* have one size and one mix"),
    "shared ratios": ({"mix.some": 2}, r"mix\.boxes=1, mix\.some=2: tasks that share a batch have one size and one mix"),
    "own norms": ({"norms.some": "own"}, r"norms\.some=own makes a group of its own"),
    "two norms": ({"norms.some": "frozen"}, r"one pass of the trunk cannot both move its statistics and leave them"),
    **{name: ({"balance": name}, r"costs a backward a task, .*2505\.10347.*; expected fixed, ") for name in PROJECTED},
    "in capitals": ({"balance": "PCGrad"}, r"balance=PCGrad: projecting the tasks' gradients"),
    "no balance": ({"balance": "fam"}, r"balance=fam: expected one of fixed, .*; nearest: famo"),
    "FAMO, some labels": ({"balance": "famo"}, r"balance=famo: follows every loss .* some labels some pictures of the shared"),
    "FAMO, seldom": ({"balance": "famo", "mix.classification": 0.5}, r"and mix\.classification=0\.5 leaves some out"),
    "FAMO, in turns": ({"balance": "famo", "mixing": "round_robin"}, r"mixing=round_robin leaves tasks out of some"),
    "FAMO, by size": ({"balance": "famo", "mixing": "proportional"}, r"mixing=proportional leaves tasks out of some"),
    "FAMO, ending": (
        {"balance": "famo", "evaluation.patience_of.classification": 2},
        r"evaluation\.patience_of\.classification: balance=famo follows every loss",
    ),
    **{f"{name} of one": ({"balance": name, **ONE}, rf"balance={name}: balances tasks, and only one learns; leave it out")
       for name in BALANCES[1:]},
    "a lone task": ({"balance": "uncertainty", "names": "boxes", "shared": False}, r"balances tasks, and only one learns"),
    "half floats": ({"balance": "gradient_norm", "machine.precision": "fp16"}, r"fp16 scales gradients by steps of its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_mixture_is_refused_before_anything_is_built(case, refused):
    given, said = REFUSED[case]
    found = refused(FILE, {**PLAIN, **given})
    assert any(re.search(said, line) for line in found), found


def test_all_that_is_wrong_is_told_at_once(refused):
    ratios = {"mix.classification": 0, "mix.boxes": 0, "mix.some": 0}
    found = refused(FILE, {**PLAIN, **ratios, "norms.sone": "own", "balance": "mgda", "tasks.boxes.data": ""})
    assert [line.partition("=")[0].partition(":")[0] for line in found] == [
        "tasks.boxes.data", *ratios, "norms.sone", "balance",
    ]  # fmt: skip
    given = {"optimizer.rates.sone": 2, "tasks.some.flip": 0, "evaluation.metric": "AP"}
    found = refused(FILE, {**PLAIN, **given})
    assert [line.partition(":")[0] for line in found] == [
        "evaluation.metric=AP", "optimizer.rates.sone", "shared_batch=boxes+some",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": "a:multilabel,a:multilabel"}, r"tasks=a:multilabel: the name a stands there twice"),
        (
            {
                "tasks": "detection,segmentation",
                "tasks.segmentation.view": "crop",
                "tasks.segmentation.longest": "none",
            },
            r"shared_batch=detection\+segmentation: segmentation sees crops of its own: set tasks\.segmentation\.view=fit",
        ),
        (
            {"tasks": "multilabel,classification", "batches.classification.size": 2},
            r"shared_batch=multilabel\+classification: classification makes its pictures in a way that no other task has",
        ),
        (
            {"tasks": "detection,segmentation", "network.pyramid": "none", "network.wrapper": "slim_conv"},
            r"tasks\.segmentation: .* this trunk has c1, c2, c3, c4, c5, p3, p4, p5, p6, p7: set network\.pyramid=pool",
        ),
        (
            {"tasks": "detection,segmentation", "tasks.segmentation.padding": 32},
            r"tasks\.detection\.padding=64 and tasks\.segmentation\.padding=32 differ",
        ),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(given, said, refused):
    shared = ",".join(word.rpartition(":")[2] for word in given["tasks"].split(","))
    found = refused("joint", {**SMOKE, "shared_batch": shared, **given})
    assert any(re.search(said, line) for line in found), found


def test_tasks_of_other_data_share_no_batch(refused, tmp_path):
    shutil.copytree(write("demo:boxes:smoke", tmp_path / "one"), tmp_path / "other")
    own = {"tasks.boxes.data": str(tmp_path / "one"), "tasks.some.data": str(tmp_path / "other")}
    (line,) = refused(FILE, {**PLAIN, **own})
    assert line.startswith("shared_batch=boxes+some: some has no picture in common with boxes: give them the same data")


def test_a_task_that_has_losses_of_its_own_shares_no_batch(refused, monkeypatch):
    """A shared batch goes through one function, which is the model's."""
    from trunkline.pipelines.models import assembly

    class Own(assembly.task_class("multilabel")):
        def players(self, model, playing):
            return super().players(model, playing)

    known = assembly.task_class
    monkeypatch.setattr(assembly, "task_class", lambda name: Own if name == "multilabel" else known(name))
    given = {"tasks": "detection,multilabel", "shared_batch": "detection,multilabel"}
    (line,) = refused("joint", {**SMOKE, **given})
    assert line.startswith("shared_batch=detection+multilabel: multilabel computes its losses by players of its own")


def test_a_picture_that_stands_there_twice_is_named():
    class Files:
        def __init__(self, *names: str):
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def source(self, index: int) -> str:
            return self.names[index]

    with pytest.raises(RecipeError, match=r"b\.jpg: stands there twice, and in a shared batch a picture is one sample"):
        Joint.of([Files("a.jpg", "b.jpg"), Files("b.jpg", "c.jpg", "b.jpg")])  # pyright: ignore


def test_a_rate_may_be_of_any_part_of_the_whole(refused):
    """What `uncertainty` learns besides is such a part; a wrong key beside it is still told."""
    rates = {f"optimizer.rates.{part}": 0.5 for part in ("backbone", "heads", "some", "layer4", "log_variance")}
    (line,) = refused(FILE, {**PLAIN, **rates, "balance": "uncertainty", "optimizer.rates.layer9": 1})
    assert line.startswith("optimizer.rates.layer9: no parameter has this part in its name; nearest: layer")


@pytest.mark.parametrize("stage", [2, 3])
def test_stages_that_would_move_a_head_refuse_the_mixture(stage, tmp_path):
    import trunkline

    with pytest.raises(
        RecipeError, match=rf"zero={stage}: a mixture of tasks needs zero=0 or zero=1; stages 2 and 3 move"
    ):
        trunkline.train(FILE, tmp_path / "run", workers=2, zero=stage, **PLAIN, **APART)
    assert not (tmp_path / "run").exists()
