"""Wrong and odd input through the commands: what is said, with which exit code, and what stays."""

import html
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from short_run import SHORT, photos

import trunkline
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.weights import save_weights
from trunkline.cluster.checkpoint import read_tensors
from trunkline.pipelines.command.cli import main

pytestmark = pytest.mark.usefixtures("one_core")

HEADER = {"stride_in": "3x3", "classes": None, "preprocessing": Preprocessing()}


@pytest.fixture
def train(data, tmp_path, capsys):
    """Train on the copy: the exit code and what was said on stderr."""

    def go(*words: str, short=SHORT) -> tuple[int, str]:
        given = {w.partition("=")[0] for w in words}
        rest = [w for w in short if w.partition("=")[0] not in given]
        where = [] if any(w.startswith("data=") for w in words) else [f"data={data}"]
        code = main(["train", "transfer", *where, "--run", str(tmp_path / "run"), *words, *rest])
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return code, err

    return go


def one_update(run: Path) -> bool:
    return (run / "checkpoints").is_dir()


def test_a_missing_folder(train, data):
    code, err = train(f"data={data}/phtos")
    assert code == 2 and err.startswith(
        f"trunkline: {data}/phtos: there is no such folder; {data} holds scenes.json, train, val"
    )


def test_data_that_is_a_file_and_data_without_classes(train, data, tmp_path):
    assert "is a file; data= takes the folder" in train(f"data={photos(data)[0]}")[1]
    (tmp_path / "bare").mkdir()
    code, err = train(f"data={tmp_path}/bare")
    assert code == 2 and "holds no folders; expected" in err


def test_one_folder_of_classes_wants_val(train, data):
    code, err = train(f"data={data}/train")
    assert (
        code == 2 and "there is no val/ beside the class folders: give val=0.2 to hold out a fifth of each class" in err
    )


def test_an_empty_class(train, data, tmp_path):
    for split in ("train", "val"):
        (data / split / "zebra").mkdir()
    code, err = train()
    assert code == 2
    assert "train/zebra: the class holds no files" in err and "1 problem" in err
    assert not one_update(tmp_path / "run")


def test_hidden_files_and_folders_are_no_classes_and_no_photos(train, data, short_run, tmp_path):
    for place in (
        data / ".git",
        data / "train" / ".cache",
        data / "train" / "circle" / ".thumbs",
        data / "val" / "__MACOSX",
    ):
        place.mkdir()
        shutil.copy(photos(data)[0], place / "hidden.jpg")
    shutil.copy(photos(data)[0], data / "train" / "circle" / "._00001.jpg")
    assert train()[0] == 0
    mine, clean = trunkline.Run(tmp_path / "run"), trunkline.Run(short_run)
    for split in ("train", "val"):
        names = [(r.path / "data" / f"{split}.tsv").read_text() for r in (mine, clean)]
        assert "hidden" not in names[0] and "._" not in names[0]
        assert names[0].count("\n") == names[1].count("\n")
    assert mine.scores["top1"] == clean.scores["top1"] and mine.scores["nll"] == clean.scores["nll"]


def test_classes_that_differ_are_both_shown(train, data):
    shutil.rmtree(data / "val" / "ring")
    (data / "val" / "star").rename(data / "val" / "sun")
    code, err = train()
    lines = [line.strip() for line in err.splitlines()]
    assert code == 2
    assert "train/: arrow, circle, crescent, cross, flower, heart, ring, square, star, triangle (10)" in lines
    assert "val/: arrow, circle, crescent, cross, flower, heart, square, sun, triangle (9)" in lines
    assert "only in val/: sun (1)" in lines and "only in train/: ring, star (2)" in lines


@pytest.fixture
def stray(data) -> Path:
    file = data / "train" / "circle" / "stray.gif"
    Image.new("RGB", (8, 8)).save(file)
    return file


def test_a_stray_gif_stops_before_training(train, stray, tmp_path):
    code, err = train()
    assert code == 2
    assert "train/circle/stray.gif: is no photo by its name (suffix '.gif')" in err
    assert "on_bad_sample=skip leaves out files that cannot be used" in err
    assert not one_update(tmp_path / "run") and not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_stray_gif_is_left_out_and_listed_with_skip(train, stray, tmp_path):
    code, err = train("on_bad_sample=skip")
    assert code == 0 and "left out 1 sample: train/circle/stray.gif" in err
    excluded = json.loads((tmp_path / "run" / "excluded.json").read_text())
    assert excluded == {"train/circle/stray.gif": "is no photo by its name (suffix '.gif')"}
    assert "stray.gif" in (tmp_path / "run" / "report.html").read_text()
    assert "stray.gif" not in (tmp_path / "run" / "data" / "train.tsv").read_text()


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def undecodable(file: Path) -> None:
    file.write_text("this is no picture")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def sixteen_bits(file: Path) -> None:
    grey = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    Image.fromarray(grey).save(file, "PNG")


