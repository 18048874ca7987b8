"""Pictures of more than 8 bits a channel: refused with both readings, or read as `depth=` says, which stays with the weights."""

import base64
import io
import json
import shutil
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from box_work import options as boxes_of
from PIL import Image
from safetensors import safe_open
from short_run import SHORT, photos

from trunkline.ground.errors import DataError, RecipeError
from trunkline.pipelines.api import check, evaluate, predict, show
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.report.pictures import picture_of
from trunkline.tasks.detection.scenes import write_box_scenes
from trunkline.tasks.detection.splits import read_split as read_boxes
from trunkline.tasks.images.decode import decode, read_image
from trunkline.tasks.scores import Picture
from trunkline.tasks.segmentation.options import Options as Masks
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.splits import read_split as read_masks


def png(numbers: np.ndarray, orientation: int = 1) -> bytes:
    """A PNG of 16 bits (PNG 1.2, sections 3 and 4), every row without a filter."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = numbers.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    turned = chunk(
        b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    return b"\x89PNG\r\n\x1a\n" + head + turned + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(numbers: np.ndarray, order: str = "<", packed: bool = False, apart: bool = False, **tags: int) -> bytes:
    """A TIFF of 16 bits (TIFF 6.0), one strip (or one a channel), plain or deflated."""
    height, width, channels = numbers.shape
    stored = numbers.astype(f"{order}u2")
    strips = [stored[:, :, c].tobytes() for c in range(channels)] if apart else [stored.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    starts = np.cumsum([8, *map(len, strips)])[:-1].tolist()
    fields = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * channels), 259: (3, [8 if packed else 1]),
              262: (3, [tags.get("photometric", 2 if channels > 2 else 1)]), 273: (4, starts), 274: (3, [tags.get("turned", 1)]),
              277: (3, [channels]), 278: (4, [height]), 279: (4, [*map(len, strips)]),
              284: (3, [2 if apart else 1])} | ({338: (3, [tags.get("alpha", 2)])} if channels == 4 else {})  # fmt: skip
    body = b"".join(strips)
    first = 8 + len(body) + len(body) % 2
    after, extra, entries = first + 2 + 12 * len(fields) + 4, b"", b""
    for tag, (kind, values) in sorted(fields.items()):
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", after + len(extra)), extra + content
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first)
    end = struct.pack(f"{order}H", len(fields)) + entries + struct.pack(f"{order}I", 0)
    return head + body.ljust(first - 8, b"\0") + end + extra


def pnm(numbers: np.ndarray, most: int = 65535) -> bytes:
    height, width, channels = numbers.shape
    kind = "P5" if channels == 1 else "P6"
    return f"{kind}\n# made\n{width} {height}\n{most}\n".encode() + numbers.astype(">u2").tobytes()


def grey_of(kind: str):
    def made(numbers: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(numbers[:, :, 0]).save(out, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
        return out.getvalue()

    return made


KINDS = {
    "png-grey": (1, png),
    "png-grey-alpha": (2, png),
    "png-rgb": (3, png),
    "png-rgba": (4, png),
    "png-of-pillow": (1, grey_of("PNG")),
    "tiff-lzw-of-pillow": (1, grey_of("TIFF")),
    "pgm": (1, pnm),
    "ppm": (3, pnm),
} | {
    f"tiff-{channels}{order}{'-deflated' * packed}": (
        channels,
        lambda numbers, order=order, packed=packed: tiff(numbers, order, packed),
    )
    for channels in (1, 3, 4)
    for order in "<>"
    for packed in (False, True)
}


def numbers_of(channels: int, most: int = 65535) -> np.ndarray:
    drawn = np.random.default_rng(channels).integers(0, most + 1, (7, 5, channels)).astype(np.uint16)
    drawn[0, :4, 0] = 0, most, most // 2, most // 2 + 1
    return drawn


def expected(numbers: np.ndarray, low: int, high: int) -> np.ndarray:
    """Clamp, map to 0..255 and round half to even, with exact numbers; alpha is dropped, grey is all three channels."""
    exact = [round(Fraction(int(min(max(x, low), high)) - low, high - low) * 255) for x in numbers.ravel()]
    found = np.array(exact, np.uint8).reshape(numbers.shape)
    return found[:, :, :3] if numbers.shape[2] > 2 else found[:, :, :1].repeat(3, 2)


def ours(data: bytes, depth: str) -> np.ndarray:
    return decode(data, depth).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_every_kind(kind):
    channels, encoded = KINDS[kind]
    numbers = numbers_of(channels)
    data = encoded(numbers)
    assert np.array_equal(ours(data, "full"), expected(numbers, 0, 65535))
    assert np.array_equal(ours(data, "1000:30001"), expected(numbers, 1000, 30001))
    assert np.array_equal(ours(data, "0:510"), expected(numbers, 0, 510))
    with pytest.raises(DataError, match="it has 16 bits a channel where 8 are read: give depth=full"):
        decode(data)


def test_full_is_a_division_by_257():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert np.array_equal(ours(png(every), "full")[:, :, 0], np.rint(every[:, :, 0] / 257))
    halves = np.array([[[1], [3], [5], [509]]], np.uint16)  # of 510: a half each, of which the even one is taken
    assert ours(png(halves), "0:510")[0, :, 0].tolist() == [0, 2, 2, 254]


@pytest.mark.parametrize("most", [300, 4095])
def test_numbers_of_a_pnm_are_as_stored_and_full_is_all_that_it_can_hold(most):
    for channels in (1, 3):
        numbers = numbers_of(channels, most)
        data = pnm(numbers, most)
        assert np.array_equal(ours(data, "full"), expected(numbers, 0, most))
        assert np.array_equal(ours(data, "100:299"), expected(numbers, 100, 299))
    with pytest.raises(DataError, match="cut off"):
        decode(data[:-1], "full")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_upright(orientation):
    numbers, plain = numbers_of(3), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(expected(numbers, 0, 65535)).save(plain, "PNG", exif=exif)
    upright = decode(plain.getvalue())
    assert upright.shape == ((3, 5, 7) if orientation > 4 else (3, 7, 5))
    assert np.array_equal(decode(png(numbers, orientation), "full"), upright)
    assert np.array_equal(decode(tiff(numbers, turned=orientation), "full"), upright)


@pytest.mark.parametrize("depth", ["", "full", "0:100"])
def test_pictures_of_8_bits_stay_as_they_are(depth):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8))
    for kind in ("PNG", "JPEG", "TIFF", "PPM", "BMP"):
        out = io.BytesIO()
        picture.save(out, kind)
        assert np.array_equal(decode(out.getvalue(), depth), decode(out.getvalue()))


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "TIFF")
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        tiff(numbers_of(3), apart=True),
        tiff(numbers_of(3), packed=True, apart=True),
        tiff(numbers_of(4), alpha=1),  # its colours are multiplied with its alpha
        tiff(numbers_of(1), photometric=0),  # 0 is white
        saved(np.ones((3, 3), np.int32)),
        saved(np.ones((3, 3), np.float32)),
        b"P2\n2 1\n4095\n1 4095\n",
    ],
    ids=["apart", "apart-deflated", "multiplied", "white", "int32", "float", "text"],
)
def test_kinds_that_are_not_read_say_so_and_recommend_nothing_that_does_not_help(data):
    for depth in ("", "full", "0:4095"):
        with pytest.raises(DataError) as caught:
            decode(data, depth)
        text = str(caught.value)
        assert "of a kind that depth= does not read: convert it to 8 bits" in text and "depth=full" not in text


@pytest.mark.parametrize(
    ("low", "high", "such"), [(3, 3071, "0:4095"), (0, 100, "0:511"), (700, 60000, "700:60000"), (0, 65535, "0:65535")]
)
def test_the_refusal_has_both_settings_to_paste(tmp_path, low, high, such):
    numbers = np.full((4, 4, 1), low, np.uint16)
    numbers[0, 0] = high
    (tmp_path / "x.png").write_bytes(png(numbers))
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "x.png")
    text = str(caught.value)
    assert "give depth=full (0 to 65535 become 0 to 255), or depth=LOW:HIGH" in text
    assert f"such as depth={such}; its numbers are {low} to {high}" in text and str(tmp_path / "x.png") in text
    decode(png(numbers), such)


@pytest.mark.parametrize("wrong", ["half", "0:", ":9", "9:9", "10:9", "0:65536", "-1:9", "0:1.5", "FULL", "0:9:10"])
def test_a_depth_that_is_none_is_told_before_anything_is_read(tmp_path, wrong):
    for key in ("depth", "tasks.classification.depth"):
        with pytest.raises(RecipeError, match=f"depth={wrong}: expected full, or LOW:HIGH with whole numbers"):
            show("transfer", data="photos", **{key: wrong})
    with pytest.raises(RecipeError, match=f"depth={wrong}: expected full, or LOW:HIGH"):
        check(tmp_path, depth=wrong)


def test_damage_in_a_deep_picture_is_told():
    data = png(numbers_of(3))
    for spoilt in (data[:-20], data[:-60] + bytes(60)):
        with pytest.raises(DataError, match="PNG"):
            decode(spoilt, "full")
    whole = tiff(np.repeat(numbers_of(3), 50, 0), packed=True)
    with pytest.raises(DataError, match="damaged"):
        decode(whole[:400] + bytes(200) + whole[600:], "full")


# the tasks


def deepen(folder: Path) -> None:
    """Put pictures of 16 bits in the place of JPEGs, which use a 16th of them."""
    for photo in folder.rglob("*.jpg"):
        with Image.open(photo) as image:
            numbers = np.asarray(image.convert("RGB")).astype(np.uint16) * 16
        photo.write_bytes(png(numbers))


def colours_of(uri: str) -> tuple:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return image.getextrema()


def test_training_predicting_and_evaluating_keep_it(data, tmp_path, one_core, capsys):
    deepen(data)
    words = ["train", "transfer", f"data={data}", *SHORT]
    assert main([*words, "--run", str(tmp_path / "no")]) == 2
    assert "such as depth=0:4095" in capsys.readouterr().err
    run = tmp_path / "run"
    assert main([*words, "--run", str(run), "depth=0:4080"]) == 0
    with safe_open(run / "weights.safetensors", "pt") as stored:
        assert json.loads(stored.metadata()["trunkline_options"]) == {"depth": "0:4080"}
    one, files = photos(data, "val")[0], run / "weights.safetensors"
    from_run, from_file = predict(run, one, top=10)[0], predict(files, one, top=10)[0]
    assert from_run.top == from_file.top and from_run.line()["depth"] == "0:4080" and not from_run.error
    other = predict(files, one, top=10, depth="full")[0]
    assert other.top != from_run.top and other.depth == "full"
    assert evaluate(run, loaders=0).metrics == evaluate(files, data=str(data), loaders=0).metrics
    assert predict(run, data / "val", out=tmp_path / "out") and (tmp_path / "out/sheet.png").is_file()
    (wrong,) = [
        b["pictures"]
        for b in json.loads((run / "shown.json").read_text())["classification"]["blocks"]
        if "pictures" in b
    ]
    assert wrong and {p["depth"] for p in wrong} == {"0:4080"}
    colours = colours_of(picture_of(Picture(**wrong[0]), run, 32)["data"])
    assert max(high for _, high in colours) > 100  # 16 times darker without it
    assert from_run.image().getextrema() != other.image().getextrema()  # drawn as they were seen
    assert check(run, progress=False, loaders=0).ok
    assert not check(data, progress=False, loaders=0).ok and check(data, depth="full", progress=False, loaders=0).ok
    eight = photos(data, "val")[1]
    eight.write_bytes(b"")
    assert "depth" not in str([p.error for p in predict(run, eight)])


def test_a_run_as_of_8_bits_has_the_same_scores(scenes, short_run, data, tmp_path, one_core):
    """`16 x` read as 0:4080 is `x`: the same pixels, the same weights."""
    deepen(data)
    for photo in photos(data) + photos(data, "val"):
        with Image.open(scenes / photo.relative_to(data)) as image:
            assert np.array_equal(
                read_image(photo, "0:4080").permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB"))
            )
    assert main(["train", "transfer", f"data={data}", "--run", str(tmp_path / "run"), "depth=0:4080", *SHORT]) == 0
    tensors = [safe_open(run / "weights.safetensors", "pt") for run in (short_run, tmp_path / "run")]
    assert all((tensors[0].get_tensor(k) == tensors[1].get_tensor(k)).all() for k in tensors[0].keys())  # noqa: SIM118
    assert "trunkline_options" not in tensors[0].metadata()


def test_the_other_tasks_read_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    for write, read, form in (
        (write_box_scenes, lambda d, **k: read_boxes(boxes_of(d, **k), "train"), "coco"),
        (write_pixel_scenes, lambda d, **k: read_masks(Masks(data=str(d), format="pairs", **k), "train"), "pairs"),
    ):
        data = write(tmp_path / form, train=2, val=1, size=32)
        before = read(data)[0].image
        deepen(data)
        with pytest.raises(DataError, match=r"16 bits a channel.*such as depth=0:4095"):
            _ = read(data)[0]
        found = read(data, depth="0:4080")[0]
        assert np.array_equal(found.image, before) and found.targets
        assert check(data, format=form, depth="0:4080", progress=False, loaders=0).ok
        assert not check(data, format=form, progress=False, loaders=0).ok


@pytest.mark.parametrize(
    ("recipe", "task", "stated"),
    [("detect", "detection", "trunkline_detection"), ("segment", "segmentation", "trunkline_segmentation")],
)
def test_detectors_and_segmenters_state_it(recipe, task, stated):
    from trunkline.backbones.contract import Preprocessing
    from trunkline.pipelines.models.assembly import make_task
    from trunkline.pipelines.recipe.knobs import resolve

    for depth in ("", "0:4095"):
        options = resolve(recipe, {"data": "x", "depth": depth}).recipe.tasks[task]
        said = make_task(task, options, Preprocessing(), {"classes": ["a"]}).stated()[stated]
        assert json.loads(said).get("depth", "") == options.depth == depth


def test_masks_are_numbers_whatever_the_depth(tmp_path):
    data = write_pixel_scenes(tmp_path / "data", train=2, val=1, size=32)
    plain = read_masks(Masks(data=str(data), format="pairs"), "train")[0].targets["mask"]
    for mask in (data / "masks").rglob("*.png"):
        with Image.open(mask) as image:
            numbers = np.asarray(image).astype(np.uint16)
        Image.fromarray(numbers).save(mask)
    assert np.array_equal(
        read_masks(Masks(data=str(data), format="pairs", depth="full"), "train")[0].targets["mask"], plain
    )
    shutil.rmtree(data)
