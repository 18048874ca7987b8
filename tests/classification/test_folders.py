"""Class folders: what is read, how it is split, and what is said of folders that are wrong."""

import faulthandler
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.classification.folders import read_folders, read_splits
from trunkline.tasks.data import fingerprint
from trunkline.tasks.data.fingerprint import compare
from trunkline.tasks.data.scan import scan
from trunkline.tasks.data.split import split_rows

DATA = os.environ.get("TRUNKLINE_TEST_DATA", "")


def make(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            file.mkdir(exist_ok=True)
        elif file.suffix.lower() in (".jpg", ".jpeg", ".png"):
            Image.new("RGB", (8 + number % 5, 9), (number % 256, 0, 0)).save(file)
        else:
            file.write_bytes(b"text")
    return root


def good(root: Path) -> Path:
    return make(root, *(f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("ants", "bees") for i in range(3)))


def message(root, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_splits(root, **options)
    return str(caught.value)


def ids(samples) -> list[str]:
    return [samples.id(i) for i in range(len(samples))]


# what is read


def test_train_and_val_folders(tmp_path):
    train = read_folders(good(tmp_path), "train")
    assert train.classes == ("ants", "bees") and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert ids(train) == [f"train/{c}/{i}.jpg" for c in ("ants", "bees") for i in range(3)]
    sample = train[4]
    assert sample.id == "train/bees/1.jpg" and sample.source == str(tmp_path / "train/bees/1.jpg")
    assert sample.targets == {"label": 1} and sample.image.shape[0] == 3 and train.groups(True) is None
    val = read_folders(tmp_path, "val")
    assert ids(val)[0] == "val/ants/0.jpg" and val.excluded == {}


def test_hidden_files_and_nested_folders_and_upper_case(tmp_path):
    good(tmp_path)
    make(tmp_path, "train/ants/.DS_Store", "train/ants/Thumbs.db", "train/bees/desktop.ini", "train/.hidden/x.txt")
    make(tmp_path, "__MACOSX/train/x.jpg", "train/.ipynb_checkpoints/x.jpg", "train/bees/__MACOSX/._1.jpg", "README.md")
    make(tmp_path, "train/bees/deep/er/Z.JPG", "train/bees/deep/a.PNG", "test/unknown/x.jpg")
    train = read_folders(tmp_path, "train")
    assert train.classes == ("ants", "bees")
    assert ids(train)[6:] == ["train/bees/deep/a.PNG", "train/bees/deep/er/Z.JPG"]


def test_classes_of_a_checkpoint_map_by_name(tmp_path):
    good(tmp_path)
    train = read_folders(tmp_path, "train", classes=("bees", "ants"))
    assert train.classes == ("bees", "ants") and train.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert train[0].targets == {"label": 1} and train.manifest()[0].split("\t")[:2] == ["train/ants/0.jpg", "ants"]


def test_names_without_valid_utf8(tmp_path):
    good(tmp_path)
    (tmp_path / os.fsdecode(b"train/ants/\xff.jpg")).write_bytes((tmp_path / "train/ants/0.jpg").read_bytes())
    train = read_folders(tmp_path, "train")
    at = ids(train).index(r"train/ants/\xff.jpg")
    assert train[at].image.shape[0] == 3
    json.dumps(train.fingerprint())
    "".join(train.manifest()).encode()


def test_class_names_in_either_unicode_form_are_one(tmp_path):
    make(tmp_path, "train/caf\u00e9/1.jpg", "train/b/1.jpg", "val/cafe\u0301/1.jpg", "val/b/1.jpg")
    splits = read_splits(tmp_path)
    assert splits["train"].classes == splits["val"].classes == ("b", "caf\u00e9")


def test_links_are_followed_and_two_to_one_file_are_two_samples(tmp_path):
    root, outside = good(tmp_path / "data"), make(tmp_path / "elsewhere", "x/1.jpg")
    (root / "train/ants/again.jpg").symlink_to(root / "train/ants/0.jpg")
    link = tmp_path / "link"
    link.symlink_to(root)
    assert len(read_folders(link, "train")) == 7
    (root / "train/bees/out.jpg").symlink_to(outside / "x/1.jpg")
    (root / "train/bees/more").symlink_to(outside / "x")
    found = ids(read_folders(root, "train"))
    assert {"train/ants/again.jpg", "train/bees/out.jpg", "train/bees/more/1.jpg"} <= {*found} and len(found) == 9
    (root / "val/ants/loop").symlink_to(root / "val/ants")
    (root / "val/ants/gone.jpg").symlink_to(root / "nothing.jpg")
    text = message(root)
    assert "val/ants/loop: is a link to a folder that it lies in" in text
    assert "val/ants/gone.jpg: is a link to nothing" in text and "on_bad_sample=skip" in text
    text = message(root, on_bad_sample="skip")
    assert "loop" in text and "gone" not in text and "on_bad_sample=skip" not in text


# what is wrong


def test_missing_folder_and_file_and_no_folders(tmp_path):
    good(tmp_path / "photos")
    assert "there is no such folder" in message(tmp_path / "foto") and "photos" in message(tmp_path / "foto")
    make(tmp_path, "one.jpg")
    assert "is a file" in message(tmp_path / "one.jpg")
    text = message(make(tmp_path / "flat", "1.jpg", "2.jpg"))
    assert "holds no folders" in text and "val=0.2" in text and "train/CLASS" in text


@pytest.mark.parametrize(
    ("name", "right"), [("valid", "val"), ("validation", "val"), ("test", "val"), ("Train", "train")]
)
def test_other_split_names_are_told_the_right_one(tmp_path, name, right):
    make(tmp_path, f"{name}/a/1.jpg", f"{name}/b/1.jpg")
    assert f"Rename {name}/ to {right}/" in message(tmp_path)
    if right == "val":
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
        text = message(tmp_path)
        assert "there is no val/ beside train/" in text and f"Rename {name}/ to val/" in text


def test_all_problems_are_told_together(tmp_path):
    good(tmp_path)
    make(tmp_path, "train/wasps/", "train/ants/notes.txt", "train/ants/anim.gif", "train/loose.jpg", "val/flies/1.jpg")
    make(tmp_path, "val/bees/noext")
    text = message(tmp_path)
    assert "train/wasps: the class holds no files" in text
    assert "train/ants/notes.txt: is no photo by its name (suffix '.txt')" in text
    assert "train/ants/anim.gif" in text and "val/bees/noext: is no photo by its name (suffix 'missing')" in text
    assert "train/loose.jpg: lies directly in train/, in no class folder" in text
    assert "train/: ants, bees, wasps (3)" in text and "val/: ants, bees, flies (3)" in text
    assert "only in val/: flies" in text and "only in train/: wasps" in text
    assert "on_bad_sample=skip" in text and "trunkline check" in text


def test_skip_lists_what_is_no_photo_and_keeps_structural_errors(tmp_path):
    good(tmp_path)
    make(tmp_path, "train/ants/anim.gif", "train/loose.jpg")
    splits = read_splits(tmp_path, on_bad_sample="skip")
    assert set(splits["train"].excluded) == {"train/ants/anim.gif", "train/loose.jpg"}
    assert len(splits["train"]) == 6 and splits["val"].excluded == {}
    make(tmp_path, "train/wasps/", "val/wasps/only.gif")
    text = message(tmp_path, on_bad_sample="skip")
    assert "train/wasps: the class holds no files" in text and "1 problem" in text
    make(tmp_path, "train/wasps/only.gif")
    assert "train/wasps: the class holds no file with a photo suffix" in message(tmp_path, on_bad_sample="skip")


def test_classes_that_differ_from_a_checkpoint_show_both(tmp_path):
    text = message(good(tmp_path), classes=("bees", "wasps"))
    assert "the checkpoint: bees, wasps (2)" in text and "val/: ants, bees (2)" in text
    assert "only in train/: ants (1)" in text and "only in the checkpoint: wasps (1)" in text


def test_val_share_and_val_folder_exclude_each_other(tmp_path):
    good(tmp_path)
    assert "val=0.2: the data folder has its own val/" in message(tmp_path, val=0.2)
    assert "val=0.2" in message(tmp_path / "train")
    assert "between 0 and 1" in message(tmp_path / "train", val=1.5)
    with pytest.raises(DataError, match="expected one of train, val"):
        read_folders(tmp_path, "test")


def test_val_alone_can_be_evaluated(tmp_path):
    make(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    assert len(read_folders(tmp_path, "val")) == 2
    with pytest.raises(DataError, match="has no train/"):
        read_folders(tmp_path, "train")


def test_folder_that_may_not_be_read_is_named(tmp_path):
    good(tmp_path)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "train/ants").chmod(0)
    assert "train/ants: cannot be read" in message(tmp_path)
    (tmp_path / "train/ants").chmod(0o755)


@pytest.mark.skipif(not DATA, reason="TRUNKLINE_TEST_DATA is unset: the photos with a stray GIF are not at hand")
def test_the_stray_gif_of_real_photos():
    root = Path(DATA, "hymenoptera")
    assert "train/ants/imageNotFound.gif" in message(root)
    splits = read_splits(root, on_bad_sample="skip")
    assert {name: len(split) for name, split in splits.items()} == {"train": 244, "val": 153}
    assert list(splits["train"].excluded) == ["train/ants/imageNotFound.gif"]


# the split


def names_of(count: int, cls: str) -> list[str]:
    return [f"{cls}/{i:05d}.jpg" for i in range(count)]


def test_split_is_stratified_the_same_every_time_and_complete(tmp_path):
    make(tmp_path, *names_of(40, "a"), *names_of(11, "b"), *names_of(2, "c"))
    splits = read_splits(tmp_path, val=0.2)
    train, val = splits["train"], splits["val"]
    assert np.bincount(val.labels).tolist() == [8, 2, 1] and np.bincount(train.labels).tolist() == [32, 9, 1]
    assert sorted(ids(train) + ids(val)) == sorted(names_of(40, "a") + names_of(11, "b") + names_of(2, "c"))
    moved = tmp_path.rename(tmp_path.parent / "moved")
    assert ids(read_splits(moved, val=0.2)["val"]) == ids(val)
    assert [i for i in ids(val) if i.startswith("c")] == ["c/00001.jpg"]  # the same on every machine


def test_one_file_cannot_be_split(tmp_path):
    make(tmp_path, *names_of(4, "a"), "lonely/1.jpg")
    assert "class 'lonely' has 1 file" in message(tmp_path, val=0.2)


def test_new_files_move_few_others():
    old = names_of(1000, "a")
    new = old + [f"a/new_{i}.jpg" for i in range(20)]
    before = split_rows(old, np.zeros(1000, int), ["a"], 0.2)
    after = split_rows(new, np.zeros(1020, int), ["a"], 0.2)
    assert after.sum() == 204 and (before != after[:1000]).sum() <= 10
    assert (before != split_rows(old, np.zeros(1000, int), ["a"], 0.2, seed=1)).sum() > 100


def test_groups_stay_on_one_side_and_files_of_their_own_split_as_without():
    paths = [f"{c}/patient{p:02d}_{k}.jpg" for c in "ab" for p in range(25) for k in range(1 + p % 4)]
    labels = np.array([int(path[0] == "b") for path in paths])
    held = split_rows(paths, labels, ["a", "b"], 0.2, group=r"(patient\d+)_")
    side = {}
    for path, val in zip(paths, held, strict=True):
        assert side.setdefault(path[2:11], val) == val
    for cls in (0, 1):
        assert abs(held[labels == cls].mean() - 0.2) < 0.06
    singles = split_rows(paths, labels, ["a", "b"], 0.2, group=".+")  # the greedy way, every file its own group
    assert np.array_equal(singles, split_rows(paths, labels, ["a", "b"], 0.2))


def test_large_groups_still_leave_every_class_on_both_sides():
    paths = [f"a/g{g}_{k}" for g in range(2) for k in range(50)] + [
        f"b/g{g}_{k}" for g in range(2, 5) for k in range(9)
    ]
    labels = np.array([0] * 100 + [1] * 27)
    held = split_rows(paths, labels, ["a", "b"], 0.2, group=r"g\d")
    assert held[:100].sum() == 50 and 0 < held[100:].sum() < 27
    said = r"^group='\^\[ab\]' makes 2 groups of all files:\nclass 'a' would have none for validation"
    with pytest.raises(DataError, match=said):
        split_rows(paths, labels, ["a", "b"], 0.2, group=r"^[ab]")


def test_group_patterns_that_are_wrong(tmp_path):
    make(tmp_path, *names_of(4, "a"), *names_of(4, "b"))
    assert "no valid regular expression" in message(tmp_path, val=0.2, group="(")
    text = message(tmp_path, val=0.2, group=r"a/(\d+)")
    assert "does not match 4 of 8 files, such as b/00000.jpg" in text
    assert "does not match 8 of 8" in message(tmp_path, val=0.2, group=r"(z)?\d")


# knowing the data again


def test_fingerprint_follows_content_not_place(tmp_path):
    first = read_folders(good(tmp_path / "one"), "train")
    second = read_folders(good(tmp_path / "two"), "train")
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint()["samples"] == 6 and first.fingerprint()["classes"] == ["ants", "bees"]
    file = tmp_path / "two/train/ants/1.jpg"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1  # same size
    file.write_bytes(data)
    assert second.fingerprint()["digest"] != first.fingerprint()["digest"]
    assert compare(first.manifest(), second.manifest()) == "1 changed (train/ants/1.jpg)"


def test_compare_names_what_differs(tmp_path):
    old = read_folders(good(tmp_path), "train").manifest()
    assert compare(old, old) == ""
    (tmp_path / "train/ants/0.jpg").rename(tmp_path / "train/bees/9.jpg")
    make(tmp_path, *(f"train/bees/new{i}.jpg" for i in range(7)))
    text = compare(old, read_folders(tmp_path, "train").manifest())
    assert "8 added (train/bees/9.jpg, train/bees/new0.jpg" in text and "and 3 more)" in text
    assert "1 removed (train/ants/0.jpg)" in text
    moved = [line.replace("\tants\t", "\tbees\t") for line in old[:1]] + old[1:]
    assert compare(old, moved) == "1 in another class (train/ants/0.jpg)"
    gone = read_folders(tmp_path, "train")
    (tmp_path / "train/bees/9.jpg").unlink()
    assert any("\tmissing\t" in line for line in gone.manifest())


def test_large_sets_checksum_some_and_compare_without_them(tmp_path, monkeypatch):
    make(tmp_path, *names_of(60, "a"), *names_of(60, "b"))
    splits = read_splits(tmp_path, val=0.2)
    full = splits["train"].manifest()
    monkeypatch.setattr(fingerprint, "CHECKSUMS", 30)
    sparse = splits["train"].manifest()
    opened = sum(not line.endswith("\t-") for line in sparse)
    assert 0 < opened < 60 and not any(line.endswith("\t-") for line in full)
    assert compare(full, sparse) == "" and all(re.search(r"\t\d+\t", line) for line in sparse)


# on_bad_sample=skip


def damage(root: Path) -> None:
    file = root / "train/ants/1.jpg"
    file.write_bytes(file.read_bytes()[:-40])
    (root / "train/bees/0.jpg").write_bytes(b"")


@pytest.mark.parametrize("workers", [0, 2])
def test_scan_finds_what_cannot_be_decoded(tmp_path, workers):
    damage(good(tmp_path))
    train = read_folders(tmp_path, "train")
    reasons = scan(train, workers, progress=False)
    assert list(reasons) == ["train/ants/1.jpg", "train/bees/0.jpg"]
    assert "damaged or cut off" in reasons["train/ants/1.jpg"] and reasons["train/bees/0.jpg"] == "the file is empty"
    rest = train.without(reasons)
    assert len(rest) == 4 and rest.excluded == reasons and rest.classes == train.classes
    assert rest.labels.tolist() == [0, 0, 1, 1] and "train/ants/1.jpg" not in ids(rest)
    assert train.without({}) is train
    with pytest.raises(DataError, match=r"no file of train can be used for: ants"):
        train.without(dict.fromkeys(ids(train)[:3], "broken"))


class Deadly:
    """Samples of which one kills the process that decodes it."""

    def __init__(self, signal: int) -> None:
        self.signal = signal

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> None:
        if index == 17:
            faulthandler.disable()  # pytest's, which would print a trace
            os.kill(os.getpid(), self.signal)
        if index == 23:
            raise DataError("broken")

    def id(self, index: int) -> str:
        return f"file{index}"


def test_a_file_that_crashes_the_decoder_is_named():
    reasons = scan(Deadly(11), 2, progress=False)
    assert reasons == {"file17": "the decoder crashed on it (SIGSEGV)", "file23": "broken"}


def test_a_process_that_is_killed_is_no_fault_of_the_file():
    with pytest.raises(DataError, match=r"SIGKILL.*memory"):
        scan(Deadly(9), 2, progress=False)
