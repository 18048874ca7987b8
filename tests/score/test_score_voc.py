"""VOC's average precision against a plain loop over detections, by every rule; the official files; what is refused."""

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.score.score_voc import voc
from trunkline.tasks.objects import voc_file
from trunkline.tasks.objects.voc_file import Detections, parse_annotation, read_detections, read_list
from trunkline.tasks.objects.voc_scores import VocTruth, score_class


def plain(truth: VocTruth, found: Detections, threshold: str) -> tuple[list[float], list[float]]:
    """Recall and precision, one detection after the other."""
    taken: set[int] = set()
    hits = misses = 0
    recall, precision = [], []
    for i in sorted(range(len(found.scores)), key=lambda i: -found.scores[i]):
        best, row = -math.inf, -1
        for j in range(len(truth.image)):
            if truth.image[j] != found.image[i]:
                continue
            a, b = truth.boxes[j], found.boxes[i]
            w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1 for k in (0, 1))
            if threshold == "devkit" and (w <= 0 or h <= 0):
                continue
            inside = max(w, 0.0) * max(h, 0.0)
            both = (b[2] - b[0] + 1) * (b[3] - b[1] + 1) + (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
            overlap = inside / (both - inside) if inside else 0.0
            if overlap > best:
                best, row = overlap, j
        met = best >= 0.5 if threshold == "devkit" else best > 0.5
        if met and truth.difficult[row]:
            continue
        hit = met and row not in taken
        taken |= {row} if hit else set()
        hits, misses = hits + hit, misses + (not hit)
        recall.append(hits / max(1, int((~truth.difficult).sum())))
        precision.append(hits / (hits + misses))
    return recall, precision


def plain_ap(recall: list[float], precision: list[float], area: bool, grid: str) -> float:
    if area:
        total, before = 0.0, 0.0
        for i, r in enumerate(recall):
            total += (r - before) * max(precision[i:])
            before = r
        return total
    points = np.arange(0.0, 1.1, 0.1) if grid == "port" else [i / 10 for i in range(11)]
    return sum(max((p for r, p in zip(recall, precision, strict=True) if r >= t), default=0.0) / 11 for t in points)


@st.composite
def sets(draw):
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    objects, detections, images = draw(st.integers(1, 12)), draw(st.integers(0, 40)), draw(st.integers(1, 4))
    corner = rng.integers(1, 60, (objects, 2)).astype(float)
    boxes = np.hstack([corner, corner + rng.integers(0, 30, (objects, 2))])
    truth = VocTruth(rng.integers(0, images, objects), boxes, rng.random(objects) < 0.25)
    source = rng.integers(0, objects, detections)
    moved = boxes[source] + rng.integers(-6, 7, (detections, 4))
    if draw(st.booleans()):
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    else:  # some boxes end before they begin, have no area, or are far outside
        odd = rng.random(detections) < 0.3
        moved[odd] = moved[odd][:, [2, 3, 0, 1]] - rng.integers(0, 3, (odd.sum(), 4))
        moved[rng.random(detections) < 0.1] += 1e7
    image = np.where(rng.random(detections) < 0.8, truth.image[source], rng.integers(0, images, detections))
    return truth, Detections(image, rng.integers(0, 8, detections) / 8, moved)


@settings(max_examples=150, deadline=None)
@given(sets(), st.sampled_from(["port", "devkit"]), st.sampled_from(["port", "exact"]), st.booleans())
def test_every_rule_is_that_of_a_plain_loop(given_, threshold, grid, area):
    truth, found = given_
    recall, precision = plain(truth, found, threshold)
    mine = score_class(truth, found, area=area, threshold=threshold, grid=grid)
    assert np.allclose(mine.recall, recall, atol=1e-15) or not mine.objects
    assert np.allclose(mine.precision, precision, atol=1e-15)
    if mine.objects:
        assert mine.ap == pytest.approx(plain_ap(recall, precision, area, grid), abs=1e-12)
    else:
        assert math.isnan(mine.ap)


def one(box, *found, difficult=(False,), **rules):
    """AP of one image's objects and detections (box, score)."""
    boxes = np.array(box, float).reshape(-1, 4)
    truth = VocTruth(np.zeros(len(boxes), int), boxes, np.array(difficult))
    rows = Detections(
        np.zeros(len(found), int), np.array([s for _, s in found]), np.array([b for b, _ in found], float)
    )
    return score_class(truth, rows, **rules)


def test_the_rules_where_they_differ():
    half = [1, 1, 10, 5]  # of a box of 10 x 10 inclusive pixels: an overlap of exactly one half
    assert one([1, 1, 10, 10], (half, 0.9)).hits == 0
    assert one([1, 1, 10, 10], (half, 0.9), threshold="devkit").hits == 1
    twice = one([1, 1, 10, 10], ([1, 1, 10, 10], 0.9), ([1, 1, 10, 10], 0.8))
    assert (twice.hits, twice.misses) == (1, 1)
    hard = one([[1, 1, 10, 10], [50, 50, 60, 60]], ([1, 1, 10, 10], 0.9), difficult=(True, False))
    assert (hard.hits, hard.misses, hard.objects) == (0, 0, 1)
    ten = [[20 * i + 1, 1, 20 * i + 10, 10] for i in range(10)]
    three = one(ten, *((b, 0.9) for b in ten[:3]), difficult=(False,) * 10)  # recall 3/10 misses the port's third point
    assert three.ap == pytest.approx(3 / 11)
    assert one(ten, *((b, 0.9) for b in ten[:3]), difficult=(False,) * 10, grid="exact").ap == pytest.approx(4 / 11)


@pytest.fixture(scope="module")
def official(shared_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voc07")
    with tarfile.open(shared_data / "voc07-scores/Annotations_test.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "VOC2007/Annotations"


@pytest.fixture(scope="module")
def read_once():
    """Read every file of the official set for the first rules, and keep it for the others."""

    def kept(read):
        answers = {}

        def once(file, names, *rest):
            if file not in answers:
                answers[file] = read(file, names, *rest)
            return answers[file]

        return once

    return {name: kept(getattr(voc_file, name)) for name in ("read_annotations", "read_detections")}


@pytest.mark.parametrize(
    ("key", "rules"), [("ap11", {}), ("ap11_exact_grid", {"grid": "exact"}), ("ap_area", {"area": True})]
)
def test_the_official_detections_have_the_official_numbers(shared_data, official, read_once, monkeypatch, key, rules):
    for name, read in read_once.items():
        monkeypatch.setattr(voc_file, name, read)
    folder = shared_data / "voc07-scores"
    expected = json.loads((folder / "reference_ap.json").read_text())
    found = voc(official, folder / "results", list=folder / "test.txt", **rules)
    assert found.counts == {"images": 4952, "objects": 12032, "detections": 101139}
    assert found.classes == pytest.approx({n: c[key] for n, c in expected["classes"].items()}, abs=1e-9)
    if key in expected["mean"]:
        assert found.metrics["mAP"] == pytest.approx(expected["mean"][key], abs=1e-9)


XML = """<annotation><filename>{name}.jpg</filename><size><width>100</width><height>80</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""


@pytest.fixture
def small(tmp_path) -> Path:
    """Two images with a cat each, found."""
    (tmp_path / "xml").mkdir()
    (tmp_path / "found").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"xml/{name}.xml").write_text(XML.format(name=name))
    (tmp_path / "list.txt").write_text("a\nb\n")
    (tmp_path / "found/comp4_det_test_cat.txt").write_text("a 0.9 1 1 20 20\nb 0.8 1 1 20 20\n")
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    return ["score", "voc", str(folder / "xml"), str(folder / "found"), "--list", str(folder / "list.txt"), *more]


def test_the_command(small, capsys):
    (small / "xml/b.xml").write_text(XML.format(name="b").replace("cat", "dog"))
    (small / "found/comp4_det_test_cow.txt").write_text("a 0.9 1 1 20 20\n")
    assert main(words(small, "--json", "--plot", str(small / "curves.png"))) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found["classes"] == {"cat": pytest.approx(1.0), "dog": 0.0} and found["mAP"] == pytest.approx(0.5)
    assert "no file for the class 'dog'" in out.err and "no object of the list is a 'cow'" in out.err
    assert (small / "curves.png").stat().st_size > 10_000
    assert main(words(small, "--classes", "cat", "--area", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["mAP"] == 1.0


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("xml/a.xml", XML.format(name="a").replace("</size>", ""), "a.xml: is no XML"),
        ("xml/a.xml", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + XML.format(name="&x;"), "which are not read"),
        ("xml/a.xml", XML.format(name="a").replace("<name>cat", "<name>c\x7fat"), "cannot be printed"),
        ("xml/a.xml", XML.format(name="a").replace("<xmin>1<", "<xmin>nan<"), "object 1 (cat): xmin='nan' is no number"),
        ("xml/a.xml", XML.format(name="a").replace("<xmin>1<", "<xmin>1_0<"), "object 1 (cat): xmin='1_0' is no number"),
        ("xml/a.xml", XML.format(name="a").replace("<xmin>1<", "<xmin>1e300<"), "object 1 (cat): xmin='1e300' is no number"),
        ("xml/a.xml", XML.format(name="a").replace("<xmin>1<", "<xmin>31<"), "a.xml: object 1 (cat): its box 31, 1"),
        ("xml/a.xml", XML.format(name="a").replace("<xmin>", "<xmin>5</xmin><xmin>"), "object 1 (cat): has <xmin> 2 times"),
        ("xml/a.xml", XML.format(name="a").replace("<ymax>20</ymax>", ""), "object 1 (cat): has no <ymax>"),
        ("xml/a.xml", XML.format(name="a").replace("difficult>0", "difficult>maybe"), "expected 0 or 1"),
        ("xml/a.xml", "<html/>", "<html> where <annotation> was expected"),
        ("xml/a.xml", "", "is no XML"),
        ("xml/a.xml", None, "cannot be read"),
        ("list.txt", "a\nb\na\n", "line 3: a for the second time"),
        ("list.txt", "a\n..\n", "line 2: '..'; expected the name of an image"),
        ("list.txt", "a\n../a\n", "line 2: a for the second time"),
        ("list.txt", "", "names no image"),
        ("list.txt", "a 1\nb picture\n", "b picture.xml: cannot be read"),
        ("found/comp4_det_test_cat.txt", "a 0.9 1 1 20 1e400\n", "line 1"),
        ("found/comp4_det_test_cat.txt", "a 0.9 1 1 20\n", "line 1: 'a 0.9 1 1 20'; expected"),
        ("found/comp4_det_test_cat.txt", "a nan 1 1 20 20\n", "line 1"),
        ("found/comp4_det_test_cat.txt", "c 0.9 1 1 20 20\n", "line 1: the image 'c' is not on the list"),
        ("found/comp4_det_test_cat.txt", None, "has no comp4_det_"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(small, capsys, file, text, said):
    (small / file).unlink() if text is None else (small / file).write_text(text)
    assert main(words(small)) == 2
    heard = capsys.readouterr().err
    assert said in heard and "Traceback" not in heard


def test_a_class_that_nobody_knows(small, capsys):
    assert main(words(small, "--classes", "cat,cot")) == 2
    assert "classes=cot: no object of the list has it; there are cat" in capsys.readouterr().err


TAGS = st.sampled_from(["annotation", "object", "size", "bndbox", "name", "xmin", "width", "filename", "difficult"])
TEXTS = st.sampled_from(["", "1", "-3", "nan", "1e400", "0x1", "cat", "../a", "&lt;", "&x;", "\x00", "é"])
TREES = st.recursive(
    st.tuples(TAGS, TEXTS).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"),
    lambda inner: st.tuples(TAGS, st.lists(inner, max_size=5)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | TREES.map(lambda text: f"<annotation>{text}</annotation>".encode()))
def test_any_xml_is_read_or_refused(data):
    try:
        found = parse_annotation(data)
    except DataError:
        return
    assert min(found.width, found.height) > 0 or found.width == found.height == 0
    assert all(math.isfinite(v) for o in found.objects for v in o.box)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab 0.1-\n\tne/\\", max_size=60))
def test_any_list_and_result_file_is_read_or_refused_by_name(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "any.txt"
    file.write_text(text)
    for read in (lambda: read_list(file), lambda: read_detections(file, ["a", "b"])):
        try:
            read()
        except DataError as error:
            assert str(error).startswith(str(file))
