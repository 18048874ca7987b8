"""The cosines of tasks' gradients: the numbers of a loop written out by hand, and not a bit of the run changed by them."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from run_work import final
from shared_by_hand import TASKS, Data

from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.engines.turns import TurnsEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.cluster.workers import ALONE
from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_model
from trunkline.heads.contract import Batch
from trunkline.pipelines.models.build import build
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.runs.run import Metrics, Run
from trunkline.pipelines.training.cosines import compare, comparing
from trunkline.tasks.scores import Block, Examples

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": "1", "machine.loaders": "0", "machine.precision": "fp32", "machine.channels_last": "false",
         "updates": "2", "balance": "gradient_norm", "log.tensorboard": "false",
         "seed": "2"}  # fmt: skip  # of its first update one micro-batch is labelled in half
PAIRS = [("classification", "boxes"), ("classification", "some"), ("boxes", "some")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """One run without cosines on one worker, and the same with them on two."""
    folder = tmp_path_factory.mktemp("cosines")
    begin(folder, 1, {"none": {}})
    begin(folder, 2, {"two": {"log.cosines": "1"}})
    return {name: folder / name for name in ("none", "two")}


def begin(folder: Path, size: int, runs: dict[str, dict[str, str]], zero: int | None = None) -> None:
    """Run them all in one group of workers."""
    places = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(folder / "cache"))
        patch.setenv("PYTHONPATH", places)
        specs = [
            {"recipe": FILE, "given": {**PLAIN, **given}, "run": str(folder / name), "zero": zero}
            for name, given in runs.items()
        ]
        run_local(Job("run_work:several", {"runs": specs}, 120.0), size, folder / f"logs-{size}-{zero}", 2)


def measured(run: Path) -> dict[int, dict[str, float]]:
    """What a run measured of gradients, by update; without the balance's factors."""
    lines = [line for line in Run(run).metrics if line["kind"] == "train"]
    found = {line["update"]: line["measured"] for line in lines}
    return {u: {n: v for n, v in own.items() if not n.startswith("balance/")} for u, own in found.items()}


def changed(one: Path, other: Path) -> list[str]:
    a, b = final(one), final(other)
    assert a.keys() == b.keys()
    return [n for n in a if not torch.equal(a[n], b[n])]


