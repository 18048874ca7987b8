"""The wheel holds every module and page of the tree, and runs a recipe where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("backbones", "heads", "tasks", "cluster", "pipelines")


def test_the_wheel_holds_what_the_tree_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        there = {n for n in archive.namelist() if ".dist-info/" not in n}
        licences = [n for n in archive.namelist() if n.endswith("LICENSE")]
        same = {n: archive.read(n) for n in there}
    wanted: dict[str, Path] = {}
    for folder in ("trunkline", *FLOORS):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".html", ".typed"):
                inside = file.relative_to(ROOT).as_posix()
                wanted[inside if folder == "trunkline" else f"trunkline/{inside}"] = file
    assert there == set(wanted)
    assert [n for n, file in wanted.items() if same[n] != file.read_bytes()] == []
    assert any(n.endswith(".html") for n in there) and licences


@pytest.mark.cold
def test_a_smoke_recipe_runs_from_the_wheel_in_an_empty_folder(wheel, tmp_path):
    place, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
                    "--target", str(place), str(wheel)], check=True, capture_output=True)  # fmt: skip
    env = {
        **os.environ,
        "PYTHONPATH": str(place),
        "TRUNKLINE_CACHE": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = "import trunkline, trunkline.pipelines.command.cli as c; print(trunkline.__file__); print(c.__file__)"
    files = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=empty, check=True
    ).stdout
    assert all(line.startswith(str(place)) for line in files.splitlines()) and len(files.splitlines()) == 2, files
    command = [sys.executable, "-m", "trunkline", "train", "transfer", "smoke=true", "--run", "out", "machine.loaders=0",
               "backbone=timm:test_resnet.r160_in1k", "machine.threads=1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=empty)
    assert done.returncode == 0, done.stderr
    assert (empty / "out" / "report.html").is_file() and (empty / "out" / "weights.safetensors").is_file()
    assert "top1" in done.stdout
    assert [p.name for p in empty.iterdir()] == ["out"]
