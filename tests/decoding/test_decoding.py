"""Frames by number are those of a full decode, on every real clip and on files of each kind that is written here."""

import csv
import functools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from video_files import X264, frames, mark, marks, pictures, times, upright, write

from trunkline.ground.errors import DataError
from trunkline.tasks.video import count_frames
from trunkline.tasks.video.decoding.video import decoder, open_video

VIDEOS = [
    "R6llTwEh07w.mp4", "RATRACE_wave_f_nm_np1_fr_goo_37.avi", "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
    "v_SoccerJuggling_g23_c01.avi", "nasa_13013.mp4", "av1_video.mkv", "h265_bframes.mp4", "corrupted.mp4", "with-gps.mov",
    "bbb_642x642_768kbps_30fps_vp9.webm", "100_0306.AVI", "count-video.mp4",
]  # fmt: skip
EDITED, LONG = "sample_edit_list_no_sync_frame_before_edit.mp4", "long_1080p_videoonly_lowbitrate.mp4"
HEAVY = [EDITED, LONG]


known = functools.cache(marks)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def rows(shared_data):
    with (shared_data / "videos/frames.csv").open(encoding="utf-8") as file:
        return {r["file"]: r for r in csv.DictReader(file)}


def draws(count: int, seed: int, sets: int = 3) -> list[list[int]]:
    """Sets of frame numbers: spread, near each other, in any order, some twice."""
    draw = np.random.default_rng(seed)
    near = draw.integers(0, count) + np.arange(0, 12, 2)
    spread = np.linspace(0, count - 1, 8).round().astype(int)
    found = [draw.integers(0, count, 8), spread, near[near < count]] * sets
    return [s.tolist() for s in found[:sets]]


def same(path, truth, threads="NONE", sets=3, cache=True):
    with open_video(path, thread_type=threads, cache=cache) as video:
        assert video.count == len(truth)
        for numbers in draws(video.count, len(truth), sets):
            assert [mark(f) for f in video.read(numbers)] == [truth[n] for n in numbers], numbers


@pytest.mark.parametrize("name", [*VIDEOS, EDITED, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_video_has_the_frames_that_are_known(shared_data, rows, name):
    row = rows[name]
    path = shared_data / "videos" / name
    assert count_frames(path) == int(row["decodable_frames"])
    turned = int(row["rotate_cw"] or 0) % 180
    with open_video(path) as video:
        size = (video.width, video.height)
        assert (size[::-1] if turned else size) == (int(row["width"]), int(row["height"]))
        assert video.damaged == (name == "corrupted.mp4")


@pytest.mark.parametrize("name", [*VIDEOS, *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY)])
def test_sampled_frames_of_a_video_are_those_of_a_full_decode(shared_data, name):
    path = shared_data / "videos" / name
    truth = known(path)
    same(path, truth, "NONE", 2)
    same(path, truth, "FRAME", 1)


def test_frames_within_an_edit_list_are_those_of_a_full_decode(shared_data):
    """One set of frames: its pictures are large."""
    path = shared_data / "videos" / EDITED
    numbers = [40, 0, 67, 3]
    truth = {n: mark(upright(frame)) for n, frame in enumerate(frames(path)) if n in numbers}
    with open_video(path) as video:
        assert [mark(f) for f in video.read(numbers)] == [truth[n] for n in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VIDEOS, *HEAVY])
@pytest.mark.parametrize("threads", ["NONE", "SLICE", "FRAME", "AUTO"])
def test_sampled_frames_are_the_same_with_any_threads(shared_data, name, threads):
    path = shared_data / "videos" / name
    same(path, known(path), threads, 2 if name in HEAVY else 9)


