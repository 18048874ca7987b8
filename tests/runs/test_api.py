"""Every verb as a function: plain objects in, plain objects out, the same numbers as the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

import trunkline
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_core")

PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": False}
SHORT = {"weights": "none", "backbone": "narrow", "size": 32, "batch": 8, "updates": 2, **PLAIN}


def photos(data: Path, split: str = "val") -> list[Path]:
    return sorted((data / split).rglob("*.jpg"))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> trunkline.Run:
    """A short run with averaged weights beside the raw ones."""
    path = tmp_path_factory.mktemp("api") / "run"
    return trunkline.train("transfer", path, data=scenes, ema=0.5, **{**SHORT, "updates": 4})


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A weights file with a classifier of 30 classes."""
    torch.manual_seed(3)
    trunk, fc = trunkline.backbone("narrow").state_dict(), torch.nn.Linear(64, 30).state_dict()
    path = tmp_path_factory.mktemp("kept") / "kept.safetensors"
    save_weights(path, trunk | {f"fc.{n}": t for n, t in fc.items()}, arch="narrow", stride_in="3x3",
                 classes=[f"class {i}" for i in range(30)], preprocessing=Preprocessing().at(32))  # fmt: skip
    return path


def test_every_public_name_is_there():
    for name in trunkline.__all__:
        assert getattr(trunkline, name) is not None
    assert set(dir(trunkline)) >= {"train", "evaluate", "predict", "check", "profile", "show", "recipes", "demo", "doctor",
                                   "bench", "backbone", "model", "Run"}  # fmt: skip
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; it has: .*train"):
        trunkline.trian  # noqa: B018


def test_train_returns_a_run(run, scenes):
    assert isinstance(run, trunkline.Run)
    scores = json.loads((run.path / "scores.json").read_text())
    assert run.scores == scores and 0 <= scores["top1"] <= 1 and scores["samples"] == 20
    assert [m["update"] for m in run.metrics if m["kind"] == "train"] == [1, 2, 3, 4]
    assert all(np.isfinite(m["loss"]) and m["images_per_second"] > 0 for m in run.metrics if m["kind"] == "train")
    evaluated = [m for m in run.metrics if m["kind"] == "eval"][-1]
    assert evaluated["metrics"]["top1"] == scores["top1"]
    assert run.weights.is_file() and run.report.is_file()
    assert run.recipe["resolved"]["tasks"]["classification"]["data"] == str(scenes)
    assert run._repr_html_().startswith("<iframe")


def test_settings_that_are_wrong_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match=r"epoch=3: there is no such setting; nearest: epochs"):
        trunkline.train("transfer", tmp_path / "run", data="x", epoch=3)
    assert not (tmp_path / "run").exists()


def test_evaluate_of_a_run_gives_the_scores_that_it_ended_with(run):
    found = trunkline.evaluate(run, loaders=0)
    assert found.metrics == {k: run.scores[k] for k in found.metrics}
    assert {k: list(v) for k, v in found.intervals.items()} == run.scores["intervals"]
    assert found.details["confusion"] == run.scores["details"]["confusion"]


def test_evaluate_of_the_published_file_gives_the_same_metrics(run, scenes):
    found = trunkline.evaluate(run.weights, data=scenes, loaders=0)
    assert found.metrics == pytest.approx({k: run.scores[k] for k in found.metrics}, abs=1e-9)


def test_raw_and_averaged_weights_are_scored_apart(run):
    by_default, averaged, raw = (trunkline.evaluate(run, loaders=0, **o) for o in ({}, {"ema": True}, {"ema": False}))
    assert by_default.metrics == averaged.metrics
    assert averaged.metrics["nll"] != raw.metrics["nll"]
    assert raw.details["origin"]["weights"] == "raw" and averaged.details["origin"]["weights"] == "ema"


