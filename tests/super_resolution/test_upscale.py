"""Super-resolution from pictures to files: train, resume, evaluate, predict, and what is refused."""

import json
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_work import assert_equal, at_call, die, final, forked, in_child
from safetensors.torch import load_file

from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.ray_pool import Actor
from trunkline.cluster.launchers.worker import Job
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.prediction import named
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.super_resolution.files import Picture, read_picture, write_picture
from trunkline.tasks.super_resolution.resize import shrunk
from trunkline.tasks.super_resolution.scenes import write_pictures

SHORT = (
    "blocks=1",
    "width=8",
    "crop=32",
    "batch=4",
    "crops=2",
    "log.tensorboard=false",
    "machine.threads=1",
    "machine.loaders=0",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("scenes") / "pictures", train=6, val=3, size=64)


def train(scenes, run, *settings, scale=4):
    given = {word.partition("=")[0] for word in settings}
    short = [word for word in SHORT if word.partition("=")[0] not in given]
    return main(["train", "upscale", f"data={scenes}", f"scale={scale}", *short, *settings, "--run", str(run)])


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "one"
    assert train(scenes, folder, "updates=4", "checkpoints.updates=2") == 0
    return folder


def test_a_run_has_scores_and_a_report_with_the_worst_pictures(run):
    scores = json.loads((run / "scores.json").read_text())
    assert {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"} <= scores.keys() and 15 < scores["psnr_y"] < 50
    assert "Worst pictures" in (run / "report.html").read_text()
    (picture, *_) = sorted((run / "predictions").rglob("examples/*.jpg"))
    with Image.open(picture) as shown:
        assert shown.width > 2 * shown.height  # three squares in a row


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(scenes, run, tmp_path):
    shutil.copytree(run, tmp_path / "two")
    again = tmp_path / "two"
    for name in ("weights.safetensors", "scores.json", "report.html"):
        (again / name).unlink()
    shutil.rmtree(again / "checkpoints/000004")
    for pointer in ("last", "best"):
        (again / "checkpoints" / pointer).write_text(
            (again / "checkpoints" / pointer).read_text().replace("000004", "000002")
        )
    assert train(scenes, again, "updates=4", "checkpoints.updates=2") == 0
    one, two = (load_file(folder / "weights.safetensors") for folder in (run, again))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_what_evaluate_says_is_what_score_says_of_the_files(scenes, run, tmp_path, capsys):
    for source in (run, run / "weights.safetensors"):
        found = api.evaluate(source, data=str(scenes), loaders=0)
        small = tmp_path / "small"
        small.mkdir(exist_ok=True)
        for file in (scenes / "val").iterdir():
            write_picture(small / file.name, Picture(shrunk(read_picture(file).pixels, 4)))
        out = tmp_path / f"out-{source.name}"
        assert main(["predict", str(source), str(small), f"out={out}"]) == 0
        scored = api.score("images", scenes / "val", out, scale=4)
        assert {n: scored.metrics[n] for n in found.metrics} == pytest.approx(found.metrics, abs=1e-12)
    assert main(["score", "images", str(scenes / "val"), str(out), "--scale", "4"]) == 0  # its sheet is none of them
    assert "left as they are" in again(run, small, out, capsys)
    (out / "00001.png").unlink()
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("0*.png")}
    assert "2 of 3 are in" in again(run, small, out, capsys)
    assert {n: t for n, t in ((f.name, f.stat().st_mtime_ns) for f in out.glob("0*.png")) if n in before} == before


def again(run, small, out, capsys):
    assert main(["predict", str(run), str(small), f"out={out}"]) == 0
    return "".join(capsys.readouterr())


