"""Recipes: knobs, dotted keys, every mistake in its own words, and where each value came from."""

import dataclasses
import json
import subprocess
import sys

import pytest
from plugin_file import PLUGIN as TASK_FILE
from short_run import PLAIN

from trunkline.ground.errors import RecipeError
from trunkline.pipelines import api
from trunkline.pipelines.command.cli import _split, main
from trunkline.pipelines.recipe.fields import CHANGEABLE, batches_of
from trunkline.pipelines.recipe.knobs import recipe_function, resolve, walk
from trunkline.pipelines.recipe.plain import from_plain, to_plain
from trunkline.pipelines.recipes.table import RECIPES
from trunkline.pipelines.runs.claiming import changeable, claim
from trunkline.pipelines.runs.machine import resolve_machine
from trunkline.pipelines.runs.run import Run
from trunkline.tasks import table


def refused(recipe: str = "transfer", **given) -> list[str]:
    """The problems that these settings are refused with."""
    with pytest.raises(RecipeError) as told:
        resolve(recipe, given)
    assert str(told.value) == "\n".join(told.value.problems)
    return told.value.problems


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"epoch": "3"}, "epoch=3: there is no such setting; nearest: epochs"),
        ({"optimizer.lrr": "1"}, "optimizer.lrr=1: there is no such setting; nearest: optimizer.lr"),
        ({"optimiser.lr": "1"}, "optimiser.lr=1: there is no such setting; nearest: optimizer.lr"),
        ({"zzzz": "1"}, "zzzz=1: there is no such setting"),
        ({"batch": "many"}, "batch=many: expected a whole number or none"),
        ({"batch": "2.5"}, "batch=2.5: expected a whole number or none"),
        ({"lr": "fast"}, "lr=fast: expected a number or none"),
        ({"smoke": "perhaps"}, "smoke=perhaps: expected true or false"),
        ({"mode": "ful"}, "mode=ful: expected one of full, last, probe, append; nearest: full"),
        ({"on_bad_sample": "skipp"}, "on_bad_sample=skipp: expected one of stop, skip; nearest: skip"),
        ({"optimizer.lr": "fast"}, "optimizer.lr=fast: expected a number"),
        ({"schedule.name": "cosin"}, "schedule.name=cosin: expected one of constant, step, multistep, cosine, "),
        ({"network.norm": "bach"}, "network.norm=bach: expected one of batch, frozen, sync, group; nearest: batch"),
        ({"log.tensorboard": "on-ish"}, "log.tensorboard=on-ish: expected true or false"),
        ({"tasks.classification.scale": "1"}, "tasks.classification.scale=1: expected 2 numbers separated by commas"),
        ({"tasks.detection.data": "x"}, "tasks.detection.data=x: there is no such task; there are classification"),
        ({"batch": "16", "micro_batch": "5"}, "batch.micro=5 does not divide batch.size=16: choose one of [1, 2, 4, 8, 16]"),
        ({"batch": "0"}, "batch.size=0: expected a number above 0"),
        ({"batch": "-4"}, "batch.size=-4: expected a number above 0"),
        ({"lr": "0"}, "optimizer.lr=0.0: expected a number above 0"),
        ({"epochs": "-1"}, "phases.0.epochs=-1: the length of a phase must be above 0"),
        ({"epochs": "0"}, "phases.0.epochs=0: the length of a phase must be above 0"),
        ({"updates": "0"}, "phases.0.updates=0: the length of a phase must be above 0"),
        ({"phases.0.updates": "4"}, "phases.0: give either epochs or updates, not both"),
        ({"phases.0.frozen": "7"}, "phases.0.frozen=7: expected 0 (nothing) to 5 (the whole trunk)"),
        ({"phases.0.cached": "true", "tasks.classification.augment": "false"},
         "phases.0.cached=true needs phases.0.frozen=5: cached maps do not change"),
        ({"mode": "probe", "tasks.classification.augment": "true"}, "tasks.classification.augment=true cannot go with cached"),
        ({"ema": "1"}, "average.decay=1.0: expected 0 (none) to below 1"),
        ({"size": "0"}, "tasks.classification.size=0: expected a number of pixels from 1"),
        ({"epochs": "2", "updates": "3"}, "epochs=2 and updates=3 both say how long: give one of them"),
        ({"mode": "append", "weights": "none"}, "mode=append keeps the weights' own classifier: weights=none has none"),
    ],
)  # fmt: skip
def test_a_wrong_setting_says_what_was_expected(given, told):
    problems = refused(data="photos", **given)
    assert len(problems) == 1
    assert problems[0].startswith(told)


