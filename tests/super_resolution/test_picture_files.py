"""Picture files: read and written as what they are, or refused with a message."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from trunkline.ground.errors import DataError
from trunkline.tasks.super_resolution.files import Look, Picture, look_at, read_picture, why_not, write_picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(bits: int, channels: int, alpha: bool, icc: bytes | None = ICC) -> Picture:
    kind = np.uint8 if bits == 8 else np.uint16
    draw = np.random.default_rng(bits + channels)
    pixels = draw.integers(0, 2**bits, (13, 17, channels)).astype(kind)
    return Picture(pixels, draw.integers(0, 2**bits, (13, 17)).astype(kind) if alpha else None, icc)


def same(found: Picture, wanted: Picture) -> bool:
    alphas = [p.alpha if p.alpha is not None else np.zeros((0, 0), p.pixels.dtype) for p in (found, wanted)]
    kinds = found.pixels.dtype == wanted.pixels.dtype and alphas[0].dtype == alphas[1].dtype
    return kinds and np.array_equal(found.pixels, wanted.pixels) and np.array_equal(*alphas) and found.icc == wanted.icc


EXACT = [(suffix, bits, channels, alpha) for suffix in (".png", ".tif") for bits in (8, 16) for channels in (1, 3)
         for alpha in (False, True) if (suffix, bits, channels, alpha) != (".tif", 16, 1, True)]  # fmt: skip


@pytest.mark.parametrize(("suffix", "bits", "channels", "alpha"), EXACT)
def test_a_picture_comes_back_as_it_was_written(tmp_path, suffix, bits, channels, alpha):
    wanted, file = picture(bits, channels, alpha), tmp_path / f"a{suffix}"
    write_picture(file, wanted)
    found = read_picture(file)
    assert same(found, wanted) and found.format == ("PNG" if suffix == ".png" else "TIFF")
    assert look_at(file) == found.look and [p.name for p in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_read_by_others(tmp_path, channels):
    tifffile, decode_png = pytest.importorskip("tifffile"), pytest.importorskip("torchvision.io").decode_png
    import torch

    wanted = picture(16, min(channels, 3), channels == 4)
    stacked = wanted.pixels if wanted.alpha is None else np.dstack([wanted.pixels, wanted.alpha])
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"a{suffix}", wanted)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert np.array_equal(np.atleast_3d(page.asarray()), stacked) and page.tags[34675].value == ICC
    data = torch.frombuffer(bytearray((tmp_path / "a.png").read_bytes()), dtype=torch.uint8)
    assert np.array_equal(decode_png(data, mode="UNCHANGED").permute(1, 2, 0).numpy(), stacked)
    opened = Image.open(tmp_path / "a.png")
    opened.load()
    assert opened.info["icc_profile"] == ICC


def test_lossy_formats_are_near_and_keep_the_profile(tmp_path):
    y, x = np.mgrid[:40, :40]
    smooth = Picture(np.dstack([x * 5, y * 5, x + y]).astype(np.uint8), None, ICC)
    for name, most in (("a.jpg", 4.0), ("a.webp", 6.0), ("a.bmp", 0.0)):
        smooth.icc = None if name == "a.bmp" else ICC
        write_picture(tmp_path / name, smooth, quality=95)
        found = read_picture(tmp_path / name)
        assert np.abs(found.pixels.astype(int) - smooth.pixels).mean() <= most and found.icc == smooth.icc
    write_picture(tmp_path / "low.jpg", smooth, quality=20)
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size
    exact = picture(8, 3, True)
    write_picture(tmp_path / "exact.webp", exact, quality=100)
    assert same(read_picture(tmp_path / "exact.webp"), exact)
    for name in ("grey.jpg", "grey.bmp"):
        write_picture(tmp_path / name, picture(8, 1, False, None))
        assert read_picture(tmp_path / name).pixels.shape == (13, 17, 1)


def test_palettes_and_transparent_colours(tmp_path):
    colours = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "P")
    colours.putpalette([v for n in range(12) for v in (n, 20 * n, 255 - n)])
    colours.save(tmp_path / "p.png")
    colours.save(tmp_path / "t.png", transparency=bytes([0, 128, *[255] * 10]))
    plain, clear = read_picture(tmp_path / "p.png"), read_picture(tmp_path / "t.png")
    assert plain.alpha is None and plain.pixels[1, 1].tolist() == [5, 100, 250]
    assert clear.alpha is not None and clear.alpha.ravel()[:3].tolist() == [0, 128, 255]
    assert np.array_equal(clear.pixels, plain.pixels)
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    grey.save(tmp_path / "g.png", transparency=7)
    keyed = read_picture(tmp_path / "g.png")
    assert keyed.alpha is not None and (keyed.alpha == 0).ravel().nonzero()[0].tolist() == [7]
    assert keyed.pixels.shape == (3, 4, 1) and look_at(tmp_path / "g.png") == keyed.look
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "one.png")
    assert read_picture(tmp_path / "one.png").pixels.ravel().tolist() == [255, 0]


def test_a_transparent_colour_of_16_bits(tmp_path):
    wanted = picture(16, 3, False, None)
    write_picture(tmp_path / "a.png", wanted)
    data, key = (tmp_path / "a.png").read_bytes(), wanted.pixels[2, 3]
    content = b"tRNS" + struct.pack(">3H", *key.tolist())
    chunk = struct.pack(">I", 6) + content + struct.pack(">I", zlib.crc32(content))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    found = read_picture(tmp_path / "a.png")
    assert found.alpha is not None and np.array_equal(found.pixels, wanted.pixels)
    assert np.array_equal(found.alpha == 0, (wanted.pixels == key).all(2)) and found.alpha.max() == 65535


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".jpg", 8), (".tif", 8), (".png", 16), (".tif", 16)])
def test_pictures_are_turned_upright(tmp_path, suffix, bits):
    pixels = picture(bits, 1 if bits == 16 else 3, False).pixels
    image, exif = Image.fromarray(pixels.squeeze()), Image.Exif()
    exif[274] = 6
    image.save(tmp_path / f"plain{suffix}")
    image.save(tmp_path / f"turned{suffix}", exif=exif)
    plain, turned = (read_picture(tmp_path / f"{n}{suffix}").pixels for n in ("plain", "turned"))
    assert np.array_equal(turned, np.rot90(plain, -1)) and turned.shape[:2] == (17, 13)
    look = look_at(tmp_path / f"turned{suffix}")
    assert (look.height, look.width) == (17, 13)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def float_tiff(channels: int) -> bytes:
    buffer = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(buffer, np.zeros((4, 5, channels), np.float32).squeeze())
    return buffer.getvalue()


SMALL = Image.new("RGB", (8, 6), (9, 8, 7))
MORE = [Image.new("RGB", (8, 6), (n, n, n)) for n in (50, 99)]
REFUSED = {
    "floats.tif": (lambda: saved(Image.new("F", (4, 4)), "TIFF"), "it holds floats, .* map them to 16 bits"),
    "rgb-floats.tif": (lambda: float_tiff(3), "it holds floats, .* map them to 16 bits"),
    "ints.tif": (lambda: saved(Image.new("I", (4, 4)), "TIFF"), "I of 32 bits, which is not read here"),
    "pages.tif": (lambda: saved(SMALL, "TIFF", save_all=True, append_images=MORE), "holds 3 pictures"),
    "moving.png": (lambda: saved(SMALL, "PNG", save_all=True, append_images=MORE), "holds 3 pictures"),
    "moving.webp": (lambda: saved(SMALL, "WEBP", save_all=True, append_images=MORE), "holds 3 pictures"),
    "moving.png.gif": (lambda: saved(SMALL, "GIF"), "GIF is not read here: save it as PNG"),
    "print.jpg": (lambda: saved(Image.new("CMYK", (8, 8)), "JPEG"), "CMYK of 8 bits, which is not read here"),
    "print.tif": (lambda: saved(Image.new("CMYK", (8, 8)), "TIFF"), "CMYK of 8 bits"),
    "lab.tif": (lambda: saved(Image.new("LAB", (8, 8)), "TIFF"), "LAB of 8 bits"),
    "empty.png": (lambda: b"", "the file is empty"),
    "words.png": (lambda: b"no picture at all", "no image of a known format"),
    "cut.png": (lambda: saved(SMALL, "PNG")[:-20], "damaged|cut off"),
    "cut.jpg": (lambda: saved(Image.effect_noise((64, 64), 90), "JPEG")[:-600], "damaged|cut off"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_with_its_name(tmp_path, name):
    make, message = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(DataError, match=message) as told:
        read_picture(tmp_path / name)
    assert str(told.value).startswith(f"{tmp_path / name}: ")
    if not name.startswith("cut"):  # the header says it
        with pytest.raises(DataError, match=message):
            look_at(tmp_path / name)


def test_a_file_that_is_not_there_is_told(tmp_path):
    for read in (read_picture, look_at):
        with pytest.raises(DataError, match=r"nowhere\.png: "):
            read(tmp_path / "nowhere.png")


WRONG = [
    ("a.jpg", (16, 3, False), "JPEG holds 8 bits a channel, and this picture has 16: write it as .png or .tif"),
    ("a.webp", (16, 1, False), "WebP holds 8 bits"),
    ("a.bmp", (16, 3, False), "BMP holds 8 bits"),
    ("a.jpeg", (8, 3, True), "JPEG holds no alpha"),
    ("a.bmp", (8, 1, True), "BMP holds no alpha"),
    ("a.bmp", (8, 3, False), "ICC"),
    ("a.tif", (16, 1, True), "write it as .png"),
    ("a.gif", (8, 3, False), "suffix '.gif': expected .jpg"),
    ("a", (8, 3, False), "suffix 'missing'"),
]


@pytest.mark.parametrize(("name", "kind", "message"), WRONG)
def test_what_a_format_does_not_hold_is_refused_beforehand(tmp_path, name, kind, message):
    given = picture(*kind)
    with pytest.raises(DataError, match=message):
        write_picture(tmp_path / name, given)
    assert message in why_not(name, given.look) and not [*tmp_path.iterdir()]


def test_sizes_that_a_format_does_not_hold():
    wide = Look("PNG", 10, 20_000, 3, 8, False, False)
    assert "16,383 pixels a side, and this picture has 20,000" in why_not("a.webp", wide)
    assert why_not("a.jpg", wide) == why_not("a.png", wide) == ""
    huge = Look("PNG", 40_000, 40_000, 3, 8, False, False)
    assert "4 GiB" in why_not("a.tif", huge) and why_not("a.png", huge) == ""


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", picture(8, 3, False))
    before = (tmp_path / "a.png").read_bytes()

    def fails(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fails)
    with pytest.raises(OSError, match="No space"):
        write_picture(tmp_path / "a.png", picture(8, 1, False))
    assert (tmp_path / "a.png").read_bytes() == before
    with pytest.raises(DataError, match="quality=0: expected 1 to 100"):
        write_picture(tmp_path / "b.jpg", picture(8, 3, False), quality=0)
