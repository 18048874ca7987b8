"""Videos to test on, written by PyAV, and what a plain full decode of a video gives."""

import zlib
from pathlib import Path

import av
import numpy as np


def pictures(n: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Moving blocks, no two frames alike: `(h, w, 3)` uint8."""
    width, height = size
    draw = np.random.default_rng(seed)
    base = draw.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.ascontiguousarray(np.roll(base, (i, 2 * i), (0, 1))[:height, :width]) for i in range(n)]
    for i, frame in enumerate(frames):
        frame[:8, :8] = 37 * i % 256
    return frames


def write(path: Path, codec: str = "libx264", n: int = 60, size=(96, 64), pixels="yuv420p", gop=None, stamps=None,
          rate=25, angle=0, **options) -> Path:  # fmt: skip
    """Write a video; `stamps` are the frames' times in 1/rate seconds, `angle` its display matrix, options the codec's."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        stream.options = {k.replace("_", "-"): str(v) for k, v in options.items()}
        if gop:
            stream.codec_context.gop_size = gop
        if angle:
            stream.set_display_rotation(angle)
        for i, picture in enumerate(pictures(n, size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if stamps is None else stamps[i]
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


X264 = {"x264_params": "keyint=12:bframes=3:threads=1:lookahead_threads=1"}


def frames(path: Path, threads: str = "NONE"):
    """Decode all of a file plainly, passing over packets that fail."""
    with av.open(str(path), metadata_errors="ignore") as file:
        stream = file.streams.best("video")
        stream.codec_context.thread_type = threads
        for packet in file.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def upright(frame: av.VideoFrame) -> np.ndarray:
    """Convert a frame to `(h, w, 3)`, turned as its file says."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def decoded(path: Path, threads: str = "NONE"):
    """Decode all of a file plainly: each frame, and it `(h, w, 3)` upright."""
    return ((frame, upright(frame)) for frame in frames(path, threads))


def mark(picture: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(picture))


def marks(path: Path) -> list[int]:
    """A mark of the pixels of each frame that a full decode shows."""
    return [mark(picture) for _, picture in decoded(path)]


def times(path: Path) -> np.ndarray:
    """Seconds of each frame since the first."""
    found = [float(frame.pts * frame.time_base) for frame, _ in decoded(path)]
    return np.array(found) - found[0]


def two_streams(path: Path) -> Path:
    """Write two streams of pictures, a small one first."""
    with av.open(str(path), "w") as out:
        streams = []
        for size in ((48, 32), (96, 64)):
            stream = out.add_stream("mpeg4", rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            streams.append((stream, size))
        for i in range(12):
            for stream, size in streams:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pictures(12, size)[i], format="rgb24")))
        for stream, _ in streams:
            out.mux(stream.encode())
    return path


def damaged(path: Path, number: int) -> Path:
    """Write a file of which one packet does not decode."""
    write(path, n=12, **X264)
    with av.open(str(path)) as file:
        at, size = [(p.pos, p.size) for p in file.demux(video=0) if p.size][number]
    data = bytearray(path.read_bytes())
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    return path


def untold(path: Path) -> Path:
    """Write a file whose title is not UTF-8."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "EFGHEFGH"
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in pictures(5, (96, 64)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"EFGHEFGH", b"\xff\xfe\xe4\xe4\xff\xff\xff\xff"))
    return path


def sound(path: Path) -> Path:
    """Write a file with sound alone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path
