"""Pictures in tar and parquet files and at addresses: the same samples as from folders, read shard by shard."""

import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ray_cluster import differ, words
from short_run import SHORT

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.feeding.plan import WINDOW, Plan
from trunkline.tasks.classification.folders import read_splits
from trunkline.tasks.images.decode import read_image

SHARDS = 3


def write_tar(file: Path, members: list[tuple[str, bytes]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def photos(scenes: Path, split: str) -> list[tuple[str, bytes]]:
    """Class and bytes of every picture, mixed as in a shard."""
    files = sorted((scenes / split).rglob("*.jpg"), key=lambda p: p.name[::-1])
    return [(file.parent.name, file.read_bytes()) for file in files]


def as_folders_in_tar(scenes: Path, root: Path) -> Path:
    for split in ("train", "val"):
        for n in range(SHARDS):
            own = [
                (f"{cls}/{i:04d}.jpg", data) for i, (cls, data) in enumerate(photos(scenes, split)) if i % SHARDS == n
            ]
            write_tar(root / split / f"{n:03d}.tar", own)
    return root


def as_webdataset(scenes: Path, root: Path) -> Path:
    classes = sorted(p.name for p in (scenes / "train").iterdir())
    for split in ("train", "val"):
        for n in range(SHARDS):
            own = []
            for i, (cls, data) in enumerate(photos(scenes, split)):
                if i % SHARDS == n:
                    own += [
                        (f"{i:04d}.jpg", data),
                        (f"{i:04d}.cls", str(classes.index(cls)).encode()),
                        (f"{i:04d}.json", b"{}"),
                    ]
            write_tar(root / f"{split}-{n:03d}.tar", own)
    (root / "classes.txt").write_text("\n".join(classes))
    return root


def as_parquet(scenes: Path, root: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    root.mkdir(parents=True)
    classes = sorted(p.name for p in (scenes / "train").iterdir())
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    for split, name in (("train", "train-00000-of-00001"), ("val", "validation-00000-of-00001")):
        own = photos(scenes, split)
        table = pa.table({"image": [{"bytes": data, "path": None} for _, data in own],
                          "label": [classes.index(cls) for cls, _ in own]})  # fmt: skip
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(table, root / f"{name}.parquet", row_group_size=7)
    return root


KINDS = {"folders in tar": as_folders_in_tar, "webdataset": as_webdataset, "parquet": as_parquet}


def contents(samples) -> Counter:
    found = (samples[i] for i in range(len(samples)))
    return Counter((samples.classes[s.targets["label"]], s.image.numpy().tobytes()) for s in found)


@pytest.mark.parametrize("address", ["path", "url"])
@pytest.mark.parametrize("kind", [*KINDS, "folders"])
def test_the_samples_are_those_of_the_folders(scenes, tmp_path, kind, address):
    root = KINDS[kind](scenes, tmp_path / "data") if kind in KINDS else scenes
    wanted = read_splits(scenes)
    found = read_splits(f"file://{root}" if address == "url" else root)
    for split in ("train", "val"):
        own = found[split]
        assert own.classes == wanted[split].classes and contents(own) == contents(wanted[split])
        assert len({own.id(i) for i in range(len(own))}) == len(own)
        assert torch.equal(read_image(own.source(3)), own[3].image)
        assert (own.units() is None) == (kind == "folders")
        again = read_splits(f"file://{root}" if address == "url" else root)[split]
        assert own.fingerprint() == again.fingerprint() and own.manifest() == again.manifest()


def test_a_changed_shard_is_seen(scenes, tmp_path):
    root = as_folders_in_tar(scenes, tmp_path / "data")
    before = read_splits(root)["train"].fingerprint()
    file = root / "train/000.tar"
    data = bytearray(file.read_bytes())
    start = read_splits(root)["train"].index.parts.start[0]
    data[start + 20] ^= 1
    file.write_bytes(data)
    assert read_splits(root)["train"].fingerprint() != before


def test_shards_without_a_split_are_divided(scenes, tmp_path):
    root = as_folders_in_tar(scenes, tmp_path / "data")
    shutil.rmtree(root / "val")
    for file in (root / "train").iterdir():
        file.rename(root / f"part-{file.name}")
    found = read_splits(root, val=0.25)
    ids = {split: {s.id(i) for i in range(len(s))} for split, s in found.items()}
    assert not ids["train"] & ids["val"] and len(ids["train"] | ids["val"]) == 40 and 8 <= len(ids["val"]) <= 12


def test_an_epoch_takes_every_sample_once_shard_by_shard():
    units = np.repeat(np.arange(100), 30)[np.random.default_rng(0).permutation(3000)]
    plan = Plan(3000, 30, 10, 5, units)
    epochs = [
        [i for u in range(100 * e, 100 * e + 100) for m in plan.micro_batches(u) for _, i, _ in m] for e in (0, 1)
    ]
    for order in epochs:
        assert sorted(order) == list(range(3000))
        for first in range(0, 3000, WINDOW * 30):
            assert len({units[i] for i in order[first : first + WINDOW * 30]}) == min(WINDOW, 100 - first // 30)
        assert len({units[i] for i in order[:60]}) > 10  # mixed within it
    assert epochs[0] != epochs[1]
    assert {units[i] for i in epochs[0][: WINDOW * 30]} != {units[i] for i in epochs[1][: WINDOW * 30]}
    fresh = Plan(3000, 30, 10, 5, units.copy())
    assert fresh.micro_batches(17) == plan.micro_batches(17)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
@pytest.mark.slow
def test_any_number_of_workers_and_decoders_trains_the_same(scenes, tmp_path, kind):
    root = KINDS[kind](scenes, tmp_path / "data")
    given = {"updates": 6, "evaluation.every": 0}
    assert main(words(root, tmp_path / "one", **given)) == 0
    assert main(words(f"file://{root}", tmp_path / "two", "--workers", "2", **given, machine__workers=2)) == 0
    assert differ(tmp_path / "one", tmp_path / "two") == []
    assert "data:image" in (tmp_path / "two/report.html").read_text()  # mistakes are shown from the shards


def test_check_reads_shards(scenes, tmp_path, capsys):
    root = as_webdataset(scenes, tmp_path / "data")
    assert main(["check", str(root)]) == 0
    assert "40 files in 10 classes" in capsys.readouterr().out
    write_tar(root / "train-003.tar", [("a.jpg", b"\xff\xd8 no picture"), ("a.cls", b"0")])
    assert main(["check", str(root)]) == 2
    assert "train-003.tar/a.jpg" in capsys.readouterr().out


def cut(root: Path) -> None:
    file = root / "train/001.tar"
    file.write_bytes(file.read_bytes()[:5000])


def nothing_like_it(root: Path) -> None:
    (root / "train/001.tar").write_bytes(b"x" * 2000)


def packed(root: Path) -> None:
    (root / "train/001.tar").rename(root / "train/001.tar.gz")


def without_class(root: Path) -> None:
    write_tar(root / "train/003.tar", [("x.jpg", b"1")])


def half_labelled(root: Path) -> None:
    write_tar(root / "train/003.tar", [("x.jpg", b"1"), ("y.jpg", b"2"), ("y.cls", b"circle")])


def twice(root: Path) -> None:
    write_tar(root / "train/003.tar", [("circle/x.jpg", b"1"), ("circle/x.png", b"2")])


def empty(root: Path) -> None:
    write_tar(root / "train/003.tar", [])


def mixed(root: Path) -> None:
    shutil.copy(root / "train/001.tar", root / "more.tar")


def no_columns(root: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), root / "train/003.parquet")


def no_parquet(root: Path) -> None:
    (root / "train/003.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, r"train/001.tar: (is cut off|cannot be read)"),
        (nothing_like_it, r"train/001.tar: cannot be read"),
        (packed, r"train/001.tar.gz: a picture cannot be found in a compressed archive"),
        (without_class, r"train/003.tar/x.jpg: is in no folder that names its class, and has no .cls beside it"),
        (half_labelled, r"train/003.tar/x.jpg: has no .cls beside it"),
        (twice, r"train/003.tar: holds circle/x twice"),
        (empty, r"train/003.tar: holds no pictures"),
        (mixed, r"more.tar: belongs to train or val\? Name shards"),
        (no_columns, r"train/003.parquet: cannot be read .expected a column of pictures .*it has text"),
        (no_parquet, r"train/003.parquet: cannot be read .no parquet file, or a damaged one"),
    ],
)
def test_mistakes_in_shards(scenes, tmp_path, spoil, says):
    root = as_folders_in_tar(scenes, tmp_path / "data")
    spoil(root)
    with pytest.raises(DataError, match=says):
        read_splits(root)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("file:///nowhere/at/all", r"file:///nowhere/at/all: cannot be read"),
        ("s4://bucket/photos", r"s4://bucket/photos: Protocol not known: s4; expected a folder, or an address such as"),
        ("memory://empty", r"memory://empty: (cannot be read|there is nothing)"),
    ],
)
def test_mistakes_in_addresses(tmp_path, capsys, address, says):
    import re

    assert main(["train", "transfer", f"data={address}", "--run", str(tmp_path / "run"), *SHORT]) == 2
    told = capsys.readouterr().err
    assert re.search(says, told) and "Traceback" not in told
    assert not (tmp_path / "run").exists()
