"""Events from features to scores: trained, evaluated, predicted and scored, and clear words for what does not fit."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.pipelines.command.cli import main
from trunkline.pipelines.prediction.predict import stream
from trunkline.tasks.contract import Sample
from trunkline.tasks.events.transforms import Cut

SMALL = ["width=16", "levels=3", "batch=4", "machine.loaders=0"]
COUNTS = {"train": 12, "val": 6}


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert (
        main(
            ["train", "events", f"data={videos}", *SMALL, "epochs=50", "tasks.events.dropout=0.1", "--run", str(folder)]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def windows(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows") / "run"
    assert (
        main(["train", "events", f"data={videos}", "head=windows", *SMALL[2:], "epochs=25", "--run", str(folder)]) == 0
    )
    return folder


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_heads_learn_generated_events(run, windows):
    for folder, least in ((run, 0.6), (windows, 0.4)):
        scores = json.loads((folder / "scores.json").read_text())
        assert scores["mAP@0.5"] > least and scores["samples"] == COUNTS["val"], folder
        assert set(scores["details"]["class_ap"]) == {"fall", "hold", "rise"}
        assert scores["intervals"]["mAP"][0] <= scores["mAP"] <= scores["intervals"]["mAP"][1]
        page = (folder / "report.html").read_text()
        assert "Time lines" in page and page.count("data:image/jpeg") == COUNTS["val"]


def test_evaluate_says_the_same_and_takes_another_protocol(run, capsys):
    scores = json.loads((run / "scores.json").read_text())
    assert main(["evaluate", str(run), "--json", "loaders=0", "threads=1"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mAP"] == scores["mAP"] and again["mAP@0.95"] == scores["mAP@0.95"]
    assert main(["evaluate", str(run), "--json", "loaders=0", "threads=1", "protocol=thumos", "overlaps=0.5"]) == 0
    thumos = json.loads(capsys.readouterr().out)
    assert thumos["details"]["protocol"] == "thumos" and thumos["mAP"] == thumos["mAP@0.5"] != scores["mAP@0.5"]


def test_scores_of_a_run_are_those_of_its_results_file(run, videos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(run), str(videos / "features"), f"out={out}", "labels=activitynet", "threads=1"]) == 0
    capsys.readouterr()
    assert main(["score", "events", str(videos / "events.json"), str(out / "labels/results.json"), "--json"]) == 0
    shown = capsys.readouterr()
    found, scores = json.loads(shown.out), json.loads((run / "scores.json").read_text())
    assert "12 videos not in the truth" in shown.err
    kept = json.loads((out / "labels/results.json").read_text())
    truth = json.loads((videos / "events.json").read_text())["database"]
    kept["results"] = {name: own for name, own in kept["results"].items() if truth[name]["subset"] == "validation"}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    plot = tmp_path / "curves.png"
    assert (
        main(["score", "events", str(videos / "events.json"), str(tmp_path / "kept.json"), "--json", f"plot={plot}"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    for name in ("mAP", "mAP@0.5", "mAP@0.75"):
        assert found[name] == pytest.approx(scores[name], abs=2e-3)  # results are rounded
    assert found["counts"]["videos"] == COUNTS["val"] and plot.stat().st_size > 1000


def test_predictions_are_lines_pictures_and_tables(run, videos, tmp_path):
    out = tmp_path / "out"
    some = [str(videos / f"features/video_{n:04d}.npy") for n in (12, 13)]
    assert main(["predict", str(run), *some, f"out={out}", "pictures=true", "labels=csv", "threads=1"]) == 0
    lines = lines_of(out / "predictions.jsonl")
    assert len(lines) == 2 and lines[0]["seconds"] == 16.0
    scores = [e["score"] for e in lines[0]["events"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= e["start"] < e["end"] <= 16 for e in lines[0]["events"])
    assert {len(c["points"]) for c in lines[0]["curves"]} == {64}
    assert (out / "pictures/000000-video_0012.png").stat().st_size > 1000 and (out / "sheet.png").is_file()
    rows = (out / "labels/results.csv").read_text().splitlines()
    assert rows[0] == "video,start,end,label,score" and rows[1].startswith("video_0012,")


def test_a_file_of_weights_predicts_alone(run, videos):
    one = videos / "features/video_0012.npy"
    (from_run,), (from_file,) = (list(stream(p, one, threads=1)) for p in (run, run / "weights.safetensors"))
    assert from_run.events and from_run == from_file


def test_a_probe_of_folds_by_person(videos, tmp_path, capsys):
    data = tmp_path / "data"
    database = json.loads((videos / "events.json").read_text())["database"]
    data.mkdir()
    rows = [f"{name},{a['segment'][0]},{a['segment'][1]},{a['label']},p{i % 3}"
            for i, (name, v) in enumerate(database.items()) for a in v["annotations"]]  # fmt: skip
    (data / "events.csv").write_text("\n".join(["video,start,end,label,person", *rows]) + "\n")
    words = [
        f"data={data}",
        f"features={videos / 'features'}",
        "rate=4",
        "stride=1",
        "group=person",
        "folds=groups",
        *SMALL,
    ]
    assert main(["train", "events", *words, "updates=2", "--run", str(tmp_path / "run")]) == 0
    records = lines_of(tmp_path / "run/predictions/val.jsonl")
    assert len({r["id"] for r in records}) == len(records) == 18
    assert "3 folds of 3 groups" in "".join(capsys.readouterr())


NAME = "video_0003"


def saved(*shape, value=0.0):
    return lambda folder: np.save(folder / f"{NAME}.npy", np.full(shape, value, np.float32))


def cut(folder):
    file = folder / f"{NAME}.npy"
    file.write_bytes(file.read_bytes()[:500])


def elsewhere(folder):
    said = {"file": f"{NAME}.mp4", "times": [float(i) for i in range(64)]}
    (folder / f"{NAME}.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (saved(64, 5), "video_0003.npy: has 5 channels, and the others 16"),
        (saved(64, 16, value=np.nan), "holds numbers that are not finite"),
        (lambda folder: (folder / f"{NAME}.npy").unlink(), "video_0003: has no features in"),
        (cut, "video_0003.npy: cannot be read"),
        (elsewhere, "end at 63.50 s, and video_0003 is 16.00 s long"),
    ],
)
def test_features_that_do_not_fit_stop_training_or_are_left_out(spoil, words, videos, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    spoil(data / "features")
    train = ["train", "events", f"data={data}", *SMALL, "updates=3"]
    assert main([*train, "--run", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert main(["check", str(data), "loaders=0", "progress=false"]) == 2
    shown = capsys.readouterr().out
    assert "video_0003" in shown and "on_bad_sample=skip leaves out 1" in shown
    assert main([*train, "on_bad_sample=skip", "--run", str(tmp_path / "skip")]) == 0
    assert "left out 1 sample: video_0003" in capsys.readouterr().err


def test_published_settings_run_on_generated_features(tmp_path):
    assert main(["train", "thumos", "smoke=true", "--run", str(tmp_path / "run")]) == 0
    assert set(json.loads((tmp_path / "run/scores.json").read_text())["intervals"]) >= {"mAP", "mAP@0.3", "mAP@0.7"}


def test_check_counts_events(videos, capsys):
    assert main(["check", str(videos), "--json", "loaders=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counted"] == "events" and found["files"] == 18 and sum(found["counts"]["val"].values()) > 6
    assert found["sizes"]["steps"] == [64, 64, 64] and found["formats"] == {"16 channels": 18}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ["video_0012,1,2,rise,0.5", "video_0012,1,2,rize,0.5"],
            "line 3: 'rize': no class of the truth; nearest: rise",
        ),
        (["video_0012,1,2,rise,high"], "line 2: 'high': expected seconds"),
        (["video_0012,1,,rise,0.5"], "end is empty"),
        ([], "holds no event"),
    ],
)
def test_results_that_cannot_be_scored(rows, words, videos, tmp_path, capsys):
    (tmp_path / "results.csv").write_text("\n".join(["video,start,end,label,score", *rows]) + "\n")
    assert main(["score", "events", str(videos / "events.json"), str(tmp_path / "results.csv")]) == 2
    assert words in capsys.readouterr().err


def test_results_of_odd_videos_count_as_false_and_are_said(videos, tmp_path, capsys):
    rows = ["v_video_0012,1,2,rise,0.5", "elsewhere,1,2,rise,0.9", "video_0013,5,2,fall,0.5"]
    (tmp_path / "results.csv").write_text("\n".join(["video,start,end,label,score", *rows]) + "\n")
    command = ["score", "events", str(videos / "events.json"), str(tmp_path / "results.csv")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "1 video not in the truth (elsewhere)" in said and "1 event without length" in said
    assert (
        "names of videos with another end or a v_ before them in 1 video" in said and "nothing in 5 videos of 6" in said
    )
    assert main([*command, "strict=true"]) == 2
    assert main([*command, "overlaps=0,2"]) == 2 and "overlaps=0,2: expected shares" in capsys.readouterr().err


def test_what_is_no_file_of_features_is_said(run, tmp_path, capsys):
    (tmp_path / "clip.mp4").touch()
    assert main(["predict", str(run), str(tmp_path / "clip.mp4"), "threads=1"]) == 2
    assert "is no file of features; of a video a run of the recipe action writes them" in capsys.readouterr().err


def test_two_hours_are_predicted_in_bounded_memory(run, tmp_path):
    """45,000 steps, of 16 channels here; the slow test below has 2,048."""
    steps, channels = 2 * 3600 * 25 // 4, 16
    big = np.lib.format.open_memmap(tmp_path / "long.npy", "w+", np.float32, (steps, channels))
    draw = np.random.Generator(np.random.PCG64(0))
    for first in range(0, steps, 5000):
        big[first : first + 5000] = draw.normal(size=(min(5000, steps - first), channels))
    del big
    (found,) = list(stream(run, tmp_path / "long.npy", threads=1))
    assert not found.error and found.seconds == steps * 0.25 and 0 < len(found.events) <= 200


@pytest.mark.slow
def test_two_hours_of_wide_features_are_never_in_memory(tmp_path):
    script = Path(__file__).with_name("wide.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    short, long = map(float, done.stdout.split())
    assert long - short < 200, "MiB more for two hours than for a minute"


def test_a_cut_moves_events_with_it_and_drops_those_of_which_little_is_left():
    times, image = torch.arange(100).double() / 4, torch.arange(100).float().repeat(2, 1)
    targets = {
        "segments": torch.tensor([[0.0, 6], [45, 55], [90, 99]]),
        "labels": torch.tensor([0, 1, 2]),
        "times": times,
    }
    sample = Sample("a", "a.npy", image, targets)
    for seed in range(20):
        torch.manual_seed(seed)
        cut = Cut(30)(sample)
        first = int(cut.image[0, 0])
        assert cut.image.shape == (2, 30) and cut.targets["times"][0] == times[first] and len(cut.targets["labels"])
        for (start, end), label in zip(cut.targets["segments"].tolist(), cut.targets["labels"].tolist(), strict=True):
            whole = targets["segments"][label]
            assert [start, end] == [max(0, whole[0] - first), min(30, whole[1] - first)]
            assert end - start >= 0.75 * float(whole[1] - whole[0])
    assert Cut(200)(sample) is sample


def test_memory_is_reckoned_and_a_run_goes_on_from_another(run, videos, tmp_path, capsys):
    assert main(["show", "events", "smoke=true", "memory=true"]) == 0 and "fits" in capsys.readouterr().out
    words = [f"data={videos}", *SMALL, "updates=1", "lr=1e-9", f"weights={run}", "batch.micro=auto"]
    assert main(["train", "events", *words, "--run", str(tmp_path / "run")]) == 0
    scores = [json.loads((folder / "scores.json").read_text())["mAP"] for folder in (run, tmp_path / "run")]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def long_videos(root, columns="", **said):
    """Features of videos of other lengths but as many steps, an event in each."""
    (root / "features").mkdir(parents=True)
    rows = []
    for i in range(6):
        seconds, draw = 10.0 * (1 + i % 3), np.random.Generator(np.random.PCG64(i))
        values = draw.normal(0, 0.3, (40, 4))
        values[10:20] += 2
        np.save(root / f"features/v{i}.npy", values.astype(np.float32))
        rows.append(f"v{i},{seconds / 4},{seconds / 2},x,{'val' if i > 3 else 'train'},{columns or seconds}")
    (root / "events.csv").write_text(
        "\n".join([f"video,start,end,label,split,{'fps' if columns else 'duration'}", *rows]) + "\n"
    )
    return root


def seconds_of(run, place):
    return {
        Path(p.file).stem: p.error or [(e.start, e.end) for e in p.events[:3]] for p in stream(run, place, threads=1)
    }


def records_of(run):
    return {r["id"]: [tuple(s) for s in r["segments"][:3]] for r in lines_of(run / "predictions/val.jsonl")}


def test_seconds_of_predictions_are_those_of_evaluation_or_refused(tmp_path, capsys):
    data, run = long_videos(tmp_path / "data"), tmp_path / "run"
    assert main(["train", "events", f"data={data}", *SMALL, "updates=20", "--run", str(run)]) == 0
    assert all("nothing says when its steps were" in said for said in seconds_of(run, data / "features").values())
    for i in (4, 5):
        (data / f"features/v{i}.json").write_text(json.dumps({"duration": 10.0 * (1 + i % 3)}))
    found, wanted = seconds_of(run, data / "features"), records_of(run)
    assert {n: np.array(found[n]) == pytest.approx(np.array(wanted[n]), abs=1e-3) for n in wanted} == {
        "v4": True,
        "v5": True,
    }


def test_seconds_of_features_with_a_stride_are_those_of_evaluation(tmp_path):
    data, run = long_videos(tmp_path / "data", "2"), tmp_path / "run"
    words = [f"data={data}", *SMALL, "stride=2", "span=6", "on_bad_event=skip", "updates=20"]
    assert main(["train", "events", *words, "--run", str(run)]) == 0
    found, wanted = seconds_of(run, data / "features"), records_of(run)
    assert all(np.array(found[n]) == pytest.approx(np.array(wanted[n]), abs=1e-3) for n in wanted)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: np.save(file, np.full((64, 16), 1e300)), "holds numbers that are not finite in fp32"),
        (lambda file: file.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda file: np.save(file, np.zeros((64, 5), np.float32)), "has 5 channels, and the others 16"),
    ],
)
def test_predict_names_a_file_that_cannot_be_used_and_goes_on(spoil, words, run, videos, tmp_path):
    for n in (12, 13):
        shutil.copy(videos / f"features/video_{n:04d}.npy", tmp_path)
    spoil(tmp_path / "video_0012.npy")
    bad, good = stream(run, tmp_path, threads=1)
    assert words in bad.error and not good.error


def test_names_with_commas_and_of_two_folders_keep_their_events(run, videos, tmp_path, capsys):
    for place in ("a/x, y", "b/x, y"):
        (tmp_path / place).parent.mkdir()
        shutil.copy(videos / "features/video_0012.npy", tmp_path / f"{place}.npy")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path), f"out={out}", "labels=csv", "threads=1"]) == 0
    with (out / "labels/results.csv").open(newline="") as file:
        names = {row["video"] for row in csv.DictReader(file)}
    assert names == {str(tmp_path / "a/x, y.npy"), str(tmp_path / "b/x, y.npy")}


def test_settings_that_do_not_go_together(videos, tmp_path, capsys):
    for words, said in (
        ("overlaps=0.5,0.5", "one stands there twice"), ("tasks.events.background=false", "is read with head=windows"),
        ("rate=25", "is read with stride="), ("span=3", "is read with stride="),
    ):  # fmt: skip
        assert main(["train", "events", f"data={videos}", words, "--run", str(tmp_path / "run")]) == 2
        assert said in capsys.readouterr().err