SPOILT = [
    (truncated, "damaged or cut off"),
    (undecodable, "no image of a known format"),
    (empty, "the file is empty"),
    (sixteen_bits, "it has 16 bits a channel where 8 are read"),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILT)
def test_a_photo_that_cannot_be_read_stops_with_its_name(train, data, spoil, told, tmp_path):
    victim = photos(data, "val")[3]
    spoil(victim)
    code, err = train()
    assert code == 2
    assert str(victim) in err and told in err and "on_bad_sample=skip leaves them out" in err
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_photos_that_cannot_be_read_are_left_out_with_skip(train, data, tmp_path):
    victims = [*photos(data)[::7][:3], photos(data, "val")[3]]
    for victim, (spoil, _) in zip(victims, SPOILT, strict=True):
        spoil(victim)
    code, err = train("on_bad_sample=skip")
    assert code == 0 and "left out 4 samples" in err
    excluded = json.loads((tmp_path / "run" / "excluded.json").read_text())
    assert set(excluded) == {v.relative_to(data).as_posix() for v in victims}
    assert all(told in excluded[v.relative_to(data).as_posix()] for v, (_, told) in zip(victims, SPOILT, strict=True))
    scores = trunkline.Run(tmp_path / "run").scores
    assert scores["samples"] == 19
    again = trunkline.evaluate(tmp_path / "run", loaders=0)
    assert again.metrics == {k: scores[k] for k in again.metrics}


def test_a_damaged_photo_in_training_stops_with_its_name(train, data):
    for victim in photos(data):
        truncated(victim)
    code, err = train()
    assert code == 2 and "/train/" in err and "on_bad_sample=skip leaves them out" in err


def test_a_class_of_which_no_photo_can_be_read(train, data):
    for victim in photos(data):
        if victim.parent.name in ("arrow", "circle"):
            truncated(victim)
    code, err = train("on_bad_sample=skip")
    assert code == 2 and "no file of train can be used for: arrow, circle" in err


def test_the_advice_can_be_followed_in_the_same_folder(train, stray, tmp_path):
    """A start that was refused claims nothing: no update was made."""
    assert train()[0] == 2
    code, err = train("on_bad_sample=skip")
    assert code == 0, err
    assert trunkline.Run(tmp_path / "run").recipe["resolved"]["tasks"]["classification"]["on_bad_sample"] == "skip"


def test_a_batch_larger_than_the_data(train):
    assert "batch.size=64 is larger than the 40 training samples: set batch=20" in train("batch=64")[1]
    assert train("batch=64")[0] == 2


def test_a_micro_batch_that_does_not_divide(train, tmp_path):
    code, err = train("micro_batch=3")
    assert code == 2 and "batch.micro=3 does not divide batch.size=8: choose one of [1, 2, 4, 8]" in err
    assert not (tmp_path / "run").exists()


def test_weights_that_are_missing(train, tmp_path):
    for name in ("no.safetensors", "no.pth"):
        code, err = train(f"weights={tmp_path}/{name}")
        assert code == 2 and f"{tmp_path}/{name}: no such file; expected a file of weights" in err
    code, err = train("weights=resnet81")
    assert (
        code == 2
        and "neither a file here nor a name of torchvision's or timm's weights" in err
        and "nearest: resnet18" in err
    )
    code, err = train(f"weights={tmp_path}")
    assert code == 2 and "holds no weights.safetensors; give a finished run's folder or a file" in err


def test_weights_of_another_architecture(train, short_run, tmp_path):
    code, err = train(f"weights={short_run}", "backbone=resnet34")
    assert code == 2 and "narrow" in err and "resnet34" in err
    assert not one_update(tmp_path / "run")