def test_data_that_is_missing_says_which_folders_are_wanted():
    assert refused() == ["data= is missing: give a folder with train/CLASS/ and val/CLASS/, or CLASS/ with val=0.2"]


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match=r"'transfr' is not a recipe; nearest: transfer; `trunkline list` shows them"):
        resolve("transfr", {})


def test_python_values_are_taken_as_they_are(tmp_path):
    given = {"data": tmp_path, "lr": 1, "tasks.classification.scale": [0.2, 1], "machine.loaders": 0}
    recipe = resolve("transfer", given).recipe
    options = recipe.tasks["classification"]
    assert (options.data, options.scale, recipe.optimizer.lr) == (str(tmp_path), (0.2, 1.0), 1.0)
    for key, value in {"batch": 2.5, "seed": True, "smoke": 1, "data": 3, "mode": None}.items():
        assert refused(**{"data": "photos", key: value})[0].startswith(f"{key}={value}: expected "), key


def test_several_problems_are_told_at_once():
    problems = refused(
        data="photos", batch="many", mode="ful", **{"optimizer.lrr": "1", "schedule.name": "x", "zz": "1"}
    )
    assert {p.split("=")[0] for p in problems} == {"batch", "mode", "optimizer.lrr", "schedule.name", "zz"}
    problems = refused(data="photos", lr="0", batch="6", micro_batch="4", ema="2")
    assert {p.split("=")[0].split()[0] for p in problems} == {"optimizer.lr", "batch.micro", "average.decay"}
    problems = refused(
        data="photos", seed="x", backbone="resnet19", **{"schedule.final": "-1", "optimizer.momentum": "5"}
    )
    assert {p.split("=")[0] for p in problems} == {"seed", "network.backbone", "schedule.final", "optimizer.momentum"}


def test_a_knob_and_a_dotted_key_of_the_same_field_collide():
    assert refused(data="photos", lr="0.1", **{"optimizer.lr": "0.2"}) == [
        "optimizer.lr=0.2 and lr=0.1 set the same field: give one of them"
    ]
    assert "batch.size=4 and batch=8 set the same field" in refused(data="photos", batch=8, **{"batch.size": 4})[0]
    assert "phases.0.epochs=4 and epochs=8.0 set" in refused(data="photos", epochs=8.0, **{"phases.0.epochs": 4})[0]


def test_a_dotted_key_beside_a_knob_that_sets_another_field_is_no_collision():
    recipe = resolve("transfer", {"data": "photos", "lr": "0.1", "optimizer.momentum": "0.5"}).recipe
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (0.1, 0.5)
    recipe = resolve("transfer", {"data": "photos", "mode": "probe", "optimizer.lr": "0.3"}).recipe
    assert (recipe.phases[0].frozen, recipe.optimizer.lr) == (5, 0.3)


@pytest.mark.parametrize(
    "words",
    [
        ["lr=0.02", "mode=probe", "on_bad_sample=skip", "optimizer.momentum=0.8"],
        ["--lr", "0.02", "--mode", "probe", "--on-bad-sample", "skip", "--optimizer.momentum", "0.8"],
        ["--lr=0.02", "--mode=probe", "--on-bad-sample=skip", "--optimizer.momentum=0.8"],
        ["--lr", "0.02", "mode=probe", "--on_bad_sample=skip", "optimizer.momentum=0.8"],
    ],
)
def test_every_spelling_means_the_same(words):
    plain, settings, problems = _split(["transfer", *words])
    assert plain == ["transfer"] and problems == []
    assert settings == {"lr": "0.02", "mode": "probe", "on_bad_sample": "skip", "optimizer.momentum": "0.8"}
    recipe = resolve("transfer", {"data": "photos", **settings}).recipe
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.phases[0].name) == (0.02, 0.8, "probe")


def test_a_value_may_hold_an_equals_sign_and_begin_with_a_minus():
    assert _split(["group=(a=b)_", "--out", "-x"])[1] == {"group": "(a=b)_", "out": "-x"}


