"""File names of annotations that are not those of the pictures: found where each leads to one picture inside the folder."""

import json
import pickle
import shutil

import label_work as work
import pytest
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.splits import read_split


def made(folder, names, pictures=("p0.jpg", "p1.jpg", "deep/p2.jpg")):
    """A COCO folder whose images have these names in the file, and those pictures on disk."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        images = [{"id": i, "file_name": n, "width": 60, "height": 40} for i, n in enumerate(names, 1)]
        objects = [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [2 * i, 3, 10, 10], "area": 100, "iscrowd": 0}
            for i in range(1, len(names) + 1)
        ]
        document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "nut"}]}
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document))
        for number, name in enumerate(pictures):
            file = folder / "images" / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), (60 * number, 9, 9)).save(file)
    return folder


def ids(folder, split="train"):
    samples = read_split(Options(data=str(folder)), split)
    return [samples.id(i) for i in range(len(samples))], samples.remarks()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("p0.jpg", "p1.jpg", "deep/p2.jpg"), ""),
        (
            ("images/train/p0.jpg", "images/train/p1.jpg", "images/train/deep/p2.jpg"),
            "folders before the picture left out in 3",
        ),
        (("images\\1/p0.jpg", "images\\1/p1.jpg", "images\\1/deep/p2.jpg"), "folders before the picture left out in 3"),
        (("deep\\p2.jpg", "p0.jpg", "p1.jpg"), "backslashes taken as slashes in 1 image"),
        (("1a2b3c4d-p0.jpg", "00ff00ff-p1.jpg", "p2.jpg"), "Label Studio's prefix left out in 2 images"),
        (
            ("/data/upload/1/1a2b3c4d-p0.jpg", "/data/upload/1/00ff00ff-p1.jpg"),
            "Label Studio's prefix left out in 2 images",
        ),
        (("P0.JPG", "p1.jpg", "Deep/p2.JPG"), "small and capital letters as the picture's name has them in 2 images"),
        (("C:\\pics\\p0.jpg", "C:\\pics\\p1.jpg"), "folders before the picture left out in 2 images"),
    ],
    ids=str,
)
def test_names_lead_to_pictures(tmp_path, names, said):
    folder = made(tmp_path / "data", names)
    found, remarks = ids(folder)
    there = [n for n in ("deep/p2.jpg", "p0.jpg", "p1.jpg") if n in found]
    assert sorted(found)[: len(there)] == there and len(there) >= 2
    lines = [line for line in remarks if "file_name" in line]
    assert bool(lines) == bool(said) and said in "".join(lines)
    assert read_split(Options(data=str(folder)), "train")[0].targets["boxes"].tolist() == [[2.0, 3.0, 12.0, 13.0]]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a/p0.jpg", "b/p0.jpg"), r"several images have the picture p0\.jpg \(a/p0\.jpg and b/p0\.jpg\)"),
        (("../../etc/passwd", "p0.jpg"), "leaves the folder of images"),
        (("/etc/passwd", "p0.jpg"), "leaves the folder of images"),
        (("", "p0.jpg"), "is no name"),
    ],
)
def test_names_that_lead_nowhere_or_twice_to_one_are_refused(tmp_path, names, said):
    with pytest.raises(DataError, match=said):
        ids(made(tmp_path / "data", names))


def test_the_exports_of_others(shared_data, tmp_path):
    for name in ("A5-backslash", "A5b-prefix"):
        folder = shutil.copytree(shared_data / "cases/12-coco-prefix" / name, tmp_path / name)
        found = check(folder, loaders=0, progress=False)
        assert found.ok and found.files == 12
        assert (
            sum("file_name: folders before the picture left out in 6 images" in o["what"] for o in found.oddities) == 2
        )


SHOUTED = {"a.jpg": "A.JPG", "b.jpg": "B.Jpg", "c.jpg": "c.jpg"}
CASE = "small and capital letters as the picture's name has them in 2 images"


def shouted_yolo(root):
    work.yolo_yaml(root)
    work.text(root / "data.yaml", "train: train.txt\nval: images/val\nnames: [ant, bee]\n")
    work.text(root / "train.txt", "".join(f"/home/me/images/train/{name}\n" for name in SHOUTED.values()))


def shouted_csv(root):
    work.tensorflow_csv(root)
    file = root / "_annotations.csv"
    text = file.read_text()
    for name, other in SHOUTED.items():
        text = text.replace(name, f"some/where/{other}")
    file.unlink()
    work.text(root / "train.csv", text)


def shouted_studio(root):
    work.label_studio(root, "train")
    text = (root / "train.json").read_text()
    for name, other in SHOUTED.items():
        text = text.replace(name, other)
    work.text(root / "train.json", text)


@pytest.mark.parametrize(
    ("form", "write"), [("yolo", shouted_yolo), ("csv", shouted_csv), ("labelstudio", shouted_studio)]
)
def test_names_in_other_letters_lead_to_pictures_in_every_reader(tmp_path, form, write):
    write(tmp_path)
    found = work.split_of(tmp_path, form)
    work.same(found, 1e-3)
    assert any(CASE in line for line in found.remarks())


def test_two_names_in_other_letters_lead_to_no_picture_alone(tmp_path):
    work.pictures(tmp_path, ("a.jpg",))
    work.text(tmp_path / "train.csv", "file,label,xmin,ymin,xmax,ymax\na.jpg,ant,1,2,3,4\nA.JPG,ant,1,2,5,6\n")
    with pytest.raises(
        DataError, match=r"a\.jpg and A\.JPG differ in small and capital letters alone, and only a\.jpg"
    ):
        work.split_of(tmp_path, "csv")


def test_a_copy_of_a_file_names_itself_and_not_the_first_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    one = made(tmp_path / "one", ("p0.jpg", "p1.jpg"))
    file = one / "annotations/instances_train.json"
    document = json.loads(file.read_text())
    for annotation in document["annotations"]:
        annotation["iscrowd"] = False
    file.write_text(json.dumps(document))
    shutil.copytree(one, tmp_path / "two")
    for folder in (one, tmp_path / "two", one):  # the first is read, the others come from the cache
        said = f"{folder}/annotations/instances_train.json: iscrowd: true/false taken as 1/0 in 2 annotations"
        assert said in ids(folder)[1]
        samples = read_split(Options(data=str(folder)), "train")
        assert said in pickle.loads(pickle.dumps(samples)).remarks()
