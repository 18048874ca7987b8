"""Frames by number beside decoding whole files by PyAV: files written here, and a long one. With it, training on clips."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import RecipeError

from ..runs.environment import environment
from ..show import bar
from .bench import Bench, paired, positive

FRAMES, WANTED = 150, 8
READS = 5  # in a round: one takes a few milliseconds
LONG = "videos/long_1080p_videoonly_lowbitrate.mp4"
FILES: dict[str, tuple[str, str, dict[str, str]]] = {  # what it is: its name, codec and options
    **{
        f"H.264, a key every {k}": (f"h264-{k}.mp4", "libx264", {"g": f"{k}", "sc_threshold": "0"})
        for k in (12, 30, 250)
    },
    **{f"MPEG-4, a key every {k}": (f"mpeg4-{k}.mp4", "mpeg4", {"g": f"{k}"}) for k in (12, 30, 250)},
    "MJPEG": ("mjpeg.avi", "mjpeg", {}),
}


PARTS = ("all", "decoding", "training")


def bench_video(
    *, part: str = "all", rounds: int = 7, side: int = 256, thread_type: str = "NONE",
    crop: int = 112, frames: int = 16, batch: int = 2, device: str = "auto",
) -> Bench:  # fmt: skip
    """Measure reading frames by number beside PyAV decoding whole files, and R3D-18 beside torchvision's in a plain loop.

    Of files of 150 frames 8 that are spread are read, with the index at hand, beside decoding all and converting the 8; of the
    file of 10,883 frames in TRUNKLINE_TEST_DATA, where that is set, 16 from the middle, 4 apart, beside decoding from its start
    up to the last of them. Both sides open the file each time. R3D-18 predicts and trains on clips that lie on the device, at
    equal settings (fp32) and with our defaults against theirs (fp32), from the same weights with the same optimizer.

    part           all, decoding or training
    side           decoding: of the frames' shorter side in pixels; the longer is 4/3 of it
    thread_type    decoding: of FFmpeg, on both sides: NONE, SLICE, FRAME or AUTO
    crop           training: side of the clips' frames in pixels, which are square
    frames         training: of a clip
    batch          training: clips at once
    device         training: where
    """
    positive(rounds=rounds, side=side, crop=crop, frames=frames, batch=batch)
    from ...tasks.video.decoding.video import THREADS

    if part not in PARTS:
        raise RecipeError(f"part={part}: expected one of {', '.join(PARTS)}")
    if thread_type not in THREADS:
        raise RecipeError(f"thread_type={thread_type}: expected one of {', '.join(THREADS)}")
    if batch == 1 and crop <= 16 and frames <= 8:
        raise RecipeError(
            f"batch=1 with crop={crop}, frames={frames}: the last norm would see one number: give two clips or more"
        )
    rows, settings = [], {"part": part, "rounds": rounds}
    if part != "training":
        found, said = _decoding(rounds, side, thread_type)
        rows, settings = rows + found, settings | said
    if part != "decoding":
        found, said = _training(rounds, crop, frames, batch, device)
        rows, settings = rows + found, settings | said
    return Bench("video", rows, settings, environment())


def _decoding(rounds: int, side: int, threads: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from ...tasks.video.decoding.video import decoder

    rows, index = decoding(rounds, side, threads)
    said: dict[str, Any] = {"side": side, "thread_type": threads, "decoder": decoder(), "making the index, ms": index}
    if long := _long():
        rows += far_in(long, min(rounds, 3), threads)
    else:
        said["left out"] = f"{LONG}: TRUNKLINE_TEST_DATA is not set, or does not hold it"
    return [{**row, "unit": "reads/s"} for row in rows], said


def _training(
    rounds: int, crop: int, frames: int, batch: int, device: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import torch

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine
    from .bench_clips import clips

    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    rows, equal = clips(crop, frames, batch, rounds, machine)
    said = {"crop": crop, "frames": frames, "batch": batch, "largest difference of logits at equal settings": equal}
    return rows, {**said, "threads": torch.get_num_threads(), "device": machine.device}


def decoding(rounds: int, side: int, threads: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measure 8 spread frames of each file that is written here; return the rows, and what making each index took, in ms."""
    numbers = np.linspace(0, FRAMES - 1, WANTED).round().astype(int).tolist()
    rows, index = [], {}
    with bar("bench video", len(FILES) * rounds, "rounds") as advance:
        for name in FILES:
            path = written(name, side)
            ours, theirs = sides(path, numbers, threads, FRAMES)
            rows.append(paired(name, ours, theirs, 1, rounds, READS, advance))
            index[name] = _index_ms(path)
    return rows, index


