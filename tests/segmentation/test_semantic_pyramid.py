"""The head on a detector's pyramid: against a plain statement, its names, its files, and what it cannot stand on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.ground.errors import RecipeError, WeightsError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.pixels.pixel_losses import Weighted, pixel_losses
from trunkline.heads.pixels.segmentation import SegmentationHead
from trunkline.heads.pixels.semantic_pyramid import SemanticPyramidHead
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.ready import Source, ready
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.task import Segmentation

pytestmark = pytest.mark.usefixtures("one_core")
CLASSES = 5
PLAIN = ["machine.threads=1", "machine.loaders=0", "machine.precision=fp32", "log.tensorboard=false"]
SHORT = ["head=semantic_fpn", "batch=2", "updates=2", *PLAIN]
NARROW = ["weights=none", "backbone=narrow"]


def on_pyramid(**settings) -> Model:
    torch.manual_seed(0)
    trunk = Pyramid(backbone("narrow"), "pool", 32)
    head = SemanticPyramidHead(trunk.channels, CLASSES, **settings)
    with torch.no_grad():
        for name, tensor in head.named_parameters():
            if "norm" in name or "bias" in name:  # else ones and zeros, which hide what is left out
                tensor.uniform_(0.5, 1.5)
    return Model(trunk, {"segmentation": head}, Preprocessing())


def plain(maps: dict, tensors: dict, size: tuple[int, int]) -> torch.Tensor:
    """Section 3.1 of the paper, with the numbers of convolutions and enlargements written out."""
    total = None
    for name, convolutions, enlarge in (("p2", 1, False), ("p3", 1, True), ("p4", 2, True), ("p5", 3, True)):
        x = maps[name]
        for place in range(convolutions):
            own = f"{name}.{2 * place}"
            x = F.conv2d(x, tensors[f"{own}.weight"], padding=1)
            x = F.group_norm(x, 32, tensors[f"{own}.norm.weight"], tensors[f"{own}.norm.bias"]).relu()
            if enlarge:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
        if total is not None and x.shape != total.shape:
            x = F.interpolate(x, size=total.shape[-2:], mode="bilinear")
        total = x if total is None else total + x
    logits = F.conv2d(total, tensors["predictor.weight"], tensors["predictor.bias"])
    enlarged = F.interpolate(logits, scale_factor=4, mode="bilinear")
    return enlarged if enlarged.shape[-2:] == size else F.interpolate(logits, size=size, mode="bilinear")


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 40), (31, 130), (7, 5)])
def test_it_computes_what_the_paper_says_at_any_size(size):
    model = on_pyramid().eval()
    head, images = model.heads["segmentation"], torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    batch = Batch("segmentation", ["a", "b"], images, torch.tensor([size] * 2))
    with torch.inference_mode():
        maps = model.maps(batch)
        expected = plain(maps, head.state_dict(), size)
        assert torch.equal(head(maps, size), expected) and expected.shape == (2, CLASSES, *size)
        assert torch.equal(head(head.condense(maps), size), expected)
        assert all(torch.equal(one, two) for one, two in zip(head.logits(maps, batch), expected, strict=True))
        assert (model.predict(batch)[1].labels == expected[1].argmax(0).numpy()).all()


def test_its_losses_are_those_of_all_heads():
    weighted = Weighted(2.0, class_weights=(1.0, 2.0, 0.5, 1.0, 3.0))
    model = on_pyramid(weighted=weighted).train()
    mask = torch.randint(0, CLASSES, (2, 40, 56)).masked_fill(torch.rand(2, 40, 56) < 0.1, 255)
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    batch = Batch("segmentation", ["a", "b"], images, targets={"mask": mask.to(torch.uint8)})
    features = model.maps(batch)
    found = model.heads["segmentation"].losses(features, batch)
    expected = pixel_losses(model.heads["segmentation"](features, (40, 56)), mask, weighted)
    assert found.keys() == {"cross_entropy"} and torch.equal(found["cross_entropy"], expected["cross_entropy"])
    found["cross_entropy"].backward()
    assert all(p.grad is not None for p in model.heads.parameters())
    assert model.backbone.fpn.inner_blocks[0][0].weight.grad.any() and model.backbone.body.conv1.weight.grad.any()


def test_names_and_shapes_are_detectron2s():
    """As its `SemSegFPNHead` with GN makes them for the strides 4 to 32 (modeling/meta_arch/semantic_seg.py)."""
    tensors = on_pyramid().heads["segmentation"].state_dict()
    expected = {"predictor.weight": (CLASSES, 128, 1, 1), "predictor.bias": (CLASSES,)}
    for name, channels in {
        "p2.0": 32,
        "p3.0": 32,
        "p4.0": 32,
        "p4.2": 128,
        "p5.0": 32,
        "p5.2": 128,
        "p5.4": 128,
    }.items():
        expected |= {
            f"{name}.weight": (128, channels, 3, 3),
            f"{name}.norm.weight": (128,),
            f"{name}.norm.bias": (128,),
        }
    assert {name: tuple(t.shape) for name, t in tensors.items()} == expected
    norms = [m for m in on_pyramid().heads.modules() if "Norm" in type(m).__name__]
    assert {(type(m).__name__, m.num_groups) for m in norms} == {("GroupNorm", 32)}


def test_what_it_cannot_stand_on_is_told_with_what_to_set():
    plain_trunk, conv = backbone("narrow"), Pyramid(backbone("narrow"), "conv", 32)
    for trunk in (plain_trunk, conv):
        with pytest.raises(WeightsError, match=r"reads the maps p2, p3, p4, p5 .*set network.pyramid=pool"):
            SemanticPyramidHead(trunk.channels, 3)
    dilated = Pyramid(backbone("narrow", output_stride=16), "pool", 32)
    assert dilated.strides["p4"] == dilated.strides["p5"] == 16  # the levels no longer halve
    for stride in (16, 8):
        with pytest.raises(WeightsError, match=f"of output stride {stride}: set network.output_stride=32"):
            SemanticPyramidHead(dilated.channels, 3, output_stride=stride)
    with pytest.raises(WeightsError, match="make a SemanticPyramidHead"):
        SegmentationHead("semantic_fpn", dilated.channels, 3)
    with torch.device("meta"):
        task = Segmentation(Options(head="semantic_fpn", crop=64), Preprocessing())
        assert task.misfits(Pyramid(backbone("narrow"), "pool", 32)) == []
        (said,) = task.misfits(backbone("narrow"))
    assert said.endswith("this trunk has c1, c2, c3, c4, c5: set network.pyramid=pool")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network.pyramid": "none"}, "head=semantic_fpn reads the maps p2, p3, p4, p5 of a pyramid around the trunk, and "
         "network.pyramid=none has not all of them: set network.pyramid=pool"),
        ({"network.pyramid": "conv"}, "network.pyramid=conv has not all of them: set network.pyramid=pool"),
        ({"output_stride": "16"}, "on a trunk of output stride 16: set network.output_stride=32"),
        ({"output_stride": "8"}, "on a trunk of output stride 8: set network.output_stride=32"),
        ({"aux": "0.4"}, "tasks.segmentation.aux=0.4: head=semantic_fpn trains none beside; set aux=0"),
        ({"dropout": "0.1"}, "tasks.segmentation.dropout=0.1: head=semantic_fpn has none, as published; leave it out"),
    ],
)  # fmt: skip
def test_wrong_settings_are_told_before_anything_is_read(settings, said):
    with pytest.raises(RecipeError) as error:
        resolve("segment", {"data": "nowhere", "head": "semantic_fpn", **settings})
    assert len(error.value.problems) == 1 and said in error.value.problems[0]


def test_the_recipe_sets_the_pyramid_for_this_head_alone():
    network = resolve("segment", {"data": "d", "head": "semantic_fpn"}).recipe.network
    assert (network.pyramid, network.output_stride) == ("pool", 32)
    assert resolve("segment", {"data": "d", "head": "fpn"}).recipe.network.pyramid == "none"
    own = {"data": "d", "head": "semantic_fpn", "network.pyramid": "none", "network.wrapper": "a-plug-in's"}
    with pytest.raises(RecipeError, match="wrapper") as error:  # which may bring the maps itself
        resolve("segment", own)
    assert "set network.pyramid" not in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("pyramid") / "run"
    assert main(["train", "segment", "smoke=true", "view=fit", "--run", str(run), *NARROW, *SHORT]) == 0
    return run


def test_a_published_file_is_named_as_others_name_it_and_loads_again(trained, tmp_path, capsys):
    file = trained / "weights.safetensors"
    tensors = load_file(file)
    starts = {".".join(name.split(".")[:2]) if name.startswith("backbone") else name.split(".")[0] for name in tensors}
    assert starts == {"backbone.body", "backbone.fpn", "sem_seg_head"}
    assert {"sem_seg_head.p4.2.norm.weight", "backbone.fpn.layer_blocks.3.0.bias"} <= tensors.keys()
    found = ready(Source(str(file)))
    assert found.recipe.network.pyramid == "pool" and found.recipe.network.output_stride == 32
    options = found.task.options
    assert (options.head, options.view, options.size, options.longest) == ("semantic_fpn", "fit", 64, None)
    data = json.loads((trained / "recipe.json").read_text())["resolved"]["tasks"]["segmentation"]["data"]
    capsys.readouterr()
    assert main(["evaluate", str(file), f"data={data}", "format=pairs", "--json"]) == 0
    first = json.loads((trained / "scores.json").read_text())
    assert json.loads(capsys.readouterr().out)["details"]["class_iou"] == first["details"]["class_iou"]
    torch.save(tensors, tmp_path / "bare.pth")  # without a header, known by its names
    names = ",".join(found.task.classes)
    given = [str(tmp_path / "bare.pth"), f"data={data}", "format=pairs", "view=fit", "size=64", "backbone=narrow"]
    assert main(["evaluate", *given, f"classes={names}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["details"]["class_iou"] == first["details"]["class_iou"]
    assert main(["predict", str(file), f"{data}/images/val", f"out={tmp_path / 'out'}"]) == 0
    assert len(list((tmp_path / "out/masks").iterdir())) == 8


def test_it_begins_from_a_published_file_with_its_classes_or_others(trained, tmp_path, capsys):
    file, then = trained / "weights.safetensors", load_file(trained / "weights.safetensors")
    for classes, more in ((6, ""), (3, "; new layers for other classes")):
        data = write_pixel_scenes(tmp_path / f"data{classes}", classes=classes, train=2, val=1, size=64)
        run = tmp_path / f"run{classes}"
        words = ["train", "segment", f"data={data}", "format=pairs", "crop=64", f"weights={file}", *SHORT, "lr=1e-12"]
        assert main([*words, "evaluation.every=0", "--run", str(run)]) == 0
        report, now = json.loads((run / "load.json").read_text())["report"], load_file(run / "weights.safetensors")
        count = sum(not name.startswith("backbone.body.") for name in then) - (2 if more else 0)
        assert f"{count} tensors of its pyramid and head{more}" in report
        for name in (
            "backbone.fpn.inner_blocks.2.0.weight",
            "sem_seg_head.p5.4.weight",
            "sem_seg_head.predictor.weight",
        ):
            same = now[name].shape == then[name].shape and torch.allclose(now[name], then[name], atol=1e-6)
            assert same == (not more or "predictor" not in name), name
    words = ["train", "segment", f"data={data}", "format=pairs", "crop=64", f"weights={file}", *PLAIN, "batch=2"]
    capsys.readouterr()
    assert main([*words, "head=fcn", "output_stride=32", "updates=1", "--run", str(tmp_path / "other")]) == 2
    assert "its head does not fit" in capsys.readouterr().err