def test_given_twice_and_without_a_value_are_told_together_with_the_rest(capsys):
    assert _split(["lr=1", "--lr", "2", "--seed"])[2] == ["lr: given twice (1 and 2)", "--seed: needs a value"]
    assert main(["train", "transfer", "lr=1", "lr=2", "epoch=3", "mode=ful", "data=x"]) == 2
    said = capsys.readouterr().err
    assert (
        "lr: given twice" in said
        and "epoch=3: there is no such setting" in said
        and "mode=ful: expected one of" in said
    )


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_a_smoke_variant(name):
    recipe = resolve(name, {"smoke": "true"}).recipe
    assert all(o.data in table.scenes() and o.data.endswith("smoke") for o in recipe.tasks.values())
    assert recipe.network.weights == "none"
    assert all(p.updates is not None and p.updates <= 4 and p.epochs is None for p in recipe.phases)
    assert all(batches_of(recipe, task).size <= 8 for task in recipe.tasks)


@pytest.mark.parametrize("mode", ["full", "last", "probe", "append"])
def test_every_mode_has_a_smoke_variant(mode):
    assert resolve("transfer", {"smoke": "true", "mode": mode}).recipe.phases[0].updates == 2


def test_the_modes_freeze_what_they_say():
    def frozen(mode: str) -> tuple:
        recipe = resolve("transfer", {"data": "photos", "mode": mode}).recipe
        options = recipe.tasks["classification"]
        return recipe.phases[0].frozen, recipe.phases[0].cached, options.augment, options.append

    assert frozen("full") == (0, False, True, False)
    assert frozen("last") == (4, False, True, False)
    assert frozen("probe") == (5, True, False, False)
    assert frozen("append") == (5, True, False, True)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_json(name):
    given = {"seed": 7, "optimizer.options": {"nesterov": False}, "schedule.milestones": "0.3,0.5"}
    given |= {"weights": "pixels.pth"} if name in ("srgan", "msrgan") else {}
    given |= {} if name == "demo-joint" else {"data": "photos"}
    first = {
        "multilabel": ("categories", "a,b", ("a", "b")),
        "classification": ("scale", "0.25,1", (0.25, 1.0)),
        "detection": ("sizes", "64,96", (64, 96)),
        "segmentation": ("class_weights", "0.5,1", (0.5, 1.0)),
        "super_resolution": ("together", "a+b,c+d", ("a+b", "c+d")),
        "action": ("resize", "128,171", (128, 171)),
        "events": ("thresholds", "0.2,0.4", (0.2, 0.4)),
    }
    tasks = {task: first[table.kind_of(task, options)] for task, options in resolve(name, given).recipe.tasks.items()}
    recipe = resolve(name, {**given, **{f"tasks.{task}.{key}": text for task, (key, text, _) in tasks.items()}}).recipe
    assert recipe.schedule.milestones == (0.3, 0.5)
    assert all(getattr(recipe.tasks[task], key) == value for task, (key, _, value) in tasks.items())
    again = from_plain(json.loads(json.dumps(to_plain(recipe))))
    assert again == recipe and type(again.schedule.milestones) is tuple


def test_stored_settings_that_do_not_fit_are_told_together():
    tree = to_plain(resolve("transfer", {"data": "photos"}).recipe)
    tree["optimizer"]["lr"] = "fast"
    tree["tasks"]["classification"]["flipp"] = 1
    tree["tasks"]["detektion"] = {}
    with pytest.raises(RecipeError) as told:
        from_plain(tree)
    assert [p.split(":")[0].split("=")[0] for p in told.value.problems] == [
        "tasks.classification.flipp", "tasks.detektion", "optimizer.lr",
    ]  # fmt: skip


def test_free_options_of_the_optimizer_take_any_key():
    recipe = resolve(
        "transfer", {"data": "photos", "optimizer.name": "adamw", "optimizer.options.betas": "0.8,0.9"}
    ).recipe
    assert recipe.optimizer.options == {"betas": [0.8, 0.9]}


PLUGIN = """
from trunkline.pipelines.recipe import Recipe, Network, Phase
from trunkline.tasks.classification.options import Options


def mine(data: str = "photos", length: int = 3) -> Recipe:
    \"\"\"A recipe of my own.\"\"\"
    return Recipe({"classification": Options(data=data)}, Network("resnet34"), phases=(Phase(updates=length),))


def another() -> Recipe:
    return Recipe({"classification": Options(data="other")}, Network("resnet18"))


number = 3
"""


