import json
import math
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from fake_run import fake_run
from PIL import Image

from trunkline.ground.errors import RecipeError
from trunkline.pipelines.report.figures import Line, bar_chart, line_chart, number, smooth, thin, ticks
from trunkline.pipelines.report.report import write_report
from trunkline.tasks.scores import Bar, Curve, Examples, Matrix, Metric, Picture, Table
from trunkline.tasks.scores import Line as CurveLine

NASTY = "<script>alert(1)</script> & \"quotes\" 'n' 蜂"
_VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag that opens must close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def text(self):
        return " ".join(" ".join(self.words).split())

    def count(self, tag, kind=None):
        return sum(t == tag and (kind is None or kind in a.get("class", "").split()) for t, a in self.tags)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    folder = fake_run(tmp_path_factory.mktemp("runs") / "a run", ["ants", NASTY, "wasps"], samples=200, skill=1.5)
    return write_report(folder)


@pytest.fixture(scope="module")
def page(nasty):
    return Page(nasty.read_text(encoding="utf-8"))


def test_the_page_says_what_the_files_say(nasty, page):
    scores, text = json.loads((nasty.parent / "scores.json").read_text()), page.text()
    low, high = scores["intervals"]["top1"]
    assert f"Top-1 accuracy {100 * scores['top1']:.1f} % 95 % interval {100 * low:.1f} to {100 * high:.1f} %" in text
    assert f"Negative log-likelihood {scores['nll']:.3f}" in text and "Top-5" not in text
    assert "360 updates of 16 samples with sgd, learning rate 0.005" in text
    assert "Scored on the 200 samples of val with the averaged weights of update 360" in text
    assert "320 of 320 tensors" in text and "classifier: 1000 -> 3 classes" in text
    assert "train/ants/imageNotFound.gif" in text and "not a photo's suffix" in text
    assert "machine.precision bf16 auto: this CPU has avx512_bf16" in text
    assert "size 160" in text and "15 updates an epoch of 16" in text
    assert "processor A processor" in text and "gpu" not in text
    for row in scores["details"]["per_class"]:
        words = f"{row['name']} {row['samples']} {100 * row['accuracy']:.1f} % "
        words += f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"
        assert " ".join(words.split()) in text
    for row in scores["details"]["confusion"]:
        for count in row:
            assert f"{count} {100 * count / sum(row):.1f} %" in text


def test_mistakes_are_shown_with_their_pictures(nasty, page):
    mistakes = json.loads((nasty.parent / "scores.json").read_text())["details"]["mistakes"]
    pictures = [a for t, a in page.tags if t == "img"]
    assert len(pictures) == sum("source" in m for m in mistakes) >= 20
    assert all(a["src"].startswith("data:image/jpeg;base64,") and len(a["src"]) < 40_000 for a in pictures)
    assert [a["alt"] for a in pictures] == [m["id"] for m in mistakes if "source" in m]
    first = mistakes[0]
    assert f"{first['predicted']} {100 * first['confidence']:.1f} % is {first['truth']}" in page.text()


def test_the_page_is_complete_in_itself_and_safe(nasty, page):
    text = nasty.read_text(encoding="utf-8")
    assert page.count("script") == 0 and "<script" not in text and NASTY in page.text()
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert {a["href"][1:] for t, a in page.tags if t == "a"} <= {a["id"] for _, a in page.tags if "id" in a}
    assert len(text) < 1_000_000


def test_curves_are_drawn_per_metric_and_for_raw_and_averaged_weights(nasty, page):
    charts = re.findall(r"<svg.*?</svg>", nasty.read_text(encoding="utf-8"), re.S)
    names = [ElementTree.fromstring(c).get("aria-label") for c in charts]
    assert names == ["training loss", "learning rate", "Top-1 accuracy", "Mean accuracy per class", "Calibration error",
                     "Negative log-likelihood", "accuracy against confidence"]  # fmt: skip
    lines = [json.loads(line) for line in (nasty.parent / "metrics.jsonl").read_text().splitlines()]
    last = next(m for m in reversed(lines) if m["kind"] == "eval" and m["weights"] == "ema")
    raw = next(m for m in reversed(lines) if m["kind"] == "eval" and m["weights"] == "raw")
    assert (
        f"update 360: raw {100 * raw['metrics']['top1']:.1f} %, averaged {100 * last['metrics']['top1']:.1f} %"
        in charts[2]
    )


