"""Action recognition from clips to scores: views, their mean, what is refused, and predictions over time."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import trunkline
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.video.frames import Frames
from trunkline.ground.errors import DataError, RecipeError
from trunkline.heads.classification import ClassPrediction
from trunkline.heads.contract import Batch
from trunkline.pipelines.command.cli import main
from trunkline.tasks.video import task as task_module
from trunkline.tasks.video.decoding.video import open_video
from trunkline.tasks.video.evaluator import ActionEvaluator
from trunkline.tasks.video.options import Options
from trunkline.tasks.video.predicted import PredictedAction
from trunkline.tasks.video.task import Action
from trunkline.tasks.video.transforms import EvalTransform, TrainTransform, cropped, pixels
from trunkline.tasks.video.views import VideoPrediction, Window, mean, of_views, windows

SMALL = ["weights=none", "backbone=narrow", "size=32", "frames=4", "batch=4", "machine.threads=1", "machine.loaders=0"]


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", "action", f"data={clips}", *SMALL, "updates=2", "--run", str(folder)]) == 0
    return folder


def made(clips, **more):
    return Action(Options(data=str(clips), **more), Preprocessing(size=32, resize=36))


def probabilities(rows):
    return np.array(rows, np.float32)


# Frames and views


def test_a_sample_of_training_is_one_cut_of_frames_in_order(clips):
    o = Options(data=str(clips), frames=4, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    sample = made(clips).samples("train")[0]
    torch.manual_seed(3)
    found = TrainTransform(Preprocessing(size=40, resize=40), o, flip=0.0)(sample).image
    assert found.shape == (3, 4, 40, 40) and found.dtype == torch.uint8
    with open_video(sample.source) as video:
        every = pixels(video.read(range(video.count)))
    at = [int((found[:, t].float() - every.float()).abs().sum((1, 2, 3)).argmin()) for t in range(4)]
    assert [a // 2 for a in at] == [0, 1, 2, 3]  # of 8 frames one of each quarter
    assert all(torch.equal(found[:, t], every[a]) for t, a in enumerate(at))


def test_all_frames_of_a_clip_are_cropped_and_mirrored_alike(clips, tmp_path):
    from PIL import Image

    still = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for i in range(6):
        Image.fromarray(still).save(tmp_path / f"{i}.png")
    sample = made(clips).samples("train")[0]
    sample.source = tmp_path
    for seed in range(4):
        torch.manual_seed(seed)
        image = TrainTransform(Preprocessing(size=24, resize=26), Options(frames=5), flip=0.5)(sample).image
        assert all(torch.equal(image[:, 0], image[:, t]) for t in range(5))


def test_views_are_clips_times_crops_in_that_order(clips):
    o = Options(frames=4, clips=2, crops=3)
    sample = made(clips).samples("val")[0]
    views = EvalTransform(Preprocessing(size=24, resize=36), o)(sample)
    assert views.image.shape == (6, 3, 4, 24, 24) and views.targets["frames"].tolist() == [4] * 6
    one = EvalTransform(Preprocessing(size=24, resize=36), Options(frames=4, clips=2))(sample).image
    assert torch.equal(views.image[1::3], one)  # the second crop of each clip is the centre


def test_crops_lie_at_both_ends_and_in_the_middle_of_the_longer_side():
    wide = torch.arange(8 * 20, dtype=torch.uint8).view(1, 1, 8, 20).expand(2, 3, 8, 20)
    found = cropped(wide, Preprocessing(size=8, resize=8), Options(crops=3))
    assert [torch.equal(found[i], wide[..., at : at + 8]) for i, at in enumerate((0, 6, 12))] == [True] * 3
    tall = wide.transpose(2, 3)
    found = cropped(tall, Preprocessing(size=8, resize=8), Options(crops=3))
    assert [torch.equal(found[i], tall[..., at : at + 8, :]) for i, at in enumerate((0, 6, 12))] == [True] * 3


def test_no_flips_where_a_class_names_a_side(clips):
    plain = Action(Options(data=str(clips)), Preprocessing(), {"classes": ["turn_left", "jump"], "decoder": ""})
    assert plain.sided() == ["turn_left"] and plain.transform(True).flip == 0.0
    other = Action(Options(data=str(clips)), Preprocessing(), {"classes": ["cleft lip", "bright"], "decoder": ""})
    assert other.sided() == [] and other.transform(True).flip == 0.5


# Scores


def batch_of(ids, labels):
    return Batch("action", ids, targets={"label": torch.tensor(labels)})


def test_scores_are_by_videos_and_by_views():
    views = {
        "a": (0, [[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]]),  # 2 of 3 views right, the mean wrong
        "b": (1, [[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]]),  # the mean is [0.5, 0.5]: the first of equals
        "c": (1, [[0.4, 0.6], [0.45, 0.55], [0.2, 0.8]]),
    }
    evaluator = ActionEvaluator(("x", "y"), views=3)
    for name, (label, rows) in views.items():
        found = VideoPrediction(name, probabilities(rows).mean(0), probabilities(rows))
        evaluator.add(evaluator.measure(batch_of([name], [label]), [found]))
    scores = evaluator.result()
    assert scores.metrics["clip_top1"] == pytest.approx(7 / 9)
    right = [int(np.argmax(probabilities(rows).mean(0))) == label for label, rows in views.values()]
    assert scores.metrics["video_top1"] == pytest.approx(np.mean(right))
    assert scores.samples == 3 and any("3 views a video" in note for note in scores.notes)


def test_a_video_counts_once_and_must_have_all_its_views():
    evaluator = ActionEvaluator(("x", "y"), views=2)
    rows = probabilities([[0.6, 0.4], [0.7, 0.3]])
    records = evaluator.measure(batch_of(["a"], [0]), [VideoPrediction("a", rows.mean(0), rows)])
    evaluator.add(records)
    evaluator.add(records)
    scores = evaluator.result()
    assert scores.samples == 1 and any("1 records of videos that were there already" in note for note in scores.notes)
    short = evaluator.measure(batch_of(["b"], [0]), [VideoPrediction("b", rows[0], rows[:1])])
    with pytest.raises(DataError, match="b: 1 views, and each video has 2"):
        evaluator.add(short)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_views_score_alike_whoever_measures_them(workers):
    """Three clips of three crops each. Every worker has an evaluator of its own; the leading one puts records in order."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 7, 11)
    rows = {f"{i:02d}": draw.dirichlet(np.full(7, 0.3), 9).astype(np.float32) for i in range(11)}
    predictions = [VideoPrediction(name, mean(own), own) for name, own in rows.items()]
    records: list[list[dict]] = [[] for _ in rows]
    for rank in reversed(range(workers)):
        own = ActionEvaluator(tuple("abcdefg"), views=9)
        for i in range(rank, len(rows), workers):
            records[i] = own.measure(batch_of([predictions[i].id], [int(labels[i])]), [predictions[i]])
    lead = ActionEvaluator(tuple("abcdefg"), views=9)
    for each in records:
        lead.add(json.loads(json.dumps(each)))
    scores = lead.result()
    averaged = np.stack([own.mean(0, dtype=np.float64) for own in rows.values()])
    assert scores.samples == len(rows) == 11
    assert scores.metrics["video_top1"] == (averaged.argmax(1) == labels).mean()
    assert scores.metrics["video_top5"] == np.mean(
        [y in p.argsort()[-5:] for y, p in zip(labels, averaged, strict=True)]
    )
    single = np.stack([*rows.values()])
    assert scores.metrics["clip_top1"] == pytest.approx((single.argmax(2) == labels[:, None]).mean())
    other = ActionEvaluator(tuple("abcdefg"), views=9)
    for each in reversed([*records[:4], *records]):  # as from a sampler that pads by repeating
        other.add(each)
    again = other.result()
    assert again.samples == 11
    assert {name: pytest.approx(value) for name, value in again.metrics.items()} == scores.metrics


