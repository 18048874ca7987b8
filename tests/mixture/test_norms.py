"""Running statistics by task: what a task's passes read and move, what is published, and what is refused."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from trunkline.backbones import backbone
from trunkline.backbones.norm import PerTask, of_task, per_task
from trunkline.backbones.video.frames import Frames, ShiftedFrames
from trunkline.cluster.checkpoint import read_tensors
from trunkline.cluster.engines.turns import still
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.pipelines.evaluation.together import in_passes
from trunkline.pipelines.models.build import build
from trunkline.pipelines.models.bundle import write_bundle
from trunkline.pipelines.models.ready import Source, ready
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.checks import preflight

TESTS = Path(__file__).parents[1]
SHARED = str(TESTS / "shared_tasks.py")
KINDS = {"one": "own", "held": "frozen", "rest": "shared"}


def taken(norms: list[PerTask], task: str) -> None:
    for norm in norms:
        norm.take(task)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet18", (4, 3, 64, 64)), ("timm:efficientnet_b0", (4, 3, 64, 64)), ("r3d_18", (2, 3, 4, 32, 32))],
)
def test_each_kind_of_pass_is_a_plain_trunks(name, shape):
    """With its own statistics a task has what a trunk of its own would have; frozen and shared passes are the trunk's."""
    torch.manual_seed(0)
    trunk, own = (backbone(name, norm="batch") for _ in range(2))
    own.load_state_dict(trunk.state_dict())
    plain = copy.deepcopy(own)
    per_task(trunk, KINDS)
    assert of_task(trunk, trunk.state_dict(), "rest").keys() == plain.state_dict().keys()
    norms = [m for m in trunk.modules() if isinstance(m, PerTask)]
    assert len(norms) == sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in plain.modules())
    x, y = torch.randn(2, *shape)

    def same(task: str, other: nn.Module, images: torch.Tensor) -> bool:
        taken(norms, task)
        found, expected = trunk(images), other(images)
        return all(torch.equal(found[n], expected[n]) for n in expected)

    def held(task: str, other: nn.Module) -> bool:
        found, expected = of_task(trunk, trunk.state_dict(), task), other.state_dict()
        return all(torch.equal(found[n], expected[n]) for n in expected)

    for module in (trunk, own, plain):
        module.train()
    assert same("one", own, x) and held("one", own) and held("rest", plain)
    assert same("rest", plain, y) and held("one", own) and held("rest", plain)
    assert same("held", plain.eval(), x) and held("one", own) and held("rest", plain)
    for module in (trunk, own):
        module.eval()
    twin = copy.deepcopy(trunk)
    assert same("one", own, y) and same("held", plain, y) and same("rest", plain, y)
    taken([m for m in twin.modules() if isinstance(m, PerTask)], "one")
    assert torch.equal(twin(y)["c5"], own(y)["c5"])


def test_a_frozen_stage_stays_so_whosever_pass_it_is():
    trunk = backbone("resnet18", frozen=2)
    per_task(trunk, KINDS)
    norms = {n: m for n, m in trunk.named_modules() if isinstance(m, PerTask)}
    before = {n: t.clone() for n, t in trunk.state_dict().items()}
    trunk.train()
    for task in (*KINDS, "stranger"):
        taken([*norms.values()], task)
        trunk(torch.randn(2, 3, 64, 64))
    moved = {n for n, t in trunk.state_dict().items() if not torch.equal(t, before[n])}
    assert not [n for n in moved if n.startswith(("bn1", "layer1"))]
    assert {f"layer2.0.bn1.{part}running_mean" for part in ("", "statistics.one.")} <= moved


def test_maps_that_are_computed_again_move_statistics_once():
    plain, again = backbone("resnet18"), backbone("resnet18", checkpointing=True)
    again.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for trunk in (plain, again):
        per_task(trunk, KINDS)
        taken([m for m in trunk.train().modules() if isinstance(m, PerTask)], "one")
        trunk(x)["c5"].sum().backward()
    found = again.state_dict()
    assert [n for n, t in plain.state_dict().items() if not torch.equal(t, found[n])] == []
    assert found["layer1.0.bn1.statistics.one.num_batches_tracked"] == 1


def test_in_another_players_turn_no_statistics_move_and_frozen_passes_still_read_them():
    trunk = backbone("resnet18").train()
    per_task(trunk, KINDS)
    norms = [m for m in trunk.modules() if isinstance(m, PerTask)]
    x, before = torch.randn(2, 3, 64, 64), {n: t.clone() for n, t in trunk.state_dict().items()}
    expected = {}
    for task in ("held", "one", "rest"):
        taken(norms, task)
        expected[task] = trunk(x)["c5"]
    trunk.load_state_dict(before)
    with still([trunk]):
        for task, maps in expected.items():
            taken(norms, task)
            assert torch.equal(trunk(x)["c5"], maps)
    assert [n for n, t in trunk.state_dict().items() if not torch.equal(t, before[n])] == []


