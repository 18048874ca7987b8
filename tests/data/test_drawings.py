from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.heads.classification import ClassPrediction
from trunkline.tasks.classification.draw import draw
from trunkline.tasks.contract import Sample
from trunkline.tasks.images.drawing import as_image, contact_sheet, font_of, letterbox, shorten

RED, GREEN = (196, 48, 43), (30, 132, 73)
NAMES = ["ants", "a name that is far too long for the room that there is in a picture", "蜂 пчела é\n\udc80\x00"]


def drawn(label, shape=(3, 90, 120), width=320):
    targets = {} if label is None else {"label": label}
    sample = Sample("s", Path("s.jpg"), torch.full(shape, 128, dtype=torch.uint8), targets)
    return draw(sample, ClassPrediction("s", np.array([0.1, 0.7, 0.2], np.float32)), NAMES, width)


def has(picture, colour):
    return (np.array(picture) == colour).all(2).any()


def test_truth_is_told_by_colour():
    right, wrong, unknown = drawn(1), drawn(2), drawn(None)
    assert has(right, GREEN) and not has(right, RED)
    assert has(wrong, RED) and not has(wrong, GREEN)
    assert not has(unknown, RED) and not has(unknown, GREEN)
    assert wrong.height > right.height == unknown.height  # a line says the truth


def test_bars_are_as_long_as_the_probabilities():
    picture = np.array(drawn(1))
    rows = (picture == GREEN).all(2).sum(1)
    assert rows.max() == pytest.approx(0.7 * (320 - 2 * 7), abs=1)


@pytest.mark.parametrize("shape", [(3, 10, 400), (3, 400, 10), (3, 1, 1), (1, 50, 60)])
def test_any_shape_is_letterboxed(shape):
    assert drawn(0, shape).width == 320
    assert contact_sheet([(torch.zeros(shape, dtype=torch.uint8), "x")]).width > 0


def test_letterbox_keeps_proportions_and_centres():
    frame = np.array(letterbox(Image.new("RGB", (200, 100), (255, 0, 0)), (100, 100)))
    red = (frame == (255, 0, 0)).all(2)
    assert red.sum() == 100 * 50 and red[25:75].all()


def test_pictures_of_every_mode_become_rgb():
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA", "I;16"):
        assert as_image(Image.new(mode, (4, 3))).mode == "RGB"


def test_contact_sheet_has_the_size_of_its_cells():
    pictures = [(Image.new("RGB", (50, 40), (250, 10, 10)), f"cell {i}") for i in range(7)]
    sheet = contact_sheet(pictures, columns=3, width=100)
    row = 75 + 11 * 3 + 6
    assert sheet.size == (6 + 3 * 106, 6 + 3 * row)
    pixels = np.array(sheet)
    reds = [
        (pixels[6 + r * row : 81 + r * row, 6 + c * 106 : 106 + c * 106] == (250, 10, 10)).all(2).any()
        for r in range(3) for c in range(3)
    ]  # fmt: skip
    assert reds == [True] * 7 + [False] * 2
    assert contact_sheet(pictures[:2], columns=6, width=100).width == 6 + 2 * 106
    assert contact_sheet([]).width > 0
    assert contact_sheet(pictures, title="many").height > contact_sheet(pictures).height


def test_letters_are_of_the_font_that_is_named(monkeypatch, tmp_path):
    bold = font_manager.findfont("DejaVu Sans:bold")
    monkeypatch.setenv("TRUNKLINE_FONT", bold)
    font_of.cache_clear()
    assert font_of(13).getname() == ("DejaVu Sans", "Bold")
    (tmp_path / "x.ttf").touch()
    monkeypatch.setenv("TRUNKLINE_FONT", str(tmp_path / "x.ttf"))
    font_of.cache_clear()
    with pytest.raises(DataError, match=r"TRUNKLINE_FONT=.*x\.ttf: cannot be read as a font"):
        font_of(13)
    monkeypatch.delenv("TRUNKLINE_FONT")
    font_of.cache_clear()


@pytest.mark.parametrize("text", [*NAMES, "", "oneverylongwordwithoutanyspaceinitatall 97%"])
def test_captions_fit(text):
    font = font_of(13)
    assert font.getlength(shorten(text, font, 90)) <= 90
    contact_sheet([(Image.new("RGB", (9, 9)), text)], width=60)
    kept = shorten("oneverylongwordwithoutanyspaceinitatall", font, 120, " 97%")
    assert kept.endswith("… 97%") and font.getlength(kept) <= 120


def test_a_caption_of_several_texts_has_a_line_for_each():
    picture = Image.new("RGB", (40, 30), RED)
    two, four = (contact_sheet([(picture, ["a"] * n), (picture, "b")], width=200) for n in (2, 4))
    assert two.size == contact_sheet([(picture, "a"), (picture, "b")], width=200).size
    assert four.height > two.height and four.width == two.width
    ink = [(np.array(page)[:, :205] == (28, 30, 34)).all(2).any(1) for page in (two, four)]
    assert [int((np.diff(np.flatnonzero(rows)) > 6).sum()) + 1 for rows in ink] == [2, 4], "lines of text"
