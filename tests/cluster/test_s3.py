"""Data and a run on a server that speaks S3: `pip install s3fs 'moto[server]'`, else these are skipped."""

import signal

import pytest
from ray_cluster import Started, differ, words

from trunkline.ground import access, storage
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.runs.mirror import Mirror

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow
GIVEN = {"updates": 8, "checkpoints.updates": 2, "evaluation.every": 2}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """An empty bucket, and the environment by which S3's own tools find it."""
    served = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    served.start()
    host, port = served.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    access._split.cache_clear()
    name = f"bucket{port}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    served.stop()
    s3fs.S3FileSystem.clear_instance_cache()
    access._split.cache_clear()


def test_a_run_on_s3_reads_its_data_there_is_killed_and_goes_on(scenes, bucket, tmp_path):
    for file in scenes.rglob("*.jpg"):
        storage.send(file, storage.join(bucket, "photos", file.relative_to(scenes).as_posix()))
    assert main(words(scenes, tmp_path / "here", **GIVEN)) == 0

    there = f"{bucket}/runs/one"
    command = [*words(f"{bucket}/photos", tmp_path / "unused", machine__workers=2, **GIVEN)[:-2], "--run", there]
    started = Started(command, tmp_path / "killed")
    state = storage.join(there, "checkpoints/000004/state.json")
    started.until(lambda: _there(state))
    started.process.send_signal(signal.SIGKILL)
    started.end(60)
    assert not _there(storage.join(there, "weights.safetensors"))
    again = Started(command, tmp_path / "again")
    assert again.end() == 0, again.said()
    assert "going on from update" in again.said()

    mirror = Mirror(there)
    mirror.pull(leave=())
    assert differ(mirror.folder, tmp_path / "here") == []
    assert main(["evaluate", there, "loaders=0"]) == 0
    assert main(["predict", there, str(next((scenes / "val").rglob("*.jpg")))]) == 0


def test_what_is_wrong_on_s3_is_said(bucket, tmp_path, capsys):
    assert main(words(f"{bucket}/nothing", tmp_path / "run", **GIVEN)) == 2
    assert main(words("s3://no-such-bucket/photos", tmp_path / "run", **GIVEN)) == 2
    assert main(["evaluate", f"{bucket}/runs/none"]) == 2
    said = capsys.readouterr().err
    assert said.count("s3://") >= 3 and "Traceback" not in said


def _there(address: str) -> bool:
    try:
        return bool(storage.read(address))
    except OSError:
        return False
