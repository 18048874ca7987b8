"""Super-resolution killed and resumed, by any workers, and by a mixture of networks."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from run_work import assert_equal, at_call, die, files_in, final, forked, in_child, pool_here, results_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from upscaler_work import flat, train

import trunkline
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.prediction import named
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.super_resolution.scenes import write_pictures

# Killed and resumed, and whoever computes


def in_half(owner, name):
    """Make the third call of `owner.name` write half of its content, and die."""
    whole = getattr(owner, name)

    def half(self, content):
        whole(self, content[: len(content) // 2])
        die()

    calls = iter((whole, whole, half))
    setattr(owner, name, lambda self, content: next(calls)(self, content))


MOMENTS = {
    "its file half written": lambda: in_half(Path, "write_bytes"),
    "between its line and its file": lambda: at_call(Path, "replace", 5, die),  # first come settings and lines
    "after its file": lambda: at_call(Path, "replace", 5, die, after=True),
    "before the sheet": lambda: at_call(named, "contact_sheet", 1, die),
}


@pytest.fixture(scope="module")
def larger(run, tmp_path_factory):
    """Pictures made larger, with one that cannot be read in their middle."""
    root = tmp_path_factory.mktemp("larger")
    write_pictures(root / "in", train=2, val=3, size=24)
    (root / "in/train/00000b.png").write_bytes(b"no picture")
    enlarge(run, root, "one")
    return root


def enlarge(run, root, out):
    return list(api.predict(run, root / "in", out=root / out, threads=1, pictures=True))


@pytest.mark.parametrize("moment", [*MOMENTS, "half its line"])
def test_a_killed_prediction_goes_on_to_the_same_files(run, larger, moment):
    out = moment.replace(" ", "-")
    prepare = MOMENTS.get(moment, MOMENTS["between its line and its file"])
    assert forked(lambda: enlarge(run, larger, out), prepare) == -signal.SIGKILL, "it was not killed"
    if moment == "half its line":
        lines = larger / out / "predictions.jsonl"
        lines.write_bytes(lines.read_bytes()[:-20])
    assert files_in(larger / out) != files_in(larger / "one")
    enlarge(run, larger, out)
    assert files_in(larger / out) == files_in(larger / "one")
    enlarge(run, larger, out)  # nothing is left to do, and the unreadable one is told again, once
    assert files_in(larger / out) == files_in(larger / "one")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_and_records_of_a_pool_are_those_of_one_process(run, tmp_path, capsys, monkeypatch, workers):
    pytest.importorskip("ray")
    monkeypatch.setattr("trunkline.cluster.launchers.ray_pool.pool", pool_here)
    monkeypatch.setenv("TRUNKLINE_CORES", "1")
    found = []
    for name, more in (("one", []), ("pool", ["--launch", "ray", "--workers", str(workers)])):
        capsys.readouterr()
        own = ["loaders=0", "threads=1", "batch=2", "tiles=12", "overlap=2", f"out={tmp_path / name}", "--json"]
        assert main(["evaluate", str(run), *own, *more]) == 0
        found.append((json.loads(capsys.readouterr().out), (tmp_path / name).read_bytes()))
    assert found[0] == found[1] and len(found[0][1].splitlines()) == 3


GAN = {"blocks": 1, "width": 8, "crop": 32, "crops": 2, "batch": 12, "batch.micro": 2, "updates": 2, "adversarial": 2,
       "tasks.super_resolution.adversarial.width": 4, "ema": 0.9, "checkpoints.updates": 1, "machine.threads": 1,
       "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": False}  # fmt: skip
"""Updates of three micro-batches, two by the pixels and two against a critic with spectral norm."""


@pytest.fixture(scope="module")
def gan(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan") / "one"
    assert in_child(resolve("upscale", {"data": str(scenes), **GAN}), folder) == 0
    return folder


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_workers_and_both_engines_end_with_the_bits_and_files_of_one_process(
    size, scenes, gan, tmp_path, monkeypatch
):
    pytest.importorskip("deepspeed")
    here = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    zeros = [None, 0, 1] if size < 3 else [None, 0]  # stage 1 is for powers of two
    given = {"data": str(scenes), **{k: str(v).lower() for k, v in GAN.items()}}
    runs = [{"recipe": "upscale", "given": given, "run": str(tmp_path / f"{zero}"), "zero": zero} for zero in zeros]
    run_local(Job("run_work:several", {"runs": runs}, 120.0), size, tmp_path / "logs", 2)
    wanted = results_of(gan)
    assert {name.partition(".")[2] for name in wanted} >= {"safetensors", "json", "jsonl", "jpg"}
    for zero in zeros:
        assert_equal(tmp_path / f"{zero}", gan)
        assert results_of(tmp_path / f"{zero}") == wanted, zero


@pytest.mark.parametrize("step", [2, 6, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4, 5))])
def test_killed_in_either_phase_and_turn_and_resumed_is_undisturbed(step, scenes, gan, tmp_path):
    """Steps 1 and 2 are by the pixels; then the generator and the critic step by turns."""
    resolved = resolve("upscale", {"data": str(scenes), **GAN})
    assert in_child(resolved, tmp_path / "run", lambda: at_call(TorchEngine, "_step", step, die)) == -signal.SIGKILL
    assert in_child(resolved, tmp_path / "run") == 0
    assert any(name.startswith("critic/optimizer:") for name in final(gan))
    assert_equal(tmp_path / "run", gan)
    assert results_of(tmp_path / "run") == results_of(gan)


@pytest.fixture(scope="module")
def pair(scenes, tmp_path_factory):
    """Two networks with batch norm, of two seeds, whose buffers have moved."""
    folder = tmp_path_factory.mktemp("pair")
    for seed in (1, 2):
        assert train(scenes, folder / str(seed), "backbone=srresnet", "updates=2", f"seed={seed}", "ema=0") == 0
    return folder / "1", folder / "2"


def test_two_networks_are_mixed_weight_by_weight(pair):
    first, second = (load_file(run / "weights.safetensors") for run in pair)
    wanted = {0.0: first, 1.0: second, 0.3: {n: (0.7 * t.double() + 0.3 * second[n].double()).float()
                                                 for n, t in first.items()}}  # fmt: skip
    assert any("running_var" in name and not torch.equal(t, second[name]) for name, t in first.items())
    for share, expected in wanted.items():
        for source, other in (pair, [run / "weights.safetensors" for run in pair]):
            model = trunkline.model(source, blend=f"{other}:{share}")
            found = flat(model)
            assert found.keys() == expected.keys()
            for name in expected:
                if name.endswith("num_batches_tracked"):
                    continue
                exact = share in (0.0, 1.0)
                torch.testing.assert_close(
                    found[name], expected[name], rtol=0 if exact else 3e-7, atol=0 if exact else 1e-12
                )


def test_a_mixture_predicts_and_scores_as_its_weights(pair, scenes, tmp_path, capsys):
    one, two = pair
    first, second = (load_file(run / "weights.safetensors") for run in pair)
    mixed = {n: torch.lerp(t.double(), second[n].double(), 0.75).float() if t.is_floating_point() else t
             for n, t in first.items()}  # fmt: skip
    save_file(mixed, tmp_path / "mixed.safetensors", _header(one))
    blend, given = f"blend={two}:0.75", str(scenes / "val")
    assert main(["predict", str(one), given, f"out={tmp_path / 'a'}", blend]) == 0
    assert f"blend: 0.75 of {two} and 0.25 of {one}, buffers too" in " ".join(capsys.readouterr().err.split())
    for source, out in ((tmp_path / "mixed.safetensors", "b"), (one, "c")):
        assert main(["predict", str(source), given, f"out={tmp_path / out}"]) == 0
    a, b, c = ([(tmp_path / out / f"0000{i}.png").read_bytes() for i in range(3)] for out in "abc")
    assert a == b != c
    assert json.loads((tmp_path / "a/settings.json").read_text())["blend"] == f"{two}:0.75"
    (tmp_path / "a/00001.png").unlink()
    for other in ([], [f"blend={two}:0.7"]):
        assert main(["predict", str(one), given, f"out={tmp_path / 'a'}", *other]) == 2
        assert f"{two}:0.75 there" in capsys.readouterr().err and not (tmp_path / "a/00001.png").exists()
    assert main(["predict", str(one), given, f"out={tmp_path / 'a'}", f"blend={two}:0.750"]) == 0

    assert main(["evaluate", str(one), blend, "loaders=0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    plain = api.evaluate(tmp_path / "mixed.safetensors", data=str(scenes), loaders=0)
    assert {name: said[name] for name in plain.metrics} == plain.metrics
    assert said["blend"]["source"] == str(two) and said["blend"]["share"] == 0.75 and said["blend"]["update"] == 2
    assert said["notes"][-1].startswith("blend: 0.75 of ")


def test_a_pool_makes_the_files_of_one_process_and_says_the_mixture(pair, scenes, tmp_path, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("trunkline.cluster.launchers.ray_pool.pool", pool_here)
    monkeypatch.setenv("TRUNKLINE_CORES", "1")
    call = ["predict", str(pair[0]), str(scenes / "val"), f"blend={pair[1]}:0.75", "threads=1"]
    for out, more in (("one", []), ("pool", ["--launch", "ray", "--workers", "2"])):
        capsys.readouterr()
        assert main([*call, f"out={tmp_path / out}", *more]) == 0
        assert " ".join(capsys.readouterr().err.split()).count(f"blend: 0.75 of {pair[1]} and 0.25 of {pair[0]}") == 1
    assert files_in(tmp_path / "one") == files_in(tmp_path / "pool")


def test_other_networks_are_not_mixed_in(pair, run, scenes, tmp_path, capsys):
    assert train(scenes, tmp_path / "x2", "backbone=srresnet", "updates=1", scale=2) == 0
    assert train(scenes, tmp_path / "wide", "backbone=srresnet", "updates=1", "width=12") == 0
    header = {**_header(pair[1]), "mean": "0.1,0.2,0.3"}
    save_file(load_file(pair[1] / "weights.safetensors"), tmp_path / "grey.safetensors", header)
    one, two = pair
    wrong = {
        f"{two}": "expected FILE:SHARE",
        f"{two}:": f"as blend={two}:0.8",
        ":0.3": "as blend=FILE:0.8",
        f"{two}:1.5": "from 0 to 1",
        f"{two}:nan": "from 0 to 1",
        f"{tmp_path / 'x2'}:0.5": "scale: 2, not 4",
        f"{tmp_path / 'wide'}:0.5": "width: 12, not 8",
        f"{run}:0.5": "architecture: msrresnet, not srresnet",
        f"{tmp_path / 'grey.safetensors'}:0.5": "mean: [0.1, 0.2, 0.3], not ",
        f"spandrel:{two}:0.5": "is a network of spandrel, whose weights are not mixed here",
        f"{tmp_path / 'nowhere.pth'}:0.5": "nowhere.pth",
    }
    capsys.readouterr()
    for blend, said in wrong.items():
        for call in (["predict", str(one), str(scenes / "val")], ["evaluate", str(one), "loaders=0"]):
            assert main([*call, f"blend={blend}"]) == 2 and said in (err := capsys.readouterr().err), blend
            assert "buffers too" not in err
    with pytest.raises(RecipeError, match="is another network than"):
        trunkline.model(one, blend=f"{tmp_path / 'x2'}:0.5")


def _header(folder):
    with safe_open(folder / "weights.safetensors", "pt") as file:
        return file.metadata()
