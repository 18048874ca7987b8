"""A picture seen in tiles is the picture seen whole; with too little overlap it is not."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from upscaler_work import train

from trunkline.backbones import backbone
from trunkline.heads.model import Model
from trunkline.heads.super_resolution.upscaling import UpscalingHead, receptive_field
from trunkline.pipelines.command.cli import main
from trunkline.tasks.super_resolution.options import Options
from trunkline.tasks.super_resolution.seeing import Seeing
from trunkline.tasks.super_resolution.tiles import difference, overlap_of, side_for, spans, upscale

TASK = "super_resolution"


def network(arch="srresnet", blocks=8, width=16, scale=4, unshuffle=1) -> Model:
    torch.manual_seed(0)
    trunk = backbone(arch, blocks=blocks, width=width, unshuffle=unshuffle, zero_init=False)
    head = UpscalingHead(arch, trunk.channels, scale, unshuffle=unshuffle, preprocessing=trunk.preprocessing)
    return Model(trunk, {TASK: head}, trunk.preprocessing).eval()


def picture(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8))


def apart(model, image, side, overlap, scale=4) -> tuple[float, int]:
    """The largest distance of tiles from the whole, before rounding in 0..1, and after."""
    see = Seeing(model, TASK, Options(scale=scale))._see
    with torch.inference_mode():
        whole = see(image[None])[0]
        made = torch.full_like(whole, torch.nan)
        for rows in spans(image.shape[1], side, overlap):
            for columns in spans(image.shape[2], side, overlap):
                found = see(image[None, :, rows.start : rows.stop, columns.start : columns.stop])[0]
                top, left = (rows.first - rows.start) * scale, (columns.first - columns.start) * scale
                own = slice(rows.first * scale, rows.last * scale), slice(columns.first * scale, columns.last * scale)
                made[:, *own] = found[
                    :, top : top + own[0].stop - own[0].start, left : left + own[1].stop - own[1].start
                ]
        integers = [upscale(image, see, scale, s, overlap, 255, torch.device("cpu")) for s in (0, side)]
    return float((made - whole).abs().max()), int((integers[0] != integers[1]).sum())


def test_tiles_are_the_whole_and_with_less_overlap_they_are_not():
    model, image = network(), picture(128, 96)
    reach = receptive_field(model.backbone, model.heads[TASK])
    assert reach is not None and overlap_of(reach, None) == reach
    before, after = apart(model, image, 2 * reach + 24, reach)
    assert before <= 1e-6 and after == 0
    before, after = apart(model, image, 40, 4)
    assert before > 1e-6 and after > 0


@pytest.mark.slow
def test_a_whole_srresnet_in_tiles():
    model, image = network(blocks=16, width=64), picture(375, 500)
    before, after = apart(model, image, side_for(64, 4, 40), 40)
    assert before <= 1e-6 and after == 0
    before, after = apart(model, image, side_for(64, 4, 40), 4)
    assert before > 1e-6


_LARGE = """
import resource, torch
from test_tiles import TASK, network, picture
from trunkline.tasks.super_resolution.options import Options
from trunkline.tasks.super_resolution.seeing import Seeing
torch.set_num_threads(2)
model, image = network(blocks=16, width=64), picture(1500, 2000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.inference_mode():
    made = Seeing(model, TASK, Options()).picture(image, 3, 8)
print(made.shape, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_a_large_picture_takes_less_than_two_gib():
    ran = subprocess.run(
        [sys.executable, "-c", _LARGE], capture_output=True, text=True, check=True, cwd=__file__.rpartition("/")[0]
    )
    shape, gib = ran.stdout.rsplit(" ", 1)
    assert shape == "(6000, 8000, 3)" and float(gib) < 2


@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 60))
def test_spans_cover_a_side_once(length, side, overlap):
    found = spans(length, side, overlap)
    assert found[0].first == 0 and found[-1].last == length
    assert all(a.last == b.first for a, b in pairwise(found))
    for one in found:
        assert 0 <= one.start <= one.first < one.last <= one.stop <= length
        assert one.first - one.start in (overlap, one.first) or length <= side
        assert one.stop - one.last in (overlap, length - one.last) or length <= side
    assert all(one.start % 4 == 0 for one in spans(length, side, overlap, 4))


