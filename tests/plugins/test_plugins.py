"""Tasks from files of one's own, by the documented contract alone: pairs without classes, clips, two players."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from plugin_data import write_clips, write_pairs, write_pictures
from run_work import assert_equal, at_call, die, final, in_child

import trunkline
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve

HERE = Path(__file__).parent
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": False,
         "checkpoints.updates": 2}  # fmt: skip
PLUGINS = {"pairs": write_pairs, "clips": write_clips, "players": write_pictures}
KILLED_AT = {"pairs": [4], "clips": [4], "players": [2, 8]}  # which step; of the players in both phases


def file_of(name: str) -> str:
    return str(HERE / f"{name}_file.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {name: write(root / name) for name, write in PLUGINS.items()}


def resolved(name: str, data: dict[str, Path], **more):
    return resolve(file_of(name), {"data": str(data[name]), **PLAIN, **more})


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, Path]:
    """Each trained in one process."""
    root = tmp_path_factory.mktemp("runs")
    for name in PLUGINS:
        assert in_child(resolved(name, data), root / name) == 0
    return {name: root / name for name in PLUGINS}


def test_two_workers_end_with_the_bits_of_one(runs, data, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    specs = [{"recipe": file_of(name), "plugin": file_of(name), "run": str(tmp_path / name),
              "given": {k: str(v) for k, v in {"data": data[name], **PLAIN}.items()}} for name in PLUGINS]  # fmt: skip
    run_local(Job("run_work:several", {"runs": specs}, 120.0), 2, tmp_path / "logs", 2)
    for name in PLUGINS:
        assert_equal(tmp_path / name, runs[name])


KILLS = [
    pytest.param(name, step, marks=[] if (name, step) in (("clips", 4), ("players", 8)) else pytest.mark.slow)
    for name, steps in KILLED_AT.items()
    for step in steps
]


@pytest.mark.parametrize(("name", "step"), KILLS)
def test_killed_and_resumed_is_undisturbed(name, step, runs, data, tmp_path):
    run = tmp_path / "run"
    assert in_child(resolved(name, data), run, lambda: at_call(TorchEngine, "_step", step, die)) == -signal.SIGKILL
    assert in_child(resolved(name, data), run) == 0
    assert_equal(run, runs[name])


def test_both_players_learn_and_are_in_one_checkpoint_and_one_report(runs, data):
    found = final(runs["players"])
    assert {"critic/model:0.bias", "critic/optimizer:0.bias|exp_avg"} <= found.keys()
    lines = [json.loads(line) for line in (runs["players"] / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [sorted(line.get("players", {})) for line in train] == [[]] * 3 + [["critic"]] * 5
    last = train[-1]
    assert (
        set(last["losses"]) == {"generator/l1", "generator/adversarial"}
        and last["lr"] != last["players"]["critic"]["lr"]
    )
    assert {"critic/real", "critic/made"} == set(last["players"]["critic"]["losses"]) and last["players"]["critic"][
        "grad_norm"
    ] > 0
    assert "critic" not in "".join(n for n in found if n.startswith("model:")), (
        "the model's own file holds the model alone"
    )


def test_a_critic_that_rests_stands_still(data, tmp_path):
    """In the first phase it is not moved: neither its weights nor its statistics."""
    from trunkline.cluster.checkpoint import read_tensors
    from trunkline.pipelines.models.build import build

    run = tmp_path / "run"
    assert in_child(resolved("players", data, **{"checkpoints.keep": 20}), run) == 0
    _, model, _ = build(resolved("players", data).recipe)
    first, after = (read_tensors(run / f"checkpoints/{u:06d}/critic/model.safetensors") for u in (2, 4))
    begin = model.beside["critic"].state_dict()
    assert all(torch.equal(begin[n], first[n]) for n in begin)
    assert not torch.equal(begin["0.bias"], after["0.bias"])


def test_a_phase_that_names_nobody_who_plays_is_refused(data, tmp_path):
    with pytest.raises(
        RecipeError, match=r"phases.0.players=referee: there is no such player; there are generator, critic"
    ):
        trunkline.train(
            file_of("players"),
            tmp_path / "run",
            data=str(data["players"]),
            **PLAIN,
            **{"phases.0.players": ["referee"]},
        )
    with pytest.raises(RecipeError, match=r"generator must be among them"):
        trunkline.train(
            file_of("players"), tmp_path / "two", data=str(data["players"]), **PLAIN, **{"phases.0.players": ["critic"]}
        )


def test_stages_of_zero_that_reduce_by_themselves_refuse_players(data, tmp_path):
    with pytest.raises(
        (RecipeError, ValueError),
        match=r"zero=2: this stage reduces gradients by itself.*\(generator, critic\).*use zero=0 or zero=1",
    ):
        trunkline.train(file_of("players"), tmp_path / "run", data=str(data["players"]), zero=2, **PLAIN)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_run_and_its_weights_predict_without_the_training_data(name, runs, data, tmp_path):
    """Moved away: the run, and a copy of its published weights alone."""
    given = {"pairs": "val/noisy", "clips": "val", "players": "val"}[name]
    inputs = Path(shutil.copytree(data[name] / given, tmp_path / "inputs"))
    hidden = data[name].rename(tmp_path / "hidden")
    try:
        run = Path(shutil.copytree(runs[name], tmp_path / "run"))
        alone = shutil.copy(run / "weights.safetensors", tmp_path / "alone.safetensors")
        found = [trunkline.predict(str(s), inputs, plugin=file_of(name), threads=1) for s in (run, alone)]
        assert len(found[0]) == 4 and not any(p.error for p in found[0])
        assert [p.line() for p in found[0]] == [p.line() for p in found[1]]
        scores = [
            trunkline.evaluate(str(s), data=str(hidden), plugin=file_of(name), loaders=0, threads=1)
            for s in (run, alone)
        ]
        stored = json.loads((run / "scores.json").read_text())
        assert all(s.metrics == {n: stored[n] for n in s.metrics} for s in scores)
    finally:
        hidden.rename(data[name])


def test_predicted_pictures_are_written(runs, data, tmp_path):
    out = tmp_path / "out"
    words = [
        "predict",
        str(runs["pairs"]),
        str(data["pairs"] / "val/noisy"),
        f"plugin={file_of('pairs')}",
        f"out={out}",
    ]
    assert main(words) == 0
    assert len(list((out / "made").glob("*.png"))) == 4 and (out / "sheet.png").is_file()


def test_of_folders_the_picture_in_the_middle_is_drawn(runs, data, tmp_path, capfd):
    """A task's inputs may be folders of pictures; the sheet and the pictures show one of each."""
    out = tmp_path / "out"
    words = [str(runs["clips"]), str(data["clips"] / "val"), f"plugin={file_of('clips')}", f"out={out}"]
    assert main(["predict", *words, "pictures=true", "threads=1"]) == 0
    assert len(list((out / "pictures").glob("*.png"))) == 4 and (out / "sheet.png").is_file()
    assert "no place on the contact sheet" not in capfd.readouterr().err


