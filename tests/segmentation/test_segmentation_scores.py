"""Confusion, IoU and boundaries of pixels against plain loops, on real masks where they are at hand."""

import json

import numpy as np
import pytest
from PIL import Image

from trunkline import score
from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.segmentation.boundary import boundary_counts
from trunkline.tasks.segmentation.confusion import confusion, dense, scores, sparse
from trunkline.tasks.segmentation.formats.palette_png import palette_png


def drawn(count: int = 6, classes: int = 21):
    draw = np.random.default_rng(0)
    for _ in range(count):
        shape = draw.integers(5, 60, 2)
        truth = draw.integers(0, classes - 3, shape).astype(np.uint8)
        truth[draw.random(shape) < 0.1] = 255
        yield truth, draw.integers(0, classes, shape).astype(np.uint8)


def plainly(pairs, classes: int, either: bool = False):
    """Class by class over all pixels at once, without a matrix."""
    truth = np.concatenate([t.ravel() for t, _ in pairs])
    predicted = np.concatenate([p.ravel() for _, p in pairs])
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    ious, accuracies = [], []
    for k in range(classes):
        both, some = ((truth == k) & (predicted == k)).sum(), ((truth == k) | (predicted == k)).sum()
        if (truth == k).any() or (either and some):
            ious.append(both / some)
        if (truth == k).any():
            accuracies.append(both / (truth == k).sum())
    return np.mean(ious), np.mean(accuracies), (truth == predicted).mean()


@pytest.mark.parametrize("absent", ["truth", "either"])
def test_one_matrix_over_the_set(absent):
    pairs = list(drawn())
    matrix = sum(confusion(t, p, 21) for t, p in pairs)
    found = scores(matrix, absent)
    assert (found.miou, found.mean_accuracy, found.pixel_accuracy) == plainly(pairs, 21, absent == "either")
    assert np.isnan(found.iou).sum() == (3 if absent == "truth" else 0)
    assert np.array_equal(dense(sparse(matrix), 21), matrix) and matrix.dtype == np.int64


def test_whole_voc_masks(shared_data):
    folder = shared_data / "VOCdevkit/VOC2012/SegmentationClass"
    masks = [np.array(Image.open(file)) for file in sorted(folder.glob("*.png"))]
    pairs = []
    for mask in masks:
        moved = np.roll(mask, (5, -9), (0, 1))
        pairs.append((mask, np.where(moved == 255, 0, moved)))
    found = scores(sum(confusion(t, p, 21) for t, p in pairs))
    assert (found.miou, found.mean_accuracy, found.pixel_accuracy) == plainly(pairs, 21)
    assert len(masks) > 100 and 0.3 < found.miou < 0.9


def test_it_is_no_mean_over_pictures():
    """A class that is small in one picture and large in another counts by its pixels."""
    large, small = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    large[:50], small[0, 0] = 1, 1
    missed = np.zeros_like(small)
    matrix = confusion(large, large, 2) + confusion(small, missed, 2)
    assert scores(matrix).iou[1] == 5000 / 5001
    assert np.mean([scores(confusion(large, large, 2)).iou[1], scores(confusion(small, missed, 2)).iou[1]]) == 0.5


def test_nothing_but_void_has_no_score():
    matrix = confusion(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8), 4)
    assert not matrix.any() and scores(matrix).miou is scores(matrix).pixel_accuracy is None


@pytest.mark.parametrize(
    ("truth", "predicted", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "the prediction is 2 x 3 pixels, the truth 3 x 2"),
        (np.full((2, 2), 7), np.zeros((2, 2)), "the truth has the value 7 in 4 pixels; expected 0 to 3"),
        (np.zeros((2, 2)), np.full((2, 2), 255), "the prediction has the value 255 in 4 pixels"),
    ],
)
def test_what_cannot_be_counted(truth, predicted, said):
    with pytest.raises(DataError, match=said):
        confusion(truth.astype(np.uint8), predicted.astype(np.uint8), 4)


