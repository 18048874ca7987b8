"""Train every kind of head in every way with one state of the code and with another, and compare what comes out, bit for bit.

    python tests/compatibility/same_weights.py train OUT [--only PATTERN] [--resume]
    python tests/compatibility/same_weights.py compare BEFORE AFTER [--only PATTERN]

`train` takes the `trunkline` that is importable and writes `OUT/NAME.json` for each of the combinations (`combinations.py`);
`--resume` leaves out those whose file is there. What the runs print is in `OUT/log.txt`. Runs lie in a temporary folder
while they are looked at (TMPDIR; one in memory is faster), generated pictures in `OUT/cache`, and their digests in
`OUT/data.json`.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from combinations import ALWAYS, CLASSIFY, SOURCE, Combination, combinations
from compared import compare
from digests import checkpoint_of, cut, files_of, sha, tensors_of, updates_of
from warm import warm_python


def train(out: Path, only: str, resume: bool) -> int:
    """Train the combinations, write a file for each, and return 0."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "TRUNKLINE_CACHE": str(out / "cache")}  # before torch is loaded
    os.chdir(out)  # where nothing can be imported from: workers look there first
    asked = [each for each in combinations(only) if not (resume and (out / f"{each.name}.json").is_file())]
    begun = time.perf_counter()
    with warm_python(), tempfile.TemporaryDirectory(prefix="same-weights-") as folder:
        (out / "about.json").write_text(json.dumps(about(), indent=1))
        source = make_source(out)
        for number, each in enumerate(asked, 1):
            start = time.perf_counter()
            found = train_one(each, Path(folder), out, source)
            seconds = time.perf_counter() - start
            beside = out / f".{each.name}.tmp"
            beside.write_text(json.dumps({**found, "seconds": round(seconds, 2)}, indent=1))
            beside.replace(out / f"{each.name}.json")
            print(f"{number}/{len(asked)} {each.name}: {found['error'] or 'trained'} ({seconds:.1f} s)", flush=True)
    (out / "data.json").write_text(json.dumps(files_of(out / "cache" / "scenes"), indent=1))
    print(f"{len(asked)} combinations in {time.perf_counter() - begun:.0f} s")
    return 0


def about() -> dict[str, str]:
    """Say what computes here: bits are compared on one kind of machine with one set of libraries."""
    import numpy
    import PIL
    import torch
    import torchvision

    import trunkline

    print(f"trunkline is {Path(trunkline.__file__ or '').parent}")
    versions = {each.__name__: each.__version__ for each in (numpy, PIL, torch, torchvision)}
    return {**versions, "python": platform.python_version(), "instructions": torch.backends.cpu.get_cpu_capability()}


def make_source(out: Path) -> Path:
    """Train the classifier that a head with a kept classifier begins from; one that is there stays."""
    import trunkline

    settings = {**ALWAYS, **CLASSIFY, "mode": "full"}
    with heard(out / "log.txt"):
        return trunkline.train("transfer", out / "source", **settings).weights


def train_one(each: Combination, folder: Path, out: Path, source: Path) -> dict[str, Any]:
    """Train one combination and record it, or the error by which it was refused; its run is removed."""
    import trunkline

    path = folder / each.name
    places = {str(path): "RUN", str(folder): "FOLDER", str(out): "OUT"}
    settings = {key: str(source) if value == SOURCE else value for key, value in each.settings.items()}
    error, recorded = "", {}
    try:
        with heard(out / "log.txt"):
            trunkline.train(each.recipe, path, **settings, workers=each.workers)
            recorded = record(path, places)
    except Exception as failure:  # a refusal is a result too
        if hasattr(failure, "signum"):  # this command was asked to end
            raise
        error = told(failure, places)
    finally:
        for left in folder.iterdir():
            shutil.rmtree(left)
    return {"name": each.name, "error": error, "recorded": recorded}


def record(path: Path, places: dict[str, str]) -> dict[str, Any]:
    """Record a finished run: digests of all that it holds, and of what an evaluation of it writes."""
    import trunkline

    run, results = trunkline.Run(path), path.with_name("results")
    again = trunkline.evaluate(run, results=results, device="cpu", threads=1, loaders=0)
    weights, metadata = tensors_of(run.weights)
    return {
        **checkpoint_of(path),
        "weights": weights,
        "metadata": cut(metadata, places),
        "scores": cut(run.scores, places),
        "scored again": cut(again.metrics, places),
        "predictions": sha((path / "predictions" / "val.jsonl").read_bytes()),
        "results": files_of(results),
        "updates": updates_of(path),
    }


def told(error: Exception, places: dict[str, str]) -> str:
    """Give an error's kind and text without folders, process numbers and lines of code."""
    text = cut(str(error), places).partition("Traceback (most recent call last)")[0].strip()
    text = re.sub(r"worker (\d+) on \S+ \(process \d+\)", r"worker \1", text)
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]+', '0x', text)}"


@contextlib.contextmanager
def heard(log: Path) -> Iterator[None]:
    """Write what this process and those that it starts print into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, own in zip((1, 2), kept, strict=True):
            os.dup2(own, number)
            os.close(own)


def main() -> int:
    """Do what the command line says; the exit code is 1 where anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train")
    training.add_argument("out", type=Path)
    training.add_argument("--resume", action="store_true")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    for verb in (training, comparing):
        verb.add_argument("--only", default="*", metavar="PATTERN", help="of names, as in a shell: 'fcn-*-workers1'")
    given = parser.parse_args()
    if given.verb == "train":
        return train(given.out, given.only, given.resume)
    return compare(given.before, given.after, given.only)


if __name__ == "__main__":
    sys.exit(main())
