"""A generator and a critic in turns: our engines against a plain loop, bit for bit; runs killed in any turn."""

import importlib
import json
import os
import shutil
import signal
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_work import assert_equal, at_call, die, final, in_child
from safetensors.torch import load_file
from turns_work import CROP, TASK, Row, engine_of, micro_batches, model_of, pixel, plain, run, settings_of

import trunkline
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.engines.turns import still
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.cluster.workers import Workers
from trunkline.ground.errors import EngineError, RecipeError
from trunkline.heads.super_resolution.players import ALWAYS_RIGHT, RIGHT, WatchCritic, players_of
from trunkline.pipelines.recipe.knobs import resolve

HERE = Path(__file__).parent
FILE = str(HERE / "turns_file.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": False,
         "checkpoints.updates": 2}  # fmt: skip
FORMS = [(norm, reuse) for norm in ("batch", "spectral") for reuse in (False, True)]


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    yield
    torch.use_deterministic_algorithms(False)


def test_modules_that_are_still_keep_their_buffers_whatever_kind_they_are():
    torch.manual_seed(0)
    norms = [torch.nn.BatchNorm2d(4), torch.nn.SyncBatchNorm(4), torch.nn.BatchNorm2d(4).eval()]
    module = torch.nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 4, 3)), *norms)
    images = torch.rand(2, 3, 8, 8)
    before, expected = {n: v.clone() for n, v in module.state_dict().items()}, deepcopy(module)(images)
    with still([module]):
        assert torch.equal(module(images), expected) and torch.equal(module(images), expected)
        assert not any(p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(images)
    assert not torch.equal(module[1].running_mean, before["1.running_mean"])


# Against the plain loop


def differing(row: Row, folder: Path) -> list[str]:
    """What of the weights, averages and optimizers of both players is not, bit for bit, the plain loop's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    want, optimizers = plain(replace(row, zero=None))
    torch.set_num_threads(threads)
    found = []
    for part, tensors in want.items():
        got = load_file(folder / f"{part}.safetensors")
        assert got.keys() == tensors.keys()
        found += [f"{part}:{n}" for n in got if not torch.equal(got[n], tensors[n])]
    model = model_of(row)
    for place, module, optimizer in zip(("", "critic/"), (model, model.beside["critic"]), optimizers, strict=True):
        got = load_file(folder / f"{place}optimizer.safetensors")
        names = [n for n, _ in module.named_parameters()]
        states = zip(names, optimizer.state_dict()["state"].values(), strict=True)
        own = {f"{name}|{entry}": value for name, state in states for entry, value in state.items() if entry != "step"}
        assert len(own) == 2 * len(names) and own.keys() <= got.keys()
        found += [f"{place}{n}" for n in own if not torch.equal(own[n], got[n])]
    return found


@pytest.mark.parametrize("row", [
    *(Row(norm=norm, reuse=reuse) for norm, reuse in FORMS), Row(kind="relativistic", norm="spectral", clip=0.01),
    Row(kind="least_squares", reuse=True), Row(kind="relativistic", precision="bf16"), Row(precision="fp16"),
], ids=lambda row: row.named(1))  # fmt: skip
def test_one_worker_ends_with_the_bits_of_a_plain_loop(row, tmp_path):
    run(row, Workers(), tmp_path)
    assert differing(row, tmp_path) == []


def grouped(rows: list[Row], workers: int, root: Path) -> dict[str, list[str]]:
    """What differs from the plain loop, of rows that a group of workers computes."""
    specs = [{"row": asdict(row), "folder": str(root / row.named(workers))} for row in rows]
    assert run_local(Job("turns_work:table", {"rows": specs}, 120.0), workers, root / "logs", 2) == len(rows)
    return {row.named(workers): bad for row in rows if (bad := differing(row, root / row.named(workers)))}


def test_two_workers_and_zero_end_with_the_bits_of_a_plain_loop(tmp_path):
    pytest.importorskip("deepspeed")
    rows = [Row(None, "spectral", kind="relativistic"), Row(0, "batch", True), Row(1, "spectral", clip=0.01)]
    assert grouped(rows, 2, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_whole_table(workers, tmp_path):
    """Both norms, both orders and all losses, in one process, two and three, and at ZeRO 0 and 1."""
    pytest.importorskip("deepspeed")
    zeros = [None, 0, 1] if workers != 3 else [None, 0]  # stage 1 is for powers of two
    rows = [Row(zero, norm, reuse) for zero in zeros for norm, reuse in FORMS]
    rows += [Row(zero, norm, kind=kind, clip=0.01) for zero in zeros for norm, kind in
             (("spectral", "relativistic"), ("batch", "least_squares"))]  # fmt: skip
    rows += [Row(None, precision="fp16"), Row(0, precision="bf16", reuse=True)]
    assert grouped(rows, workers, tmp_path) == {}


@pytest.mark.slow
def test_the_number_of_workers_is_no_part_of_four_micro_batches(tmp_path):
    rows = [Row(None, norm, reuse, micro=4, warmup=1) for norm, reuse in FORMS]
    for row in rows:
        run(row, Workers(), tmp_path / row.named(1))
    for workers in (2, 3):
        specs = [{"row": asdict(row), "folder": str(tmp_path / row.named(workers))} for row in rows]
        run_local(Job("turns_work:table", {"rows": specs}, 120.0), workers, tmp_path / "logs", 2)
        for row in rows:
            assert same(tmp_path / row.named(1), tmp_path / row.named(workers)) == []


def same(one: Path, other: Path) -> list[str]:
    files = [f.relative_to(one) for f in sorted(one.rglob("*.safetensors"))]
    assert len(files) == 5, "model, average and optimizer of the generator, model and optimizer of the critic"
    pairs = [(file, load_file(one / file), load_file(other / file)) for file in files]
    return [f"{file}:{n}" for file, a, b in pairs for n in a if not torch.equal(a[n], b[n])]


@pytest.mark.slow
def test_a_checkpoint_of_any_engine_goes_on_in_any_other(tmp_path):
    pytest.importorskip("deepspeed")
    rows = {zero: Row(zero, "spectral", True, warmup=1) for zero in (None, 0, 1)}
    run(rows[None], Workers(), tmp_path / "whole")
    specs = [{"row": asdict(row), "folder": str(tmp_path / f"half-{zero}"), "last": 1} for zero, row in rows.items()]
    pairs = [(a, b) for a in rows for b in rows]
    specs += [{"row": asdict(rows[b]), "folder": str(tmp_path / f"end-{a}-{b}"), "first": 1,
               "begin": str(tmp_path / f"half-{a}")} for a, b in pairs]  # fmt: skip
    run_local(Job("turns_work:table", {"rows": specs}, 120.0), 2, tmp_path / "logs", 2)
    assert {
        pair: bad for pair in pairs if (bad := same(tmp_path / "whole", tmp_path / "end-{}-{}".format(*pair)))
    } == {}


# What an update is


def test_the_average_holds_the_generators_statistics(tmp_path):
    """They move with the weights'; an average of parameters alone would keep the first ones."""
    run(Row(), Workers(), tmp_path)
    first, average, last = (
        model_of(Row()).state_dict(), load_file(tmp_path / "ema.safetensors"), load_file(tmp_path / "model.safetensors")
    )  # fmt: skip
    name = "backbone.norm.running_var"
    assert not torch.equal(average[name], first[name]) and not torch.equal(average[name], last[name])
    assert torch.equal(average["backbone.norm.num_batches_tracked"], last["backbone.norm.num_batches_tracked"])


def test_each_order_has_pictures_of_its_own(tmp_path):
    """New ones differ from those made before the generator's step; what is kept is gone after the update."""
    critics = {}
    for reuse in (False, True):
        run(Row(reuse=reuse), Workers(), tmp_path / str(reuse))
        critics[reuse] = load_file(tmp_path / str(reuse) / "critic/model.safetensors")["dense2.weight"]
    assert not torch.equal(critics[False], critics[True])
    engine = engine_of(Row(reuse=True), Workers())
    engine.update(micro_batches(0))
    assert engine.players["critic"].losses.__self__._kept == {}


def test_the_critic_learns_alone_while_it_warms_up(tmp_path):
    row = Row(warmup=2)
    engine = engine_of(row, Workers())
    begin = {n: t.clone() for n, t in engine.weights().items()}
    critic = engine.players["critic"].module
    before = {n: t.clone() for n, t in critic.state_dict().items()}
    for update in range(2):
        report = engine.update(micro_batches(update))
        assert report.waited and not report.losses and report.others["critic"].numbers()["critic/real"] > 0
        assert engine.updates == update + 1
    assert all(torch.equal(begin[n], t) for n, t in engine.weights().items())
    assert all(torch.equal(begin[n], t) for n, t in engine.weights(averaged=True).items())
    assert not torch.equal(before["dense2.weight"], critic.state_dict()["dense2.weight"])
    report = engine.update(micro_batches(2))
    assert not report.waited and not torch.equal(
        begin["backbone.first.weight"], engine.weights()["backbone.first.weight"]
    )


def test_what_is_reported_are_means_and_true_norms():
    """Against the losses of each micro-batch, computed by the formulas."""
    row = Row(kind="least_squares")
    report = engine_of(row, Workers()).update(micro_batches(0))
    told, judged = report.numbers(), report.others["critic"].numbers()
    assert set(told) == {f"{TASK}/{n}" for n in ("l1", "adversarial", "range", "range_of_truth")} | {
        "grad_norm",
        "total",
        "own",
    }
    assert set(judged) == {f"critic/{n}" for n in ("real", "fake", "accuracy_real", "accuracy_fake")} | {
        "grad_norm", "total", "own"}  # fmt: skip
    assert told["total"] == pytest.approx(told[f"{TASK}/l1"] + told[f"{TASK}/adversarial"], rel=1e-6)
    assert judged["total"] == pytest.approx(judged["critic/real"] + judged["critic/fake"], rel=1e-6)
    model, batches = model_of(row), micro_batches(0)
    model.train(), model.beside["critic"].train()
    losses = players_of(model, TASK, settings_of(row), pixel)["generator"].losses
    means = []
    for batch in batches:
        each = losses(model, batch)
        (each[f"{TASK}/l1"] + each[f"{TASK}/adversarial"]).backward()
        means.append(float(each[f"measured/{TASK}/range"]))
    norm = sum(float((p.grad.double() / 2).square().sum()) for p in model.parameters()) ** 0.5
    assert told["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert told[f"{TASK}/range"] == pytest.approx(sum(means) / 2, rel=1e-6)


def test_an_update_reads_nothing_back(monkeypatch):
    """Of the losses, accuracies, ranges and norms, with all that the contract has; reports are read later."""
    monkeypatch.syspath_prepend(str(HERE.parent / "cluster"))
    counting = importlib.import_module("counting")
    for row in (Row(kind="relativistic", reuse=True), Row(norm="spectral")):
        engine = engine_of(row, Workers())
        engine.update(micro_batches(0, 1))
        with counting.Reads() as reads:
            engine.update(micro_batches(1, 1))
        aside = ("Report.numbers", "TorchEngine._step")  # Adam counts its steps on the CPU
        assert [place for place in reads.found if not place.endswith(aside)] == []


@pytest.mark.parametrize(("micro", "most"), [(1, 15), (4, 60)])
def test_an_update_adds_as_few_operations_for_each_player_as_for_one(micro, most, monkeypatch):
    """The bounds of `test_operations`, with the norms and what is measured; an average may add three."""
    monkeypatch.syspath_prepend(str(HERE.parent / "cluster"))
    counting = importlib.import_module("counting")
    engine = engine_of(Row(), Workers())
    engine.update(micro_batches(0, micro))
    added = {name: +counting.of_an_update(own, micro_batches(1, micro)) for name, own in engine.engines.items()}
    assert added["critic"].total() <= most and added["generator"].total() <= most + 3, added


def test_fp16_skips_the_turn_of_one_player_alone():
    """Each has a loss scale of its own; where one's gradients overflow, the other still learns."""
    engine = engine_of(Row(precision="fp16"), Workers())
    engine.engines["generator"].scaler.load_state_dict(
        {**engine.engines["generator"].scaler.state_dict(), "scale": 2.0**30}
    )
    before = {n: t.clone() for n, t in engine.weights().items()}
    critic = engine.players["critic"].module.dense2.weight.detach().clone()
    report = engine.update(micro_batches(0))
    assert report.skipped and not report.others["critic"].skipped
    assert all(torch.equal(before[n], t) for n, t in engine.weights().items())
    assert not torch.equal(critic, engine.players["critic"].module.dense2.weight)


def test_losses_of_pictures_of_another_size_are_refused():
    batch = micro_batches(0)[0]
    batch.targets["hr"] = batch.targets["hr"][..., : CROP - 2]
    with pytest.raises(EngineError, match=r"made pictures of \(4, 3, 16, 16\), and the true ones are \(4, 3, 16, 14\)"):
        engine_of(Row(), Workers()).update([batch])


def test_outputs_that_are_not_finite_stop_the_update():
    model = model_of(Row())
    engine = engine_of(Row(), Workers(), model)
    with torch.no_grad():
        model.heads[TASK].last.bias.fill_(float("inf"))
    with pytest.raises(
        EngineError, match=r"update 0 is not finite \(upscaling/l1 = inf.*range = nan.*lower optimizer.lr"
    ):
        engine.update(micro_batches(0))


def test_a_critic_that_is_always_right_is_remarked():
    watch = WatchCritic()
    right, wrong = ({f"critic/accuracy_{k}": share for k in ("real", "fake")} for share in (1.0, 0.75))
    told = [watch(u, wrong if u == 100 else right) for u in range(100 + 2 * RIGHT)]
    assert [u for u, lines in enumerate(told) if lines] == [100 + RIGHT] and told[100 + RIGHT] == [ALWAYS_RIGHT]


# Whole runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(4)
    for split, count in (("train", 8), ("val", 2)):
        (root / split).mkdir()
        for i in range(count):
            ramp = np.linspace(draw.uniform(0, 255, 3), draw.uniform(0, 255, 3), CROP)
            pixels = np.broadcast_to(ramp, (CROP, CROP, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i}.png")
    return root


def resolved(data: Path, **more):
    return resolve(FILE, {"data": str(data), **PLAIN, **more})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert in_child(resolved(data), run) == 0
    return run


KILLS = {"pixels, the generator's turn": 3, "adversarial, the generator's turn": 8, "adversarial, the critic's turn": 9}


@pytest.mark.parametrize("when", KILLS)
def test_killed_in_any_turn_and_resumed_is_undisturbed(when, data, whole, tmp_path):
    """Steps 1 to 3 are the generator's; then it and the critic step by turns."""
    run = tmp_path / "run"
    assert in_child(resolved(data), run, lambda: at_call(TorchEngine, "_step", KILLS[when], die)) == -signal.SIGKILL
    assert in_child(resolved(data), run) == 0
    assert_equal(run, whole)
    assert lines_of(run) == lines_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("step", range(1, 10))
def test_killed_at_any_step_and_resumed_is_undisturbed(step, reuse, data, tmp_path):
    """With a warm-up of an update, in both orders, with spectral norm."""
    given = {"tasks.doubling.adversarial.reuse": reuse, "tasks.doubling.adversarial.warmup": 1,
             "tasks.doubling.adversarial.norm": "spectral", "checkpoints.updates": 1}  # fmt: skip
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert in_child(resolved(data, **given), undisturbed) == 0
    assert in_child(resolved(data, **given), run, lambda: at_call(TorchEngine, "_step", step, die)) == -signal.SIGKILL
    assert in_child(resolved(data, **given), run) == 0
    assert_equal(run, undisturbed)


def lines_of(run: Path) -> list[dict]:
    """What training said, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "images_per_second", "wait")} for line in lines
            if line["kind"] == "train"]  # fmt: skip


def test_one_checkpoint_and_one_log_hold_both_players(whole):
    found = final(whole)
    assert {"model:backbone.first.weight", "ema:backbone.norm.running_mean", "optimizer:backbone.first.weight|exp_avg",
            "critic/model:dense1.weight", "critic/optimizer:dense1.weight|exp_avg"} <= found.keys()  # fmt: skip
    train = lines_of(whole)
    assert [sorted(line.get("players", {})) for line in train] == [[]] * 3 + [["critic"]] * 4
    assert set(train[0]["losses"]) == {"doubling/l1"} and train[0]["grad_norm"] > 0
    last = train[-1]
    assert set(last["losses"]) == {"doubling/l1", "doubling/adversarial"} and set(last["measured"]) == {
        "doubling/range", "doubling/range_of_truth"}  # fmt: skip
    critic = last["players"]["critic"]
    assert set(critic["losses"]) == {"critic/real", "critic/fake"} and critic["grad_norm"] > 0
    assert set(critic["measured"]) == {"critic/accuracy_real", "critic/accuracy_fake"}


def test_a_generator_that_makes_one_colour_stops_the_run(data, tmp_path):
    with pytest.raises(
        EngineError, match=r"in update 0 all that the generator made is one constant colour.*lower optimizer.lr"
    ):
        trunkline.train(FILE, tmp_path / "run", data=str(data), **PLAIN, **{"tasks.doubling.dead": True})


def test_the_remark_is_noted_once_and_a_warm_up_is_logged_as_waiting(data, tmp_path, monkeypatch):
    """Also where the run went on in between."""
    monkeypatch.setattr("trunkline.heads.super_resolution.players.RIGHT", 1)
    monkeypatch.setattr(
        "trunkline.heads.super_resolution.players.accuracies", lambda *_: {k: torch.ones(()) for k in ("real", "fake")}
    )
    given = {"data": str(data), **PLAIN, "tasks.doubling.adversarial.warmup": 2}
    run = trunkline.train(FILE, tmp_path / "run", **given)
    shutil.rmtree(run.path / "checkpoints" / "000007")
    (run.path / "checkpoints" / "last").write_text("000006")
    run = trunkline.train(FILE, tmp_path / "run", **given)
    assert [m["text"] for m in run.metrics if m.get("text") == ALWAYS_RIGHT] == [ALWAYS_RIGHT]
    waited = [m["update"] for m in run.metrics if m["kind"] == "train" and m.get("waited")]
    assert waited == [4, 5] and "report.html" in {f.name for f in run.path.iterdir()}


def test_what_a_stage_cannot_do_exactly_is_refused_beforehand(data, tmp_path):
    for settings, said in (
        ({"zero": 2}, r"zero=2: this stage reduces gradients by itself.*\(generator, critic\).*zero=0 or zero=1"),
        ({"zero": 3}, r"zero=3: this stage reduces gradients by itself"),
        ({"zero": 0, "machine.precision": "fp16"}, r"zero=0: fp16 scales the loss"),
        ({"zero": 1, "workers": 2, "players.critic.optimizer.name": "lamb"}, r"zero=1 with optimizer.name=lamb"),
    ):
        with pytest.raises(RecipeError, match=said):
            trunkline.train(FILE, tmp_path / "run", data=str(data), **{**PLAIN, **settings})
        assert not (tmp_path / "run").exists()
