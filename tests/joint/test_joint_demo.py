"""The demonstration of several tasks on one trunk: together each reaches what it reaches alone on as many of its samples."""

import json
import statistics
import time

import pytest

import trunkline
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.tools.demo import scores_of

FLOORS = {"classification/top1": 0.9, "boxes/AP50": 0.5, "pixels/mIoU": 0.6, "clips/video_top1": 0.8}
"""What each reaches alone, set before anything was run."""
WITHIN = 0.95
SECONDS = 2 * 15 * 60
"""Of a processor, for a run together: fifteen minutes of two cores, which it uses evenly (ten and a half by the clock)."""
SEEDS = (0, 1, 2)


def test_a_smoke_run_of_all_and_of_one(tmp_path, capsys, one_core):
    assert main(["demo", str(tmp_path / "demo"), "tasks=all", "smoke=true", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {*FLOORS} < {*scores} and (tmp_path / "demo/joint/report.html").is_file()
    recipe = json.loads((tmp_path / "demo/joint/recipe.json").read_text())
    assert recipe["resolved"]["network"]["wrapper"] == "frames" and recipe["recipe"] == "demo-joint"
    runs = trunkline.demo(tmp_path / "demo", tasks=("clips",), smoke=True)
    assert [*runs] == ["clips"] and runs["clips"].path.name == "alone-clips" and "video_top1" in runs["clips"].scores
    assert scores_of(runs)["video_top1"] == runs["clips"].scores["video_top1"]


def test_what_cannot_learn_with_the_others_is_refused_with_the_reason(tmp_path):
    with pytest.raises(RecipeError) as told:
        trunkline.demo(tmp_path / "demo", tasks=("clips", "super_resolution", "boxs"))
    assert [problem.partition(": ")[0] for problem in told.value.problems] == ["tasks=super_resolution", "tasks=boxs"]
    assert "(stride 1)" in told.value.problems[0] and "nearest: boxes" in told.value.problems[1]
    with pytest.raises(RecipeError, match=r"tasks=boxes,boxes: boxes stands there twice"):
        resolve("demo-joint", {"tasks": "boxes,boxes"})
    with pytest.raises(RecipeError, match=r"epochs=2: with tasks= the length is counted in updates"):
        trunkline.demo(tmp_path / "demo", tasks=("all",), epochs=2)


def test_one_task_alone_has_the_settings_that_it_has_with_the_others():
    together = resolve("demo-joint", {}).recipe
    for name, options in together.tasks.items():
        alone = resolve("demo-joint", {"tasks": name}).recipe
        assert alone.tasks == {name: options} and alone.batch == together.batches[name]
        assert (alone.phases, alone.optimizer, alone.network) == (together.phases, together.optimizer, together.network)


@pytest.mark.slow  # a hundred minutes of one core
def test_together_each_task_reaches_what_it_reaches_alone(tmp_path):
    plain = {"machine.threads": 1, "log.tensorboard": False}
    together: dict[str, list[float]] = {name: [] for name in FLOORS}
    alone: dict[str, list[float]] = {name: [] for name in FLOORS}
    seconds = []
    for seed in SEEDS:
        start = time.process_time()
        run = trunkline.train("demo-joint", tmp_path / f"joint-{seed}", seed=seed, **plain)
        seconds.append(time.process_time() - start)
        for name in FLOORS:
            task, _, metric = name.partition("/")
            one = trunkline.train("demo-joint", tmp_path / f"{task}-{seed}", tasks=task, seed=seed, **plain)
            together[name].append(run.scores[name])
            alone[name].append(one.scores[metric])
    medians = {name: (statistics.median(together[name]), statistics.median(alone[name])) for name in FLOORS}
    print(f"\nseconds of one core, together: {', '.join(f'{s:.0f}' for s in seconds)}")
    for name, (joint, one) in medians.items():
        lists = [" ".join(f"{value:.3f}" for value in found[name]) for found in (together, alone)]
        print(f"{name:22} together {joint:.3f} ({lists[0]})   alone {one:.3f} ({lists[1]})   ratio {joint / one:.3f}")
    assert max(seconds) <= SECONDS
    assert {name: alone for name, (_, alone) in medians.items() if alone < FLOORS[name]} == {}
    assert {name: pair for name, pair in medians.items() if pair[0] < WITHIN * pair[1]} == {}