def test_evaluate_writes_a_record_a_sample(run, tmp_path, scenes):
    found = trunkline.evaluate(run, loaders=0, batch=3, split="train", out=tmp_path / "records.jsonl")
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(records) == 40
    right = np.mean([r["predicted"] == r["label"] for r in records])
    assert found.metrics["top1"] == pytest.approx(right)
    assert [r["id"] for r in records] == [p.relative_to(scenes).as_posix() for p in photos(scenes, "train")]


def test_evaluate_says_that_the_runs_data_changed(run, scenes, tmp_path):
    moved = shutil.copytree(scenes, tmp_path / "data")
    own = Path(shutil.copytree(run.path, tmp_path / "run"))
    recipe = json.loads((own / "recipe.json").read_text())
    recipe["resolved"]["tasks"]["classification"]["data"] = str(moved)
    (own / "recipe.json").write_text(json.dumps(recipe))
    assert trunkline.evaluate(own, loaders=0).metrics == trunkline.evaluate(run, loaders=0).metrics
    photos(moved)[0].unlink()
    with pytest.raises(
        ValueError, match=r"the val data of .*run changed since it began: .*score what is there now with"
    ):
        trunkline.evaluate(own, loaders=0)
    assert trunkline.evaluate(own, data=moved, loaders=0).samples == 19


def test_scores_show_themselves_in_a_notebook(run):
    page = trunkline.evaluate(run, loaders=0)._repr_html_()
    assert page.lstrip().startswith("<") and "top1" in page and f"{run.scores['top1']:.4f}"[:5] in page


def test_predict_gives_plain_objects(run, scenes, tmp_path):
    found = trunkline.predict(run, scenes / "val", top=3, out=tmp_path / "out")
    assert [p.file for p in found] == [str(p) for p in photos(scenes)]
    names = sorted(p.name for p in (scenes / "val").iterdir())
    for p in found:
        assert p.error is None and len(p.top) == 3
        assert p.label == p.top[0][0] and p.confidence == p.top[0][1]
        assert {n for n, _ in p.top} <= set(names)
        assert [c for _, c in p.top] == sorted((c for _, c in p.top), reverse=True)
    whole = trunkline.predict(run, photos(scenes)[0], top=10)[0]
    assert sum(c for _, c in whole.top) == pytest.approx(1, abs=1e-5)
    right = np.mean([Path(p.file).parent.name == p.label for p in found])
    assert right == pytest.approx(run.scores["top1"])


def test_an_option_out_of_its_range_is_refused_before_anything_is_written(run, scenes, tmp_path):
    for source in (run, run.weights):
        with pytest.raises(ValueError, match=r"^top=0: expected a number above 0"):
            trunkline.predict(source, scenes / "val", top=0, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_predictions_show_themselves_as_pictures(run, scenes):
    import io

    found = trunkline.predict(run, photos(scenes)[:8])
    for shown in (found, found[0]):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    assert found.sheet().width > found[0].image().width


@pytest.mark.parametrize("batch", [1, 8])
def test_predictions_do_not_depend_on_the_batch(run, scenes, batch):
    ours, all_at_once = (trunkline.predict(run, photos(scenes), top=10, batch=b) for b in (batch, 20))
    for one, other in zip(ours, all_at_once, strict=True):
        a, b = dict(one.top), dict(other.top)
        assert a.keys() == b.keys() and max(abs(a[k] - b[k]) for k in a) < 1e-5


def test_predict_takes_one_path_or_many(run, scenes):
    one = photos(scenes)[0]
    given = [one, str(one), [one], iter([str(one)]), str(one.parent / "*.jpg")]
    assert {trunkline.predict(run.path, g)[0].label for g in given} == {trunkline.predict(str(run.path), one)[0].label}


def test_published_weights_are_torchvisions(scenes, tmp_path):
    """Strict loading into torchvision's own class, and the same logits on photos prepared by its own transforms."""
    run = trunkline.train("transfer", tmp_path / "run", data=scenes, ema=0.5, **{**SHORT, "backbone": "resnet18"})
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(load_file(run.weights), strict=True)
    theirs.eval()
    classes = sorted(p.name for p in (scenes / "val").iterdir())
    ours = trunkline.model(run)
    p = ours.preprocessing
    prepare = v2.Compose([v2.PILToTensor(), v2.Resize(p.resize, antialias=True), v2.CenterCrop(p.size),
                          v2.ToDtype(torch.float32, scale=True), v2.Normalize(p.mean, p.std)])  # fmt: skip
    images = torch.stack([prepare(Image.open(f)) for f in photos(scenes)])
    with torch.inference_mode():
        expected = theirs(images)
        logits = ours.heads["classification"](ours.backbone(images))
    assert (logits - expected).abs().max() < 1e-5
    found = trunkline.predict(run, photos(scenes), top=10)
    for one, row in zip(found, expected.softmax(1), strict=True):
        told = dict(one.top)
        assert max(abs(told[c] - float(row[i])) for i, c in enumerate(classes)) < 2e-3  # uint8 after the resize
        assert classes[int(row.argmax())] == one.label or row.topk(2).values.diff().abs() < 2e-3


def test_a_model_from_a_run_and_from_its_file_is_the_same(run):
    one, other = trunkline.model(run), trunkline.model(run.weights)
    assert not one.training and not other.training
    assert one.preprocessing == other.preprocessing and one.preprocessing.size == 32
    theirs = other.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in one.state_dict().items())


