"""Odd input to `evaluate` and `predict`: what is said, with which exit code, and that the rest is done."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from short_run import photos

from trunkline.pipelines.command.cli import main
from trunkline.pipelines.prediction.predict import stream

pytestmark = pytest.mark.usefixtures("one_core")


def undecodable(file: Path) -> None:
    file.write_text("this is no picture")


def sixteen_bits(file: Path) -> None:
    grey = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    Image.fromarray(grey).save(file, "PNG")


def test_evaluate_of_a_weights_file_asks_for_data(short_run, scenes, capsys):
    assert main(["evaluate", str(short_run / "weights.safetensors")]) == 2
    assert "a weights file does not say which data: give data=FOLDER" in capsys.readouterr().err
    assert (
        main(["evaluate", str(short_run / "weights.safetensors"), f"data={scenes}", "checkpoint=best", "loaders=0"])
        == 2
    )
    assert "is a file; checkpoint= and ema= are for runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoint=000007"], r"has no checkpoint '000007'; there are 000002"),
        (["ema=true"], "keeps no averaged weights (average.decay is 0); leave ema=true out"),
        (["data=absent"], "absent: there is no such folder"),
    ],
)
def test_evaluate_of_a_run_says_what_is_not_there(short_run, words, told, capsys):
    assert main(["evaluate", str(short_run), *words]) == 2
    assert told in capsys.readouterr().err


def test_evaluate_and_predict_of_nothing(tmp_path, capsys):
    for words in (["evaluate", str(tmp_path)], ["predict", str(tmp_path), "photo.jpg"]):
        (tmp_path / "photo.jpg").write_text("")
        assert main([*words[:2], *(str(tmp_path / w) for w in words[2:])]) == 2
        assert f"{tmp_path}/recipe.json: not there; is {tmp_path} a run's folder" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "no.safetensors"), "data=x"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_data_of_other_classes_than_the_checkpoints(short_run, data, capsys):
    for split in ("train", "val"):
        (data / split / "star").rename(data / split / "sun")
    assert main(["evaluate", str(short_run), f"data={data}", "loaders=0"]) == 2
    err = capsys.readouterr().err
    assert "the classes of the checkpoint and val/ differ" in err
    assert "only in val/: sun" in err and "only in the checkpoint: star" in err


def test_predict_says_every_input_that_finds_nothing(short_run, tmp_path, capsys):
    (tmp_path / "void").mkdir()
    inputs = [str(tmp_path / name) for name in ("no.jpg", "void", "*.png")]
    assert main(["predict", str(short_run), *inputs]) == 2
    err = capsys.readouterr().err
    assert [line.split(": ")[-2] for line in err.splitlines()] == inputs
    assert err.count("there is no such file, no photo in that folder, and nothing that this pattern matches") == 3


def test_predict_does_the_rest_where_files_are_damaged(short_run, data, tmp_path, capsys):
    folder = data / "val" / "circle"
    shutil.copy(photos(data)[0], folder / "b.jpg")
    good = sorted(folder.iterdir())
    undecodable(folder / "a.jpg")
    sixteen_bits(folder / "z.png")
    assert main(["predict", str(short_run), str(folder), "batch=2", f"out={tmp_path}/out", "--json"]) == 2
    out, err = capsys.readouterr()
    lines = {line["file"]: line for line in map(json.loads, out.splitlines())}
    assert set(lines) == {str(p) for p in [*good, folder / "a.jpg", folder / "z.png"]}
    assert {f for f, line in lines.items() if "error" in line} == {str(folder / "a.jpg"), str(folder / "z.png")}
    assert all(lines[str(p)]["label"] for p in good)
    assert str(folder / "a.jpg") in err and "16 bits a channel" in err and "Traceback" not in err
    written = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert written == list(lines.values())
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert rows[0] == "file,label,confidence,error" and len(rows) == 1 + len(lines)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 200
    assert main(["predict", str(short_run), str(folder), "on_bad_sample=stop"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "a.jpg: it is no image" in err


def test_predict_takes_files_globs_and_odd_names_each_once(short_run, data, capsys):
    folder = data / "odd [folder]"
    folder.mkdir()
    names = ["a=b.jpg", "é ü.jpg", "[1].jpg", "<b>.jpg"]
    for name in names:
        shutil.copy(photos(data)[0], folder / name)
    words = [str(folder), str(folder / "[1].jpg"), str(folder / "a=b.jpg")]
    assert main(["predict", str(short_run), *words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [str(folder / n) for n in sorted(names)]
    assert len({json.dumps(line["top"]) for line in lines}) == 1
    assert main(["predict", str(short_run), f"{data}/val/c*/*.jpg", "--json"]) == 0
    found = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert found == [str(p) for p in photos(data, "val") if p.parent.name.startswith("c")]


def test_predict_does_not_write_over_what_is_there(short_run, data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        assert main(["predict", str(short_run), str(photos(data)[0]), f"out={out}"]) == 2
        assert f"out={out}: is there already and not empty; choose another folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_prediction_goes_on_with_the_folder_that_it_was_begun_with(short_run, data, tmp_path, capsys, monkeypatch):
    for number, folder in enumerate("AB"):
        (tmp_path / folder / "photos").mkdir(parents=True)
        for name in ("x.jpg", "y.jpg"):
            shutil.copy(photos(data)[number], tmp_path / folder / "photos" / name)
    monkeypatch.chdir(tmp_path / "A")
    begun = stream(short_run, "photos", out=tmp_path / "out", batch=1)
    next(begun)
    begun.close()
    call = ["predict", str(short_run), "photos", f"out={tmp_path / 'out'}", "batch=1"]
    monkeypatch.chdir(tmp_path / "B")
    assert main(call) == 2
    assert f"(inputs={tmp_path}/B/photos now, {tmp_path}/A/photos there)" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "A")
    assert main(call) == 0 and len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 2


def test_a_photo_with_the_longest_name_is_drawn(short_run, data, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(photos(data)[0], tmp_path / "in" / f"{'n' * 251}.jpg")
    call = ["predict", str(short_run), str(tmp_path / "in"), f"out={tmp_path / 'out'}", "pictures=true"]
    assert main(call) == 0
    (drawn,) = (tmp_path / "out/pictures").iterdir()
    assert drawn.name.startswith("000000-nnn") and len(drawn.name) == 255


@pytest.mark.parametrize("name", ["truncated_jpeg.jpg", "truncated_image.png", "mode_16bit.png"])
def test_the_awkward_real_ones(name, shared_data, short_run, capsys):
    file = shared_data / "awkward" / name
    assert main(["predict", str(short_run), str(file), "--json"]) == 2
    assert file.name in json.loads(capsys.readouterr().out)["error"]
