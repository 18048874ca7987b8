"""Masks as people have them: 0 and 255, numbers copied into channels, palettes, bits; the right pixels or a refusal."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_segmentation import SHORT

from trunkline.ground.errors import DataError, Undecided
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.score.score_masks import masks as score_masks
from trunkline.tasks.check import check
from trunkline.tasks.segmentation.formats.encoding import numbered, read_mask, voc_colour
from trunkline.tasks.segmentation.formats.layouts import read_classes
from trunkline.tasks.segmentation.formats.mask_file import read_pixels
from trunkline.tasks.segmentation.formats.published import VOC
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.splits import read_split

READINGS = ("255 lesion", "255 void", "void=255")


LESION, WHOLE = 40 * 20, 96 * 64  # pixels of a mask


@pytest.fixture
def case(tmp_path):
    """Four pairs in each split, whose masks hold 0 and 255; `classes.txt` names two classes."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (data / kind / split).mkdir(parents=True)
        for n in range(4):
            labels = np.zeros((64, 96), np.uint8)
            labels[n : n + 20, 2 * n : 2 * n + 40] = 255
            Image.fromarray(labels).save(data / f"masks/{split}/p{n}.png")
            Image.fromarray(labels // 2 + 30 * n).save(data / f"images/{split}/p{n}.jpg", quality=95)
    (data / "classes.txt").write_text("background\nlesion\n")
    return data


def told(said: str) -> bool:
    """Say whether a message has both readings, ready to paste."""
    return all(reading in said for reading in READINGS) and "0 background" in said


def test_masks_of_0_and_255_stop_every_way_to_a_number(case, tmp_path, capsys):
    run = ["train", "segment", f"data={case}", *SHORT, "head=unet", "--run", str(tmp_path / "run")]
    assert main(run) == 2 and told(capsys.readouterr().err)
    assert not list((tmp_path / "run").glob("checkpoints/*/model.safetensors"))
    assert main([*run, "on_bad_sample=skip"]) == 2 and told(capsys.readouterr().err)
    assert main(["check", str(case), "loaders=0"]) > 0 and told(capsys.readouterr().out)
    for classes in (2, str(case / "classes.txt")):
        with pytest.raises(Undecided) as error:
            score_masks(case / "masks/train", case / "masks/train", classes=classes)
        assert "has the number 255" in str(error.value)


@pytest.mark.parametrize(
    ("lines", "pixels", "void"),
    [
        ("0 background\n255 lesion\n", [4 * (WHOLE - LESION), 4 * LESION], 0),
        ("background\nlesion\n255 void\n", [4 * (WHOLE - LESION), 0], LESION),
    ],
)
def test_either_reading_is_counted_and_said(case, lines, pixels, void):
    (case / "classes.txt").write_text(lines)
    found = check(case, loaders=0, progress=False)
    assert list(found.counts["train"].values()) == pixels
    said = [odd["what"] for odd in found.oddities if odd["file"] == "train"]
    assert ("13.0% of the pixels of all 4 masks are void: 255, by classes.txt" in said) == bool(void)
    assert ("no pixel of lesion in all 4 masks" in said) == bool(void)
    scored = score_masks(case / "masks/train", case / "masks/train", classes=str(case / "classes.txt"))
    assert scored.classes == {"background": 1.0, "lesion": None if void else 1.0}
    assert any("13.0% of the pixels" in line for line in scored.warnings) == bool(void)


def test_the_counts_of_masks_of_somebody(shared_data, tmp_path):
    data = shutil.copytree(shared_data / "cases/01-masks-0-255/data", tmp_path / "theirs")
    assert told(str(check(data, loaders=0, progress=False)))
    (data / "classes.txt").write_text("0 background\n255 lesion\n")
    assert check(data, loaders=0, progress=False).counts["train"] == {"background": 20792, "lesion": 3784}


def test_void_is_a_setting_too(case):
    samples = read_split(Options(data=str(case), format="pairs", void=(255,)), "train")
    assert "13.0% of the pixels of all 4 masks of train are void: 255, by void=" in samples.remarks()
    with pytest.raises(DataError, match="void=1: is lesion, by"):
        read_split(Options(data=str(case), format="pairs", void=(1,)), "train")
    with pytest.raises(DataError, match="void: data of format=voc has no use"):
        read_split(Options(data=str(case), format="voc", void=(255,)), "train")


def test_a_split_in_which_the_second_class_occurs_has_255_as_void(case):
    """Another mask of the split decides, the last one; until one is read with a 255 nothing is looked for."""
    labels = np.zeros((64, 96), np.uint8)
    labels[:10, :10] = 1
    Image.fromarray(labels).save(case / "masks/train/p3.png")
    samples = read_split(Options(data=str(case), format="pairs"), "train")
    assert (samples.labels(0) == 255).any() and (samples.labels(3) == 1).sum() == 100
    assert any("which nothing declares; every class has pixels without it" in line for line in samples.remarks())
    labels[-3:, -3:] = 7
    Image.fromarray(labels).save(case / "masks/train/p3.png")
    seven = read_split(Options(data=str(case), format="pairs", void=(7,)), "train").remarks()
    assert any(
        "are void: 7, by void=, or 255, which nothing declares; every class has pixels without it" in r for r in seven
    )
    labels[-3:, -3:] = 0
    Image.fromarray(labels).save(case / "masks/train/p3.png")
    assert not [p for p in check(case, loaders=0, progress=False).problems if p["file"] == "train"]
    only_val = read_split(Options(data=str(case), format="pairs"), "val")
    with pytest.raises(Undecided):
        only_val[0]


@pytest.mark.parametrize("third", [True, False])
def test_with_more_classes_one_without_a_pixel_beside_255_stops(case, third):
    (case / "classes.txt").write_text("background\nlesion\nvessel\n")
    labels = np.zeros((64, 96), np.uint8)
    labels[:9], labels[9:12] = 1, 2 if third else 0
    for split in ("train", "val"):
        Image.fromarray(labels).save(case / f"masks/{split}/p2.png")
    samples = read_split(Options(data=str(case), format="pairs"), "train")
    if third:
        assert (samples.labels(0) == 255).any()
        return
    with pytest.raises(Undecided, match=r"no mask of the split has a pixel of vessel \(2\)") as error:
        samples.labels(0)
    assert "255 vessel" in str(error.value)
    assert "255 vessel" in str(check(case, loaders=0, progress=False))


def test_a_prediction_may_hold_anything_where_the_truth_is_void(tmp_path):
    for folder, pixels in (("truth", [[0, 1, 255, 255]]), ("found", [[0, 1, 255, 7]])):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / folder / "a.png")
    scored = score_masks(tmp_path / "truth", tmp_path / "found", classes=2)
    assert scored.metrics["mIoU"] == 1.0 and scored.counts["pixels"] == 2
    assert "50.0% of the pixels of all 1 true masks are void" in scored.warnings[0]
    Image.fromarray(np.array([[0, 255, 255, 255]], np.uint8)).save(tmp_path / "found/a.png")
    with pytest.raises(DataError, match="255 in 1 pixel"):
        score_masks(tmp_path / "truth", tmp_path / "found", classes=2)


