"""Many processes against one: the same micro-batches, the same bits, on every engine that promises them."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from group_work import UPDATES, Row, run
from safetensors.torch import load_file

from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.cluster.workers import Workers

pytest.importorskip("deepspeed")
PARTS = ("model", "ema", "optimizer")
EXACT = (None, 0, 1)


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )


def alone(row: Row, root: Path) -> Path:
    """What one process that accumulates makes of it."""
    row = replace(row, zero=None)
    folder = root / row.named(1)
    if not folder.exists():
        run(row, Workers(), folder)
    return folder


def together(rows: list[dict], workers: int, root: Path) -> None:
    """All rows on one set of worker processes."""
    assert run_local(Job("group_work:table", {"rows": rows}, 120.0), workers, root / "logs", 2) == len(rows)


def difference(a: Path, b: Path) -> float:
    """The largest difference of anything that a checkpoint holds; 0 means the same bits."""
    worst = 0.0
    for part in PARTS:
        one, other = load_file(a / f"{part}.safetensors"), load_file(b / f"{part}.safetensors")
        assert one.keys() == other.keys()
        for name in one:
            if not torch.equal(one[name], other[name]):
                worst = max(worst, float((one[name].double() - other[name].double()).abs().max()), 1e-300)
    return worst


def compare(rows: list[Row], workers: int, root: Path) -> dict[str, float]:
    folders = {row.named(workers): root / f"group-{row.named(workers)}" for row in rows}
    references = [alone(row, root) for row in rows]
    together([{"row": asdict(row), "folder": str(folders[row.named(workers)])} for row in rows], workers, root)
    return {
        row.named(workers): difference(reference, folders[row.named(workers)])
        for row, reference in zip(rows, references, strict=True)
    }


def test_two_workers_end_with_the_bits_of_one(tmp_path):
    rows = [Row(zero, "adamw", "batch", 4, 0.5, channels_last=True, trunk="pixel") for zero in EXACT]
    rows += [Row(zero, "sgd", "frozen", 2, 0.0, gentle=True) for zero in (2, 3)]
    rows += [Row(None, "sgd", "batch", 1, 0.5, precision="fp16")]  # one worker has no micro-batch
    assert compare(rows, 2, tmp_path) == {row.named(2): 0.0 for row in rows}


@pytest.mark.slow
def test_three_workers_end_with_the_bits_of_one_where_they_do_not_divide_the_micro_batches(tmp_path):
    rows = [Row(None, "sgd", "batch", 4, 0.5), Row(0, "adamw", "frozen", 2, 0.5)]
    assert compare(rows, 3, tmp_path) == {row.named(3): 0.0 for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_the_whole_table(tmp_path, workers):
    """Optimizers, norms, 2, 4 and 6 micro-batches and both memory formats, clipped."""
    kinds = [(o, n) for o in ("sgd", "adamw") for n in ("batch", "frozen")]
    zeros = EXACT if workers == 2 else EXACT[:2]
    rows = [Row(z, o, n, m, 0.5, n == "batch", trunk="resnet18") for z in zeros for o, n in kinds for m in (2, 4, 6)]
    found = compare(rows, workers, tmp_path)
    assert {name: d for name, d in found.items() if d} == {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_the_stages_that_reduce_by_themselves(tmp_path, workers):
    """Bit for bit with two micro-batches and no clipping, to rounding otherwise."""
    kinds = [(o, n) for o in ("sgd", "adamw") for n in ("batch", "frozen")]
    exact = [Row(z, o, n, 2, 0.0, gentle=True) for z in (2, 3) for o, n in kinds] if workers == 2 else []
    near = [Row(z, o, n, m, 0.5, gentle=True) for z in (2, 3) for o, n in kinds for m in (2, 4, 6)]
    found = compare(exact + near, workers, tmp_path)
    print(json.dumps(found, indent=1))
    assert {name: d for name, d in found.items() if d}.keys() <= {row.named(workers) for row in near}
    assert {name: d for name, d in found.items() if d > 1e-5} == {}


@pytest.mark.slow
def test_a_checkpoint_of_any_engine_goes_on_in_any_other(tmp_path):
    """Three updates in one, three in another; bit for bit with one process where both are exact."""
    rows = {z: Row(z, "adamw", "batch", 2, 0.0) for z in (None, 0, 1, 2, 3)}
    halves = {z: tmp_path / f"half-{z}" for z in rows}
    alone_half = tmp_path / "half-alone"
    run(rows[None], Workers(), alone_half, 0, 3)
    together([{"row": asdict(r), "folder": str(halves[z]), "last": 3} for z, r in rows.items()], 2, tmp_path)
    pairs = [(a, b) for a in [*rows, "alone"] for b in rows]
    ends = {(a, b): tmp_path / f"end-{a}-{b}" for a, b in pairs}
    together([{"row": asdict(rows[b]), "folder": str(ends[a, b]), "first": 3, "last": UPDATES,
               "begin": str(alone_half if a == "alone" else halves[a])} for a, b in pairs], 2, tmp_path)  # fmt: skip
    for a in rows:
        ends[a, "alone"] = tmp_path / f"end-{a}-alone"
        run(rows[None], Workers(), ends[a, "alone"], 3, UPDATES, halves[a])
    reference = alone(rows[None], tmp_path)
    assert {pair: d for pair, folder in ends.items() if (d := difference(reference, folder))} == {}
