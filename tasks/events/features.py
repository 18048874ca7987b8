"""Features of videos over time: a `.npy` file each, and when each of its steps was."""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ..video.suffixes import READABLE
from .annotations import NEAR, Video

_PREFIX = "v_"  # before a video's name in ActivityNet's files of features


@dataclass(frozen=True)
class Clock:
    """When each step of a video was: `times` `(T,)` float64, ascending seconds, of the middle of each."""

    times: np.ndarray

    @property
    def seconds(self) -> float:
        """From one step to the next, the median."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 2 * float(self.times[0]) or 1.0

    @property
    def end(self) -> float:
        """The end of the last step in seconds."""
        return float(self.times[-1]) + self.seconds / 2

    def place(self, seconds: np.ndarray) -> np.ndarray:
        """Convert seconds to steps: the middle of step i is i + 0.5."""
        return _between(seconds, self.times, np.arange(len(self.times)) + 0.5, self.seconds, 1.0)

    def when(self, steps: np.ndarray) -> np.ndarray:
        """Convert steps to seconds."""
        return _between(steps, np.arange(len(self.times)) + 0.5, self.times, 1.0, self.seconds)


@dataclass(frozen=True)
class Steps:
    """The features of one video, `array` `(T, C)`, not read until it is asked for, and when its steps were.

    `said` is how that is known.
    """

    array: np.ndarray
    clock: Clock
    said: str

    def rows(self, first: int, end: int) -> np.ndarray:
        """Read some steps as `(end - first, C)` fp32. Nothing else of the file comes into memory."""
        a = self.array
        if not (isinstance(a, np.memmap) and a.flags.c_contiguous):
            return self._checked(a[first:end])
        start = a.offset + first * a.shape[1] * a.itemsize
        found = np.fromfile(str(a.filename), a.dtype, (end - first) * a.shape[1], offset=start)
        return self._checked(found.reshape(-1, a.shape[1]))

    @staticmethod
    def _checked(rows: np.ndarray) -> np.ndarray:
        """Convert rows to fp32. Raises DataError for numbers that are not finite, or are too large."""
        with np.errstate(over="ignore"):
            found = rows.astype(np.float32)
        if not np.isfinite(found).all():
            raise DataError("holds numbers that are not finite in fp32")
        return found


def _between(x: np.ndarray, known: np.ndarray, values: np.ndarray, step: float, rise: float) -> np.ndarray:
    """Interpolate, and go on beyond both ends with the slope `rise / step`."""
    x = np.asarray(x, np.float64)
    found = np.interp(x, known, values)
    before, behind = np.minimum(x - known[0], 0), np.maximum(x - known[-1], 0)
    return found + (before + behind) * (rise / step)


def names_in(folder: Path) -> dict[str, list[Path]]:
    """Find the files of features in a folder, by each name that their video may be called by in annotations.

    They are the file's own stem, without `v_` too, and what the JSON beside it says: the video's path, name and stem. Raises
    DataError where there is no folder or no file of features.
    """
    if not folder.is_dir():
        there = "is a file" if folder.exists() else "there is no such folder"
        raise DataError(f"{folder}: {there}; features= takes the folder of the videos' features (NAME.npy)")
    found: dict[str, list[Path]] = defaultdict(list)
    files = sorted(folder.glob("*.npy"))
    for file in files:
        names = {file.stem, file.stem.removeprefix(_PREFIX)}
        if (said := _beside(file)) and isinstance(said.get("file"), str):
            path = Path(said["file"])
            names = {said["file"], path.name, bare(path.name)}
        for name in names:
            found[name].append(file)
    if not files:
        raise DataError(f"{folder}: holds no features; expected NAME.npy of each video, (steps, channels)")
    return found


def bare(name: str) -> str:
    """Return a video's name without the end of a container's; what stands behind another dot is part of the name."""
    return Path(name).stem if Path(name).suffix.lower() in READABLE else name


def find(video: str, names: dict[str, list[Path]]) -> Path | None:
    """Find a video's file by its name, with or without its end. Raises DataError where there are two."""
    for name in dict.fromkeys((video, Path(video).name, bare(Path(video).name))):
        if files := names.get(name):
            if len(files) > 1:
                raise DataError(
                    f"{video}: may be {' or '.join(f.name for f in files)}; write its path as their JSON does"
                )
            return files[0]
    return None


