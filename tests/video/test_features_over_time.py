"""Features over time as files: rows, times, names, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.ready import Source, ready
from trunkline.tasks.over_time import Rows, name_of
from trunkline.tasks.video.decoding.video import open_video
from trunkline.tasks.video.transforms import cropped, pixels
from trunkline.tasks.video.views import steps

SMALL = ["weights=none", "backbone=narrow", "size=32", "frames=4", "batch=4", "updates=1", "machine.threads=1",
         "machine.loaders=0"]  # fmt: skip


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", "action", f"data={clips}", *SMALL, "--run", str(folder)]) == 0
    return folder


def test_rows_are_what_the_head_pools_of_each_frame_seen(run, clips, tmp_path):
    out = tmp_path / "features"
    words = [str(run), str(clips / "val"), f"features={out}", "threads=1", "window=0.16"]
    assert main(["predict", *words, f"out={tmp_path / 'said'}"]) == 0
    said = {line["file"]: line for line in map(json.loads, (tmp_path / "said/predictions.jsonl").open())}
    place = str(clips / "val/rises/00001")
    entry = json.loads((out / f"{name_of(place)}.json").read_text())
    rows = np.load(out / entry["features"])
    assert rows.dtype == np.float32 and list(rows.shape) == entry["shape"] == [8, 64]
    assert entry["times"] == [i / 25 for i in range(8)] and entry["file"] == place
    assert (entry["trunk"], entry["maps"], entry["frames_a_step"], entry["frames"]) == ("narrow", ["c5"], 1, 4)
    found = ready(Source(str(run), device="cpu"))
    with open_video(place) as video, torch.inference_mode():
        images = cropped(pixels(video.read(range(8))), found.task.preprocessing, found.task.options).transpose(1, 2)
        model: nn.Module = found.model.eval()
        maps = model.backbone((images / 255 - model.mean[..., None]) / model.std[..., None])
        np.testing.assert_allclose(rows, maps["c5"].mean((3, 4))[0].T, atol=1e-5)
        head = model.heads["action"]
        first = torch.softmax(head.fc(torch.from_numpy(rows[:4]).mean(0)), 0)
    top = dict(said[place]["windows"][0]["top"])
    assert [top[name] for name in found.task.classes] == pytest.approx(first.tolist(), abs=1e-5)
    assert len(list(out.glob("*.npy"))) == 4  # of two classes' folders 00000 and 00001
    assert not list(out.glob(".*part"))


def test_features_are_of_one_network(run, clips, tmp_path, capfd):
    out = tmp_path / "features"
    one, other = (str(clips / f"val/{name}/00000") for name in ("falls", "rises"))
    assert main(["predict", str(run), one, f"features={out}", "threads=1"]) == 0
    before = (out / f"{name_of(one)}.npy").read_bytes()
    assert main(["predict", str(run), other, f"features={out}", "threads=1"]) == 0  # another joins it
    assert main(["predict", str(run), other, f"features={out}", "threads=1", "window=0.1"]) == 2
    assert f"features={out}: holds a prediction that was begun with other settings" in capfd.readouterr().err
    assert (out / f"{name_of(one)}.npy").read_bytes() == before and (out / f"{name_of(other)}.json").is_file()
    assert main(["predict", str(run), one, f"features={out}", f"out={out}", "threads=1"]) == 2
    assert "is out= too" in capfd.readouterr().err


def test_a_task_without_features_says_so(short_run, scenes, tmp_path, capfd):
    assert main(["predict", str(short_run), str(scenes / "val"), f"features={tmp_path / 'f'}", "threads=1"]) == 2
    assert "the task classification has no features over time; leave it out" in capfd.readouterr().err
    assert not (tmp_path / "f").exists()


def test_videos_of_one_name_have_files_of_their_own(tmp_path):
    names = {name_of(str(tmp_path / place)) for place in ("a/clip.mp4", "b/clip.mp4", "a/clip.avi")}
    assert len(names) == 3 and all(name.startswith("clip-") for name in names)
    assert name_of(str(tmp_path / "a/clip.mp4")) == name_of(str(tmp_path / "b/../a/clip.mp4"))


def test_rows_ascend_in_time_and_appear_when_they_are_whole(tmp_path):
    with Rows(str(tmp_path / "f"), "x.mp4") as rows:
        rows.add(np.arange(6).reshape(3, 2), np.array([0.0, 0.0, 1.0]))
        rows.add(np.arange(6, 10).reshape(2, 2), np.array([0.5, 2.0]))
        assert not list((tmp_path / "f").glob("*.npy"))
        rows.finish({"trunk": "t"})
    found = np.load(tmp_path / f"f/{name_of('x.mp4')}.npy")
    assert found.tolist() == [[0, 1], [4, 5], [8, 9]]
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"features=.*file: cannot be written"), Rows(str(tmp_path / "file"), "x.mp4"):
        pass
    shutil.rmtree(tmp_path / "f")


def test_steps_of_two_pathways_are_joined_and_padding_is_left_out():
    slow, fast = torch.arange(2.0).view(1, 1, 2, 1, 1), torch.arange(8.0).view(1, 1, 8, 1, 1)
    rows, times = steps({"c5": slow, "f5": fast}, {"c5": 4, "f5": 1}, np.arange(8) / 10)
    assert rows.tolist() == [[0, 1.5], [1, 5.5]] and times.tolist() == pytest.approx([0.15, 0.55])
    rows, times = steps({"c5": slow.expand(3, 1, 2, 1, 1)}, {"c5": 4}, np.arange(3) / 10)
    assert rows.tolist() == [[0]] and times.tolist() == pytest.approx([0.1])
