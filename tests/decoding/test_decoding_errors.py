"""Broken, cut, empty and misleading files: a clear message, or the frames that a full decode gives."""

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import X264, mark, marks, pictures, untold, write

from trunkline.ground.errors import DataError
from trunkline.tasks.video import count_frames
from trunkline.tasks.video.decoding.video import open_video


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))


def says(path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        count_frames(path)
    assert all(word in str(error.value) for word in (Path(path).name, *words)), str(error.value)


def test_what_is_no_video_is_said(tmp_path):
    empty, text, missing = (tmp_path / name for name in ("empty.mp4", "text.mp4", "missing.mp4"))
    empty.touch()
    text.write_text("frames and frames and frames\n" * 50)
    says(empty, "the file is empty")
    says(text, "is no video that FFmpeg can open")
    says(missing, "No such file")
    says(tmp_path, "holds no frames")


def test_pictures_and_lists_of_files_under_a_videos_name_are_none(tmp_path):
    write(tmp_path / "clip.mp4")
    listed = tmp_path / "list.mp4"
    listed.write_text("ffconcat version 1.0\nfile 'clip.mp4'\n")
    picture = tmp_path / "picture.mp4"
    Image.fromarray(pictures(1, (64, 48))[0]).save(picture, "JPEG")
    for path in (listed, picture):
        says(path, "holds no container of moving pictures that is read here", "under a video's name")


def test_a_file_without_its_header_is_said(tmp_path):
    path = write(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the header stands at the end
    says(path, "is no video that FFmpeg can open", "broken off", "record or copy it again")


def with_sound(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=44100, layout="mono")
        image = None
        if cover:
            image = out.add_stream("mjpeg", rate=25)
            image.width, image.height, image.pix_fmt = 64, 64, "yuvj420p"
            image.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        if image is not None:
            out.mux(image.encode(av.VideoFrame.from_ndarray(pictures(1, (64, 64))[0], format="rgb24")))
            out.mux(image.encode())
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path


def test_sound_alone_and_with_a_cover_is_said(tmp_path):
    says(with_sound(tmp_path / "song.m4a", False), "holds no moving pictures (audio)")
    says(with_sound(tmp_path / "covered.mp4", True), "holds no moving pictures (audio, video and a cover)")


@pytest.mark.parametrize(
    "name, more",
    [
        ("cut.avi", {"codec": "mpeg4", "gop": 12}),
        ("cut.mkv", X264),
        ("cut.webm", {"codec": "libvpx-vp9", "n": 20, "cpu_used": 8}),
    ],
)
def test_of_a_file_that_is_cut_off_the_rest_is_read(tmp_path, name, more):
    path = write(tmp_path / name, **more)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    truth = marks(path)
    assert 0 < len(truth) < more.get("n", 60)
    with open_video(path) as video:
        assert video.count == len(truth) and [mark(f) for f in video.stream()] == truth
        assert [mark(f) for f in video.read([len(truth) - 1, 0])] == [truth[-1], truth[0]]


def test_a_file_that_says_more_frames_than_it_holds(tmp_path):
    path = write(tmp_path / "short.avi", codec="mjpeg", pixels="yuvj420p", n=10)
    data = bytearray(path.read_bytes())
    for chunk, behind in ((b"avih", 24), (b"strh", 40)):
        at = data.find(chunk) + behind
        assert int.from_bytes(data[at : at + 4], "little") == 10
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    with open_video(path) as video:
        assert (video.count, video.stated) == (10, 1000)
        assert video.remarks == ["its container says 1000 frames, and packets of 10 are there: it is cut off"]
        assert [mark(f) for f in video.stream()] == marks(path)


def test_a_header_in_front_of_frames_that_are_cut_off(tmp_path):
    path, front = write(tmp_path / "whole.mp4", **X264), tmp_path / "front.mp4"
    with av.open(str(path)) as given, av.open(str(front), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    front.write_bytes(front.read_bytes()[: front.stat().st_size * 2 // 3])
    truth = marks(front)
    with open_video(front) as video:
        assert video.count == len(truth) < 60 == video.stated
        assert [mark(f) for f in video.stream()] == truth
        assert any("it is cut off" in line for line in video.remarks)


def test_what_is_not_utf8_in_its_header_is_read(tmp_path):
    path = untold(tmp_path / "title.mkv")
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert count_frames(path) == 5


@pytest.mark.parametrize("name", [b"a:b.mp4", b"\xff\xfe.mp4", "Bär.mp4".encode(), b"100%d.mp4", b"-i.mp4"])
def test_any_name_is_read(tmp_path, name):
    path = write(tmp_path / "plain.mp4", n=5).rename(tmp_path / os.fsdecode(name))
    assert count_frames(path) == 5
    assert count_frames(str(path)) == 5


def two_sizes(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for part, size in enumerate(((96, 64), (64, 48))):
            context = av.CodecContext.create("mjpeg", "w")
            context.width, context.height, context.pix_fmt = *size, "yuvj420p"
            context.time_base = Fraction(1, 25)
            for i, picture in enumerate(pictures(5, size)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = i
                for packet in context.encode(frame):
                    packet.stream, packet.pts, packet.dts = stream, 5 * part + i, 5 * part + i
                    out.mux(packet)
    return path


def test_frames_of_two_sizes_are_refused(tmp_path):
    with open_video(two_sizes(tmp_path / "sizes.avi")) as video:
        assert video.count == 10 and video.read([4]).shape == (1, 64, 96, 3)
        with pytest.raises(
            DataError, match=r"sizes.avi: a frame is 64 x 48 pixels as stored, the first has another size"
        ):
            video.read([4, 5])


KINDS = {
    "h.mp4": X264,
    "x.mkv": {"codec": "libx265", "x265_params": "keyint=12:log-level=none:pools=1:frame-threads=1"},
    "m.avi": {"codec": "mpeg4", "gop": 12},
    "j.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "v.webm": {"codec": "libvpx-vp9", "n": 30, "gop": 12, "cpu_used": 8, "deadline": "realtime"},
}


def damaged(path: Path, whole: bytes, places: list[tuple[int, int]], seed: int) -> None:
    """Change a few bytes of a picture that is not the first."""
    draw = np.random.default_rng(seed)
    at, size = places[draw.integers(1, len(places))]
    data = bytearray(whole)
    for where in draw.integers(at, at + size, draw.integers(1, 5)):
        data[where] ^= int(draw.integers(1, 256))
    path.write_bytes(data)


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_gives_the_frames_of_a_full_decode(tmp_path, name):
    path = write(tmp_path / name, **KINDS[name])
    with av.open(str(path)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size and (p.pos or 0) > 0]
    whole = path.read_bytes()
    for seed in range(8):
        damaged(path, whole, places, seed)
        truth = marks(path)
        with open_video(path) as video:
            assert [mark(f) for f in video.stream()] == truth, seed
            assert video.count == len(truth)
            numbers = [len(truth) - 1, 3, len(truth) // 2]
            assert [mark(f) for f in video.read(numbers)] == [truth[n] for n in numbers], seed
        with open_video(path) as video:  # from what is known of it now
            assert [mark(f) for f in video.read(numbers)] == [truth[n] for n in numbers], seed


def test_a_file_of_which_nothing_decodes_is_said(tmp_path):
    path = write(tmp_path / "noise.mp4", n=5)
    with av.open(str(path)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in places:
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    says(path, "none of its 5 packets decodes (packet 1: Invalid data", "damaged or cut off")


def test_nothing_is_printed_by_ffmpeg(tmp_path, shared_data, capfd):
    with open_video(shared_data / "videos/corrupted.mp4") as video:
        assert len(list(video.stream())) == 49
    assert capfd.readouterr() == ("", "")


def grown(shared_data: Path, tmp_path: Path, times: int) -> float:
    script = Path(__file__).with_name("opens.py")
    place = os.environ | {"TRUNKLINE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), str(shared_data / "clips"), str(times)],
        env=place,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.cold
def test_opening_clips_again_and_again_needs_no_more_memory(shared_data, tmp_path):
    assert grown(shared_data, tmp_path, 400) < 16


@pytest.mark.slow
@pytest.mark.cold
def test_two_thousand_opens_need_no_more_memory(shared_data, tmp_path):
    assert grown(shared_data, tmp_path, 2000) < 16


@pytest.mark.slow
def test_a_long_file_is_streamed_in_bounded_memory(shared_data):
    from opens import resident

    with open_video(shared_data / "videos/long_1080p_videoonly_lowbitrate.mp4") as video:
        frames = video.stream(5000)
        list(itertools.islice(frames, 20))
        before = resident()
        assert sum(1 for _ in itertools.islice(frames, 200)) == 200
        assert resident() - before < 64 * 2**20  # 200 frames are 1.2 GB