class Told(torch.nn.Module):
    """Says of each clip what its first pixel names."""

    table = probabilities([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7]])

    def predict(self, batch):
        assert batch.images.shape[2] * len(batch.images) <= 128 and len(batch.targets["frames"]) == len(batch.images)
        return [
            ClassPrediction(i, self.table[int(x[0, 0, 0, 0])]) for i, x in zip(batch.ids, batch.images, strict=True)
        ]


def test_views_of_a_video_are_averaged_after_the_softmax():
    said = [0, 1, 2, 3, 3, 1]  # of two videos the three views of each
    images = torch.zeros(6, 3, 64, 2, 2, dtype=torch.uint8)  # two clips of 64 frames go through at once
    images[:, 0, 0, 0, 0] = torch.tensor(said, dtype=torch.uint8)
    batch = Batch("action", ["a", "b"], images, targets={"frames": torch.full((6,), 64)})
    found = of_views(Told(), batch)
    for name, prediction, views in zip("ab", found, (said[:3], said[3:]), strict=True):
        assert prediction.id == name and (prediction.views == Told.table[views]).all()
        np.testing.assert_allclose(prediction.probabilities, Told.table[views].mean(0), atol=1e-7)


# Runs


def test_the_run_says_what_it_scored(run):
    scores = json.loads((run / "scores.json").read_text())
    assert scores["samples"] == 4 and "video_top1" in scores
    state = json.loads(next((run / "checkpoints").glob("0*/state.json")).read_text())
    assert state["facts"]["tasks"]["action"]["classes"] == ["falls", "rises"]
    assert state["facts"]["tasks"]["action"]["decoder"] == ""  # folders of frames need none
    assert "Surest mistakes" in (run / "report.html").read_text() or scores["video_top1"] == 1


def test_another_decoder_is_refused_when_training_goes_on(clips, monkeypatch):
    task = Action(Options(data=str(clips)), Preprocessing(), {"classes": ["a"], "seconds": 1.0, "decoder": "PyAV 1.0"})
    with pytest.raises(RecipeError, match=r"begun with PyAV 1\.0, and here is PyAV"):
        task.before_training()
    assert task.said()[0].endswith("in training they were by PyAV 1.0")
    monkeypatch.setattr(task_module, "decoder", lambda: "PyAV 1.0")
    task.before_training()
    assert task.said() == ["videos are decoded by PyAV 1.0", "clips of 16 frames, one of each of 16 equal parts"]