def test_a_mean_over_nothing_is_null(tmp_path, capsys):
    for folder in ("truth", "found"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((2, 2), 255, np.uint8)).save(tmp_path / folder / "a.png")
    words = [
        "score",
        "masks",
        str(tmp_path / "truth"),
        str(tmp_path / "found"),
        "--classes",
        "2",
        "--void",
        "255",
        "--json",
    ]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["mIoU"] is None and "no pixel of any class" in printed.err


# Encodings of one known mask

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F")
ALLOWED = {
    "PNG": ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"),
    "TIFF": MODES,
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
}


def encoded(labels: np.ndarray, mode: str, form: str, colours: list[int], alpha: np.ndarray) -> bytes:
    """Write the labels in a mode and a format of picture."""
    if mode in ("1", "L", "P"):
        image = Image.fromarray(labels)
        if mode == "1":
            image = image.point(lambda v: 255 * (v > 0)).convert("1")
        if mode == "P":
            image.putpalette(colours)
    elif mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(labels.astype(kind))
    else:
        grey = [Image.fromarray(labels)] * (1 if mode == "LA" else 3)
        image = Image.merge(mode, grey + [Image.fromarray(alpha)] * ("A" in mode))
    out = io.BytesIO()
    image.save(out, form, **({"optimize": False} if form == "GIF" else {}))
    return out.getvalue()


