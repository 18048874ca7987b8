"""The detection task on generated scenes: what is read, what is wrong, what training and prediction make of it."""

# ruff: noqa: F811 - pytest finds fixtures by the names that are imported

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from box_work import SHORT, SLIM, SLIM_CONV, boxes, change, options, own_cache, written  # noqa: F401
from PIL import Image

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.ground.errors import DataError
from trunkline.heads.model import Model
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.feeding.draws import Draws
from trunkline.pipelines.feeding.ordered import ordered_lists
from trunkline.pipelines.models.ready import changed_options
from trunkline.tasks.detection.splits import read_split
from trunkline.tasks.detection.task import Detection

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.usefixtures("one_core")


def test_both_formats_hold_the_same_objects(written):
    coco, voc = (read_split(options(written, format=form), "train") for form in ("coco", "voc"))
    assert len(coco) == len(voc) > 0
    for i in range(len(coco)):
        one, other = coco[i], voc[i]
        assert torch.equal(one.targets["boxes"], other.targets["boxes"])
        assert [coco.classes[n] for n in one.targets["labels"]] == [voc.classes[n] for n in other.targets["labels"]]
        assert Path(coco.source(i)).name == Path(voc.source(i)).name


def test_masks_are_those_of_the_scenes_and_their_boxes(written):
    samples = read_split(options(written, head="mask_rcnn"), "train")
    for sample in (samples[i] for i in range(len(samples))):
        for mask, box in zip(sample.targets["masks"], sample.targets["boxes"].tolist(), strict=True):
            y, x = np.nonzero(mask.numpy())
            assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == box


def test_the_index_is_read_from_its_cache_and_follows_the_file(boxes, monkeypatch):
    first = read_split(options(boxes, head="mask_rcnn"), "train")
    monkeypatch.setattr("trunkline.tasks.objects.index.read_truth", None)
    again = read_split(options(boxes, head="mask_rcnn"), "train")
    assert isinstance(again.index.boxes, np.memmap) and again.fingerprint() == first.fingerprint()
    assert np.array_equal(again[0].targets["masks"], first[0].targets["masks"])
    monkeypatch.undo()
    monkeypatch.setenv("TRUNKLINE_CACHE", str(boxes / "cache"))
    change(boxes, lambda d: d["annotations"][0].update(bbox=[1, 1, 9, 9]))
    assert read_split(options(boxes), "train").fingerprint() != first.fingerprint()


def test_crowds_are_not_trained_on_and_pictures_without_objects_only_if_asked(boxes):
    def edit(document):
        document["annotations"][0]["iscrowd"] = 1
        document["images"].append({"id": 99, "file_name": "more.jpg", "width": 64, "height": 64})

    before = read_split(options(boxes), "train")
    change(boxes, edit)
    after = read_split(options(boxes), "train")
    assert len(after[0].targets["labels"]) == len(before[0].targets["labels"]) - 1 or len(after) == len(before) - 1
    assert len(read_split(options(boxes, empty=True), "train")) == 13
    assert len(read_split(options(boxes, limit=3), "train")) == 3


def test_micro_batches_hold_pictures_of_one_orientation(boxes):
    for i, name in enumerate(sorted((boxes / "JPEGImages").glob("train_*"))):
        if i % 3:
            Image.open(name).resize((64, 40)).save(name)
    change(boxes, lambda d: [
        image.update(height=40) for i, image in enumerate(d["images"]) if i % 3
    ] and d["annotations"].__setitem__(slice(None), [a | {"bbox": [2, 2, 20, 20]} for a in d["annotations"]]))  # fmt: skip
    samples = read_split(options(boxes), "train")
    wide = samples.groups(True)
    assert set(wide.tolist()) == {1}  # a square is as wide as high
    for at in ordered_lists(read_split(options(boxes), "train"), 4):
        assert len({samples.index.sizes[samples.rows[i]][0] for _, i, _ in at}) == 1


def built(folder: Path, head: str = "mask_rcnn") -> tuple[Detection, Model]:
    torch.manual_seed(0)
    task = Detection(options(folder, head=head, score=0.0, detections=20), Preprocessing())
    trunk = backbone("narrow")
    pyramid = Pyramid(trunk, "conv" if head == "one_stage" else "pool", 32)
    task.samples("train")
    return task, Model(pyramid, {"detection": task.head(pyramid)}, trunk.preprocessing).eval()


