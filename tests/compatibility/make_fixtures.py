"""Make the fixtures of old runs: `python tests/compatibility/make_fixtures.py [NAME…]`, at the commit whose runs they are.

To be run at the state of the code that later ones are compared with (151d4e2, the last one of single tasks), never at a
later one: a test that fails says that runs of that state are no longer understood.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from old_runs import CASES, FIXTURES, about, draws, given, interrupt, pack, places_of, probe, unpack


def make(name: str) -> None:
    """Train a run, keep what an interruption would have left of it, and store what becomes of that."""
    case, kept = CASES[name], FIXTURES / name
    shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        work, cache = Path(folder) / "work", Path(folder) / "cache"
        fresh(work, cache)
        import trunkline

        run = trunkline.train(case.recipe, work / "run", **case.settings)
        (work / "published").mkdir()
        shutil.copy(run.weights, work / "published")
        interrupt(run.path, case.interrupted)
        places = places_of(work, cache)
        pack(work / "published", kept / "published", places)
        pack(work / "run", kept / "run", places)
        if (work / "run" / "features").is_dir():  # what is cached says of which weights: of those by formula
            fresh(work, cache)
            unpack(kept / "run", work / "run", places)
            trunkline.train(case.recipe, work / "run", **case.settings)
            pack(work / "run" / "features", kept / "run" / "features", places)
        fresh(work, cache)
        here = {"probe": probe(), "draws": draws(), "about": about()}
        store(kept / "expected.json", {**here, "given": given(name, work, cache)})


def fresh(work: Path, cache: Path) -> None:
    """Make an empty folder the current one."""
    os.chdir(work.parent)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(FIXTURES / "two_phases.py", work)
    os.chdir(work)
    os.environ |= {"OMP_NUM_THREADS": "1", "TRUNKLINE_CACHE": str(cache)}


def store(file: Path, value: Any) -> None:
    """Write JSON of one line for each of the things that were done."""
    given = ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in value["given"].items())
    rest = ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in value.items() if key != "given")
    file.write_text(f'{{\n{rest},\n"given": {{\n{given}\n}}\n}}\n')


if __name__ == "__main__":
    for each in sys.argv[1:] or CASES:
        make(each)
        os.chdir(FIXTURES)
        print(f"made {each}")
