"""Three tasks on one trunk beside three models: the smallest measurement, and what is asked of the real one."""

import pytest

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.bench.bench import options

TINY = {"backbone": "narrow", "size": 64, "rounds": 1, "threads": 1, "device": "cpu"}


def ratios(found) -> dict[str, float]:
    return {row["name"]: row["ratio"] for row in found.rows}


def test_every_row_is_measured_and_outputs_are_equal():
    found = options("joint")(**TINY, processor=True)
    assert len(ratios(found)) == 6 and all(ratio > 0 for ratio in ratios(found).values())
    assert found.settings["outputs equal in fp32"] is True and found.settings["objects compared"] > 0
    assert 0.3 < found.settings["parameters, to those of three models"] < 1
    assert all(len(parts) == 8 for parts in found.settings["seconds"].values())


def test_a_setting_that_cannot_be_measured_is_named():
    with pytest.raises(RecipeError, match=r"rounds=0: expected a number above 0\nthreads=0: expected"):
        options("joint")(**{**TINY, "rounds": 0, "threads": 0})


@pytest.mark.slow  # five minutes of two cores; the processor's time, as others may use the machine
def test_a_joint_model_costs_what_its_trunk_and_heads_cost():
    found = options("joint")(rounds=3, processor=True, device="cpu")
    print(f"\n{found}")
    measured = ratios(found)
    for mode in ("predict", "train"):
        assert measured[f"{mode}: joint to three models"] >= 1.6
        assert measured[f"{mode}: share of the bound: joint to trunk and each head"] >= 0.95
    assert found.settings["parameters, to those of three models"] <= 0.5 and found.settings["outputs equal in fp32"]
