"""Clips as pictures and as clips: strips of frames, the classes over time, and frames with what is said of them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..images.drawing import INK, PAPER, Font, font_of, letterbox, shorten
from .decoding.video import open_video

FRAMES = 6  # of a strip
COLOURS = ((58, 110, 190), (214, 126, 44), (30, 132, 73), (150, 80, 170), (196, 48, 43))
_GREY = (200, 204, 210)
_SIDE = 720  # the longer side of an annotated clip, at most, in pixels

Part = tuple[float, float, list[tuple[str, float]]]
"""A part of a video: its ends in seconds, and the likeliest classes with their probabilities, best first."""


def strip(address: str | Path, width: int = 640, frames: int = FRAMES) -> Image.Image:
    """Draw frames of a video that are spread over its length side by side, `width` pixels wide."""
    with open_video(address) as video:
        at = ((np.arange(frames) + 0.5) * video.count / frames).astype(int)
        pictures = [Image.fromarray(frame) for frame in video.read(at)]
        shape = video.height / video.width
    each = width // frames
    tall = max(1, round(each * min(2.0, max(0.5, shape))))
    page = Image.new("RGB", (each * frames, tall), PAPER)
    for place, picture in enumerate(pictures):
        page.paste(letterbox(picture, (each - 2, tall)), (place * each, 0))
    return page


def with_lines(picture: Image.Image, lines: Sequence[tuple[str, tuple[int, int, int]]], size: int = 16) -> Image.Image:
    """Put lines of text, each with its colour, below a picture."""
    font = font_of(size)
    page = Image.new("RGB", (picture.width, picture.height + len(lines) * (size + 8) + 8), PAPER)
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, (text, colour) in enumerate(lines):
        pen.text(
            (6, picture.height + 6 + row * (size + 8)), shorten(text, font, picture.width - 12), fill=colour, font=font
        )
    return page


def timeline(parts: Sequence[Part], width: int = 640, height: int = 160) -> Image.Image:
    """Draw the probabilities of the likeliest classes over a video's time, as steps, with a legend."""
    best: dict[str, float] = {}
    for start, end, top in parts:
        for name, share in top:
            best[name] = best.get(name, 0.0) + share * (end - start)
    names = sorted(best, key=lambda name: (-best[name], name))[: len(COLOURS)]
    page = Image.new("RGB", (width, height + 24 + 20 * len(names)), PAPER)
    pen, font = ImageDraw.Draw(page), font_of(12)
    left, right, top, bottom = 44, width - 8, 8, height
    length = parts[-1][1] or 1.0
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        pen.line((left, y, right, y), fill=_GREY)
        pen.text((4, y - 7), f"{share:.0%}", fill=INK, font=font)
    for colour, name in reversed(list(zip(COLOURS, names, strict=False))):
        points: list[tuple[float, float]] = []
        for start, end, found in parts:
            y = bottom - dict(found).get(name, 0.0) * (bottom - top)
            points += [(left + t / length * (right - left), y) for t in (start, end)]
        pen.line(points, fill=colour, width=2)
    pen.text((left, bottom + 4), "0 s", fill=INK, font=font)
    pen.text((right, bottom + 4), f"{length:.1f} s", fill=INK, font=font, anchor="ra")
    for row, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        y = height + 24 + 20 * row
        pen.rectangle((left, y + 3, left + 12, y + 11), fill=colour)
        pen.text((left + 18, y), shorten(name, font, right - left - 18), fill=INK, font=font)
    return page


def annotated(address: str | Path, parts: Sequence[Part], out: Path) -> None:
    """Write a clip (MP4) of the video's frames, at most _SIDE pixels long, each with the likeliest classes of its time."""
    import av

    with open_video(address) as video, av.open(str(out), "w", format="mp4") as container:
        share = min(1.0, _SIDE / max(video.width, video.height))
        width, height = (max(2, round(side * share) // 2 * 2) for side in (video.width, video.height))
        rate = Fraction(video.rate).limit_denominator(60_000) if video.rate else Fraction(25)
        codec, options = ("libx264", {"mbtree": "0"}) if "libx264" in av.codecs_available else ("mpeg4", {})
        stream = container.add_stream(codec, rate=rate, options=options)  # x264's mbtree gives other bits each time
        stream.codec_context.thread_count = 1  # whose number changes the bits too
        band = 3 * 20 + 8
        stream.width, stream.height, stream.pix_fmt = width, height + band // 2 * 2, "yuv420p"  # type: ignore[attr-defined]
        font, times, place = font_of(14), video.times, 0
        for number, frame in enumerate(video.stream()):
            while place + 1 < len(parts) and times[number] >= parts[place][1]:
                place += 1
            picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
            page = _labelled(picture, parts[place][2][:3], band // 2 * 2, font)
            for packet in stream.encode(av.VideoFrame.from_image(page)):  # type: ignore[attr-defined]
                container.mux(packet)
        for packet in stream.encode():  # type: ignore[attr-defined]
            container.mux(packet)


def _labelled(picture: Image.Image, top: Sequence[tuple[str, float]], band: int, font: Font) -> Image.Image:
    page = Image.new("RGB", (picture.width, picture.height + band), PAPER)
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, (name, share) in enumerate(top):
        y = picture.height + 4 + 20 * row
        pen.rectangle((6, y + 14, 6 + max(1, round((picture.width - 12) * share)), y + 17), fill=COLOURS[row])
        pen.text((6, y - 2), shorten(name, font, picture.width - 70), fill=INK, font=font)
        pen.text((picture.width - 6, y - 2), f"{share:.0%}", fill=INK, font=font, anchor="ra")
    return page
