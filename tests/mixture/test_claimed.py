"""Settings of a task come and go with it when a run goes on; all others stay."""

import contextlib
import json
from pathlib import Path

import pytest

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.models.ready import Source, tasks_of
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipe.plain import to_plain
from trunkline.pipelines.runs.claiming import claim
from trunkline.pipelines.runs.run import STATE, Run
from trunkline.pipelines.training.progress import Progress
from trunkline.pipelines.training.train import changed_tasks

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
TWO, THREE = ("classification", "boxes"), ("classification", "boxes", "some")
OF_SOME = {
    "evaluation.nth.some": 2,
    "evaluation.patience_of.some": 3,
    "evaluation.single.some": "AP50:0.5",
    "optimizer.rates.some": 0.1,
    "phases.0.still": "boxes,some",
    "norms.some": "own",
    "loss_weights.some": 0.2,
    "mix.some": 2,
    "evaluation.metric": "some/AP50",
}
OF_TWO = {"phases.0.still": "boxes"}


def claimed(run: Path, names, **given) -> dict:
    """The recipe of a run that has learnt something, or is begun, as it goes on."""
    resolved = resolve(FILE, {"shared": False, "names": names, **given})
    document = claim(Run(run), {"recipe": "x", "knobs": {}, "resolved": to_plain(resolved.recipe), "auto": {}})
    (run / "checkpoints/000001").mkdir(parents=True, exist_ok=True)  # else it is begun anew
    (run / "checkpoints/000001/state.json").write_text("{}")
    (run / "checkpoints/last").write_text("000001")
    Run(run).write("recipe.json", document)
    return document["resolved"]


def test_a_task_brings_all_its_settings_and_takes_them_along(tmp_path):
    claimed(tmp_path / "run", TWO, **OF_TWO)
    found = claimed(tmp_path / "run", THREE, **OF_SOME)
    assert found["evaluation"]["nth"] == {"some": 2} and found["evaluation"]["metric"] == "some/AP50"
    claimed(tmp_path / "more", THREE, **OF_SOME)
    found = claimed(tmp_path / "more", TWO, **OF_TWO)
    assert found["evaluation"]["metric"] == "", "the metric of a task that is gone names no best checkpoint"
    found = claimed(tmp_path / "more", THREE, **{**OF_SOME, "evaluation.metric": "boxes/AP"})
    assert found["evaluation"]["metric"] == "boxes/AP" and found["optimizer"]["rates"] == {"some": 0.1}


@pytest.mark.parametrize(
    "given", [{"evaluation.nth.boxes": 2}, {"optimizer.rates.backbone": 0.1}, {"phases.0.still": ""}]
)
def test_settings_of_the_others_stay(given, tmp_path):
    claimed(tmp_path / "run", TWO, **OF_TWO)
    (key,) = given
    with pytest.raises(RecipeError, match=rf"  {key}: .* there, .* now"):
        claimed(tmp_path / "run", THREE, **{**OF_SOME, **given})
    with pytest.raises(RecipeError, match=r"evaluation.metric:  there, boxes/AP50 now"):
        claimed(tmp_path / "run", TWO, **OF_TWO, **{"evaluation.metric": "boxes/AP50"})


def test_what_tasks_reached_alone_may_come_later_unless_it_chooses_the_best(tmp_path):
    claimed(tmp_path / "run", TWO)
    later = {"evaluation.single.boxes": "AP50:0.5"}
    assert claimed(tmp_path / "run", TWO, **later)["evaluation"]["single"] == {"boxes": "AP50:0.5"}
    with pytest.raises(RecipeError, match=r"evaluation\.single\.boxes: AP50:0\.5 there, AP50:0\.6 now"):
        claimed(tmp_path / "run", TWO, **{"evaluation.single.boxes": "AP50:0.6"})
    chosen = {**later, "evaluation.metric": "all/mean_change"}
    claimed(tmp_path / "chosen", TWO, **chosen)
    with pytest.raises(RecipeError, match=r"evaluation\.single\.classification: not set there, 0\.9 now"):
        claimed(tmp_path / "chosen", TWO, **chosen, **{"evaluation.single.classification": "0.9"})


