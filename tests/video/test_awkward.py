"""Awkward videos at the level of commands: each is refused by name, left out and listed, or read as the documentation says."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import X264, damaged, sound, two_streams, untold, write

from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.prediction.predict import stream
from trunkline.tasks.samples import Sample
from trunkline.tasks.video import task as task_module
from trunkline.tasks.video import transforms
from trunkline.tasks.video.options import Options

SMALL = ["weights=none", "backbone=narrow", "size=32", "frames=4", "batch=4", "updates=1", "machine.threads=1",
         "machine.loaders=0"]  # fmt: skip
QUICK = {"codec": "mpeg4", "n": 10, "size": (48, 32)}


def cut(path):
    path.write_bytes(write(path, **QUICK).read_bytes()[:800])
    return path


BAD = {  # name: how it is made, and what is said of it
    "empty.mp4": (lambda path: path.touch(), "the file is empty"),
    "sound.mp4": (sound, "holds no moving pictures (audio)"),
    "cut.mp4": (cut, "is no video that FFmpeg can open"),
    "text.mp4": (lambda path: path.write_text("frames " * 300), "is no video that FFmpeg can open"),
}
GOOD = {  # name: how it is made, its seconds (the last frame is shown as long as most), and what is remarked
    "short.mp4": (lambda path: write(path, **QUICK | {"n": 1}), 0.04, ""),
    "varying.mp4": (lambda path: write(path, n=12, stamps=np.cumsum(np.arange(12) % 3 + 1).tolist(), **X264), 1.0, ""),
    "turned.mp4": (lambda path: write(path, n=12, angle=90), 0.48, ""),
    "askew.mp4": (lambda path: write(path, n=12, angle=-30), 0.48, "is to be turned by 30 degrees"),
    "ten.mp4": (lambda path: write(path, n=12, pixels="yuv420p10le"), 0.48, ""),
    "untold.mkv": (untold, 0.2, ""),
    "two.mp4": (two_streams, 0.48, "holds 2 picture streams: FFmpeg's best one is read, number"),
    "damaged.mp4": (lambda path: damaged(path, 6), 0.48, "1 of 12 packets does not decode"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def clips(root):
    for split, n in (("train", 3), ("val", 2)):
        for number, name in enumerate("xy"):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                write(root / split / name / f"{i}.mp4", **QUICK | {"n": 10 + i + 3 * number + (7 if n == 2 else 0)})
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return clips(tmp_path_factory.mktemp("good") / "data")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    root = clips(tmp_path_factory.mktemp("spoilt") / "data")
    for name, (make, _) in BAD.items():
        make(root / ("val" if name == "sound.mp4" else "train") / "x" / name)
    return root


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", "action", f"data={data}", *SMALL, "--run", str(folder)]) == 0
    return folder


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_clips_that_cannot_be_used_stop_training_by_name_before_it_begins(spoilt, tmp_path, capfd):
    assert main(["train", "action", f"data={spoilt}", *SMALL, "--run", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert "3 of 9 clips cannot be used" in said and "on_bad_sample=skip leaves them out" in said
    assert all(f"train/x/{name}: {what}" in said for name, (_, what) in BAD.items() if name != "sound.mp4")
    assert "Traceback" not in said and not (tmp_path / "run").exists()


def test_one_stops_an_evaluation_by_name(run, spoilt, capfd):
    assert main(["evaluate", str(run), f"data={spoilt}", "threads=1", "loaders=0"]) == 2
    said = capfd.readouterr().err
    assert "val/x/sound.mp4: holds no moving pictures (audio)" in said and "on_bad_sample=skip" in said


@pytest.mark.parametrize("more", [[], ["folds=2"]])
def test_what_is_skipped_is_left_out_counted_and_listed(spoilt, tmp_path, capfd, more):
    run = tmp_path / "run"
    words = [f"data={spoilt}", *SMALL, *more, "on_bad_sample=skip", "--run", str(run)]
    assert main(["train", "action", *words]) == 0
    left = json.loads((run / "excluded.json").read_text())
    assert {name.rpartition("/")[2]: why.startswith(BAD[name.rpartition("/")[2]][1]) for name, why in left.items()} == (
        dict.fromkeys(BAD, True)
    )
    assert "left out 4 samples: " in capfd.readouterr().err
    records = {r["id"] for r in lines_of(run / "predictions/val.jsonl")}
    assert len(records) == json.loads((run / "scores.json").read_text())["samples"] == (10 if more else 4)
    assert not any(name.rpartition("/")[2] in BAD for name in records)


def test_a_table_that_names_a_file_that_is_not_there(data, tmp_path, capfd):
    rows = [f"{split}/{name}/{i}.mp4,{name}" for split in ("train",) for name in "xy" for i in range(2)]
    root = tmp_path / "data"
    root.mkdir()
    (root / "train").symlink_to(data / "train")
    (root / "train.csv").write_text("\n".join(["file,label", *rows, "gone.mp4,x"]) + "\n")
    (root / "val.csv").write_text("file,label\ntrain/x/2.mp4,x\ntrain/y/2.mp4,y\n")
    words = ["train", "action", f"data={root}", "format=csv", *SMALL]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert "train.csv: line 6: there is no clip gone.mp4" in said and "on_bad_sample=skip" in said
    assert main([*words, "on_bad_sample=skip", "--run", str(tmp_path / "run")]) == 0
    assert "left out 1 sample: train.csv: line 6" in capfd.readouterr().err


@pytest.fixture(scope="module")
def said(run, tmp_path_factory):
    """What `predict` says of awkward and broken videos."""
    given, out = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("said") / "out"
    for name, (make, *_) in (GOOD | BAD).items():
        make(given / name)
    assert main(["predict", str(run), str(given), f"out={out}", "threads=1", "pictures=true"]) == 2  # some are broken
    return {line["file"].rpartition("/")[2]: line for line in lines_of(out / "predictions.jsonl")}


@pytest.mark.parametrize("name", GOOD)
def test_an_awkward_video_is_predicted_as_documented(said, name):
    _, seconds, remark = GOOD[name]
    assert said[name]["windows"][-1]["end"] == pytest.approx(seconds, abs=2e-3)
    assert [remark in line for line in said[name].get("remarks", ())][:1] == [True] * bool(remark)


@pytest.mark.parametrize("name", BAD)
def test_a_broken_video_is_a_line_with_its_error(said, name):
    assert BAD[name][1] in said[name]["error"] and "label" not in said[name]


def test_pictures_are_no_videos_also_to_predict(run, tmp_path, capfd):
    Image.new("RGB", (40, 30)).save(tmp_path / "still.jpg")
    shutil.copy(tmp_path / "still.jpg", tmp_path / "still.mp4")
    out = tmp_path / "out"
    assert main(["predict", str(run), *map(str, tmp_path.glob("*.*")), f"out={out}", "threads=1"]) == 2
    said = capfd.readouterr()
    assert "still.jpg: is a picture: the frames of a clip lie in a folder of their own" in said.err
    assert "still.mp4: holds no container of moving pictures that is read here" in said.err
    assert f"wrote {out}/predictions.jsonl and predictions.csv" in said.err and not (out / "sheet.png").exists()
    assert "confidence" not in said.out


def test_an_animated_gif_is_a_clip(data, run, tmp_path, capfd):
    shutil.copytree(data, tmp_path / "data")
    frames = [Image.new("RGB", (48, 32), (90 * i, 0, 0)) for i in range(3)]
    for name in "xy":
        frames[0].save(tmp_path / f"data/val/{name}/a.gif", save_all=True, append_images=frames[1:], duration=40)
    assert main(["evaluate", str(run), f"data={tmp_path / 'data'}", "threads=1", "loaders=0", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["samples"] == 6
    found = list(stream(run, tmp_path / "data/val", threads=1))
    assert sum(p.file.endswith("a.gif") for p in found) == 2 and not any(p.error for p in found)


def test_a_prediction_that_was_begun_with_other_settings_says_which(run, data, tmp_path, capfd):
    words = ["predict", str(run), str(data / "val"), f"out={tmp_path / 'out'}", "threads=1"]
    given = stream(run, data / "val", out=tmp_path / "out", threads=1, batch=1)
    next(given)
    given.close()
    assert main([*words, "batch=2", "top=1"]) == 2
    said = capfd.readouterr().err
    assert (
        "was begun with other settings (" in said and "batch=2 now, 1 there" in said and "top=1 now, None there" in said
    )
    assert "{" not in said


def test_a_folder_without_frames_is_told(data, tmp_path, capfd):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/train/x/gone").mkdir()
    assert main(["train", "action", f"data={tmp_path / 'data'}", *SMALL, "--run", str(tmp_path / "run")]) == 2
    assert "train/x/gone: holds nothing; expected the frames of a clip, or clips" in capfd.readouterr().err
    assert main(["check", str(tmp_path / "data"), "--json"]) == 2
    problems = json.loads(capfd.readouterr().out)["problems"]
    assert [p["file"] for p in problems if p["what"].startswith("holds nothing")] == ["train/x/gone"]


def test_how_frames_are_seen_is_said(run, capfd):
    assert main(["evaluate", str(run), "threads=1", "loaders=0", "sampling=stride", "rate=15", "clips=5"]) == 0
    said = capfd.readouterr().err
    assert "clips of 4 frames, stride 1 at 15 frames/s; scores are over 5 x 1 views (clips x crops)" in said


def test_remarks_are_said_once_and_counted(tmp_path, capfd):
    root = clips(tmp_path / "data")
    for i in range(3):
        write(root / f"train/x/askew{i}.mp4", n=9 + i, angle=-30)
    write(root / "val/x/askew.mp4", n=9, angle=-30)
    run = tmp_path / "run"
    assert main(["train", "action", f"data={root}", *SMALL, "--run", str(run)]) == 0
    notes = [line["text"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "note"]
    turned = "is to be turned by 30 degrees, which is no quarter turn: it is read as stored"
    assert [n for n in notes if "turned" in n] == [
        f"train: train/x/askew0.mp4: {turned} (so in 2 other clips)", f"val: val/x/askew.mp4: {turned}",
    ]  # fmt: skip
    capfd.readouterr()
    assert main(["evaluate", str(run), "threads=1", "loaders=0"]) == 0
    shown = capfd.readouterr()
    assert (shown.out + shown.err).count("is to be turned") == 1


def test_training_goes_on_with_the_same_decoder_alone(run, data, monkeypatch, capfd):
    monkeypatch.setattr(task_module, "decoder", lambda: "PyAV 1.0")
    assert main(["train", "action", f"data={data}", *SMALL, "--run", str(run)]) == 2
    assert "the run was begun with PyAV" in capfd.readouterr().err
    assert main(["evaluate", str(run), "threads=1", "loaders=0"]) == 0
    assert "decoded by PyAV 1.0; in training they were by PyAV" in capfd.readouterr().err


def test_a_report_shows_strips_of_frames_of_the_surest_mistakes(run):
    shown = json.loads((run / "shown.json").read_text())["action"]["blocks"]
    (block,) = [b for b in shown if b["title"] == "Surest mistakes"]
    wrong = [r for r in lines_of(run / "predictions/val.jsonl") if r["predicted"] != r["label"]]
    assert wrong and len(block["pictures"]) == len(wrong)
    for picture in block["pictures"]:
        with Image.open(run / picture["file"]) as strip:
            assert strip.width > 5 * strip.height  # six frames side by side
    assert (run / "report.html").read_text().count("data:image/jpeg") == len(wrong)


class Fewer:
    """A video whose packets promise ten frames, of which reading finds six."""

    def __init__(self):
        self.count, self.remarks, self.asked = 10, ["a packet does not decode"], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def times(self):
        return np.arange(self.count) / 25

    def read(self, numbers):
        self.count = 6
        self.asked.append(list(numbers))
        if max(numbers) >= 6:
            raise DataError(f"frame {max(numbers)} is asked for")
        return np.zeros((len(numbers), 40, 40, 3), np.uint8)


def test_where_fewer_frames_come_than_promised_they_are_chosen_again_as_if_that_had_been_known(monkeypatch):
    found = []
    for promised in (10, 6):
        video = Fewer()
        video.count = promised
        monkeypatch.setattr(transforms, "open_resized", lambda *_, video=video: video)
        torch.manual_seed(5)
        sample = Sample("a", "a.mp4", torch.empty(0), {})
        image = transforms.TrainTransform(Preprocessing(size=32, resize=32), Options(frames=4), 0.5)(sample)
        found.append((video.asked[-1], torch.rand(3).tolist(), image.remarks))
    assert found[0] == found[1] and found[0][2] == ("a packet does not decode",)
