"""Settings as they are given: options by their short names, and what a smoke run leaves as it is."""

import pytest

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.recipe.knobs import resolve, walk
from trunkline.pipelines.recipe.plain import to_plain
from trunkline.pipelines.runs.claiming import claim
from trunkline.pipelines.runs.run import Run


def test_a_run_of_another_recipe_is_refused_in_a_line(tmp_path):
    documents = []
    for name in ("transfer", "upscale"):
        found = resolve(name, {"data": "photos", "val": "0.1"})
        documents.append({"recipe": name, "knobs": found.given, "resolved": to_plain(found.recipe), "auto": {}})
    claim(Run(tmp_path / "run"), documents[0])
    (tmp_path / "run/checkpoints/000001").mkdir(parents=True)  # else it has not begun, and is begun anew
    (tmp_path / "run/checkpoints/000001/state.json").write_text("{}")
    (tmp_path / "run/checkpoints/last").write_text("000001")
    with pytest.raises(RecipeError) as error:
        claim(Run(tmp_path / "run"), documents[1])
    assert str(error.value) == (
        f"{tmp_path / 'run'}: holds a run of another recipe (transfer there, upscale now); choose another --run"
    )


def test_an_option_of_the_one_task_is_given_by_its_name():
    given = {"data": "photos", "val": "0.1"}
    told = resolve("upscale", {**given, "train_lr": "LQ", "border": "replicate", "on_bad_sample": "skip"})
    options = told.recipe.tasks["super_resolution"]
    assert (options.train_lr, options.border, options.on_bad_sample) == ("LQ", "replicate", "skip")
    assert told.origin["tasks.super_resolution.border"] == "border=replicate"
    assert told.origin["tasks.super_resolution.edge"] == "default"
    assert told.given["border"] == "replicate"
    against = resolve("upscale", {**given, "adversarial": "2", "adversarial.pixel": "0.5"})
    assert against.recipe.tasks["super_resolution"].adversarial.pixel == 0.5
    for settings, said in (
        (
            {"border": "mirror", "tasks.super_resolution.border": "replicate"},
            "border=mirror and tasks.super_resolution.border set the same field: give one of them",
        ),
        ({"border": "4"}, "border=4: expected one of mirror, replicate; edge= says how many pixels"),
        (
            {"crop": "32", "tasks.super_resolution.crop": "64"},
            "tasks.super_resolution.crop=64 and crop=32 set the same field: give one of them",
        ),
        ({"adversarial.pixel": "1"}, "adversarial.pixel=1: there is no such setting"),
        ({"bordr": "mirror"}, "bordr=mirror: there is no such setting; nearest: border"),
    ):
        with pytest.raises(RecipeError) as error:
            resolve("upscale", {**given, **settings})
        assert any(problem.startswith(said) for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize(
    ("recipe", "field", "given", "shrunk", "usual"),
    [
        ("upscale", "tasks.super_resolution.crop", "crop=64", 32, 96),
        ("upscale", "batch.size", "batch=8", 4, 16),
        ("detect", "tasks.detection.size", "size=96", 64, 640),
        ("detect", "batch.size", "batch=3", 2, 4),
        ("segment", "tasks.segmentation.crop", "crop=96", 64, 512),
        ("segment", "batch.size", "batch=3", 2, 8),
        ("action", "tasks.action.frames", "frames=6", 4, 16),
    ],
)
def test_a_smoke_run_shrinks_what_is_not_given_alone(recipe, field, given, shrunk, usual):
    key, _, value = given.partition("=")

    def found(**settings: str):
        return dict(walk(resolve(recipe, settings).recipe))[field]

    assert found(smoke="true", **{key: value}) == int(value)
    assert (found(smoke="true"), found(data="photos")) == (shrunk, usual)
