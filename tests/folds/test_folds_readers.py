"""Planted groups in every task's reader: no fold and no share has a group on both sides, and every sample is validated once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import DataError
from trunkline.pipelines.models.assembly import make_task
from trunkline.pipelines.recipe.limits import check_options
from trunkline.tasks.check import check
from trunkline.tasks.data.folds import divided
from trunkline.tasks.data.groups import crossing
from trunkline.tasks.options import split_problems
from trunkline.tasks.table import options as known_options

PEOPLE = 6
PERSON = r"(p\d)_"
BOXES = ((1, 2, 9, 8), (3, 3, 14, 12))


def picture(file: Path, value: int = 0, size: tuple[int, int] = (16, 16)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file)


def names(split: int) -> list[str]:
    """Three pictures of each person in train, and one in val: every group stands on both sides of the data's own split."""
    return [f"p{n}_{i}" for n in range(PEOPLE) for i in (range(3) if not split else range(3, 4))]


def photos(root: Path) -> dict:
    for n, split in enumerate(("train", "val")):
        for name in names(n):
            picture(root / split / "ab"[int(name[1]) % 2] / f"{name}.png")
    return {"group": PERSON}


def table(root: Path) -> dict:
    """Files whose names say nothing, and a column of people in two tables."""
    for n, split in enumerate(("train", "val")):
        rows = [(f"{split}{k}.png", "ab"[int(name[1]) % 2], name[:2]) for k, name in enumerate(names(n))]
        for file, _, _ in rows:
            picture(root / file)
        (root / f"{split}.csv").write_text("file,label,person\n" + "".join(",".join(r) + "\n" for r in rows))
    return {"group": "person"}


def box_table(root: Path) -> dict:
    """Two tables of boxes, two rows a picture, whose names say nothing."""
    for n, split in enumerate(("train", "val")):
        rows = [(f"{split}{k}.png", "ab"[k % 2], name[:2], *box) for k, name in enumerate(names(n)) for box in BOXES]
        for file, *_ in rows:
            picture(root / file)
        head = "file,label,person,xmin,ymin,xmax,ymax\n"
        (root / f"{split}.csv").write_text(head + "".join(",".join(map(str, r)) + "\n" for r in rows))
    return {"group": "person", "format": "csv"}


def coco(root: Path) -> dict:
    """Two annotation files that both count their pictures from 1."""
    for n, split in enumerate(("train", "val")):
        images, objects = [], []
        for k, name in enumerate(names(n), 1):
            picture(root / split / f"{name}.png", 7 * k, (20, 20 + k))
            images.append({"id": k, "file_name": f"{name}.png", "width": 20 + k, "height": 20})
            box = [0, 0, k % 9 + 2, 5]
            corners = [0, 0, box[2], 0, box[2], 5, 0, 5]
            objects.append({"id": k, "image_id": k, "category_id": 1 + k % 2, "bbox": box, "area": 5 * box[2], "iscrowd": 0,
                            "segmentation": [corners]})  # fmt: skip
        document = {
            "images": images,
            "annotations": objects,
            "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    return {"group": PERSON, "format": "coco"}


def voc(root: Path) -> dict:
    for n, split in enumerate(("train", "val")):
        for name in names(n):
            picture(root / f"JPEGImages/{name}.png")
            said = "<object><name>{}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            size = "<size><width>16</width><height>16</height><depth>3</depth></size>"
            text = f"<annotation>{size}{said.format('xy'[int(name[-1]) % 2])}</annotation>"
            (root / "Annotations").mkdir(exist_ok=True)
            (root / f"Annotations/{name}.xml").write_text(text)
        (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names(n)))
    return {"group": PERSON, "format": "voc"}


def labels(root: Path) -> dict:
    return table(root) | {"format": "table"}


