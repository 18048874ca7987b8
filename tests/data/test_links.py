"""Links below a folder that was named are followed, alike in all readers; nothing that a file holds leads outside."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.classification.folders import read_splits
from trunkline.tasks.data.text import text_of
from trunkline.tasks.detection.options import Options as Boxes
from trunkline.tasks.detection.splits import read_split as read_boxes
from trunkline.tasks.images.decode import read_image
from trunkline.tasks.images.photos import photos
from trunkline.tasks.objects.voc_file import read_annotation
from trunkline.tasks.segmentation.options import Options as Masks
from trunkline.tasks.segmentation.splits import read_split as read_masks

XML = (
    "<annotation><filename>{name}</filename><size><width>12</width><height>8</height></size>"
    "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></object>"
    "</annotation>"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(file: Path, fill: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if fill < 0 else "RGB", (12, 8), 0 if fill < 0 else (fill, 90, 90)).save(file)


def text(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def folders(root: Path) -> None:
    for n, (split, cls) in enumerate((s, c) for s in ("train", "val") for c in ("ant", "bee")):
        picture(root / split / cls / "1.jpg", n)
        picture(root / split / cls / "more/2.png", 9 + n)


def pairs(root: Path, images: str = "images/{}/", masks: str = "masks/{}/", ends=(".jpg", ".png"), splits="train val"):
    text(root / "classes.txt", "road\nwall\n")
    for split in splits.split():
        for n in range(2):
            picture(root / images.format(split) / f"bonn/{n}{ends[0]}", n)
            picture(root / masks.format(split) / f"bonn/{n}{ends[1]}", -1)


def camvid(root: Path) -> None:
    pairs(root, "{}/", "{}annot/", (".png", ".png"))


def cityscapes(root: Path) -> None:
    pairs(root, "leftImg8bit/{}/", "gtFine/{}/", ("_leftImg8bit.png", "_gtFine_labelIds.png"))


def ade20k(root: Path) -> None:
    pairs(root, "images/{}/", "annotations/{}/", splits="training validation")


def voc(root: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd")):
        for kind in ("Main", "Segmentation"):
            text(root / f"ImageSets/{kind}/{split}.txt", "\n".join(names))
        for n, name in enumerate(names):
            picture(root / f"JPEGImages/{name}.jpg", n)
            picture(root / f"SegmentationClass/{name}.png", -1)
            text(root / f"Annotations/{name}.xml", XML.format(name=f"{name}.jpg"))


def sbd(root: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        text(root / f"{split}.txt", name)
        picture(root / f"img/{name}.jpg")
        text(root / f"cls/{name}.mat", "read when it is decoded")


def coco(root: Path, name: str = "deep/{}.jpg") -> None:
    for split in ("train", "val"):
        images = [{"id": n, "file_name": name.format(n), "width": 12, "height": 8} for n in (1, 2)]
        box = {"category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        mask = {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
        objects = [{"id": n, "image_id": n, **box, **mask} for n in (1, 2)]
        document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        text(root / f"annotations/instances_{split}.json", json.dumps(document))
        for n in (1, 2):
            picture(root / f"{split}/deep/{n}.jpg", n)


def shards(root: Path) -> None:
    folders(root.with_name("apart"))
    for split in ("train", "val"):
        root.mkdir(exist_ok=True)
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            archive.add(root.with_name("apart") / split, ".")


def of_folders(root: Path, split: str):
    return read_splits(root)[split]


def at_an_address(root: Path, split: str):
    return read_splits(f"file://{root}")[split]


def of_boxes(form) -> Callable:
    return lambda root, split: read_boxes(Boxes(data=str(root), format=form), split)


def of_masks(form) -> Callable:
    return lambda root, split: read_masks(Masks(data=str(root), format=form), split)


FORMS: dict[str, tuple[Callable[[Path], None], Callable]] = {
    "folders": (folders, of_folders),
    "address": (folders, at_an_address),
    "shards": (shards, of_folders),
    "pairs": (pairs, of_masks("pairs")),
    "camvid": (camvid, of_masks("camvid")),
    "cityscapes": (cityscapes, of_masks("cityscapes")),
    "ade20k": (ade20k, of_masks("ade20k")),
    "voc": (voc, of_boxes("voc")),
    "voc-masks": (voc, of_masks("voc")),
    "sbd": (sbd, of_masks("sbd")),
    "coco": (coco, of_boxes("coco")),
    "coco-masks": (coco, of_masks("coco")),
}


def linked(store: Path, root: Path, folders_too: bool) -> Path:
    """The same tree, of links: to every file, or to every folder that holds no other one, and the files elsewhere."""
    for here, inside, files in os.walk(store):
        place = root / os.path.relpath(here, store)
        if folders_too and not inside and here != str(store):
            place.symlink_to(here)
            continue
        place.mkdir(parents=True)
        for name in files:
            (place / name).symlink_to(Path(here, name))
    return root


@pytest.mark.parametrize("folders_too", [False, True], ids=["files", "folders"])
@pytest.mark.parametrize("form", FORMS)
def test_links_are_the_same_data_as_copies(tmp_path, form, folders_too):
    write, read = FORMS[form]
    write(tmp_path / "store")
    for split in ("train", "val"):
        store = read(tmp_path / "store", split)
        root = linked(tmp_path / "store", tmp_path / f"named-{split}", folders_too)
        (tmp_path / split).mkdir()
        (tmp_path / split / "store").symlink_to(root)  # the root is a link, too
        found = read(tmp_path / split / "store", split)
        assert len(found) and [found.id(i) for i in range(len(found))] == [store.id(i) for i in range(len(store))]
        assert found.manifest() == store.manifest() and found.fingerprint() == store.fingerprint()
        assert str(root) not in str(found.manifest())


WALKED = {
    "folders": "train/ant",
    "address": "train/ant",
    "pairs": "images/train/bonn",
    "camvid": "trainannot/bonn",
    "cityscapes": "gtFine/train",
    "ade20k": "annotations/training",
}


@pytest.mark.parametrize("form", WALKED)
@pytest.mark.parametrize("up", [".", "..", "../.."])
def test_a_loop_is_told_by_name(tmp_path, form, up):
    write, read = FORMS[form]
    root = tmp_path / "data"
    write(root)
    folder = root / WALKED[form]
    (folder / "round").symlink_to((folder / up).resolve())
    with pytest.raises(DataError, match=r"round:? is a link to a folder that it lies in"):
        read(root, "train")


def test_loops_outside_and_from_one_to_another_end(tmp_path):
    folders(tmp_path / "data")
    for one, other in (("a", "b"), ("b", "a")):
        picture(tmp_path / one / "x.jpg")
        (tmp_path / one / other).symlink_to(tmp_path / other)
    (tmp_path / "data/train/ant/a").symlink_to(tmp_path / "a")
    (tmp_path / "data/val/bee/itself").symlink_to(tmp_path / "data/val/bee/itself")
    with pytest.raises(DataError) as caught:
        read_splits(tmp_path / "data")
    assert "train/ant/a/b/a: is a link to a folder that it lies in" in str(caught.value)
    assert "val/bee/itself: is a link to nothing" in str(caught.value) and "2 problems" in str(caught.value)


BROKEN = {
    "folders": "train/ant/1.jpg",
    "address": "train/ant/1.jpg",
    "pairs": "images/train/bonn/0.jpg",
    "voc": "JPEGImages/a.jpg",
    "voc-masks": "JPEGImages/a.jpg",
    "coco": "train/deep/1.jpg",
    "coco-masks": "train/deep/1.jpg",
}


@pytest.mark.parametrize("form", BROKEN)
def test_a_link_to_nothing_is_told_by_name(tmp_path, form):
    write, read = FORMS[form]
    root = tmp_path / "data"
    write(root)
    (root / BROKEN[form]).unlink()
    (root / BROKEN[form]).symlink_to(tmp_path / "nothing.jpg")
    with pytest.raises(DataError) as caught:
        found = read(root, "train")
        for i in range(len(found)):
            _ = found[i]
    name = Path(BROKEN[form]).name
    said = {"voc-masks": f"there is no {BROKEN[form]}"}
    assert said.get(form, f"{name}: is a link to nothing") in str(caught.value)
    looked = check(root, format=form.replace("-masks", "").replace("address", "folders"), loaders=0, progress=False)
    assert any("is a link to nothing" in problem["what"] for problem in looked.problems)


def test_a_class_and_a_split_that_are_links_to_nothing(tmp_path):
    folders(tmp_path / "data")
    (tmp_path / "data/train/wasp").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="train/wasp: is a link to nothing"):
        read_splits(tmp_path / "data", on_bad_sample="skip")
    (tmp_path / "data/train/wasp").unlink()
    with pytest.raises(DataError, match="wasp: is a link to nothing"):
        (tmp_path / "data/train/wasp").symlink_to(tmp_path / "gone")
        read_splits(tmp_path / "data/train", val=0.5)
    with pytest.raises(DataError, match="wasp: is a link to nothing"):
        read_splits(f"file://{tmp_path}/data/train", val=0.5)
    shutil.rmtree(tmp_path / "data/val")
    (tmp_path / "data/val").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="data: val: is a link to nothing"):
        read_splits(tmp_path / "data")


def test_inputs_of_predict(tmp_path):
    folders(tmp_path / "store")
    root = linked(tmp_path / "store", tmp_path / "data", folders_too=True)
    found = [p.relative_to(root).as_posix() for p in photos(str(root))]
    assert found == [p.relative_to(tmp_path / "store").as_posix() for p in photos(str(tmp_path / "store"))]
    assert len(found) == 8
    picture(tmp_path / "x/a/1.jpg")
    (tmp_path / "x/a/round").symlink_to(tmp_path / "x")
    (tmp_path / "x/gone.jpg").symlink_to(tmp_path / "nothing")
    for given in (tmp_path / "x", tmp_path / "x/**/*"):
        assert [str(p.relative_to(tmp_path)) for p in photos(str(given))] == ["x/a/1.jpg", "x/a/round", "x/gone.jpg"]


def test_predict_names_the_links_that_it_cannot_follow(short_run, data, tmp_path):
    from trunkline.pipelines.prediction.predict import predict

    (data / "val/circle/round").symlink_to(data / "val")
    (data / "val/circle/gone.jpg").symlink_to(tmp_path / "nothing")
    errors = {Path(p.file).name: p.error for p in predict(short_run, data / "val") if p.error}
    assert list(errors) == ["gone.jpg", "round"]
    assert errors["gone.jpg"].endswith("gone.jpg: is a link to nothing")
    assert errors["round"].endswith("round: is a link to a folder that it lies in")


def test_training_on_links_gives_the_same_weights(short_run, scenes, tmp_path, one_core):
    from short_run import SHORT

    from trunkline.pipelines.command.cli import main

    root = linked(scenes, tmp_path / "data", folders_too=False)
    assert main(["train", "transfer", f"data={root}", "--run", str(tmp_path / "run"), *SHORT]) == 0
    assert (tmp_path / "run/weights.safetensors").read_bytes() == (short_run / "weights.safetensors").read_bytes()
    assert (tmp_path / "run/data/train.tsv").read_bytes() == (short_run / "data/train.tsv").read_bytes()


# what a file holds stays inside


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_shard_are_not_followed(tmp_path, kind):
    picture(tmp_path / "secret.jpg")
    shards(tmp_path / "data")
    with tarfile.open(tmp_path / "data/train-1.tar", "w") as archive:
        for name in ("ant/ok.jpg", "bee/ok.jpg"):
            archive.add(tmp_path / "secret.jpg", name)
        info = tarfile.TarInfo("ant/out.jpg")
        info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
        archive.addfile(info)
    with pytest.raises(DataError, match=r"train-1.tar/ant/out.jpg: is no file but a link, and none is followed"):
        read_splits(tmp_path / "data")
    train = read_splits(tmp_path / "data", on_bad_sample="skip")["train"]
    assert list(train.excluded) == ["train-1.tar/ant/out.jpg"]
    assert [train.id(i) for i in range(len(train)) if "tar/" in train.id(i)][-1] == "train-1.tar/bee/ok.jpg"


def test_a_path_in_a_parquet_file_is_not_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    picture(tmp_path / "secret.jpg")
    rows = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}] * 2
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        table = pa.table({"image": rows, "label": ["a", "b"]})
        pyarrow.parquet.write_table(table, tmp_path / f"data/{split}-0.parquet")
    with pytest.raises(DataError, match="holds no picture's bytes"):
        _ = read_splits(tmp_path / "data")["train"][0]


@pytest.mark.parametrize("name", ["../../secret.jpg", "{outside}/secret.jpg", "..\\..\\secret.jpg"])
def test_names_in_annotations_and_lists_lead_nowhere_else(tmp_path, name):
    picture(tmp_path / "secret.jpg")
    name = name.format(outside=tmp_path)
    coco(tmp_path / "coco")
    text(tmp_path / "coco/annotations/instances_train.json", json.dumps({
        "images": [{"id": 1, "file_name": name, "width": 12, "height": 8}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}],
    }))  # fmt: skip
    with pytest.raises(DataError, match="leaves the folder of images"):
        read_boxes(Boxes(data=str(tmp_path / "coco")), "train")
    voc(tmp_path / "voc")
    text(tmp_path / "voc/Annotations/a.xml", XML.format(name=name))
    (tmp_path / "voc/JPEGImages/a.jpg").unlink()
    found = read_boxes(Boxes(data=str(tmp_path / "voc"), format="voc"), "train")
    assert all(Path(found.source(i)).parent == tmp_path / "voc/JPEGImages" for i in range(len(found)))
    for form, split in (("voc", "ImageSets/Segmentation/train.txt"), ("sbd", "train.txt")):
        FORMS[form][0](tmp_path / form / "again")
        text(tmp_path / form / "again" / split, name)
        with pytest.raises(DataError, match="there is no"):
            read_masks(Masks(data=str(tmp_path / form / "again"), format=form), "train")


def test_a_picture_is_read_where_a_link_to_it_has_another_name(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    (tmp_path / "blob").write_bytes(out.getvalue())
    for split in ("train", "val"):
        for cls in "ab":
            (tmp_path / "data" / split / cls).mkdir(parents=True)
            (tmp_path / "data" / split / cls / "x.png").symlink_to(tmp_path / "blob")
    sample = read_splits(tmp_path / "data")["train"][0]
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_by_name_and_one_of_the_shell_is_read(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    for reader in (read_image, text_of, read_annotation):
        with pytest.raises(
            DataError, match=r"x.png: cannot be read \(it is a named pipe, a socket or a device, and no file\)"
        ):
            reader(tmp_path / "x.png")
    with pytest.raises(OSError, match="named pipe"), storage.opened(str(tmp_path / "x.png")):
        pass
    out, into = os.pipe()
    os.write(into, b"one")
    os.close(into)
    assert storage.read(f"/dev/fd/{out}") == b"one"
    os.close(out)
