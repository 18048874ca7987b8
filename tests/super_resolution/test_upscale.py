"""Super-resolution from pictures to files: train, resume, evaluate, predict, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from upscaler_work import SHORT, train

from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.super_resolution.files import Picture, read_picture, write_picture
from trunkline.tasks.super_resolution.resize import shrunk


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
    assert "left as they are" in again(source, small, out, capsys)
    (out / "00001.png").unlink()
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("0*.png")}
    assert "2 of 3 are in" in again(source, small, out, capsys)
    assert {n: t for n, t in ((f.name, f.stat().st_mtime_ns) for f in out.glob("0*.png")) if n in before} == before


def again(run, small, out, capsys):
    assert main(["predict", str(run), str(small), f"out={out}"]) == 0
    return "".join(capsys.readouterr())


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
        (("batch=5", "crops=2"), "batch=5: expected a multiple of crops=2, such as batch=4, or crops=1"),
        (("batch=2", "crops=4"), "batch=2: expected a multiple of crops=4, such as batch=4, or crops=2"),
        (("crops=0",), "crops=0: expected a whole number from 1 to 64"),
        (("adversarial=-1",), "adversarial=-1: expected a whole number of updates"),
        (("backbone=rrdbnet", "scale=3"), "scale=3: rrdbnet enlarges by 1, 2 or 4"),
        (("tasks.super_resolution.l1=0",), "tasks.super_resolution.l1=0: mse and charbonnier are 0 too"),
        (("weights=nothing.pth",), "weights=nothing.pth: no such file"),
        (
            (
                "adversarial=3",
                "tasks.super_resolution.adversarial.warmup=3",
                "tasks.super_resolution.adversarial.width=4",
            ),
            "phases.1 (adversarial): has 3 updates, and warmup=3 of the task super_resolution lets the generator wait",
        ),
        (
            ("adversarial=3", "players.critic.optimizer.name=sgdd"),
            "players.critic.optimizer.name='sgdd' is not an optimizer",
        ),
        (("val=1.5",), "val=1.5: expected a folder below data, or a share to hold out"),
        (("tasks.super_resolution.more=ssim",), "more=ssim: expected of ms_ssim, haarpsi"),
        (("scale=9",), "scale=9: expected a whole number from 1 to 8"),
    ],
)
def test_wrong_settings_are_told(scenes, tmp_path, capsys, given, said):
    words = [w for w in SHORT if w.partition("=")[0] not in {g.partition("=")[0] for g in given}]
    assert main(["train", "upscale", f"data={scenes}", *words, *given, "updates=1", "--run", str(tmp_path / "r")]) == 2
    assert said in "".join(capsys.readouterr()) and not (tmp_path / "r").exists()


def test_lengths_are_told_by_the_names_of_their_knobs(scenes, tmp_path, capsys):
    for given in ("updates=-1", "epochs=0"):
        assert main(["train", "upscale", f"data={scenes}", given, "--run", str(tmp_path / "r")]) == 2
        assert f"{given}: expected a" in capsys.readouterr().err


def test_keys_that_are_right_are_not_told_beside_a_mistake():
    """Of what the recipe has against a critic alone, while another knob is wrong or this one is."""
    keys = {"players.critic.optimizer.lr": "1e-4", "tasks.super_resolution.adversarial.width": "8"}
    for knobs in ({"adversarial": "5", "batch": "5", "crops": "2"}, {"adversarial": "many"}, {"adversarial": "-1"}):
        with pytest.raises(RecipeError) as caught:
            resolve("upscale", {"data": "x", **knobs, **keys, "players.critc.optimizer.lr": "1"})
        told = str(caught.value)
        assert "players.critc.optimizer.lr=1: there is no such setting" in told and len(caught.value.problems) == 2
        assert not any(f"{key}=" in told for key in keys)


def test_a_share_may_be_a_number():
    for name in ("upscale", "srresnet", "msrresnet"):
        for value in (0.3, "0.3", np.float64(0.3)):
            assert resolve(name, {"data": "x", "val": value}).recipe.tasks["super_resolution"].val == "0.3"
    for name in ("detect", "segment"):
        assert any(o.val == ("0.3",) for o in resolve(name, {"data": "x", "val": 0.3}).recipe.tasks.values())
    smoke = {"data": "x", "val": "0.3", "smoke": True}
    assert all(
        resolve(n, smoke).recipe.tasks["super_resolution"].val == "0.3" for n in ("srresnet", "msrgan", "upscale")
    )
    assert resolve("srresnet", smoke | {"data": ""}).recipe.tasks["super_resolution"].val == ""
    with pytest.raises(RecipeError, match="backbone=True"):
        resolve("upscale", {"data": "x", "backbone": True})
    assert (
        resolve("upscale", {"data": "x", "smoke": True, "batch": 3, "crops": 3}).recipe.batch.size == 1
    )  # of three squares


def test_the_maps_network_is_read_before_the_first_update(scenes, tmp_path, capsys):
    words = ("updates=2", "adversarial=2", "tasks.super_resolution.adversarial.width=4")
    assert train(scenes, tmp_path / "r", *words, "perceptual=gone.pth") == 2
    said = "".join(capsys.readouterr())
    assert "perceptual=gone.pth: no such file" in said and not (tmp_path / "r").exists()
    words = ["weights=none", "vgg=no.pth", "updates=1", "batch=2", "--run", str(tmp_path / "s")]
    assert main(["train", "srgan", f"data={scenes}", *words]) == 2
    assert "perceptual=no.pth: no such file, and no name of VGG-19's" in capsys.readouterr().err


def test_a_run_that_stopped_gives_its_last_checkpoint(scenes, run, tmp_path, capsys):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    (half / "weights.safetensors").unlink()
    found = api.convert("weights", half, out=tmp_path / "half.pth")
    assert str(found).endswith(f"from {half} (not ended: the averaged weights of its checkpoint 000004)")
    api.convert("weights", run, out=tmp_path / "run.pth")
    one, two = (torch.load(tmp_path / f"{n}.pth", weights_only=True)["params_ema"] for n in ("run", "half"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
    assert train(scenes, tmp_path / "on", f"weights={half}", "updates=1") == 0
    assert "the averaged weights of its checkpoint 000004" in (tmp_path / "on/load.json").read_text()
    capsys.readouterr()
    for words in (["upscale", "backbone=edsr"], ["srgan", "vgg=none"]):
        assert main(["train", *words, f"data={scenes}", f"weights={half}", "--run", str(tmp_path / "r")]) == 2
        other = "edsr" if "edsr" in words[1] else "srresnet"
        assert (
            f"backbone=msrresnet by the file, backbone={other} asked for; give weights of {other}"
            in capsys.readouterr().err
        )
    shutil.rmtree(half / "checkpoints")
    for source, said in ((half, "a run that has saved nothing yet"), (scenes, "no run")):
        with pytest.raises(RecipeError, match=f"^{source}: that folder holds no weights.* {said}"):
            api.convert("weights", source, out=tmp_path / "no.pth")
    with pytest.raises(RecipeError, match=r"^none: is no weights"):
        api.convert("weights", "none", out=tmp_path / "no.pth")


def test_bicubics_score_stands_in_notes_and_report(scenes, run, tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    for file in (scenes / "val").iterdir():
        write_picture(small / file.name, Picture(shrunk(read_picture(file).pixels, 4)))
    assert main(["predict", "bicubic", str(small), "scale=4", f"out={large}"]) == 0
    scored = api.score("images", scenes / "val", large, scale=4).metrics["psnr_y"]
    line = f"bicubic has psnr_y {scored:.2f} dB on these 3 pictures"
    notes = [json.loads(text).get("text") for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert notes.count(line) == 1 and line in (run / "report.html").read_text()


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
