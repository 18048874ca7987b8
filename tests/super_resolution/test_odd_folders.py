"""Folders with what is no picture that is read, and options that other tasks have too."""

import os
import shutil

import pytest
from upscaler_work import train

from trunkline.pipelines import api
from trunkline.pipelines.command.cli import main
from trunkline.tasks.super_resolution.options import Options
from trunkline.tasks.super_resolution.splits import read_split

LEFT = "2 files of other kinds are left out: 00.gif, deep/01.PSD"


@pytest.fixture
def mixed(scenes, tmp_path):
    """A folder with one picture, and two files of kinds that are not read."""
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(scenes / "val/00000.png", folder / "x.png")
    for name in ("00.gif", "deep/01.PSD", "notes.txt"):
        (folder / name).write_bytes(b"GIF89a")
    return folder


def test_files_of_other_kinds_are_said(run, mixed, tmp_path, capsys):
    for call in (["predict", str(run), str(mixed)], ["predict", "bicubic", str(mixed), "scale=2"]):
        assert main([*call, f"out={tmp_path / call[1].rpartition('/')[2]}"]) == 0
        assert f"{mixed}: {LEFT}" in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    (mixed / "x.png").unlink()
    for call in (["predict", str(run), str(mixed)], ["predict", "bicubic", str(mixed), "scale=2", f"out={tmp_path}/b"]):
        assert main(call) == 2 and f"; {LEFT}" in capsys.readouterr().err


def test_they_are_said_once_where_the_folder_is_the_data(mixed):
    for n in range(4):
        shutil.copy(mixed / "x.png", mixed / f"{n}.png")
    notes = read_split(Options(data=str(mixed), val="0.5", scale=2, crop=16), "train").remarks()
    assert [line for line in notes if "other kinds" in line] == [LEFT]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_no_picture_and_nobody_waits_for_it(run, mixed, scenes, tmp_path, capsys):
    os.mkfifo(mixed / "pipe.png")
    said = f"{mixed / 'pipe.png'}: cannot be read (it is a named pipe, a socket or a device, and no file)"
    for call in (["predict", str(run), str(mixed)], ["predict", "bicubic", str(mixed), "scale=2"]):
        assert main([*call, f"out={tmp_path / call[1].rpartition('/')[2]}"]) == 2
        assert said in (told := capsys.readouterr().err) and "1 picture failed" in told.replace("image", "picture")
    assert train(mixed, tmp_path / "run", "val=0.5") == 2 and said in capsys.readouterr().err
    assert main(["score", "images", str(mixed), str(mixed), "scale=2"]) == 2 and said in capsys.readouterr().err


def test_an_option_that_other_tasks_have_is_judged_by_the_task_of_the_run(run, scenes, tmp_path, capsys):
    out = tmp_path / "out"
    for verb in (["predict", str(run), str(scenes / "val"), f"out={out}"], ["evaluate", str(run)]):
        assert main([*verb, "overlap=-1"]) == 2
        assert "overlap=-1: expected 0 to 1024" in capsys.readouterr().err and not out.exists()
        assert main([*verb, "overlap=some"]) == 2
        assert "overlap=some: expected a whole number or none" in capsys.readouterr().err and not out.exists()
    assert main(["predict", str(run), str(scenes / "val"), "border=4"]) == 2
    assert "border=4: expected one of mirror, replicate; edge=" in capsys.readouterr().err


def test_all_tensors_of_a_file_are_counted(run, scenes, tmp_path, capsys):
    assert main(["predict", str(run / "weights.safetensors"), str(scenes / "val/00000.png")]) == 0
    from safetensors import safe_open

    with safe_open(run / "weights.safetensors", "pt") as file:
        count = len(file.keys())
    assert f"weights: {count} of {count} tensors from" in capsys.readouterr().err
    assert api.model(run / "weights.safetensors") is not None
