"""A run whose folder is at an address, as object stores are: only single files are replaced as one step there."""

import shutil
import signal
from pathlib import Path

import pytest
from ray_cluster import Started, differ, words

from trunkline.ground import storage
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.runs.mirror import Mirror
from trunkline.pipelines.runs.run import Run

GIVEN = {"updates": 48, "checkpoints.updates": 4, "evaluation.every": 8}


def at(root: Path) -> str:
    return f"file://{root}"


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(words(scenes, run, **GIVEN)) == 0
    return run


def names(run: Path) -> set[str]:
    return {f.relative_to(run).as_posix() for f in run.rglob("*") if f.is_file() and ".lock" not in f.name}


def test_a_run_at_an_address_is_killed_and_goes_on(scenes, undisturbed, tmp_path, capsys):
    there = tmp_path / "bucket/run"
    there.parent.mkdir()
    command = [*words(scenes, there, **GIVEN)[:-2], "--run", at(there)]
    started = Started(command, there)
    started.until(lambda: (there / "checkpoints/000004/state.json").exists())
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    assert not (there / "weights.safetensors").exists()
    assert main(command) == 0
    assert differ(there, undisturbed) == []
    assert names(there) == names(undisturbed)
    assert (there / "scores.json").read_bytes() == (undisturbed / "scores.json").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", at(there), "loaders=0", "--json"]) == 0
    found = capsys.readouterr().out
    assert main(["evaluate", str(undisturbed), "loaders=0", "--json"]) == 0
    assert found.replace(at(there), str(undisturbed)) == capsys.readouterr().out
    assert main(["predict", at(there), str(next((scenes / "val").rglob("*.jpg")))]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "probe"])
def test_two_workers_share_it(scenes, tmp_path, mode):
    for name, more in (("one", []), ("two", ["--workers", "2"])):
        there = tmp_path / "bucket" / name
        given = GIVEN | ({} if mode == "full" else {"evaluation.every": 0})
        assert main([*words(scenes, there, mode=mode, **given)[:-2], "--run", at(there), *more]) == 0
    assert differ(tmp_path / "bucket/one", tmp_path / "bucket/two") == []
    assert names(tmp_path / "bucket/one") == names(tmp_path / "bucket/two")


def test_a_checkpoint_is_there_with_its_state_alone(tmp_path, monkeypatch):
    """Whenever sending ends, what can be fetched is whole."""
    sent, mirror = [], Mirror(at(tmp_path / "bucket"))
    own = storage.send
    monkeypatch.setattr(storage, "send", lambda file, address: (sent.append(address), own(file, address)))
    for name in ("000002", "000004"):
        folder = mirror.folder / "checkpoints" / name
        folder.mkdir(parents=True)
        for part in ("state.json", "model.safetensors", "ema.safetensors"):
            (folder / part).write_text(name)
        (mirror.folder / "checkpoints/last").write_text(name)
        (mirror.folder / "metrics.jsonl").write_text(name)
        (mirror.folder / ".lock").touch()
        mirror.push()
        short = [s.rpartition("bucket/")[2] for s in sent]
        parts = [f"checkpoints/{name}/{part}" for part in ("ema.safetensors", "model.safetensors", "state.json")]
        assert short == ["metrics.jsonl", *parts, "checkpoints/last"]
        sent.clear()
    mirror.push()
    assert sent == []
    shutil.rmtree(mirror.folder / "checkpoints/000002")
    (mirror.folder / "checkpoints/000004/model.safetensors").write_text("once more")

    def full(file: Path, address: str) -> None:
        raise OSError("no room")

    monkeypatch.setattr(storage, "send", full)
    with pytest.raises(OSError, match="no room"):
        mirror.push()
    other = Mirror(at(tmp_path / "bucket"))
    other.pull()  # the older one is whole still; of the newer one no half
    assert (other.folder / "checkpoints/000002/state.json").exists()
    assert not (other.folder / "checkpoints/000004").exists()
    monkeypatch.setattr(storage, "send", own)
    mirror.push()
    other = Mirror(at(tmp_path / "bucket"))
    other.pull()
    assert (other.folder / "checkpoints/000004/model.safetensors").read_text() == "once more"
    assert not (other.folder / "checkpoints/000002").exists()


def test_mistakes(tmp_path, capsys):
    assert main(["evaluate", at(tmp_path / "nothing"), "--json"]) == 2
    assert f"{at(tmp_path / 'nothing')}: there is no run" in capsys.readouterr().err
    from trunkline.pipelines.models.ready import fetched

    with pytest.raises(RecipeError, match="there is no run"):
        fetched(at(tmp_path / "nothing"))
    assert Run("runs/one").shown == "runs/one" and Run("s3://bucket/one/").shown == "s3://bucket/one"