def test_a_recipe_can_stand_in_ones_own_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    recipe = resolve(str(tmp_path / "mine.py"), {"length": "5", "optimizer.lr": "0.5"}).recipe
    assert (recipe.network.backbone, recipe.phases[0].updates, recipe.optimizer.lr) == ("resnet34", 5, 0.5)
    assert resolve(f"{tmp_path}/mine.py:another", {}).recipe.network.backbone == "resnet18"
    monkeypatch.chdir(tmp_path)
    shown = api.show("mine.py", data="here")
    assert shown.about == "A recipe of my own."
    assert ("tasks.classification.data", "here", "data=here") in shown.rows
    with pytest.raises(RecipeError, match=r"mine\.py: holds no function 'number'"):
        resolve("mine.py:number", {})
    with pytest.raises(RecipeError, match=r"yours\.py: there is no such recipe file"):
        resolve("yours.py", {})


def test_a_task_can_stand_in_ones_own_file(scenes, tmp_path, capsys):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(TASK_FILE)
    own = [f"data={scenes}", f"log={tmp_path / 'log'}", "network.backbone=narrow"]
    words = ["train", str(file), *own, *PLAIN, "--run", str(run)]
    assert main(words) == 0 and main(words) == 0
    assert json.loads((run / "recipe.json").read_text())["resolved"]["tasks"]["named"]["size"] == 32
    capsys.readouterr()
    evaluated = ["evaluate", str(run), "loaders=0", "--json"]
    assert main([*evaluated, f"plugin={file}"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 20
    done = subprocess.run([sys.executable, "-m", "trunkline", *evaluated], capture_output=True, text=True)
    assert done.returncode == 2
    assert "tasks.named: there is no such task; of a recipe file's own task, give plugin=FILE" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TASKS = {'a': int}", r"TASKS: a: expected a Row\(class, options\)"),
        ("TASKS = {'classification': int}", "TASKS: classification: there is one of this name already"),
        ("TASKS = ['a']", "TASKS: expected a dict by name"),
        ("BACKBONES = {'resnet18': int}", "BACKBONES: resnet18: there is one of this name already"),
        ("import nothing_like_it", r"mine.py:1: ModuleNotFoundError: .*this recipe's own code fails"),
    ],
)
def test_mistakes_in_ones_own_file(tmp_path, text, says):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RecipeError, match=says):
        resolve(str(tmp_path / "mine.py"), {})


def test_show_says_where_every_value_came_from():
    shown = api.show("transfer", data="photos", lr="0.3", **{"optimizer.momentum": "0.5"})
    rows = {key: (value, origin) for key, value, origin in shown.rows}
    assert rows["optimizer.lr"] == (0.3, "lr=0.3")
    assert rows["optimizer.momentum"] == (0.5, "optimizer.momentum=0.5")
    assert rows["tasks.classification.data"] == ("photos", "data=photos")
    assert rows["batch.size"] == (16, "recipe")
    assert rows["schedule.power"] == (0.9, "default")
    assert rows["phases.0.epochs"] == (8, "recipe")
    machine, why = resolve_machine(resolve("transfer", {"data": "photos"}).recipe.machine)
    for key, (value, reason) in why.items():
        assert rows[key] == (value, f"auto: {reason}")
        assert reason and value == getattr(machine, key.partition(".")[2]) != "auto"
    assert "machine.device" in why and "machine.precision" in why
    assert api.show("transfer", data="photos", **{"machine.precision": "fp32"}).to_json()["machine.precision"] == {
        "value": "fp32", "from": "machine.precision=fp32",
    }  # fmt: skip


def test_a_mode_is_named_as_the_origin_of_all_that_it_sets():
    rows = {key: origin for key, _, origin in api.show("transfer", data="photos", mode="probe").rows}
    assert {key for key, origin in rows.items() if origin == "mode=probe"} >= {
        "phases.0.frozen", "phases.0.cached", "phases.0.name", "phases.0.epochs", "batch.size",
        "tasks.classification.augment",
    }  # fmt: skip
    assert rows["optimizer.momentum"] == "default"


def test_every_field_is_shown_once():
    shown = api.show("transfer", data="photos")
    keys = [key for key, _, _ in shown.rows]
    assert len(keys) == len(set(keys))
    assert keys == [key for key, _ in walk(resolve("transfer", {"data": "photos"}).recipe)]


