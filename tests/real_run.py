"""The command line as a user calls it, timed."""

import subprocess
import sys
import time
from pathlib import Path

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))


def run(*words: object) -> tuple[subprocess.CompletedProcess, float]:
    start = time.monotonic()
    done = subprocess.run([TRUNKLINE, *map(str, words)], capture_output=True, text=True, check=False)
    return done, time.monotonic() - start
