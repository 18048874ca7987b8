"""`check` of clips: known by what lies there, and everything that is wrong or odd with them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_files import write

import trunkline
from trunkline.tasks.check import task_of


def look(folder: Path, **more):
    return trunkline.check(folder, loaders=0, progress=False, **more)


def photo(file: Path, value: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(file)
    return file


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two videos of 12 frames, and one that is cut off in its middle."""
    folder = tmp_path_factory.mktemp("two")
    for n in range(2):
        write(folder / f"{n}.mp4", n=12, size=(48 + 16 * n, 32))
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:200])
    return folder


def placed(folder: Path, two: Path, *names: str) -> Path:
    """Copy the two videos in turn to these places below a folder."""
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(two / f"{n % 2}.mp4", folder / name)
    return folder


def said(found) -> list[str]:
    return [one["what"] for one in found.oddities if one["file"] == "."]


def test_class_folders_of_videos_are_clips(two, tmp_path):
    placed(tmp_path, two, "train/run/a.mp4", "train/walk/b.mp4", "val/run/inner/c.mp4", "val/walk/d.mp4")
    found = look(tmp_path)
    assert found.counted == "clips" and found.counts["val"] == {"run": 1, "walk": 1} and found.ok and said(found) == []
    assert found.sizes["frames"] == (12, 12, 12) and found.leaks  # a and c are the same
    assert task_of(tmp_path, format="folders") == ("action", "folders")


@pytest.mark.parametrize(("rows", "task"), [("clip,action\n0.mp4,run\n1.mp4,walk\n", "action"),
                                            ("file,label\nx/one,run\n1.mp4,walk\n", "action"),
                                            ("file,label\nx/one/0.png,run\nx/one/1.png,walk\n", "classification")])  # fmt: skip
def test_a_table_is_looked_at_by_what_it_names(rows, task, two, tmp_path):
    placed(tmp_path, two, "0.mp4", "1.mp4")
    for i in range(8):
        photo(tmp_path / f"x/one/{i}.png", 9 * i)
    (tmp_path / "all.csv").write_text(rows)
    assert task_of(tmp_path)[0] == task_of(tmp_path, format="csv")[0] == task
    found = look(tmp_path)
    assert found.counted == ("clips" if task == "action" else "files") and found.files == 2 and not found.problems


def test_folders_of_frames_are_clips_where_nothing_else_is_there(two, tmp_path):
    for cls in ("run", "walk"):
        for clip in ("x", "y"):
            for i in range(1, 9):
                photo(tmp_path / cls / clip / f"img_{i:05d}.png", 9 * i)
    found = look(tmp_path)
    assert found.counts == {"all": {"run": 2, "walk": 2}} and found.counted == "clips"
    assert said(found) == [
        "4 folders of numbered pictures: each is taken for a clip; task=classification takes each picture for a photo"
    ]
    assert look(tmp_path, task="classification").counts["all"] == {"run": 16, "walk": 16}
    assert said(look(tmp_path, task="action")) == []  # who says what it is is not told so
    photo(tmp_path / "run/photo.png")
    found = look(tmp_path)
    assert found.counted == "files" and said(found) == [
        "4 folders of numbered pictures: each picture is taken for a photo; task=action takes each such folder for a clip"
    ]


def test_photos_in_subfolders_stay_photos(tmp_path):
    for cls in ("cat", "dog"):
        for i in range(4):
            photo(tmp_path / cls / "2024" / f"IMG_{2034 + 3 * i}.png", 9 * i)
            photo(tmp_path / cls / "2025" / f"{i}.png", 99 + i)
    found = look(tmp_path)
    assert found.counted == "files" and found.files == 16 and found.ok and len(said(found)) == 1
    shutil.rmtree(tmp_path / "cat/2025")
    shutil.rmtree(tmp_path / "dog/2025")
    assert said(look(tmp_path)) == []