def test_tiles_that_leave_next_to_nothing_are_refused(run, scenes, tmp_path, capsys):
    """Else a picture of 500 pixels a side would be 250,000 tiles of a pixel."""
    given = ["predict", str(run), str(scenes / "val"), f"out={tmp_path / 'out'}"]
    said = "which leaves too little of its own; expected 0 (whole pictures), or at least "
    for tiles, more, wanted in (
        (8, (), f"as far as the network reaches, {said}"),
        (
            16,
            ("overlap=8",),
            f"tiles=16: a tile overlaps its neighbours by overlap=8 pixels on each side, {said}2 x 8 + 8 = 24",
        ),
        (20, ("overlap=1000",), f"{said}2 x 1000 + 8 = 2008, or overlap=6 or less"),
    ):
        assert main([*given, f"tiles={tiles}", *more]) == 2
        assert wanted in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert train(scenes, tmp_path / "run", "updates=1", "tasks.super_resolution.tiles=8") == 2
    assert "tiles=8: a tile overlaps" in capsys.readouterr().err and not (tmp_path / "run/checkpoints").exists()
    assert main([*given, "tiles=16", "overlap=4"]) == 0


def test_a_network_that_reaches_further_says_how_far_tiles_are_apart():
    model, image = network("rrdbnet", blocks=2, width=8), picture(90, 40)
    reach = receptive_field(model.backbone, model.heads[TASK])
    assert reach is not None and reach > 32
    see = Seeing(model, TASK, Options(tiles=30, overlap=4))
    with torch.inference_mode():
        see.picture(image, 3, 8)
        found = difference(image, see._see, 4, 30, 4, torch.device("cpu"))
    assert found > 0 and f"tiles of 30 pixels overlap by 4, and the network reaches {reach} pixels" in see.remark
    assert f"the middle pair of tiles differs by {found * 255:.2g} of 255 from both seen at once" in see.remark
    assert "others may differ more" in see.remark
    quiet = Seeing(model, TASK, Options(tiles=0))
    with torch.inference_mode():
        quiet.picture(image, 3, 8)
    assert quiet.remark == ""


@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4)])
def test_tiles_behind_an_unshuffle_begin_where_it_does(scale, unshuffle):
    model = network("rrdbnet", blocks=1, width=8, scale=scale, unshuffle=unshuffle)
    reach = receptive_field(model.backbone, model.heads[TASK])
    assert reach is not None
    see = Seeing(model, TASK, Options(scale=scale, tiles=2 * reach + 30, overlap=reach))
    whole = Seeing(model, TASK, Options(scale=scale, tiles=0))
    image = picture(5 * reach + 7, 37)
    with torch.inference_mode():
        assert np.array_equal(see.picture(image, 3, 8), whole.picture(image, 3, 8))


def test_memory_that_runs_out_makes_tiles_smaller():
    asked = []

    def see(tile):
        asked.append(tile.shape[-1])
        if tile.shape[-1] > 40:
            raise torch.OutOfMemoryError("out of memory")
        return tile.float().repeat_interleave(4, 2).repeat_interleave(4, 3) / 255

    image = picture(30, 100)
    made = upscale(image, see, 4, 0, 4, 255, torch.device("cpu"))
    assert torch.equal(made[:, ::4, ::4], image) and asked[0] == 100 and asked[-1] <= 40
    with pytest.raises(torch.OutOfMemoryError):
        upscale(image, lambda tile: see(torch.zeros(1, 3, 99, 99)), 4, 0, 4, 255, torch.device("cpu"))


def test_eight_views_are_averaged_and_turned_back():
    model, image = network(blocks=1, width=8), picture(20, 14)
    see, views = Seeing(model, TASK, Options(ensemble=True)), []
    with torch.inference_mode():
        for mirrored in (False, True):
            for turns in range(4):
                seen = np.rot90(image.numpy()[:, :, ::-1] if mirrored else image.numpy(), turns, (1, 2)).copy()
                found = Seeing(model, TASK, Options())._see(torch.from_numpy(seen)[None])[0].numpy()
                found = np.rot90(found, -turns, (1, 2))
                views.append(found[:, :, ::-1] if mirrored else found)
        mean = np.mean(views, 0).clip(0, 1)
        made = see.picture(image, 3, 8)
    assert np.abs(made.transpose(2, 0, 1) / 255 - mean).max() <= 0.5 / 255 + 1e-6


def test_grey_deep_and_transparent_pictures_stay_what_they_are():
    model = network(blocks=1, width=8)
    see = Seeing(model, TASK, Options())
    grey = picture(12, 16)[:1].expand(3, -1, -1)
    with torch.inference_mode():
        assert see.picture(grey, 1, 8).shape == (48, 64, 1)
        deep = see.picture(picture(12, 16).float(), 3, 16)
        assert deep.dtype == np.uint16 and np.abs(deep / 257 - see.picture(picture(12, 16), 3, 8)).max() <= 0.51
        alpha = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
        assert see.alpha(alpha).shape == (48, 64)
        by_network = Seeing(model, TASK, Options(alpha="network")).alpha(alpha.astype(np.uint16) * 257)
        assert by_network.shape == (48, 64) and by_network.dtype == np.uint16
