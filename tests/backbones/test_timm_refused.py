"""What does not go with a network of timm is said in one line, before data is read and before a folder is made."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from short_run import PLAIN

from trunkline.backbones import backbone, read_weights
from trunkline.backbones.contract import Sizes
from trunkline.backbones.table import named
from trunkline.backbones.timm_facts import CannotDilate
from trunkline.ground.errors import WeightsError
from trunkline.pipelines.command.cli import main

SEGMENT, DETECT, TRANSFER = (["train", name, "data=/nowhere"] for name in ("segment", "detect", "transfer"))
TILES = "tasks.segmentation.tiles"
REFUSED = [
    ([*SEGMENT, "head=fcn"], "edgenext_xx_small", "cannot dilate it to 16: set network.output_stride=32"),
    ([*SEGMENT, "head=deeplabv3"], "edgenext_xx_small", "made for an output stride of 8 or 16: take one of head=fcn, unet, fpn"),
    ([*SEGMENT, "head=fpn"], "test_vit", "head=fpn needs the maps c2, c3, c4, c5; this trunk has c4"),
    ([*SEGMENT, "head=unet", "tasks.segmentation.aux=0.4"], "xcit_nano_12_p8_224", "needs the maps c2, c3, c4, c5"),
    ([*SEGMENT, "head=fpn", "crop=128"], "inception_v3", "head=fpn joins maps of which each is 2 times the next"),
    ([*SEGMENT, "head=fpn", "crop=128", f"{TILES}=160"], "test_coatnet", "crop=128: the trunk takes 160 x 160 pixels: set crop"),
    ([*SEGMENT, "head=fpn", "crop=160"], "test_coatnet", "whole pictures: set tasks.segmentation.tiles=160"),
    ([*DETECT], "test_coatnet", "pictures of up to 1280 x 1280"),
    ([*DETECT], "pit_ti_224", "timm:pit_ti_224 has c3, c4, c5; pyramid=conv, of head=one_stage, needs no c2"),
    ([*TRANSFER, "size=100"], "dla46x_c", "size=100: the trunk takes sides that are multiples of 32: set size=96 or 128"),
    ([*TRANSFER, "mode=last"], "test_efficientnet", "phases.0.frozen=4: expected 0 or 5 for timm:test_efficientnet"),
    ([*TRANSFER], "no_such_network", "timm has no such network"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "name", "said"), REFUSED)
def test_refused_before_there_is_data(words, name, said, tmp_path, capfd, one_core):
    run = tmp_path / "run"
    assert main([*words, f"backbone=timm:{name}", "weights=none", *PLAIN, "--run", str(run)]) == 2
    err = capfd.readouterr().err
    assert said in err and f"timm:{name}" in err and "/nowhere" not in err and err.count("\n") == 1
    assert not run.exists()


def test_a_network_that_fits_is_not_stopped_before_the_data(tmp_path, capfd, one_core):
    words = [*TRANSFER, "size=96", "backbone=timm/dla46x_c", "weights=none", *PLAIN]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    err = capfd.readouterr().err
    assert "/nowhere" in err and "dla46x_c" not in err


def test_the_name_in_a_files_header_is_looked_at_too(tmp_path, capfd, one_core):
    file = tmp_path / "some.safetensors"
    save_file({"x": torch.zeros(1)}, file, metadata={"arch": "timm:test_coatnet"})
    assert main([*TRANSFER, "size=96", f"weights={file}", *PLAIN, "--run", str(tmp_path / "run")]) == 2
    assert "size=96: the trunk takes 160 x 160 pixels" in capfd.readouterr().err


def test_a_slash_is_a_colon_where_no_such_path_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert backbone("timm/test_resnet").arch == "timm:test_resnet"
    (tmp_path / "timm/test_resnet").mkdir(parents=True)
    assert named("timm/test_resnet") == "timm/test_resnet"
    with pytest.raises(WeightsError, match="no architecture 'timm/test_resnet'"):
        backbone("timm/test_resnet")


@pytest.mark.parametrize(
    ("sizes", "padded", "said"),
    [
        (Sizes(), {1: 1, 225: 225}, "any size"),
        (Sizes(32, 32), {1: 32, 32: 32, 33: 64}, "sides that are multiples of 32"),
        (Sizes(1, 80), {1: 80, 81: 81}, "sides of at least 80 pixels"),
        (Sizes(1, 224, 224), {1: 224, 224: 224, 225: 0}, "224 x 224 pixels"),
    ],
)
def test_sizes(sizes, padded, said):
    assert {side: sizes.padded(side) for side in padded} == padded
    assert str(sizes) == said


def test_pictures_of_other_sizes_are_padded_with_zeros_and_their_maps_cut():
    trunk = backbone("timm:dla46x_c").eval()
    images = torch.randn(1, 3, 75, 101)
    wide = torch.zeros(1, 3, 96, 128)
    wide[:, :, :75, :101] = images
    with torch.inference_mode():
        found, whole = trunk(images), trunk(wide)
    for name, stride in trunk.strides.items():
        height, width = -(-75 // stride), -(-101 // stride)
        assert found[name].shape[-2:] == (height, width)
        assert torch.equal(found[name], whole[name][..., :height, :width])
    assert "multiples of 32" in trunk.remarks[0]
    with pytest.raises(WeightsError, match="takes 160 x 160 pixels; this picture has 161 x 20"):
        backbone("timm:test_coatnet")(torch.zeros(1, 3, 20, 161))


def test_which_output_strides_work_is_said():
    with pytest.raises(CannotDilate, match="deepest map has stride 16, and timm cannot dilate it to 8") as caught:
        backbone("timm:test_vit", output_stride=8)
    assert caught.value.own == 16 and backbone("timm:test_vit", output_stride=16).strides == {"c4": 16}
    assert "2 of its 3 maps left out; used are c4 of stride 16" in backbone("timm:test_vit").remarks[0]


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "levit_128s", "test_efficientnet", "legacy_xception"])
def test_weights_of_whole_networks_fit_whatever_timm_wraps_around_its_maps(name, tmp_path):
    whole = timm.create_model(name, num_classes=3)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    trunk = backbone(f"timm:{name}", read_weights(tmp_path / "whole.safetensors", arch=f"timm/{name}"))
    own = {
        key.split(".", 1)[1].removeprefix("model.").removeprefix("body."): t for key, t in trunk.state_dict().items()
    }
    same = {key.replace(".", "_", 1): t for key, t in whole.state_dict().items()} | whole.state_dict()
    assert all(torch.equal(t, same[key]) for key, t in own.items())


def test_a_run_and_its_evaluation_say_that_pictures_are_padded(tmp_path, capfd, one_core):
    words = [
        "train",
        "segment",
        "smoke=true",
        "head=fcn",
        "output_stride=32",
        "backbone=timm:test_coatnet",
        f"{TILES}=160",
    ]
    words += ["tasks.segmentation.crop=160", "updates=1", "limit=4", "weights=none", *PLAIN]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    said = "timm:test_coatnet: takes 160 x 160 pixels; smaller pictures are padded right and below"
    assert said in capfd.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), "loaders=0"]) == 0
    assert said in capfd.readouterr().err