def pairs(root: Path) -> dict:
    for n, split in enumerate(("train", "val")):
        for name in names(n):
            picture(root / f"images/{split}/{name}.png")
            (root / f"masks/{split}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), int(name[1]) % 2, np.uint8)).save(root / f"masks/{split}/{name}.png")
    (root / "classes.txt").write_text("road\nsky\n")
    return {"group": PERSON, "format": "pairs"}


def large(root: Path) -> dict:
    for n, split in enumerate(("train", "val")):
        for name in names(n):
            picture(root / split / f"{name}.png", 9, (40, 40))
    return {"group": PERSON}


KINDS = {
    "photos": ("classification", photos), "a table": ("classification", table), "boxes": ("detection", coco),
    "a table of boxes": ("detection", box_table),
    "VOC's boxes": ("detection", voc), "masks": ("segmentation", pairs), "objects as masks": ("segmentation", coco),
    "pictures": ("super_resolution", large), "labels of objects": ("multilabel", coco),
    "a table of labels": ("multilabel", labels),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


def task_of(kind: str, root: Path, **changed):
    name, write = KINDS[kind]
    given = write(root) if not root.exists() or not any(root.iterdir()) else {}
    return make_task(name, known(name)(data=str(root), **{**given, **changed}), Preprocessing())


def known(name: str):
    from trunkline.ground.names import load_named

    return load_named(known_options()[name])


def people(samples, root: Path) -> list[str]:
    """Who is in each sample: what its file's name says, or the table's row."""
    if (root / "train.csv").is_file():
        tables = [root / f"{s}.csv" for s in ("train", "val")]
        lines = [line.split(",") for one in tables if one.is_file() for line in one.read_text().splitlines()[1:]]
        said = {file: person for file, _, person, *_ in lines}
        return [said[samples.id(i)] for i in range(len(samples))]
    return [Path(samples.id(i)).name[:2] for i in range(len(samples))]


@pytest.mark.parametrize("kind", KINDS)
def test_folds_never_put_a_group_on_both_sides(kind, tmp_path):
    given = KINDS[kind][1](tmp_path)
    seen: list[str] = []
    for fold in range(3):
        task = task_of(kind, tmp_path, **given, folds=3, fold=fold)
        train, val = task.samples("train"), task.samples("val")
        assert not {*people(train, tmp_path)} & {*people(val, tmp_path)}
        assert {*people(train, tmp_path)} | {*people(val, tmp_path)} == {f"p{n}" for n in range(PEOPLE)}
        assert crossing(train, val, given["group"]) == []
        assert len(train) + len(val) == 4 * PEOPLE and len(val) == 8
        train[0], val[len(val) - 1]  # each can be read
        seen += [val.id(i) for i in range(len(val))]
    whole = task.whole()
    assert sorted(seen) == sorted(whole.id(i) for i in range(len(whole))) and len({*seen}) == 4 * PEOPLE
    assert divided(whole, task_of(kind, tmp_path, **given, folds="groups").options).count == PEOPLE
    with pytest.raises(DataError, match="folds=7: there are 6 groups: give folds=6, or fewer"):
        task_of(kind, tmp_path, **given, folds=7).samples("train")
    own = task_of(kind, tmp_path, **given)  # the data's own split has everybody on both sides
    (said,) = crossing(own.samples("train"), own.samples("val"), given["group"])
    assert said.startswith("6 groups of 6 in val are in train too (p0, p1, p2, …): 6 of 6 samples in val")


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_says_which_groups_are_on_both_sides(kind, tmp_path):
    given = KINDS[kind][1](tmp_path)
    form = given.pop("format", "auto")
    settings = {"task": KINDS[kind][0], "format": form, "loaders": 0, "progress": False}
    found = check(tmp_path, **settings, **given)
    said = [one["what"] for one in found.oddities if one["file"] == "val"]
    (line,) = [what for what in said if "in train too" in what]
    assert line.startswith("6 groups of 6 in val are in train too (p0, p1, p2, …): 6 of 6 samples in val")
    assert not any("in train too" in one["what"] for one in check(tmp_path, **settings).oddities)
    wrong = check(tmp_path, **settings, group="(q.)_").problems
    assert any("group='(q.)_': " in one["what"] for one in wrong)


def test_a_table_of_boxes_says_groups_in_one_way(tmp_path):
    given = box_table(tmp_path)
    file = tmp_path / "train.csv"
    whole = file.read_text()
    file.write_text(whole.replace("p0,1,2", "p1,1,2", 1))
    with pytest.raises(DataError, match=r"line 3: train0\.png is of the group 'p0'; it was of 'p1' before"):
        task_of("a table of boxes", tmp_path, **given).samples("train")
    file.write_text(whole.replace(",p0,", ",,"))
    with pytest.raises(DataError, match="3 of 24 pictures have an empty group"):
        task_of("a table of boxes", tmp_path, **given, folds=2).samples("train")
    assert (
        len(task_of("a table of boxes", tmp_path, **given).samples("train")) == 18
    )  # undivided, each is one by itself
    file.write_text(whole.replace("person", "age"))
    with pytest.raises(DataError, match=r"table of val has a column of groups, and that of train has none"):
        task_of("a table of boxes", tmp_path, **given, folds=2).samples("train")
    file.write_text(whole.replace("person", "group"))
    with pytest.raises(DataError, match=r"group='person': .*train\.csv has a column group, too"):
        task_of("a table of boxes", tmp_path, **given).samples("train")


SHARES = {"photos": 0.25, "boxes": ("0.25",), "a table of boxes": ("0.25",),
          "VOC's boxes": ("0.25",), "masks": ("0.25",), "objects as masks": ("0.25",),
          "labels of objects": ("0.25",), "a table of labels": ("0.25",),
          "pictures": "0.25"}  # fmt: skip


@pytest.mark.parametrize("kind", SHARES)
def test_a_share_never_puts_a_group_on_both_sides(kind, tmp_path):
    given = KINDS[kind][1](tmp_path)
    for gone in (
        "val",
        "val.csv",
        "annotations/instances_val.json",
        "ImageSets/Main/val.txt",
        "images/val",
        "masks/val",
    ):
        if (tmp_path / gone).exists():
            (tmp_path / gone).rename(tmp_path / f".gone-{gone.replace('/', '-')}")
    if kind in ("photos", "pictures"):  # what is not split
        for own in (tmp_path / "train").iterdir():
            own.rename(tmp_path / own.name)
        (tmp_path / "train").rmdir()
    task = task_of(kind, tmp_path, **given, val=SHARES[kind])
    train, val = task.samples("train"), task.samples("val")
    assert not {*people(train, tmp_path)} & {*people(val, tmp_path)} and len(train) + len(val) == 3 * PEOPLE
    assert 3 <= len(val) <= 6
    assert [train[0].id, val[0].id] == [train.id(0), val.id(0)]


@pytest.mark.parametrize("folds", [0, 3])
def test_drawn_objects_stay_with_their_pictures(folds, tmp_path):
    """The width of the only object says which picture it is of; the picture's width does, too."""
    given = coco(tmp_path)
    if not folds:
        (tmp_path / "annotations/instances_val.json").unlink()
    task = task_of("objects as masks", tmp_path, **given, folds=folds, **({} if folds else {"val": ("0.3",)}))
    for split in ("train", "val"):
        samples = task.samples(split)
        for i in range(len(samples)):
            one = samples[i]
            k = one.image.shape[2] - 20
            assert int((one.targets["mask"] > 0).sum()) == 5 * (k % 9 + 2)
            assert int(one.image[0, 0, 0]) == 7 * k


def test_joined_annotations_keep_their_objects_and_get_new_numbers(tmp_path):
    whole = task_of("boxes", tmp_path, **coco(tmp_path), folds=2).whole()
    assert sorted(whole.index.image_ids.tolist()) == list(range(1, 25))
    assert any("numbered anew" in line for line in whole.remarks())
    assert any("18 pictures of train and 6 pictures of val are divided" in line for line in whole.remarks())
    for i in range(len(whole)):
        one = whole[i]
        k = one.image.shape[2] - 20
        assert one.targets["boxes"].tolist() == [[0, 0, k % 9 + 2, 5]] and int(one.targets["labels"][0]) == k % 2


def test_a_picture_in_both_counts_once_or_is_refused(tmp_path):
    coco(tmp_path)
    file = tmp_path / "annotations/instances_val.json"
    document = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    file.write_text(json.dumps(document))
    more = {"format": "coco", "group": PERSON, "folds": 2, "val_images": "train"}
    whole = task_of("boxes", tmp_path, **more).whole()
    assert len(whole) == 18 and any("counted once: 18" in line for line in whole.remarks())
    document["annotations"][0]["bbox"][2] += 1
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 picture in train and in val with other objects: p0_0\.png"):
        task_of("boxes", tmp_path, **more).whole()
    (tmp_path / "table").mkdir()
    given = table(tmp_path / "table")
    (tmp_path / "table/val.csv").write_text((tmp_path / "table/train.csv").read_text())
    whole = task_of("a table", tmp_path / "table", **given, folds=2).whole()
    assert len(whole) == 18 and any("stand in train too, counted once in 18 rows" in line for line in whole.remarks())


def test_tables_of_which_one_says_no_groups(tmp_path):
    given = table(tmp_path)
    (tmp_path / "val.csv").write_text((tmp_path / "val.csv").read_text().replace("person", "age"))
    with pytest.raises(DataError, match=r"train\.csv: has a column of groups, and val\.csv has none"):
        task_of("a table", tmp_path, **given, folds=2).samples("train")


def test_a_class_that_only_val_has_is_one_in_folds(tmp_path):
    photos(tmp_path)
    picture(tmp_path / "val/c/p0_9.png")
    with pytest.raises(DataError, match="differ"):
        task_of("photos", tmp_path).samples("train")
    found = divided(
        task_of("photos", tmp_path, folds=3, group=PERSON).whole(), known("classification")(folds=3, group=PERSON)
    )
    assert found.whole.classes == ("a", "b", "c") and len(found.numbers) == 25
    assert any("all samples of c are in one fold" in line for line in found.notes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"folds": 1}, "folds=1: expected 2 or more, groups"),
        ({"folds": 3, "val": 0.2}, "folds=3 and val=0.2: folds validate every sample once"),
        ({"fold": 1}, "fold=1: says which of the folds is validated, and there are none"),
        ({"folds": 3, "fold": 3}, "fold=3: of folds=3 expected 0 to 2"),
    ],
)
def test_options_that_do_not_go_together(given, said):
    own = known("classification")(**given)
    assert any(line.startswith(said) for line in split_problems(own))
    assert split_problems(known("detection")(folds=3, val=("mine.json",))) == []
    check_options("classification", known("classification")(folds="groups"))
