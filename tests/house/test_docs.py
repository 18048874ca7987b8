"""The documents: every command and every piece of Python in them is run, every link leads somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"transfer.md", "recipes.md", "cluster.md", "benchmarks.md"}  # documents that train a dozen times
EVERY = [pytest.param(d, id=d.name, marks=[pytest.mark.slow] if d.name in SLOW else []) for d in DOCUMENTS]

NOT_RUN = {  # the beginning of a command: why it is not run here
    "git clone": "needs the network",
    "make ": "installs, or runs these tests: it is how they are run",
    ".venv/bin/pre-commit install": "changes the checkout",
    "trunkline score coco instances_val2017.json": "needs COCO's files; tests/score runs the verb",
    "trunkline score voc VOC20": "needs VOC's files; tests/score runs the verb",
    "trunkline score events": "needs published files; tests/events runs the verb",
    "trunkline train thumos": "needs THUMOS' features; tests/events runs its smoke variant",
    "trunkline bench sharing": "hours, on VOC's files; tests/joint/test_bench_sharing.py has what it compares",
    "trunkline demo": "five minutes; tests/runs/test_api.py runs its smoke variant",
}
QUICKER = {  # the beginning of a command: settings in place of its own, or added to them
    "trunkline bench train": "rounds=1 steps=1 batch=2 size=32 backbone=resnet18",
    "trunkline bench loader": "rounds=1 batch=2 size=32 images=4 loaders=0",
    "trunkline bench scale": "rounds=1 steps=1 size=32 wide=32 ray=false",
    "trunkline bench detect": "rounds=1 size=64 batch=1",
    "trunkline bench segment": "rounds=1 size=64 batch=2 device=cpu",
    "trunkline bench masks": "rounds=1",
    "trunkline bench video": "rounds=1 side=32 crop=16 frames=2 batch=2",
    "trunkline bench upscale": "rounds=1 batch=2 crop=32 blocks=1 width=8",
    "trunkline bench joint": "rounds=1 size=64 backbone=resnet18",
    "trunkline bench gpu": "device=cpu rounds=1 batch=2 size=32 crop_batch=2 crop=64 boxes_batch=1 longest=64 photos=8",
    "trunkline train transfer data=photos val=0.2 batch=16": "weights=none backbone=resnet18",  # workers have their own cache
    "trunkline profile": "profile_updates=1",
    "trunkline train joint": "updates=2 size=64 batch=2 weights=none backbone=narrow network.pyramid=none"
    " network.wrapper=slim_pool",
    "trunkline train finetune.py": "epochs=1 size=32",
    "trunkline train denoise.py": "epochs=1",
    "trunkline train labels.py": "epochs=1 size=32 weights=none network.backbone=narrow batch.size=4",
    "trunkline train scenes.py": "updates=2 network.backbone=timm:test_resnet.r160_in1k",
    "trunkline train segment head=semantic_fpn": "updates=2 size=64 batch=2 weights=none backbone=narrow",
    "trunkline train segment": "epochs=0.5 crop=64 batch=2 weights=none backbone=narrow",
    "trunkline train detect": "updates=2 size=64 batch=2 weights=none backbone=narrow network.pyramid=none"
    " network.wrapper=slim_pool",
}
SMALL = {"updates": "2", "size": "32", "batch": "8"}  # of every run of `transfer` that is not a smoke run already
NARROW = {"weights": "none", "backbone": "narrow"}  # and of those of the quick documents but the README's first


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language and its text."""

    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name in the first line of a piece of Python that stands for a file."""
        found = re.match(r"# (\S+\.py)\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        return [c for c in (line.partition(" #")[0].strip() for line in self.text.splitlines()) if c]


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    assert text.count("```") % 2 == 0, f"{document.name}: a fence is not closed"
    return [
        Block(text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def why_not(command: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if f"{command} ".startswith(start)), None)


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    """In place of a download: a file of random numbers under the published names, made once for each network."""
    folder = tmp_path_factory.mktemp("published")

    def fetch(source) -> Path:
        import torchvision

        file = folder / f"{source.arch}.pth"
        if not file.is_file():
            torch.manual_seed(0)
            torch.save(getattr(torchvision.models, source.arch)().state_dict(), file)
        return file

    return fetch


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """The folders of photos, made once."""
    folder = tmp_path_factory.mktemp("pictures")
    photos(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, downloaded, pictures, request):
    """A folder to work in, with photos; what the documents train there is small, and global settings are put back."""
    from trunkline.backbones import download
    from trunkline.pipelines import api
    from trunkline.pipelines.launch import launch
    from trunkline.pipelines.recipe import knobs
    from trunkline.pipelines.runs import machine

    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "fetch", downloaded)
    monkeypatch.setattr(machine, "cores", lambda: 1)  # one thread, no processes that decode unless they are asked for
    resolve, document = knobs.resolve, request.node.callspec.params["document"].name
    published = iter([True] if document == "README.md" else [])

    def small(name, given, **more):
        if name == "transfer" and not given.get("smoke"):
            given = {k: v for k, v in given.items() if k not in ("epochs", "updates")} | SMALL
            given |= {"micro_batch": "4"} if str(given.get("micro_batch", "")).isdigit() else {}
            given |= {} if next(published, document in SLOW) else NARROW
        if name == "action" and not given.get("smoke"):
            given = {k: v for k, v in given.items() if k not in ("group", "folds", "format")} | NARROW
            given |= {"updates": "1", "size": "32", "frames": "2", "batch": "2"}
        if name == "events" and not given.get("smoke"):
            given = {**given, "updates": "1", "width": "8", "levels": "2", "batch": "2"}
        if name == "upscale" and not given.get("smoke"):
            given = {**given, "updates": "1", "blocks": "1", "width": "8", "crop": "32", "batch": "2", "crops": "1"}
        return resolve(name, {"log.tensorboard": "false", "machine.precision": "fp32", **given}, **more)

    for module in (api, launch):
        monkeypatch.setattr(module, "resolve", small)
    threads, path = torch.get_num_threads(), list(sys.path)
    yield tmp_path
    torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)
    sys.path[:] = path


def photos(folder: Path) -> None:
    """Three classes of photos in two series each, the same in 12 bits, and some more without a class."""
    from PIL import Image

    from trunkline.tasks.detection.scenes import write_box_scenes
    from trunkline.tasks.scenes import write_scenes
    from trunkline.tasks.segmentation.scenes import write_pixel_scenes
    from trunkline.tasks.video.scenes import write_clips

    write_clips(folder / "clips", train=4, val=2, size=32)
    write_clips(folder / "new-clips", train=2, val=0, size=32)
    write_clips(folder / "long-videos", train=4, val=0, size=32)
    long = sorted(p.relative_to(folder).as_posix() for p in (folder / "long-videos/train").glob("*/*"))
    (folder / "labels").mkdir()
    rows = [f"{video},0.04,0.2,{Path(video).parent.name}" for video in long]
    (folder / "labels/events.csv").write_text("\n".join(["video,start,end,label", *rows]) + "\n")
    write_box_scenes(folder / "cells", train=8, val=4, size=64)
    write_pixel_scenes(folder / "streets", train=8, val=4, size=64)
    write_scenes(folder / "scenes", train=90, val=10, size=48)
    for number, kind in enumerate(sorted((folder / "scenes/train").iterdir())[:3]):
        pictures = sorted(kind.iterdir())
        (folder / "new-photos").mkdir(exist_ok=True)
        for i, picture in enumerate(pictures[:8]):
            place = folder / f"photos/{kind.name}/scan-{i // 2}{'ab'[i % 2]}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.open(picture).convert("RGB").save(place, quality=90)
            (folder / f"slices/{kind.name}").mkdir(parents=True, exist_ok=True)
            deep = np.asarray(Image.open(picture).convert("L")).astype(np.uint16) * 16
            Image.fromarray(deep).save(folder / f"slices/{kind.name}/{i}.png")
        Image.open(pictures[-1]).convert("RGB").rotate(90).save(folder / f"new-photos/{number}.jpg")


@pytest.mark.parametrize("document", EVERY)
def test_every_block_runs(document, place, monkeypatch, capfd):
    names: dict = {}
    for block in blocks(document):
        where = f"{document.name}:{block.line}"
        if block.language == "bash":
            for command in block.commands:
                if why_not(command) is None:
                    run_command(command, where, capfd)
        elif block.language == "python" and block.file:
            install(block, place)
        elif block.language == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.language == "yaml":
            assert pytest.importorskip("yaml").safe_load(block.text)["kind"]
        elif block.language == "dockerfile":
            assert block.text.startswith("FROM ")  # marked in the document as not run
        else:
            assert block.language == "text", f"{where}: language {block.language!r} is none that is run (bash, python)"


def run_command(command: str, where: str, capfd) -> None:
    """Run it as written, apart from QUICKER: Trunkline's verbs in this process, other programs as they are."""
    added = next((more for start, more in QUICKER.items() if command.startswith(start)), "")
    own = {setting.partition("=")[0] for setting in added.split()}
    words = [w for w in shlex.split(command) if w.partition("=")[0] not in own] + added.split()
    capfd.readouterr()
    if words[0] == "trunkline":
        from trunkline.pipelines.command.cli import main

        code = main(words[1:])
    else:
        code = subprocess.run(words, check=False).returncode
    out, err = capfd.readouterr()
    assert code == 0, f"{where}: `{command}` ends with {code}\n{out}\n{err}"


