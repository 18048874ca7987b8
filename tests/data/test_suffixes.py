"""Pictures by the ends of their names: every reader knows the same ones, and a line says what is to be installed."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from trunkline.ground.errors import DataError
from trunkline.tasks.classification.folders import read_splits
from trunkline.tasks.images.decode import decode, read_image
from trunkline.tasks.images.photos import photos
from trunkline.tasks.images.suffixes import HAS_HEIF
from trunkline.tasks.objects.index import by_stem
from trunkline.tasks.objects.voc_file import read_list
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.splits import read_split

JPEGS = (".jfif", ".jpe", ".JFIF")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def picture(kind: str) -> bytes:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((53, 37)).save(out, kind)
    return out.getvalue()


def write(root: Path, suffixes, content: bytes) -> Path:
    for split in ("train", "val"):
        for cls in "ab":
            for suffix in suffixes:
                file = root / split / cls / f"x{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    return root


@pytest.mark.parametrize("suffixes", [JPEGS, (".avif", ".AVIF")])
def test_all_readers_know_them_and_give_pillows_pixels(tmp_path, suffixes):
    if ".avif" in suffixes and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    content = picture("AVIF" if ".avif" in suffixes else "JPEG")
    root, count = write(tmp_path / "data", suffixes, content), len(suffixes)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for address in (root, f"file://{root}"):
        train = read_splits(address)["train"]
        assert len(train) == 2 * count
        assert all(np.array_equal(train[i].image.permute(1, 2, 0).numpy(), expected) for i in range(len(train)))
    assert len([*photos(str(root))]) == 4 * count
    (tmp_path / "tar").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"tar/{split}-0.tar", "w") as archive:
            archive.add(root / split / "a" / f"x{suffixes[0]}", "a/1" + suffixes[0])
            archive.add(root / split / "b" / f"x{suffixes[0]}", "b/2" + suffixes[0])
    assert len(read_splits(tmp_path / "tar")["train"]) == 2
    assert by_stem(root / "train/a") == {"x": sorted(f"x{s}" for s in suffixes)}
    (tmp_path / "list.txt").write_text(f"x{suffixes[0]}\n")
    assert read_list(tmp_path / "list.txt") == ["x"]
    for split in ("train", "val"):
        for kind, end in (("images", suffixes[0]), ("masks", ".png")):
            (tmp_path / "pairs" / kind / split).mkdir(parents=True)
            (tmp_path / "pairs" / kind / split / f"x{end}").write_bytes(content)
    (tmp_path / "pairs/classes.txt").write_text("a\nb\n")
    assert len(read_split(Options(data=str(tmp_path / "pairs"), format="pairs"), "train")) == 1


@pytest.mark.skipif(HAS_HEIF, reason="pillow-heif is there")
def test_heic_says_what_to_install(tmp_path):
    line = "is a HEIC picture, which needs pillow-heif: pip install pillow-heif"
    with pytest.raises(DataError, match=line):
        decode(HEIC)
    (tmp_path / "x.jpg").write_bytes(HEIC)  # as phones name them
    with pytest.raises(DataError, match=f"x.jpg: {line}"):
        read_image(tmp_path / "x.jpg")
    root = write(tmp_path / "data", (".jpg", ".heic", ".HEIF"), picture("JPEG"))
    for address in (root, f"file://{root}"):
        with pytest.raises(DataError) as caught:
            read_splits(address)
        assert str(caught.value).count(line) == 8 and "train/a/x.heic: is a HEIC" in str(caught.value)
        assert len(read_splits(address, on_bad_sample="skip")["train"]) == 2
    assert len([*photos(str(root))]) == 12  # predict says it of each


WITH_HEIF = """
import importlib, sys
sys.path.insert(0, sys.argv[2])
from trunkline.tasks.images import decode, suffixes
for module in (suffixes, decode):  # a process of its own, in which they may be loaded already
    importlib.reload(module)
assert ".heic" in suffixes.READ, suffixes.NEEDS
print(int(decode.read_image(sys.argv[1]).sum()))
"""
STAND_IN = """
import io
from PIL import Image

def register_heif_opener():
    read = lambda file, name: Image.open(io.BytesIO(file.read()[16:]))
    Image.register_open("HEIF", read, lambda start: start[4:12] == b"ftypheic")
"""


def test_heic_is_read_where_pillow_heif_is_there(tmp_path):
    """With a stand-in of that package, which reads a BMP behind HEIC's first bytes."""
    (tmp_path / "pillow_heif.py").write_text(STAND_IN)
    (tmp_path / "x.heic").write_bytes(HEIC[:16] + picture("BMP"))
    words = [sys.executable, "-c", WITH_HEIF, str(tmp_path / "x.heic"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == int(decode(picture("BMP")).sum())