def test_time_is_told_by_part(tmp_path):
    folder = fake_run(tmp_path / "run", ["a", "b"], samples=40)
    lines = [
        {"kind": "train", "update": u, "loss": 1.0, "images_per_second": 8.0, "wait": 0.25, "time": 100.0 + 2 * u}
        for u in range(1, 11)
    ]  # 16 samples an update at 8 a second: 2 s each
    lines.append({"kind": "eval", "update": 10, "metrics": {}, "weights": "raw", "time": 130.0})
    (folder / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, lines)) + '\n{"kind": "train", "upd'
    )  # torn at the end
    text = Page(write_report(folder).read_text()).text()
    assert "8 images a second (median). Updates waited 25.0 % of their time for data. More processes" in text
    assert "updates 15.0 s 50.0 % waiting for data 5.0 s 16.7 % evaluation, saving, pauses 10.0 s 33.3 %" in text


def test_many_classes_show_the_worst_and_the_most_confused(tmp_path):
    folder = fake_run(tmp_path / "run", [f"kind {i}" for i in range(40)], samples=800, skill=2)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    scores = json.loads((folder / "scores.json").read_text())
    matrix = scores["details"]["confusion"]
    most = max((n, -i, -j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j)
    assert f"truth predicted samples share kind {-most[1]} kind {-most[2]} {most[0]}" in page.text()
    assert page.count("table", "matrix") == 0 and "All 40 classes" in page.text() and "Top-5 accuracy" in page.text()
    worst = min((r for r in scores["details"]["per_class"] if r["samples"]), key=lambda r: (r["accuracy"], r["high"]))
    assert f"95 % interval {worst['name']} {worst['samples']} {100 * worst['accuracy']:.1f} %" in page.text()


def test_what_is_missing_is_left_out(tmp_path):
    folder = fake_run(tmp_path / "run", ["ants", "bees"])
    shown = json.loads((folder / "shown.json").read_text())
    pictures = shown["classification"]["blocks"][-1]["pictures"]
    sources = [folder / "gone.jpg", folder / "recipe.json", "", folder]
    for picture, source in zip(pictures, sources, strict=False):
        picture["source"] = str(source)
    (folder / "shown.json").write_text(json.dumps(shown))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.count("img") == max(0, len(pictures) - 4) and "Surest mistakes" in page.text()
    for name in ("scores.json", "shown.json", "metrics.jsonl", "environment.json", "load.json", "excluded.json"):
        (folder / name).unlink()
        text = Page(write_report(folder).read_text(encoding="utf-8")).text()
    for word in ("Curves", "Confusion", "Calibration", "Mistakes", "Time", "Environment", "Weights and data", "None"):
        assert word not in text
    assert "Not scored yet" in text and "trunkline train transfer" in text


def test_a_run_without_details_has_its_numbers(tmp_path):
    folder = fake_run(tmp_path / "run", ["ants", "bees"])
    plain = {"box_ap": 0.573, "samples": 72, "intervals": {}, "details": {}, "split": "val"}  # another task's
    (folder / "scores.json").write_text(json.dumps(plain))
    assert "box_ap 0.573" in Page(write_report(folder).read_text()).text()


def test_an_older_run_has_the_names_of_its_metrics_and_no_blocks(tmp_path):
    folder = fake_run(tmp_path / "run", ["ants", "bees"])
    (folder / "shown.json").unlink()
    page = Page(write_report(folder).read_text())
    scores = json.loads((folder / "scores.json").read_text())
    assert f"top1 {scores['top1']:.3f}" in page.text() and "auroc" in page.text() and "samples a second" in page.text()
    assert page.count("table", "matrix") == page.count("img") == 0


BLOCKS = (
    Table("Gains", ("model", "gain", "share", "place"), (("ours", -1.0, 0.25, (0.1, 0.2, 0.3)), ("theirs", None, None, None)),
          "In decibels.", ("", "dB", "percent", "range"), (("all", 2, 0.5, None),), "All of them"),
    Curve("Rate", (CurveLine("one", (0.0, 1.0), (0.0, 0.5), "faint", "a picture"), CurveLine("mean", (0.0, 1.0), (0.0, 0.4))),
          "bits", "quality", (0.0, 1.0), (0.0, 1.0), "Of all pictures."),
    Matrix("Turns", ("left", "right"), ((3, 1), (0, 4)), "turned", "said"),
    Examples("Looks", (Picture("a", ((("good one", "good"), (" and more", "")),)), Picture("b", file="b.jpg")), "", "pair"),
    Examples("Nothing", ()),
)  # fmt: skip


def shown_run(folder, metrics, tasks):
    """A run with these scores, of tasks that nobody has heard of."""
    fake_run(folder, ["ants", "bees"])
    rest = {"intervals": {}, "details": {}, "samples": 4, "split": "val"}
    (folder / "scores.json").write_text(json.dumps({**metrics, **rest}))
    (folder / "shown.json").write_text(json.dumps(tasks))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"kind": "eval", "update": u, "metrics": {k: v for k, v in metrics.items() if v is not None}}) + "\n"
        for u in (1, 2)))  # fmt: skip
    return Page(write_report(folder).read_text(encoding="utf-8"))