def said_of(file: Path) -> str:
    """Return the name of the video that a file of features is of: what the JSON beside it says, else its stem."""
    said = _beside(file)
    return bare(Path(said["file"]).name) if said and isinstance(said.get("file"), str) else file.stem


def _beside(file: Path) -> dict[str, Any] | None:
    """Read the JSON beside a file of features; None where there is none. Raises DataError where it is damaged."""
    beside = file.with_suffix(".json")
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{beside}: cannot be read ({error}); write the features again, or remove it") from None
    if not isinstance(said, dict):
        raise DataError(f"{beside}: expected an object that says when the steps of {file.name} were, as times")
    return said


def open_steps(
    file: str | os.PathLike[str], video: Video, stride: int = 0, span: int = 0, rate: float = 0.0, usual: float = 0.0
) -> Steps:
    """Open a video's features, and find when each step was: from the JSON beside them, `stride`, or the video's length.

    stride  frames from one step to the next, and `span` frames that a step was computed from; `rate` frames a second, by
            default what the annotations say: step i is at (i * stride + span / 2) / rate
    usual   of prediction: seconds from step to step where training knew them alike for all videos; 0: it did not

    Raises DataError, with the file's name, where it is none of features, or they are of another length than the video.
    """
    path = Path(file)
    array = _array(path)
    times, said = _times(path, array, video, stride, span, rate or video.rate, usual)
    found = Steps(array, Clock(times), said)
    end = found.clock.end
    room = max(1.0, NEAR * video.duration, span / (rate or video.rate or 25.0))
    if video.duration and abs(end - video.duration) > room:
        raise DataError(
            f"{path}: {len(array)} steps, {said}, end at {end:.2f} s, and {video.name} is {video.duration:.2f} s long; expected "
            "features of this video: are stride= and rate= right?"
        )
    return found


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or "it is no whole .npy file of numbers"
        raise DataError(f"{path}: cannot be read ({why})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or 0 in array.shape:
        shape = " x ".join(map(str, getattr(array, "shape", ()))) or "no array"
        raise DataError(f"{path}: holds {shape}; expected (steps, channels)")
    if array.dtype.kind != "f":
        raise DataError(f"{path}: holds {array.dtype}; expected floats")
    return array


def _times(
    path: Path, array: np.ndarray, video: Video, stride: int, span: int, rate: float, usual: float
) -> tuple[np.ndarray, str]:
    said, count = _beside(path), len(array)
    if said is not None and isinstance(said.get("times"), list):
        try:
            times = np.array(said["times"], np.float64)
        except (TypeError, ValueError):
            times = np.zeros(0)
        if times.shape != (count,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise DataError(
                f"{path.with_suffix('.json')}: times: expected {count} ascending seconds, one for each step of {path.name}"
            )
        return times, "at the times that their JSON says"
    if stride:
        if not rate:
            raise DataError(
                f"{path}: stride={stride} needs the frames a second: the annotations do not say them, so give rate="
            )
        return (np.arange(count) * stride + (span or stride) / 2) / rate, f"each {stride} frames at {rate:g} a second"
    if said is not None and isinstance(said.get("duration"), (int, float)) and said["duration"] > 0:
        return (np.arange(count) + 0.5) * (
            float(said["duration"]) / count
        ), "spread over the length that their JSON says"
    if video.duration:
        return (np.arange(count) + 0.5) * (video.duration / count), "spread over the video's length"
    if usual:
        return (np.arange(count) + 0.5) * usual, f"each {usual:g} s, as in training"
    raise DataError(
        f"{path}: nothing says when its steps were: no JSON beside it "
        f"({path.stem}.json with times, or with the video's duration), no stride=, and no duration in the annotations"
    )