def install(block: Block, place: Path) -> None:
    """Write the file that a block stands for."""
    assert block.file
    file = place / block.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{document.name}: {target}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_files_that_are_named_are_there(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    floors = "backbones|heads|tasks|cluster|pipelines|tests|docs"
    for name in re.findall(rf"`((?:{floors})/[\w/.-]*)`", text):
        assert (ROOT / name).exists(), f"{document.name}: {name} is not there"


def anchors(file: Path) -> set[str]:
    """The names of a document's headings as they are linked to."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_every_exception_is_needed():
    commands = [c for d in DOCUMENTS for b in blocks(d) if b.language == "bash" for c in b.commands]
    for start in (*NOT_RUN, *QUICKER):
        assert any(f"{c} ".startswith(start) for c in commands), f"{start!r} stands in no document any more"


def test_every_document_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for document in DOCUMENTS[1:]:
        assert os.path.relpath(document, ROOT) in text, f"README.md does not mention {document.name}"


def test_the_readme_lists_every_mode_of_transfer_and_every_recipe():
    from trunkline.pipelines.recipes.table import RECIPES
    from trunkline.pipelines.recipes.transfer import _MODES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*RECIPES, *_MODES))


def test_the_readmes_joint_command_is_taken(pictures, tmp_path, monkeypatch):
    """On a folder in the format that it names; nothing is trained."""
    from trunkline.pipelines.recipe.demo_data import placed
    from trunkline.pipelines.recipe.knobs import resolve
    from trunkline.pipelines.training.checks import preflight

    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    (words,) = re.findall(r"`trunkline train joint ([^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    given = dict(word.split("=", 1) for word in words.split()) | {"data": str(pictures / "cells")}
    preflight(placed(resolve("joint", {**given, **NARROW, "machine.device": "cpu"}).recipe))


def test_pictures_are_small():
    for picture in (ROOT / "docs/images").iterdir():
        assert picture.stat().st_size < 300_000, f"{picture.name} has {picture.stat().st_size} bytes"
