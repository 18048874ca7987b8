"""Together against alone, seed by seed: what is compared, on which pictures, and what is refused before anything is trained."""

import json
import math
from pathlib import Path

import pytest

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.bench import bench_sharing as sharing
from trunkline.pipelines.bench.bench import options

BALANCES = ("fixed", "uncertainty", "gradient_norm", "famo")


def voc(folder: Path, masks: str = "a\nb\n") -> Path:
    for kind, names in (("Main", "a\nb\n"), ("Segmentation", masks)):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        for split in ("train", "val"):
            (folder / "ImageSets" / kind / f"{split}.txt").write_text(names)
    return folder


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, object]]:
    """Scores of made-up runs: alone 0.5 and more by seed; together a tenth better, and a fifth with FAMO."""
    found = []

    def train(recipe, name, folder):
        found.append((name, recipe))
        folder.mkdir(parents=True)
        base = 0.5 + recipe.seed / 10
        better = {"famo": 1.2}.get(name, 1.1)
        scores = (
            {sharing.METRICS[name]: base}
            if name in sharing.METRICS
            else {f"{t}/{m}": base * better for t, m in sharing.METRICS.items()}
        )
        (folder / "scores.json").write_text(json.dumps(scores))
        known = None if recipe.seed and name == "famo" else 10.0 + recipe.seed  # one was killed in between
        (folder / "cost.json").write_text(json.dumps({"seconds": known, "peak_mib": 100.0}))

    monkeypatch.setattr(sharing, "run_apart", train)
    return found


def test_each_alone_and_each_balance_are_compared_by_seed(trained, tmp_path):
    given = {"data": str(voc(tmp_path / "voc")), "weights": "none", "out": str(tmp_path / "out"), "updates": 4}
    found = options("sharing")(**given, seeds=2)
    assert [name for name, _ in trained] == [*sharing.METRICS, *BALANCES] * 2
    for name, recipe in trained:
        assert recipe.phases[0].updates == 4 and recipe.batch.size == 4
        together = recipe.batches or {n: recipe.batch for n in recipe.tasks}
        assert {n: b.size for n, b in together.items()} == dict.fromkeys(recipe.tasks, 4), "as many samples of each"
        assert recipe.balance == (name if name in BALANCES else "fixed")
        assert list(recipe.tasks) == ([name] if name in sharing.METRICS else list(sharing.METRICS))
    assert found.pairs["famo"]["detection"] == [pytest.approx((0.5, 0.6)), pytest.approx((0.6, 0.72))]
    assert found.changes["fixed"] == [pytest.approx(0.1)] * 2
    assert [found.costs[name]["seconds"] for name in ("detection", "famo")] == [10.5, 10.0]
    assert "three runs alone: 32 processor seconds, 100 MiB at most" in str(found)
    assert "mean relative change   +20.0% (+20.0% to +20.0%)" in str(found) and found.to_json()["intervals"]["famo"]


def test_the_interval_is_students():
    low, high = sharing.interval([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.303 / math.sqrt(3)), pytest.approx(2 + 4.303 / math.sqrt(3)))


def test_pictures_without_masks_and_runs_of_other_settings_are_refused_before_anything(trained, tmp_path):
    bench, whole = options("sharing"), voc(tmp_path / "voc")
    with pytest.raises(RecipeError) as told:
        bench(data=str(voc(tmp_path / "few", "a\n")), out=str(tmp_path / "out"))
    assert "train: 2 pictures are in ImageSets/Main and 1 in ImageSets/Segmentation, 1 in one" in told.value.problems[0]
    with pytest.raises(RecipeError, match=r"Main/train.txt: is not there"):
        bench(data=str(tmp_path / "nothing"), out=str(tmp_path / "out"))
    given = {"data": str(whole), "weights": "none", "out": str(tmp_path / "out"), "seeds": 1}
    bench(**given, updates=4)
    trained.clear()
    with pytest.raises(RecipeError, match=r"updates=6: the runs in .*out have 4; give that, or another out="):
        bench(**given, updates=6)
    assert trained == []
