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


def decoded(path: Path, threads: str = "NONE"):
    """Decode all of a file plainly: each frame `(h, w, 3)` upright, passing over packets that fail."""
    with av.open(str(path), metadata_errors="ignore") as file:
        stream = file.streams.best("video")
        stream.codec_context.thread_type = threads
        for packet in file.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                yield frame, np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def mark(picture: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(picture))


def marks(path: Path) -> list[int]:
    """A mark of the pixels of each frame that a full decode shows."""
    return [mark(picture) for _, picture in decoded(path)]


def times(path: Path) -> np.ndarray:
    """Seconds of each frame since the first."""
    found = [float(frame.pts * frame.time_base) for frame, _ in decoded(path)]
    return np.array(found) - found[0]
