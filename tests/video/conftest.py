"""What the tests of clips share."""

import pytest

from trunkline.tasks.video.scenes import write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "clips", train=8, val=4, size=40)
