"""The segmentation task on generated scenes: training, scores, files, views, and weights that others read."""

import base64
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import DataError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.pixels.segmentation import SegmentationHead
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.ready import Source, ready
from trunkline.tasks.contract import Sample
from trunkline.tasks.segmentation.evaluator import PixelEvaluator
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.splits import read_split
from trunkline.tasks.segmentation.task import Segmentation
from trunkline.tasks.segmentation.views import parts

pytest.importorskip("segmentation_models_pytorch")
pytestmark = pytest.mark.usefixtures("one_core")
SHORT = ["format=pairs", "weights=none", "backbone=narrow", "crop=64", "batch=2", "updates=2", "machine.threads=1",
         "machine.loaders=0", "machine.precision=fp32", "log.tensorboard=false"]  # fmt: skip


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> Path:
    return write_pixel_scenes(tmp_path_factory.mktemp("pixels") / "data", train=8, val=5, size=64)


@pytest.fixture(scope="module")
def trained(pixels, tmp_path_factory) -> Path:
    """A run of torchvision's head, with the FCN beside."""
    run = tmp_path_factory.mktemp("trained") / "run"
    own = ["backbone=resnet18", "head=deeplabv3", "output_stride=8", "tasks.segmentation.aux=0.4"]
    short = [w for w in SHORT if not w.startswith("backbone")]
    assert main(["train", "segment", f"data={pixels}", *own, "--run", str(run), *short]) == 0
    return run


def task_of(pixels: Path, **changed) -> Segmentation:
    return Segmentation(Options(data=str(pixels), format="pairs", crop=64, **changed), Preprocessing())


def model_of(task: Segmentation) -> Model:
    torch.manual_seed(0)
    trunk = backbone("narrow", output_stride={"unet": 32, "fpn": 32}.get(task.options.head, 16))
    return Model(trunk, {"segmentation": task.head(trunk)}, Preprocessing()).eval()


@pytest.mark.parametrize("head", ["deeplabv3plus", "fcn", "unet", "fpn"])
def test_every_head_is_trained_and_scored(pixels, tmp_path, head, capsys):
    run = tmp_path / "run"
    assert main(["train", "segment", f"data={pixels}", f"head={head}", "--run", str(run), *SHORT]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run / "weights.safetensors"), f"data={pixels}", "format=pairs", "--json"]) == 0
    again, first = json.loads(capsys.readouterr().out), json.loads((run / "scores.json").read_text())
    assert (
        again["mIoU"] == pytest.approx(first["mIoU"]) and again["details"]["class_iou"] == first["details"]["class_iou"]
    )
    assert {p.suffix for p in (run / "predictions/examples").iterdir()} == {".jpg"}
    assert "mIoU" in (run / "report.html").read_text()


def test_result_files_are_what_predict_says_and_score_the_same(pixels, trained, tmp_path, capsys):
    assert main(["evaluate", str(trained), f"results={tmp_path / 'found'}", f"out={tmp_path / 'r.jsonl'}"]) == 0
    pictures = sorted((pixels / "images/val").iterdir())
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(pixels / "images/val"), f"out={out}", "pictures=true"]) == 0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    for n, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        one = (tmp_path / f"found/val/{picture.stem}.png").read_bytes()
        assert one == (out / f"masks/{n:06d}-{picture.stem}.png").read_bytes() == base64.b64decode(line["mask"])
        with Image.open(tmp_path / f"found/val/{picture.stem}.png") as mask:
            labels = np.asarray(mask)
            assert mask.mode == "P" and mask.size == Image.open(picture).size
        assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert line["classes"][np.bincount(labels.ravel()).argmax()] == next(iter(line["shares"]))
        assert Image.open(out / f"pictures/{n:06d}-{picture.stem}.png").height > 64  # a legend below
    assert all("mask" in json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines())


def test_torchvisions_class_reads_the_weights_and_the_other_way_round(pixels, trained, tmp_path):
    from safetensors.torch import load_file
    from torchvision.models import resnet18
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
    from torchvision.models.segmentation.fcn import FCNHead

    found = ready(Source(str(trained / "weights.safetensors")))
    assert found.task.options.head == "deeplabv3" and found.recipe.network.output_stride == 8
    body = IntermediateLayerGetter(resnet18(), {"layer4": "out", "layer3": "aux"})
    theirs = DeepLabV3(body, DeepLabHead(512, 7, (12, 24, 36)), FCNHead(256, 7))
    theirs.load_state_dict(load_file(trained / "weights.safetensors"))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    again = tmp_path / "again"
    own = [w for w in SHORT if not w.startswith(("weights", "backbone"))]
    more = [f"weights={tmp_path / 'theirs.pth'}", "head=deeplabv3", "--run", str(again), "evaluation.every=0"]
    assert main(["train", "segment", f"data={pixels}", *own, *more]) == 0
    report = json.loads((again / "load.json").read_text())["report"]
    assert "tensors of its head; new layers for other classes; the FCN beside left out" in report


