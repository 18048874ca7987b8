"""A plain torchvision classifier, detector or segmenter of one's own: evaluated and predicted, with names by position."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models import detection, segmentation
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import trunkline
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.heads.contract import Batch
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.evaluation.evaluate import absolute
from trunkline.pipelines.models.opened import folder_of, weights_of
from trunkline.tasks.detection.scenes import write_box_scenes
from trunkline.tasks.segmentation.scenes import write_pixel_scenes

pytestmark = pytest.mark.usefixtures("one_core")
FEW = ["loaders=0", "device=cpu", "threads=1"]


def settled(model):
    """Norms with numbers of their own, so that each of them matters."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A checkpoint of a training script: ResNet-18 of ten classes under `model.`."""
    path = tmp_path_factory.mktemp("classifier") / "best.ckpt"
    model = settled(torchvision.models.resnet18(num_classes=10))
    torch.save({"state_dict": {f"model.{n}": t for n, t in model.state_dict().items()}, "epoch": 1}, path)
    return path


@pytest.fixture(scope="module")
def names(scenes) -> list[str]:
    return sorted(p.name for p in (scenes / "train").iterdir())


def test_a_classifier_is_scored_with_the_datas_names_by_position(classifier, scenes, names, capsys):
    assert main(["evaluate", str(classifier), f"data={scenes}", "size=32", "--json", *FEW]) == 0
    told = capsys.readouterr()
    assert f"classes by position, as {scenes} has them: {', '.join(names)}" in told.err.replace("\n", "")
    assert "weights: 122 of 122 tensors from best.ckpt; under state_dict, prefix model." in told.err.replace("\n", " ")
    assert "assumed: torchvision's preprocessing for ImageNet, mean 0.485" in told.err.replace("\n", " ")
    scores = json.loads(told.out)
    theirs = settled(torchvision.models.resnet18(num_classes=10))
    theirs.load_state_dict({n.removeprefix("model."): t for n, t in torch.load(classifier)["state_dict"].items()})
    right = total = 0
    crop = torchvision.transforms.Compose([
        torchvision.transforms.Resize(36), torchvision.transforms.CenterCrop(32), torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    for picture, label in torchvision.datasets.ImageFolder(str(scenes / "val")):
        with torch.inference_mode():
            right += int(theirs(crop(picture)[None]).argmax()) == label
        total += 1
    assert scores["samples"] == total and scores["top1"] == pytest.approx(right / total, abs=1e-6)


def test_a_classifier_predicts_the_names_that_are_given(classifier, scenes, names, capsys):
    turned = names[::-1]
    with_names = trunkline.predict(classifier, scenes / "val", size=32, classes=tuple(names), device="cpu")
    others = trunkline.predict(classifier, scenes / "val", size=32, classes=tuple(turned), device="cpu")
    for one, other in zip(with_names, others, strict=True):
        assert names.index(one.label) == turned.index(other.label)
    assert (
        main(["predict", str(classifier), str(scenes / "val"), f"classes={','.join(names)}", "size=32", "device=cpu"])
        == 0
    )
    assert "classes by position, as given" in capsys.readouterr().err.replace("\n", " ")


def test_names_that_are_absent_or_of_another_number_are_refused(classifier, scenes, names, short_run, capsys):
    with pytest.raises(RecipeError, match=r"10 classes apart and has no names .*classes=NAME,NAME,… with 10 names"):
        list(trunkline.predict(classifier, scenes / "val"))
    with pytest.raises(RecipeError, match=r"tells 10 classes apart, and there are 2 names, as given \(ant, bee\)"):
        list(trunkline.predict(classifier, scenes / "val", classes=("ant", "bee")))
    with pytest.raises(RecipeError, match=r"a, b stands there twice"):
        list(trunkline.predict(classifier, scenes / "val", classes=(*"abab", *names[:6])))
    with pytest.raises(RecipeError, match=r"add classes=NAME"):
        trunkline.evaluate(classifier)
    with pytest.raises(RecipeError, match="is a run, which says it itself; leave classes out"):
        list(trunkline.predict(short_run, scenes / "val", classes=tuple(names)))
    with pytest.raises(RecipeError, match="names its 10 classes itself; leave classes= out"):
        list(trunkline.predict(short_run / "weights.safetensors", scenes / "val", classes=tuple(names)))


def test_another_number_of_outputs_than_the_data_has_classes_is_refused(scenes, tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "three.pth")
    with pytest.raises(RecipeError, match=r"tells 3 classes apart, and there are 10 names, as .*data has them"):
        trunkline.evaluate(tmp_path / "three.pth", data=str(scenes), loaders=0)


def test_data_with_a_validation_split_alone_gives_the_names(classifier, data):
    import shutil

    shutil.rmtree(data / "train")
    assert trunkline.evaluate(classifier, data=str(data), size=32, loaders=0, device="cpu").samples == 20


def test_a_key_chooses_for_every_verb(scenes, names, tmp_path, capsys):
    first, second = (torchvision.models.resnet18(num_classes=10).state_dict() for _ in range(2))
    file = tmp_path / "w.pth.tar"
    torch.save({"state_dict": first, "state_dict_ema": second}, file)
    with pytest.raises(WeightsError, match=r"weights_key=state_dict_ema  \(resnet18, 122 tensors\)"):
        trunkline.evaluate(file, data=str(scenes))
    model = trunkline.model(file, weights_key="state_dict_ema", classes=tuple(names), device="cpu")
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], second["conv1.weight"])
    few = {"size": 32, "weights_key": "state_dict_ema", "device": "cpu"}
    assert next(iter(trunkline.predict(file, scenes / "val", classes=tuple(names), **few))).label in names
    words = ["train", "transfer", f"data={scenes}", f"weights={file}", "updates=1", "size=32", "batch=2", "evaluation.every=0",
             "machine.loaders=0", "machine.device=cpu", "log.tensorboard=false", "--run", str(tmp_path / "run")]  # fmt: skip
    assert main(words) == 2 and "weights_key=state_dict_ema" in capsys.readouterr().err
    assert main([*words, "weights_key=state_dict_ema"]) == 0
    assert "under state_dict_ema" in json.loads((tmp_path / "run/load.json").read_text())["report"]
    assert main(["show", "transfer", "data=x", "weights=none", "weights_key=ema"]) == 2
    assert "weights=none has no keys" in capsys.readouterr().err


