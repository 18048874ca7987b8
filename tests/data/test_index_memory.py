"""The index costs few bytes an image, and loader workers share it."""

import os
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from trunkline.tasks.classification.folders import FolderSamples
from trunkline.tasks.data.file_index import IndexBuilder

CLASSES = tuple(f"class_{n:04d}" for n in range(1000))
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/PID/smaps_rollup")


def name(i: int) -> str:
    return f"train/{CLASSES[i % 1000]}/photo_{i:08d}_{'x' * (i % 40)}.jpg"


def generated(count: int) -> FolderSamples:
    builder = IndexBuilder()
    for i in range(count):
        builder.add(name(i).encode(), i % 1000)
    index = builder.build()
    rows = np.arange(count, dtype=np.uint32)
    return FolderSamples(Path("nowhere"), "train", CLASSES, index, rows, np.arange(1000))


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private"))


def pss() -> int:
    """This process's share of memory: what 8 processes share counts an eighth in each."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class TouchEverything(Dataset):
    """Each item reads every entry of the index, in whichever worker, and says what that cost it."""

    def __init__(self, read, count: int, workers: int) -> None:
        self.read, self.count, self.workers = read, count, workers

    def __len__(self) -> int:
        return self.workers

    def __getitem__(self, _: int) -> tuple[int, int, int, int]:
        before = private_bytes()
        characters = sum(len(self.read(i)) for i in range(self.count))
        return os.getpid(), characters, private_bytes() - before, pss()


def touch(read, count: int, workers: int = 8) -> tuple[int, int]:
    """Bytes that the workers came to own by reading everything, and their PSS, both summed."""
    warnings.simplefilter("ignore")  # more workers than cores, on purpose
    loader = DataLoader(
        TouchEverything(read, count, workers), None, num_workers=workers, multiprocessing_context="fork"
    )
    seen = list(loader)
    assert len({pid for pid, *_ in seen}) == workers
    assert {characters for _, characters, *_ in seen} == {sum(len(name(i)) for i in range(count))}
    return sum(grown for *_, grown, _ in seen), sum(total for *_, total in seen)


def test_bytes_an_entry():
    count = 20_000
    tracemalloc.start()
    try:
        samples = generated(count)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    paths = sum(len(name(i)) for i in range(count))
    assert used >= paths  # the measure sees numpy's memory
    assert (used - paths) / count <= 100
    assert samples.id(17) == name(17) and samples.id(count - 1) == name(count - 1)
    assert samples.labels[[0, 999, 1000, 1234]].tolist() == [0, 999, 0, 234]


@linux
def test_workers_share_the_index():
    count = 60_000
    samples = generated(count)
    bytes_of_index = samples.index.nbytes + samples.rows.nbytes
    grown, _ = touch(samples.id, count)
    assert grown < 8 * 0.3 * bytes_of_index
    names = [name(i) for i in range(count)]  # what a list of strings does, as a control of the measure
    copied, _ = touch(names.__getitem__, count)
    assert copied > 8 * 0.7 * bytes_of_index


@linux
@pytest.mark.slow
def test_a_million_entries_and_eight_workers():
    count = 1_000_000
    _, base = touch(generated(1000).id, 1000)
    many = generated(count)
    paths = sum(len(name(i)) for i in range(count))
    bytes_of_index = many.index.nbytes + many.rows.nbytes + many.numbers.nbytes
    assert (bytes_of_index - paths) / count <= 100
    grown, total = touch(many.id, count)
    print(f"index {bytes_of_index / 1e6:.0f} MB, {(bytes_of_index - paths) / count:.1f} bytes an entry beyond its path")
    print(f"8 workers: own {grown / 1e6:.0f} MB more by reading it all; PSS {(total - base) / 1e6:.0f} MB more in sum")
    assert grown < 0.5 * bytes_of_index  # all eight together
    assert total - base < 1.5 * bytes_of_index