def test_files_stay_what_they_are(run, tmp_path):
    rng = np.random.default_rng(0)
    given = tmp_path / "in"
    kinds = {
        "a/deep.png": Picture(rng.integers(0, 65536, (12, 17, 3), np.uint16)),
        "a/grey.png": Picture(rng.integers(0, 256, (12, 17, 1), np.uint8)),
        "b/clear.png": Picture(rng.integers(0, 256, (12, 17, 3), np.uint8), rng.integers(0, 256, (12, 17), np.uint8)),
        "photo.jpg": Picture(rng.integers(0, 256, (12, 17, 3), np.uint8)),
        "deep.tif": Picture(rng.integers(0, 65536, (12, 17, 1), np.uint16)),
    }
    for name, picture in kinds.items():
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(given / name, picture)
    out = tmp_path / "out"
    assert main(["predict", str(run), str(given), f"out={out}", "suffix=_x4"]) == 0
    for name in kinds:
        before, after = read_picture(given / name), read_picture((out / name).with_stem(f"{(out / name).stem}_x4"))
        assert (after.look.height, after.look.width) == (48, 68)
        assert (after.pixels.dtype, after.pixels.shape[2], after.alpha is None) == (
            before.pixels.dtype, before.pixels.shape[2], before.alpha is None)  # fmt: skip
    assert main(["predict", str(run), str(given / "photo.jpg"), f"out={tmp_path / 'x3'}", "outscale=3", "ext=png"]) == 0
    assert read_picture(tmp_path / "x3/photo.png").pixels.shape == (36, 51, 3)
    assert main(["predict", str(run), str(given / "a/deep.png"), f"out={tmp_path / 'jpg'}", "ext=jpg"]) == 2
    (line,) = (tmp_path / "jpg/predictions.jsonl").read_text().splitlines()
    assert "JPEG holds 8 bits a channel, and this picture has 16" in json.loads(line)["error"]


def test_the_sheet_shows_deep_grey_pictures_as_they_look(run, tmp_path):
    write_picture(tmp_path / "deep.tif", Picture(np.full((40, 60, 1), 20_000, np.uint16)))
    (made,) = api.predict(run, tmp_path / "deep.tif", out=tmp_path / "out")
    small = np.asarray(made.small()).astype(int)
    assert small.shape == (160, 240, 3)
    for half in (small[:, :110], small[:, 130:]):
        assert abs(half.mean() - 20_000 / 257) < 12


def test_two_inputs_that_would_become_one_file_and_outputs_among_the_inputs_are_refused(run, scenes, tmp_path):
    for name in ("one/x.png", "two/x.png"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(scenes / "val/00000.png", tmp_path / name)
    with pytest.raises(RecipeError, match="both would become"):
        list(api.predict(run, [tmp_path / "one", tmp_path / "two"], out=tmp_path / "out"))
    with pytest.raises(RecipeError, match="is read; choose a folder beside it"):
        list(api.predict(run, tmp_path / "one", out=tmp_path / "one"))


def test_a_run_goes_on_from_weights_of_its_scale_alone(run, scenes, tmp_path, capsys):
    assert train(scenes, tmp_path / "on", f"weights={run}", "updates=1") == 0
    assert train(scenes, tmp_path / "x2", f"weights={run}", "updates=1", scale=2) == 2
    said = "".join(capsys.readouterr())
    assert "was trained for scale=4, and scale=2 was asked for" in said
    assert not (tmp_path / "x2/checkpoints").exists()
    with pytest.raises((RecipeError, WeightsError), match="scale"):
        api.evaluate(run, data=str(scenes), options={"scale": 2}, loaders=0)
    assert main(["predict", str(run), str(scenes / "val"), f"out={tmp_path / 'out'}", "scale=2"]) == 2
    assert f"{run}: was trained for scale=4, and scale=2 was asked for: leave scale= out" in capsys.readouterr().err


def test_bicubic_is_no_run_where_its_own_results_lie(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["predict", "bicubic", str(scenes / "val"), "scale=2", "out=bicubic"]) == 0
    assert len([*(tmp_path / "bicubic").glob("*.png")]) == 3


def test_a_classifiers_trunk_is_refused_for_super_resolution(scenes, tmp_path, capsys):
    assert (
        main(["train", "upscale", f"data={scenes}", "backbone=resnet18", "updates=1", "--run", str(tmp_path / "r")])
        == 2
    )
    assert "super-resolution needs a trunk of stride 1: one of srresnet" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("crop=30",), "crop=30: expected a multiple of scale=4, such as"),
        (("crop=16",), "crop=16: expected at least 8 x scale, 32"),
        (("batch=5", "crops=2"), "batch=5: expected a multiple of crops=2"),
        (("val=1.5",), "val=1.5: expected a folder below data, or a share to hold out"),
        (("tasks.super_resolution.more=ssim",), "more=ssim: expected of ms_ssim, haarpsi"),
        (("scale=9",), "scale=9: expected a whole number from 1 to 8"),
    ],
)
def test_wrong_settings_are_told(scenes, tmp_path, capsys, given, said):
    words = [w for w in SHORT if w.partition("=")[0] not in {g.partition("=")[0] for g in given}]
    assert main(["train", "upscale", f"data={scenes}", *words, *given, "updates=1", "--run", str(tmp_path / "r")]) == 2
    assert said in "".join(capsys.readouterr()) and not (tmp_path / "r").exists()


