"""Where clips lie and what says their classes: folders, tables, published lists."""

import json
import shutil

import pytest
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.video.inputs import videos
from trunkline.tasks.video.options import Options
from trunkline.tasks.video.reading import read_clip_splits, read_whole_clips


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A file that no test here decodes."""
    file = tmp_path_factory.mktemp("video") / "a.avi"
    file.write_bytes(b"RIFF")
    return file


def put(video, root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)


def frames(folder, count=3):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")


def ids(samples):
    return [(samples.id(i), samples.classes[samples.labels[i]]) for i in range(len(samples))]


def read(root, **more):
    return read_clip_splits(Options(data=str(root), **more))


def test_class_folders_hold_files_and_folders_of_frames(video, tmp_path):
    put(video, tmp_path, "train/a/x.avi", "train/b/y.MP4", "val/a/z.mkv")
    frames(tmp_path / "train/b/clip7")
    found = read(tmp_path)
    assert ids(found["train"]) == [("train/a/x.avi", "a"), ("train/b/y.MP4", "b"), ("train/b/clip7", "b")]
    assert ids(found["val"]) == [("val/a/z.mkv", "a")]
    before = found["train"].fingerprint()["digest"]
    Image.new("RGB", (9, 9)).save(tmp_path / "train/b/clip7/1.png")
    assert read(tmp_path)["train"].fingerprint()["digest"] != before  # another frame is another clip


def test_pictures_that_are_no_folder_of_frames_are_told(video, tmp_path):
    put(video, tmp_path, "train/a/x.avi", "val/a/y.avi")
    Image.new("RGB", (8, 8)).save(tmp_path / "train/a/still.jpg")
    (tmp_path / "val/a/notes.txt").write_text("x")
    with pytest.raises(DataError) as told:
        read(tmp_path)
    assert "still.jpg: is a picture: the frames of a clip lie in a folder of their own" in str(told.value)
    assert "notes.txt: is no clip by its name" in str(told.value)


def test_a_table_names_files_and_folders(video, tmp_path):
    put(video, tmp_path, "c/x.avi", "c/y.avi")
    frames(tmp_path / "c/f")
    (tmp_path / "clips.csv").write_text(
        "file,label,person\nc/x.avi,run,ann\nc/y.avi,walk,bob\nc/f,run,bob\nc/gone.avi,run,cy\n"
    )
    with pytest.raises(DataError, match=r"there is no clip c/gone\.avi"):
        read_whole_clips(Options(data=str(tmp_path), format="csv", group="person"))
    whole = read_whole_clips(Options(data=str(tmp_path), format="csv", group="person", on_bad_sample="skip"))
    assert ids(whole) == [("c/f", "run"), ("c/x.avi", "run"), ("c/y.avi", "walk")]
    assert whole.grouped == ["bob", "ann", "bob"]


def test_ucf_reads_its_lists_and_groups(video, tmp_path):
    names = [f"Archery/v_Archery_g0{g}_c0{c}.avi" for g in (1, 2) for c in (1, 2)]
    put(video, tmp_path / "UCF-101", *names, "Biking/v_Biking_g01_c01.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("\n".join(f"{n} 1" for n in names[:2]) + "\nBiking/v_Biking_g01_c01.avi 2\n")
    (lists / "testlist01.txt").write_text("\n".join(names[2:]) + "\n")
    found = read(tmp_path)
    assert [len(found[s]) for s in ("train", "val")] == [3, 2]
    assert any("3 clips found of 3 listed" in line for line in found["train"].remarks())
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g09_c01.avi\n")
    with pytest.raises(DataError, match="there is no clip Archery/v_Archery_g09_c01"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"trainlist02\.txt"):
        read(tmp_path, format="ucf101", split=2)


def test_hmdb_reads_the_marks_of_its_lists(video, tmp_path):
    put(video, tmp_path, *(f"{c}/n{i}_{c}_f_cm_np1_fr_goo_{i}.avi" for c in ("run", "sit") for i in range(3)))
    (tmp_path / "splits").mkdir()
    for c in ("run", "sit"):
        lines = [f"n{i}_{c}_f_cm_np1_fr_goo_{i}.avi {mark} " for i, mark in enumerate((1, 2, 0))]
        (tmp_path / f"splits/{c}_test_split1.txt").write_text("\n".join(lines) + "\n")
    found = read(tmp_path)
    assert ids(found["train"]) == [(f"{c}/n0_{c}_f_cm_np1_fr_goo_0.avi", c) for c in ("run", "sit")]
    assert ids(found["val"]) == [(f"{c}/n1_{c}_f_cm_np1_fr_goo_1.avi", c) for c in ("run", "sit")]


def test_kinetics_counts_what_is_there(video, tmp_path):
    put(video, tmp_path, "train/a b/k1_000001_000011.mp4", "val/k2.mp4")
    rows = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(rows + "a b,k1,1,11,train\na b,k9,1,11,train\n")
    (tmp_path / "validate.csv").write_text(rows + "a b,k2,5,15,validate\n")
    found = read(tmp_path, format="kinetics")
    assert ids(found["train"]) == [("train/a b/k1_000001_000011.mp4", "a b")] and ids(found["val"]) == [
        ("val/k2.mp4", "a b")
    ]
    (line,) = [r for r in found["train"].remarks() if "found of" in r]
    assert line.startswith("1 clips found of 2 listed (kinetics's train; the list's digest is ")
    (tmp_path / "train.csv").write_text(rows + "a b,k1,1,11,train\na b,k8,1,11,train\n")
    assert line not in read(tmp_path, format="kinetics")["train"].remarks()  # another list has another digest


def test_something_something_has_templates_as_classes(video, tmp_path):
    put(video, tmp_path, "20bn/7.webm", "20bn/8.webm")
    for name, key in (("train", "7"), ("validation", "8")):
        entry = {"id": key, "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]}
        (tmp_path / f"something-something-v2-{name}.json").write_text(json.dumps([entry]))
    found = read(tmp_path)
    assert ids(found["train"]) == [("20bn/7.webm", "Pushing something")] and ids(found["val"]) == [
        ("20bn/8.webm", "Pushing something")
    ]


def test_inputs_of_predict(video, tmp_path):
    put(video, tmp_path, "in/x.avi", "in/sub/y.mp4", "in/note.txt")
    frames(tmp_path / "in/f")
    names = lambda given: [p.relative_to(tmp_path).as_posix() for p in videos(str(given))]  # noqa: E731
    assert sorted(names(tmp_path / "in")) == ["in/f", "in/sub/y.mp4", "in/x.avi"]
    assert names(tmp_path / "in/f") == ["in/f"] and names(tmp_path / "in/*.avi") == ["in/x.avi"]
    assert names(tmp_path / "in/sub/y.mp4") == ["in/sub/y.mp4"]