def test_a_table_that_was_empty_is_not_told_beside_what_stands_in_it_now(tmp_path):
    claimed(tmp_path / "run", TWO)
    for given in ({"evaluation.nth.boxes": 2}, {}):
        with pytest.raises(RecipeError) as told:
            claimed(tmp_path / "run", TWO, **given, **{"seed": 8})
        assert [line for line in str(told.value).splitlines() if line.startswith("  ")] == [
            *(["  evaluation.nth.boxes: not set there, 2 now"] if given else []),
            "  seed: 3 there, 8 now",
        ]


def test_a_task_of_which_nothing_is_saved_yet_is_told_as_that(tmp_path):
    run = Run(tmp_path / "run")
    claimed(run.path, TWO)
    state = {**dict.fromkeys(STATE, 0), "facts": {"tasks": {name: {} for name in TWO}}, "recipe": run.recipe}
    (run.checkpoints / "000001/state.json").write_text(json.dumps(state))
    document = {**run.recipe, "resolved": plain(THREE), "changes": [{"update": 1, "added": ["some"], "removed": []}]}
    run.write("recipe.json", document)
    told = r"it has classification, boxes \(it joined at update 1, and no checkpoint has it yet: go on with the run until one is"
    with pytest.raises(RecipeError, match=told):
        tasks_of(Source(str(run.path), task="some"))
    gone = [*document["changes"], {"update": 1, "added": [], "removed": ["some"]}]
    run.write("recipe.json", {**document, "resolved": plain(TWO), "changes": gone})
    with pytest.raises(
        RecipeError, match=r"it joined at update 1, it left at update 1, and no checkpoint with it is left\)"
    ):
        tasks_of(Source(str(run.path), task="some"))


def test_a_task_that_comes_back_begins_anew_and_so_does_a_mean_over_other_tasks():
    recipe = resolve(FILE, {"shared": False}).recipe
    best = {"update": 2, "value": 0.1, "metric": "all/mean_change"}
    progress = Progress(best=best, ended={"some": 3, "boxes": 2}, patient={"some": [0.1, 4]})
    state = {"facts": {"tasks": {name: {} for name in TWO}}, "phase": 0, "engine": {"updates": 4}}
    assert changed_tasks(recipe, progress, state) == (["some"], [])
    assert progress.ended == {"boxes": 2} and not progress.patient and progress.best is None


def plain(names, shared: tuple[str, ...] = (), **given) -> dict:
    recipe = resolve(FILE, {"shared": False, "names": names, **given}).recipe
    return {**to_plain(recipe), "shared_batch": [*shared]}


def test_the_first_task_stays_the_first(tmp_path):
    claimed(tmp_path / "run", THREE)
    with pytest.raises(
        RecipeError, match=r"in the order classification, boxes, some, and they are some, classification, "
    ):
        claimed(tmp_path / "run", ("some", "classification", "boxes"))
    with pytest.raises(RecipeError, match=r"the first one's epochs are the run's; give them as classification, boxes$"):
        claimed(tmp_path / "run", ("boxes", "classification"))


@pytest.mark.parametrize(
    ("before", "now", "goes"),
    [
        (("boxes", "some"), (), True),
        (("classification", "boxes", "some"), ("classification", "boxes"), True),
        (("classification+boxes+some",), ("classification", "boxes"), True),
        (("classification", "boxes", "some"), (), False),
        ((), ("classification", "boxes"), False),
    ],
)
def test_a_task_that_leaves_a_shared_batch_leaves_the_others_there(before, now, goes, tmp_path):
    claimed(tmp_path / "run", THREE)
    document = {"recipe": "x", "knobs": {}, "auto": {}}
    Run(tmp_path / "run").write("recipe.json", {**document, "resolved": plain(THREE, before)})
    with contextlib.nullcontext() if goes else pytest.raises(RecipeError, match=r"shared_batch: .* there"):
        claim(Run(tmp_path / "run"), {**document, "resolved": plain(TWO, now)})