def test_clips_learn_from_cached_maps_and_find_their_micro_batch(data, tmp_path):
    run = tmp_path / "cached"
    assert in_child(resolved("clips", data, cached=True), run) == 0
    assert (run / "features/train.safetensors").is_file()
    auto = tmp_path / "auto"
    assert in_child(resolved("clips", data, micro_batch="auto"), auto) == 0
    recipe = json.loads((auto / "recipe.json").read_text())
    assert recipe["resolved"]["batch"]["micro"] == 4 and "GiB" in recipe["auto"]["batch.micro"][1]


def test_a_clip_is_normalised_by_channel_whatever_the_memory_format(data):
    """With as many frames as channels, too."""
    from trunkline.backbones.contract import Preprocessing
    from trunkline.heads.contract import Batch
    from trunkline.heads.model import Model

    images = torch.randint(0, 256, (2, 3, 3, 8, 10), dtype=torch.uint8)
    sizes = torch.tensor([[8, 10], [6, 7]])
    model = Model(torch.nn.Identity(), {}, Preprocessing(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4)))
    for channels_last in (False, True):
        model.channels_last = channels_last
        found = model.normalise(Batch("clips", ["a", "b"], images, sizes))
        for c, (mean, std) in enumerate(zip((0.1, 0.5, 0.9), (0.2, 0.3, 0.4), strict=True)):
            assert torch.allclose(found[0, c], (images[0, c] / 255 - mean) / std, atol=1e-6)
        assert (
            (found[1, :, :, 6:] == 0).all()
            and (found[1, :, :, :, 7:] == 0).all()
            and (found[1, :, :, :6, :7] != 0).any()
        )


EVALUATOR = "    def evaluator(self, samples):\n        return Gain()\n"
TABLE = 'TASKS = {"denoising"'
FORGOTTEN = {
    "a method": (EVALUATOR, "", r"TASKS: denoising: the class Denoising lacks evaluator"),
    "another method": ("    def collate(self", "    def collated(self", r"lacks collate"),
    "the table's row": ("Row(Denoising, Options)", "(Denoising, Options)", r"TASKS: denoising: expected a Row"),
    "a name that is taken": (TABLE, 'TASKS = {"detection"', r"TASKS: detection: there is one of this name already"),
    "another name": (TABLE, 'TASKS = {"noise"', r"TASKS: noise: its class is called denoising"),
    "an option that there is not": ("Options(data=data)", "Options(data=data, crops=3)", r"crops"),
}


LOSSES = '{"l1": (self(features, batch) - batch.targets["clean"].float() / 255).abs().mean()}'
UNFIT = {
    "a head's method": (
        "def predict(",
        "def predicted(",
        r"the head of the task denoising \(.*Decoder\) lacks predict",
    ),
    "an evaluator's": ("def result(", "def end(", r"the evaluator of the task denoising \(.*Gain\) lacks result"),
    "a map": ('needs = ("c1", "c2")', 'needs = ("c1", "c9")', r"denoising needs the maps c9; this trunk has c1, c2"),
    "named losses": (LOSSES, f'{LOSSES}["l1"]', r"gave losses of type Tensor; expected a dict of scalar tensors"),
    "scalars": (".abs().mean()}", ".abs()}", r"the losses l1: \(\d+, 3, \d+, \d+\); expected a dict of scalar tensors"),
    "a metric": ('Scores({"psnr"', 'Scores({"pssnr"', r"Gain gave the metric pssnr, which its `metrics` do not name"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_part_that_does_not_fit_is_one_clear_line(what, data, tmp_path, capsys):
    old, new, message = UNFIT[what]
    text = Path(file_of("pairs")).read_text()
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new))
    given = [
        f"{k}={v}"
        for k, v in {"data": data["pairs"], **PLAIN, "phases.0.updates": 1, "phases.0.epochs": "none"}.items()
    ]
    assert main(["train", str(tmp_path / "mine.py"), *given, "--run", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and "Traceback" not in told, told


def test_the_reports_commands_say_where_the_task_is(runs):
    page = (runs["pairs"] / "report.html").read_text()
    assert page.count(f"plugin={file_of('pairs')}") == 2


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_a_plug_in_forgets_is_one_clear_line(what, tmp_path, capsys):
    old, new, message = FORGOTTEN[what]
    text = Path(file_of("pairs")).read_text()
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new))
    assert main(["show", str(tmp_path / "mine.py")]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and "Traceback" not in told and len(told.splitlines()) <= 2, told
