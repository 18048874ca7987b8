"""Training and evaluation on one Ray cluster of three nodes: what every commit must hold of it."""

import json
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from pool_work import evaluated, mixed, split_of
from ray_cluster import Started, cluster, differ, on, words, workers_of
from run_work import files_in

from trunkline.pipelines.command.cli import main
from trunkline.tasks.super_resolution.scenes import write_pictures

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes():
    with cluster(3) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(words(scenes, run)) == 0
    return run


def test_a_killed_worker_is_started_again_and_the_run_ends_as_if_nothing_had_happened(
    scenes, nodes, undisturbed, tmp_path
):
    started = Started(words(scenes, tmp_path / "run", *on(nodes, 2)), tmp_path / "run")
    started.until_update(10)
    next(w for node in reversed(nodes.own) for w in workers_of(node)).kill()
    seconds = started.step_after(time.time())
    assert started.end() == 0, started.said()
    print(f"from kill to next step: {seconds:.1f} s")
    assert differ(undisturbed, tmp_path / "run") == []
    here, there = ({p.name for p in run.iterdir()} - {"logs"} for run in (tmp_path / "run", undisturbed))
    assert here == there
    assert re.search(r"going on from update [1-9]", started.said()) and "Traceback" not in started.said()


def test_scores_and_records_are_those_of_one_process(scenes, short_run, nodes, tmp_path, capsys):
    data = split_of(scenes, tmp_path / "data", 17)
    wanted = evaluated(short_run, data, tmp_path / "alone.jsonl", capsys)
    assert wanted[0]["samples"] == 17 == len({json.loads(line)["id"] for line in wanted[1].splitlines()})
    assert evaluated(short_run, data, tmp_path / "two.jsonl", capsys, *on(nodes, 2)) == wanted


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory) -> Path:
    """A run of two updates, on pictures of which seven are scored."""
    root = tmp_path_factory.mktemp("upscaler")
    data = write_pictures(root / "data", train=4, val=7, size=64)
    own = [
        "blocks=1",
        "width=8",
        "crop=32",
        "batch=4",
        "crops=2",
        "updates=2",
        "machine.threads=1",
        "machine.loaders=0",
    ]
    assert main(["train", "upscale", f"data={data}", *own, "--run", str(root / "run")]) == 0
    return root / "run"


TILES = {"whole": [], "tiles": ["tiles=16", "overlap=2"]}
WORKERS = [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]


def enlarging(run: Path, photos: Path, out: Path, *more: str) -> list[str]:
    return ["predict", str(run), str(photos), f"out={out}", "threads=1", "batch=2", *more]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return mixed(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def larger(upscaler, photos, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The files that one process makes of pictures, seen whole and in tiles whose overlap is too small to be unseen."""
    root = tmp_path_factory.mktemp("larger")
    for name, tiles in TILES.items():
        assert main(enlarging(upscaler, photos, root / name, *tiles)) == 2  # a file is no picture
    files = {name: files_in(root / name) for name in TILES}
    assert files["whole"] != files["tiles"]
    return files


@pytest.mark.parametrize("tiles", [pytest.param("whole", marks=pytest.mark.slow), "tiles"])
@pytest.mark.parametrize("workers", WORKERS)
def test_pictures_are_made_larger_to_the_files_of_one_process(
    upscaler, photos, larger, nodes, tmp_path, workers, tiles
):
    """Of several sizes and kinds, in subfolders, with lines and sheet."""
    assert main(enlarging(upscaler, photos, tmp_path / "out", *TILES[tiles], *on(nodes, workers))) == 2
    assert files_in(tmp_path / "out") == larger[tiles] and len(larger[tiles]) == 8 + 3


@pytest.mark.slow
def test_pictures_made_larger_on_a_cluster_that_is_killed(upscaler, nodes, tmp_path):
    """First a worker, then the command; it goes on with another number of workers."""
    photos = write_pictures(tmp_path / "photos", train=0, val=400, size=48)
    assert main(enlarging(upscaler, photos, tmp_path / "one")) == 0
    out = tmp_path / "out"
    made = lambda: len(list(out.rglob("0*.png")))  # noqa: E731
    started = Started(enlarging(upscaler, photos, out, *on(nodes, 2)), tmp_path / "predict")
    started.until(lambda: made() >= 20)
    raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes.own]
    actors = [p for r in raylets for p in r.children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]
    actors[0].kill()
    started.until(lambda: made() >= 100)
    started.process.send_signal(signal.SIGKILL)
    started.end()
    assert 100 <= made() < 400
    assert main(enlarging(upscaler, photos, out, *on(nodes, 3))) == 0
    assert files_in(out) == files_in(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_and_records_of_larger_pictures_are_those_of_one_process(upscaler, nodes, tmp_path, capsys, workers):
    def scored(name: str, *more: str) -> tuple[dict, bytes]:
        capsys.readouterr()
        own = ["batch=2", "loaders=0", "threads=1", "tiles=12", "overlap=2", f"out={tmp_path / name}", "--json"]
        assert main(["evaluate", str(upscaler), *own, *more]) == 0
        return json.loads(capsys.readouterr().out), (tmp_path / name).read_bytes()

    wanted = scored("one")
    assert len(wanted[1].splitlines()) == 7 and wanted[0]["psnr_y"] > 10
    assert scored("many", *on(nodes, workers)) == wanted