def test_a_published_segmenter_of_torchvision_predicts_as_there(tmp_path):
    """Its file says nothing of itself: 21 classes are VOC's, the output stride is 8."""
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(3)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    found = ready(Source(str(tmp_path / "theirs.pth")))
    assert found.task.facts["classes"][:2] == ["background", "aeroplane"] and found.task.options.head == "deeplabv3"
    image = torch.randint(0, 256, (1, 3, 65, 90), dtype=torch.uint8)
    batch = Batch("segmentation", ["a"], image, torch.tensor([[65, 90]]), {"original": torch.tensor([[65, 90]])})
    with torch.inference_mode():
        x = found.model.normalise(batch)
        logits = found.model.heads["segmentation"].logits(found.model.maps(batch), batch)[0]
        wanted = theirs(x)["out"][0]
        assert torch.allclose(logits, wanted, atol=1e-4, rtol=1e-4)
        assert np.array_equal(found.task.infer(found.model, batch)[0].labels, logits.argmax(0).byte().numpy())


def test_weights_of_another_head_are_refused(pixels, trained, tmp_path, capsys):
    own = [w for w in SHORT if not w.startswith(("weights", "backbone"))]
    words = [
        "train",
        "segment",
        f"data={pixels}",
        "head=unet",
        f"weights={trained}",
        "--run",
        str(tmp_path / "b"),
        *own,
    ]
    assert main(words) == 2
    assert "its head does not fit" in capsys.readouterr().err


def test_a_batch_of_one_with_a_pooled_batch_norm(pixels, tmp_path, capsys):
    words = ["train", "segment", f"data={pixels}", *SHORT, "micro_batch=1"]
    assert main([*words, "--run", str(tmp_path / "a")]) == 2
    assert "micro-batch has one: set micro_batch=2 or more, or network.norm=group" in capsys.readouterr().err
    assert main([*words, "--run", str(tmp_path / "b"), "network.norm=group"]) == 0
    assert main([*words, "--run", str(tmp_path / "c"), "head=unet"]) == 0


def test_class_weights_are_one_for_each_class(pixels):
    with pytest.raises(DataError, match=r"class_weights: has 2 numbers for 7 classes \(background, circle"):
        model_of(task_of(pixels, class_weights=(1.0, 2.0)))


def test_batches_are_padded_with_void_and_scored_in_the_pictures_own_size(pixels):
    task = task_of(pixels, head="unet", jitter=(0.5, 0.5))
    samples = [task.transform(True)(task.samples("train")[i]) for i in range(2)]
    batch = task.collate(samples)
    assert batch.images is not None and batch.images.shape == (2, 3, 64, 64) and batch.sizes.tolist() == [[32, 32]] * 2
    assert (batch.targets["mask"][:, 32:] == 255).all() and (batch.targets["mask"][:, :, 32:] == 255).all()
    small = task_of(pixels, head="unet", size=33)
    sample = small.samples("val")[0]
    batch = small.collate([small.transform(False)(sample)])
    assert batch.images is not None and batch.images.shape == (1, 3, 64, 64) and batch.sizes.tolist() == [[33, 33]]
    (found,) = small.infer(model_of(small), batch)
    assert found.labels.shape == (64, 64)


def test_windows_cover_everything_once_and_overlap():
    for length, side, overlap in [(100, 64, 0.5), (64, 64, 0.5), (65, 64, 0.0), (4000, 1024, 0.53), (777, 320, 0.9)]:
        found = parts(length, side, overlap)
        assert [p.first for p in found[1:]] == [p.last for p in found[:-1]] and found[0].first == 0
        assert found[-1].last == length and all(p.start % 32 == 0 and p.stop - p.start <= side for p in found)
        for one, other in pairwise(found):
            assert one.stop - other.start >= side * overlap
            assert (
                abs((one.stop - one.last) - (other.first - other.start)) <= 1
            )  # no window nearer to its edge than it must


def test_views_see_what_one_look_sees(pixels):
    """A trunk's first stage alone sees so little that windows, and a mirrored copy of a mirrored trunk, make no difference."""
    torch.manual_seed(0)
    task = task_of(pixels, head="fcn")
    image = torch.randint(0, 256, (3, 200, 264), dtype=torch.uint8)
    whole = model_of(task)
    batch = task.collate([task.transform(False)(Sample("a", "a", image))])
    with torch.inference_mode():
        reference = whole.heads["segmentation"].logits(whole.maps(batch), batch)[0].softmax(0)
    assert isinstance(whole.heads["segmentation"], SegmentationHead)

    def labels(**changed):
        other = task_of(pixels, head="fcn", **changed)
        with torch.inference_mode():
            return other.infer(whole, other.collate([other.transform(False)(Sample("a", "a", image))]))[0].labels

    assert np.array_equal(labels(), reference.argmax(0).numpy())
    assert np.array_equal(labels(scales=(1.0,)), labels()) and np.array_equal(labels(tiles=264), labels())
    flipped = labels(flips=True)
    image = image.flip(-1)
    assert np.array_equal(labels(flips=True)[:, ::-1], flipped)  # a mean of both directions has none
    assert labels(tiles=128, scales=(0.5, 1.0), crf=True).shape == (200, 264)


