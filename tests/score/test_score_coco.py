"""COCO's numbers are pycocotools' to the last bit, whatever engine computes them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_work import by_pycocotools, random_coco, write

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.score.score_coco import coco
from trunkline.tasks.objects.coco_file import read_results, read_truth
from trunkline.tasks.objects.coco_scores import FAST, chosen, score
from trunkline.tasks.objects.intervals import average_precision

pytest.importorskip("pycocotools")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KINDS = {False: "bbox", True: "segm"}


def marked(metrics):
    """With COCO's mark where there is nothing to measure."""
    return {name: -1.0 if value is None else value for name, value in metrics.items()}


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
@pytest.mark.parametrize("masks", [False, True])
def test_the_official_results_have_the_official_numbers(shared_data, engine, masks):
    folder = shared_data / "coco-scores"
    expected = json.loads((folder / "reference_stats.json").read_text())[KINDS[masks]]
    found = coco(
        folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{KINDS[masks]}100_results.json",
        masks=masks, engine=engine,
    )  # fmt: skip
    assert marked(found.metrics) == expected["stats"]
    names = {c["id"]: c["name"] for c in json.loads((folder / "instances_val2014_100.json").read_text())["categories"]}
    assert found.classes == {names[int(k)]: v for k, v in expected["AP_per_category_id"].items()}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), masks=st.booleans(), images=st.integers(2, 9), categories=st.integers(2, 5),
       wrong=st.sampled_from([0.0, 0.3]))  # fmt: skip
def test_random_sets_are_scored_alike_to_the_last_bit(tmp_path_factory, seed, masks, images, categories, wrong):
    truth, results = random_coco(seed, images, categories, masks, wrong)
    if not results or not truth["annotations"]:
        return
    ev = by_pycocotools(truth, results, KINDS[masks])
    there, file = write(tmp_path_factory.mktemp("random"), truth, results)
    read = read_truth(there, masks)
    for engine in ("pycocotools", *FAST):
        found = score(read, read_results(file, read, masks), masks, engine)
        assert np.array_equal(found.curves.precision, ev.eval["precision"])
        assert np.array_equal(found.curves.recall, ev.eval["recall"])
        assert [marked(found.metrics)[name] for name in NAMES] == ev.stats.tolist()


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_results_with_masks_alone_are_scored_by_the_masks_boxes_as_pycocotools_does(tmp_path, seed, engine):
    truth, results = random_coco(seed, masks=True)
    ev = by_pycocotools(truth, results, "bbox")
    there, file = write(tmp_path, truth, results)
    found = coco(there, file, engine=engine)
    assert [marked(found.metrics)[name] for name in NAMES] == ev.stats.tolist() and ev.stats[0] > 0
    said = f"{file}: bbox: absent, box and area of the mask taken, as pycocotools does in {len(results)} results"
    assert said in found.warnings
    results[1]["bbox"] = [1, 2, 3, 4]
    with pytest.raises(DataError, match=r"\[0\]: has no 'bbox'"):
        coco(*write(tmp_path, truth, results), engine=engine)


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
@pytest.mark.parametrize("limits", [(1, 10, 1000), (5,), (1, 2, 3, 4), (100, 10, 1)])
def test_ap_is_at_the_largest_number_of_detections_whatever_that_is(tmp_path, engine, limits):
    truth, results = random_coco(5)
    there, file = write(tmp_path, truth, results)
    found = coco(there, file, engine=engine, max_detections=limits)
    ev = by_pycocotools(truth, results, "bbox", tuple(sorted(limits)))
    whole = ev.eval["precision"][:, :, :, 0, -1]
    assert found.metrics["AP"] == np.mean(whole[whole > -1]) > 0
    assert {f"AR{n}" for n in limits} < found.metrics.keys()


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
def test_no_result_at_all_scores_zero(tmp_path, engine):
    truth, _ = random_coco(3)
    there, file = write(tmp_path, truth, [])
    found = coco(there, file, engine=engine)
    assert found.metrics["AP"] == found.metrics["AR100"] == 0
    having = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    assert found.classes == {c["name"]: 0.0 if c["id"] in having else None for c in truth["categories"]}


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
def test_an_annotation_of_id_0_counts_and_is_warned_of(tmp_path, engine, capsys):
    truth, results = random_coco(11)
    expected = coco(*write(tmp_path / "whole", truth, results), engine=engine)
    for row in truth["annotations"]:
        row["id"] -= 1
    found = coco(*write(tmp_path / "zero", truth, results), engine=engine)
    assert found.metrics == expected.metrics
    assert "has the id 0" in capsys.readouterr().err and found.warnings


@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
def test_a_mask_result_is_not_measured_by_its_box(tmp_path, engine):
    truth, results = random_coco(2, masks=True)
    expected = coco(*write(tmp_path / "plain", truth, results), masks=True, engine=engine)
    for row in results:
        row["bbox"] = [0.0, 0.0, 400.0, 400.0]
    assert coco(*write(tmp_path / "boxed", truth, results), masks=True, engine=engine).metrics == expected.metrics