def test_show_of_a_recipe_that_needs_data_works_without_but_not_of_a_wrong_one():
    assert dict((k, v) for k, v, _ in api.show("transfer").rows)["tasks.classification.data"] == "FOLDER"
    with pytest.raises(RecipeError, match="epoch=1: there is no such setting"):
        api.show("transfer", epoch=1)


def claimed(run: Run, **given) -> dict:
    resolved = resolve("transfer", {"data": "photos", "smoke": True, **given})
    machine, why = resolve_machine(resolved.recipe.machine)
    recipe, auto = dataclasses.replace(resolved.recipe, machine=machine), {k: list(v) for k, v in why.items()}
    return claim(run, {"recipe": resolved.name, "knobs": resolved.given, "resolved": to_plain(recipe), "auto": auto})


CHANGED = {"phases.0.updates": 9, "data": "moved", "weights": "none", "machine.loaders": 2, "evaluation.batch": 7,
           "evaluation.patience": 3, "checkpoints.updates": 5, "checkpoints.keep": 9, "checkpoints.minutes": 1,
           "log.every": 3, "log.tensorboard": False}  # fmt: skip


@pytest.mark.parametrize("key", CHANGED)
def test_what_may_change_when_a_run_goes_on(key, tmp_path):
    claimed(Run(tmp_path / "run"))
    document = claimed(Run(tmp_path / "run"), **{key: CHANGED[key]})
    assert Run(tmp_path / "run").recipe["resolved"] == document["resolved"]
    field = {"data": "tasks.classification.data", "weights": "network.weights"}.get(key, key)
    assert changeable(field)
    assert dict(walk(from_plain(document["resolved"])))[field] == CHANGED[key]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("lr", 0.5, "optimizer.lr: 0.005 there, 0.5 now"),
        ("batch.size", 4, "batch.size: 8 there, 4 now"),
        ("seed", 3, "seed: 0 there, 3 now"),
        ("mode", "probe", "phases.0.frozen: 0 there, 5 now"),
        ("evaluation.precision", "bf16", "evaluation.precision: fp32 there, bf16 now"),
        ("tasks.classification.flip", 0.1, "tasks.classification.flip: 0.5 there, 0.1 now"),
        ("network.norm", "frozen", "network.norm: batch there, frozen now"),
    ],
)
def test_what_may_not_change_is_named_with_both_values(key, value, told, tmp_path):
    run = Run(tmp_path / "run")
    before = claimed(run)
    run.checkpoints.mkdir()
    (run.checkpoints / "000001").mkdir()
    (run.checkpoints / "000001" / "state.json").write_text("{}")
    (run.checkpoints / "last").write_text("000001")
    with pytest.raises(RecipeError, match="holds a run of another recipe; choose another --run") as error:
        claimed(run, **{key: value})
    assert told in str(error.value)
    assert run.recipe["resolved"] == before["resolved"]


def test_every_changeable_pattern_names_a_field():
    fields = [key for key, _ in walk(resolve("transfer", {"data": "photos"}).recipe)]
    for pattern in CHANGEABLE:
        parts = pattern.split(".")
        matching = [f for f in fields if len(f.split(".")) == len(parts)
                    and all(p in ("*", q) for p, q in zip(parts, f.split("."), strict=True))]  # fmt: skip
        assert matching, pattern
    assert not changeable("optimizer.lr") and not changeable("seed") and not changeable("batch.size")


def test_the_recipes_say_what_they_do_in_one_line():
    told = api.recipes()
    assert set(told) >= set(RECIPES)
    assert all(line.endswith(".") and 20 < len(line) < 100 for line in told.values())
    assert all(recipe_function(name).__doc__ for name in told)


def test_a_knob_that_a_recipe_needs_and_free_options_are_told(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from trunkline.pipelines.recipes.transfer import transfer\n\n\n"
        "def mine(data: str, smoke: bool = False):\n    return transfer(data=data, weights='none')\n"
    )
    with pytest.raises(RecipeError, match="data= is missing"):
        resolve(str(file), {})
    shown = resolve("transfer", {"data": "x", "optimizer.options.eps": "1e-6"})
    assert shown.origin["optimizer.options"] == "optimizer.options.eps=1e-6"
