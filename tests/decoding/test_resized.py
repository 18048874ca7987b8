"""Videos whose shorter side is resized once: the same pixels as resizing each frame, whatever the cache holds."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms._presets import VideoClassification
from torchvision.transforms.v2 import functional as F
from video_files import X264, decoded, write

from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.contract import Sample
from trunkline.tasks.video.decoding import resized, room
from trunkline.tasks.video.decoding.resized import open_resized, place, size_at
from trunkline.tasks.video.decoding.video import open_video
from trunkline.tasks.video.options import Options
from trunkline.tasks.video.scenes import write_clips
from trunkline.tasks.video.task import Action
from trunkline.tasks.video.transforms import EvalTransform, cropped


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def by_hand(path, side: int) -> np.ndarray:
    """Decode all, then resize: `(n, h, w, 3)`."""
    frames = [np.ascontiguousarray(picture) for _, picture in decoded(path)]
    return np.stack(
        [F.resize(torch.from_numpy(f).permute(2, 0, 1), [side], antialias=True).permute(1, 2, 0) for f in frames]
    )


@pytest.fixture
def wide(tmp_path) -> Path:
    return write(tmp_path / "wide.mp4", n=20, size=(150, 84), **X264)


@pytest.mark.parametrize(("size", "angle"), [((150, 84), 0), ((150, 84), 90), ((64, 96), 0), ((96, 96), 0)])
def test_kept_frames_are_those_of_decoding_and_resizing(tmp_path, size, angle):
    path = write(tmp_path / "clip.mp4", n=20, size=size, angle=angle, **X264)
    expected, at = by_hand(path, 48), [13, 0, 19, 7, 13]
    assert expected.shape[1:3] == size_at(*(size if angle else size[::-1]), 48)
    for opening in ("made", "kept"):
        with open_resized(path, 48) as video, open_video(path) as plain:
            assert (video.read(at) == expected[at]).all(), opening
            assert (np.stack([*video.stream()]) == expected).all()
            assert (video.count, video.rate, video.remarks) == (plain.count, plain.rate, plain.remarks)
            assert (video.times == plain.times).all() and (video.height, video.width) == expected.shape[1:3]


def test_the_file_is_not_decoded_again(wide, monkeypatch):
    open_resized(wide, 48).close()
    monkeypatch.setattr(resized, "opened", lambda *_, **__: pytest.fail("the video itself was opened"))
    with open_resized(wide, 48) as video:
        assert video.read([5]).shape == (1, 48, 85, 3)


def test_another_side_another_file_and_a_changed_file_have_their_own(wide):
    first = place(wide, 48)
    assert first != place(wide, 50)
    os.utime(wide, (1, 1))
    assert place(wide, 48) not in (None, first)
    assert place(wide.with_name("none.mp4"), 48) is None


def test_a_video_that_is_not_larger_stays_as_it_is(wide, cache):
    for side in (None, 84, 300):
        with open_resized(wide, side) as video, open_video(wide) as plain:
            assert (video.read([3, 19]) == plain.read([3, 19])).all()
    assert not [f for f in cache.rglob("*") if f.is_file() and f.suffix != ".index"]


@pytest.mark.parametrize("spoil", ["frame", "end", "cut", "empty", "foreign"])
def test_damage_in_the_cache_changes_no_pixel(wide, spoil):
    open_resized(wide, 48).close()
    file, expected = place(wide, 48), by_hand(wide, 48)
    good = file.read_bytes()
    data = bytearray(good)
    if spoil in ("frame", "end"):
        data[100 if spoil == "frame" else -30] ^= 1
    if spoil == "foreign":
        other = write(wide.with_name("other.mp4"), n=9, size=(150, 84), **X264)
        open_resized(other, 48).close()
        data = place(other, 48).read_bytes()
    file.write_bytes({"cut": data[:-200], "empty": b""}.get(spoil, bytes(data)))
    for _ in range(2):
        with open_resized(wide, 48) as video:
            assert (np.stack([*video.stream()]) == expected).all()
    with open_resized(wide, 48) as video:
        assert (video.read([0, 7]) == expected[[0, 7]]).all()
    assert file.read_bytes() == good, "it was made again"


def test_several_at_once_and_a_folder_that_cannot_be_written(wide, tmp_path, monkeypatch):
    def read(_):
        with open_resized(wide, 48) as video:
            return video.read([4, 11])

    expected = by_hand(wide, 48)[[4, 11]]
    with ThreadPoolExecutor(4) as pool:
        assert all((found == expected).all() for found in pool.map(read, range(8)))
    assert [f.name for f in place(wide, 48).parent.iterdir() if f.name.startswith(".")] == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    assert (read(0) == expected).all()


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(wide):
    kept = place(wide, 48)
    kept.parent.mkdir(parents=True, exist_ok=True)
    left, new = (kept.parent / f".{kept.name}-{name}" for name in ("left", "new"))
    for path in (left, new):
        path.touch()
    os.utime(left, (0, 0))
    open_resized(wide, 48).close()
    assert kept.is_file() and new.is_file() and not left.exists()


def test_without_antialiasing_pixels_are_those_of_torchvisions_video_presets():
    preset = VideoClassification(crop_size=(112, 112), resize_size=(128, 171), mean=(0, 0, 0), std=(1, 1, 1))
    frames = torch.randint(256, (2, 3, 240, 320), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (preset(frames) * 255).round().to(torch.uint8).transpose(0, 1)
    found = cropped(frames, Preprocessing(size=112, resize=128, resize_width=171), Options(antialias=False))
    assert torch.equal(found[0], expected)


def test_folders_of_frames_and_predictions_are_resized_as_they_are_read(tmp_path, cache, wide):
    clips = write_clips(tmp_path / "clips", train=2, val=2, size=40)
    folder = clips / "val/falls/00000"
    with open_resized(folder, 24) as video, open_video(folder) as plain:
        frames = torch.from_numpy(plain.read([1, 5])).permute(0, 3, 1, 2)
        assert (video.read([1, 5]) == F.resize(frames, [24], antialias=True).permute(0, 2, 3, 1).numpy()).all()
    with open_resized(wide, 48, keep=False) as video:
        assert (video.read([3]) == by_hand(wide, 48)[[3]]).all()
    assert not [f for f in cache.rglob("*") if f.is_file() and f.suffix != ".index"]


def test_evaluation_at_the_weights_own_size_sees_the_same_pixels(wide):
    sample = Sample("wide", wide, torch.empty(0, dtype=torch.uint8), {})
    p = Preprocessing(size=40, resize=48)
    plain, kept = (EvalTransform(p, Options(frames=4, cached_side=side))(sample).image for side in (None, 48))
    assert torch.equal(plain, kept)
    assert not torch.equal(plain, EvalTransform(p, Options(frames=4, cached_side=60))(sample).image)


@pytest.fixture
def files(tmp_path) -> Path:
    for split, number in (("train", 4), ("val", 2)):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(number):
                write(tmp_path / "data" / split / name / f"{i}.mp4", n=6, size=(96, 64), rate=25 + i, **X264)
    return tmp_path / "data"


def test_a_run_says_what_it_needs_and_scores_what_it_saw(files, tmp_path, capsys, monkeypatch):
    settings = ["weights=none", "backbone=narrow", "size=32", "frames=2", "batch=4", "updates=2", "cached_side=40",
                "machine.threads=1", "machine.loaders=0"]  # fmt: skip
    run = str(tmp_path / "run")
    assert main(["train", "action", f"data={files}", *settings, "--run", run]) == 0
    said = "".join(capsys.readouterr())
    assert "train: cached_side=40: resized frames of 8 clips are kept as each is first read, up to about" in said
    assert len([*(tmp_path / "cache/video").rglob("*.40-*")]) == 12
    assert main(["evaluate", run, "threads=1", "loaders=0", "--json"]) == 0
    told = capsys.readouterr()
    assert "frames are resized to a shorter side of 40 pixels first" in told.err
    assert json.loads(told.out)["video_top1"] == json.loads((tmp_path / "run/scores.json").read_text())["video_top1"]
    assert (
        main(["train", "action", f"data={files}", *settings[:-3], "cached_side=36", *settings[-2:], "--run", run]) == 2
    )
    assert "cached_side" in capsys.readouterr().err
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: room.shutil._ntuple_diskusage(9, 9, 0))
    task = Action(Options(data=str(files), cached_side=38), Preprocessing(), {"classes": ["a", "b"], "decoder": ""})
    with pytest.raises(
        RecipeError, match=r"cached_side=38: resized frames take up to about .* where 0\.00 GiB are free: make"
    ):
        task.before_training()
