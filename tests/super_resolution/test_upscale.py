"""Super-resolution from pictures to files: train, resume, evaluate, predict, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from upscaler_work import SHORT, train

import trunkline
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


def test_names_and_contents_of_files_agree(run, scenes, tmp_path, capsys):
    given, formats = (
        scenes / "val/00000.png",
        {"png": "PNG", ".JPG": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP"},
    )
    for ext, format in formats.items():
        (made,) = trunkline.predict(run, given, out=tmp_path / "out", ext=ext, suffix="_x4")
        file = tmp_path / "out" / f"00000_x4.{ext.lower().lstrip('.')}"
        with Image.open(file) as opened:
            assert opened.format == format and made.ext == file.suffix[1:]
    for quality in (20, 95):
        assert (
            main(["predict", str(run), str(given), f"out={tmp_path / str(quality)}", "ext=jpg", f"quality={quality}"])
            == 0
        )
    small, large = ((tmp_path / quality / "00000.jpg").stat().st_size for quality in ("20", "95"))
    assert small < large / 2
    before = read_picture(given).look
    (made,) = trunkline.predict(run, given, outscale=1.5, ext="webp")  # without a folder
    assert made.ext == "webp" and (made.height, made.width) == (before.height * 1.5, before.width * 1.5)
    stored = json.loads((run / "recipe.json").read_text())["resolved"]["tasks"]["super_resolution"]
    assert not {"suffix", "ext", "quality", "outscale"} & stored.keys()
    capsys.readouterr()
    for key in ("suffix=_x", "ext=png", "quality=9", "outscale=2"):
        assert train(scenes, tmp_path / "r", f"tasks.super_resolution.{key}") == 2
        assert main(["evaluate", str(run), key]) == 2
        assert "".join(capsys.readouterr()).count("there is no such") == 2
    wrong = {"quality=0": "expected 1 to 100", "ext=gif": "ext=.gif: expected", "outscale=0": "a number above 0",
             "suffix=a/b": "without slashes", "suffix=_x4": "needs out=FOLDER"}  # fmt: skip
    for setting, said in wrong.items():
        assert main(["predict", str(run), str(given), setting]) == 2 and said in capsys.readouterr().err


def test_a_folder_holds_pictures_of_one_kind(run, scenes, tmp_path, capsys):
    call, out = ["predict", str(run), str(scenes / "val"), f"out={tmp_path / 'out'}"], tmp_path / "out"
    assert main([*call, "outscale=3"]) == 0
    (out / "00001.png").unlink()
    assert main(call) == 2
    assert "begun with other settings (outscale=None now, 3.0 there)" in capsys.readouterr().err
    other = min(folder.name for folder in (run / "checkpoints").glob("0*"))
    assert main([*call, "outscale=3", f"checkpoint={other}"]) == 2
    said = capsys.readouterr().err
    assert f"the weights of {run} are others than those that made what is there" in said
    assert f"checkpoint={other} now, 000004 there" in said and not (out / "00001.png").exists()
    assert main([*call, "outscale=3", "checkpoint=000004"]) == 0 and (out / "00001.png").exists()
    settings = out / "settings.json"
    settings.write_bytes(settings.read_bytes()[:-9])
    assert main([*call, "outscale=3"]) == 2
    assert f"{settings}: is damaged" in (said := capsys.readouterr().err) and "delete the folder, or choose" in said


def test_other_weights_under_the_same_name_are_refused(run, scenes, tmp_path, capsys):
    file, out = tmp_path / "x4.safetensors", tmp_path / "out"
    call = ["predict", str(file), str(scenes / "val"), f"out={out}"]
    shutil.copy(run / "weights.safetensors", file)
    assert main(call) == 0
    (out / "00001.png").unlink()
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    tensors = load_file(file)
    tensors["conv_last.bias"][0] += 1e-3
    save_file(tensors, file, header)
    capsys.readouterr()
    assert main(call) == 2 and not (out / "00001.png").exists()
    assert f"({'the weights of'} {file} are others than those that made what is there)" in capsys.readouterr().err
    shutil.copy(run / "weights.safetensors", file)
    assert main([*call, "batch=2"]) == 0 and (out / "00001.png").exists()


def test_names_that_predict_needs_itself_are_refused_before_the_first_picture(run, scenes, tmp_path, capsys):
    given, out = tmp_path / "in", tmp_path / "out"
    (given / "pictures").mkdir(parents=True)
    for name in ("sheet.png", "a.png", "pictures/b.png"):
        shutil.copy(scenes / "val/00000.png", given / name)
    assert main(["predict", str(run), str(given), f"out={out}", "pictures=true"]) == 2
    said = capsys.readouterr().err
    assert f"sheet.png: would become {out}/sheet.png, and there the contact sheet is drawn; give suffix=" in said
    assert f"b.png: would become {out}/pictures/b.png, and there lies what pictures=true draws" in said
    assert not out.exists()
    shutil.rmtree(given / "pictures")
    assert main(["predict", str(run), str(given), f"out={out}", "pictures=true", "suffix=_x4"]) == 0
    assert sorted(f.name for f in out.glob("*.png")) == ["a_x4.png", "sheet.png", "sheet_x4.png"]


def test_what_was_not_made_here_is_not_taken_for_a_result(run, scenes, tmp_path, capsys):
    given, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(scenes / "val", given)
    out.mkdir()
    assert main(["predict", "bicubic", str(given), "scale=4", f"out={out}"]) == 0
    capsys.readouterr()
    wrong = {
        out: f"{out}/00000.png: is there already, and no line of predictions.jsonl says that it was made here",
        given: f"{given}/00000.png: would become {given}/00000.png, which is read",
    }
    for folder, said in wrong.items():
        before = sorted(folder.iterdir())
        assert main(["predict", str(run), str(given / "00000.png"), f"out={folder}"]) == 2
        assert said in capsys.readouterr().err and sorted(folder.iterdir()) == before
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "00000.png").symlink_to(tmp_path / "nowhere")
    assert main(["predict", str(run), str(given), f"out={odd}"]) == 2
    assert f"{odd}/00000.png: is no file, or a link that leads nowhere" in capsys.readouterr().err
    made = tmp_path / "made"
    assert main(["predict", str(run), str(given), str(given / "00000.png"), f"out={made}"]) == 0
    shutil.copytree(given, tmp_path / "two")
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "two"), f"out={made}"]) == 2
    assert f"was made of {given}/00000.png, and {tmp_path}/two/00000.png would become it" in capsys.readouterr().err


def test_what_was_made_and_what_failed_is_counted(run, scenes, tmp_path, capsys):
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    (given / "bad.png").write_bytes(b"no picture")
    call = ["predict", str(run), str(given), f"out={out}"]
    assert main(call) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"wrote 0 images to {out} and predictions.jsonl; 1 image failed" in said and not (out / "sheet.png").exists()
    shutil.copy(scenes / "val/00000.png", given / "good.png")
    assert main([*call, "--json"]) == 2
    shown = capsys.readouterr()
    assert f"wrote 1 image to {out}, predictions.jsonl and sheet.png; 1 image failed" in " ".join(shown.err.split())
    bad, good = (json.loads(line) for line in shown.out.splitlines())
    assert "error" in bad and good["width"] == 256 and "content" not in good
    assert main([*call[:-1], "--json"]) == 2
    assert "content" in json.loads(capsys.readouterr().out.splitlines()[1])
    (made,) = api.predict(run, given / "good.png")
    assert made.caption() == "good.png: 256 x 256, bicubic | made"


def test_settings_that_predict_or_a_run_does_not_read_are_refused(run, scenes, tmp_path, capsys):
    wrong = {"edge=2": "only scores read it", "grey=own": "only scores read it", "more=gmsd": "only scores read it",
             "backbone=msrresnet": "which says it itself; leave backbone out", "crop=64": "only training reads it",
             "stride_in=3x3": "which says it itself; leave stride_in out"}  # fmt: skip
    for setting, said in wrong.items():
        assert main(["predict", str(run), str(scenes / "val"), setting]) == 2 and said in capsys.readouterr().err, (
            setting
        )
    small = tmp_path / "data"
    shutil.copytree(scenes / "val", small / "val")
    Image.new("RGB", (8, 8)).save(small / "val/small.png")
    call = ["evaluate", str(run), f"data={small}", "loaders=0", "on_bad_sample=skip"]
    assert main([*call, "edge=2"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "left out 1 sample that cannot be used: val/small.png: is 8 x 8 pixels; expected sides of at least" in said
    assert main([*call, "edge=30"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{small}/val/00000.png: 64 x 64 pixels are too few: without a border of 30 pixels (edge=)" in said
    assert main([*call, "border=2"]) == 2
    assert "border=2: expected one of mirror, replicate; edge= says how many pixels" in capsys.readouterr().err


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
    smoke = {"data": "x", "val": "0.3", "smoke": True}
    assert all(
        resolve(n, smoke).recipe.tasks["super_resolution"].val == "0.3" for n in ("srresnet", "msrgan", "upscale")
    )
    assert resolve("srresnet", smoke | {"data": ""}).recipe.tasks["super_resolution"].val == ""
    with pytest.raises(RecipeError, match="backbone=True"):
        resolve("upscale", {"data": "x", "backbone": True})
    assert resolve("upscale", {"data": "x", "smoke": True, "batch": 3, "crops": 3}).recipe.batch.size == 3


def test_the_maps_network_is_read_before_the_first_update(scenes, tmp_path, capsys):
    words = ("updates=2", "adversarial=2", "tasks.super_resolution.adversarial.width=4")
    assert train(scenes, tmp_path / "r", *words, "perceptual=gone.pth") == 2
    said = "".join(capsys.readouterr())
    assert "perceptual=gone.pth: gone.pth: no such file" in said and not (tmp_path / "r").exists()
    assert (
        main(
            [
                "train",
                "srgan",
                f"data={scenes}",
                "weights=none",
                "vgg=no.pth",
                "updates=1",
                "batch=2",
                "--run",
                str(tmp_path / "s"),
            ]
        )
        == 2
    )
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
    with pytest.raises(RecipeError, match="^none: is no weights"):
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