def test_a_folder_does_not_hide_a_published_name(tmp_path, monkeypatch, short_run):
    monkeypatch.chdir(tmp_path)
    for name in ("resnet50", "mine"):
        (tmp_path / name).mkdir()
    assert folder_of("resnet50") is None and folder_of("mine") == Path("mine") and folder_of(short_run) == short_run
    assert absolute("resnet50") == "resnet50" and absolute("mine") == str(tmp_path / "mine")
    with pytest.raises(RecipeError, match=r"^mine: that folder holds no weights\.safetensors"):
        weights_of("mine")


def test_show_says_what_is_in_a_file(classifier, capsys):
    assert main(["show", "transfer", "data=photos", f"weights={classifier}"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("network.weights "))
    assert (
        "122 tensors of resnet18; under state_dict, prefix model.; left aside in the file: epoch; assumed: torchvision's"
        in line
    )


# detectors


def detector(frozen: bool):
    norm = torchvision.ops.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm)
    model = settled(detection.FasterRCNN(body, num_classes=4, min_size=128, max_size=128, box_score_thresh=0.0))
    if frozen:  # as torchvision does in its published detectors, and whoever fine-tunes them
        for module in model.modules():
            if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
                module.eps = 0.0
    return model


@pytest.mark.parametrize("frozen", [False, True])
def test_a_detector_finds_what_torchvision_finds(frozen, tmp_path):
    theirs = detector(frozen)
    torch.save(theirs.state_dict(), tmp_path / "det.pth")
    ours = trunkline.model(tmp_path / "det.pth", classes=("a", "b", "c"), device="cpu")
    torch.manual_seed(1)
    images = torch.randint(0, 255, (1, 3, 128, 128), dtype=torch.uint8)
    for part in (ours.heads["detection"].roi_heads, theirs.roi_heads):
        part.score_thresh, part.detections_per_img = 0.0, 20
    with torch.inference_mode():
        (found,) = ours.predict(Batch("detection", ["a"], images, torch.tensor([[128, 128]])))
        (expected,) = theirs(list(images / 255))
    assert len(found.scores) == 20 and np.allclose(found.scores, expected["scores"], atol=1e-4)
    assert np.array_equal(found.labels + 1, expected["labels"]) and np.allclose(
        found.boxes, expected["boxes"], atol=1e-2
    )


def test_a_detector_is_scored_with_the_datas_names(tmp_path, capsys):
    data = write_box_scenes(tmp_path / "boxes", train=4, val=3, size=64)
    classes = [c["name"] for c in json.loads(next(data.glob("annotations/*train*.json")).read_text())["categories"]]
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d)
    torch.save({"model": detection.FasterRCNN(body, num_classes=len(classes) + 1).state_dict()}, tmp_path / "det.pth")
    assert main(["evaluate", str(tmp_path / "det.pth"), f"data={data}", "size=64", "longest=64", *FEW]) == 0
    assert f"has them: {', '.join(classes)}" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    with pytest.raises(RecipeError, match=rf"tells {len(classes)} classes apart, and there are 1 names"):
        trunkline.evaluate(tmp_path / "det.pth", data=str(data), classes=("thing",))


def test_a_detector_whose_heads_are_not_read_is_named(tmp_path, scenes):
    model = detection.RetinaNet(resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=3)
    torch.save(model.state_dict(), tmp_path / "retina.pth")
    for use in (
        lambda f: trunkline.evaluate(f, data=str(scenes)),
        lambda f: list(trunkline.predict(f, scenes / "val")),
    ):
        with pytest.raises(RecipeError, match="is a RetinaNet of torchvision, of which only the trunk is read here"):
            use(tmp_path / "retina.pth")
    torch.save(
        {n.removeprefix("backbone.body."): t for n, t in model.state_dict().items() if "body" in n},
        tmp_path / "trunk.pth",
    )
    with pytest.raises(RecipeError, match="holds a trunk and no head that a task knows"):
        trunkline.evaluate(tmp_path / "trunk.pth", data=str(scenes))


# segmenters


def test_a_segmenter_says_what_torchvisions_says(tmp_path):
    theirs = settled(segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3))
    torch.save(theirs.state_dict(), tmp_path / "seg.pth")
    ours = trunkline.model(tmp_path / "seg.pth", classes=("none", "a", "b"), device="cpu")
    torch.manual_seed(1)
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    batch = Batch("segmentation", ["a"], images, torch.tensor([[64, 64]]))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        (logits,) = ours.heads["segmentation"].logits(ours.maps(batch), batch)
        expected = theirs((images / 255 - mean) / std)["out"][0]
    resized = torch.nn.functional.interpolate(logits[None], (64, 64), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(resized, expected, atol=1e-3)
    data = write_pixel_scenes(tmp_path / "pixels", train=2, val=2, size=64)
    with pytest.raises(
        RecipeError, match=r"tells 3 classes apart, and there are 7 names, as .*has them \(background, "
    ):
        trunkline.evaluate(tmp_path / "seg.pth", data=str(data), format="pairs", loaders=0)
