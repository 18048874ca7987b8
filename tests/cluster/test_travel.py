"""The code travels to workers that have what it needs, but neither trunkline nor its checkout."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from plugin_file import PLUGIN
from short_run import PLAIN

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.cold]


def bare(folder: Path) -> Path:
    """An interpreter that sees every package of this one but trunkline."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "trunkline" not in entry.name and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
    }


@pytest.mark.parametrize("way", ["checkout", "wheel"])
def test_a_run_and_a_plug_in_file_travel(scenes, wheel, tmp_path, way):
    python, empty = bare(tmp_path / "worker"), tmp_path / "empty"
    empty.mkdir()
    missing = subprocess.run([str(python), "-c", "import torch, ray, deepspeed, trunkline"], cwd=empty, env=clean(),
                             capture_output=True, text=True)  # fmt: skip
    assert "No module named 'trunkline'" in missing.stderr
    driver, where = Path(sys.executable), Path(__file__).parents[2]
    if way == "wheel":
        driver, where = bare(tmp_path / "driver"), empty
        site = next((tmp_path / "driver" / "lib").glob("python*/site-packages"))
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site),
                        str(wheel)], check=True, capture_output=True)  # fmt: skip
    (tmp_path / "mine.py").write_text(PLUGIN)
    run, log = tmp_path / "run", tmp_path / "log.txt"

    def trunkline(*words: str) -> str:
        done = subprocess.run(
            [str(driver), "-m", "trunkline", *words], cwd=where, env=clean(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    ray = [str(python), "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "start", "--head", "--port", "6399", "--num-cpus", "2", "--node-ip-address", "127.0.0.1"], cwd=empty,
                   env=clean(), check=True, capture_output=True)  # fmt: skip
    try:
        there = ["--launch", "ray", "--workers", "2", "--address", "127.0.0.1:6399"]
        trunkline("train", f"{tmp_path / 'mine.py'}", f"data={scenes}", f"log={log}", *PLAIN, "--run", str(run), *there)
        trained = log.read_text().splitlines()
        plugin = f"plugin={tmp_path / 'mine.py'}"
        found = trunkline("evaluate", str(run), plugin, "batch=4", "loaders=0", "--json", *there)
        scored = log.read_text().splitlines()[len(trained) :]
    finally:
        subprocess.run([*ray, "stop", "--force"], cwd=empty, env=clean(), check=True, capture_output=True)
    assert len(trained) == 2 and all("/working_dir_files/" in file for file in trained), trained
    assert len(scored) >= 2 and all("/working_dir_files/" in file for file in scored[1:]), (
        scored
    )  # the first is the command's
    alone = trunkline("evaluate", str(run), plugin, "batch=4", "loaders=0", "--json")
    assert json.loads(found)["nll"] == json.loads(alone)["nll"]
    trunkline(
        "train", f"{tmp_path / 'mine.py'}", f"data={scenes}", f"log={log}", *PLAIN, "--run", str(tmp_path / "one")
    )
    assert (
        json.loads((tmp_path / "one" / "scores.json").read_text())["nll"]
        == json.loads((run / "scores.json").read_text())["nll"]
    )