def test_the_evaluators_numbers_are_those_of_one_matrix(pixels):
    """Against plain numpy over all pixels, and void where the truth has it; a class without pixels is not in the mean."""
    from trunkline.heads.pixels.pixel_head import PixelPrediction

    samples = read_split(Options(data=str(pixels), format="pairs"), "val")
    evaluator, rng, pairs = PixelEvaluator(samples), np.random.default_rng(0), []
    for i in range(len(samples)):
        truth = samples[i].targets["mask"]
        found = np.where(rng.random(truth.shape) < 0.5, np.minimum(truth.numpy(), 6), rng.integers(0, 7, truth.shape))
        pairs.append((truth.numpy(), found.astype(np.uint8)))
        batch = Batch("segmentation", [samples.id(i)], targets={"mask": [truth]})
        evaluator.add(evaluator.measure(batch, [PixelPrediction(samples.id(i), pairs[-1][1])]))
    truth, found = (np.concatenate([pair[n].ravel() for pair in pairs]) for n in (0, 1))
    truth, found = truth[truth != 255], found[truth != 255]
    ious = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in np.unique(truth)]
    scores = evaluator.result()
    assert scores.metrics["mIoU"] == np.mean(ious) and scores.metrics["pixel_accuracy"] == (truth == found).mean()
    low, high = scores.intervals["mIoU"]
    assert low < scores.metrics["mIoU"] < high and 0 < scores.metrics["boundary_IoU"] < 1
    assert scores.samples == len(samples) and len(scores.details["class_iou"]) == 7
    table, examples = evaluator.blocks(scores)
    assert [row[1] for row in table.rows] == [v for v in scores.details["class_iou"].values() if v is not None]
    assert [picture.id for picture in examples.pictures] == scores.details["examples"]
    assert set(evaluator.metrics) == set(scores.metrics)


def test_pictures_smaller_than_the_crop_are_told(pixels, tmp_path, capsys):
    words = [
        "train",
        "segment",
        f"data={pixels}",
        *[w for w in SHORT if not w.startswith("crop")],
        "crop=96",
        "head=unet",
    ]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    said = (
        "8 of 8 pictures are smaller than crop=96 (one is 64 x 64): what a crop lacks is padded with pixels of no class"
    )
    assert said in capsys.readouterr().err
    remarks = read_split(Options(data=str(pixels), format="pairs", crop=96, short=96), "train").remarks()
    assert not any("smaller than crop" in line for line in remarks)
    remarks = read_split(Options(data=str(pixels), format="pairs", crop=96), "val").remarks()
    assert not any("smaller than crop" in line for line in remarks)


WRONG = [
    (lambda d: Image.new("P", (32, 64)).save(d / "masks/train/00001.png"), "00001.png: is 32 x 64 pixels; its picture"),
    (
        lambda d: Image.new("L", (64, 64), 9).save(d / "masks/train/00001.png"),
        "9 in 4,096 pixels; expected 0 to 6, 255",
    ),
    (lambda d: Image.new("RGB", (64, 64), "red").save(d / "masks/train/00001.png"), "its pixels are colours (RGB)"),
    (
        lambda d: (d / "masks/train/00001.png").unlink(),
        "train/00001: without a mask in masks/train/ (images/train/00001.jpg)",
    ),
    (
        lambda d: (d / "masks/train/00001.png").write_bytes(b"\x89PNG\r\n\x1a\nno"),
        "00001.png: the PNG is cut off",
    ),
    (
        lambda d: (d / "classes.txt").write_text("0 0 0 background\n9 9 9 other\n"),
        "colours that are no class's: (128, 0, 0)",
    ),
]


@pytest.mark.parametrize(("spoil", "says"), WRONG)
def test_wrong_masks_stop_a_run_by_name(pixels, tmp_path, spoil, says, capsys):
    data = Path(shutil.copytree(pixels, tmp_path / "data"))
    spoil(data)
    short = [w for w in SHORT if not w.startswith("updates")]
    words = ["train", "segment", f"data={data}", *short, "head=fcn"]
    assert main([*words, "updates=4", "--run", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err
    assert "on_bad_sample=skip leaves them out" in err
    if "(128" not in says:
        assert main([*words, "on_bad_sample=skip", "updates=1", "--run", str(tmp_path / "again")]) == 0
        assert "left out 1 sample: train/00001" in capsys.readouterr().err
