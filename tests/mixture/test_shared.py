"""Tasks that share batches, and balances of losses, against a loop written out by hand: the same bits, whoever computes."""

import os
from pathlib import Path

import pytest
import torch
from run_work import final
from shared_by_hand import by_hand

from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.pipelines.recipe.knobs import resolve

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "checkpoints.updates": 2}  # fmt: skip
UPDATES = 4
FORMS = {
    "fixed": {},
    "uncertainty": {"balance": "uncertainty"},
    "gradient_norm": {"balance": "gradient_norm"},
    "famo": {"balance": "famo", "shared": False},
    "norms": {"shared": False, "norms.boxes": "own", "norms.some": "frozen"},
    "frozen": {"norms.classification": "own", "norms.boxes": "frozen", "norms.some": "frozen"},
}


def resolved(**more):
    return resolve(FILE, {**PLAIN, "updates": UPDATES, **more})


def wrong(run: Path, wanted: dict[str, torch.Tensor]) -> list[str]:
    found = final(run)
    assert wanted.keys() <= found.keys()
    return [n for n in wanted if not torch.equal(wanted[n], found[n])]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def wanted(cache) -> dict[str, dict[str, torch.Tensor]]:
    torch.set_num_threads(1)
    return {form: by_hand(resolved(**given).recipe, UPDATES) for form, given in FORMS.items()}


LOST = ("uncertainty", "gradient_norm", "famo")
"""What one worker loses in the third update: a checkpoint after the second is left of it."""
CASES = [(form, zero) for form in FORMS for zero in (None, 0, 1)]
QUICK = [("uncertainty", 1), ("gradient_norm", None), ("norms", 1)]


@pytest.mark.parametrize(
    ("size", "cases"),
    [
        pytest.param(1, [(form, None) for form in ("fixed", "famo", "frozen")], id="1"),
        pytest.param(2, QUICK, id="2"),
        pytest.param(1, [(form, None) for form, _ in QUICK], id="1-all", marks=pytest.mark.slow),
        pytest.param(2, [case for case in CASES if case not in QUICK], id="2-all", marks=pytest.mark.slow),
        pytest.param(3, [case for case in CASES if case[1] != 1], id="3", marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_and_the_stages_that_can_are_the_loop_by_hand(size, cases, wanted, tmp_path, monkeypatch):
    """Of three workers one has classes and boxes, one classes, one boxes at the same time.

    What one worker trains with a balance it loses on the way, and a new engine goes on from what the checkpoint says.
    """
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    given = {k: str(v) for k, v in {**PLAIN, "updates": UPDATES}.items()}
    runs = [
        {"recipe": FILE, "given": {**given, **{k: str(v).lower() for k, v in FORMS[form].items()}},
         "run": str(tmp_path / f"{form}-{zero}"), "zero": zero,
         "lost": 3 if size == 1 and form in LOST else None}
        for form, zero in cases
    ]  # fmt: skip
    run_local(Job("run_work:several", {"runs": runs}, 120.0), size, tmp_path / "logs", 2)
    found = {(form, zero): wrong(tmp_path / f"{form}-{zero}", wanted[form]) for form, zero in cases}
    assert found == {case: [] for case in cases}
    for form, zero in cases if size == 1 else ():
        went_on = "going on from update 2" in (tmp_path / f"{form}-{zero}/metrics.jsonl").read_text()
        assert went_on == (form in LOST)
