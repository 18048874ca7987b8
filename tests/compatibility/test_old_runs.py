"""Runs, checkpoints and published weights of an older state load, score, predict and go on: to the same bits.

Bits belong to one kind of processor and one version of torch: where a probe of the arithmetic gives other ones than it
did where the fixtures were made, numbers must agree to a thousandth; where even random numbers are drawn otherwise, what
was trained is not compared.
"""

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from old_runs import CASES, FIXTURES, about, draws, given, probe

CLOSE = 1e-3
TRAINED = ("the run that goes on", "a run from the published weights")
DONE = ("the files", "the interrupted run", "the published weights", *TRAINED)


class Old:
    """What a kept run gave when it was kept, what it gives now, and whether the bits must be the same."""

    def __init__(self, name: str, folder: Path):
        self.then = json.loads((FIXTURES / name / "expected.json").read_text())
        work, cache = folder / "work", folder.parent / "cache"
        work.mkdir()
        before, environment = Path.cwd(), dict(os.environ)
        os.environ |= {"TRUNKLINE_CACHE": str(cache)}
        os.chdir(work)
        try:
            self.now = given(name, work, cache)
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)
        self.draws = draws() == self.then["draws"]
        self.bits = self.draws and probe() == self.then["probe"]
        if not self.bits:
            made = self.then["about"]
            warnings.warn(f"{name}: compared to a thousandth: made on {made}, here {about()}", stacklevel=1)


@pytest.fixture(scope="module", params=CASES)
def old(request, tmp_path_factory) -> Old:
    return Old(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("what", DONE)
def test_what_was_kept_gives_what_it_gave(old, what):
    then, now = without_minus_one(old.then["given"][what]), old.now[what]
    if old.bits:
        print("compared bit for bit")
        assert json.loads(json.dumps(now)).get("tensors") == then.get("tensors")
        assert json.loads(json.dumps(now)).get("told") == then.get("told")
        return
    if what in TRAINED and not old.draws:
        pytest.skip("random numbers are drawn otherwise here than where the fixtures were made")
    print("compared to a thousandth")
    if what == "the files":
        assert now == then, "the formula gives other numbers than it did"
    close(then.get("told"), now.get("told"), what)
    assert then.get("sketch", {}).keys() == now.get("sketch", {}).keys()
    for name, (norm, *numbers) in then.get("sketch", {}).items():
        enlarged = name.startswith("optimizer:")  # gradients come through batch norms, which enlarge rounding
        within = 10 * CLOSE if enlarged else CLOSE
        close([norm, *numbers], now["sketch"][name], name, least=norm, within=within)


def without_minus_one(told: Any) -> Any:
    """Leave out metrics of -1, COCO's mark for "none there": they are None now, which `metrics_of` does not take."""
    if isinstance(told, dict):
        metrics = {"metrics": {k: v for k, v in told["metrics"].items() if v != -1.0}} if "metrics" in told else {}
        return {key: without_minus_one(value) for key, value in told.items()} | metrics
    return [without_minus_one(value) for value in told] if isinstance(told, list) else told


def close(one: Any, other: Any, where: str, least: float = 1.0, within: float = CLOSE) -> None:
    """Compare two JSON values: numbers to a share `within` of themselves, or of `least` where they are smaller."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            close(one[key], other[key], f"{where}: {key}", least, within)
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            close(*pair, f"{where}: {i}", least, within)
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=within, abs_tol=within * least), f"{where}: {other}, it was {one}"
    else:
        assert one == other, where
