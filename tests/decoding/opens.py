"""Open the clips of a folder many times in one process, and print by how many MiB its memory grew after the warm-up."""

import sys
from itertools import cycle, islice
from pathlib import Path

from trunkline.tasks.video.decoding.video import open_video


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def opened(paths) -> None:
    for path in paths:
        with open_video(path) as video:
            video.read([0])


if __name__ == "__main__":
    clips, times = sorted(Path(sys.argv[1]).rglob("*.avi")), int(sys.argv[2])
    assert len(clips) == 64
    opened(islice(cycle(clips), 40))
    before = resident()
    opened(islice(cycle(clips), times))
    print((resident() - before) / 2**20)