@given(data=st.data())
def test_one_known_mask_in_any_encoding(data):
    form = data.draw(st.sampled_from(sorted(ALLOWED)))
    mode = data.draw(st.sampled_from(ALLOWED[form]))
    values = [0, 1] if mode == "1" else [0, 1, 2, 3, 255]
    height, width = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    cells = data.draw(st.lists(st.sampled_from(values), min_size=height * width, max_size=height * width))
    labels = np.array(cells, np.uint8).reshape(height, width)
    colours = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, 768).tolist()
    alpha = np.full(labels.shape, data.draw(st.integers(0, 255)), np.uint8)
    varies = data.draw(st.booleans())
    if varies and labels.size > 1:
        alpha[0, 0] ^= 255
    file = encoded(labels, mode, form, colours, alpha)
    if "A" in mode and alpha.min() != alpha.max():
        with pytest.raises(DataError, match="alpha channel varies"):
            read_pixels(file, coloured=False)
        return
    assert np.array_equal(read_pixels(file, coloured=False).pixels, labels)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([[0, np.nan]], np.float32), "1 of its pixels are NaN or infinite"),
        (np.array([[0, 0.5]], np.float32), "its pixels are fractions"),
        (np.array([[0, 65535]], np.float32), "0 and 65535, black and white of 16 bits"),
        (np.array([[0, 65535]], np.uint16), "0 and 65535, black and white of 16 bits"),
        (np.array([[[1, 2, 3]]], np.uint8), r"its pixels are colours \(RGB\).*classes\.txt"),
        (np.array([[-1, 0]], np.int32), "-1 in 1 pixel"),
    ],
)
def test_what_has_several_meanings_is_refused_with_what_to_do(tmp_path, pixels, said):
    file = tmp_path / "m.tif"
    Image.fromarray(pixels).save(file)
    with pytest.raises(DataError, match=said) as error:
        read_mask(file, numbered(("a", "b", "c", "d")))
    assert str(error.value).startswith(f"{file}: ")


def test_files_of_several_pictures_white_as_zero_and_deep_colours_are_refused(tmp_path):
    plain = Image.fromarray(np.array([[0, 1]], np.uint8))
    plain.save(tmp_path / "two.tif", save_all=True, append_images=[plain])
    plain.save(tmp_path / "white.tif", tiffinfo={262: 0})
    deep = np.array([[[1, 1, 1]]], ">u2")
    head = b"P6 1 1 65535\n" + deep.tobytes()
    for name, said in (("two.tif", "2 pictures in one file"), ("white.tif", "says that 0 is white")):
        with pytest.raises(DataError, match=re.escape(said)):
            read_mask(tmp_path / name, numbered(("a", "b")))
    with pytest.raises(DataError, match="no picture of a format of masks"):
        read_pixels(head, coloured=False)


def test_an_index_counts_and_a_palette_that_says_another_class_is_refused(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 15, 255]], np.uint8))
    file = tmp_path / "m.png"
    image.putpalette([c for n in range(256) for c in (n, 255 - n, 7)])
    image.save(file)
    assert read_mask(file, VOC).tolist() == [[0, 1, 15, 255]]
    swapped = [voc_colour({1: 15, 15: 1}.get(n, n)) for n in range(256)]
    image.putpalette([c for colour in swapped for c in colour])
    image.save(file)
    with pytest.raises(DataError, match=r"its palette gives 1 \(aeroplane\) the colour of person"):
        read_mask(file, VOC)
    assert read_mask(file, numbered(tuple("abcdefghijklmnopq"))).tolist() == [[0, 1, 15, 255]], "no colours are known"
    unused = [voc_colour({3: 5, 5: 3}.get(n, n)) for n in range(256)]
    image.putpalette([c for colour in unused for c in colour])
    image.save(file)
    assert read_mask(file, VOC).tolist() == [[0, 1, 15, 255]], "numbers that do not occur say nothing"


def test_palettes_that_differ_among_files_are_refused(case, tmp_path):
    """As by a program that gives each file the palette of the colours in it."""
    labels = np.zeros((64, 96), np.uint8)
    labels[:9] = 1
    for split in ("train", "val"):
        for n, red in enumerate((200, 200, 90, 200)):
            image = Image.fromarray(labels)
            image.putpalette([0, 0, 0, red, 0, 0])
            image.save(case / f"masks/{split}/p{n}.png")
    samples = read_split(Options(data=str(case), format="pairs"), "train")
    samples.labels(1)
    with pytest.raises(
        DataError, match=r"p2\.png: palettes differ: 1 has the colour \(90, 0, 0\) here and \(200, 0, 0\) in"
    ):
        samples.labels(2)
    found = check(case, loaders=0, progress=False)
    assert [p["file"] for p in found.problems] == ["train/p2", "val/p2"]
    with pytest.raises(DataError, match=r"p2\.png: palettes differ"):
        score_masks(case / "masks/train", case / "masks/train", classes=2)


