"""COCO's files as people write them: what has one meaning gives pycocotools' number and a counted line; the rest is refused."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_work import random_coco, write

from trunkline.ground.errors import DataError
from trunkline.pipelines.score.score_coco import coco
from trunkline.tasks.objects.coco_file import read_results, read_truth

pytest.importorskip("msgspec")
pytest.importorskip("pycocotools")
BOX = random_coco(1)
MASK = random_coco(1, masks=True)


def as_official(truth: dict, results: list, kind: str = "bbox") -> float:
    """pycocotools' AP, of a truth that it can read."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = copy.deepcopy(truth)
        theirs.createIndex()
        ev = COCOeval(theirs, theirs.loadRes(copy.deepcopy(results)), kind)
        ev.evaluate()
        ev.accumulate()
        ev.summarize()
    return float(ev.stats[0])


def of_each(name: str, value) -> dict:
    """The truth with a key of every annotation changed by a function."""
    truth = copy.deepcopy(BOX[0])
    for annotation in truth["annotations"]:
        annotation[name] = value(annotation[name])
    return truth


COUNT = len(BOX[0]["annotations"])
MENDED = {
    "booleans": (lambda: of_each("iscrowd", bool), f"iscrowd: true/false taken as 1/0 in {COUNT} annotations"),
    "words": (
        lambda: of_each("iscrowd", lambda v: str(bool(v))),
        f"iscrowd: the words true/false taken as 1/0 in {COUNT} annotations",
    ),
    "whole floats": (
        lambda: of_each("category_id", float),
        f"category_id: numbers written as 1.0 taken as 1 in {COUNT} annotations",
    ),
    "ids as text": (
        lambda: of_each("id", str),
        f"id: numbers written as text taken as numbers in {COUNT} annotations",
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_values_of_another_type_are_read_and_counted_once(tmp_path, name):
    make, said = MENDED[name]
    there, file = write(tmp_path, make(), BOX[1])
    scored = coco(there, file)
    assert scored.metrics["AP"] == pytest.approx(as_official(*BOX), abs=0) and f"{there}: {said}" in scored.warnings
    assert sum("annotation" in line for line in scored.warnings) == 1


def test_ids_as_text_that_collide_or_are_not_plain_are_refused(tmp_path):
    for wrong, said in (("1", "the id 1 occurs more than once"), ("007", "id='007'"), ("x", "id='x'"), ("²", "id='²'")):
        truth = copy.deepcopy(BOX[0])
        truth["annotations"][3]["id"] = wrong
        there, _ = write(tmp_path, truth, [])
        with pytest.raises(DataError, match=said):
            read_truth(there)


def test_images_and_results_with_ids_as_text_find_each_other(tmp_path):
    truth, results = copy.deepcopy(BOX[0]), copy.deepcopy(BOX[1])
    for image in truth["images"]:
        image["id"] = str(image["id"])
    for result in results[::2]:
        result["image_id"] = str(result["image_id"])
    there, file = write(tmp_path, truth, results)
    assert coco(there, file).metrics["AP"] == as_official(*BOX)


def test_absent_areas_and_boxes_are_those_of_the_masks(tmp_path):
    """As `loadRes` fills them in: the box and the area of the mask; without a mask the area is the box's."""
    from pycocotools import mask

    truth = copy.deepcopy(MASK[0])
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        del annotation["area"], annotation["bbox"]
    there, _ = write(tmp_path, truth, [])
    read = read_truth(there)
    for row, annotation in enumerate(truth["annotations"]):
        code = annotation["segmentation"]
        if isinstance(code, list):
            code = mask.merge(mask.frPyObjects(code, *sizes[annotation["image_id"]]))
        elif isinstance(code["counts"], list):
            code = mask.frPyObjects(code, *code["size"])
        assert read.objects.boxes[row].tolist() == mask.toBbox(code).tolist()
        assert read.objects.area[row] == mask.area(code)
    count = len(truth["annotations"])
    assert f"{there}: bbox: absent, taken from the mask in {count} annotations" in read.warnings
    for annotation in (boxes := copy.deepcopy(BOX[0]))["annotations"]:
        annotation.pop("area"), annotation.pop("segmentation", None)
    there, _ = write(tmp_path, boxes, [])
    read = read_truth(there)
    assert np.array_equal(read.objects.area, read.objects.boxes[:, 2] * read.objects.boxes[:, 3])
    assert f"{there}: area: absent, taken from the box in {COUNT} annotations" in read.warnings


@pytest.mark.parametrize("how", ["absent", "zero"])
def test_boxes_are_scored_without_the_sizes_of_pictures(tmp_path, how):
    truth = copy.deepcopy(BOX[0])
    for image in truth["images"]:
        if how == "zero":
            image["width"] = image["height"] = 0
        else:
            del image["width"], image["height"]
    there, file = write(tmp_path, truth, BOX[1])
    assert coco(there, file).metrics["AP"] == as_official(*BOX)


@pytest.mark.parametrize("form", ["wrapped", "lines"])
def test_results_in_another_wrapping(tmp_path, form):
    there, file = write(tmp_path, *BOX)
    if form == "wrapped":
        file.write_text(json.dumps({"info": {}, "annotations": BOX[1]}))
    else:
        file.write_text("\n".join(map(json.dumps, BOX[1])) + "\n")
    scored = coco(there, file)
    assert scored.metrics["AP"] == as_official(*BOX)
    assert any(f"in {len(BOX[1])} results" in line and str(file) in line for line in scored.warnings)


def test_utf_16_and_words_in_text_that_are_no_numbers(tmp_path):
    """`NaN` in a file's name stays what it is where the file has a number NaN elsewhere."""
    truth = copy.deepcopy(BOX[0])
    truth["images"][0]["file_name"] = 'Ba"NaN, Infinity.jpg'
    truth["info"] = {"mean": float("nan"), "low": -float("inf")}
    there, file = write(tmp_path, truth, BOX[1])
    assert read_truth(there).images.names[0] == 'Ba"NaN, Infinity.jpg'
    there.write_bytes(there.read_text().encode("utf-16"))
    assert coco(there, file).metrics["AP"] == as_official(*BOX)


NUMBER = st.sampled_from([0.0, -3.0, 5.0, 40.0, 1e6, -1e6])
WRONG = st.fixed_dictionaries({
    "image_id": st.sampled_from([image["id"] for image in BOX[0]["images"]]),
    "category_id": st.sampled_from([*(c["id"] for c in BOX[0]["categories"]), 901, -1]),
    "bbox": st.lists(NUMBER, min_size=4, max_size=4),
    "score": st.sampled_from([0.1, 0.5, 0.9, 0.99]),
})  # fmt: skip


def outside(box, side) -> bool:
    """Whether nothing of a box lies in its picture."""
    return any(box[k] >= side[k] or box[k] + box[k + 2] <= 0 for k in (0, 1))


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
@settings(max_examples=40, deadline=None)
@given(wrong=st.lists(WRONG, min_size=1, max_size=12))
def test_a_detectors_wrong_results_give_pycocotools_number(tmp_path_factory, engine, wrong):
    pytest.importorskip(engine)
    results = [*BOX[1], *wrong]
    there, file = write(tmp_path_factory.mktemp("wrong"), BOX[0], results)
    scored = coco(there, file, engine=engine)
    assert scored.metrics["AP"] == as_official(BOX[0], results)
    sides = {image["id"]: (image["width"], image["height"]) for image in BOX[0]["images"]}
    odd = sum(
        r["category_id"] in (901, -1) or min(r["bbox"][2:]) <= 0 or outside(r["bbox"], sides[r["image_id"]])
        for r in wrong
    )
    assert sum("counted as pycocotools counts them" in line for line in scored.warnings) == bool(odd)


def test_the_line_counts_what_can_only_be_false(tmp_path):
    results = copy.deepcopy(BOX[1])
    results[0]["category_id"], results[1]["bbox"][2], results[2]["bbox"][3] = 901, -4, 0
    there, file = write(tmp_path, BOX[0], results)
    assert read_results(file, read_truth(there)).remarks == [
        f"{file}: 1 result of a category that the truth lacks, which are not scored, 1 box of negative width or height, "
        "1 box without area; counted as pycocotools counts them"
    ]
