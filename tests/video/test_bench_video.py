"""What `trunkline bench video` measures of decoding, and that it is as fast as it is to be."""

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
    found = measured(capsys, "rounds=1", "side=48")
    assert [row["name"] for row in found["rows"]][: len(POINTS)] == [*POINTS]
    assert found["settings"]["left out"].startswith("videos/long_1080p")
    assert found["settings"]["making the index, ms"].keys() == POINTS.keys()


@pytest.mark.slow
def test_seeking_is_worth_it(tmp_path, monkeypatch, capsys, shared_data):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in measured(capsys, "rounds=15")["rows"]}
    for name, least in POINTS.items():
        row = rows[name]
        assert row["ratio"] >= least or (least < 1 and row["high"] >= least), row
    assert rows["16 frames from number 5441 on"]["ratio"] >= 3
