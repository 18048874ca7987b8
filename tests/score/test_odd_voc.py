"""VOC's files as people write them: one meaning gives the devkit's number and a counted line, two are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.pipelines.score.score_voc import voc
from trunkline.tasks.check import check
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.splits import read_split
from trunkline.tasks.objects.voc_file import in_file_name, of_file_name, parse_annotation, read_list

XML = (
    "<annotation><filename>{file}</filename>{size}<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>"
    "<xmin>11</xmin><ymin>6</ymin><xmax>40</xmax><ymax>25</ymax></bndbox></object></annotation>"
)
SIZE = "<size><width>60</width><height>40</height></size>"


def made(folder, names=("a", "b"), suffix=".jpg", **given):
    """A VOC folder, whose two splits have these pictures."""
    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (60, 40), (90 * number, 200, 30)).save(folder / f"JPEGImages/{name}{suffix}")
        text = XML.format(**{"file": f"{name}.jpg", "size": SIZE, "label": "nut", "difficult": "0"} | given)
        (folder / f"Annotations/{name}.xml").write_text(text)
    for split in ("train", "val"):
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def one(folder):
    """The first training sample's boxes and labels."""
    sample = read_split(Options(data=str(folder), format="voc"), "train")[0]
    return sample.targets["boxes"].tolist(), sample.targets["labels"].tolist()


WHOLE = ([[10.0, 5.0, 40.0, 25.0]], [0])