def test_a_subset_of_the_images_is_scored_as_if_it_were_all(tmp_path):
    truth, results = random_coco(8, images=8)
    kept = [i["id"] for i in truth["images"]][:5]
    (tmp_path / "images.txt").write_text(f"{kept[0]}.jpg\n" + "\n".join(map(str, kept[1:])))
    found = coco(*write(tmp_path / "all", truth, results), images=tmp_path / "images.txt")
    part = {
        "images": [i for i in truth["images"] if i["id"] in kept],
        "categories": truth["categories"],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in kept],
    }
    alone = coco(*write(tmp_path / "part", part, [r for r in results if r["image_id"] in kept]))
    assert found.metrics == alone.metrics and found.counts == alone.counts


def test_crowds_take_any_number_of_detections(tmp_path):
    """Two boxes inside one crowd and a true one: AP 1; the crowd an ordinary object: 0.1683."""
    header = {"images": [{"id": 1, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "a"}]}
    objects = [[0, 0, 50, 50], [60, 60, 20, 20]]
    results = [{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for b, s in (
        ([0, 0, 20, 20], 0.9), ([25, 25, 20, 20], 0.8), ([60, 60, 20, 20], 0.7))]  # fmt: skip
    for crowd, ap in ((1, 1.0), (0, 0.1683168)):
        rows = [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b, "area": b[2] * b[3],
                 "iscrowd": crowd if i == 0 else 0} for i, b in enumerate(objects)]  # fmt: skip
        found = coco(*write(tmp_path / str(crowd), header | {"annotations": rows}, results))
        assert found.metrics["AP"] == pytest.approx(ap, abs=1e-6)


def test_half_of_the_objects_found_and_nothing_else(tmp_path):
    """50 of 100 found: 51/101 points of the curve are 1."""
    rows = [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [10 * (i % 10), 10 * (i // 10), 8, 8], "area": 64,
             "iscrowd": 0} for i in range(100)]  # fmt: skip
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": rows,
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": r["bbox"], "score": 0.9 - i / 1000} for i, r in enumerate(rows[:50])
    ]
    found = coco(*write(tmp_path, truth, results))
    assert found.metrics["AP"] == pytest.approx(51 / 101, abs=1e-12)
    assert found.metrics["APm"] is found.metrics["ARl"] is None and '"APm": null' in json.dumps(found.to_json())


def test_the_command_prints_a_table_json_and_a_plot(tmp_path, capsys):
    there, file = write(tmp_path, *random_coco(4))
    assert main(["score", "coco", str(there), str(file), "--plot", str(tmp_path / "curves.png")]) == 0
    said = capsys.readouterr().out
    assert "AP50" in said and "none there" in said
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert main(["score", "coco", str(there), str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*NAMES} < found.keys() and found["settings"]["engine"] == chosen("auto")
    assert main(["score", "coco", str(there), str(file), "--engine", "fast"]) == 2
    assert "expected auto, hotcoco, pycocotools, faster-coco-eval" in capsys.readouterr().err


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("engine", ["pycocotools", *FAST])
def test_intervals_resample_what_the_score_is_made_of(tmp_path, engine, masks):
    """With every image once, the resampled AP is the AP itself; its interval holds it, and narrows with more images."""
    truth, results = random_coco(21, images=9, masks=masks)
    for n, row in enumerate(results):
        row["score"] += n / 1e5  # no ties
    there, file = write(tmp_path, truth, results)
    read = read_truth(there, masks)
    found = score(read, read_results(file, read, masks), masks, engine, resampled=True)
    ones = np.ones((1, len(read.images.ids)))
    each = np.array([average_precision(m, ones)[0] for m in found.curves.matches if m.objects.sum()])
    assert each.mean() == pytest.approx(found.metrics["AP"], abs=1e-12)
    assert each[:, 0].mean() == pytest.approx(found.metrics["AP50"], abs=1e-12)
    for name in ("AP", "AP50"):
        low, high = found.intervals[name]
        assert 0 <= low <= found.metrics[name] + 0.1 and low < high <= 1
    # an image twice is the same as another image with the same objects
    twice = ones.copy()
    twice[0, 2] = 2
    chosen = int(read.images.ids[2])
    copied = json.loads(json.dumps(truth))
    copied["images"].append(next(i for i in copied["images"] if i["id"] == chosen) | {"id": 10_000})
    rows = [a | {"image_id": 10_000, "id": 90_000 + a["id"]} for a in copied["annotations"] if a["image_id"] == chosen]
    copied["annotations"] += rows
    more = results + [r | {"image_id": 10_000} for r in results if r["image_id"] == chosen]
    doubled = by_pycocotools(copied, more, KINDS[masks])
    each = np.array([average_precision(m, twice)[0] for m in found.curves.matches if m.objects.sum()])
    assert each.mean() == pytest.approx(doubled.stats[0], abs=0.02)  # a curve of whole steps of two