def test_cached_frames_need_one_view():
    assert Options(augment=True).uncached() and Options(augment=False, clips=2).uncached()
    assert Options(augment=False).uncached() == ""


def test_settings_that_nothing_would_read_are_refused():
    assert [line.split(":")[0] for line in Options(stride=2, rate=15.0, resize=(1, 2, 3)).problems()] == [
        "resize=1,2,3", "stride=2", "rate=15",
    ]  # fmt: skip


def test_a_probe_on_folds_sees_each_frame_once_and_predicts_each_clip_once(clips, tmp_path, monkeypatch):
    counted, forward = [], Frames.forward
    monkeypatch.setattr(Frames, "forward", lambda self, x: (counted.append(len(x) * x.shape[2]), forward(self, x))[1])
    own = [s for s in SMALL if not s.startswith("batch")]
    assert main(["train", "action", f"data={clips}", *own, "batch=4", "mode=probe", "folds=2", r"group=/(\d+)$", "updates=2",
                 "--run", str(tmp_path / "run")]) == 0  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "run/predictions/val.jsonl").read_text().splitlines()]
    assert len(records) == len({r["id"] for r in records}) == 12 and sum(counted) == 12 * 4
    assert any(r["predicted"] != r["label"] for r in records)  # and mistakes are drawn
    assert json.loads((tmp_path / "run/scores.json").read_text())["samples"] == 12


# Predictions over time


def test_windows_cover_a_video_without_gaps(clips):
    with open_video(next((clips / "val/falls").iterdir())) as video:
        for seconds, count in ((1e9, 1), (video.count / 25 / 2, 2), (1e-9, video.count)):
            found = windows(video, Options(frames=2), seconds)
            assert len(found) == count and found[0][0] == 0 and found[-1][1] == video.count
            assert all(a[1] == b[0] and a[3] == b[2] for a, b in itertools.pairwise(found))


def test_predictions_of_a_whole_clip_are_those_of_evaluation(run, clips, tmp_path):
    place = clips / "val/rises/00000"
    assert (
        main(["predict", str(run), str(place), f"out={tmp_path / 'out'}", "threads=1", "window=9", "pictures=true"])
        == 0
    )
    (line,) = [json.loads(text) for text in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert len(line["windows"]) == 1 and line["windows"][0]["start"] == 0
    assert main(["evaluate", str(run), "threads=1", "loaders=0", f"out={tmp_path / 'records.jsonl'}"]) == 0
    records = [json.loads(text) for text in (tmp_path / "records.jsonl").read_text().splitlines()]
    (record,) = [r for r in records if r["id"] == "val/rises/00000"]
    assert record["predicted_name"] == line["label"]
    assert record["confidence"] == pytest.approx(line["confidence"], abs=1e-6)
    with open_video(tmp_path / "out/pictures/000000-00000.mp4") as video:
        assert video.count == 8
    assert (tmp_path / "out/pictures/000000-00000.png").is_file()


def test_windows_that_are_sure_of_a_class_are_events():
    rows = np.array([[0.3, 0.7], [0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.45, 0.55]], np.float32)
    seen = [Window(i / 2, (i + 1) / 2, row) for i, row in enumerate(rows)]
    task = SimpleNamespace(options=Options(events=0.5), classes=("a", "b"))
    prediction = VideoPrediction("v", rows.mean(0), rows, seen)
    found = PredictedAction.of("v", prediction, task)
    assert found.events == [
        {"label": "a", "start": 0.5, "end": 1.5, "score": 0.8}, {"label": "b", "start": 0.0, "end": 0.5, "score": 0.7},
        {"label": "b", "start": 1.5, "end": 2.5, "score": 0.575},
    ]  # fmt: skip
    assert PredictedAction.from_line(json.loads(json.dumps(found.line()))).events == found.events
    assert (
        "events"
        not in PredictedAction.of("v", prediction, SimpleNamespace(options=Options(), classes=("a", "b"))).line()
    )


def test_a_look_at_a_folder_of_clips(clips, tmp_path):
    import shutil

    from PIL import Image

    shutil.copytree(clips, tmp_path / "clips")
    shutil.copytree(clips / "train/falls/00000", tmp_path / "clips/val/falls/copy")
    (tmp_path / "clips/train/falls/00001/03.png").write_bytes(b"broken")
    for i in range(9):
        (tmp_path / "clips/train/rises/still").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / f"clips/train/rises/still/{i}.png")
    found = trunkline.check(tmp_path / "clips", task="action", loaders=0, progress=False)
    assert found.counts["train"] == {"falls": 4, "rises": 5} and found.leaks == [
        ["train/falls/00000", "val/falls/copy"]
    ]
    assert [p["file"] for p in found.problems] == ["train/falls/00001"]
    assert any(o["file"] == "train/rises/still" and "nothing moves" in o["what"] for o in found.oddities)
