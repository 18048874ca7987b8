"""Evaluation and prediction by a pool of workers: the same files as from one process, whatever happens meanwhile."""

import json
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from pool_work import evaluated, many, split_of
from ray_cluster import Started, cluster, on

from trunkline.cluster.launchers.own_output import own_output
from trunkline.pipelines.command.cli import main

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three nodes of one core each."""
    with cluster(3) as made:
        yield made


def actors(made) -> list[psutil.Process]:
    """The pool's processes that have begun to work."""
    raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in made.own]
    return [p for r in raylets for p in r.children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]


def predicting(run: Path, photos: Path, out: Path, *more: str) -> Started:
    words = ["predict", str(run), str(photos), "batch=8", f"out={out}", *more]
    return Started(words, out)


def lines(out: Path) -> list[bytes]:
    file = out / "predictions.jsonl"
    return file.read_bytes().splitlines() if file.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("count", [17, 1000])
def test_scores_and_records_are_those_of_one_process(scenes, short_run, nodes, tmp_path, capsys, count):
    data = split_of(scenes, tmp_path / "data", count)
    wanted = evaluated(short_run, data, tmp_path / "alone.jsonl", capsys)
    assert wanted[0]["samples"] == count == len({json.loads(line)["id"] for line in wanted[1].splitlines()})
    for n in (1, 2, 3):
        assert evaluated(short_run, data, tmp_path / f"{n}.jsonl", capsys, *on(nodes, n)) == wanted, n


@pytest.mark.slow
def test_a_killed_worker_of_an_evaluation_changes_nothing(scenes, short_run, nodes, tmp_path, capsys):
    data = split_of(scenes, tmp_path / "data", 1000)
    wanted = evaluated(short_run, data, tmp_path / "alone.jsonl", capsys)
    words = [
        "evaluate",
        str(short_run),
        f"data={data}",
        "batch=4",
        "loaders=0",
        f"out={tmp_path / 'out.jsonl'}",
        "--json",
    ]
    started = Started([*words, *on(nodes, 2)], tmp_path / "evaluation")
    busy = started.until(lambda: [p for p in actors(nodes) if p.cpu_times().user > 4])
    busy[0].kill()
    assert started.end() == 0, started.said()
    assert (tmp_path / "out.jsonl").read_bytes() == wanted[1]
    assert json.loads(started.said().splitlines()[-1]) == wanted[0]


@pytest.mark.slow
def test_a_prediction_that_is_killed_goes_on_and_names_each_picture_once(scenes, short_run, nodes, tmp_path):
    """First a worker is killed, then the command itself."""
    photos = many(scenes, tmp_path / "photos", 640)
    assert main(["predict", str(short_run), str(photos), "batch=8", f"out={tmp_path / 'alone'}"]) == 0
    out = tmp_path / "out"
    started = predicting(short_run, photos, out, *on(nodes, 2))
    started.until(lambda: len(lines(out)) >= 40)
    actors(nodes)[0].kill()
    started.until(lambda: len(lines(out)) >= 160)
    started.process.kill()
    started.end()
    assert 160 <= len(lines(out)) < 640
    again = predicting(short_run, photos, out, *on(nodes, 2))
    assert again.end() == 0, again.said()
    for name in ("predictions.jsonl", "predictions.csv", "sheet.png"):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["here", "ray"])
def test_ten_thousand_pictures_in_flat_memory_stopped_in_the_middle(scenes, short_run, nodes, tmp_path, launch):
    photos = many(scenes, tmp_path / "photos", 10_000)
    out, more = tmp_path / "out", on(nodes, 2) if launch == "ray" else []
    peaks = []
    for stop in (5000, None):
        started = predicting(short_run, photos, out, *more)
        process, sizes = psutil.Process(started.process.pid), {}
        while started.process.poll() is None and not (stop and len(lines(out)) > stop):
            done = len(lines(out))
            try:
                sizes[done] = process.memory_info().rss
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        if stop:
            started.process.send_signal(signal.SIGTERM)
        ended = -signal.SIGTERM if launch == "here" else 128 + signal.SIGTERM
        assert started.end() == (ended if stop else 0), started.said()
        assert "SIGTERM" not in started.said() and "Traceback" not in started.said()
        early = [size for done, size in sizes.items() if done > 1000 + (5000 if not stop else 0)]
        peaks.append((max(early) - early[0]) / 2**20)
    print(f"{launch}: {', '.join(f'{p:.0f} MiB' for p in peaks)} more at the end than near the beginning")
    files = [json.loads(line)["file"] for line in lines(out)]
    assert len(files) == 10_000 == len(set(files)) and files == sorted(files)
    assert max(peaks) < 40


def test_other_threads_write_to_stderr_while_it_lasts(capsys):
    def speak():
        print("(raylet) a worker died")

    with own_output():
        other = threading.Thread(target=speak)
        other.start()
        other.join()
        print('{"top1": 1}')
        assert not sys.stdout.closed
    shown = capsys.readouterr()
    assert shown.out == '{"top1": 1}\n' and shown.err == "(raylet) a worker died\n"
    again = threading.Thread(target=speak)
    again.start()
    again.join()
    assert "raylet" in capsys.readouterr().out
