"""A hundred wrong and odd inputs: one message each, by name, nothing written, and no advice that does not help."""

import hashlib
import html
import json
import shutil
from collections import Counter
from pathlib import Path

import hundred_work as work
import pytest
from hundred_inputs import INPUTS

from trunkline.pipelines.command.cli import main

pytest.importorskip("pycocotools")
SKIP = "on_bad_sample=skip"


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """Good data of every reader."""
    folder = tmp_path_factory.mktemp("bases")
    for name, write in work.BASES.items():
        write(folder / name)
    return folder


@pytest.fixture(scope="module")
def run(bases, tmp_path_factory) -> Path:
    """A finished run on the good photos."""
    path = tmp_path_factory.mktemp("finished") / "run"
    words = [w.format(data=bases / "photos", out=path) for w in work.TRANSFER]
    assert main(words) == 0
    return path


@pytest.fixture(autouse=True)
def quiet(one_core, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


def seen(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its bytes."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("name", INPUTS)
def test_a_hundred_inputs(bases, run, tmp_path, monkeypatch, capsys, name):
    one, data, out = INPUTS[name], tmp_path / "data", tmp_path / "out"
    shutil.copytree(bases / one.base, data)
    one.spoil(data)
    monkeypatch.chdir(tmp_path)
    before = seen(tmp_path)
    words = [word.format(data=data, out=out, run=run) for word in one.words]
    capsys.readouterr()
    code = main(words)
    said = capsys.readouterr()
    whole = (said.out + said.err).replace(str(tmp_path), "~")
    assert code == one.code, whole
    assert "Traceback" not in whole and "an error of ours" not in whole, whole
    assert one.says in whole, whole
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    told = [line for line in lines if one.says in line]
    assert len(told) == one.times, whole
    if one.code:
        assert said.err.count("trunkline: ") == (0 if words[0] == "check" and said.out else 1), whole
        again = [line for line, times in Counter(lines).items() if times > 1 and len(line) > 20]
        assert not again or words[0] == "check", whole  # which looks at each split
        assert seen(tmp_path) == before, whole
    if SKIP in whole and words[0] != "check":
        assert main([*words, SKIP]) == 0, capsys.readouterr().err


REPAIRED = {
    "coco": (work.edit("annotations/instances_val.json", lambda s: s["annotations"][0].update(iscrowd=False)),
             "iscrowd: true/false taken as 1/0 in 1 annotation"),
    "voc": (work.swap("Annotations/a.xml", "<difficult>0", "<difficult>no"), "words (true, false, yes, no) taken as 1/0 in 2"),
    "yolo": (work.swap("data.yaml", "val: 'images/val'", r"val: 'images\val'"), "paths with backslashes: taken as slashes in 1"),
    "labelme": (work.edit("val/a.json", lambda s: s.update(imageWidth=None)), "absent or 0, taken from the picture in 1 file"),
    "labelstudio": (work.swap("val.json", '"was_cancelled": false', '"was_cancelled": "no"'), "was_cancelled: words (true"),
    "csv": (work.swap("val.csv", "a.jpg,ant", r"x\a.jpg,ant"), "folders before the picture left out in 1 image"),
}  # fmt: skip


@pytest.mark.parametrize("form", REPAIRED)
def test_a_repair_is_said_once_everywhere_and_strict_makes_it_a_mistake(bases, tmp_path, capsys, form):
    spoil, line = REPAIRED[form]
    data, out = Path(shutil.copytree(bases / form, tmp_path / "data")), tmp_path / "out"
    spoil(data)
    splits = 2 if form == "voc" else 1  # whose lists name one picture

    def told(*words: str, code: int = 0) -> tuple[str, str]:
        assert main([*words]) == code
        said = capsys.readouterr()
        return said.out, said.err

    words = [word.format(data=data, out=out) for word in work.CHECK] + [f"format={form}"]
    assert told(*words)[0].count(line) == splits
    found = json.loads(told(*words, "--json")[0])
    assert found["ok"] and sum(line in odd["what"] for odd in found["oddities"]) == splits
    strict = json.loads(told(*words, "--json", "--strict", code=2)[0])
    assert sum(line in p["what"] for p in strict["problems"]) == splits and not any(
        line in o["what"] for o in strict["oddities"]
    )
    words = [word.format(data=data, out=out) for word in work.DETECT] + [f"format={form}"]
    assert told(*words, "strict=true", code=2)[1].count(line) == splits and not out.exists()
    assert told(*words)[1].count(line) == splits
    notes = [said["text"] for said in map(json.loads, (out / "metrics.jsonl").open()) if said["kind"] == "note"]
    assert [note.partition(":")[0] for note in notes if line in note] == ["train", "val"][-splits:]
    assert (out / "report.html").read_text(encoding="utf-8").count(html.escape(line)) == splits
    evaluate = ["evaluate", str(out), "loaders=0", "device=cpu", "threads=1"]
    assert told(*evaluate)[1].count(line) == 1
    if form == "coco":
        score = ["score", "coco", str(data / "annotations/instances_val.json"), str(data / "results.json"), "--json"]
    else:
        (tmp_path / "results.jsonl").write_text(
            json.dumps({"file": "a.jpg", "boxes": [], "labels": [], "scores": []}) + "\n"
        )
        score = ["score", "coco", str(data), str(tmp_path / "results.jsonl"), f"truth_format={form}", "--json"]
    said, shown = told(*score)
    assert sum(line in warning for warning in json.loads(said)["warnings"]) == 1 and shown.count(line) == 1
    assert told(*score, "--strict", code=2)[1].count(line) == 1
