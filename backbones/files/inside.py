"""Where in a file the tensors of a trunk are: under which keys and which prefix, beside what, and what the whole is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trunkline.ground.errors import WeightsError

from ..super_resolution.names import Known, arch_of, is_esrgan_plus, is_trunk, known, renamed
from ..table import GIVEN, SPANDREL, TIMM, kind_of, nearest_arch
from ..timm_trunk import TimmTrunk
from ..video.names import classifier_in, frames_in, unread_in
from .formats import Content
from .pickles import Inert, TensorRef
from .tables import Table, clean, is_read, is_tensor, nothing, shared_prefix, tables_in

_FIRST = "layer1.0.conv1.weight"  # the name by which a residual trunk is found
_TRUNK = re.compile(r"(conv1|bn1|layer[1-4]|net)\.")  # how names of a trunk's tensors begin
_BEHIND = re.compile(r"(fc[678]?|head|heads|classifier|last_linear|projector|projection_head|predictor)\.")
_INNER = ("backbone.body.", "backbone.")  # torchvision's prefixes of the trunk in a detector and in a segmenter
_BY_POSITION = {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."}
_LISTED = 12


@dataclass
class Found:
    """A trunk's tensors by torchvision's names, its classifier's among them, and what is said of the rest of the file."""

    tensors: dict[str, Tensor]
    rest: dict[str, Tensor] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    where: str = ""
    kind: str = ""
    upscaler: Known | None = None  # what the tensors show of a network of super-resolution
    wrapper: str = ""  # what stands around a trunk for pictures, where the names say that it is one for clips


@dataclass(frozen=True)
class _Place:
    """A table and a prefix in it, under which a trunk's tensors stand."""

    table: Table
    prefix: str
    by_position: bool = False
    within: tuple[str, ...] = ()  # prefixes that begin with this one, under which there is another trunk

    def named(self) -> dict[str, str]:
        """Map torchvision's names of the tensors under the prefix to their names in the file."""
        under = {name.removeprefix(self.prefix): own for name, own in clean(self.table.values).items()
                 if name.startswith(self.prefix) and not name.startswith(self.within)}  # fmt: skip
        return {_positioned(name): own for name, own in under.items()} if self.by_position else under

    @property
    def written(self) -> str:
        """The prefix as it stands in the file."""
        names = clean(self.table.values)
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
    tables = [table for table in tables_in(content.tree) if any(map(is_read, table.values.values()))]
    if not tables:
        raise WeightsError(f"{label}: {nothing(content.tree)}")
    ours = "arch" in content.metadata or "trunkline_task" in content.metadata
    if content.metadata.get("arch") in GIVEN:  # features stand in the trunk's place: all is the head's
        values = tables[0].values
        return Found({}, rest={name: content.tensor(values[own]) for name, own in clean(values).items()})
    if said := next(filter(None, (unread_in(table.values) for table in tables)), ""):
        raise WeightsError(f"{label}: {said}")
    if ours and key:
        raise WeightsError(f"{label}: weights_key={key}: this file holds one network and says which; leave it out")
    if upscalers := [] if arch and arch.startswith(TIMM) else _upscalers(tables):
        return _upscaler(_chosen(upscalers if key else _averaged(upscalers), content, label, key), content, label, ours)
    places = [_own_place(tables[0])] if ours else _fitting(tables, arch) or _others(tables)
    chosen = places if ours else _chosen(places, content, label, key)
    found = _taken(chosen[0], content, label, "trunkline_task" in content.metadata, ours)
    found.wrapper, spelled = ("", "") if ours else frames_in(chosen[0].table.values)
    found.where = ", ".join(filter(None, [spelled, _where(chosen, found)])) if not ours else ""
    return found


# Which table, which prefix


def _positioned(name: str) -> str:
    start, dot, rest = name.partition(".")
    return _BY_POSITION.get(start + dot, start + dot) + rest


def _fitting(tables: list[Table], arch: str | None) -> list[_Place]:
    """List the places where all that makes a known trunk stands; else those that look most like it."""
    if arch is not None and arch.startswith(TIMM):
        return _of_timm(tables, arch)
    some = [place for table in tables for place in _places(table)]
    some = [replace(p, within=_within(p, some)) for p in some]
    fits = [p for p in some if (n := p.named()) and "conv1.weight" in n and _arch_at(p)]
    asked = [p for p in fits if _arch_at(p) == arch]
    return asked or fits or some


def _of_timm(tables: list[Table], arch: str) -> list[_Place]:
    """List the places that hold every tensor of a network of timm."""
    trunk = TimmTrunk(arch)
    own = {name for name in trunk.state_dict() if not name.endswith("num_batches_tracked")}
    found: list[_Place] = []
    for table in tables:
        names = clean(table.values)
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