def test_cosines_change_no_bit(runs):
    assert measured(runs["none"]) == {1: {}, 2: {}} and measured(runs["two"]).keys() == {1, 2}
    assert changed(runs["two"], runs["none"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_any_number_of_workers_measures_the_same(size, runs):
    folder = runs["none"].parent
    begin(folder, size, {f"of-{size}": {"log.cosines": "1"}})
    assert changed(folder / f"of-{size}", runs["none"]) == []
    found, two = measured(folder / f"of-{size}"), measured(runs["two"])
    assert [found[update] for update in (1, 2)] == [pytest.approx(two[update], rel=1e-9) for update in (1, 2)]


@pytest.mark.slow
def test_the_stages_that_can_measure_them_too(runs):
    folder = runs["none"].parent
    begin(folder, 2, {"zero": {"log.cosines": "2"}}, zero=1)
    assert changed(folder / "zero", runs["none"]) == []
    found = measured(folder / "zero")
    assert found[1] == {} and found[2] == pytest.approx(measured(runs["two"])[2], rel=1e-9)


def by_hand(recipe) -> dict[str, torch.Tensor]:
    """The mean gradient of each task on the trunk in the first update, with a forward and a backward for each."""
    tasks, model, _ = build(placed(recipe))
    model.train()
    sums = dict.fromkeys(TASKS, torch.zeros((), dtype=torch.float64))
    counts = dict.fromkeys(TASKS, 0)
    for names in (("classification",), ("boxes", "some")):
        own = recipe.batches[names[0]]
        data = Data({n: tasks[n] for n in names}, own.size, own.micro, key(recipe.seed, "phase", 0, names[0]))
        for m, at in enumerate(data.pictures(0)):
            value = key(data.seed, "model", 0, m)
            for name, rows, batch, *images in data.micro_batch(at):
                whole = replace(batch, images=images[0], sizes=torch.tensor([[64, 64]] * len(at))) if images else batch
                seed_model(key(value, "trunk"), "cpu")
                maps = model.backbone(model.normalise(whole))
                seed_model(key(value, name), "cpu")
                if rows is not None:
                    maps = {n: found[rows] for n, found in maps.items()}
                model.zero_grad()
                sum(model.heads[name].losses(maps, batch).values()).backward()
                trunk = [(p, p.grad) for p in model.backbone.body.parameters()]
                gradient = torch.cat([(torch.zeros_like(p) if g is None else g).double().flatten() for p, g in trunk])
                sums[name], counts[name] = sums[name] + gradient * len(batch.ids), counts[name] + len(batch.ids)
    return {name: sums[name] / counts[name] for name in TASKS}


def test_cosines_are_those_of_a_loop_by_hand(runs, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(runs["two"].parent / "cache"))
    torch.set_num_threads(1)
    means = by_hand(resolve(FILE, PLAIN).recipe)
    wanted = {f"gradient/{name}": float(mean.norm()) for name, mean in means.items()}
    for one, other in PAIRS:
        wanted[f"cosine/{one}/{other}"] = float(torch.nn.functional.cosine_similarity(means[one], means[other], dim=0))
    found = measured(runs["two"])[1]
    assert found == pytest.approx(wanted, rel=1e-5)
    assert all(1e-4 < abs(found[f"cosine/{one}/{other}"]) < 0.99 for one, other in PAIRS)


def test_tensorboard_has_the_same_numbers(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [line for line in Run(runs["two"]).metrics if line["kind"] == "train"]
    metrics = Metrics(Run(tmp_path), 0, tensorboard=True)
    for line in lines:
        metrics.add(line)
    metrics.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    names = [*lines[0]["measured"], *lines[0]["losses"]]
    assert {"cosine/boxes/some", "gradient/some", "balance/boxes", "boxes/boxes"} <= {*names}
    for name in names:
        points = {point.step: point.value for point in board.Scalars(f"train/{name}")}
        assert points == pytest.approx({n["update"]: {**n["losses"], **n["measured"]}[name] for n in lines}, rel=1e-6)


def test_the_report_has_every_task_side_by_side(runs):
    run = runs["two"]
    shown = json.loads((run / "shown.json").read_text())
    assert shown["classification"]["learns"] == {
        "train": 40, "val": 20, "batches": 1.0, "size": 8, "micro": 4, "loss_weight": 1.0, "shares": [],
    }  # fmt: skip
    assert shown["some"]["learns"]["shares"] == ["boxes"] and shown["some"]["learns"]["loss_weight"] == 0.7
    examples = Block.from_json(shown[""]["blocks"][0])
    assert isinstance(examples, Examples) and examples.across == 3 and len(examples.pictures) == 12
    assert [picture.caption[0][0][0] for picture in examples.pictures] == [*TASKS] * 4
    assert all((run / picture.file).is_file() for picture in examples.pictures)
    own = [not picture.caption[0][1][0] for picture in examples.pictures]
    assert own[:3] == [True, False, False] and own[3:6] == [False, True, True], "taken from each task in turn"
    text = (run / "report.html").read_text()
    for words in ("Cosine: boxes, some", "Gradient on the trunk, norm", "Loss balance", "Loss: boxes", "1 × 4 images"):
        assert words in text


def test_a_frozen_trunk_is_said_and_turns_are_refused():
    said, trunk = [], torch.nn.Linear(2, 2).requires_grad_(False)
    head = torch.nn.Linear(2, 2)
    model = SimpleNamespace(backbone=trunk, beside={"critic": trunk})
    session: Any = SimpleNamespace(
        recipe=resolve(FILE, {**PLAIN, "log.cosines": "2"}).recipe, model=model, note=said.append
    )
    engine: Any = TorchEngine(
        head,
        lambda model, batch: {},
        Learning(Optimizer("sgd", lr=1.0), Schedule(), Average(0.0), 1, 1),
        Machine(device="cpu", precision="fp32"),
    )
    assert comparing(session, engine)(2, []) == {}
    assert len(said) == 1 and said[0].startswith("log.cosines=2: the trunk is frozen in this phase")
    with pytest.raises(RecipeError, match=r"log.cosines=2: .* critic learns in turns: set it to 0"):
        comparing(session, TurnsEngine({}, {"model": engine}, {}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"log.cosines": "3", "log.every": "2"}, r"log.cosines=3: .* log.every=2 .* give a multiple of 2"),
        ({"log.cosines": "-1"}, r"log.cosines=-1: expected"),
        (
            {"log.cosines": "2", "balance": "fixed", "loss_weights.boxes": "0", "loss_weights.some": "0"},
            r"log.cosines=2: compares the gradients of tasks, and only one learns",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(given, message):
    with pytest.raises(RecipeError, match=message):
        resolve(FILE, {**PLAIN, "shared": "false", **given})


def test_a_missing_gradient_and_one_that_is_0_have_no_cosine():
    """A gradient that is 0 has no direction, and one that overflowed no number: both are left out."""
    weight = torch.nn.Parameter(torch.ones(2))
    rows = {"a": [3.0, 4.0], "b": [0.0, 0.0], "c": [float("inf"), 0.0], "d": None, "e": [4.0, 3.0]}

    class Engine:
        device, workers, scaler = torch.device("cpu"), ALONE, torch.amp.GradScaler("cpu", enabled=False)

        def gradients_of(self, micro_batches, parameters):
            for task, row in rows.items():
                yield Batch(task, []), [None if row is None else torch.tensor(row)]

    engine, model = cast(Any, Engine()), cast(Any, SimpleNamespace(reading=None))
    found = compare(engine, model, [*rows, "absent"], [weight], [])
    assert found == {"gradient/a": 5.0, "gradient/b": 0.0, "gradient/d": 0.0, "gradient/e": 5.0,
                     "cosine/a/e": pytest.approx(24 / 25)}  # fmt: skip
