"""What the tests of events share."""

import pytest

from trunkline.tasks.events.scenes import write_videos


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("events") / "data", train=12, val=6, size=64)