@pytest.mark.parametrize(
    "given",
    [
        {"file": "C:\\Users\\me\\pics\\a.jpg"}, {"file": "../../etc/passwd"}, {"file": ""}, {"file": "a"},
        {"suffix": ".png"}, {"suffix": ".JPG"}, {"suffix": ".jpeg", "file": "b.jpg"}, {"size": ""},
        {"size": "<size><width>0</width><height>0</height></size>"}, {"size": "<size/>"}, {"difficult": "False"},
        {"difficult": "no"}, {"difficult": ""}, {"label": "M10/hex \u00e4"}, {"names": ("photo t1", "photo 2 1")},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_one_meaning_is_read(tmp_path, given):
    folder = made(tmp_path / "data", **given)
    assert one(folder) == WHOLE
    assert check(folder, loaders=0, progress=False).ok


def test_repairs_are_counted_once_each(tmp_path):
    folder = made(tmp_path / "data", size="", difficult="True")
    file = folder / "ImageSets/Main/train.txt"
    remarks = read_split(Options(data=str(folder), format="voc"), "train").remarks()
    assert remarks[:2] == [
        f"{file}: difficult and truncated: words (true, false, yes, no) taken as 1/0 in 2 objects",
        f"{file}: <size>: absent or 0, taken from the picture in 2 files",
    ]
    assert "2 of 2 objects are difficult, which are trained on and not scored; 2 pictures have no other" in remarks
    file.write_text("JPEGImages/a.jpg\nC:\\pics\\b.xml\n")
    remarks = read_split(Options(data=str(folder), format="voc"), "train").remarks()
    assert f"{file}: folders or suffixes in a list of names: left out in 2 lines" in remarks


def test_two_pictures_of_one_name_are_refused(tmp_path):
    folder = made(tmp_path / "data")
    Image.new("RGB", (60, 40)).save(folder / "JPEGImages/a.png")
    with pytest.raises(DataError, match=r"a: two pictures have this name, a\.jpg and a\.png; leave one"):
        read_split(Options(data=str(folder), format="voc"), "train")


def test_a_turned_picture_without_a_stated_size_is_refused(tmp_path):
    folder = made(tmp_path / "data", size="")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (60, 40)).save(folder / "JPEGImages/b.jpg", exif=exif)
    with pytest.raises(DataError, match=r"no size of data/JPEGImages/b\.jpg, and .* exif=turn"):
        read_split(Options(data=str(folder), format="voc"), "train")


@pytest.mark.parametrize(
    ("lines", "there", "names"),
    [
        ("a 1\nb -1\n", {"a", "b"}, ["a", "b"]),
        ("photo 1\n", {"photo"}, ["photo"]),
        ("photo 1\n", {"photo 1"}, ["photo 1"]),
        ("photo 1 0\n", {"photo 1"}, ["photo 1"]),
        ("my photo\n", set(), ["my photo"]),
        ("a.jpg\nb.b.png\n", set(), ["a", "b.b"]),
        ("a.jpg\n", {"a.jpg"}, ["a.jpg"]),
        ("x/y\\a\n", set(), ["a"]),
    ],
)
def test_lists_of_names(tmp_path, lines, there, names):
    file = tmp_path / "list.txt"
    file.write_text(lines)
    assert read_list(file, there.__contains__) == names
    file.write_bytes(lines.encode("utf-16"))
    assert read_list(file, there.__contains__) == names


def test_a_flag_that_may_be_part_of_a_name_is_refused_with_both(tmp_path):
    (tmp_path / "list.txt").write_text("photo 1\n")
    with pytest.raises(DataError, match="there are images of both 'photo' and 'photo 1'"):
        read_list(tmp_path / "list.txt", {"photo", "photo 1"}.__contains__)


@pytest.mark.parametrize(
    ("encoding", "label"),
    [("GB2312", "螺母"), ("gbk", "螺母"), ("Big5", "螺帽"), ("Shift_JIS", "ナット"), ("EUC-KR", "너트"), ("ISO-8859-1", "Müß"),
     ("UTF-16", "螺母"), ("UTF-8", "螺母"), ("latin-1", "Müß")],
)  # fmt: skip
def test_declared_encodings(encoding, label):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + XML.format(file="a", size=SIZE, label=label, difficult=0)
    assert parse_annotation(text.encode(encoding)).objects[0].name == label


@pytest.mark.parametrize("encoding", ["utf-7", "idna", "zlib", "unicode_escape", "cp037"])
def test_other_encodings_are_refused(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + XML.format(file="a", size="", label="nut", difficult=0)
    with pytest.raises(DataError, match="is no XML"):
        parse_annotation(text.encode())
    with pytest.raises(DataError, match="declares the encoding gbk, and is not in it"):
        parse_annotation(text.replace(encoding, "gbk").replace("nut", "n\x80t").encode("latin-1"))


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20))
def test_any_class_name_comes_back_from_its_files_name(name):
    written = in_file_name(name)
    assert of_file_name(written, ()) == name and not set(written) & set("/\\:\0") and written[0] != "."
    assert of_file_name(written, {written}) == written, "another tool's file, whose class is called so"


def test_a_detectors_inverted_boxes_are_false_positives_and_names_may_have_spaces(tmp_path):
    """As in VOC's kit: such a box overlaps nothing. Pictures and sizes are not needed."""
    folder = made(tmp_path / "data", names=("photo a", "b"), size="", label="nut/bolt")
    for file in (folder / "JPEGImages").iterdir():
        file.unlink()
    (tmp_path / "found").mkdir()
    lines = ["photo a 0.9 11 6 40 25", "b 0.8 11 6 40 25", "b 0.95 40 25 11 6", "photo a 0.99 -1e6 5 -2e6 1e6"]
    (tmp_path / "found/comp4_det_val_nut%2Fbolt.txt").write_text("\n".join(lines))
    scored = voc(folder / "Annotations", tmp_path / "found", list=folder / "ImageSets/Main/val.txt", area=True)
    order, hits, false = [1, 1, 0, 0], 0, 0  # by score: two false ones, then the two hits
    precision = []
    for wrong in order:
        hits, false = hits + 1 - wrong, false + wrong
        precision.append(hits / (hits + false))
    assert scored.metrics["mAP"] == pytest.approx(np.mean([max(precision[2:]), precision[3]]), abs=1e-9)
    assert any("2 boxes that end before they begin: false positives" in line for line in scored.warnings)