@pytest.mark.parametrize("wrapper", [Frames, ShiftedFrames])
def test_a_wrapped_trunk_is_told_whose_pass_it_is(wrapper):
    body = backbone("resnet18").train()
    per_task(body, KINDS)
    model = Model(wrapper(body), {}, body.preprocessing).train()
    model.maps(Batch("one", ["a"], torch.zeros(1, 3, 2, 64, 64, dtype=torch.uint8)))
    moved = {n for n, b in body.named_buffers() if n.endswith("tracked") and b == 1}
    assert moved and all(".statistics.one." in n for n in moved)


def test_without_a_task_that_asks_a_trunk_is_plain():
    trunk = backbone("resnet18")
    per_task(trunk, {"one": "shared", "rest": "shared"})
    assert type(trunk.bn1) is nn.BatchNorm2d and Model(trunk, {}, trunk.preprocessing).norms == []


def test_a_trunk_without_such_norms_is_refused():
    with pytest.raises(WeightsError, match=r"norms.one=own, norms.held=frozen: timm:convnext_atto has no batch norm"):
        per_task(backbone("timm:convnext_atto"), KINDS)

    class Odd(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input) * 2

    with pytest.raises(WeightsError, match=r"compute in a way of their own \(Odd\).*set frozen or shared"):
        per_task(nn.Sequential(Odd(3)), {"one": "own"})
    per_task(nn.Sequential(Odd(3)), {"one": "frozen"})


def test_a_run_begun_from_anothers_weights_goes_on_with_each_tasks_statistics(run):
    given = {"norms.detection": "own", "norms.classification": "own", "weights": str(run / "weights.safetensors")}
    given = {("network." if key == "weights" else "") + key: value for key, value in given.items()}
    _, model, _ = build(placed(resolve(str(TESTS / "two_tasks.py"), given).recipe))
    found, saved = model.state_dict(), read_tensors(run / "checkpoints/000003/ema.safetensors")
    name = "backbone.body.layer2.0.bn1.{}running_mean"
    shared, own = saved[name.format("")], saved[name.format("statistics.detection.")]
    assert torch.equal(found[name.format("statistics.detection.")], own) and not torch.equal(own, shared)
    assert torch.equal(found[name.format("statistics.classification.")], shared)
    assert torch.equal(found[name.format("")], shared)


def test_a_new_task_begins_with_statistics_that_were_moved(tmp_path):
    """Where all tasks of the other run have their own, no pass ever moved the shared ones."""
    own = {"shared": False, "norms.boxes": "own"}
    recipe = placed(resolve(SHARED, {**own, "names": ("boxes", "some"), "norms.some": "own"}).recipe)
    _, model, facts = build(recipe)
    tensors, name = model.state_dict(), "backbone.body.layer2.0.bn1.{}running_mean"
    tensors[name.format("statistics.boxes.")].fill_(0.5)
    file = tmp_path / "weights.safetensors"
    write_bundle(file, "x", recipe, facts, tensors, 1)
    given = {**own, "names": ("classification", "boxes"), "norms.classification": "own", "network.weights": str(file)}
    _, model, _ = build(placed(resolve(SHARED, given).recipe))
    found = model.state_dict()
    assert all(bool((found[name.format(f"statistics.{t}.")] == 0.5).all()) for t in ("classification", "boxes"))


class Deepest(nn.Module):
    needs = ("c5",)

    def predict(self, features, batch):
        return features["c5"]


