"""YOLO's labels: its arithmetic to the last bit, and every wrong line and configuration by its name."""

from fractions import Fraction

import label_work as work
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_work import split_of, yolo_yaml
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.objects.labels.labelled import box_of_shares, number, of_share, share_of, shares_of_box

pytest.importorskip("pycocotools")


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 5000), st.integers(1, 5000))
def test_yolo_numbers_are_its_formats_plain_statement(shares, width, height):
    cx, cy, w, h = shares
    assert box_of_shares(cx, cy, w, h, width, height) == (
        width * (cx - w / 2), height * (cy - h / 2), width * w, height * h
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 9000), st.integers(1, 9000))
def test_boxes_survive_yolo_and_percent_to_the_last_bit(data, width, height):
    kind = data.draw(st.sampled_from([st.integers, lambda a, b: st.floats(a, b, allow_subnormal=False)]))
    x, y = (float(data.draw(kind(0, side))) for side in (width, height))
    w, h = (float(data.draw(kind(0, side))) for side in (width, height))
    again = box_of_shares(*map(number, shares_of_box((x, y, w, h), width, height)), width, height)
    assert again == pytest.approx((x, y, w, h), rel=0, abs=1e-30)
    for whole in (1, 100):
        assert of_share(number(share_of(x, width, whole)), width, whole) == x


def test_a_share_with_more_digits_is_read_exactly():
    exact = Fraction("0.33333333333333333333333333333333") * 3000
    assert of_share(number("0.33333333333333333333333333333333"), 3000) == float(exact)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers: a class, a box and a score are predictions"),
        ("0 0.5 0.5 0.1", "4 numbers; expected a class, x, y, width, height"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3", "8 numbers"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9", "lines of 9 numbers are polygons of four points or rotated boxes: say which with "
                                                "format=yolo-seg or format=yolo-obb"),
        ("5 0.5 0.5 0.1 0.1", "the class 5; the names are of 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "the class 0.5 is no whole number"),
        ("0 48 32 10 10", "48, 32, 10, 10: expected shares of the picture's width and height, 0 to 1: are these pixels?"),
        ("0 nan 0.5 0.1 0.1", "nan: expected shares"),
        ("ant 0.5 0.5 0.1 0.1", "expected numbers"),
    ],
)  # fmt: skip
def test_wrong_lines_of_yolo(tmp_path, line, said):
    yolo_yaml(tmp_path / "data")
    work.text(tmp_path / "data/labels/train/a.txt", line + "\n")
    with pytest.raises(DataError) as error:
        split_of(tmp_path / "data", "yolo")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("train: images/train\nval: images/val\nnames: [ant, bee]\nkpt_shape: [17, 3]\n", "labels of keypoints are not read"),
        ("train: images/train\nval: images/val\nnames: [ant, bee]\nnc: 3\n", "nc=3 and 2 names; make them agree"),
        ("train: https://example.org/images\nval: images/val\nnames: [ant, bee]\n", "is an address"),
        ("train: ../../etc\nval: images/val\nnames: [ant, bee]\n", "there is no such folder or list below"),
        ("train: images/train\nnames: {0: ant, 2: bee}\n", "names has the numbers 0, 2; expected 0 to 1"),
        ("train: images/train\nnames: [ant, ant]\n", "two classes are called ant"),
        ("train: [images/train\n", "is no YAML"),
        ("- a\n", "expected keys and values"),
        ("!!python/object/apply:os.system ['touch pwned']\n", "expected keys and values"),
    ],
)  # fmt: skip
def test_wrong_configurations_of_yolo(tmp_path, monkeypatch, yaml, said):
    monkeypatch.chdir(tmp_path)
    yolo_yaml(tmp_path / "data")
    work.text(tmp_path / "data/data.yaml", yaml)
    with pytest.raises(DataError) as error:
        split_of(tmp_path / "data", "yolo")
    assert said in str(error.value) and not (tmp_path / "pwned").exists()


