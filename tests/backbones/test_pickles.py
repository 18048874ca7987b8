"""The restricted reader: pickles that would run code run none, damage is a mistake, and what it reads is what torch reads."""

import io
import os
import pickle
import pickletools
import random
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from weight_files import small

from trunkline.backbones import read_weights
from trunkline.backbones.files.formats import read_file
from trunkline.backbones.files.pickles import Inert, TensorRef, read_pickle
from trunkline.ground.errors import WeightsError


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


class WithState(dict):
    """A dictionary that has a state too."""

    def __reduce__(self):
        return WithState, (), {"x": 1}

    def __setstate__(self, state):
        self.update(state)


class Marks:
    """A class that leaves a file behind when it is made, or is given a state."""

    def __new__(cls, path=None):
        if path:
            Path(path).touch()
        return super().__new__(cls)

    def __setstate__(self, path):
        Path(path).touch()


def touch(path: Path) -> str:
    return f"touch {path}"


def text(said: str) -> bytes:
    return b"X" + struct.pack("<I", len(said.encode())) + said.encode()


MARKS = f"c{__name__}\nMarks\n".encode()
ARMED = {
    "REDUCE": lambda path: b"\x80\x02cposix\nsystem\n" + text(touch(path)) + b"\x85R.",
    "INST": lambda path: f"(S'{touch(path)}'\niposix\nsystem\n.".encode(),
    "OBJ": lambda path: b"\x80\x02(cposix\nsystem\n" + text(touch(path)) + b"o.",
    "NEWOBJ": lambda path: b"\x80\x02" + MARKS + text(str(path)) + b"\x85\x81.",
    "NEWOBJ_EX": lambda path: b"\x80\x04" + MARKS + b")}" + text("path") + text(str(path)) + b"s\x92.",
    "STACK_GLOBAL": lambda path: b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text(touch(path)) + b"\x85R.",
    "BUILD": lambda path: b"\x80\x02" + MARKS + b")\x81" + text(str(path)) + b"b.",
    "eval": lambda path: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system('{touch(path)}')") + b"\x85R.",
}
"""Pickles, written by hand, that leave a file behind by one opcode."""


@pytest.mark.parametrize("kind", ARMED)
def test_no_opcode_runs_anything(kind, tmp_path):
    ran = tmp_path / "ran"
    armed = ARMED[kind](ran)
    found = read_pickle(io.BytesIO(armed))
    assert isinstance(found, Inert) and not ran.exists()
    (tmp_path / "plain.pth").write_bytes(armed)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a/data.pkl", armed)
    for name in ("plain.pth", "zip.pth"):
        with pytest.raises(WeightsError, match="no tensors by name in it"):
            read_weights(tmp_path / name)
    assert not ran.exists()
    pickle.loads(armed)  # the pickle is armed: the usual reader runs it
    assert ran.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["beside", "within", "in a tuple", "as a key's value"])
def test_weights_beside_a_pickle_that_would_run_code_are_read_and_it_is_not_run(tmp_path, legacy, where):
    ran, path = tmp_path / "ran", tmp_path / "w.pth"
    tensors = small()
    armed = Calls(os.system, touch(ran))
    content = {
        "beside": {"state_dict": tensors, "args": armed},
        "within": {"state_dict": {**tensors, "extra": armed}},
        "in a tuple": {"state_dict": tensors, "args": (1, [armed], {"x": armed})},
        "as a key's value": {"model": {"state_dict": tensors, "config": Calls(eval, f"__import__('os').system('{touch(ran)}')")}},
    }[where]  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert weights.arch == "resnet18" and len(weights.tensors) == 122 and not ran.exists()
    assert torch.equal(weights.tensors["fc.weight"], tensors["fc.weight"])
    assert "posix.system" in weights.info["left aside"] or where != "beside"
    torch.load(path, weights_only=False)
    assert ran.exists()


