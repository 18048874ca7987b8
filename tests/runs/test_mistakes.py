"""Mistakes that a first user makes: what is said, that nothing is written over, and that the folder stays usable."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ray_cluster import words
from safetensors.torch import load_file, save_file
from short_run import SHORT, photos

import trunkline
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.pipelines.command.cli import main


@pytest.fixture(autouse=True)
def quiet(one_core):
    pass


@pytest.fixture
def told(capsys):
    """Run a command that is a mistake; what it says."""

    def run(*given) -> str:
        assert main([str(g) for g in given]) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "an error of ours" not in said.err
        return said.err

    return run


@pytest.mark.parametrize("verb", ["evaluate", "profile"])
def test_nothing_is_written_over(short_run, data, told, verb):
    photo = photos(data)[0]
    before = photo.read_bytes()
    given = ["evaluate", short_run] if verb == "evaluate" else ["profile", "transfer", f"data={data}", *SHORT]
    for out in (photo, short_run / "recipe.json", data):
        kept = (short_run / "recipe.json").read_bytes()
        assert f"out={out}: is there already" in told(*given, f"out={out}")
        assert (short_run / "recipe.json").read_bytes() == kept
    assert photo.read_bytes() == before


def test_a_signal_to_the_whole_group_saves(scenes, tmp_path):
    """Schedulers and `timeout` ask the processes that decode, too."""
    run = tmp_path / "run"
    given = words(scenes, run, **{"machine.loaders": 2, "updates": 4000, "checkpoints.updates": 0})
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trunkline", *given], stderr=log, stdout=log, start_new_session=True
        )
        end = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count('"train"') < 5:
            assert time.monotonic() < end and process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()
    assert int((run / "checkpoints/last").read_text()) >= 5


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="macOS has no sigwaitinfo")
def test_the_threads_of_who_decodes_leave_the_signal_too(tmp_path):
    """torch starts some as soon as it is there, where it may have more than one."""
    run = tmp_path / "run"
    given = [
        "train",
        "segment",
        "smoke=true",
        "backbone=narrow",
        "head=fcn",
        "updates=4000",
        "machine.loaders=1",
        "checkpoints.updates=0",
        "--run",
        str(run),
    ]
    alike = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    alike["TRUNKLINE_CACHE"] = str(tmp_path / "cache")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trunkline", *given], stderr=log, stdout=log, start_new_session=True, env=alike
        )
        end = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count('"train"') < 2:
            assert time.monotonic() < end and process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()


def test_a_finished_run_keeps_what_it_says_of_itself(short_run, scenes, tmp_path, told):
    run = shutil.copytree(short_run, tmp_path / "run")
    other = shutil.copy(short_run / "weights.safetensors", tmp_path / "other.safetensors")
    before = (run / "recipe.json").read_text()
    given = [w for w in SHORT if not w.startswith("updates")]
    assert "2 updates are done, and it cannot be 1 long now" in told(
        "train", "transfer", f"data={scenes}", "--run", run, *given, "updates=1"
    )
    assert (run / "recipe.json").read_text() == before
    given = [w for w in SHORT if not w.startswith("weights")]
    assert main(["train", "transfer", f"data={scenes}", "--run", str(run), *given, f"weights={other}"]) == 0
    assert json.loads((run / "recipe.json").read_text())["resolved"]["network"]["weights"] == "none"


def test_a_first_start_that_fails_leaves_its_folder_free(data, tmp_path, told):
    run = tmp_path / "run"
    photo = photos(data)[3]
    photo.write_bytes(b"")
    given = ["train", "transfer", f"data={data}", "--run", run, *SHORT]
    assert "nearest: sgd" in told(*given, "optimizer.name=sgdd")
    assert not run.exists()
    assert "set batch=" in told(*[g for g in given if g != "batch=8"], "batch=1000")
    longer = [g for g in given if g != "updates=2"]
    assert "the file is empty" in told(*longer, "updates=8")
    assert main([str(g) for g in [*longer, "updates=3", "on_bad_sample=skip"]]) == 0


def test_what_is_wrong_with_machine_data_and_optimizer_is_told_at_once(tmp_path, told):
    said = told("train", "transfer", "data=nope", "backbone=resnet18", "weights=none", "optimizer.name=sdg",
                "machine.device=cuda:99", "--run", tmp_path / "run")  # fmt: skip
    assert "machine.device=cuda:99" in said and "nope" in said and "optimizer.name='sdg'" in said


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("tasks.classification.scale=2,1", "tasks.classification.scale=2,1: expected two numbers above 0"),
        ("tasks.classification.ratio=0,0", "tasks.classification.ratio=0,0: expected two numbers above 0"),
        ("schedule.step=nan", "schedule.step=nan: expected a length above 0"),
        ("schedule.final=-1", "schedule.final=-1.0: expected 0 to 1"),
        ("schedule.gamma=-1", "schedule.gamma=-1.0: expected 0 to 1000"),
        ("schedule.milestones=3,1", "schedule.milestones=3,1: expected them in their order"),
        (
            "schedule.unit=run schedule.warmup=3",
            "schedule.warmup=3: expected 0 to 1, a share of the run, or schedule.unit=epochs",
        ),
        ("schedule.warmup_from=-1", "schedule.warmup_from=-1.0: expected 0 to 1"),
        ("optimizer.momentum=nan", "optimizer.momentum=nan: expected 0 to below 1"),
        ("optimizer.name=adahessian", "optimizer.name=adahessian: cannot be used with these settings"),
        ("optimizer.name=lbfgs", "is not an optimizer of timm's factory; there are "),
        ("optimizer.options.eps=abc", "optimizer.options.eps: sgd takes no such option; it takes momentum"),
        ("size=100000", "tasks.classification.size=100000: expected a number of pixels from 1 to 16384"),
        ("lr=-1", "optimizer.lr=-1.0: expected a number above 0"),
        ("val=2", "tasks.classification.val=2.0: expected 0 (the folder's own val/) to below 1"),
    ],
)
def test_a_value_out_of_its_range(scenes, tmp_path, told, setting, says):
    given = [w for w in SHORT if w.split("=")[0] != setting.split("=")[0]]
    said = told("train", "transfer", f"data={scenes}", "--run", tmp_path / "run", *given, *setting.split())
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_batch_norm_of_one_value(scenes, tmp_path, told):
    given = [w for w in SHORT if not w.startswith("batch")]
    said = told("train", "transfer", f"data={scenes}", "--run", tmp_path / "run", *given, "batch=1")
    assert "batch norm has a single value per channel in a micro-batch of 1 samples" in said


def test_plain_sgd_has_no_momentum(scenes, tmp_path):
    given = ["train", "transfer", f"data={scenes}", "--run", str(tmp_path / "run"), *SHORT, "optimizer.momentum=0"]
    assert main(given) == 0
    assert not any("momentum" in name for name in load_file(tmp_path / "run/checkpoints/000002/optimizer.safetensors"))


def test_evaluate_and_predict_with_settings_that_cannot_be(short_run, data, tmp_path, told):
    assert "machine.device=cuda:77: this machine" in told("evaluate", short_run, "device=cuda:77")
    assert "machine.device=foo: expected cpu, cuda" in told("evaluate", short_run, "device=foo")
    assert "size=0: expected a number of pixels" in told("evaluate", short_run, "size=0")
    assert "loaders=-1: expected 0 or more" in told("evaluate", short_run, "loaders=-1")
    assert "threads=0: expected a number above 0" in told("evaluate", short_run, "threads=0")
    assert "threads=0: expected a number above 0" in told("predict", short_run, data, "threads=0")
    assert "machine.device=cuda:77" in told("predict", short_run, data, "device=cuda:77", f"out={tmp_path}/out")
    assert not (tmp_path / "out").exists()
    for settings in ({"precision": "foo"}, {"on_bad_sample": "foo"}, {"top": "x"}):
        with pytest.raises(RecipeError, match=f"{next(iter(settings))}="):
            trunkline.predict(short_run, data, **settings)
    with pytest.raises(RecipeError, match="None: expected a run"):
        trunkline.evaluate(None)


def test_damaged_files_of_a_run(short_run, tmp_path, told):
    run = shutil.copytree(short_run, tmp_path / "run")
    (run / "checkpoints/000002/state.json").write_text("{}")
    assert "is no checkpoint's state (update, engine, facts" in told("evaluate", run)
    shutil.copy(short_run / "checkpoints/000002/state.json", run / "checkpoints/000002/state.json")
    save_file({"x": torch.zeros(1)}, run / "checkpoints/000002/model.safetensors")
    assert "holds another model: " in told("evaluate", run)
    (run / "recipe.json").write_text("[]")
    assert "recipe.json: is no run's recipe; put the original back" in told("evaluate", run)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('boom')", r"mine.py:2: ValueError: boom; this recipe's own code fails"),
        ("def mine(:\n    pass", "mine.py:2: SyntaxError"),
        ("import nothing_of_that_name", "mine.py:2: ModuleNotFoundError"),
        ("def mine():\n    raise SystemExit(0)", "mine.py:3: SystemExit: 0"),
        ("def mine():\n    return None", "mine: gave NoneType; a recipe's function returns a Recipe"),
        ("def mine():\n    return {}", "mine: gave dict; a recipe's function returns a Recipe"),
        ("def mine(x=1):\n    return R({}, N())", "its knob x needs an annotation and a default"),
        ("def mine():\n    return R({}, N())", "tasks: expected at least one"),
    ],
)
def test_recipe_files_that_are_wrong(tmp_path, told, body, says):
    file = tmp_path / "mine.py"
    file.write_text(f"from trunkline.pipelines.recipe import Network as N, Recipe as R\n{body}\n")
    for verb in ("show", "train"):
        assert says in told(verb, file, *([] if verb == "show" else ["--run", tmp_path / "run"]))


def test_weights_that_are_not_finite_are_named(short_run, tmp_path):
    tensors = load_file(short_run / "weights.safetensors")
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file, {"trunkline_arch": "narrow"})
    with pytest.raises(
        WeightsError, match=r"bad.safetensors: layer2.0.conv1.weight holds 1 values that are not finite"
    ):
        trunkline.backbone("narrow", weights=file)
    with pytest.raises(WeightsError, match=r"bad.jpg: layer2.0.conv1.weight holds 1 values"):  # read, whatever its name
        trunkline.backbone("narrow", weights=str(shutil.copy(file, tmp_path / "bad.jpg")))
    assert trunkline.backbone("narrow", weights=str(short_run)).arch == "narrow"


def test_a_single_class_is_a_mistake(data, tmp_path, told):
    only = tmp_path / "only"
    shutil.copytree(data / "train", only / "photos")
    said = told("train", "transfer", f"data={only}", "val=0.2", "--run", tmp_path / "run", *SHORT)
    assert (
        f"holds a single class, photos: there is nothing to tell apart. If its folders are the classes, give data={only}/photos"
        in said
    )
    assert main(["check", str(only), "loaders=0"]) == 2


def test_small_things(scenes, short_run, tmp_path, told, capsys, monkeypatch):
    assert "loaders=-1: expected 0 or more" in told("check", scenes, "loaders=-1")
    assert "workers is called loaders here now" in told("check", scenes, "workers=-1")
    assert "rounds=0: expected a number above 0" in told("bench", "train", "rounds=0")
    assert "rounds=0: expected a number above 0" in told("bench", "loader", "rounds=0")
    assert main(["check", str(scenes), "classes=a,b", "loaders=0"]) == 2
    assert "'a', 'b'" in capsys.readouterr().out.replace("a, b", "'a', 'b'")
    odd = shutil.copy(photos(scenes)[0], tmp_path / "-x.jpg")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(short_run), "--", os.path.basename(odd)]) == 0  # noqa: PTH119
    assert trunkline.train("transfer", tmp_path / "np", data=scenes, **{k: v for k, v in (w.split("=") for w in SHORT)} | {
        "batch": np.int64(4)}).scores["samples"] == 20  # fmt: skip


@pytest.mark.slow
def test_who_stops_reading_does_not_stop_the_work(scenes, tmp_path):
    command = " ".join([sys.executable, "-m", "trunkline", *words(scenes, tmp_path / "run", updates=2)])
    subprocess.run(f"{command} 2>&1 | head -1", shell=True, check=True, capture_output=True)
    assert (tmp_path / "run/report.html").is_file()
    reader = subprocess.run(f"{sys.executable} -m trunkline --help | true", shell=True, capture_output=True, text=True)
    assert reader.stderr == ""
