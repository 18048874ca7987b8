"""Result and annotation files that are wrong: every problem with the file's and the object's name, and never a traceback."""

import copy
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_work import random_coco, write

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.objects.coco_file import read_results, read_truth
from trunkline.tasks.objects.polygons import counts_of

pytest.importorskip("msgspec")
BOX = random_coco(1)
MASK = random_coco(1, masks=True)


def change(document, path, value):
    """A copy with one value changed (or, for `...`, taken away)."""
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["annotations"], ..., "has no 'annotations'"),
        (["annotations"], {}, "annotations: expected a list"),
        (["annotations", 2, "area"], "large", "annotations[2] (id 3): area='large': expected"),
        (["annotations", 2, "bbox"], ..., "annotation 3: has no bbox, and no segmentation that would tell it"),
        (["annotations", 2, "bbox"], [1, 2, 3], "annotations[2] (id 3): bbox=[1, 2, 3]"),
        (["annotations", 2, "bbox", 2], float("nan"), "annotations[2] (id 3): bbox=[", ),
        (["annotations", 2, "bbox", 2], -4, "annotation 3: bbox=["),
        (["annotations", 2, "id"], 1, "the id 1 occurs more than once"),
        (["annotations", 2, "id"], "03", "annotations[2] (id 03): id='03': expected `int`, got `str`"),
        (["annotations", 2, "id"], "1", "the id 1 occurs more than once"),
        (["annotations", 2, "id"], 1.5, "annotations[2] (id 1.5): id=1.5: expected `int`, got `float`"),
        (["annotations", 2, "id"], True, "annotations[2] (id True): id=True: expected `int`, got `bool`"),
        (["annotations", 2, "iscrowd"], "yes", "annotations[2] (id 3): iscrowd='yes': expected `int`"),
        (["annotations", 2, "id"], 10**30, "annotations[2]"),
        (["annotations", 2, "image_id"], 901, "annotation 3: image_id=901 is not among the file's images"),
        (["annotations", 2, "category_id"], 901, "annotation 3: category_id=901 is not among the file's categories"),
        (["annotations", 2, "iscrowd"], 2, "annotation 3: iscrowd=2, expected 0 or 1"),
        (["annotations", 2, "area"], -1, "annotation 3: area=-1.0"),
        (["images", 1, "width"], -1, "is -1 x 400 pixels"),
        (["images", 1, "width"], 2**32 + 5, "is 4294967301 x 400 pixels"),
        (["annotations", 1, "bbox", 0], 1e308, "annotation "),
        (["categories", 1, "name"], "", "categories[1]"),
        (["annotations", 1, "id"], -5, "annotations[1] (id -5): id=-5: expected `int` >= 0"),
        (["categories", 1, "name"], None, "categories[1]"),
    ],
)  # fmt: skip
def test_an_annotation_file(tmp_path, path, value, said):
    file, _ = write(tmp_path, change(BOX[0], path, value), [])
    with pytest.raises(DataError) as error:
        read_truth(file)
    assert str(error.value).startswith(str(file)) and said in str(error.value)


@pytest.mark.parametrize(
    ("masks", "path", "value", "said"),
    [
        (False, [3, "score"], float("nan"), "[3]: score=None: expected `float`, got `null` (null or not a number)"),
        (False, [3, "score"], "high", "[3]: score='high': expected `float`, got `str`"),
        (False, [3, "image_id"], 901, "[3]: image_id=901 is not among the images of"),
        (False, [3, "category_id"], "cat", "[3]: category_id='cat': expected `int`, got `str`"),
        (False, [3, "score"], ..., "[3]: object missing required field `score`"),
        (False, [3, "bbox"], ..., "[3]: has no 'bbox'"),
        (False, [3, "bbox"], float("nan"), "[3]: has no 'bbox'"),
        (False, [3, "bbox", 3], "1", "[3]: bbox=["),
        (True, [3, "segmentation"], ..., "[3]: has no 'segmentation'"),
        (True, [3, "segmentation", "size"], [400, 300], "[3]: segmentation: a run-length code of 400 x 300"),
        (True, [3, "segmentation", "counts"], "0", "[3]: segmentation: a run-length code of 0 pixels"),
        (True, [3, "segmentation", "counts"], "~~", "[3]: segmentation: a damaged run-length code"),
        (
            True,
            [3, "segmentation", "counts"],
            [5, -5, 160000],
            "[3]: segmentation: a run-length code with a negative run",
        ),
        (True, [3, "segmentation", "counts"], "€€", "[3]: segmentation: a damaged run-length code (the character '€')"),
        (True, [3, "segmentation"], [[1, 2, 3, 4]], "[3]: segmentation: a polygon of 4 numbers"),
        (True, [3, "segmentation"], [], "[3]: segmentation: has no polygon"),
        (True, [3, "segmentation"], 7, "[3]: segmentation: expected polygons or a run-length code"),
    ],
)
def test_a_result_file(tmp_path, capsys, masks, path, value, said):
    truth, results = MASK if masks else BOX
    there, file = write(tmp_path, truth, change(results, path, value))
    assert main(["score", "coco", str(there), str(file), *(["--masks"] if masks else [])]) == 2
    heard = capsys.readouterr().err
    assert said in heard and "Traceback" not in heard


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_in_a_field_that_is_not_read_changes_no_score(tmp_path, capsys, value):
    there, file = write(tmp_path, *BOX)
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    without = capsys.readouterr().out
    write(tmp_path, BOX[0], change(BOX[1], [3, "speed"], value))
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    assert capsys.readouterr().out == without


