"""Reading one image: Pillow's own pixels, or an error that names the file."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from trunkline.ground.errors import DataError
from trunkline.tasks.images.decode import MAX_PIXELS, decode, read_image
from trunkline.tasks.images.jpeg_header import read_jpeg_header

DATA = os.environ.get("TRUNKLINE_TEST_DATA", "")
real_data = pytest.mark.skipif(not DATA, reason="TRUNKLINE_TEST_DATA is unset: the awkward images are not at hand")
GOOD = [
    "exif_imagemagick_orientation.png",
    "hopper.jpg",
    "hopper_16bit_qtables.jpg",
    "hopper_bad_exif.jpg",
    "hopper_gray.jpg",
    "hopper_orientation_3.jpg",
    "hopper_orientation_6.jpg",
    "l_trns.png",
    "mode_palette_alpha.png",
    "orientation_rectangle.jpg",
    "p_trns_single.png",
    "pil_sample_cmyk.jpg",
    "rgb_trns.png",
    "tiff_16bit_RGB_target.png",
    "tiff_16bit_RGBa_target.png",
    "transparent.png",
    "uncompressed_la.png",
]
BAD = {
    "broken_data_stream.png": "damaged",
    "truncated_end_chunk.png": "cut off",
    "truncated_image.png": "cut off",
    "truncated_jpeg.jpg": "cut off",
    "i_trns.png": "16 bits",
    "mode_16bit.png": "16 bits",
}


def pillow(file) -> np.ndarray:
    """The independent statement of what an image's pixels are."""
    return np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))


def ours(file) -> np.ndarray:
    image = read_image(file)
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def noise(height: int = 37, width: int = 53, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    return np.asarray(Image.fromarray(coarse.squeeze()).resize((width, height)))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@real_data
@pytest.mark.parametrize("name", GOOD)
def test_awkward_files_have_pillows_pixels(name):
    file = Path(DATA, "awkward", name)
    assert np.array_equal(ours(file), pillow(file))


@real_data
@pytest.mark.parametrize(("name", "what"), BAD.items())
def test_awkward_damage_is_named(name, what):
    file = Path(DATA, "awkward", name)
    with pytest.raises(DataError) as caught:
        read_image(file)
    message = str(caught.value)
    assert str(file) in message and what in message
    assert "trunkline check" in message and "on_bad_sample=skip" in message


@real_data
def test_real_photos_have_pillows_pixels():
    files = sorted(Path(DATA, "hymenoptera", "val").rglob("*.jpg"))[::5]
    files += sorted(Path(DATA, "medical").rglob("*.jp*g"))[::10] + sorted(Path(DATA, "medical").rglob("*.png"))
    for file in files:
        assert np.array_equal(ours(file), pillow(file)), file


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True])
def test_every_exif_orientation(tmp_path, orientation, progressive):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.jpg"
    Image.fromarray(noise()).save(file, exif=exif, progressive=progressive)
    assert np.array_equal(ours(file), pillow(file))
    assert ours(file).shape == ((53, 37, 3) if orientation > 4 else (37, 53, 3))