def test_a_checkpoint_without_a_classifier_cannot_be_appended_to(train, tmp_path):
    trunk = trunkline.backbone("narrow").state_dict()
    save_weights(
        tmp_path / "trunk.safetensors", {k: v for k, v in trunk.items() if not k.startswith("fc.")},
                 arch="narrow", **HEADER)  # fmt: skip
    code, err = train(f"weights={tmp_path}/trunk.safetensors", "backbone=none", "mode=append")
    assert code == 2 and "append=true keeps the weights' own classifier, and these weights have none" in err


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
def test_a_pickle_that_would_run_code_is_not_run(verb, train, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    file = tmp_path / "evil.pth"
    torch.save({"conv1.weight": torch.zeros(2), "state": Evil()}, file)
    words = {"evaluate": ["evaluate", str(file), f"data={data}"], "predict": ["predict", str(file), str(data)]}
    if verb == "train":
        code, err = train(f"weights={file}", "backbone=none")
    else:
        code, err = main(words[verb]), capsys.readouterr().err
    assert code == 2 and "no architecture can be read from its 1 tensors" in err and "Traceback" not in err
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists(), "the file would have run code"


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(train, tmp_path):
    code, err = train("updates=2", "checkpoints.updates=1")
    assert code == 0
    before = read_tensors(tmp_path / "run" / "checkpoints" / "000002" / "model.safetensors")
    code, err = train(f"weights={tmp_path / 'run'}", "backbone=none", "updates=6", "lr=1e30", "checkpoints.updates=1",
                      f"run={tmp_path / 'other'}")  # fmt: skip
    assert code == 2 and "given twice" in err  # a run has one name
    other = tmp_path / "other"
    code = main(["train", "transfer", f"data={tmp_path}/data", "--run", str(other), "updates=6", "lr=1e30",
                 "checkpoints.updates=1", *[w for w in SHORT if not w.startswith("updates")]])  # fmt: skip
    assert code == 2
    last = (other / "checkpoints" / "last").read_text()
    assert 1 <= int(last) < 6
    kept = read_tensors(other / "checkpoints" / last / "model.safetensors")
    assert all(torch.isfinite(t).all() for t in kept.values())
    assert not (other / "weights.safetensors").exists() and not list((other / "checkpoints").glob("*tmp*"))
    after = read_tensors(tmp_path / "run" / "checkpoints" / "000002" / "model.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_loss_that_is_not_finite_names_the_update_the_loss_and_the_samples(train, data):
    code, err = train("updates=6", "lr=1e30")
    assert code == 2
    assert "is not finite (classification/cross_entropy = " in err and "Try a lower optimizer.lr" in err
    assert "train/" in err.partition("Its 8 samples: ")[2]


def test_weights_that_are_not_finite_are_told_at_the_first_update(train, short_run, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(short_run / "weights.safetensors")
    tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_weights(tmp_path / "nan.safetensors", tensors, arch="narrow", **HEADER)
    code, err = train(f"weights={tmp_path}/nan.safetensors", "backbone=none")
    assert code == 2 and "not finite" in err
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_run_does_not_write_over_what_is_there(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    code, err = train()
    assert code == 2 and "holds no run (thesis.txt); choose another --run" in err
    assert [p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")] == ["thesis.txt"]


def test_names_of_classes_may_hold_anything(train, data, tmp_path, capsys):
    names = {"circle": "<script>alert(1)<", "star": "two words & more", "ring": "été 猫", "cross": "a=b,'c\""}
    for split in ("train", "val"):
        for old, new in names.items():
            (data / split / old).rename(data / split / new)
    assert train()[0] == 0
    run = trunkline.Run(tmp_path / "run")
    report = run.report.read_text()
    assert "<script>alert(1)<" not in report and html.escape("<script>alert(1)<", quote=False) in report
    assert trunkline.evaluate(run.weights, data=data, loaders=0).metrics["top1"] == run.scores["top1"]
    found = trunkline.predict(run.weights, data / "val" / "été 猫", top=10)
    assert all({name for name, _ in p.top} > set(names.values()) for p in found)
    assert len(found) == len(list((data / "val" / "été 猫").iterdir()))


def test_a_group_pattern_keeps_what_belongs_together_on_one_side(train, data, tmp_path):
    whole = tmp_path / "whole"
    for i, file in enumerate(photos(data)):
        (whole / file.parent.name).mkdir(parents=True, exist_ok=True)
        for shot in (0, 1):
            shutil.copy(file, whole / file.parent.name / f"p{i // 2:02d}_{i % 2}{shot}.jpg")
    code, err = train(f"data={whole}", "val=0.25", r"group=/(p\d+)_")
    assert code == 0, err

    def people(split: str) -> set[str]:
        lines = (tmp_path / "run" / "data" / f"{split}.tsv").read_text().splitlines()
        return {part.split("/")[1][:3] for line in lines for part in line.split("\t") if "/p" in part}

    assert people("train") and people("val") and not people("train") & people("val")
    code, err = train(f"data={whole}", "val=0.25", "group=([0-9", f"seed={1}")
    assert code == 2
    shutil.rmtree(tmp_path / "run")
    code, err = train(f"data={whole}", "val=0.25", "group=([0-9")
    assert code == 2 and "no valid regular expression" in err


def test_a_group_pattern_that_misses_files_names_some(train, data):
    code, err = train(f"data={data}/train", "val=0.25", r"group=/(p\d+)_")
    assert code == 2 and "does not match 40 of 40 files, such as arrow/" in err