def test_grey_in_three_channels_is_read_and_counted(case):
    for split in ("train", "val"):
        for file in sorted((case / f"masks/{split}").iterdir()):
            labels = np.asarray(Image.open(file)) // 255
            Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(file)
    found = check(case, loaders=0, progress=False)
    assert found.ok and list(found.counts["train"].values()) == [4 * (WHOLE - LESION), 4 * LESION]
    said = "grey copied into RGB: read as numbers in 4 of all 4 masks"
    assert [o["what"] for o in found.oddities] == [said, said]
    scored = score_masks(case / "masks/train", case / "masks/train", classes=2)
    assert scored.metrics["mIoU"] == 1.0 and any("grey copied into RGB" in line for line in scored.warnings)
    assert (
        "grey copied into RGB: read as numbers in 4 of all 4 masks of train"
        in read_split(Options(data=str(case), format="pairs"), "train").remarks()
    )


def test_a_line_255_void_stands_among_names(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\n255 void\n")
    found = read_classes(tmp_path / "classes.txt")
    assert (found.classes, dict(found.values), found.assumed) == (("a", "b"), {0: 0, 1: 1, 255: 255}, False)
    (tmp_path / "classes.txt").write_text("a\nb\n7 void\n")
    with pytest.raises(DataError, match="expected one kind"):
        read_classes(tmp_path / "classes.txt")


def test_one_class_and_255_stop_everywhere(tmp_path):
    """With one class nothing can tell what 255 is."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (40, 40)).save(tmp_path / f"images/{split}/{n}.jpg")
            mask = np.zeros((40, 40), np.uint8)
            mask[:10] = 255
            Image.fromarray(mask).save(tmp_path / f"masks/{split}/{n}.png")
    (tmp_path / "classes.txt").write_text("lesion\n")
    with pytest.raises(Undecided, match=r"one class is named, lesion\. 255 has two readings"):
        read_split(Options(data=str(tmp_path), format="pairs", crop=16), "train")[0]
    assert not check(tmp_path, loaders=0, progress=False).ok
    for classes in (str(tmp_path / "classes.txt"), 1):
        with pytest.raises(Undecided):
            score_masks(tmp_path / "masks/val", tmp_path / "masks/val", classes=classes)


def paletted(file, flip: bool) -> None:
    """A mask of two classes; with `flip` the palette has the two colours the other way round."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:10] = 1
    image = Image.fromarray(mask)
    image.putpalette([255, 0, 0, 0, 0, 255] if flip else [0, 0, 255, 255, 0, 0])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def test_palettes_that_differ_between_splits_or_sides_are_refused(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"images/{split}").mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (70, 70)).save(tmp_path / f"images/{split}/{name}.jpg")
            paletted(tmp_path / f"masks/{split}/{name}.png", split == "val")
    (tmp_path / "classes.txt").write_text("ground\nlesion\n")
    assert any("palettes differ" in p["what"] for p in check(tmp_path, loaders=0, progress=False).problems)
    with pytest.raises(DataError, match="the numbers may be swapped"):
        score_masks(tmp_path / "masks/train", tmp_path / "masks/val", classes=2)
    assert score_masks(tmp_path / "masks/train", tmp_path / "masks/train", classes=2).metrics["mIoU"] == 1
    assert main(["train", "segment", f"data={tmp_path}", "--run", str(tmp_path / "run"), *SHORT]) == 2
    assert not (tmp_path / "run/weights.safetensors").exists()


@pytest.mark.parametrize("lines", ["0: back\n1: front\n", "0=back\n1=front\n", "back\n1: front\n"])
def test_a_sign_behind_a_class_s_number_is_refused(tmp_path, lines):
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(DataError, match=r"line 2: '1[:=].*front' has a sign behind its number; expected `1 front`"):
        read_classes(tmp_path / "classes.txt")