def far_in(path: Path, rounds: int, threads: str) -> list[dict[str, Any]]:
    """Measure 16 frames, 4 apart, from the middle of a long file, beside decoding from its start to the last of them."""
    from ...tasks.video.decoding.video import count_frames

    middle = count_frames(path) // 2
    numbers = list(range(middle, middle + 64, 4))
    ours, theirs = sides(path, numbers, threads, numbers[-1] + 1)
    with bar("bench video, far in", rounds, "rounds") as advance:
        return [paired(f"16 frames from number {middle} on", ours, theirs, 1, rounds, 1, advance)]


def sides(path: Path, numbers: Sequence[int], threads: str, end: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Build ours, and PyAV's plain loop over the first `end` frames, to call; refuse to measure unless both give the same."""
    from ...tasks.video.decoding.video import open_video

    def ours() -> np.ndarray:
        with open_video(path, thread_type=threads) as video:
            return video.read(numbers)

    def theirs() -> np.ndarray:
        return np.stack(list(_plain(path, {*numbers}, threads, end)))

    if (ours() != theirs()).any():
        raise RuntimeError(f"{path}: both sides read other frames")
    return ours, theirs


def _plain(path: Path, numbers: set[int], threads: str, end: int) -> Iterator[np.ndarray]:
    import av

    with av.open(str(path)) as file:
        stream: Any = file.streams.best("video")
        stream.codec_context.thread_type = threads
        if threads == "NONE":
            stream.codec_context.thread_count = 1
        for number, frame in enumerate(file.decode(stream)):
            if number in numbers:
                yield frame.to_ndarray(format="rgb24")
            if number + 1 == end:
                return


def _index_ms(path: Path) -> float:
    """Measure opening a file whose index is not at hand; the median of five, in ms."""
    from ...tasks.video.decoding.video import open_video

    took = []
    for _ in range(5):
        start = time.perf_counter()
        with open_video(path, cache=False):
            took.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(took), 1)


def _long() -> Path | None:
    folder = os.environ.get("TRUNKLINE_TEST_DATA")
    path = Path(folder) / LONG if folder else None
    return path if path and path.is_file() else None


def written(what: str, side: int) -> Path:
    """Write a file of FILES into the cache, where it is not there, and return its path: soft blobs that move over each other."""
    name, codec, options = FILES[what]
    path = cache_folder() / "scenes" / f"bench-video-{side}" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{os.getpid()}-{name}")
        _write(beside, codec, options, (2 * round(side * 2 / 3), 2 * (side // 2)))
        beside.replace(path)
    return path


def _write(path: Path, codec: str, options: dict[str, str], size: tuple[int, int]) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = options
        for picture in _moving(*size):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def _moving(width: int, height: int) -> Iterator[np.ndarray]:
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    ground = draw.integers(0, 64, (height, width, 3))  # grain, as a camera has it
    ways = draw.uniform(-3, 3, (12, 2))
    starts, colours = draw.uniform(0, 1, (12, 2)) * (height, width), draw.uniform(-120, 120, (12, 3))
    for number in range(FRAMES):
        picture = ground + 96.0
        for start, way, colour in zip(starts, ways, colours, strict=True):
            cy, cx = (start + number * way) % (height, width)
            far = ((y - cy) ** 2 + (x - cx) ** 2) / (height / 8) ** 2
            picture += np.exp(-far)[..., None] * colour
        yield picture.clip(0, 255).astype(np.uint8)
