"""Where in a file the tensors of a trunk are: under which keys and which prefix, beside what, and what the whole is."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trunkline.ground.errors import WeightsError

from ..table import TIMM, kind_of, nearest_arch
from ..timm_trunk import TimmTrunk
from .formats import Content
from .pickles import Inert, TensorRef

_FIRST = "layer1.0.conv1.weight"  # the name by which a residual trunk is found
_TRUNK = re.compile(r"(conv1|bn1|layer[1-4]|net)\.")  # how names of a trunk's tensors begin
_BEHIND = re.compile(r"(fc|head|heads|classifier|last_linear|projector|projection_head|predictor)\.")
_INNER = ("backbone.body.", "backbone.")  # torchvision's prefixes of the trunk in a detector and in a segmenter
_BY_POSITION = {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."}
_OF_MODULE = ("_parameters", "_buffers", "_modules")  # the dictionaries in which torch's modules keep what they have
_MOST = 100_000  # containers, and modules, that are looked through
_TABLES = 1000  # dictionaries of tensors that are looked at, those near the top first
_DEEP = 48  # containers within containers, and modules within modules
_LISTED = 12


@dataclass
class Found:
    """A trunk's tensors by torchvision's names, its classifier's among them, and what is said of the rest of the file."""

    tensors: dict[str, Tensor]
    rest: dict[str, Tensor] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    where: str = ""
    kind: str = ""


@dataclass(frozen=True)
class _Table:
    """A dictionary of tensors in a file: the keys that lead to it; `module` is the class where it was a whole module."""

    path: tuple[str, ...]
    values: dict[str, Any]
    module: str = ""


@dataclass(frozen=True)
class _Place:
    """A table and a prefix in it, under which a trunk's tensors stand."""

    table: _Table
    prefix: str
    by_position: bool = False
    within: tuple[str, ...] = ()  # prefixes that begin with this one, under which there is another trunk

    def named(self) -> dict[str, str]:
        """Map torchvision's names of the tensors under the prefix to their names in the file."""
        under = {name.removeprefix(self.prefix): own for name, own in _clean(self.table.values).items()
                 if name.startswith(self.prefix) and not name.startswith(self.within)}  # fmt: skip
        return {_positioned(name): own for name, own in under.items()} if self.by_position else under

    @property
    def written(self) -> str:
        """The prefix as it stands in the file."""
        names = _clean(self.table.values)
        first = next((own for name, own in names.items() if name.startswith(self.prefix + "conv1.")), self.prefix)
        return first.partition("conv1.")[0]

    @property
    def key(self) -> str:
        """What `weights_key=` calls it."""
        return ".".join([*self.table.path, self.prefix.rstrip(".")]).strip(".") or "."


def find(content: Content, label: str, *, arch: str | None = None, key: str = "") -> Found:
    """Find the trunk in a file's content.

    `arch` is the network's name where it is known; `key` chooses among several places. A file whose header is this
    package's is taken as it is. Raises WeightsError where there are no tensors, where several places hold different
    ones, where `key` is none of them, and for tensors of the trunk that are sparse or quantised.
    """
    tables = [table for table in _tables(content.tree) if any(map(_is_read, table.values.values()))]
    if not tables:
        raise WeightsError(f"{label}: {_nothing(content.tree)}")
    ours = "arch" in content.metadata or "trunkline_task" in content.metadata
    if ours and key:
        raise WeightsError(f"{label}: weights_key={key}: this file holds one network and says which; leave it out")
    places = [_own_place(tables[0])] if ours else _fitting(tables, arch) or _others(tables)
    chosen = places if ours else _chosen(places, content, label, key)
    found = _taken(chosen[0], content, label, "trunkline_task" in content.metadata, ours)
    found.where = _where(chosen, found) if not ours else ""
    return found


# Looking through the file


def _tables(tree: Any) -> list[_Table]:
    """List the dictionaries of tensors in a file, those near its top first; a whole module's are put together."""
    found: list[_Table] = []
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    seen: dict[int, _Table | None] = {}
    while waiting and len(seen) < _MOST and len(found) < _TABLES:
        path, node = waiting.popleft()
        if id(node) in seen:  # the same dictionary under another key
            again = seen[id(node)]
            found += [replace(again, path=path)] if again else []
            continue
        table, inner = _table(path, node)
        seen[id(node)] = table
        found += [table] if table else []
        if len(path) < _DEEP:
            waiting += [((*path, str(k)), v) for k, v in inner.items() if isinstance(v, dict | list | tuple | Inert)]
    return found