def test_tasks_of_other_statistics_do_not_share_a_pass_in_evaluation():
    trunk = backbone("resnet18")
    per_task(trunk, KINDS)
    model = Model(trunk, {name: Deepest() for name in KINDS}, trunk.preprocessing).train()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    model.maps(Batch("one", [], images))
    model.maps(Batch("rest", [], images[:2]))
    model.eval()
    passes = []
    trunk.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    rows = torch.tensor([0, 2])
    parts = (Batch("one", ["a"], rows=rows), Batch("held", ["a"]), Batch("rest", ["a"], rows=rows))
    whole = Batch("", ["a"], images, parts=parts)
    with torch.inference_mode():
        found = in_passes(model, Batch("", [], parts=(whole,)), lambda _, own: model.maps(own)["c5"])
        assert passes == [3, 2]
        alone = {p.task: model.maps(replace(p, images=images))["c5"] for p in parts}
    assert torch.equal(found["held"], alone["held"]) and torch.equal(found["rest"], alone["rest"][rows])
    assert torch.allclose(found["one"], alone["one"][rows], atol=1e-5)
    assert not torch.allclose(found["one"], found["rest"], atol=1e-2)
    passes.clear()
    with torch.inference_mode():
        every = model(images)
    assert passes == [3, 3] and all(torch.equal(every[task], alone[task]) for task in KINDS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Three updates, of which the second alone has boxes; boxes have statistics of their own, classes read the shared ones."""
    folder = tmp_path_factory.mktemp("norms")
    given = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": "false", "updates": 3,
             "checkpoints.updates": 1, "checkpoints.keep": 9, "norms.detection": "own"}  # fmt: skip
    spec = {
        "recipe": str(TESTS / "two_tasks.py"),
        "given": {k: str(v) for k, v in given.items()},
        "run": str(folder / "run"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(folder / "cache"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
        run_local(Job("run_work:several", {"runs": [spec]}, 120.0), 1, folder / "logs", 1)
        yield folder / "run"


def test_a_task_without_a_micro_batch_leaves_its_statistics(run):
    at = [read_tensors(run / f"checkpoints/{u:06d}/model.safetensors") for u in (1, 2, 3)]
    own = [n for n in at[0] if ".statistics.detection." in n]
    shared = [n.replace(".statistics.detection", "") for n in own]
    assert own and not any(".statistics.classification." in n for n in at[0])
    first, second, third = (
        [torch.equal(a[n], b[n]) for n in own] for a, b in ((at[0], at[1]), (at[1], at[2]), (at[0], at[2]))
    )
    assert not any(first) and all(second) and not any(third), "of these updates the second has boxes"
    assert not any(torch.equal(at[1][n], at[2][n]) for n in shared), "and each has classes"


def test_a_published_file_has_the_tasks_own_statistics_under_plain_names(run):
    """It is what `predict` and `evaluate` take of the run."""
    tensors = read_tensors(run / "checkpoints/000003/ema.safetensors")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    maps = {}
    for task in ("classification", "detection"):
        file = run / f"weights/{task}.safetensors"
        published = load_file(file)
        assert not [n for n in published if "statistics" in n]
        (mean,) = [t for n, t in published.items() if n.endswith("layer2.0.bn1.running_mean")]
        place = "statistics.detection." if task == "detection" else ""
        assert torch.equal(mean, tensors[f"backbone.body.layer2.0.bn1.{place}running_mean"])
        sources = [Source(str(run), task, device="cpu"), Source(str(file), device="cpu"),
                   Source(str(run / "weights.safetensors"), task, device="cpu")]  # fmt: skip
        with torch.inference_mode():
            maps[task], *others = (ready(s).model.maps(Batch(task, ["a", "b"], images))["c5"] for s in sources)
        assert all(torch.equal(maps[task], other) for other in others)
    assert not torch.allclose(maps["classification"], maps["detection"], atol=1e-3)


REFUSED = [
    ({"norms.objects": "own"}, r"norms.objects: there is no such task"),
    ({"norms.boxes": "mine"}, r"norms.boxes=mine: expected one of shared, frozen, own"),
    ({"norms.boxes": "own"}, r"norms.boxes=own makes a group of its own.*take it out of shared_batch"),
    ({"norms.boxes": "frozen"}, r"norms.boxes=frozen, norms.some=shared: one pass of the trunk cannot both move"),
    (
        {"norms.boxes": "own", "network.norm": "group", "shared": False},
        r"network.norm=group has no running statistics; set network.norm",
    ),
    ({"norms.boxes": "frozen", "network.norm": "frozen", "shared": False}, r"network.norm=frozen fixes the statistics"),
    ({"norms.boxes": "own", "network.norm": "sync", "shared": False}, r"network.norm=sync computes statistics over"),
    (
        {"network.norm": "sync"},
        r"network.norm=sync: workers may have other tasks at the same time.*set batch, frozen or group",
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_go_together_is_one_clear_line(given, message):
    with pytest.raises(RecipeError, match=message):
        resolve(str(TESTS / "shared_tasks.py"), given)


def test_a_network_without_batch_norm_is_refused_before_anything_is_built(run):
    given = {"norms.boxes": "own", "shared": False, "network.backbone": "timm:convnext_atto", "machine.device": "cpu"}
    with pytest.raises(RecipeError, match=r"norms.boxes=own: timm:convnext_atto has no batch norm.*another backbone="):
        preflight(placed(resolve(str(TESTS / "shared_tasks.py"), given).recipe))


def test_every_tasks_norms_are_seen():
    recipe = resolve(str(TESTS / "shared_tasks.py"), {"norms.classification": "frozen"}).recipe
    assert recipe.norms == {"classification": "frozen", "boxes": "shared", "some": "shared"}