def test_a_class_called_no_is_no_boolean(tmp_path):
    yolo_yaml(tmp_path / "data")
    work.text(tmp_path / "data/data.yaml", "train: images/train\nval: images/val\nnames: [yes, no]\n")
    assert split_of(tmp_path / "data", "yolo").classes == ("yes", "no")


def test_pictures_without_labels_are_without_objects_and_said(tmp_path):
    yolo_yaml(tmp_path / "data")
    (tmp_path / "data/labels/train/a.txt").rename(tmp_path / "data/labels/train/gone.txt")
    samples = split_of(tmp_path / "data", "yolo")
    assert len(samples) == 3 and len(samples.index.labels) == 2
    assert any(
        "1 picture without a file of labels, taken as without objects: images/train/a.jpg" in r
        for r in samples.remarks()
    )
    assert any("1 file of labels without a picture: gone.txt" in r for r in samples.remarks())
    for file in (tmp_path / "data/labels/train").glob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="no picture has a file of labels"):
        split_of(tmp_path / "data", "yolo")


def test_rotated_boxes_and_polygons_of_yolo(tmp_path):
    yolo_yaml(tmp_path / "data")
    for name in ("a", "b", "c"):
        work.text(tmp_path / f"data/labels/train/{name}.txt", "0 0.25 0.25 0.5 0.125 0.75 0.25 0.5 0.5\n")
    found = split_of(tmp_path / "data", "yolo-obb")
    assert found.index.boxes[0].tolist() == [24, 8, 48, 24]
    assert any(
        "rotated boxes, of which the upright box around each is taken, in 3 objects" in r for r in found.remarks()
    )
    masks = split_of(tmp_path / "data", "yolo-seg", head="mask_rcnn")
    assert masks.index.segmentation(0) == [[24, 16, 48, 8, 72, 16, 48, 32]]
    work.text(tmp_path / "data/labels/train/b.txt", "0 0.1 0.1 0.5 0.1 0.5 0.9\n")  # three points: all are polygons
    assert len(split_of(tmp_path / "data", "yolo", head="mask_rcnn").index.labels) == 3


def test_turned_pictures_need_a_word(tmp_path):
    yolo_yaml(tmp_path / "data")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (96, 64)).save(tmp_path / "data/images/train/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"images/train/a\.jpg.*exif=turn .*exif=ignore"):
        split_of(tmp_path / "data", "yolo")
    assert split_of(tmp_path / "data", "yolo", exif="turn").index.sizes[0].tolist() == [96, 64]
    stored = split_of(tmp_path / "data", "yolo", exif="ignore")
    assert stored.index.sizes[0].tolist() == [64, 96] and stored[0].image.shape[-2:] == (64, 96)


def test_a_path_that_says_its_split_is_not_shortened_to_another_folder(tmp_path):
    yolo_yaml(tmp_path / "data")
    work.text(tmp_path / "data/data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [ant, bee]\n")
    with pytest.raises(DataError, match=r"train=\.\./train/images: there is no such folder or list"):
        split_of(tmp_path / "data", "yolo")


def test_a_huge_configuration_makes_a_short_message(tmp_path):
    yolo_yaml(tmp_path / "data")
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(6)
    )
    work.text(tmp_path / "data/data.yaml", bomb + "train: images/train\nval: images/val\nnames: [*g, *g]\n")
    with pytest.raises(DataError) as error:
        split_of(tmp_path / "data", "yolo")
    assert len(str(error.value)) < 1000


def test_boxes_beside_polygons_are_remarked(tmp_path):
    yolo_yaml(tmp_path / "data")
    work.text(tmp_path / "data/labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.9\n")
    remarks = split_of(tmp_path / "data", "yolo").remarks()
    assert any("1 line of five numbers beside polygons, taken as boxes" in remark for remark in remarks)