@pytest.mark.parametrize("head", ["mask_rcnn", "one_stage"])
def test_what_a_picture_is_batched_with_decides_nothing(written, head):
    task, model = built(written, head)
    draws = Draws(task, task.samples("val"), 0, training=False)
    with torch.inference_mode():
        together = task.infer(model, draws.batch([(0, i, 0) for i in range(4)]))
        alone = [task.infer(model, draws.batch([(0, i, 0)]))[0] for i in range(4)]
    assert sum(len(p.scores) for p in alone) > 10
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-5) and np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.array_equal(one.labels, other.labels) and one.codes == other.codes


def test_predictions_are_in_the_pictures_own_pixels(boxes):
    """A picture twice as large, seen at the same size: boxes twice as large, masks of its size."""
    name = boxes / "JPEGImages/val_00000.jpg"
    task, model = built(boxes)
    draws = Draws(task, task.samples("val"), 0, training=False)
    with torch.inference_mode():
        batch = draws.batch([(0, 0, 0)])
        (small,) = task.infer(model, batch)
        (large,) = task.infer(model, replace(batch, targets={"original": batch.targets["original"] * 2}))
    assert np.allclose(large.boxes, small.boxes * 2, atol=1e-3) and large.codes[0]["size"] == [128, 128]
    assert task.draw(draws.draw((0, 0, 0)), small).size == Image.open(name).size


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_a_run_is_trained_scored_and_predicts(written, request, tmp_path, capsys, form):
    boxes, run = written, request.getfixturevalue("trained" if form == "coco" else "of_one_stage")
    scores = json.loads((run / "scores.json").read_text())
    assert {"AP", "AP50"} < scores.keys() and ("mask_AP" in scores) == (form == "coco")
    assert ("mAP07" in scores) == (form == "voc")
    assert ">recall</text>" in (run / "report.html").read_text()
    capsys.readouterr()
    out = tmp_path / "official"
    assert main(["evaluate", str(run), f"results={out}", "score=0.0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    if form == "coco":
        truth = str(boxes / "annotations/instances_val.json")
        for file, more, prefix in (("boxes.json", [], ""), ("masks.json", ["--masks"], "mask_")):
            assert main(["score", "coco", truth, str(out / file), "--json", *more]) == 0
            said = json.loads(capsys.readouterr().out)
            assert {n: said[n] for n in ("AP", "AP50", "AR100")} == {
                n: found[prefix + n] for n in ("AP", "AP50", "AR100")
            }
    else:
        lists = ["--list", str(boxes / "ImageSets/Main/val.txt"), "--json"]
        for name, more in (("mAP", ["--area"]), ("mAP07", [])):
            assert main(["score", "voc", str(boxes / "Annotations"), str(out), *lists, *more]) == 0
            assert json.loads(capsys.readouterr().out)["mAP"] == pytest.approx(found[name], abs=1e-12)
    pictures = [str(p) for p in sorted((boxes / "JPEGImages").glob("val*"))[:2]]
    assert main(["predict", str(run), *pictures, f"out={tmp_path / 'found'}", "pictures=true", "score=0.0"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "found/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(len(line["boxes"]) == len(line["scores"]) == len(line["labels"]) for line in lines)
    assert len(list((tmp_path / "found/pictures").glob("*.png"))) == 2
    # the published weights alone know what they are
    capsys.readouterr()
    assert main(["predict", str(run / "weights.safetensors"), *pictures, "score=0.0", "--json"]) == 0
    alone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(alone, lines, strict=True):
        assert np.allclose(one["scores"], other["scores"], atol=1e-6) and one["labels"] == other["labels"]


@pytest.fixture(scope="module")
def trained(written, tmp_path_factory) -> Path:
    """A run with masks."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "detect", f"data={written}", "head=mask_rcnn", "--run", str(run), *SHORT, *SLIM]) == 0
    return run


@pytest.fixture(scope="module")
def of_one_stage(written, tmp_path_factory) -> Path:
    """A run of VOC's files."""
    run = tmp_path_factory.mktemp("of_one_stage") / "run"
    words = ["train", "detect", f"data={written}", "format=voc", "head=one_stage", "--run", str(run), *SHORT]
    assert main(words) == 0
    return run


def test_torchvisions_classes_read_what_is_written_and_the_other_way_round(written, tmp_path):
    from safetensors.torch import load_file
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    from trunkline.pipelines.models.ready import Source, ready

    theirs = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d), 7)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    again = tmp_path / "again"
    own = [w for w in SHORT if not w.startswith(("weights", "backbone", "batch", "updates"))] + ["batch=1", "updates=1"]
    more = [f"weights={tmp_path / 'theirs.pth'}", "backbone=resnet18", "--run", str(again), "evaluation.every=0"]
    assert main(["train", "detect", f"data={written}", "head=mask_rcnn", *own, *more]) == 0
    assert "of its detector" in json.loads((again / "load.json").read_text())["report"]
    theirs.load_state_dict(load_file(again / "weights.safetensors"))
    assert ready(Source(str(again / "weights.safetensors"))).task.options.head == "mask_rcnn"


def test_a_detector_that_does_not_fit_is_refused(written, trained, tmp_path, capsys):
    own = [w for w in SHORT if not w.startswith(("weights", "backbone"))]
    words = ["train", "detect", f"data={written}", "head=one_stage", f"weights={trained}", "--run", str(tmp_path / "b")]
    assert main([*words, *own]) == 2
    assert "its detector does not fit" in capsys.readouterr().err
    with pytest.raises(DataError):
        read_split(options(written, format="voc", head="mask_rcnn"), "train")


def test_vocs_result_files_have_the_lists_names(boxes, of_one_stage, tmp_path, capsys):
    """Also where an annotation calls its picture otherwise; where there is one of the list's name, it is the one."""
    (boxes / "JPEGImages/val_00000.jpg").rename(boxes / "JPEGImages/other.jpg")
    for number, name in ((0, "other"), (1, "val_00002")):
        file = boxes / f"Annotations/val_0000{number}.xml"
        file.write_text(file.read_text().replace(f"val_0000{number}.jpg", f"{name}.jpg"))
    found = read_split(options(boxes, format="voc"), "val")
    assert [found.id(i).rpartition("/")[2] for i in range(2)] == ["other.jpg", "val_00001.jpg"]
    words = ["evaluate", str(of_one_stage), f"data={boxes}", "format=voc", f"results={tmp_path / 'found'}", "score=0.0"]
    assert main(words) == 0
    capsys.readouterr()
    lists = ["--list", str(boxes / "ImageSets/Main/val.txt"), "--json"]
    assert main(["score", "voc", str(boxes / "Annotations"), str(tmp_path / "found"), *lists]) == 0


def test_a_category_with_the_number_0_keeps_it(boxes):
    def edit(document):
        document["categories"][0]["id"] = 0
        for one in document["annotations"]:
            one["category_id"] = 0 if one["category_id"] == 1 else one["category_id"]

    change(boxes, edit)
    found = read_split(options(boxes), "train")
    turned = read_split(options(boxes), "train", found.classes[::-1])
    assert found.index.category_ids.min() == 0
    assert turned.index.category_ids.tolist() == found.index.category_ids.tolist()[::-1]


def test_pictures_show_what_was_asked_for_and_sizes_keep_their_proportion(written, trained, tmp_path):
    boxes, run = written, trained
    file = boxes / "JPEGImages/val_00000.jpg"
    drawn = {}
    for score in ("0.05", "0.0"):
        out = tmp_path / score
        words = ["predict", str(run), str(file), f"out={out}", "pictures=true", f"score={score}"]
        assert main(words) == 0
        (picture,) = (p for p in (out / "pictures").iterdir())
        drawn[score] = np.array(Image.open(picture).convert("RGB"))
    assert (drawn["0.05"] != drawn["0.0"]).any()
    lines = [json.loads(line) for line in (tmp_path / "0.0/predictions.jsonl").read_text().splitlines()]
    classes = read_split(options(boxes), "val").classes
    assert lines[0]["labels"] == [classes[n] for n in lines[0]["numbers"]]  # a class has one colour in all pictures

    own = options(boxes)
    assert changed_options("detection", own, {"size": "256"}).longest == 512
    assert changed_options("detection", own, {"size": "256", "longest": "300"}).longest == 300


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predict", "RUN", "x.jpg", "format=voc"], "format=voc: is of a data set, and here are files; leave it out"),
        (["predict", "RUN", "x.jpg", "sizes=64,96"], "sizes=64,96: only training reads it; leave it out"),
        (["evaluate", "RUN", "jitter=0.5,2"], "jitter=0.5,2: only training reads it; leave it out"),
        (["evaluate", "RUN", "colour=1"], "the task's options (of classification: data, on_bad_sample, strict, "),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(words, says, trained, capsys, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    given = [str(trained) if w == "RUN" else str(tmp_path / w) if w == "x.jpg" else w for w in words]
    assert main(given) == 2 and says in capsys.readouterr().err


def test_a_detector_finds_the_micro_batch_that_fits(boxes, tmp_path):
    """Its targets are lists, one for each picture: they are repeated like the pictures."""
    words = ["train", "detect", f"data={boxes}", *SHORT, *SLIM, "micro_batch=auto", "--run", str(tmp_path / "run")]
    assert main(words) == 0
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["resolved"]["batch"]["micro"] == 2 and "GiB" in recipe["auto"]["batch.micro"][1]
