"""Masks and where they lie: every layout, every encoding, and every wrong file by its name."""

import numpy as np
import pytest
import torch
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.contract import Sample
from trunkline.tasks.segmentation.formats.encoding import Encoding, numbered, read_mask, voc_colour
from trunkline.tasks.segmentation.formats.layouts import read_classes
from trunkline.tasks.segmentation.formats.palette_png import palette_png
from trunkline.tasks.segmentation.formats.published import ADE20K, CAMVID, CITYSCAPES, VOC
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.splits import read_split
from trunkline.tasks.segmentation.transforms import eval_transform, train_transform


def picture(path, size=(12, 8), fill=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (fill, 90, 90)).save(path)


def mask(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "classes.txt").write_text("road\nwall of stone\n")
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            picture(tmp_path / f"images/{split}/town/{i}.jpg")
            mask(tmp_path / f"masks/{split}/town/{i}.png", np.full((8, 12), i % 2, np.uint8))
    return tmp_path


def test_pairs_of_folders(pairs):
    found = read_split(Options(data=str(pairs), format="pairs"), "train")
    assert found.classes == ("road", "wall of stone") and len(found) == 3
    assert [found.id(i) for i in range(3)] == ["train/town/0", "train/town/1", "train/town/2"]
    sample = found[1]
    assert sample.image.shape == (3, 8, 12) and sample.targets["mask"].unique().tolist() == [1]
    assert len(found.manifest()) == 6 and len(read_split(Options(data=str(pairs), format="pairs", limit=1), "val")) == 1
    before = found.fingerprint()["digest"]
    mask(pairs / "masks/train/town/0.png", np.ones((8, 12), np.uint8))
    assert read_split(Options(data=str(pairs), format="pairs"), "train").fingerprint()["digest"] != before


@pytest.mark.parametrize(
    ("form", "image", "there", "value", "label"),
    [
        ("camvid", "train/a.png", "trainannot/a.png", 3, "road"),
        (
            "cityscapes",
            "leftImg8bit/train/bonn/a_leftImg8bit.png",
            "gtFine/train/bonn/a_gtFine_labelIds.png",
            26,
            "car",
        ),
        ("ade20k", "images/training/a.jpg", "annotations/training/a.png", 150, "flag"),
    ],
)
def test_published_layouts(tmp_path, form, image, there, value, label):
    picture(tmp_path / image)
    mask(tmp_path / there, np.full((8, 12), value, np.uint8))
    found = read_split(Options(data=str(tmp_path), format=form), "train")
    assert found.classes[int(found[0].targets["mask"][0, 0])] == label


def test_voc(shared_data):
    for split, count in (("train", 90), ("val", 75)):
        found = read_split(Options(data=str(shared_data / "VOCdevkit")), split)
        assert len(found) == count and found.classes == VOC.classes and len(VOC.classes) == 21
        sample = found[0]
        with Image.open(found.mask_source(0)) as image:
            assert np.array_equal(np.array(image), sample.targets["mask"].numpy())
            assert image.getpalette()[:63] == [c for n in range(21) for c in voc_colour(n)]
        assert len(set(found.groups(False).tolist())) > 1 and found.groups(True) is None


def test_the_numbers_of_published_sets():
    assert (len(CAMVID.classes), len(CITYSCAPES.classes), len(ADE20K.classes)) == (11, 19, 150)
    assert ADE20K.values[0] == CAMVID.values[11] == CITYSCAPES.values[0] == VOC.values[255] == 255
    assert ADE20K.values[1] == 0 and CITYSCAPES.values[7] == 0 and CITYSCAPES.values[33] == 18