def test_a_storage_that_names_code_for_its_type_runs_none(tmp_path):
    ran = tmp_path / "ran"
    command = touch(ran).encode()
    pickled = (
        b"\x80\x02}X\x0d\x00\x00\x00conv1.weight.ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagecposix\nsystem\n"
        b"X" + struct.pack("<I", len(command)) + command + b"\x85RX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00)"
        b")\x89Ntq\x00Rs."
    )
    pickled = pickled.replace(b"conv1.weight.", b"conv1.weight0")
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", b"\0\0\0\0")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.pth")
    assert not ran.exists()


def test_classes_that_are_named_are_not_imported():
    found = read_pickle(io.BytesIO(b"\x80\x02cthis\nx\n)\x81cthis\ny\n)Rb."))
    assert str(found.kind) == "this.x" and found.state.named == "this.y" and "this" not in sys.modules


VALUES = {
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "part": torch.arange(10)[3:7],
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "double": torch.rand(2, 3, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "int16": torch.arange(4, dtype=torch.int16),
    "unsigned": torch.arange(4).to(torch.uint16),
    "parameter": nn.Parameter(torch.rand(3)),
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_read_is_what_torch_reads(tmp_path, legacy, protocol):
    path = tmp_path / "values"
    shared = torch.rand(6)
    given = {**VALUES, "front": shared[:4], "back": shared[2:]}
    if legacy:  # before 1.6 there were no such numbers
        del given["unsigned"]
    torch.save(given, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    content, theirs = read_file(path), torch.load(path, weights_only=False)  # the strict reader knows protocol 2 and 3
    assert content.tree.keys() == theirs.keys()
    for name, expected in theirs.items():
        found = content.tensor(content.tree[name])
        assert torch.equal(found, expected) and found.dtype == expected.dtype and found.stride() == expected.stride()
    assert (
        content.tensor(content.tree["front"]).untyped_storage().data_ptr()
        == content.tensor(content.tree["back"]).untyped_storage().data_ptr()
    )


def test_a_file_of_another_byte_order_is_read(tmp_path):
    torch.save({"a": torch.arange(3.0), "b": torch.arange(4)}, tmp_path / "little")
    with zipfile.ZipFile(tmp_path / "little") as little, zipfile.ZipFile(tmp_path / "big", "w") as big:
        for name in little.namelist():
            held = little.read(name)
            width = 4 if name.endswith("/0") else 8
            if "/data/" in name:
                held = b"".join(held[at : at + width][::-1] for at in range(0, len(held), width))
            big.writestr(name, b"big" if name.endswith("byteorder") else held)
    content = read_file(tmp_path / "big")
    assert content.tensor(content.tree["a"]).tolist() == [0, 1, 2] and content.tensor(content.tree["b"]).tolist() == [
        0,
        1,
        2,
        3,
    ]


def view(offset=0, size=(2,), stride=(1,), count=4) -> bytes:
    """A file's pickle with one tensor, described by these numbers."""

    class Put:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {})

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    written = io.BytesIO()
    Pickler(written, 2).dump({"layer.weight": Put()})
    return written.getvalue()


@pytest.mark.parametrize(
    "numbers",
    [{"offset": 3}, {"size": (5,)}, {"stride": (4,)}, {"size": (-1,)}, {"offset": -1}, {"stride": (-1,)}, {"size": (10**30,)},
     {"size": (1 << 40,), "stride": (0,)}, {"size": (2, 2)}, {"count": 10**9}, {"count": -1}, {"size": (2.0,)}, {"offset": True}],
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, numbers):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", view(**numbers))
        archive.writestr("a/data/0", b"\0" * 16)
    with pytest.raises(WeightsError, match=r"w\.pth: not a whole file of torch\.save"):
        content = read_file(tmp_path / "w.pth")
        content.tensor(content.tree["layer.weight"])


@pytest.mark.parametrize("kind", ["deep list", "deep tuple", "deep key", "own list", "many names", "long"])
def test_pickles_that_are_too_much_do_no_harm(tmp_path, kind):
    deep = 60_000
    armed = {
        "deep list": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "deep tuple": b"\x80\x02)" + b"\x85" * deep + b".",
        "deep key": b"\x80\x02})" + b"\x85" * deep + b"K\x01s.",
        "own list": b"\x80\x02]q\x00h\x00ah\x00a.",
        "many names": b"\x80\x02]q\x00" + b"(" + b"h\x00" * deep + b"e.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\x01" * 100 + b".",
    }[kind]
    (tmp_path / "w.pth").write_bytes(armed)
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.pth")


class Tiny(nn.Module):
    """A whole module, with modules in it and a buffer that is not kept."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("kept", torch.arange(3))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_a_whole_module_has_the_tensors_of_its_state(tmp_path, legacy):
    module = nn.DataParallel(Tiny()) if legacy else Tiny()
    torch.save({"model": module}, tmp_path / "whole", _use_new_zipfile_serialization=not legacy)
    from trunkline.backbones.files.tables import tables_in

    content = read_file(tmp_path / "whole")
    (table,) = tables_in(content.tree)
    expected = module.state_dict()
    assert table.path == ("model",) and table.values.keys() == expected.keys()
    assert all(torch.equal(content.tensor(table.values[name]), value) for name, value in expected.items())


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Cut a file off, or change some of its bytes; half of these among its first 4 KiB, where the pickle is."""
    if draw.random() < 0.3:
        return whole[: draw.randrange(len(whole))]
    held = bytearray(whole)
    for _ in range(draw.choice((1, 1, 4, 40))):
        at = draw.randrange(min(len(held), 4096 if draw.random() < 0.5 else len(held)))
        held[at] = draw.randrange(256)
    return bytes(held)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "module"])
