"""What is measured on a GPU, run at its smallest on a CPU."""

import pytest

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.bench import bench_gpu
from trunkline.pipelines.bench.bench import options


def test_idle_is_what_no_kernel_covers():
    assert bench_gpu.idle_share([(0, 4), (1, 2), (6, 8), (7, 10)]) == pytest.approx(0.2)
    assert bench_gpu.idle_share([(5, 6)]) == pytest.approx(0.0) and bench_gpu.idle_share([]) == 0.0


def test_photos_are_as_large_as_real_ones(tmp_path):
    from PIL import Image

    folder = bench_gpu._photos(tmp_path / "photos", 4)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 4 and all(Image.open(f).size == (500, 375) for f in files)
    assert all(50_000 < f.stat().st_size < 300_000 for f in files)


@pytest.mark.parametrize("setting", ["crop_batch=1", "batch=1 with size=32", "photos=1", "boxes_batch=0"])
def test_a_setting_that_cannot_be_measured_is_named_before_anything_runs(setting):
    words = dict(word.split("=") for word in setting.replace(" with", "").split())
    with pytest.raises(RecipeError, match=setting):
        options("gpu")(**{k: int(v) for k, v in words.items()}, device="cpu")


@pytest.mark.slow
def test_every_row_is_measured():
    tiny = {"rounds": 1, "batch": 2, "size": 32, "crop_batch": 2, "crop": 64, "boxes_batch": 1, "longest": 64}
    found = options("gpu")(**tiny, photos=8, compiled=True, device="cpu")
    names = [row["name"] for row in found.rows]
    assert len(set(names)) == len(names) == 3 * 2 * 2 * 2 + 1
    assert all(row["ours"] > 0 and row["theirs"] > 0 for row in found.rows)
    assert found.settings["from JPEGs, pictures a second"] > 0
    assert 0 <= found.settings["share that waits for the loader"] <= 1
    assert "operators" in str(found)