def _table(path: tuple[str, ...], node: Any) -> tuple[_Table | None, dict[Any, Any]]:
    """Read a node of a file as a dictionary of tensors, if it is one; return what is in it too, where to look further."""
    if isinstance(node, Inert) and (module := _of_module(node)):
        return _Table(path, module, node.named), {}
    inner = node.attributes if isinstance(node, Inert) else node
    if not isinstance(inner, dict):
        return None, dict(enumerate(inner)) if isinstance(inner, list | tuple) else {}
    if any(map(_is_tensor, inner.values())) and (not path or any("." in str(k) for k in inner)):
        return _Table(path, {str(k): v for k, v in inner.items() if isinstance(k, str | int)}), inner
    return None, inner


def _of_module(node: Inert) -> dict[str, Any]:
    """Put together the tensors of a whole module: its parameters and buffers, and those of the modules in it."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", node)]
    for _ in range(_MOST):
        if not waiting:
            break
        prefix, module = waiting.pop()
        state = module.attributes if isinstance(module, Inert) else {}
        parts = [part for key in _OF_MODULE if isinstance(part := state.get(key), dict)]
        if len(parts) < len(_OF_MODULE):
            continue
        own = {name: value for part in parts[:2] for name, value in part.items() if _is_tensor(value)}
        found |= {f"{prefix}{name}": value for name, value in own.items()}
        waiting += [(f"{prefix}{name}.", inner) for name, inner in parts[2].items() if prefix.count(".") < _DEEP]
    return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | TensorRef) or (
        isinstance(value, Inert) and re.match(r"torch\._utils\._rebuild_\w*tensor", value.named) is not None
    )


def _is_read(value: Any) -> bool:
    return isinstance(value, Tensor | TensorRef)


def _nothing(tree: Any) -> str:
    """Say what is in a file that holds no tensors by name."""
    return f"no tensors by name in it (found: {_spelled(tree) or 'nothing'}); expected a state_dict"


def _spelled(node: Any, deep: int = 2) -> str:
    if isinstance(node, Inert):
        return f"an object of {node.named}, which was not made"
    if not isinstance(node, dict):
        return type(node).__name__
    inner = [
        f"{k}: {_spelled(v, deep - 1)}" if deep and isinstance(v, dict | Inert) else str(k) for k, v in node.items()
    ]
    return ", ".join(inner[:8])


# Which table, which prefix


def _clean(values: Mapping[str, Any]) -> dict[str, str]:
    """Map names without what torch.compile puts between to the names as they are."""
    found: dict[str, str] = {}
    for own in values:
        name = own.replace("_orig_mod.", "")
        found[own if name in found else name] = own
    return found


def _positioned(name: str) -> str:
    start, dot, rest = name.partition(".")
    return _BY_POSITION.get(start + dot, start + dot) + rest


def _fitting(tables: list[_Table], arch: str | None) -> list[_Place]:
    """List the places where all that makes a known trunk stands; else those that look most like it."""
    if arch is not None and arch.startswith(TIMM):
        return _of_timm(tables, arch)
    some = [place for table in tables for place in _places(table)]
    some = [replace(p, within=_within(p, some)) for p in some]
    fits = [p for p in some if (n := p.named()) and "conv1.weight" in n and _arch_at(p)]
    asked = [p for p in fits if _arch_at(p) == arch]
    return asked or fits or some


def _of_timm(tables: list[_Table], arch: str) -> list[_Place]:
    """List the places that hold every tensor of a network of timm."""
    trunk = TimmTrunk(arch)
    own = {name for name in trunk.state_dict() if not name.endswith("num_batches_tracked")}
    found: list[_Place] = []
    for table in tables:
        names = _clean(table.values)
        starts = {name[: dot.end()] for name in names for dot in re.finditer(r"\.", name)}
        for prefix in sorted({"", *starts}, key=len):
            under = {n.removeprefix(prefix): torch.empty(0) for n in names if n.startswith(prefix)}
            outside = not any(p.table is table and prefix.startswith(p.prefix) for p in found)
            if outside and len(under) >= len(own) and own <= trunk.own_names(under).keys():
                found.append(_Place(table, prefix))
    return found


def _within(place: _Place, places: list[_Place]) -> tuple[str, ...]:
    same = [p.prefix for p in places if p.table is place.table and len(p.prefix) > len(place.prefix)]
    return tuple(prefix for prefix in same if prefix.startswith(place.prefix))


def _places(table: _Table) -> list[_Place]:
    places: list[_Place] = []
    for name in _clean(table.values):
        for first, by_position in ((_FIRST, False), (f"4{_FIRST[6:]}", True)):
            before = name.removesuffix(first)
            if name.endswith(first) and (not before or before.endswith(".")):
                place = _Place(table, before, by_position)
                if not by_position or _arch_at(place):
                    places.append(place)
    return places


def _arch_at(place: _Place) -> str | None:
    return nearest_arch({n: v for n, own in place.named().items() if _is_tensor(v := place.table.values[own])})


def _others(tables: list[_Table]) -> list[_Place]:
    """List the tables of a network that is none of the family, each without the prefix that all its tensors share."""
    some = [t for t in tables if any("." in name for name in t.values)] or tables[:1]
    return [_Place(table, _shared(table)) for table in some]


def _shared(table: _Table) -> str:
    names, prefix = [n for n, own in _clean(table.values).items() if _is_tensor(table.values[own])], ""
    for wrapper in ("module.", "model.") * 2:
        if names and all(name.startswith(prefix + wrapper) for name in names if name != "n_averaged"):
            prefix += wrapper
    return prefix


def _chosen(places: list[_Place], content: Content, label: str, key: str) -> list[_Place]:
    """Choose the places that `key` names, or all: the first is taken, and the others hold the same.

    Raises WeightsError where there is none, or where they hold different tensors.
    """
    some = places
    if key:
        asked = key.replace("_orig_mod.", "").strip(".") or "."
        some = [p for p in places if p.key == asked]
        some = some or [p for p in places if asked in (".".join(p.table.path), p.prefix.rstrip("."))]
    listed = "".join(f"\n  weights_key={p.key}  ({_counted(p)})" for p in places[:_LISTED])
    if not some:
        raise WeightsError(f"{label}: weights_key={key}: nothing in it is called so; there are{listed}")
    if all(_same(some[0], other, content) for other in some[1:]):
        return some
    raise WeightsError(f"{label}: holds {len(some)} networks, and not the same one: say which{listed}")


def _counted(place: _Place) -> str:
    names = place.named()
    return f"{_arch_at(place) or 'a network'}, {len(names)} tensors"


def _same(one: _Place, other: _Place, content: Content) -> bool:
    """Say whether two places hold the same tensors."""
    names, others = one.named(), other.named()
    if names.keys() != others.keys():
        return False
    pairs = [(one.table.values[own], other.table.values[others[name]]) for name, own in names.items()]
    return all(_equal(a, b, content) for a, b in pairs)


def _equal(a: Any, b: Any, content: Content) -> bool:
    if a is b or (isinstance(a, TensorRef) and a == b):
        return True
    return _is_read(a) and _is_read(b) and torch.equal(content.tensor(a), content.tensor(b))


# What is taken


def _own_place(table: _Table) -> _Place:
    names = _clean(table.values)
    return _Place(table, next((inner for inner in _INNER if any(name.startswith(inner) for name in names)), ""))


def _taken(place: _Place, content: Content, label: str, whole: bool, ours: bool) -> Found:
    """Read the trunk at a place, its classifier, and the heads beside it where they are read here."""
    values, names = place.table.values, place.named()
    mine = set(names.values())
    beside = {name: own for name, own in _clean(values).items() if own not in mine}
    inner = next((i for i in _INNER if place.prefix.endswith(i)), "")
    outer = place.prefix.removesuffix(inner) if inner or _FIRST not in names else _parent(place.prefix)
    around = {name.removeprefix(outer): own for name, own in beside.items()}
    under = {f"{place.prefix.removeprefix(outer)}{name}": own for name, own in names.items()}
    kind, known = kind_of({name: values[own] for name, own in (under | around).items()})
    kept = inner != "" and (whole or known)
    found = Found({}, kind="" if ours or kept else kind)
    classifier = {} if kind or kept else _classifier(names, around, values)
    taken = {n: own for n, own in names.items() if own not in classifier.values()} | classifier
    behind = {n for n in names if _BEHIND.match(n) and n not in ("fc.weight", "fc.bias")} if not ours else set()
    left = [own for own in ({} if kept else around).values() if own not in classifier.values()]
    left += [names[n] for n in behind if names[n] not in classifier.values()]
    left += [own for n, own in names.items() if not _is_tensor(values[own]) and n not in behind]
    if wrong := [
        own
        for n, own in (names | classifier).items()
        if (_TRUNK.match(n) or n in ("fc.weight", "fc.bias"))
        and not _is_read(values[own])
        and own not in left[: len(around)]
    ]:
        raise WeightsError(
            f"{label}: {', '.join(wrong[:_LISTED])}: sparse, quantised, complex or no tensor, which is not read; make them dense "
            "and real"
        )
    found.tensors = {
        n: content.tensor(values[own]) for n, own in taken.items() if own not in left and _is_read(values[own])
    }
    found.rest = {n: content.tensor(values[own]) for n, own in around.items() if kept and _is_read(values[own])}
    found.aside = _siblings(content.tree, place.table.path) + _grouped(left, values, place.prefix)
    if classifier and "fc.weight" not in names:
        found.where = classifier["fc.weight"].removesuffix(".weight")
    return found


def _parent(prefix: str) -> str:
    return prefix[: prefix.rstrip(".").rfind(".") + 1]


def _classifier(names: Mapping[str, str], around: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Find the classifier behind a trunk: `fc`, or the only matrix beside it, if it has a column for each of its channels."""
    if "fc.weight" in names:
        return {}
    last = next((names[n] for n in ("layer4.0.conv3.weight", "layer4.0.conv2.weight") if n in names), None)
    pool = {n: own for n, own in names.items() if _BEHIND.match(n)} | dict(around)
    matrices = [n for n, own in pool.items() if _is_read(values[own]) and len(values[own].shape) == 2]
    if last is None or len(matrices) != 1 or values[pool[matrices[0]]].shape[1] != values[last].shape[0]:
        return {}
    bias = matrices[0].removesuffix("weight") + "bias"
    return {"fc.weight": pool[matrices[0]]} | ({"fc.bias": pool[bias]} if bias in pool else {})