def said_of(blocks=(), **metrics):
    return {
        "unit": "clips",
        "metrics": {name: vars(metric) for name, metric in metrics.items()},
        "blocks": [block.to_json() for block in blocks],
    }


def test_a_task_of_ones_own_says_how_its_scores_are_shown(tmp_path):
    folder = tmp_path / "run"
    said = said_of(BLOCKS, gain=Metric("Gain", "dB"), loss=Metric("Loss", chart=False), rest=Metric("Rest", "percent"))
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "b.jpg")
    page = shown_run(folder, {"gain": -1.0, "loss": 0.5, "rest": None}, {"sharper": said})
    text = page.text()
    assert "Gain -1.000 dB" in text and "Loss 0.500" in text and "Rest none there" in text  # -1 is a number
    titles = [a["aria-label"] for t, a in page.tags if t == "svg"]
    assert titles == ["Gain", "quality over bits"]
    assert "Gains In decibels. model gain share place ours -1.000 dB 25.0 % 10.0 to 30.0 % theirs – –" in text
    assert "All of them model gain share place all 2 dB 50.0 %" in text
    assert "Rate Of all pictures. a picture mean" in text and "turned left right left 3 75.0 % 1 25.0 %" in text
    assert [a["alt"] for t, a in page.tags if t == "img"] == ["b"] and "good one and more" in text
    assert "Nothing" not in text and page.count("div", "pair-photos") == 1


def test_several_tasks_have_a_section_each(tmp_path):
    metrics = {"near/right": 0.5, "near/off": 2.0, "far/right": 0.25, "far/off": None}
    about = {"right": Metric("Right", "percent"), "off": Metric("Off", better="lower")}
    tasks = {"near": said_of(BLOCKS[2:3], **about), "far": said_of(BLOCKS[:1], **about)}
    page = shown_run(tmp_path / "run", metrics, tasks)
    text = page.text()
    assert "near: Right 50.0 %" in text
    near, far = text.index("near Right 50.0 % Off 2.000"), text.index("far Right 25.0 % Off none there")
    assert near < text.index("turned left right") < far < text.index("In decibels.")
    assert {a["href"][1:] for t, a in page.tags if t == "a"} <= {a["id"] for _, a in page.tags if "id" in a}
    assert "FILES task=near" in text and "FILES task=far" in text


def test_what_a_run_shows_must_be_what_it_shows(tmp_path):
    for wrong in ([], {"a": {}}, {"a": {"unit": "x", "metrics": {}, "blocks": [{"kind": "pie", "title": "A"}]}},
                  {"a": {"unit": "x", "metrics": {}, "blocks": [{"kind": "table", "title": "A"}]}}):  # fmt: skip
        folder = fake_run(tmp_path / "run", ["ants", "bees"])
        (folder / "shown.json").write_text(json.dumps(wrong))
        with pytest.raises(RecipeError, match=r"shown.json: does not say what a run shows"):
            write_report(folder)


def test_no_run_and_damaged_files_are_the_users_errors(tmp_path):
    with pytest.raises(RecipeError, match=r"holds no recipe.json"):
        write_report(tmp_path)
    folder = fake_run(tmp_path / "run", ["ants", "bees"])
    (folder / "scores.json").write_text("{")
    with pytest.raises(RecipeError, match=r"scores.json: damaged JSON"):
        write_report(folder)


def test_commands_can_be_pasted_into_a_shell(tmp_path):
    folder = fake_run(tmp_path / "it's a run", ["ants", "bees"])
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["knobs"] = {"data": "my photos/$HOME", "smoke": True, "tasks.classification.scale": [0.2, 1.0]}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    text = Page(write_report(folder).read_text(encoding="utf-8")).text()
    again, predict = re.search(r"Repeat it (.*?) Score", text)[1], re.search(r"trunkline predict .*? FILES", text)[0]

    def words(command):
        return subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True
        ).stdout.splitlines()

    assert words(again)[:6] == ["trunkline", "train", "transfer", "data=my photos/$HOME", "smoke=true",
                                "tasks.classification.scale=0.2,1.0"]  # fmt: skip
    assert words(predict)[2] == str(folder)


def test_a_long_run_is_quick_and_small(tmp_path):
    folder = fake_run(tmp_path / "run", ["ants", "bees"], updates=30_000)
    start = time.perf_counter()
    page = write_report(folder)
    assert time.perf_counter() - start < 30 and page.stat().st_size < 1_000_000


