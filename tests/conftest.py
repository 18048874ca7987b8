"""What several tests share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from short_run import SHORT

ROOT = Path(__file__).parents[1]
SERVER: pytest.StashKey[subprocess.Popen] = pytest.StashKey()

os.environ.setdefault("OMP_NUM_THREADS", "1")
places = [str(Path(__file__).parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))  # processes of tests know `narrow` too


CLUSTERS = ("test_one_cluster", "test_ray", "test_pool", "test_local", "test_group", "test_travel", "test_s3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters first: they are the longest."""
    items.sort(key=lambda item: item.path.stem not in CLUSTERS)


def pytest_configure(config: pytest.Config) -> None:
    """Start the process that the tests' processes are forked from, once for all testing processes."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[SERVER] = warm.started()


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(SERVER, None):
        warm.stopped(server)


@pytest.fixture(autouse=True)
def forked(request, monkeypatch):
    """Processes start as forks of a warm one; in a test marked `cold` as a user's do."""
    if request.node.get_closest_marker("cold"):
        monkeypatch.delenv(warm.PLACE, raising=False)
    else:
        monkeypatch.setattr(subprocess, "Popen", warm.Popen)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Of two testing processes one takes all files whose tests start many processes: together they would wait for each
    other; the other takes the rest, file by file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0]).stem
            return "clusters" if file in CLUSTERS else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures and weights; tests that need it skip, by name, where it is absent."""
    folder = os.environ.get("TRUNKLINE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TRUNKLINE_TEST_DATA is not set: no real pictures here")
    return Path(folder)


@pytest.fixture
def one_core(monkeypatch):
    """One thread everywhere: tiny networks wait longer for a second one than they compute."""
    monkeypatch.setattr("trunkline.pipelines.runs.machine.cores", lambda: 1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Generated scenes: ten classes, 40 for training and 20 for validation, 32 px."""
    from trunkline.pipelines.recipe.demo_data import write

    return write("demo:smoke", tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture
def data(scenes, tmp_path) -> Path:
    """A copy of the scenes to spoil."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture(scope="session")
def short_run(scenes, tmp_path_factory) -> Path:
    """A finished run of two updates; copy it to change it."""
    from trunkline.pipelines.command.cli import main

    path = tmp_path_factory.mktemp("short") / "run"
    assert main(["train", "transfer", f"data={scenes}", "--run", str(path), *SHORT]) == 0
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the tree, so that nothing is left behind in it."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__", "runs", "tests", "demo")
    shutil.copytree(
        ROOT, source, ignore=lambda d, names: leave(d, names) if Path(d) == ROOT else {"__pycache__"} & {*names}
    )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = out.glob("trunkline-*-py3-none-any.whl")
    return file
