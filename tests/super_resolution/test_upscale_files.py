"""What predict makes of pictures: files, their names, and folders that hold them."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from upscaler_work import train

import trunkline
from trunkline.ground.errors import RecipeError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.tasks.super_resolution.files import Picture, read_picture, write_picture


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
    capsys.readouterr()
    other = shutil.copytree(given, tmp_path / "two")
    assert main(["predict", str(run), str(other), f"out={made}"]) == 0  # other paths, the same pictures
    assert "3 of 3 are in" in " ".join(capsys.readouterr().err.split())
    shutil.copy(given / "00001.png", other / "00000.png")
    assert main(["predict", str(run), str(other), f"out={made}"]) == 2
    assert f"was made of {given}/00000.png, and {other}/00000.png, another picture," in capsys.readouterr().err


def said(capsys):
    """What was said since it was last asked for, on one line."""
    return " ".join(capsys.readouterr().err.split())


def test_pictures_of_one_relative_path_in_two_folders_are_not_taken_for_each_other(
    run, scenes, tmp_path, capsys, monkeypatch
):
    call = ["predict", str(run), "photos", f"out={tmp_path / 'out'}"]
    for number, folder in enumerate("AB"):
        (tmp_path / folder / "photos").mkdir(parents=True)
        shutil.copy(scenes / f"val/0000{number}.png", tmp_path / folder / "photos/x.png")
        (tmp_path / folder / "photos/bad.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path / "A")
    assert main(call) == 2  # bad.png
    made = (tmp_path / "out/x.png").read_bytes()
    monkeypatch.chdir(tmp_path / "B")
    said(capsys)
    assert main(call) == 2 and f"was made of {tmp_path}/A/photos/x.png, and photos/x.png, another" in said(capsys)
    (tmp_path / "B/photos/x.png").unlink()
    assert main(call) == 2 and (tmp_path / "out/x.png").read_bytes() == made
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [line["source"]["path"] for line in lines if "error" in line] == [
        f"{tmp_path}/{folder}/photos/bad.png" for folder in "AB"
    ]


def test_results_of_pictures_that_changed_since_and_damaged_results_are_told(run, scenes, tmp_path, capsys):
    given, out = shutil.copytree(scenes / "val", tmp_path / "in"), tmp_path / "out"
    call = ["predict", str(run), str(given), f"out={out}"]
    assert main(call) == 0
    whole, made = (given / "00001.png").read_bytes(), (out / "00001.png").read_bytes()
    for size in ((40, 36), (64, 64)):
        Image.new("RGB", size, "red").save(given / "00001.png")
        assert main(call) == 2
        assert f"{out}/00001.png: was made of {given}/00001.png before that picture changed; remove it" in said(capsys)
    (given / "00001.png").write_bytes(whole[: len(whole) // 2])
    (out / "00000.png").unlink()
    assert main(call) == 0  # a source that is damaged later costs its cell of the sheet alone
    words = said(capsys)
    assert f"{out}/00001.png, which was made of it before, is left as it is" in words
    assert f"{given}/00001.png: the PNG is cut off" in words and "it has no place on the contact sheet" in words
    assert (out / "00001.png").read_bytes() == made and (out / "00000.png").exists()
    (given / "00001.png").write_bytes(whole)
    for content, wrong in ((b"", "the file is empty"), (whole, "has 64 x 64 pixels now, not 256 x 256")):
        (out / "00001.png").write_bytes(content)
        assert main(call) == 2
        assert f"{out}/00001.png: was made here before, and {wrong}; remove it" in said(capsys)
    (out / "00001.png").write_bytes(made[:-40])  # its beginning says nothing wrong
    (out / "sheet.png").unlink()
    assert main(call) == 0 and f"what was made of {given}/00001.png: the PNG is cut off" in said(capsys)
    (out / "00001.png").unlink()
    assert main(call) == 0 and (out / "00001.png").read_bytes() == made


def test_lines_without_settings_or_marks_are_refused(run, scenes, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["predict", str(run), str(scenes / "val"), f"out={out}"]
    assert main(call) == 0
    stored = (out / "settings.json").read_bytes()
    (out / "settings.json").unlink()
    (out / "00001.png").unlink()
    for more in ([], ["ensemble=true"]):
        assert main([*call, *more]) == 2
        assert f"{out}/settings.json: is missing, so nothing says how the pictures beside it were" in said(capsys)
    assert not (out / "00001.png").exists() and not (out / "settings.json").exists()
    (out / "settings.json").write_bytes(stored)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    old = [json.dumps({key: value for key, value in line.items() if key != "source"}) + "\n" for line in lines]
    (out / "predictions.jsonl").write_text("".join(old))
    assert main(call) == 2
    assert f"{out}/00000.png: was made by an earlier version, and its line in predictions.jsonl does" in said(capsys)
    for name in ("00000.png", "00002.png"):
        (out / name).unlink()
    assert main(call) == 0 and len([*out.glob("0*.png")]) == 3


def test_names_as_long_as_a_file_system_takes_are_made(run, scenes, tmp_path, capsys):
    given = tmp_path / "in"
    given.mkdir()
    shutil.copy(scenes / "val/00000.png", given / f"{'n' * 251}.png")
    shutil.copy(scenes / "val/00000.png", given / "short.png")
    models = {
        "model": ["predict", str(run), str(given), "pictures=true"],
        "bicubic": ["predict", "bicubic", str(given), "scale=4"],
    }
    for name, call in models.items():
        out = tmp_path / name
        assert main([*call, f"out={out}"]) == 0
        assert {f.name for f in out.glob("[ns]*.png")} >= {f"{'n' * 251}.png", "short.png"}
        assert not [*out.glob(".*")]
        other = tmp_path / f"{name}-suffix"
        assert main([*call, f"out={other}", "suffix=_x4"]) == 2 and not other.exists()
        assert "nnn.png: would become a file with a name of 258 bytes, and 255 is the most: give a" in said(capsys)
    drawn = {len(f.name) for f in (tmp_path / "model/pictures").iterdir()}
    assert drawn == {255, len("short.png.png")}


def test_odd_names_keep_their_row_of_the_table(run, scenes, tmp_path, capsys):
    names = {"a\nb.png": "a\\nb.png", os.fsdecode(b"c\xff.png"): "c\\udcff.png", "plain.png": "plain.png"}
    for name in names:
        shutil.copy(scenes / "val/00000.png", tmp_path / name)
    assert main(["predict", str(run), str(tmp_path), "threads=1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4 and len({row.rstrip().rindex("256") for row in rows[1:]}) == 1
    assert [row.split()[0] for row in rows[1:]] == [f"{tmp_path}/{name}" for name in names.values()]


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


def test_bicubic_is_no_run_where_its_own_results_lie(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "bicubic", str(scenes / "val"), "scale=2", "out="]) == 2 and not [*tmp_path.iterdir()]
    assert "out= is missing" in said(capsys)
    for _ in range(2):
        assert main(["predict", "bicubic", str(scenes / "val"), "scale=2", "out=bicubic"]) == 0
    assert len([*(tmp_path / "bicubic").glob("*.png")]) == 3