def test_a_backbone_is_one_call():
    trunk = trunkline.backbone("resnet50", output_stride=16).eval()
    with torch.inference_mode():
        maps = trunk(torch.rand(1, 3, 64, 64))
    assert trunk.strides["c5"] == 16 and trunk.channels["c5"] == 2048
    assert {n: tuple(m.shape[1:]) for n, m in maps.items()} == {
        n: (trunk.channels[n], 64 // trunk.strides[n], 64 // trunk.strides[n]) for n in maps
    }
    assert {"c2", "c3", "c4", "c5"} <= maps.keys()


def test_a_backbone_from_a_runs_weights(run):
    trunk = trunkline.backbone("narrow", weights=run.weights)
    stored = load_file(run.weights)
    own = trunk.state_dict()
    assert all(torch.equal(own[n], t) for n, t in stored.items() if not n.startswith("fc."))


def test_weights_may_be_another_run(run, scenes, tmp_path):
    """Its trunk stands at the beginning; the classifier too where the classes are the same."""
    settings = {**SHORT, "backbone": None, "weights": run.path, "lr": 1e-12, "mode": "last", "ema": 0.0}
    other = trunkline.train("transfer", tmp_path / "run", data=scenes, **settings)
    before, after = load_file(run.weights), load_file(other.weights)
    same = [n for n in before if n.startswith(("conv1", "bn1", "layer1", "layer2", "layer3"))]
    assert same and all(torch.equal(before[n], after[n]) for n in same)
    assert torch.allclose(before["fc.weight"], after["fc.weight"], atol=1e-6)
    report = json.loads((tmp_path / "run" / "load.json").read_text())
    assert "74 of 74" in report["report"] and report["tasks"]["classification"]["classifier"] == "kept"


def test_append_publishes_one_layer_that_predicts_as_the_two(kept, scenes, tmp_path):
    settings = {**SHORT, "backbone": None, "weights": kept, "mode": "append", "updates": 6, "lr": 0.5}
    run = trunkline.train("transfer", tmp_path / "run", data=scenes, **settings)
    published, before = load_file(run.weights), load_file(kept)
    assert published["fc.weight"].shape == (10, 64)
    assert all(torch.equal(published[n], before[n]) for n in before if not n.startswith("fc."))
    ours, theirs = (trunkline.predict(s, photos(scenes), top=10) for s in (run, run.weights))
    for one, other in zip(ours, theirs, strict=True):
        a, b = dict(one.top), dict(other.top)
        assert a.keys() == b.keys() and max(abs(a[k] - b[k]) for k in a) < 1e-4
    model = trunkline.model(run)
    assert torch.equal(model.heads["classification"].fc.weight, before["fc.weight"])


def test_probe_changes_the_classifier_alone_and_keeps_its_features(kept, scenes, tmp_path):
    settings = {**SHORT, "backbone": None, "weights": kept, "mode": "probe", "updates": 6}
    run = trunkline.train("transfer", tmp_path / "run", data=scenes, **settings)
    published, before = load_file(run.weights), load_file(kept)
    assert all(torch.equal(published[n], before[n]) for n in before if not n.startswith("fc."))
    cached = load_file(run.path / "features" / "val.safetensors")
    model = trunkline.model(kept)
    assert cached["map.c5"].shape == (20, 64, 1, 1) and model.preprocessing.size == 32
    assert cached["target.label"].bincount().tolist() == [2] * 10
    found = trunkline.evaluate(run.weights, data=scenes, loaders=0)
    assert found.metrics == pytest.approx({k: run.scores[k] for k in found.metrics}, abs=1e-5)
    (run.path / "features" / "train.safetensors").write_bytes(b"damaged")
    trunkline.train("transfer", tmp_path / "run", data=scenes, **{**settings, "updates": 8})
    assert load_file(run.path / "features" / "train.safetensors")["map.c5"].shape == (40, 64, 1, 1)
    assert [n["text"].startswith("going on from update 6") for n in run.metrics if n["kind"] == "note"].count(True) == 1
    assert "going on from update 6" in run.report.read_text()


def test_check_show_recipes_doctor_and_profile(scenes):
    found = trunkline.check(scenes, loaders=0, progress=False)
    assert found.ok and found.files == 60 and "60" in str(found)
    assert trunkline.show("transfer", data=scenes).to_json()["tasks.classification.data"]["value"] == str(scenes)
    assert set(trunkline.recipes()) >= {"transfer", "demo"}
    assert trunkline.doctor().fit
    profiled = trunkline.profile("transfer", profile_updates=1, data=scenes, **SHORT)
    assert profiled.updates == 1 and profiled.seconds > 0 and profiled.parts["forward"] > 0


def test_bench_says_our_speed_theirs_and_the_ratio(scenes):
    found = trunkline.bench("loader", data=str(scenes), size=32, batch=8, loaders=0, rounds=1, images=16)
    (row,) = found.to_json()["rows"]
    assert row["ours"] > 0 and row["theirs"] > 0 and row["low"] <= row["ratio"] <= row["high"]
    assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])


