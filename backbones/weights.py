"""Weights: read, loaded strictly into a trunk with a count of what was loaded, and saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from .contract import Preprocessing
from .files.assumed import assume
from .files.formats import SUFFIXES, read_file, sha256
from .files.inside import Found, find
from .metadata import from_metadata
from .residual import Staged
from .saving import check_classes
from .saving import save_weights as save_weights
from .super_resolution.settings import usual_scale
from .super_resolution.trunk import UpscalingTrunk
from .table import (
    CLIPS,
    SPANDREL,
    STRIDE_IN,
    SUPER_RESOLUTION,
    architectures,
    flat_of,
    is_known,
    named,
    nearest_arch,
)
from .timm_trunk import TimmTrunk
from .video.inflated import inflate_weights

CLASSIFIER = ("fc.weight", "fc.bias")
NO_TRAINING = (
    "spandrel opens networks for prediction and scoring alone: it gives no maps, and neither the losses nor the "
    "initial values that they are trained with; train one of " + ", ".join(SUPER_RESOLUTION)
)
_EPS = 1e-5


@dataclass
class Weights:
    """Tensors by torchvision's names, with what belongs to them.

    `stride_in` is "3x3" or "1x1"; `classes` the classifier's names in order, or None where nobody knows them; `source`
    the file or name as given, `sha256` of the file. `info` holds whatever else the header says; `info["assumed"]` says,
    by field, what no header stated. `rest` are the tensors of what stands on a trunk (a pyramid, a detector's heads),
    under their own names.
    """

    tensors: dict[str, Tensor]
    arch: str
    stride_in: str = "3x3"
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    source: str = "memory"
    sha256: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Tensor] = field(default_factory=dict)

    @property
    def over_time(self) -> bool:
        """Whether it is a network for clips: a trunk of them, or one for pictures with what stands around it."""
        return self.arch in CLIPS or self.info.get("trunkline_wrapper", "none") != "none"


@dataclass
class LoadReport:
    """What a load did: `loaded` of the file's `total` tensors; the lists are empty unless it was refused."""

    loaded: int
    total: int
    source: str = "memory"
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        lines = [f"{self.loaded} of {self.total} tensors from {self.source}" + (f"; {self.note}" if self.note else "")]
        for title, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            if names:
                more = f" and {len(names) - 10} more" if len(names) > 10 else ""
                lines.append(f"  {len(names)} {title}: {', '.join(names[:10])}{more}")
        return "\n".join(lines)


def read_weights(
    source: "str | Path", *, arch: str | None = None, stride_in: str | None = None, key: str = ""
) -> Weights:
    """Read weights from a file, a finished run's folder, or a name or address that `backbones.sources` knows.

    What a name or address stands for is downloaded once. `arch` and `stride_in` state what the file does not; a value
    that contradicts the file is an error. Without them, the architecture is found from the tensors, and the stride is
    taken to be torchvision's. `key` says which network is meant where a file holds several (`state_dict_ema`,
    `state_dict.module.encoder_q`: the keys that lead to it, then its prefix). For an inflated network its 2-D one's weights
    are read too; `arch` then says the 2-D one. Raises WeightsError.
    """
    stated: dict[str, Any] = {}
    if not isinstance(source, (str, Path)):
        raise WeightsError(f"weights={source!r}: expected a file, a folder of a run, or a name")
    if str(source).startswith(SPANDREL):
        raise WeightsError(f"weights={source}: {NO_TRAINING}")
    path = Path(source).expanduser()
    if path.is_dir() and (path / "weights.safetensors").is_file():  # a finished run
        path = path / "weights.safetensors"
        source = str(path)
    if not _is_path(source, path):
        from . import download, sources

        published = sources.find(str(source))
        path, stated = download.fetch(published), published.stated()
    label = str(source)
    content = read_file(path)
    arch = arch and named(arch)
    found = find(content, label, arch=arch, key=key)
    header = from_metadata(content.metadata, label)
    info = {**stated.pop("info", {}), **header.pop("info")}
    stated |= header
    info |= {name: said for name, said in _of_file(found).items() if said}
    if found.wrapper:
        info.setdefault("trunkline_wrapper", found.wrapper)
    _check_eps(info, label)
    if found.upscaler:
        info |= {name: said for name, said in found.upscaler.info().items() if said != "0"}
        stated.setdefault("arch", found.upscaler.arch)
        if stated["arch"] != found.upscaler.arch:
            raise WeightsError(f"{label}: its header says {stated['arch']}, its tensors are of {found.upscaler.arch}")
    if (flat := flat_of(arch)) and flat == (stated.get("arch") or nearest_arch(found.tensors)):
        arch = flat  # 2-D weights, which are inflated when they are loaded
    stated |= _asked({"arch": arch, "stride_in": stride_in}, stated, label)
    if stated.get("arch") is None:
        stated["arch"] = infer_arch(found.tensors, label, found.kind)
    _check_stated(stated, label)
    stated, assumed = assume(stated, {**found.tensors, **found.rest}, found.wrapper)
    if stated["arch"] == "edsr" and "trunkline_residual_scale" not in info:
        blocks, width = int(info["trunkline_blocks"]), int(info["trunkline_width"])
        scale = usual_scale("edsr", blocks, width)
        info["trunkline_residual_scale"] = f"{scale:g}"
        assumed["residual_scale"] = f"residual_scale={scale:g}, as published for {blocks} blocks of {width} channels"
    if assumed:
        info["assumed"] = assumed
    check_classes(stated.get("classes"), found.tensors, label)
    return Weights(tensors=found.tensors, source=label, sha256=sha256(path), info=info, rest=found.rest, **stated)


def _asked(given: Mapping[str, str | None], stated: Mapping[str, Any], label: str) -> dict[str, str]:
    """Return what was asked for. Raises WeightsError where the file says otherwise."""
    asked = {name: value for name, value in given.items() if value is not None}
    for name, value in asked.items():
        if stated.get(name, value) != value:
            arch = name == "arch"
            shown, python = ("backbone", "(arch= in Python) ") if arch else (name, "")
            remedy = f"give weights of {value}, or leave" if arch else "leave"
            raise WeightsError(
                f"{label}: {shown}={stated[name]} by the file, {shown}={value} asked for; {remedy} {shown}= {python}out"
            )
    return asked


def _of_file(found: Found) -> dict[str, str]:
    """Say where in the file the tensors were, what the file is of beside, and what was left aside."""
    return {"found": found.where, "kind": found.kind, "left aside": ", ".join(found.aside)}


def load(
    weights: Weights,
    trunk: Staged | TimmTrunk | UpscalingTrunk,
    classifier: nn.Linear | None = None,
    *,
    adapt_input: bool = False,
) -> LoadReport:
    """Copy the weights into the trunk, all or nothing, and into `classifier` where its shape agrees.

    The classifier is the one exception to strictness: of another size it keeps its own values, and the report says so.
    The caller compares the class names. `adapt_input` fits the first convolution to another number of input channels:
    the sum over the file's channels for one, else its channels in turn, scaled to keep the sum (the rule that timm
    follows). Counters of batches that old files lack are set to 0. An inflated trunk takes the weights of its 2-D network
    as well, inflated as it is itself.

    Raises WeightsError with every tensor that is missing, unexpected or of another shape, and for integers where the
    network has floating numbers.
    """
    own, given = trunk.state_dict(), dict(weights.tensors)
    head = {name: given.pop(name) for name in CLASSIFIER if name in given}
    notes: list[str] = []
    if "fc.weight" in head and "fc.bias" not in head:  # a layer without a bias is one whose bias is 0
        head["fc.bias"] = torch.zeros(len(head["fc.weight"]))
        notes.append("the file has no fc.bias: zeros")
    if isinstance(trunk, TimmTrunk):
        given = trunk.own_names(given)
    if adapt_input and "conv1.weight" in given and given["conv1.weight"].shape != own["conv1.weight"].shape:
        channels = own["conv1.weight"].shape[1]
        notes.append(f"conv1 adapted from {given['conv1.weight'].shape[1]} input channels to {channels}")
        given["conv1.weight"] = _adapt(given["conv1.weight"], channels)
    if inflate := trunk.settings.get("inflate") if isinstance(trunk, Staged) else None:
        given, said = inflate_weights(given, own, inflate)
        notes += [said] if said else []
    notes += _said_of_file(weights)
    counters = [n for n in own if n.endswith("num_batches_tracked") and n not in given]
    if counters:
        notes.append(f"{len(counters)} batch counters that the file lacks set to 0")
    report = LoadReport(len(given), len(weights.tensors), _short(weights.source))
    report.missing = [n for n in own if n not in given and n not in counters]
    report.unexpected = [f"{n} {_size(t)}" for n, t in given.items() if n not in own]
    report.mismatched = [
        f"{n} {_size(t)}, here {_size(own[n])}" for n, t in given.items() if n in own and t.shape != own[n].shape
    ]
    if report.missing or report.unexpected or report.mismatched:
        report.loaded = sum(n in own and t.shape == own[n].shape for n, t in given.items())
        raise WeightsError(_refusal(report, weights, trunk))
    classified = {} if classifier is None else {f"fc.{name}": value for name, value in classifier.state_dict().items()}
    check_floating(weights.source, {**given, **head}, {**own, **classified})
    for name, tensor in {**given, **head}.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(
                f"{weights.source}: {name} holds {bad} values that are not finite (NaN or infinite); take another file"
            )
    trunk.load_state_dict(given | {name: torch.zeros_like(own[name]) for name in counters})
    loaded, note = _load_classifier(head, classifier)
    report.loaded += min(loaded, len(weights.tensors) - len(given))
    report.note = "; ".join(filter(None, [*notes, note, _assumed_of(weights)]))
    return report


def check_floating(source: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise WeightsError naming the tensors of integers where the network's, of the same name, are floating."""
    wrong = [
        f"{name} ({str(t.dtype).removeprefix('torch.')})"
        for name, t in given.items()
        if name in own and own[name].is_floating_point() and not t.is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise WeightsError(
            f"{source}: quantised or integer weights where the network has floating ones: {', '.join(wrong[:10])}{more}; "
            "without their scales they mean nothing: give the weights from before the quantisation"
        )


def described(weights: Weights) -> str:
    """Say in a line what weights are, where in their file they were, and what is assumed of them."""
    said = [f"{len(weights.tensors)} tensors of {weights.arch}", *_said_of_file(weights), _assumed_of(weights)]
    return "; ".join(filter(None, said))


def _assumed_of(weights: Weights) -> str:
    assumed = "; ".join(weights.info.get("assumed", {}).values())
    return assumed and f"assumed: {assumed}"


def _said_of_file(weights: Weights) -> list[str]:
    """Say of a file what a person should know who gave it: where the trunk was in it, and what of it is not used."""
    info, notes = weights.info, []
    if "found" in info:
        notes.append(info["found"])
    if "kind" in info:
        notes.append(f"only the trunk of {info['kind']}")
    if "left aside" in info:
        notes.append(f"left aside in the file: {info['left aside']}"[:200])
    return notes


def infer_arch(tensors: Mapping[str, Tensor], source: str, kind: str = "") -> str:
    """Find the architecture of these tensors from names and shapes.

    Raises WeightsError where the table has none; `kind` is what the file holds, as far as it is known.
    """
    found = nearest_arch(tensors)
    if found is not None and (found in SUPER_RESOLUTION or found in CLIPS or "conv1.weight" in tensors):
        return found
    if kind:
        raise WeightsError(f"{source}: is {kind}, and its trunk is none of those here ({', '.join(architectures())})")
    raise WeightsError(
        f"{source}: no architecture can be read from its {len(tensors)} tensors ({', '.join(list(tensors)[:4])}, ...); "
        f"say backbone= (arch= in Python), one of {', '.join(architectures())}"
    )


def _is_path(source: "str | Path", path: Path) -> bool:
    if isinstance(source, Path):
        return True
    if "://" in source:
        return False
    # a folder called resnet50 must not hide the name
    return path.is_file() or (path.suffix in SUFFIXES and not source.startswith("hf-hub:"))


def _check_stated(stated: dict[str, Any], label: str) -> None:
    if not is_known(stated["arch"]):
        raise WeightsError(f"{label}: architecture {stated['arch']!r} is none of {', '.join(architectures())}")
    if stated.get("stride_in", "3x3") not in STRIDE_IN:
        raise WeightsError(f"stride_in={stated['stride_in']}: expected one of {', '.join(STRIDE_IN)}")


def _check_eps(info: dict[str, Any], label: str) -> None:
    text = info.get("bn_eps", str(_EPS))
    try:
        eps = float(text)
    except ValueError:
        eps = None
    if eps != _EPS:
        raise WeightsError(f"{label}: bn_eps={text} in its header; the norms here have {_EPS}")


def _load_classifier(head: dict[str, Tensor], classifier: nn.Linear | None) -> tuple[int, str]:
    if not head:
        return 0, "no classifier in the file" if classifier is not None else ""
    size = len(next(iter(head.values())))
    if classifier is None:
        return 0, f"the classifier of {size} classes left out"
    own = {f"fc.{name}": value for name, value in classifier.state_dict().items()}
    if {n: t.shape for n, t in head.items()} != {n: t.shape for n, t in own.items()}:
        return 0, f"the classifier replaced: {size} classes in the file, {classifier.out_features} here"
    classifier.load_state_dict({name.removeprefix("fc."): value for name, value in head.items()})
    return len(head), ""


def _adapt(weight: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = torch.arange(channels, device=weight.device) % weight.shape[1]
    return weight[:, turns] * (weight.shape[1] / channels)


def _refusal(report: LoadReport, weights: Weights, trunk: Staged | TimmTrunk | UpscalingTrunk) -> str:
    hints = []
    looks = nearest_arch(weights.tensors)
    if looks is not None and looks != trunk.arch:
        hints.append(f"these look like {looks} weights, the network is {trunk.arch}")
    elif any(text.startswith("conv1.weight") for text in report.mismatched):
        hints.append(
            "the first convolution has another number of input channels; adapt_input=True of trunkline.backbone(…) adapts it"
        )
    if getattr(trunk, "norm", "") == "group" and any("running_mean" in text for text in report.unexpected):
        hints.append("norm=group has no running statistics; these weights need norm=batch, frozen or sync")
    return "\n".join([f"{weights.source} does not fit: {report}", *(f"  {hint}" for hint in hints)])


def _short(source: str) -> str:
    return source if "://" in source or Path(source).suffix not in SUFFIXES else Path(source).name


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
