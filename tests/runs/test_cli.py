"""The command line: what it prints, where, with which exit code, and how soon."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from short_run import PLAIN

from trunkline.backbones.table import architectures
from trunkline.pipelines.bench.bench import BENCHES
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.command.usage import VERBS
from trunkline.pipelines.recipes.table import RECIPES

pytestmark = pytest.mark.usefixtures("one_core")

SMOKE = ["smoke=true", "backbone=narrow"]


def told(capsys, *words: str, code: int = 2) -> str:
    """The message of a refused command: nothing on stdout, no traceback."""
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.startswith("trunkline: ")
    return err.removeprefix("trunkline: ").rstrip("\n")


def printed(capsys, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    return capsys.readouterr().out


def printed_json(capsys, *words: str, code: int = 0):
    """The one JSON document on stdout."""
    return json.loads(printed(capsys, *words, "--json", code=code))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    """A smoke run made by the command line."""
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "transfer", f"data={scenes}", *SMOKE, "--run", str(path), *PLAIN]) == 0
    return path


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb_and_the_exit_codes(words, capsys):
    text = printed(capsys, *words)
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert "Exit codes: 0 done, 2 your mistake, 1 ours" in text


def test_help_names_all_that_can_be_measured(capsys):
    assert VERBS["bench"][0].split("|") == list(BENCHES)
    assert f"what to measure ({', '.join(BENCHES)})" in told(capsys, "bench")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    text = printed(capsys, verb, "--help")
    assert text.startswith(f"trunkline {verb}")
    assert VERBS[verb][1] in text
    own = {"evaluate": "checkpoint", "predict": "on_bad_sample", "check": "loaders", "bench": "rounds", "demo": "smoke",
           "train": "--run DIR", "profile": "profile_updates", "show": "A recipe's settings"}  # fmt: skip
    assert own.get(verb, "") in text


def test_help_of_a_recipe_shows_its_knobs(capsys):
    text = printed(capsys, "train", "transfer", "--help")
    for line in ("mode           one of full, last, probe, append (default: full)", "lr             a number or none",
                 "Fine-tune published weights", "--run"):  # fmt: skip
        assert line in text
    assert "smoke   true or false (default: False)" in printed(capsys, "show", "demo", "--help")


@pytest.mark.parametrize("words", [("train",), ("train", "transfer"), ("evaluate",), ("predict",)])
def test_help_shows_where_workers_come_from(words, capsys):
    assert "workers      a whole number or 2 numbers separated by commas" in printed(capsys, *words, "--help")


def test_version(capsys):
    import trunkline

    assert printed(capsys, "--version") == f"trunkline {trunkline.__version__}\n"


def test_list(capsys):
    text = printed(capsys, "list")
    assert all(f"\n  {name} " in text for name in RECIPES)
    assert ", ".join(architectures()) in text
    found = printed_json(capsys, "list")
    assert set(found["recipes"]) >= set(RECIPES)
    assert found["architectures"] == architectures()
    assert {"classification", "detection", "segmentation"} <= set(
        found["tasks"]
    )  # other tests' plug-ins may be known too


def test_show(capsys):
    lines = printed(capsys, "show", "transfer", "data=photos", "lr=0.25").splitlines()
    assert lines[0] == "Fine-tune published weights on a folder of classes."
    fields = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if "." in line.split(" ")[0]}
    assert fields["optimizer.lr"] == ["0.25", "lr=0.25"]
    assert fields["machine.device"][1].startswith("auto: ")
    found = printed_json(capsys, "show", "transfer", "--lr", "0.25")
    assert found["optimizer.lr"] == {"value": 0.25, "from": "lr=0.25"}
    assert found["machine.threads"]["from"].startswith("auto: ")


def test_doctor(capsys):
    text = printed(capsys, "doctor")
    found = printed_json(capsys, "doctor")
    assert found["fit"] is True
    names = [f["name"] for f in found["findings"]]
    assert {"python", "packages", "operators", "device", "memory", "disk", "cache", "codecs", "determinism"} <= set(
        names
    )
    assert len(text.splitlines()) == len(names)
    assert all(f["state"] in ("ok", "note") and f["text"] for f in found["findings"])


def test_doctor_says_what_is_bad_and_goes_on(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    found = printed_json(capsys, "doctor", code=2)
    assert found["fit"] is False
    assert [f["name"] for f in found["findings"] if f["state"] == "bad"] == ["cache"]


def test_check(capsys, scenes, tmp_path):
    import shutil

    found = printed_json(capsys, "check", str(scenes), "workers=0")
    assert found["ok"] is True and found["files"] == 60 and found["problems"] == []
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    victim = sorted((data / "train").rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    found = printed_json(capsys, "check", str(data), "workers=0", code=2)
    assert [p["file"] for p in found["problems"]] == [victim.relative_to(data).as_posix()]
    assert victim.name in printed(capsys, "check", str(data), "--workers", "0", code=2)
    assert "there is no such folder" in told(capsys, "check", str(tmp_path / "absent"))


def test_profile(capsys, scenes, tmp_path):
    trace = tmp_path / "traces" / "trace.json"
    words = ["profile", "transfer", *SMOKE, f"data={scenes}", "updates=9", *PLAIN, "profile_updates=2"]
    found = printed_json(capsys, *words, f"out={trace}")
    assert found["updates"] == 2 and found["trace"] == str(trace)
    assert {"wait", "forward", "backward", "rest"} <= set(found["parts"])
    assert all(s >= 0 for s in found["parts"].values())
    assert sum(found["parts"].values()) == pytest.approx(found["seconds"], rel=0.05)
    assert found["images_per_second"] == pytest.approx(8 / found["seconds"])
    assert 0 <= found["wait"] < 1
    assert json.loads(trace.read_text())["traceEvents"]
    words[-1] = "profile_updates=0"
    assert told(capsys, *words) == "profile_updates=0: expected a number above 0"


def test_train_prints_metrics_on_stdout_and_progress_on_stderr(capsys, scenes, run):
    assert main(["train", "transfer", f"data={scenes}", *SMOKE, "--run", str(run), "--json", *PLAIN]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert "going on from update 2" in err and "top1" in err
    stored = json.loads((run / "scores.json").read_text())
    assert "details" not in scores and scores == {k: v for k, v in stored.items() if k != "details"}
    for name in ("top1", "top5", "mean_per_class", "ece", "nll"):
        low, high = scores["intervals"][name]
        assert low <= scores[name] <= high
    assert scores["samples"] == 20


def test_evaluate_prints_one_document(capsys, run):
    assert main(["evaluate", str(run), "loaders=0", "--json"]) == 0
    out = capsys.readouterr().out
    scores = json.loads(out)
    assert out.count("\n") == 1
    stored = json.loads((run / "scores.json").read_text())
    assert {k: scores[k] for k in stored["intervals"]} == {k: stored[k] for k in stored["intervals"]}
    assert scores["intervals"] == stored["intervals"]
    assert (scores["split"], scores["weights"], scores["checkpoint"], scores["update"]) == ("val", "raw", "000002", 2)
    text = printed(capsys, "evaluate", str(run), "loaders=0")
    assert f"{scores['top1']:.4f}" in text and "20 samples" in text and "95 % interval" in text


def test_predict_prints_a_line_a_file(capsys, run, scenes):
    folder = sorted((scenes / "val").iterdir())[0]
    lines = [json.loads(line) for line in printed(capsys, "predict", str(run), str(folder), "--json").splitlines()]
    assert [line["file"] for line in lines] == [str(p) for p in sorted(folder.iterdir())]
    assert all(line["label"] == line["top"][0][0] and line["confidence"] == line["top"][0][1] for line in lines)
    text = printed(capsys, "predict", str(run), str(folder))
    assert all(p.name in text for p in folder.iterdir())


def test_runs_without_a_name_are_numbered(capsys, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "transfer-1").mkdir(parents=True)
    assert main(["train", "transfer", f"data={scenes}", *SMOKE, "updates=1", *PLAIN]) == 0
    assert (tmp_path / "runs" / "transfer-2" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "'trian' is not a verb; nearest: train; `trunkline --help` shows them all"),
        (["train"], "the recipe's name (`trunkline list`) is missing"),
        (["train", "transfr"], "'transfr' is not a recipe; nearest: transfer; `trunkline list` shows them all"),
        (["train", "transfer"], "data= is missing: give a folder with train/CLASS/ and val/CLASS/, or CLASS/ with val=0.2"),
        (["train", "transfer", "demo", "data=x"], "too much: demo (settings are written key=value)"),
        (["train", "transfer", "data=x", "--data=y"], "data: given twice (x and y)"),
        (["train", "transfer", "data=x", "--lr"], "--lr: needs a value"),
        (["train", "transfer", "data=x", "lr=a", "sed=1"], "lr=a: expected a number or none\nsed=1: there is no such setting"),
        (["evaluate"], "the run's folder or weights file is missing"),
        (["evaluate", "x", "splt=val"], "splt=val: there is no such setting; nearest: split; there are data, split, "),
        (["evaluate", "x", "split=test"], "split=test: expected one of train, val"),
        (["evaluate", "x", "batch=a", "split=b"], "batch=a: expected a whole number or none\nsplit=b: expected one of "),
        (["evaluate", "x", "batch=0"], "batch=0: expected a number above 0"),
        (["predict", "x"], "give the run's folder or weights file, then files, folders or globs"),
        (["predict", "x", "y", "batch=0"], "batch=0: expected a number above 0"),
        (["list", "all"], "too much: all"),
        (["show"], "the recipe's name (`trunkline list`) is missing"),
        (["show", "transfer", "mode=ful"], "mode=ful: expected one of full, last, probe, append; nearest: full"),
        (["check"], "the data's folder is missing"),
        (["bench", "trains"], "'trains'"),
        (["bench", "loader", "rounds=x"], "rounds=x: expected a whole number"),
        (["profile", "transfer", "smoke=true", "profile_updates=x"], "profile_updates=x: expected a whole number"),
        (["demo", "x", "seed=a"], "seed=a: expected a whole number"),
        (["train", "--help-me"], "--help-me: needs a value"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(capsys, *words).startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["list", "colour=red"], ["doctor", "colour=red"]])
def test_a_verb_without_settings_refuses_them(words, capsys):
    assert "colour=red: there is no such setting" in told(capsys, *words)


def test_a_mistake_is_json_too(capsys):
    assert main(["train", "transfr", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": err.removeprefix("trunkline: ").rstrip("\n"), "mistake": True}


def test_an_error_of_ours_is_told_apart(capsys, monkeypatch):
    monkeypatch.setattr("trunkline.pipelines.api.doctor", lambda: 1 / 0)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "an error of ours, please report it: ZeroDivisionError" in err and "Traceback" in err


def command(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "trunkline", *words], capture_output=True, text=True, **more)


def test_the_real_command_says_a_mistake_without_a_traceback(tmp_path):
    done = command("train", "transfer", "data=absent", "lr=fast", "sed=1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "trunkline: lr=fast: expected a number or none\nsed=1: there is no such setting; nearest: seed, size\n"
    )


def test_names_that_are_no_text_are_printed_as_json(run, scenes, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(next((scenes / "val").rglob("*.jpg")), tmp_path / name)
    done = command("predict", str(run), str(tmp_path / name), f"out={tmp_path}/out", "--json")
    assert (done.returncode, "caf\\udce9.jpg" in done.stdout) == (0, True), done.stderr
    assert json.loads(done.stdout)["file"] == str(tmp_path / name)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")
    assert json.loads(lines)["file"] == str(tmp_path / name)


def test_a_package_adds_tasks_and_recipes_by_entry_points(tmp_path):
    package = tmp_path / "extra-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[trunkline.tasks]\nmine = extra:MINE\n[trunkline.recipes]\nmy_recipe = extra:my_recipe\n"
    )
    (tmp_path / "extra.py").write_text(
        "from dataclasses import dataclass\n"
        "from trunkline.pipelines.recipe import Network, Phase, Recipe\n"
        "from trunkline.tasks.options import TaskOptions\n"
        "from trunkline.tasks.table import Row\n"
        "@dataclass(frozen=True)\n"
        "class Options(TaskOptions):\n    colour: str = 'red'\n"
        "MINE = Row('extra_task:Mine', Options)\n"
        "def my_recipe(data: str, epochs: float = 3) -> Recipe:\n"
        "    'Mine.'\n"
        "    return Recipe({'mine': Options(data)}, Network(), phases=(Phase(epochs=epochs),))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert "mine" in json.loads(command("list", "--json", env=env).stdout)["tasks"]
    shown = json.loads(command("show", "my_recipe", "data=here", "tasks.mine.colour=blue", "--json", env=env).stdout)
    assert shown["tasks.mine.colour"]["value"] == "blue"
    assert "data    text (needed)" in command("train", "my_recipe", "--help", env=env).stdout
    done = command("train", "my_recipe", "data=here", "tasks.mine.color=blue", env=env)
    assert done.returncode == 2 and "nearest: tasks.mine.colour" in done.stderr


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_run_that_is_a_file_is_refused(kind, scenes, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    run = tmp_path / "file" if kind == "file" else tmp_path / "file" / "run"
    error = told(capsys, "train", "transfer", f"data={scenes}", "smoke=true", "--run", str(run), *PLAIN)
    assert error.startswith(f"{run}: ") and (tmp_path / "file").read_text() == "mine"


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(f"{sys.executable} -m trunkline show transfer | head -c 20", shell=True, capture_output=True)
    assert done.returncode == 0 and done.stderr == b""


FAST = [["--help"], ["list"], ["show", "transfer"]]


@pytest.mark.cold
def test_help_list_and_show_are_quick():
    """At most 0.35 of the time of `import torch`, the better of two runs that take turns; the first one reads the files."""
    candidates = {"torch": ["-c", "import torch"], **{" ".join(w): ["-m", "trunkline", *w] for w in FAST}}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(2):
        for name, words in candidates.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    assert {n: s / best["torch"] for n, s in best.items() if n != "torch" and s > 0.35 * best["torch"]} == {}


@pytest.mark.cold
def test_importing_trunkline_is_quick():
    code = "import time; a = time.perf_counter(); import trunkline; print(time.perf_counter() - a)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert statistics.median(times) < 0.2


@pytest.mark.cold
@pytest.mark.parametrize("words", [*FAST, ["train", "transfer", "--help"], ["show", "demo", "--json"], ["trian"]])
def test_what_only_reads_tables_imports_no_torch(words):
    code = (
        f"import sys; sys.argv = ['trunkline', *{words!r}]; import trunkline.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'torchvision', 'timm', 'numpy', 'PIL', 'rich') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