def test_a_mark_of_utf_8_is_read_over(tmp_path, capsys):
    there, file = write(tmp_path, *BOX)
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    without = capsys.readouterr().out
    for path in (there, file):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    assert capsys.readouterr().out == without


def test_two_categories_of_one_name_are_scored_apart(tmp_path, capsys):
    there, file = write(tmp_path, *BOX)
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    apart = json.loads(capsys.readouterr().out)
    truth = json.loads(there.read_text())
    for category in truth["categories"][:2]:
        category["name"] = "twin"
    there.write_text(json.dumps(truth))
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    heard = capsys.readouterr()
    found = json.loads(heard.out)
    assert [*found["classes"].values()] == [*apart["classes"].values()] and found["AP"] == apart["AP"]
    assert f"twin (id {truth['categories'][0]['id']})" in found["classes"]
    assert "several categories are called twin" in heard.err


def test_every_problem_at_once_and_not_more_than_one_reads(tmp_path):
    results = [r | {"image_id": 901} for r in BOX[1]] * 3
    there, file = write(tmp_path, BOX[0], results)
    with pytest.raises(DataError) as error:
        read_results(file, read_truth(there))
    lines = str(error.value).splitlines()
    assert len(lines) == 21 and f"and {len(results) - 20} more" in lines[-1]


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_file_that_was_cut_off(tmp_path, capsys, keep):
    there, file = write(tmp_path, *BOX)
    file.write_bytes(file.read_bytes()[:keep])
    assert main(["score", "coco", str(there), str(file)]) == 2
    assert ("is empty" if not keep else "is cut off after") in capsys.readouterr().err


def test_what_is_no_such_file(tmp_path, capsys):
    there, file = write(tmp_path, *BOX)
    for given_, said in (
        ((there, there), "its annotations have no scores: it is a truth; expected a detector's results"),
        ((file, file), "is no JSON as COCO has it"),
        ((tmp_path / "none.json", file), "cannot be read"),
        ((tmp_path, file), "is no data of objects"),
    ):
        assert main(["score", "coco", *map(str, given_)]) == 2
        assert said in capsys.readouterr().err
    for damaged in (b"\xff\xfe\x00", b'[{"image_id": "\xe4"}]', b"[" * 100_000):
        file.write_bytes(damaged)
        assert main(["score", "coco", str(there), str(file)]) == 2
        said = capsys.readouterr().err
        assert str(file) in said and "Traceback" not in said
    (tmp_path / "ids.txt").write_text("901\n")
    there, file = write(tmp_path, *BOX)
    assert main(["score", "coco", str(there), str(file), "--images", str(tmp_path / "ids.txt")]) == 2
    assert "'901' is no image of" in capsys.readouterr().err


KEYS = st.sampled_from(["images", "annotations", "categories", "id"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner), max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60) | ANY.map(lambda value: json.dumps(value).encode()))
def test_anything_is_read_or_refused_by_name(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "any.json"
    file.write_bytes(data)
    there, _ = write(file.parent / "truth", *BOX)
    for read in (lambda: read_truth(file), lambda: read_results(file, read_truth(there))):
        try:
            read()
        except DataError as error:
            assert str(error).startswith(str(file))


def test_run_lengths_are_those_of_pycocotools():
    from pycocotools import mask

    for row in MASK[1]:
        decoded = mask.decode(row["segmentation"]).reshape(-1, order="F")
        changes = [0, *(decoded[1:] != decoded[:-1]).nonzero()[0] + 1, len(decoded)]
        runs = [b - a for a, b in itertools.pairwise(changes)]
        assert counts_of(row["segmentation"]["counts"]) == ([0, *runs] if decoded[0] else runs)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--plot", "curves.txt"), "plot=curves.txt: expected a name that ends in .png"),
        (("--plot", "curves"), "plot=curves: expected a name that ends in .png"),
        (("--max-detections", "0"), "max_detections=0: expected 1 to 1,000,000"),
        (("--max-detections", "1000000000000000000000"), "expected 1 to 1,000,000"),
    ],
)
def test_wrong_settings(tmp_path, capsys, more, said):
    there, file = write(tmp_path, *BOX)
    assert main(["score", "coco", str(there), str(file), *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["pycocotools", "hotcoco"])
def test_results_may_have_polygons_and_plain_codes(tmp_path, capsys, engine):
    pytest.importorskip(engine)
    truth, results = copy.deepcopy(MASK)
    there, file = write(tmp_path, truth, results)
    assert main(["score", "coco", str(there), str(file), "--masks", "--engine", engine, "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    for one in results:
        one["segmentation"] = {**one["segmentation"], "counts": counts_of(one["segmentation"]["counts"])}
    there, file = write(tmp_path, truth, results)
    assert main(["score", "coco", str(there), str(file), "--masks", "--engine", engine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    results[0]["segmentation"] = [[1, 1, 30, 1, 30, 30, 1, 30]]
    there, file = write(tmp_path, truth, results)
    assert main(["score", "coco", str(there), str(file), "--masks", "--engine", engine]) == 0


def test_a_list_that_is_missing(tmp_path, capsys):
    assert main(["score", "voc", str(tmp_path), str(tmp_path)]) == 2
    assert "list= is missing" in capsys.readouterr().err