def near_its_edge(mask: np.ndarray, reach: int) -> np.ndarray:
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        around = [(y + dy, x + dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
        found[y, x] = any(not (0 <= a < mask.shape[0] and 0 <= b < mask.shape[1]) or not mask[a, b] for a, b in around)
    return found


def test_boundaries_against_a_plain_search():
    draw = np.random.default_rng(1)
    small = draw.integers(0, 3, (5, 6)).astype(np.uint8)
    truth = np.kron(small, np.ones((9, 8), np.uint8))
    predicted = np.roll(truth, 2, 1)
    truth[:4, :7] = 255
    reach = max(1, round(0.05 * np.hypot(*truth.shape)))
    counts = boundary_counts(truth, predicted, 4, 0.05)
    for k in range(4):
        own, other = (near_its_edge((labels == k) & (truth != 255), reach) for labels in (truth, predicted))
        assert counts[k].tolist() == [(own & other).sum(), (own | other).sum()]
    same = boundary_counts(truth, np.where(truth == 255, 0, truth), 4)
    assert np.array_equal(same[:, 0], same[:, 1]) and same[:3].any(1).all()


def test_score_masks_of_a_folder(tmp_path, capsys):
    """Whole VOC-like folders against plain numpy; with void, and classes that only one side has."""
    rng = np.random.default_rng(2)
    pairs = []
    for n in range(3):
        truth, found = (rng.integers(0, 4, (9, 13 + n)).astype(np.uint8) for _ in range(2))
        truth[truth == 3] = 255
        pairs.append((truth, found))
        for folder, labels in (("true", truth), ("found", found)):
            (tmp_path / folder / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{folder}/a/{n}.png").write_bytes(palette_png(labels, [(0, 0, 0)] * 5))
    words = ["score", "masks", str(tmp_path / "true"), str(tmp_path / "found"), "--classes", "5", "--json"]
    assert main(words) == 2
    assert "has the number 255" in capsys.readouterr().err, "3 and 4 have no pixel: 255 may be one of them"
    words = [*words, "--void", "255"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    truth, found = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    known = truth != 255
    ious = [((truth == c) & (found == c)).sum() / (((truth == c) | (found == c)) & known).sum() for c in range(3)]
    assert said["mIoU"] == np.mean(ious) and said["pixel_accuracy"] == (truth == found)[known].mean()
    assert list(said["classes"].values()) == [*ious, None, None]
    assert main([*words, "--absent", "either", "--boundary"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["mIoU"] == np.mean([*ious, 0.0]) and 0 < other["boundary_IoU"] < 1

    (tmp_path / "found/a/1.png").unlink()
    Image.fromarray(np.full((9, 13), 7, np.uint8)).save(tmp_path / "found/a/0.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "found/a/2.png")
    assert main(words) == 2 and "found/a/1.png: there is no such mask" in capsys.readouterr().err
    (tmp_path / "list.txt").write_text("a/0\na/2\n")
    assert main([*words, "--list", str(tmp_path / "list.txt")]) == 2
    err = capsys.readouterr().err
    count = int((pairs[0][0] != 255).sum())
    assert f"a/0.png: values that are no class's: 7 in {count} pixels; expected 0 to 4" in err, "void aside"
    assert "a/2.png: is 4 x 4 pixels; the true mask" in err and "is 15 x 9" in err
    assert main([*words[:4], "--classes", "300"]) == 2


FRONT = np.zeros((6, 8), np.uint8)
FRONT[:3] = 1
RED = [0, 0, 0, 255, 0, 0]


def indexed(labels: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(labels, "P")
    image.putpalette(palette)
    return image


COLOURED = {  # predicted masks of FRONT, for classes with colours
    "rgb": indexed(FRONT, RED).convert("RGB"),
    "rgba": indexed(FRONT, RED).convert("RGBA"),
    "palette, as predict writes it": indexed(FRONT, RED),
    "palette in another order": indexed(np.where(FRONT == 1, 4, 3).astype(np.uint8), [9] * 9 + RED),
    "a grey ramp as palette": indexed(FRONT, [v for n in range(256) for v in (n, n, n)]),
    "numbers": Image.fromarray(FRONT),
    "16 bits": Image.fromarray(FRONT.astype(np.uint16)),
}


@pytest.mark.parametrize("how", COLOURED)
def test_a_predicted_mask_has_the_colours_of_the_classes_or_their_numbers(tmp_path, how):
    (tmp_path / "classes.txt").write_text("0 0 0 back\n255 0 0 front\n")
    for folder, image in (("true", COLOURED["rgb"]), ("found", COLOURED[how])):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "0.png")
    for true in ("true", "found") if how.startswith(("rgb", "palette")) else ("true",):
        found = score("masks", tmp_path / true, tmp_path / "found", classes=str(tmp_path / "classes.txt"))
        assert found.metrics["mIoU"] == 1
        assert how == "rgba" or not found.warnings


def test_numbers_and_colours_that_say_other_classes_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("255 255 255 front\n0 0 0 back\n255 0 0 red\n")
    for n, image in enumerate(
        [
            indexed(FRONT, [*[0] * 3, *[255] * 3]),  # all declared
            indexed(FRONT, [*[255] * 3, 255, 0, 0]),
            indexed(FRONT, [1, 2, 3, 255, 0, 0]),  # one is declared, of another class
            Image.fromarray(FRONT * 0),  # grey 0 is black, and the number of front
        ]
    ):
        folder = tmp_path / str(n)
        folder.mkdir()
        image.save(folder / "0.png")
        (tmp_path / "true").mkdir(exist_ok=True)
        indexed(FRONT, [*[0] * 3, *[255] * 3]).convert("RGB").save(tmp_path / "true/0.png")
        with pytest.raises(
            DataError, match=r"0.png: has two readings: the number \d says \w+ .class \d of classes.txt"
        ):
            score("masks", tmp_path / "true", folder, classes=str(tmp_path / "classes.txt"))
    grey = tmp_path / "grey"
    grey.mkdir()
    Image.fromarray((1 - FRONT) * 0 + FRONT * 255).save(grey / "0.png")
    found = score("masks", tmp_path / "true", grey, classes=str(tmp_path / "classes.txt"))
    assert found.metrics["mIoU"] == 1
    assert "grey whose values are declared colours: read as colours in 1 of 1 predicted masks" in found.warnings
