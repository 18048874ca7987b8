"""Folders of frames, read as videos are."""

import numpy as np
import pytest
from PIL import Image
from video_files import pictures

from trunkline.ground.errors import DataError
from trunkline.tasks.video import count_frames
from trunkline.tasks.video.decoding.video import open_video


def fill(folder, names, size=(48, 32)):
    folder.mkdir(exist_ok=True)
    for name, picture in zip(names, pictures(len(names), size), strict=True):
        Image.fromarray(picture).save(folder / name)
    return folder


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"img_{i}.png" for i in range(1, 13)]  # 10 stands before 2 in the order of letters
    folder = fill(tmp_path / "frames", names)
    (folder / "readme.txt").touch()
    truth = pictures(12, (48, 32))
    with open_video(folder) as video:
        assert (video.count, video.height, video.width) == (12, 32, 48)
        assert (video.read([11, 1, 1]) == np.stack([truth[11], truth[1], truth[1]])).all()
        assert all((a == b).all() for a, b in zip(video.stream(3), truth[3:], strict=True))
        assert video.remarks == ["a folder of frames says no rate: 25 frames/s are taken"]
        np.testing.assert_allclose(video.times, np.arange(12) / 25)
        with pytest.raises(DataError, match=r"frame 12 is asked for; expected 0 to 11"):
            video.read([12])
    assert count_frames(folder) == 12


def test_numbers_that_are_evenly_apart_are_read_and_said(tmp_path):
    with open_video(fill(tmp_path / "frames", ["5.jpg", "10.jpg", "15.jpg"])) as video:
        assert video.count == 3 and "the numbers of frames are 5 apart" in video.remarks[1]


@pytest.mark.parametrize(
    "names, says",
    [
        (["f1.png", "f2.png", "f3.png", "f6.png"], "between f3.png and f6.png frames are missing"),
        (["f1.png", "f2.png", "f02.png"], "have one number"),
        (["f1.png", "f2.png", "cover.png"], "cover.png has no number"),
        (["flow_x_1.png", "flow_y_1.png"], "names begin in 2 ways ('flow_x_', 'flow_y_')"),
    ],
)
def test_what_has_two_meanings_is_refused(tmp_path, names, says):
    with pytest.raises(DataError) as error:
        count_frames(fill(tmp_path / "frames", names))
    assert says in str(error.value) and str(tmp_path / "frames") in str(error.value)


def test_frames_of_two_sizes_are_refused(tmp_path):
    folder = fill(tmp_path / "frames", ["1.png", "2.png"])
    Image.new("RGB", (10, 10)).save(folder / "3.png")
    with (
        open_video(folder) as video,
        pytest.raises(DataError, match=r"3.png: is 10 x 10 pixels, the first frame 48 x 32"),
    ):
        video.read([2])


def test_a_damaged_frame_is_named(tmp_path):
    folder = fill(tmp_path / "frames", ["1.png", "2.png"])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:50])
    with open_video(folder) as video, pytest.raises(DataError, match=r"2.png: the PNG is cut off"):
        video.read([1])