def test_photos_and_clips_are_both_told(two, tmp_path):
    placed(tmp_path, two, "run/a.mp4", "walk/b.mp4")
    photo(tmp_path / "run/a.jpg")
    found = look(tmp_path)
    assert found.counted == "clips"
    assert said(found) == ["holds 1 photo, too, and this is a look at clips: task=classification looks at them"]
    for i in range(3):
        photo(tmp_path / f"walk/{i}.jpg", i)
    found = look(tmp_path)
    assert found.counted == "files"
    assert said(found) == ["holds 2 clips, too, and this is a look at photos: task=action looks at them"]


def test_published_lists_are_of_clips(two, tmp_path):
    names = ["Punch/v_Punch_g01_c01", "Punch/v_Punch_g02_c01", "Surf/v_Surf_g01_c01", "Surf/v_Surf_g01_c02"]
    placed(tmp_path / "ucf", two, *(f"{name}.avi" for name in names))
    lists = tmp_path / "ucf/ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text(f"{names[0]}.avi 1\n{names[2]}.avi 2\n")
    (lists / "testlist01.txt").write_text(f"{names[1]}.avi\n{names[3]}.avi\n")
    found = look(tmp_path / "ucf")
    assert found.counts["train"] == {"Punch": 1, "Surf": 1} and found.counted == "clips"
    assert any(one["what"].startswith("1 group of 2 in val is in train too (v_Surf_g01)") for one in found.oddities)
    placed(tmp_path / "ssv2", two, "videos/1.webm", "videos/2.webm")
    for split, number in (("train", 1), ("validation", 2)):
        entry = [{"id": str(number), "template": "Holding [something]"}]
        (tmp_path / f"ssv2/something-something-v2-{split}.json").write_text(json.dumps(entry))
    assert task_of(tmp_path / "ssv2") == ("action", "auto")


def test_what_is_wrong_with_clips_is_told_by_name(two, tmp_path):
    placed(tmp_path, two, "train/run/a.mp4", "train/walk/b.mp4", "val/run/c.mp4", "val/walk/d.mp4")
    shutil.copy(two / "cut.mp4", tmp_path / "train/run/cut.mp4")
    (tmp_path / "train/run/empty.mp4").write_bytes(b"")
    (tmp_path / "train/run/notes.txt").write_text("x")
    write(tmp_path / "train/walk/short.avi", "mpeg4", n=3)
    long = write(tmp_path / "train/walk/long.avi", "mpeg4", n=20)
    data = bytearray(long.read_bytes())
    at = data.index(b"avih") + 8 + 16  # the header's number of frames, and that of the stream
    length = data.index(b"strh") + 8 + 32
    data[at : at + 4] = data[length : length + 4] = (25).to_bytes(4, "little")
    long.write_bytes(data)
    found = look(tmp_path)
    wrong = {one["file"]: one["what"] for one in found.problems}
    assert {*wrong} == {"train/run/cut.mp4", "train/run/empty.mp4", "train/run/notes.txt"}
    assert "empty" in wrong["train/run/empty.mp4"] and {one["skip"] for one in found.problems} == {"on_bad_sample=skip"}
    odd = {one["file"]: one["what"] for one in found.oddities}
    assert odd["train/walk/long.avi"] == "its container says 25 frames, and 20 are shown"
    assert odd["train/walk/short.avi"] == "is very short: 3 frames"
    assert sorted(map(sorted, found.leaks)) == [
        ["train/run/a.mp4", "val/run/c.mp4"],
        ["train/walk/b.mp4", "val/walk/d.mp4"],
    ]


def test_groups_of_clips_on_both_sides(two, tmp_path):
    placed(tmp_path, two, "train/run/ann_1.mp4", "train/walk/bob_1.mp4", "val/run/ann_2.mp4", "val/walk/cid_1.mp4")
    odd = [one["what"] for one in look(tmp_path, group=r"/(\w+)_\d").oddities if one["file"] == "val"]
    assert [line.split(":")[0] for line in odd] == ["1 group of 2 in val is in train too (ann)"]
