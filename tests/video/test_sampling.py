"""Which frames stand for a video, against plain statements and torchvision's formulas."""

import numpy as np
import pytest
import torch

from trunkline.ground.errors import DataError
from trunkline.tasks.video.options import Options
from trunkline.tasks.video.sampling import at_rate, fixed_frames, pick_within, random_frames


def evenly(count, rate=25.0):
    return np.arange(count) / rate


@pytest.mark.parametrize(
    ("count", "own", "rate"), [(100, 30.0, 15.0), (97, 25.0, 15.0), (50, 10.0, 15.0), (303, 29.97, 15.0)]
)
def test_a_rate_takes_the_frames_that_torchvision_takes(count, own, rate):
    step = own / rate
    wanted = np.floor(np.arange(int(np.ceil(count / step - 1e-6))) * step + 1e-6).astype(int)
    np.testing.assert_array_equal(at_rate(evenly(count, own), rate), np.minimum(wanted, count - 1))


def test_a_variable_rate_is_seen_by_time():
    times = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 2.0])
    assert at_rate(times, 2.0).tolist() == [0, 2, 3, 4, 5]  # at 0, 0.5, 1, 1.5, 2 s: the frame that is shown then


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 16, 100])
def test_segments_of_evaluation_are_evenly_placed(count, clips):
    found = fixed_frames(count, evenly(count), Options(frames=8, clips=clips))
    wanted = [[int((k + (c + 0.5) / clips) * count / 8) for k in range(8)] for c in range(clips)]
    assert found.indices.tolist() == wanted and found.real.tolist() == [8] * clips


def test_random_segments_stay_in_their_part_and_reach_all_of_it():
    torch.manual_seed(0)
    drawn = np.concatenate([random_frames(40, evenly(40), Options(frames=4)).indices for _ in range(300)])
    for k in range(4):
        assert set(drawn[:, k]) == set(range(10 * k, 10 * k + 10))


def test_starts_of_a_stride_are_those_of_torchvisions_sampler():
    o = Options(frames=4, sampling="stride", stride=3, clips=5)
    found = fixed_frames(60, evenly(60), o).indices
    starts = torch.linspace(0, 60 - 10, 5).floor().long().tolist()
    assert found[:, 0].tolist() == starts and (np.diff(found, axis=1) == 3).all()
    assert (
        fixed_frames(60, evenly(60), Options(frames=4, sampling="stride", stride=3)).indices[0, 0] == 25
    )  # the middle


def test_a_short_video_stands_still_at_its_end_and_says_how_much_is_real():
    o = Options(frames=6, sampling="stride", stride=2)
    for found in (fixed_frames(7, evenly(7), o), random_frames(7, evenly(7), o)):
        assert found.indices.tolist() == [[0, 2, 4, 6, 6, 6]] and found.real.tolist() == [4]


def test_random_starts_reach_the_first_and_the_last_place():
    torch.manual_seed(0)
    o = Options(frames=3, sampling="stride", stride=2)
    starts = {int(random_frames(9, evenly(9), o).indices[0, 0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}


def test_a_part_is_seen_from_its_middle_and_no_further_than_the_video_goes():
    segments = pick_within(10, 20, 100, evenly(100), Options(frames=5))
    assert segments.indices.tolist() == [[11, 13, 15, 17, 19]]
    o = Options(frames=5, sampling="stride", stride=2)
    assert pick_within(40, 50, 100, evenly(100), o).indices.tolist() == [[40, 42, 44, 46, 48]]
    assert pick_within(0, 2, 100, evenly(100), o).indices.tolist() == [[0, 2, 4, 6, 8]]
    assert pick_within(98, 100, 100, evenly(100), o).indices.tolist() == [[91, 93, 95, 97, 99]]


def test_a_video_without_frames_is_refused():
    for pick in (fixed_frames, random_frames):
        with pytest.raises(DataError, match="no frame"):
            pick(0, evenly(0), Options())