def test_sampled_frames_of_all_clips_are_those_of_a_full_decode(shared_data):
    for split in ("train", "val"):
        with (shared_data / f"clips/{split}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                path = shared_data / "clips" / row["path"]
                truth = marks(path)
                assert len(truth) == int(row["frames"])
                same(path, truth, "NONE", 2)
                same(path, truth, "FRAME", 1)


def test_what_is_lost_is_said(shared_data):
    with open_video(shared_data / "videos/corrupted.mp4") as video:
        assert video.count == 49 and video.damaged
        assert "1 of 50 packets does not decode (the first, packet 31: Invalid data" in video.remarks[0]
        assert "49 frames are there" in video.remarks[0]


def test_of_two_picture_streams_ffmpegs_best_one_is_read_and_said(shared_data):
    with open_video(shared_data / "videos/nasa_13013.mp4") as video:
        assert (video.count, video.width) == (390, 480)
        assert video.remarks == [
            "holds 2 picture streams: FFmpeg's best one is read, number 3 (480 x 270), not number 0 (320 x 180)"
        ]


def test_a_first_stream_that_is_not_the_best_is_passed_over(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, size, flag in zip(streams, ((32, 32), (96, 64)), (0, Disposition.default), strict=True):
            stream.width, stream.height = size
            stream.pix_fmt, stream.disposition, stream.codec_context.thread_count = "yuv420p", Disposition(flag), 1
        for i, pair in enumerate(zip(pictures(6, (32, 32)), pictures(6, (96, 64)), strict=True)):
            for stream, picture in zip(streams, pair, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = i
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    with open_video(tmp_path / "two.mkv", cache=False) as video:
        assert (video.width, video.height, video.count) == (96, 64, 6)
        assert video.remarks[0].endswith("FFmpeg's best one is read, number 1 (96 x 64), not number 0 (32 x 32)")


def test_audio_alone_is_an_error_that_says_so(shared_data):
    with pytest.raises(DataError, match=r"sample_audio_only.mp4: holds no moving pictures \(audio\)"):
        count_frames(shared_data / "videos/sample_audio_only.mp4")


@pytest.mark.parametrize("name", ["count-video.mp4", "h265_bframes.mp4", "100_0306.AVI"])
def test_times_are_those_of_the_frames(shared_data, name):
    path = shared_data / "videos" / name
    with open_video(path) as video:
        assert video.times.dtype == np.float64
        np.testing.assert_allclose(video.times, times(path), atol=1e-9)


MADE = {  # name: how it is written
    "h264.mp4": X264,
    "h264.mkv": X264,
    "h264.avi": X264,
    "h264-one-key.mp4": {},
    "h264-open.mp4": {"x264_params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal"},
    "h264-intra-refresh.mkv": {"x264_params": "intra-refresh=1:keyint=12:bframes=0"},
    "h264-interlaced.mp4": {"x264_params": "interlaced=1:keyint=12"},
    "h264-odd.mp4": {"size": (97, 65), "pixels": "yuv444p"},
    "h264-10bit.mp4": {"pixels": "yuv420p10le", **X264},
    "h264-slices.mp4": {"x264_params": "slices=4:keyint=12"},
    "h264-vfr.mp4": {"stamps": np.cumsum(np.arange(60) % 3 + 1).tolist(), **X264},
    "h264.ts": X264,
    "hevc.mp4": {"codec": "libx265", "x265_params": "keyint=12:log-level=none:pools=1:frame-threads=1"},
    "hevc-closed.mkv": {"codec": "libx265", "x265_params": "keyint=12:open-gop=0:log-level=none:pools=1:frame-threads=1"},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12},
    "mpeg4.mp4": {"codec": "mpeg4", "gop": 12},
    "mpeg4-b.avi": {"codec": "mpeg4", "gop": 12, "bf": 2},
    "mpeg4-b.mp4": {"codec": "mpeg4", "gop": 12, "bf": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj422p"},
    "vp8.webm": {"codec": "libvpx", "n": 40, "gop": 12, "auto_alt_ref": 1, "lag_in_frames": 8, "cpu_used": 8},
    "vp9.webm": {"codec": "libvpx-vp9", "n": 40, "gop": 12, "cpu_used": 8, "deadline": "good", "lag_in_frames": 12},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop": 12},
    "alpha.mov": {"codec": "qtrle", "pixels": "argb"},
    "alpha-png.mov": {"codec": "png", "pixels": "rgba"},
    "alpha-yuva.mkv": {"codec": "ffv1", "pixels": "yuva420p", "gop": 12},
    "grey.mkv": {"codec": "ffv1", "pixels": "gray", "gop": 12},
    "grey-16.mkv": {"codec": "ffv1", "pixels": "gray16le"},
    "huffyuv.avi": {"codec": "huffyuv", "pixels": "yuv422p"},
    "ffvhuff.avi": {"codec": "ffvhuff", "pixels": "yuv420p"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "raw.avi": {"codec": "rawvideo", "pixels": "bgr24", "n": 20},
    "one.mp4": {"n": 1},
    "animated.gif": {"codec": "gif", "pixels": "rgb8", "n": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_sampled_frames_of_a_made_file_are_those_of_a_full_decode(tmp_path, name):
    path = write(tmp_path / name, **MADE[name])
    truth = marks(path)
    assert len(truth) == MADE[name].get("n", 60)
    for threads in ("NONE", "FRAME", "SLICE"):
        same(path, truth, threads, 4)
    with open_video(path) as video:
        assert [mark(f) for f in video.stream()] == truth
        assert not video.damaged
        if name == "h264.avi":  # which stores when a frame is decoded, not when it is shown
            assert video.remarks == [DISORDER] and video.times.tolist() == (np.arange(60) / 25).tolist()
            return
        np.testing.assert_allclose(video.times, times(path), atol=1e-9)
        assert video.remarks == []


DISORDER = "time stamps are missing or go backwards: the times of its frames are their numbers divided by the rate"
SEEN = (
    "h264.mp4",
    "h264.mkv",
    "h264-open.mp4",
    "hevc.mp4",
    "mpeg4.avi",
    "mjpeg.avi",
    "vp9.webm",
    "vp8.webm",
    "alpha-png.mov",
)
COUNTED = {
    "h264-interlaced.mp4": "its pictures may be fields",
    "mpeg4-b.mp4": "a packet does not hold exactly one picture",
    "mpeg2.mpg": "packets of mpeg2video are not read here",
    "h264.ts": "packets of the container mpegts are not read here",
}


@pytest.mark.parametrize("name", SEEN)
def test_packets_tell_how_many_frames_there_are(tmp_path, name):
    with open_video(write(tmp_path / name, **MADE[name])) as video:
        assert video.counted == "" and len(video._decoder.index.places) > 1


@pytest.mark.parametrize("name", COUNTED)
def test_what_packets_do_not_tell_is_counted_by_decoding(tmp_path, name):
    with open_video(write(tmp_path / name, **MADE[name])) as video:
        assert video.counted == COUNTED[name]


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_frames_are_turned_upright(tmp_path, angle):
    path = write(tmp_path / "turned.mp4", angle=angle, n=12)
    same(path, marks(path))
    with open_video(path) as video:
        assert (video.width, video.height) == ((64, 96) if angle % 180 else (96, 64))


def test_what_is_no_quarter_turn_is_said(tmp_path):
    with open_video(write(tmp_path / "askew.mp4", angle=-30, n=12)) as video:
        assert (video.width, video.height) == (96, 64)
        assert video.remarks == ["is to be turned by 30 degrees, which is no quarter turn: it is read as stored"]


def test_shape_order_and_range_of_what_is_read(tmp_path):
    path = write(tmp_path / "clip.mp4", **X264)
    with open_video(path) as video:
        assert video.rate == Fraction(25) and video.count == 60 == video.stated
        got = video.read([59, 0, 59])
        assert got.shape == (3, 64, 96, 3) and got.dtype == np.uint8
        assert (got[0] == got[2]).all() and (got[0] != got[1]).any()
        assert video.read([]).shape == (0, 64, 96, 3)
        assert len(list(video.stream(50))) == 10 and list(video.stream(60)) == []
        for wrong in (60, -1):
            with pytest.raises(DataError, match=rf"clip.mp4: frame {wrong} is asked for; expected 0 to 59"):
                video.read([0, wrong])


def test_the_decoder_is_named():
    assert decoder().startswith("PyAV ") and "libavcodec" in decoder()