def _places(table: Table) -> list[_Place]:
    places: list[_Place] = []
    for name in clean(table.values):
        for first, by_position in ((_FIRST, False), (f"4{_FIRST[6:]}", True)):
            before = name.removesuffix(first)
            if name.endswith(first) and (not before or before.endswith(".")):
                place = _Place(table, before, by_position)
                if not by_position or _arch_at(place):
                    places.append(place)
    return places


def _arch_at(place: _Place) -> str | None:
    return nearest_arch({n: v for n, own in place.named().items() if is_tensor(v := place.table.values[own])})


def _others(tables: list[Table]) -> list[_Place]:
    """List the tables of a network that is none of the family, each without the prefix that all its tensors share."""
    some = [t for t in tables if any("." in name for name in t.values)] or tables[:1]
    return [_Place(table, shared_prefix(table)) for table in some]


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
    return is_read(a) and is_read(b) and torch.equal(content.tensor(a), content.tensor(b))


# Networks of super-resolution


def _upscalers(tables: list[Table]) -> list[_Place]:
    """List the tables of a network of super-resolution, flat: trunk and tail without a prefix, or all with the same one."""
    found: list[_Place] = []
    for table in tables:
        names = [name for name, own in clean(table.values).items() if is_tensor(table.values[own])]
        for prefix in ("", "module.", "netG.", "model."):
            under = renamed(name.removeprefix(prefix) for name in names)
            if all(name.startswith(prefix) for name in names) and (arch_of(under) or is_esrgan_plus(under)):
                found.append(_Place(table, prefix))
                break
    return found


def _averaged(places: list[_Place]) -> list[_Place]:
    """Leave out `params` where `params_ema` stands beside it: the average is what their publishers use."""
    averaged = [(*p.table.path[:-1], "params") for p in places if p.table.path[-1:] == ("params_ema",)]
    return [p for p in places if p.table.path not in averaged]


def _upscaler(chosen: list[_Place], content: Content, label: str, ours: bool) -> Found:
    """Read a whole network at a place: the trunk's tensors, and those of its tail as `rest`, by BasicSR's names."""
    place = chosen[0]
    values, names = place.table.values, place.named()
    other = f"{SPANDREL}{label} predicts with any network that spandrel knows"
    if is_esrgan_plus(names):
        raise WeightsError(f"{label}: is ESRGAN+ (its dense blocks have a conv1x1), which is not read here; {other}")
    if wrong := [own for own in names.values() if not is_read(values[own])]:
        raise WeightsError(
            f"{label}: {', '.join(wrong[:_LISTED])}: sparse, quantised, complex or no tensor; make them dense"
        )
    of = {name: names[own] for name, own in renamed(names).items()}
    upscaler = known({name: tuple(values[own].shape) for name, own in of.items()})
    if upscaler is None or upscaler.problem:
        said = f"{upscaler.arch}: {upscaler.problem}" if upscaler else "its conv_first is no convolution"
        raise WeightsError(f"{label}: {said}; {other}")
    tensors = {name: content.tensor(values[own]) for name, own in of.items()}
    found = Found({n: t for n, t in tensors.items() if is_trunk(n) or n.startswith("fc.")}, upscaler=upscaler)
    found.rest = {n: t for n, t in tensors.items() if n not in found.tensors}
    found.aside = _siblings(content.tree, place.table.path)
    family = "" if set(of) == set(names) else "ESRGAN's older names"
    found.where = "" if ours else ", ".join(filter(None, [_where(chosen, found), family]))
    return found


# What is taken


def _own_place(table: Table) -> _Place:
    names = clean(table.values)
    return _Place(table, next((inner for inner in _INNER if any(name.startswith(inner) for name in names)), ""))


def _taken(place: _Place, content: Content, label: str, whole: bool, ours: bool) -> Found:
    """Read the trunk at a place, its classifier, and the heads beside it where they are read here."""
    values, names = place.table.values, place.named()
    mine = set(names.values())
    beside = {name: own for name, own in clean(values).items() if own not in mine}
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
    left += [own for n, own in names.items() if not is_tensor(values[own]) and n not in behind]
    if wrong := [
        own
        for n, own in (names | classifier).items()
        if (_TRUNK.match(n) or n in ("fc.weight", "fc.bias"))
        and not is_read(values[own])
        and own not in left[: len(around)]
    ]:
        raise WeightsError(
            f"{label}: {', '.join(wrong[:_LISTED])}: sparse, quantised, complex or no tensor, which is not read; make them dense "
            "and real"
        )
    found.tensors = {
        n: content.tensor(values[own]) for n, own in taken.items() if own not in left and is_read(values[own])
    }
    found.rest = {n: content.tensor(values[own]) for n, own in around.items() if kept and is_read(values[own])}
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
    if projection := classifier_in(names):
        return projection
    last = next((names[n] for n in ("layer4.0.conv3.weight", "layer4.0.conv2.weight") if n in names), None)
    pool = {n: own for n, own in names.items() if _BEHIND.match(n)} | dict(around)
    matrices = [n for n, own in pool.items() if is_read(values[own]) and len(values[own].shape) == 2]
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
