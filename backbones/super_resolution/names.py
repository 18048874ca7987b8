"""Networks of super-resolution in files: known by the names and shapes of their tensors. Imports no torch.

The names are BasicSR's (https://github.com/XPixelGroup/BasicSR, basicsr/archs/{srresnet,edsr,rrdbnet}_arch.py), flat: trunk
and tail side by side. Of ESRGAN there are two older families of names, which are renamed to these.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GROWTH = 32
"""Channels that each convolution of a dense block adds (Wang et al. 2018): the same in every published file."""
ESRGAN_PLUS = "conv1x1"
"""A layer that only ESRGAN+ has in its dense blocks."""

_TRUNK = re.compile(r"(conv_first|prelu|body|conv_body|bn_body|conv_after_body)\.")
_FIRST_RELEASE = (
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"trunk_conv\."), "conv_body."),
    (re.compile(r"upconv([1-4])\."), r"conv_up\1."),
    (re.compile(r"HRconv\."), "conv_hr."),
)
_OLD_DENSE = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.")
_OLD = re.compile(r"model\.(\d+)\.")


@dataclass(frozen=True)
class Known:
    """A network as its tensors show it: settings of the trunk, and the scale of the whole.

    `scale` is 0 where there is no tail; `problem` says what of the network is not read here.
    """

    arch: str
    blocks: int
    width: int
    unshuffle: int
    scale: int
    problem: str = ""

    def info(self) -> dict[str, str]:
        """Return what goes into `Weights.info`, under the keys of our own files' headers."""
        return {f"trunkline_{name}": str(getattr(self, name)) for name in ("blocks", "width", "unshuffle", "scale")}


def arch_of(names: Iterable[str]) -> str | None:
    """Find the architecture of a trunk or a whole network from its tensors' names, which are BasicSR's; None: another one."""
    some = set(names)
    if "conv_first.weight" not in some:
        return None
    if "body.0.rdb1.conv1.weight" in some and "conv_body.weight" in some:
        return "rrdbnet"
    if not {"body.0.conv1.weight", "body.0.conv2.weight"} <= some:
        return None
    if "bn_body.weight" in some and "body.0.bn1.weight" in some:
        return "srresnet"
    if "conv_after_body.weight" in some:
        return "edsr"
    plain = not any(name.startswith(("conv_body.", "prelu.", "upsample.")) for name in some)
    return "msrresnet" if plain else None


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Map BasicSR's names to the names in a file, which may be those of either older family of ESRGAN."""
    own = list(names)
    if any(_OLD_DENSE.match(name) for name in own):
        return _from_old(own)
    if any(name.startswith("RRDB_trunk.") for name in own):
        return {_replaced(name): name for name in own}
    return {name: name for name in own}


def is_trunk(name: str) -> bool:
    """Say whether a tensor is of the trunk; the others are of the tail, which the head holds."""
    return _TRUNK.match(name) is not None


def is_esrgan_plus(names: Iterable[str]) -> bool:
    """Say whether these are names of ESRGAN+ (Rakotonirina and Rasoanaivo 2020)."""
    return any(re.search(rf"(RDB|rdb)[123]\.{ESRGAN_PLUS}\.", name) for name in names)


def known(shapes: Mapping[str, tuple[int, ...]]) -> Known | None:
    """Read the settings of a network from the shapes of its tensors, under BasicSR's names; None: none of these."""
    arch = arch_of(shapes)
    first = shapes.get("conv_first.weight", ())
    if arch is None or len(first) != 4:
        return None
    width, inputs = first[:2]
    blocks = 1 + max(int(n.split(".")[1]) for n in shapes if re.match(r"body\.\d+\.", n))
    unshuffle = {3: 1, 12: 2, 48: 4}.get(inputs, 0)
    factor = _factor(arch, shapes, width)
    if problem := _problem(arch, shapes, inputs, unshuffle, factor):
        return Known(arch, blocks, width, unshuffle, 0, problem)
    return Known(arch, blocks, width, unshuffle, factor // unshuffle if "conv_last.weight" in shapes else 0)


def _problem(arch: str, shapes: Mapping[str, tuple[int, ...]], inputs: int, unshuffle: int, factor: int) -> str:
    """Say what of a network is not read here; "" where all is."""
    growth = shapes.get("body.0.rdb1.conv1.weight", (GROWTH,))[0]
    outputs = shapes.get("conv_last.weight", (3,))[0]
    if not unshuffle or outputs != 3:
        return (
            f"takes {inputs} channels and gives {outputs}; those here take RGB (3, or 12 or 48 unshuffled) and give RGB"
        )
    if growth != GROWTH:
        return f"its dense blocks grow by {growth} channels; those here by {GROWTH}"
    if "conv_last.weight" in shapes and (not factor or factor % unshuffle):
        return "its tail enlarges by no whole number that is known here" + (
            f" ({factor}, behind a pixel-unshuffle of {unshuffle})" if factor else ""
        )
    return ""


def _factor(arch: str, shapes: Mapping[str, tuple[int, ...]], width: int) -> int:
    """Find by how much a tail enlarges; 0 where its tensors do not say, a tail that is not there among them."""
    if arch == "rrdbnet":
        return 2 ** sum(re.fullmatch(r"conv_up\d\.weight", name) is not None for name in shapes)
    pattern = r"upconv\d\.weight" if arch == "msrresnet" else r"upsample\.\d+\.weight"
    ups = [shape[0] for n, shape in shapes.items() if re.fullmatch(pattern, n) and len(shape) == 4]
    each = [math.isqrt(count // width) for count in ups]
    return math.prod(each) if ups and all(width * f * f == count for f, count in zip(each, ups, strict=True)) else 0


def _replaced(name: str) -> str:
    for pattern, by in _FIRST_RELEASE:
        if pattern.match(name):
            return pattern.sub(by, name, count=1)
    return name


def _from_old(own: list[str]) -> dict[str, str]:
    """Rename the oldest family: a Sequential of a convolution, the trunk in a shortcut, then upsampling, and two convolutions.

    Position 2 is the first enlargement, 3 its convolution, 4 its activation, and so on in threes.
    """
    last = max((int(found[1]) for name in own if (found := _OLD.match(name))), default=0)
    blocks = [int(found[1]) for name in own if (found := _OLD_DENSE.match(name))]
    body = f"model.1.sub.{1 + max(blocks)}."
    starts = {
        "model.0.": "conv_first.",
        body: "conv_body.",
        f"model.{last - 2}.": "conv_hr.",
        f"model.{last}.": "conv_last.",
    }
    starts |= {f"model.{3 * i}.": f"conv_up{i}." for i in range(1, (last - 4) // 3 + 1)}
    result = {}
    for name in own:
        start = next((start for start in starts if name.startswith(start)), None)
        plain = starts[start] + name.removeprefix(start) if start else name
        result[_OLD_DENSE.sub(r"body.\1.rdb\2.conv\3.", plain, count=1)] = name
    return result