def test_a_line_stands_where_its_numbers_are():
    svg = ElementTree.fromstring(line_chart([Line("x", [0, 50, 100], [0.0, 0.25, 1.0])], "a label"))
    points = [tuple(map(float, p.split(","))) for p in svg.find("polyline").get("points").split()]
    heights = {t.text: float(t.get("y")) - 4 for t in svg.findall("text") if t.get("text-anchor") == "end"}
    assert points[0] == pytest.approx((46, heights["0"]), abs=0.2) and points[2] == pytest.approx(
        (370, heights["1"]), abs=0.2
    )
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.2)
    assert points[1][1] == pytest.approx(0.75 * points[0][1] + 0.25 * points[2][1], abs=0.2)
    assert svg.get("aria-label") == "a label"


def test_charts_take_gaps_constants_and_quotes():
    svg = line_chart([Line('a "b" <c>', [1, 2, 3, 4], [1.0, math.nan, 2.0, 2.5])], 'say "so"', marks=[2])
    root = ElementTree.fromstring(svg)
    assert len(root.findall("polyline")) == 2 and root.get("aria-label") == 'say "so"'
    assert "nan" not in "".join(p.get("points") for p in root.findall("polyline"))
    for flat in ([3.0, 3.0], [0.0, 0.0], [math.nan, math.nan]):
        ElementTree.fromstring(line_chart([Line("flat", [1, 2], flat)], "flat"))
    short = line_chart([Line("x", list(range(1, 211)), [0.0] * 210)], "x")
    assert ">200<" in short and ">250<" not in short  # behind the last update
    most = ElementTree.fromstring(line_chart([Line("p", [1, 2], [0.7, 1.0])], "p", percent=True, most=1.0))
    assert "105 %" not in [t.text for t in most.findall("text")]


def test_bars_are_as_tall_as_their_means():
    bars = (Bar(0.5, 0.75, 4, 0.7, 0.5), Bar(0.75, 1.0, 8, 0.9, 1.0), Bar(0.0, 0.5, 0, None, None))
    equal = [Line("equal", [0, 1], [0, 1], "dashed")]
    root = ElementTree.fromstring(bar_chart(bars, equal, "confidence", "accuracy", True, (None, None)))
    assert root.find("polyline").get("points") == "46,190 370,10"
    bars = [r for r in root.iter("rect") if "bar" in r.get("class")]
    counts = [r for r in root.iter("rect") if r.get("class") == "count"]
    assert [float(b.get("height")) for b in bars] == pytest.approx([90, 180], abs=0.2)
    assert float(counts[1].get("height")) == pytest.approx(2 * float(counts[0].get("height")), abs=0.2)
    assert "50 to 75 %: 4 samples, mean confidence 70.0 %, accuracy 50.0 %" in root.find("g/title").text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.713, 0.9412), (-3, 7e4), (2.5, 2.5), (0, 0), (1e-6, 3e-6)])
def test_ticks_are_round_and_span_the_numbers(low, high):
    found = ticks(low, high, 5)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 8
    step = found[1] - found[0]
    assert float(f"{step:.6e}"[:1]) in (1, 2, 5)


def test_numbers_smoothing_and_thinning():
    assert [number(v) for v in (0.0, 0.005, 12.3456, 2e-5, 12345.6, -0.25)] == [
        "0",
        "0.005",
        "12.35",
        "2.00e-05",
        "12,346",
        "-0.25",
    ]
    assert number(0.94118, True) == "94.1 %"
    assert smooth([2.0] * 5, 10) == pytest.approx([2.0] * 5)  # no bias towards zero at its beginning
    keep, ys, expected = 0.75, [1.0, 3.0, 2.0], []
    for i in range(3):
        weights = [keep ** (i - j) for j in range(i + 1)]
        expected.append(sum(w * y for w, y in zip(weights, ys, strict=False)) / sum(weights))
    assert smooth(ys, 4) == pytest.approx(expected)
    ys = [math.sin(i / 50) for i in range(5000)]
    ys[1234], ys[4321] = 9.0, -9.0
    kept = thin(range(5000), ys)
    assert len(kept) <= 600 and kept == sorted(kept) and (1234, 9.0) in kept and (4321, -9.0) in kept


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_scrolls_sideways_in_a_browser(tmp_path, nasty, width):
    shutil.copy(nasty, tmp_path / "report.html")
    (tmp_path / "frame.html").write_text(
        f'<!doctype html><iframe src="report.html" style="border:0;width:{width}px;height:900px" onload="'
        "const d = this.contentDocument.documentElement;"
        'document.body.append(`width ${d.scrollWidth} of ${d.clientWidth}.`)"></iframe>'
    )
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1500,1000", "--virtual-time-budget=3000", "--dump-dom",
         f"file://{tmp_path}/frame.html"],
        capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip
    assert f"width {width} of {width}." in shown
