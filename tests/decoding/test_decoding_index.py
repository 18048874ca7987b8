"""The index of a video: what packets tell, what is made of one that lies, and what is kept of it."""

import subprocess
import sys

import numpy as np
import pytest
from video_files import X264, mark, marks, write

from trunkline.ground.errors import DataError
from trunkline.tasks.video.decoding import counting, frames, stored
from trunkline.tasks.video.decoding.file import VideoFile
from trunkline.tasks.video.decoding.packets import H264, UNKNOWN, Av1, Held, Jpeg, Mpeg4, Vp8, Vp9
from trunkline.tasks.video.decoding.units import Bits, Broken, split
from trunkline.tasks.video.decoding.video import open_video


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_exp_golomb_is_read_as_the_standard_tabulates_it():
    table = {"1": 0, "010": 1, "011": 2, "00100": 3, "00111": 6, "0001000": 7, "0001010": 9}  # H.264, table 9-2
    for code, number in table.items():
        assert Bits(int(code.ljust(8, "0"), 2).to_bytes(1)).golomb() == number
    with pytest.raises(Broken):
        Bits(b"\0").golomb()


def test_units_are_split_by_lengths_and_by_start_codes():
    assert list(split(b"\0\0\0\2ab\0\0\0\1c", 4)) == [b"ab", b"c"] == list(split(b"\0\0\0\1ab\0\0\1c", 0))
    for wrong in (b"\0\0\0\3ab", b"\0\0\0\0", b"\xff\xff\xff\xff" + 60 * b"\0"):
        with pytest.raises(Broken):
            list(split(wrong, 4))


@pytest.mark.parametrize(
    "settings, frames_only, reordered",
    [
        ("bframes=0", True, 0),
        ("bframes=3:b-pyramid=none", True, 1),
        ("bframes=3:b-pyramid=normal", True, 2),
        ("interlaced=1", False, None),
    ],
)
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_headers_of_h264_say_what_x264_was_told(tmp_path, settings, frames_only, reordered, pixels):
    path = write(tmp_path / "clip.mp4", n=5, pixels=pixels, x264_params=f"{settings}:scenecut=0:b-adapt=0")
    file = VideoFile(path)
    reader = H264(file.header, file.size)
    file.close()
    (said,) = reader.sequences
    assert (said.frames_only, said.reordered) == (frames_only, reordered)


def test_what_packets_of_other_codecs_hold():
    size = (64, 64)
    assert Vp8(b"", size).held(b"\x10") == Held(1, True) and Vp8(b"", size).held(b"\x01") == Held(0, False)
    assert Vp9(b"", size).held(b"\x82") == Held(1, True)  # a key that is shown
    assert Vp9(b"", size).held(b"\x84") == Held(0, False)  # a hidden frame
    both = b"\x84\x86" + b"\xc1\1\1\xc1"  # one hidden and one shown, with the index behind them
    assert Vp9(b"", size).held(both) == Held(1, False)
    assert Vp9(b"", size).held(b"\0").shown == UNKNOWN
    assert Av1(b"", size).held(b"\x12\0\x0a\2\0\0\x32\1\x10") == Held(1, True)  # delimiter, sequence, key frame
    assert Av1(b"", size).held(b"\x12\0\x32\1\x30") == Held(1, False)
    vop = b"\0\0\1\xb6"
    assert Mpeg4(b"", size).held(vop + b"\x10" + 9 * b"a") == Held(1, True)
    assert Mpeg4(b"", size).held(vop + b"\x50" + 9 * b"a") == Held(1, False)
    for lies in (vop + b"\x90" + 9 * b"a", vop + b"\x50", 2 * (vop + b"\x50" + 9 * b"a"), b"abc"):
        assert Mpeg4(b"", size).held(lies).shown == UNKNOWN  # a B picture, one that is not coded, two in one, none
    picture = b"\xff\xd8\xff\xdb\xff\xc4\xff\xda..\xff\xd9"
    assert Jpeg(b"", size).held(picture) == Held(1, True)
    assert Jpeg(b"", size).held(picture.replace(b"\xff\xdb", b"..")) == Held(1, False)
    assert Jpeg(b"", size).held(picture[:-2]).shown == UNKNOWN


def lie(path, **changes):
    """Keep an index for a file that is not true."""
    with open_video(path) as video:
        index = video._decoder.index
    from dataclasses import replace

    stored.save(replace(index, **{k: v(index) for k, v in changes.items()}), stored.place(path, frames.decoder()))
    return index