def test_against_a_critic_and_on(scenes, run, tmp_path):
    critic = '{"kind": "relativistic", "weight": 0.01, "critic": "vgg", "width": 4, "norm": "spectral"}'
    words = [f"weights={run}", "updates=2", f"tasks.super_resolution.adversarial={critic}"]
    assert train(scenes, tmp_path / "gan", *words) == 0
    log = (tmp_path / "gan/metrics.jsonl").read_text()
    names = (
        "super_resolution/l1",
        "super_resolution/adversarial",
        "critic/real",
        "critic/fake",
        "critic/accuracy_fake",
    )
    assert all(f'"{name}"' in log for name in names)


def test_two_phases_of_one_recipe(scenes, tmp_path):
    assert (
        train(scenes, tmp_path / "gan", "updates=2", "adversarial=2", "tasks.super_resolution.adversarial.width=4") == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "gan/metrics.jsonl").read_text().splitlines()]
    pixels, against = ([line for line in lines if line["kind"] == "train" and line["phase"] == n] for n in (0, 1))
    assert len(pixels) == len(against) == 2
    assert not any("adversarial" in name for line in pixels for name in line["losses"])
    assert all("super_resolution/adversarial" in line["losses"] for line in against)
    assert max(line["lr"] for line in against) == pytest.approx(max(line["lr"] for line in pixels) / 10)


def test_weights_are_written_as_others_read_them(scenes, tmp_path):
    spandrel = pytest.importorskip("spandrel")
    assert train(scenes, tmp_path / "run", "updates=1", "backbone=rrdbnet", "width=16") == 0
    found = api.convert("weights", tmp_path / "run", out=tmp_path / "x4.pth")
    assert (found.arch, found.scale) == ("rrdbnet", 4)
    theirs = spandrel.ModelLoader().load_from_file(str(tmp_path / "x4.pth"))
    small = torch.from_numpy(shrunk(read_picture(scenes / "val/00000.png").pixels, 4)).permute(2, 0, 1)
    with torch.inference_mode():
        expected = theirs.model.eval()(small[None] / 255)[0].clamp(0, 1).mul(255).add(0.5).floor()
    (tmp_path / "small").mkdir()
    write_picture(tmp_path / "small/a.png", Picture(small.permute(1, 2, 0).numpy()))
    for number, source in enumerate((tmp_path / "x4.pth", f"spandrel:{tmp_path / 'x4.pth'}")):
        out = tmp_path / f"out{number}"
        assert main(["predict", str(source), str(tmp_path / "small"), f"out={out}"]) == 0
        made = read_picture(out / "a.png").pixels.astype(int)
        assert np.abs(made - expected.permute(1, 2, 0).numpy()).max() <= 1  # a half may fall to either side
    with pytest.raises(RecipeError, match="is there already"):
        api.convert("weights", tmp_path / "run", out=tmp_path / "x4.pth")
    assert train(scenes, tmp_path / "no", "updates=1", f"weights=spandrel:{tmp_path / 'x4.pth'}") == 2


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
    "between its line and its file": lambda: at_call(Path, "replace", 4, die),  # the first one is the lines'
    "after its file": lambda: at_call(Path, "replace", 4, die, after=True),
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


def files_in(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


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


@contextmanager
def pool_here(call, args, launch):
    """A pool of Ray's actors without Ray: they take turns in this process, and all that they are told and say is JSON."""
    actors = [Actor(call, json.loads(json.dumps(args)), 1) for _ in range(launch.workers)]
    yield lambda items: (json.loads(actors[n % len(actors)]({"item": [json.dumps(item)]})["result"][0])["result"]
                         for n, item in enumerate(items))  # fmt: skip


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


def results_of(folder):
    """The weights, the scores, the records and the drawn pictures."""
    kept = ("weights.safetensors", "scores.json", "predictions/")
    return {name: content for name, content in files_in(folder).items() if name.startswith(kept)}


@pytest.mark.parametrize("step", [2, 6, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4, 5))])
def test_killed_in_either_phase_and_turn_and_resumed_is_undisturbed(step, scenes, gan, tmp_path):
    """Steps 1 and 2 are by the pixels; then the generator and the critic step by turns."""
    resolved = resolve("upscale", {"data": str(scenes), **GAN})
    assert in_child(resolved, tmp_path / "run", lambda: at_call(TorchEngine, "_step", step, die)) == -signal.SIGKILL
    assert in_child(resolved, tmp_path / "run") == 0
    assert any(name.startswith("critic/optimizer:") for name in final(gan))
    assert_equal(tmp_path / "run", gan)
    assert results_of(tmp_path / "run") == results_of(gan)