def test_demo_in_a_smoke_run(tmp_path):
    runs = trunkline.demo(tmp_path / "demo", smoke=True)
    classifier, upscaler = runs["classification"], runs["super_resolution"]
    assert (tmp_path / "demo/data/train").is_dir() and classifier.path == tmp_path / "demo/run"
    assert classifier.scores["samples"] == 20 and classifier.report.is_file()
    assert upscaler.scores["samples"] == 2 and upscaler.report.is_file()
    assert sorted(file.name for file in (tmp_path / "demo/large").glob("0*.png")) == ["00000.png", "00001.png"]
    assert (tmp_path / "demo/large/sheet.png").is_file()
    actions, seen = (
        runs["action"],
        [*map(json.loads, (tmp_path / "demo/seen/predictions.jsonl").read_text().splitlines())],
    )
    assert actions.scores["samples"] == 4 and actions.report.is_file() and (tmp_path / "demo/seen/sheet.png").is_file()
    assert [Path(one["file"]).parts[-2:] for one in seen] == [
        ("falls", "00000"), ("falls", "00001"), ("rises", "00000"), ("rises", "00001"),
    ]  # fmt: skip
    assert len([*(tmp_path / "demo/seen/pictures").glob("*.png")]) == 4


def test_calls_leave_torchs_number_of_threads(run, scenes):
    before = torch.get_num_threads()
    trunkline.evaluate(run.path, threads=before + 1, loaders=0)
    trunkline.predict(run.path, next((scenes / "val").rglob("*.jpg")), threads=before + 1)
    assert torch.get_num_threads() == before