@pytest.mark.parametrize(
    "stamps",
    [
        lambda i: np.delete(i.stamps, 30),
        lambda i: np.append(i.stamps, i.stamps[-1] + 512),
        lambda i: np.insert(i.stamps, 30, i.stamps[30] - 3),
    ],
)
def test_packets_that_lie_are_found_out(tmp_path, stamps):
    path = write(tmp_path / "clip.mp4", **X264)
    truth = marks(path)
    lie(path, stamps=stamps)
    with open_video(path) as video:
        assert video.count != 60 and video.counted == ""
        assert [mark(f) for f in video.stream()] == truth
        assert video.count == 60 and video.counted.startswith("packets did not tell the truth: ")
    with open_video(path) as video:  # and it is known from now on
        assert video.count == 60 and video.counted


def test_a_seek_that_lands_elsewhere_is_noticed(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", **X264)
    truth, seek = marks(path), VideoFile.seek
    monkeypatch.setattr(VideoFile, "seek", lambda self, stamp: seek(self, stamp + 26 * 512))
    with open_video(path) as video:
        assert [mark(f) for f in video.read([50, 25, 3])] == [truth[n] for n in (50, 25, 3)]
        assert "going to a place in it gave other frames" in video.counted
        assert not video.remarks


def test_a_place_where_decoding_cannot_begin_is_noticed(tmp_path):
    path = write(tmp_path / "clip.mp4", x264_params="intra-refresh=1:keyint=12:bframes=0")
    truth = marks(path)
    with open_video(path) as video:
        base = int(video._decoder.index.stamps[1])
    false = np.array([[n, n * base, n * base] for n in (0, 12, 24, 36, 48)])
    lie(path, places=lambda i: false)
    with open_video(path) as video:
        for _ in range(2):
            assert [mark(f) for f in video.read([50, 25])] == [truth[50], truth[25]]


def test_an_index_is_made_once(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", n=5)
    made = []
    monkeypatch.setattr(frames, "make_index", lambda file: made.append(1) or counting.make_index(file))
    for _ in range(3):
        with open_video(path) as video:
            assert video.count == 5
    assert len(made) == 1
    with open_video(path, cache=False):
        assert len(made) == 2
    write(path, n=7)
    with open_video(path) as video:
        assert video.count == 7 and len(made) == 3
    monkeypatch.setattr(frames, "decoder", lambda: "another one")
    with open_video(path):
        assert len(made) == 4


@pytest.mark.parametrize("spoil", [lambda d: d[:30], lambda d: d[:-1] + bytes([d[-1] ^ 1]), lambda d: b""])
def test_a_kept_index_that_is_damaged_is_made_again(tmp_path, cache, spoil):
    path = write(tmp_path / "clip.mp4", n=5)
    with open_video(path) as video:
        first = video._decoder.index
    (kept,) = cache.rglob("*.index")
    whole = kept.read_bytes()
    kept.write_bytes(spoil(whole))
    with open_video(path) as video:
        assert video._decoder.index.stamps.tolist() == first.stamps.tolist()
    assert kept.read_bytes() == whole


def test_a_kept_index_is_all_of_it(tmp_path, shared_data):
    path = shared_data / "videos/corrupted.mp4"
    with open_video(path) as video:
        first = video._decoder.index
    kept = stored.load(stored.place(path, frames.decoder()))
    assert kept is not None
    for name, value in vars(first).items():
        assert np.array_equal(value, getattr(kept, name)) and type(value) is type(getattr(kept, name)), name


def test_without_a_cache_that_can_be_written_it_works(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    with open_video(write(tmp_path / "clip.mp4", n=5)) as video:
        assert video.count == 5


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    path = write(
        tmp_path / "clip.mp4", n=120, x264_params="keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=none"
    )
    decoded, decode = [], VideoFile.decode
    monkeypatch.setattr(VideoFile, "decode", lambda self, packet: decoded.append(packet) or decode(self, packet))
    with open_video(path):
        pass
    with open_video(path) as video:
        decoded.clear()
        video.read([48])
        assert len(decoded) <= 4  # a key, and what pushes it out of the decoder
        decoded.clear()
        video.read([59, 119])
        assert len(decoded) <= 8  # the key and the frames that others need, a quarter of all, of two groups
        decoded.clear()
        list(video.stream(100))
        assert len(decoded) <= 30


@pytest.mark.cold
def test_reading_videos_needs_pyav_and_no_torch(tmp_path):
    code = "import sys; from trunkline.tasks.video import count_frames; print(count_frames(sys.argv[1]), 'torch' in sys.modules)"
    path = write(tmp_path / "clip.mp4", n=5)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout == "5 False\n", done.stderr


def test_where_pyav_is_missing_it_is_said(tmp_path, monkeypatch):
    from trunkline.tasks.video.decoding import video

    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("frames", "file", "counting"):
        monkeypatch.delitem(sys.modules, f"trunkline.tasks.video.decoding.{name}", raising=False)
        monkeypatch.delattr(f"trunkline.tasks.video.decoding.{name}", raising=False)
    with pytest.raises(DataError, match=r"reading videos needs PyAV: pip install 'trunkline\[video\]'"):
        video.open_video(tmp_path / "clip.mp4")
