"""What `trunkline bench video` measures, and that reading frames and training on clips are as fast as they are to be."""

import json

import pytest

from trunkline.pipelines.command.cli import main

POINTS = {  # the least median ratio to decoding all
    "H.264, a key every 12": 1.5,
    "H.264, a key every 30": 0.95,
    "H.264, a key every 250": 0.95,
    "MPEG-4, a key every 12": 1.5,
    "MPEG-4, a key every 30": 0.95,
    "MPEG-4, a key every 250": 0.95,
    "MJPEG": 3,
}


def measured(capsys, *settings: str) -> dict:
    assert main(["bench", "video", *settings, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_both_sides_read_the_same_frames(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    monkeypatch.delenv("TRUNKLINE_TEST_DATA", raising=False)
    found = measured(capsys, "part=decoding", "rounds=1", "side=48")
    assert [row["name"] for row in found["rows"]] == [*POINTS]
    assert found["settings"]["left out"].startswith("videos/long_1080p")
    assert found["settings"]["making the index, ms"].keys() == POINTS.keys()


def test_both_sides_of_training_are_one_network_on_the_same_weights(one_core, monkeypatch, capsys):
    """On an odd size. Rows are of both settings, and their unit is told."""
    monkeypatch.setattr("trunkline.pipelines.runs.machine.cpu_flags", lambda: frozenset({"avx512_bf16"}))
    found = measured(capsys, "part=training", "rounds=1", "crop=18", "frames=3", "batch=1")
    assert [row["name"] for row in found["rows"]] == [
        f"r3d_18, {part}: {setting}"
        for setting in ("fp32, NCHW, both", "our defaults (bf16) against theirs (fp32)")
        for part in ("predict", "train")
    ]
    assert {row["unit"] for row in found["rows"]} == {"clips/s"}
    assert found["settings"]["largest difference of logits at equal settings"] < 1e-5
    assert "side" not in found["settings"] and found["settings"]["crop"] == 18


def test_losses_and_weights_of_both_sides_go_the_same_way():
    """Three updates of each, on the same clips."""
    import torch

    from trunkline.cluster.config import Machine
    from trunkline.pipelines.bench.bench_clips import Work, sides

    machine = Machine("cpu", "fp32", channels_last=False, deterministic=True, threads=1, loaders=0)
    own, other = sides(Work.random(18, 3, 2, "cpu"), machine)
    try:
        pairs = [(own["train"](), other["train"]()) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert len({round(loss, 4) for loss, _ in pairs}) == 3, "it learns"
    assert all(ours == pytest.approx(theirs, rel=1e-4) for ours, theirs in pairs), pairs


def test_wrong_settings_are_named(capsys):
    for setting, said in (
        ("part=seeking", "part=seeking: expected one of all, decoding, training"),
        ("thread_type=none", "thread_type=none: expected one of NONE"),
        ("frames=0", "frames=0: expected a number above 0"),
        ("batch=1 crop=16 frames=8", "batch=1 with crop=16, frames=8: the last norm would see one number"),
    ):
        assert main(["bench", "video", *setting.split()]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_training_on_clips_is_worth_it(capsys):
    """The second point is of processors with bf16."""
    found = measured(capsys, "part=training", "rounds=9")
    rows = {row["name"].removeprefix("r3d_18, "): row for row in found["rows"]}
    print(json.dumps(found["rows"], indent=1))
    assert rows["train: fp32, NCHW, both"]["ratio"] >= 0.95
    if row := rows.get("train: our defaults (bf16) against theirs (fp32)"):
        assert row["ratio"] >= 1.8


@pytest.mark.slow
def test_seeking_is_worth_it(tmp_path, monkeypatch, capsys, shared_data):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in measured(capsys, "part=decoding", "rounds=15")["rows"]}
    for name, least in POINTS.items():
        row = rows[name]
        assert row["ratio"] >= least or (least < 1 and row["high"] >= least), row
    assert rows["16 frames from number 5441 on"]["ratio"] >= 3