def test_damage_is_a_mistake_and_never_another_error(tmp_path, form):
    from safetensors.torch import save_file

    tensors = {"layer1.0.conv1.weight": torch.rand(2, 2), "state": torch.rand(3)}
    path = tmp_path / "whole"
    if form == "safetensors":
        save_file(tensors, path)
    else:
        content = Tiny() if form == "module" else {"state_dict": tensors, "epoch": 3, "args": Calls(print, "ran")}
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    whole, draw, refused = path.read_bytes(), random.Random(form), 0
    for _ in range(400):
        path.write_bytes(damaged(whole, draw))
        try:
            read_weights(path)
        except WeightsError:
            refused += 1
    assert refused > 100


def test_every_opcode_of_a_file_of_tensors_is_known():
    """None of pickle's opcodes is overlooked: each is carried out, or refused by its name."""
    from trunkline.backbones.files import pickles

    known = pickles._PUSHED | {*pickles._NEW} | {*pickles._STEPS} | {"STOP"}
    assert {op.name for op in pickletools.opcodes} - known == {"NEXT_BUFFER", "READONLY_BUFFER"}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_and_sparse_tensors_are_named(tmp_path):
    tensors = small()
    torch.save(
        {**tensors, "layer2.0.conv1.weight": tensors["layer2.0.conv1.weight"].to_sparse()}, tmp_path / "sparse.pth"
    )
    quantised = torch.quantize_per_tensor(tensors["conv1.weight"], 0.1, 0, torch.qint8)
    torch.save({**tensors, "conv1.weight": quantised}, tmp_path / "quantised.pth", _use_new_zipfile_serialization=False)
    for name, told in (
        ("sparse", "layer2.0.conv1.weight: sparse, quantised"),
        ("quantised", "conv1.weight: sparse, quantised"),
    ):
        with pytest.raises(WeightsError, match=told):
            read_weights(tmp_path / f"{name}.pth")


def test_an_attribute_that_is_no_tensor_stays_a_record():
    found = read_pickle(io.BytesIO(pickle.dumps({"a": Calls(print, 1), "b": WithState(), "c": {1: 2.5, None: b"x"}})))
    assert isinstance(found["a"], Inert) and found["a"].named == "builtins.print" and found["a"].args == (1,)
    assert found["b"].attributes == {"x": 1} and found["c"] == {1: 2.5, None: b"x"}
    assert not isinstance(found["a"], TensorRef)