def _siblings(tree: Any, path: tuple[str, ...]) -> list[str]:
    """List what stands beside each key that leads to the tensors."""
    found: list[str] = []
    for key in path:
        if not isinstance(tree, dict):
            break
        found += [f"{k} ({v.named})" if isinstance(v, Inert) else str(k) for k, v in tree.items() if str(k) != key]
        tree = next((v for k, v in tree.items() if str(k) == key), None)
    return found


def _grouped(names: list[str], values: Mapping[str, Any], prefix: str) -> list[str]:
    """Name tensors in groups: by the part of their names where they leave the trunk's."""
    groups: dict[str, list[str]] = {}
    for name in names:
        shared = 0
        while (dot := name.find(".", shared)) >= 0 and prefix.startswith(name[: dot + 1]):
            shared = dot + 1
        dot = name.find(".", shared)
        groups.setdefault(name if dot < 0 else name[: dot + 1], []).append(name)
    return [own[0] if len(own) == 1 else f"{group}* ({len(own)} tensors)" for group, own in groups.items()]


def _where(chosen: list[_Place], found: Found) -> str:
    """Say under which keys and which prefix the tensors were, and where the same ones are again."""
    place = chosen[0]
    parts = [f"under {'.'.join(place.table.path)}"] if place.table.path else []
    parts += [f"prefix {place.written}"] if place.written else []
    parts += ["names by position in a Sequential"] if place.by_position else []
    parts += [f"of a whole module ({place.table.module}), which was not made"] if place.table.module else []
    parts += [f"the classifier is {found.where}"] if found.where else []
    if more := [other.key for other in chosen[1:]]:
        parts.append(f"the same as under {' and '.join(more[:_LISTED])}")
    return ", ".join(parts)
