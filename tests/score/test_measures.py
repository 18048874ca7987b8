"""PSNR and SSIM beside skimage's, and the protocol around them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trunkline.ground.errors import DataError, RecipeError
from trunkline.tasks.super_resolution.measures.of_piq import check
from trunkline.tasks.super_resolution.measures.protocol import compare, luma, psnr, ssim, summary


def theirs(a: np.ndarray, b: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
            channel_axis=2 if a.ndim == 3 else None,
        )  # type: ignore[arg-type]
    )  # fmt: skip


def noisy(seed: int, height: int, width: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture, and the same with noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    truth = np.stack([127 + 120 * np.sin(x / (7 + n) + y / (11 - n)) for n in range(channels)], 2).round()
    found = (truth + draw.normal(0, draw.uniform(1, 40), truth.shape)).clip(0, 255).round()
    return truth.astype(np.uint8), found.astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(11, 150), width=st.integers(11, 60))
def test_both_are_skimages(seed, height, width):
    from skimage.metrics import peak_signal_noise_ratio

    a, b = (p.astype(float) for p in noisy(seed, height, width))
    for one, other in ((luma(a), luma(b)), (a, b)):
        assert abs(ssim(one, other) - theirs(one, other)) < 1e-6
        assert abs(psnr(one, other) - peak_signal_noise_ratio(one, other, data_range=255)) < 1e-6


def test_the_luma_is_bt601_of_the_studio_range():
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], float)
    assert np.abs(luma(corners) - [[16, 235, 81.481, 144.553, 40.966]]).max() < 1e-9
    bright, dark = np.full((20, 20, 3), 140.0), np.full((20, 20, 3), 130.0)
    assert abs(psnr(luma(bright), luma(dark)) - psnr(bright, dark) - 20 * math.log10(255 / 219)) < 1e-9


def test_compare_crops_the_border_and_names_both_protocols():
    truth, found = noisy(3, 40, 52)
    broken = found.copy()
    broken[:4], broken[-4:], broken[:, :4], broken[:, -4:] = 0, 0, 255, 255  # nothing there counts
    scores = compare(truth, broken, 4)
    inner = [p[4:-4, 4:-4].astype(float) for p in (truth, found)]
    y = [16 + (p @ [65.481, 128.553, 24.966]) / 255 for p in inner]
    assert scores["psnr_y"] == pytest.approx(10 * math.log10(255**2 / ((y[0] - y[1]) ** 2).mean()), abs=1e-9)
    assert scores["psnr_rgb"] == pytest.approx(10 * math.log10(255**2 / ((inner[0] - inner[1]) ** 2).mean()), abs=1e-9)
    assert scores["ssim_y"] == pytest.approx(theirs(*y), abs=1e-6)
    single = [theirs(inner[0][..., n], inner[1][..., n]) for n in range(3)]
    assert scores["ssim_rgb"] == pytest.approx(sum(single) / 3, abs=1e-6)
    assert compare(truth, broken, 3)["psnr_rgb"] < scores["psnr_rgb"]


def test_16_bits_are_scored_unrounded_over_257():
    truth, found = noisy(5, 30, 30)
    deep = [p.astype(np.uint16) * 257 for p in (truth, found)]
    assert compare(deep[0], deep[1], 2) == pytest.approx(compare(truth, found, 2), abs=1e-9)
    assert compare(truth, deep[1], 2) == pytest.approx(compare(truth, found, 2), abs=1e-9)
    nearer = deep[0].copy()
    nearer[::2] += np.uint16(100) * (nearer[::2] < 60000)
    assert 50 < compare(deep[0], nearer, 2)["psnr_rgb"] < math.inf  # 8 bits would show no difference


def test_grey_is_repeated_or_its_own_y():
    truth, found = noisy(6, 30, 30, 1)
    both = compare(truth, found, 2)
    own = compare(truth[..., 0], found, 2, grey="own")
    assert both["psnr_y"] - own["psnr_y"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)
    assert both["psnr_rgb"] == pytest.approx(own["psnr_y"]) and own["psnr_rgb"] == own["psnr_y"]
    stored = compare(truth, found.repeat(3, 2), 2, grey="own")  # grey, but stored as three planes
    assert stored == own
    with pytest.raises(DataError, match="grey=own"):
        compare(truth, noisy(6, 30, 30)[1], 2, grey="own")
    coloured = noisy(7, 30, 30)
    assert compare(*coloured, 2, grey="own") == compare(*coloured, 2)  # it says nothing of colours


def test_what_cannot_be_compared_is_refused():
    truth, found = noisy(8, 30, 30)
    with pytest.raises(DataError, match="30 x 29 pixels, the true one 30 x 30"):
        compare(truth, found[:29], 2)
    with pytest.raises(DataError, match="border of 10 pixels"):
        compare(truth, found, 10)
    with pytest.raises(DataError, match="float64"):
        compare(truth, found.astype(float), 2)
    with pytest.raises(DataError, match=r"\(30, 30, 4\)"):
        compare(np.dstack([truth, truth[..., :1]]), found, 2)
    with pytest.raises(DataError, match="10 x 30 pixels are too few for SSIM"):
        ssim(np.zeros((30, 10)), np.zeros((30, 10)))


def test_a_mean_says_what_is_not_in_it():
    truth, found = noisy(9, 30, 30)
    same, other = compare(truth, truth, 2), compare(truth, found, 2)
    assert same["psnr_y"] == same["psnr_rgb"] == math.inf and same["ssim_y"] == 1
    mixed = summary([other, same, other])
    assert mixed.metrics["psnr_y"] == pytest.approx(other["psnr_y"]) and len(mixed.notes) == 2
    assert mixed.metrics["ssim_y"] == pytest.approx((2 * other["ssim_y"] + 1) / 3)
    assert "1 of 3 pictures equal the truth" in mixed.notes[0]
    none = summary([same, same])
    assert none.metrics["psnr_y"] is None and "psnr_y" not in none.intervals and "all of 2 pictures" in none.notes[0]
    assert summary([]).metrics == dict.fromkeys(("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"))


def test_the_mean_has_an_interval_over_pictures():
    rows = [{"psnr_y": float(v)} for v in np.random.default_rng(0).normal(30, 2, 200)]
    found = summary(rows)
    low, high = found.intervals["psnr_y"]
    half = 1.96 * np.std([r["psnr_y"] for r in rows]) / math.sqrt(200)
    assert found.metrics["psnr_y"] is not None and low < found.metrics["psnr_y"] < high
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_the_measures_of_piq():
    piq, torch = pytest.importorskip("piq"), pytest.importorskip("torch")
    truth, found = noisy(10, 180, 172)
    names = ("ms_ssim", "haarpsi", "gmsd")
    scores = compare(truth, found, 4, more=names)
    planes = [torch.tensor(p[4:-4, 4:-4] / 255.0).float().permute(2, 0, 1)[None] for p in (found, truth)]
    for name, function in zip(names, (piq.multi_scale_ssim, piq.haarpsi, piq.gmsd), strict=True):
        assert scores[name] == pytest.approx(float(function(*planes)), abs=1e-6)
    with pytest.raises(DataError, match="too few for ms_ssim, which needs 161"):
        compare(truth[:100], found[:100], 4, more=("ms_ssim",))


def test_measures_that_cannot_be_computed_are_told_together(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "piq", None)
    with pytest.raises(RecipeError) as told:
        check(("lpips", "gmds"))
    said = "\n".join(told.value.problems)
    assert "more=gmds: there is no such measure" in said and "nearest: gmsd" in said
    assert "pip install piq" in said and "lpips_weights.pt" in said and "vgg16-397923af.pth" in said


def test_the_bicubic_baseline_on_set5(shared_data):
    from trunkline.tasks.super_resolution.resize import resized, to_integers

    rows = []
    for file in sorted((shared_data / "sr/Set5/HR").iterdir()):
        truth, small = (np.array(Image.open(p)) for p in (file, shared_data / "sr/Set5/LRx4_mirror" / file.name))
        rows.append(compare(truth, to_integers(resized(small, *truth.shape[:2]), 8), 4))
    metrics = summary(rows).metrics
    assert metrics["psnr_y"] == pytest.approx(28.429, abs=5e-4)  # published: 28.42 or 28.43
    assert metrics["ssim_y"] == pytest.approx(0.811, abs=5e-3)  # published: 0.8104 to 0.8211
