"""What several tests of super-resolution share."""

import pytest
from upscaler_work import train

from trunkline.tasks.super_resolution.scenes import write_pictures


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Generated pictures: six for training, three for scores."""
    return write_pictures(tmp_path_factory.mktemp("scenes") / "pictures", train=6, val=3, size=64)


@pytest.fixture(scope="session")
def run(scenes, tmp_path_factory):
    """A run of four updates; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "one"
    assert train(scenes, folder, "updates=4", "checkpoints.updates=2") == 0
    return folder
