"""`score images` and `predict bicubic`: whole folders, from the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trunkline
from trunkline.ground.errors import DataError, RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.score.score_images import images
from trunkline.tasks.super_resolution.files import Picture, read_picture, write_picture
from trunkline.tasks.super_resolution.measures.protocol import compare
from trunkline.tasks.super_resolution.resize import resized, shrunk, to_integers

NAMES = ("a", "b", "deep/c")


def smooth(seed: int, height: int = 48, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.dstack([127 + 120 * np.sin(x / (5 + seed) + y / (9 - n)) for n in range(3)]).round().astype(np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """True pictures in `hr`, and in `sr` what bicubic makes of their quarters."""
    for seed, name in enumerate(NAMES):
        truth = smooth(seed)
        for folder, pixels in (("hr", truth), ("lr", shrunk(truth, 4))):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_picture(tmp_path / folder / f"{name}.png", Picture(pixels))
    assert main(["predict", "bicubic", str(tmp_path / "lr"), "scale=4", f"out={tmp_path / 'sr'}"]) == 0
    return tmp_path / "hr", tmp_path / "sr"


def test_the_published_baseline_from_the_command_line(shared_data, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", "bicubic", str(shared_data / "sr/Set5/LRx4_mirror"), "scale=4", f"out={out}"]) == 0
    capsys.readouterr()
    assert main(["score", "images", str(shared_data / "sr/Set5/HR"), str(out), "--scale", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 28.41 <= found["psnr_y"] <= 28.44  # a = -0.75 gives 28.63
    assert found["psnr_y"] == pytest.approx(28.4290, abs=1e-4) and found["counts"]["pictures"] == 5
    low, high = found["intervals"]["psnr_y"]
    assert low < found["psnr_y"] < high


def test_pairs_are_scored_as_compare_does(folders, tmp_path, capsys):
    truth, upscaled = folders
    scored = images(truth, upscaled, scale=4, out=tmp_path / "each.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["a", "b", "deep/c"]
    for row in rows:
        pictures = [read_picture(row[side]).pixels for side in ("truth", "upscaled")]
        assert {n: row[n] for n in scored.metrics} == pytest.approx(compare(*pictures, 4))
    for name, value in scored.metrics.items():
        assert value == pytest.approx(np.mean([row[name] for row in rows]))
    assert images(truth, upscaled, scale=4, border=0).metrics != scored.metrics
    assert trunkline.score("images", truth, upscaled, scale=4).metrics == scored.metrics
    assert main(["score", "images", str(truth), str(upscaled), "--scale", "4"]) == 0
    said = capsys.readouterr().out
    assert "95 % interval" in said and "psnr_rgb" in said and "3 pictures" in said


def test_the_truth_is_cropped_and_that_is_said(folders, capsys):
    truth, upscaled = folders
    before = images(truth, upscaled, scale=4).metrics
    wider = np.pad(read_picture(truth / "a.png").pixels, ((0, 3), (0, 2), (0, 0)))
    write_picture(truth / "a.png", Picture(wider))
    scored = images(truth, upscaled, scale=4)
    assert scored.metrics == before and scored.counts["cropped"] == 1
    assert scored.warnings == ["1 true picture of 3 cropped to a multiple of 4 (a: 58 x 51 to 56 x 48)"]


def test_equal_pictures_are_said_and_in_no_mean(folders, tmp_path, capsys):
    truth, upscaled = folders
    write_picture(upscaled / "a.png", read_picture(truth / "a.png"))
    out = tmp_path / "each.jsonl"
    assert main(["score", "images", str(truth), str(upscaled), "--scale=4", "--json", f"out={out}"]) == 0
    found, rows = json.loads(capsys.readouterr().out), [json.loads(line) for line in out.read_text().splitlines()]
    assert found["counts"]["equal"] == 1 and "psnr_y: 1 of 3 pictures equal the truth" in found["warnings"][0]
    assert rows[0]["psnr_y"] is None and rows[0]["equal"] and not rows[1]["equal"]
    assert found["psnr_y"] == pytest.approx((rows[1]["psnr_y"] + rows[2]["psnr_y"]) / 2)
    same = images(truth, truth, scale=4)
    assert same.metrics["psnr_y"] is None and same.metrics["ssim_y"] == 1 and "all of 3 pictures" in same.warnings[0]


def renamed(folder: Path, end: str) -> None:
    for file in [*folder.rglob("*.png")]:
        file.rename(file.with_name(file.stem + end + ".png"))


def test_a_suffix_is_found_where_it_is_the_only_one(folders, capsys):
    truth, upscaled = folders
    plain = images(truth, upscaled, scale=4)
    renamed(upscaled, "_x4")
    scored = images(truth, upscaled, scale=4)
    assert scored.metrics == plain.metrics and "paired by the suffix _x4: a.png with a_x4.png" in scored.warnings
    for name in NAMES:
        write_picture(upscaled / f"{name}x8.png", read_picture(upscaled / f"{name}_x4.png"))
    with pytest.raises(DataError, match=r"paired in 2 ways.*suffix=_x4 \(a_x4\) or suffix=x8 \(ax8\)"):
        images(truth, upscaled, scale=4)
    chosen = images(truth, upscaled, scale=4, suffix="_x4")
    assert chosen.metrics == plain.metrics and "3 pictures without _x4 do not count" in chosen.warnings[0]
    for name in NAMES:
        write_picture(upscaled / f"{name}.png", read_picture(upscaled / f"{name}_x4.png"))
    with pytest.raises(DataError, match=r'paired in 3 ways.*suffix="" \(a\)'):
        images(truth, upscaled, scale=4)
    capsys.readouterr()
    assert main(["score", "images", str(truth), str(upscaled), "--scale=4", "suffix=", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in plain.metrics} == plain.metrics
    assert "6 pictures of other names do not count" in found["warnings"][0]


def test_half_a_pair_is_refused_from_both_sides(folders):
    truth, upscaled = folders
    (upscaled / "b.png").unlink()
    with pytest.raises(DataError, match=rf"{truth}/b.png: has no upscaled picture b\.\* in {upscaled}"):
        images(truth, upscaled, scale=4)
    write_picture(upscaled / "more.png", Picture(smooth(1)))
    with pytest.raises(DataError, match=r"half a pair:\n.*hr/b\.png.*\n.*more\.png: has no true picture in"):
        images(truth, upscaled, scale=4)


SIZES = {
    "a resized truth": (
        (46, 58),
        (48, 60),
        r"is 60 x 48 pixels; .* scale=4 leaves 56 x 44: the truth was resized and not",
    ),
    "upscaled to the truth": (
        (46, 58),
        (46, 58),
        r"is 58 x 46 .* scale=2 would fit; where 4 is right, the truth was resized",
    ),
    "another scale": ((46, 54), (45, 54), r"scale=3 or 9 would fit"),
    "the sources": ((48, 56), (12, 14), "it is 4 times smaller, as the source is"),
    "exchanged folders": (
        (44, 56),
        (46, 58),
        "it is larger than the truth; the folder of the true pictures is named first",
    ),
    "exchanged sides": ((48, 56), (56, 48), "its sides are exchanged"),
    "something else": ((48, 56), (44, 40), "leaves 56 x 48: the truth was resized and not cropped"),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_contradict_the_scale_are_refused_with_both(folders, case):
    truth, upscaled = folders
    true, found, message = SIZES[case]
    write_picture(truth / "a.png", Picture(smooth(0, *true)))
    write_picture(upscaled / "a.png", Picture(smooth(0, *found)))
    with pytest.raises(DataError, match=message) as told:
        images(truth, upscaled, scale=4)
    assert "\n" not in str(told.value) and str(told.value).startswith(f"{upscaled}/a.png: is {found[1]} x {found[0]} ")


def test_wrong_settings_and_folders_are_told(folders, tmp_path, capsys):
    truth, upscaled = folders
    assert main(["score", "images", str(truth), str(upscaled)]) == 2
    assert "scale= is missing" in capsys.readouterr().err
    with pytest.raises(RecipeError) as told:
        images(truth, upscaled, scale=0, border=-1, more=("mssim",))
    assert len(told.value.problems) >= 3 and "ms_ssim" in str(told.value)
    with pytest.raises(DataError, match="there is no such folder"):
        images(truth, tmp_path / "none", scale=4)
    (tmp_path / "words").mkdir()
    (tmp_path / "words/a.txt").write_text("a")
    with pytest.raises(DataError, match="holds no picture"):
        images(tmp_path / "words", upscaled, scale=4)
    (truth / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"two pictures of one name, a\.jpg and a\.png"):
        images(truth, upscaled, scale=4)
    (truth / "a.jpg").unlink()
    (truth / "b.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"hr/b\.png: it is no image"):
        images(truth, upscaled, scale=4)
    write_picture(truth / "b.png", Picture(smooth(1)))
    with pytest.raises(
        DataError, match=r"sr/a\.png: 56 x 48 pixels are too few: without a border of 20 pixels \(border=\)"
    ):
        images(truth, upscaled, scale=4, border=20)


def test_grey_and_16_bits_through_the_folders(tmp_path):
    grey = smooth(2)[..., :1]
    for name, truth in (("g", grey), ("d", grey.astype(np.uint16) * 257)):
        for folder, pixels in (("hr", truth), ("lr", shrunk(truth, 2))):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_picture(tmp_path / folder / f"{name}.png", Picture(pixels))
    assert main(["predict", "bicubic", str(tmp_path / "lr"), "scale=2", f"out={tmp_path / 'sr'}"]) == 0
    rgb, own = (images(tmp_path / "hr", tmp_path / "sr", scale=2, grey=grey).metrics for grey in ("rgb", "own"))
    assert rgb["psnr_y"] - own["psnr_y"] == pytest.approx(20 * math.log10(255 / 219))  # type: ignore[operator]
    deep = read_picture(tmp_path / "sr/d.png")
    small = shrunk(grey.astype(np.uint16) * 257, 2)
    assert deep.pixels.dtype == np.uint16
    assert np.array_equal(deep.pixels, to_integers(resized(small, 48, 56), 16))


def test_bicubic_keeps_what_a_picture_is(tmp_path):
    draw, source, out = np.random.default_rng(0), tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    pixels, alpha = draw.integers(0, 256, (9, 7, 3)).astype(np.uint8), draw.integers(0, 256, (9, 7)).astype(np.uint8)
    write_picture(source / "sub/rgba.png", Picture(pixels, alpha, b"a profile"))
    write_picture(source / "deep.tif", Picture(pixels.astype(np.uint16) * 200))
    write_picture(source / "photo.jpg", Picture(pixels))
    assert main(["predict", "bicubic", str(source), "scale=3", f"out={out}", "suffix=_x3"]) == 0
    assert sorted(str(f.relative_to(out)) for f in out.rglob("*.*")) == [
        "deep_x3.tif",
        "photo_x3.jpg",
        "sub/rgba_x3.png",
    ]
    found = read_picture(out / "sub/rgba_x3.png")
    assert found.alpha is not None and found.icc == b"a profile"
    assert np.array_equal(found.pixels, to_integers(resized(pixels, 27, 21), 8))
    assert np.array_equal(found.alpha, to_integers(resized(alpha, 27, 21), 8))
    assert read_picture(out / "deep_x3.tif").pixels.dtype == np.uint16
    assert read_picture(out / "photo_x3.jpg").format == "JPEG"
    every = trunkline.predict("bicubic", source / "photo.jpg", scale=2, out=tmp_path / "one", ext="png")
    assert [(p.width, p.height, p.written) for p in every] == [(14, 18, True)]
    assert [f.name for f in (tmp_path / "one").iterdir()] == ["photo.png"]


def test_nothing_is_written_over(folders, tmp_path, capsys):
    _, upscaled = folders
    stamps = {f: f.stat().st_mtime_ns for f in upscaled.rglob("*.png")}
    (upscaled / "a.png").unlink()
    assert main(["predict", "bicubic", str(tmp_path / "lr"), "scale=4", f"out={upscaled}", "--json"]) == 0
    shown = capsys.readouterr()
    assert [json.loads(line)["written"] for line in shown.out.splitlines()] == [True, False, False]
    assert "2 pictures were there already and are kept" in shown.err
    assert all(f.stat().st_mtime_ns == stamp for f, stamp in stamps.items() if f.name != "a.png")
    assert main(["predict", "bicubic", str(tmp_path / "lr"), "scale=2", f"out={upscaled}"]) == 2
    assert "is there already with 56 x 48 pixels, and would have 28 x 24" in capsys.readouterr().err
    assert main(["predict", "bicubic", str(tmp_path / "lr"), "scale=4", f"out={tmp_path / 'lr/up'}"]) == 2
    assert "lies in" in capsys.readouterr().err


def test_what_bicubic_cannot_do_is_told_before_it_begins(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_picture(source / "deep.png", Picture(smooth(0).astype(np.uint16)))
    write_picture(source / "a.png", Picture(smooth(1)))
    Image.fromarray(smooth(1)).save(source / "a.bmp")
    call = ["predict", "bicubic", str(source), f"out={out}"]
    assert main([*call, "scale=2", "ext=jpg"]) == 2
    said = capsys.readouterr().err
    assert "a.bmp and" in said and "both would become" in said
    (source / "a.bmp").unlink()
    assert main([*call, "scale=2", "ext=jpg"]) == 2
    assert "deep.png: JPEG holds 8 bits a channel" in capsys.readouterr().err
    assert main([*call, "scale=1"]) == 2 and "scale=1: expected" in capsys.readouterr().err
    assert main([*call, "scale=2", "workers=2"]) == 2 and "there is no such setting" in capsys.readouterr().err
    assert main([*call, "scale=2", "ext=gif"]) == 2 and "ext=.gif: expected" in capsys.readouterr().err
    assert not out.exists()
    out.write_text("a file")
    with pytest.raises(RecipeError, match=f"out={out}: is a file; give a folder"):
        trunkline.predict("bicubic", source, scale=2, out=out)
    out.unlink()
    out.mkdir()
    (out / "settings.json").write_text("{}")
    with pytest.raises(RecipeError, match="holds pictures that a network made"):
        trunkline.predict("bicubic", source, scale=2, out=out)


def test_bicubic_makes_a_file_once_and_writes_over_none_that_it_reads(tmp_path, monkeypatch, capsys):
    source = tmp_path / "in"
    source.mkdir()
    write_picture(source / "sheet.png", Picture(smooth(0)))  # bicubic draws no sheet
    (tmp_path / "other").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    given = ["in/sheet.png", str(source / "sheet.png"), "in/../in/sheet.png", "other/sheet.png"]
    every = trunkline.predict("bicubic", given, scale=2, out="out")
    assert [p.file for p in every] == ["in/sheet.png"] and [p.caption() for p in every] == ["sheet.png: 112 x 96"]
    for out in (source, tmp_path / "other"):
        with pytest.raises(RecipeError, match=r"sheet\.png, which is read; choose another out=, or give suffix="):
            trunkline.predict("bicubic", source / "sheet.png", scale=2, out=out)
    (tmp_path / "full/sheet.png").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"full/sheet\.png: is a folder, and in/sheet\.png would become it"):
        trunkline.predict("bicubic", "in/sheet.png", scale=2, out="full")
    assert [f.name for f in source.iterdir()] == ["sheet.png"]


def test_a_picture_that_cannot_be_read_is_a_line_and_the_others_are_made(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_picture(source / "a.png", Picture(smooth(0)))
    Image.new("F", (8, 8)).save(source / "float.tif")
    (source / "z.png").write_bytes((source / "a.png").read_bytes()[:-30])
    assert main(["predict", "bicubic", str(source), "scale=2", f"out={out}", "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in row for row in rows] == [False, True, True] and "it holds floats" in rows[1]["error"]
    assert [f.name for f in out.iterdir()] == ["a.png"]
    assert main(["predict", "bicubic", str(source), "scale=2", f"out={tmp_path / 'again'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "wrote 1 picture into" in said and "; 2 pictures failed" in said


def test_a_file_of_that_name_is_a_model_as_ever(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bicubic").mkdir()
    assert main(["predict", "bicubic", "in", "out=out"]) == 2 and "scale= is missing" in capsys.readouterr().err
    (tmp_path / "bicubic").rmdir()
    (tmp_path / "bicubic").write_bytes(b"no weights")
    assert main(["predict", "bicubic", "in", "out=out"]) == 2
    assert "bicubic: " in (said := capsys.readouterr().err) and "scale=" not in said
    assert main(["predict", "--help"]) == 0 and "SOURCE|bicubic" in capsys.readouterr().out