@pytest.mark.parametrize("beside", [True, False])
def test_orientation_beside_other_blocks(tmp_path, beside):
    """An XMP block may stand before the EXIF block, and may state the orientation alone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(Image.fromarray(noise()), "JPEG", **({"exif": exif} if beside else {}))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'
    file = tmp_path / "xmp.jpg"
    file.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + plain[2:])
    assert np.array_equal(ours(file), pillow(file))
    assert ours(file).shape == (53, 37, 3)


def test_strange_exif_is_left_to_pillow():
    exif = Image.Exif()
    exif[0x0112] = 6
    good = encoded(Image.fromarray(noise()), "JPEG", exif=exif)
    assert read_jpeg_header(good) == (53, 37, 6, True)
    at = good.index(b"Exif\0\0") + 6
    for change in (b"XX", b"II"):  # no byte order, the other byte order
        if good[at : at + 2] != change:
            assert not read_jpeg_header(good[:at] + change + good[at + 2 :]).plain


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes(tmp_path, mode):
    file = tmp_path / "x.png"
    Image.fromarray(noise(channels=4), "RGBA").convert(mode).save(file)
    assert np.array_equal(ours(file), pillow(file))


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_other_formats(tmp_path, kind):
    file = tmp_path / "x"
    file.write_bytes(encoded(Image.fromarray(noise()), kind))
    assert np.array_equal(ours(file), pillow(file))


def test_first_frame_of_an_animation(tmp_path):
    file = tmp_path / "x.gif"
    first, second = Image.fromarray(noise()), Image.new("RGB", (53, 37), "red")
    first.save(file, save_all=True, append_images=[second])
    assert np.array_equal(ours(file), pillow(file))


def png_16_bits() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


DEEP = {
    "png-rgb": png_16_bits,
    "png-grey": lambda: encoded(Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4)), "PNG"),
    "tiff-grey": lambda: encoded(Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4)), "TIFF"),
    "tiff-int32": lambda: encoded(Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)), "TIFF"),
    "tiff-float": lambda: encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    "pgm": lambda: b"P5 2 2 65535\n" + bytes(8),
    "ppm": lambda: b"P6 2 2 65535\n" + bytes(24),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_images_are_refused_not_reduced(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(DEEP[name]())
    Image.open(file).convert("RGB")  # Pillow says nothing
    with pytest.raises(DataError, match=r"(16|32) bits a channel"):
        read_image(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"no image at all", "no image"),
        (b"\xff\xd8\xff", "no image"),
        (b"%!PS-Adobe-3.0 EPSF", "no image"),
    ],
)
def test_what_is_no_image(tmp_path, content, what):
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        read_image(file)
    assert str(file) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "gone.jpg")


def test_name_without_valid_utf8(tmp_path):
    file = os.fsencode(tmp_path) + b"/\xff.jpg"
    Path(os.fsdecode(file)).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image(os.fsdecode(file))
    assert r"\xff.jpg: the file is empty" in str(caught.value)
    str(caught.value).encode()  # can be printed


def test_decompression_bomb():
    for header in (b"\x01\x00", b"\xff\xff"):
        png = bytearray(png_16_bits())
        png[16:24] = (header + b"\0\0")[:2].rjust(4, b"\0") * 2
        png[24] = 8
        if header == b"\x01\x00":  # 256 x 256, as a control: not a bomb, only damaged
            with pytest.raises(DataError, match="damaged"):
                decode(png)
        else:
            png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
            with pytest.raises(DataError, match="pixels"):
                decode(png)
    jpeg = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    assert MAX_PIXELS < 0xFFFF**2
    with pytest.raises(DataError, match=r"65535 x 65535 pixels"):
        decode(jpeg)


def photo() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_jpeg_cut_off_is_an_error_with_and_without_its_end_marker(keep, capfd):
    whole = photo()
    part = whole[: int(len(whole) * keep)]
    with pytest.raises(DataError, match=r"damaged|no image"):
        decode(part)
    if keep > 0.3:  # cut and closed again: libjpeg only warns and fills the rest with grey
        with pytest.raises(DataError, match="premature end"):
            decode(part + b"\xff\xd9")
    assert capfd.readouterr().err == ""


def test_what_others_say_on_stderr_is_not_lost(capfd):
    decode(photo())
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_harmless_remarks_of_libjpeg_are_no_error(capfd):
    whole = photo()
    with_gap = whole[:-2] + b"\0\0\0\0" + whole[-2:]  # as some cameras write
    assert np.array_equal(decode(with_gap).numpy(), decode(whole).numpy())
    assert capfd.readouterr().err == ""


def test_pictures_are_read_without_a_stderr(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(photo())
    expected = int(read_image(file).sum())
    child = os.fork()
    if child == 0:
        os.close(2)
        os._exit(0 if int(read_image(file).sum()) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


SEEDS = {
    "jpeg": photo(),
    "progressive": encoded(Image.fromarray(noise()), "JPEG", progressive=True),
    "cmyk": encoded(Image.fromarray(noise(channels=4), "CMYK"), "JPEG"),
    "png": encoded(Image.fromarray(noise()), "PNG"),
    "palette": encoded(Image.fromarray(noise()).convert("P"), "PNG"),
    "webp": encoded(Image.fromarray(noise()), "WEBP"),
    "tiff": encoded(Image.fromarray(noise()), "TIFF", compression="tiff_lzw"),
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SEEDS)),
    cut=st.floats(0, 1),
    garble=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=5),
    truncate=st.booleans(),
)
def test_damaged_bytes_give_an_image_or_a_data_error(name, cut, garble, truncate, capfd):
    data = bytearray(SEEDS[name])
    for place, content in garble:
        at = int(place * (len(data) - 1))
        data[at : at + len(content)] = content
    if truncate:
        data = data[: int(cut * len(data))]
    try:
        image = decode(data)
    except DataError:
        pass
    else:
        assert image.dtype == torch.uint8 and image.dim() == 3 and image.shape[0] == 3
    assert capfd.readouterr().err == ""


def test_a_png_whose_tail_is_destroyed_or_missing_is_refused(tmp_path):
    """Pillow would make up the pixels that are gone."""
    from trunkline.tasks.images.decode import decode

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    whole = buffer.getvalue()
    assert decode(whole).shape == (3, 64, 64)
    for lost in (20, 100, 1000, len(whole) - 100):
        with pytest.raises(DataError, match="PNG"):
            decode(whole[:-lost] + bytes(lost))
    for missing in (2, 12, 21):
        with pytest.raises(DataError, match=r"PNG is cut off|damaged"):
            decode(whole[:-missing])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_back_to_how_it_is_stored(tmp_path, orientation):
    from trunkline.tasks.images.decode import turned_back

    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = turned_back(read_image(tmp_path / "a.png"), tmp_path / "a.png")
    assert (found.permute(1, 2, 0).numpy() == pixels).all()