@pytest.mark.parametrize(
    ("text", "values", "coloured"),
    [
        ("a\nb\n", {0: 0, 1: 1, 255: 255}, False),
        ("7 a\n300 b c\n9 void\n", {7: 0, 300: 1, 9: 255, 255: 255}, False),
        ("128 64 128 a\n0 0 0 void\n0 0 1 b\n", {0x804080: 0, 0: 255, 1: 1}, True),
        ("#804080 a\n#ffFFff b\n", {0x804080: 0, 0xFFFFFF: 1}, True),
    ],
)
def test_a_list_of_classes(tmp_path, text, values, coloured):
    (tmp_path / "classes.txt").write_text(text)
    found = read_classes(tmp_path / "classes.txt")
    assert (dict(found.values), found.coloured) == (values, coloured)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n7 b\n", "line 1 ('a') has a name and line 2 ('7 b') has a number"),
        ("a\nb\na\n", "lines 1, 3: the name a stands there twice"),
        ("3 a\n3 b\n", "lines 1, 2: the number 3 stands there twice"),
        ("3\n4 b\n", "line 1: '3' has no name"),
        ("#80408 a\n#000000 b\n", "line 1: '#80408 a' is no colour"),
        ("0 300 1 a\n0 0 0 b\n", "line 1: '0 300 1 a' is no colour"),
        ("1 2 3 a\n1 2 3 b\n", "lines 1, 2: the colour (1, 2, 3) stands there twice"),
        ("70000 a\n", "has a number above 65535"),
        ("\n", "has 0 classes"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_list_of_classes(tmp_path, text, said):
    if text is not None:
        (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt") as error:
        read_classes(tmp_path / "classes.txt")
    assert said in str(error.value)


def test_colours_and_numbers_of_16_bits(tmp_path):
    colours = Encoding(("a", "b"), {0x804080: 0, 0x000001: 1, 0: 255}, coloured=True)
    pixels = np.array([[[128, 64, 128], [0, 0, 1], [0, 0, 0]]], np.uint8)
    mask(tmp_path / "c.png", pixels)
    assert read_mask(tmp_path / "c.png", colours).tolist() == [[0, 1, 255]]
    mask(tmp_path / "deep.png", np.array([[300, 7]], np.uint16))
    assert read_mask(tmp_path / "deep.png", Encoding(("a", "b"), {7: 0, 300: 1})).tolist() == [[1, 0]]


def test_wrong_masks_by_name(tmp_path):
    file = tmp_path / "m.png"
    cases = [
        (np.array([[0, 7, 7], [9, 1, 0]], np.uint8), False, "7 in 2 pixels, 9 in 1 pixel; expected 0 to 1, 255"),
        (np.tile(np.array([9, 9, 8], np.uint8), (2, 2, 1)), False, r"its pixels are colours \(RGB\)"),
        (np.full((2, 2, 3), 9, np.uint8), True, r"9\) in 4 pixels; expected \(0, 0, 0\) a, \(0, 0, 1\) b, "),
    ]  # fmt: skip
    for array, coloured, said in cases:
        mask(file, array)
        with pytest.raises(DataError, match=said) as error:
            read_mask(file, Encoding(("a", "b"), {0: 0, 1: 1, 255: 255}, coloured))
        assert str(error.value).startswith(str(file))
    Image.new("L", (4, 4)).save(tmp_path / "m.jpg")
    whole = palette_png(np.zeros((30, 30), np.uint8), VOC.palette)
    for name, data, said in (
        ("m.jpg", None, "is a JPEG"),
        ("none.png", None, "there is no such mask"),
        ("cut.png", whole[: len(whole) // 2], "damaged|truncated|missing"),
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"hello", "is no picture"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=said) as error:
            read_mask(tmp_path / name, numbered(("a", "b")))
        assert name in str(error.value)


def test_what_does_not_belong_together(pairs):
    options = Options(data=str(pairs), format="pairs")
    with pytest.raises(DataError, match="the classes wall of stone, which the model does not know"):
        read_split(options, "train", ("road", "sky"))
    mask(pairs / "masks/train/town/1.png", np.zeros((9, 12), np.uint8))
    with pytest.raises(DataError, match=r"1\.png: is 12 x 9 pixels; its picture .*1\.jpg is 12 x 8"):
        read_split(options, "train")[1]
    (pairs / "masks/train/town/1.png").unlink()
    with pytest.raises(DataError, match=r"train/town/1: without a mask in masks/train/ \(images/train/town/1\.jpg\)"):
        read_split(options, "train")
    picture(pairs / "images/val/town/0.png")
    with pytest.raises(DataError, match="two files of one name"):
        read_split(options, "val")
    with pytest.raises(DataError, match="there is no folder leftImg8bit/train/ and no gtFine/train/"):
        read_split(Options(data=str(pairs), format="cityscapes"), "train")


def test_lines_of_names_count_with_the_void_among_them(tmp_path):
    (tmp_path / "classes.txt").write_text("void\nroad\nwall\n")
    found = read_classes(tmp_path / "classes.txt")
    assert found.classes == ("road", "wall") and dict(found.values) == {255: 255, 0: 255, 1: 0, 2: 1}
    assert found.stored == (1, 2)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_hold_what_the_file_holds(tmp_path, bits):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.arange(8, dtype=np.uint8).reshape(1, 8) % (2**bits)
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(-1)).tobytes()
    head = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" + packed))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "mask.png").write_bytes(png)
    assert np.array_equal(read_mask(tmp_path / "mask.png", numbered(tuple("abcdefghijklmnop"))), values)


def test_what_a_format_has_no_use_for_is_refused(pairs):
    for key, value, form in (
        ("categories", ("car",), "pairs"),
        ("least", 9, "voc"),
        ("sbd", "x", "coco"),
        ("masks", "x", "pairs"),
    ):
        with pytest.raises(DataError, match=f"{key}: data of format={form} has no use for this"):
            read_split(Options(data=str(pairs), format=form, **{key: value}), "train")
    for folder in ("/masks", "../masks"):
        with pytest.raises(DataError, match="expected a folder below data"):
            read_split(Options(data=str(pairs), masks=folder), "train")


def test_names_that_are_no_text_can_be_stored(pairs):
    import os

    for kind, end in (("images", b".jpg"), ("masks", b".png")):
        folder = pairs / kind / "train/town"
        (folder / os.fsdecode(b"0" + end)).rename(folder / os.fsdecode(b"caf\xe9" + end))
    found = read_split(Options(data=str(pairs), format="pairs"), "train")
    assert found.id(2) == "train/town/caf\\xe9" and found[2].image.shape == (3, 8, 12) and found.fingerprint()["digest"]


def test_a_crop_of_almost_one_class_is_tried_again():
    labels = torch.zeros(64, 256, dtype=torch.uint8)
    labels[:, 192:] = 1
    sample = Sample("a", "a", torch.zeros(3, 64, 256, dtype=torch.uint8), {"mask": labels})

    def mixed(ratio: float) -> int:
        transform, found = train_transform(Options(crop=64, jitter=(1.0, 1.0), cat_max_ratio=ratio)), 0
        for seed in range(60):
            torch.manual_seed(seed)
            found += 0.25 < float(transform(sample).targets["mask"].float().mean()) < 0.75
        return found

    assert mixed(0.75) > 2 * mixed(1.0) > 0


def test_colours_change_and_channels_keep_their_order():
    picture = torch.tensor([250, 10, 10], dtype=torch.uint8)[:, None, None].expand(3, 8, 8).contiguous()
    sample = Sample("a", "a", picture, {"mask": torch.zeros(8, 8, dtype=torch.uint8)})
    transform, seen = train_transform(Options(crop=8, jitter=(1.0, 1.0), photometric=True)), set()
    for seed in range(40):
        torch.manual_seed(seed)
        seen.add(tuple(transform(sample).image[:, 0, 0].tolist()))
    assert len(seen) > 5 and all(red > max(green, blue) for red, green, blue in seen)


def test_a_list_that_names_a_missing_file(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    mask(tmp_path / "SegmentationClass/a.png", np.zeros((8, 12), np.uint8))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    with pytest.raises(
        DataError, match=r"(?s)b: there is no JPEGImages/b\.jpg.*SegmentationClass/b\.png, and .*train\.txt names it"
    ):
        read_split(Options(data=str(tmp_path)), "train")


def test_picture_and_mask_move_together(tmp_path):
    array = np.zeros((40, 60), np.uint8)
    array[10:30, 20:50] = 1
    Image.fromarray(np.repeat(array[..., None] * 200, 3, 2)).save(tmp_path / "a.png")
    sample_of = train_transform(Options(crop=32, jitter=(0.5, 2.0)))
    from trunkline.tasks.contract import Sample
    from trunkline.tasks.images.decode import read_image

    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        sample = Sample("a", "a.png", read_image(tmp_path / "a.png"), {"mask": torch.from_numpy(array)})
        found = sample_of(sample)
        inside = found.targets["mask"] == 1
        assert found.image.shape[1:] == found.targets["mask"].shape and max(found.image.shape[1:]) <= 32
        bright = found.image[0] > 100
        assert (bright != inside).float().mean() < 0.08  # but for the rounding of edges
        seen.add(tuple(found.image.shape[1:]))
    assert len(seen) > 3
    same = eval_transform(Options())(sample)
    assert torch.equal(same.image, sample.image) and same.targets["original"] == (40, 60)
    smaller = eval_transform(Options(size=20))(sample)
    assert smaller.image.shape == (3, 20, 30) and smaller.targets["mask"].shape == (40, 60)
