"""From a name, or a file of weights, to a trunk: one call."""

import inspect
from collections import OrderedDict
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trunkline.ground.errors import WeightsError
from trunkline.ground.names import load_named

from .contract import STATED, Preprocessing
from .norm import norm_layer
from .residual import BasicBlock, Bottleneck, Norm, ResNet, conv, initialise
from .settings import agreed, settings_in, usual_preprocessing
from .super_resolution.trunk import UpscalingTrunk
from .table import (
    ARCHITECTURES,
    CLIPS,
    INFLATE,
    NORMS,
    OUTPUT_STRIDES,
    SPANDREL,
    STRIDE_IN,
    SUPER_RESOLUTION,
    TIMM,
    architectures,
    flat_of,
    named,
    others,
    settings_problem,
)
from .timm_trunk import TimmTrunk
from .video.build import clip_trunk
from .video.inflated import inflated
from .weights import NO_TRAINING, Weights, load, read_weights


def backbone(
    name: str | None = None,
    weights: "str | Path | Weights | None" = None,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    stride_in: str | None = None,
    norm: str = "batch",
    frozen: int = 0,
    checkpointing: bool = False,
    zero_init: bool = True,
    adapt_input: bool = False,
    weights_key: str = "",
    blocks: int | None = None,
    width: int | None = None,
    unshuffle: int = 1,
    residual_scale: float | None = None,
    inflate: str | None = None,
) -> Any:
    """Build a trunk by name, by its weights, or both.

    `weights` is a file, a name that `read_weights` knows, `Weights`, or None or "none" for random ones. Architecture
    and `stride_in` come from the weights unless given; a value that contradicts them is an error. `weights_key` chooses
    among the networks of a file, as `key` of `read_weights`. The trunk then carries `preprocessing`, `classes` and
    `report` (what was loaded). The rest is as in `resnet`; `adapt_input` as in `load`. `timm:NAME` (or `timm/NAME`) is any
    network of timm that gives feature maps. It takes the norms batch and frozen, refuses `checkpointing`, `stride_in` and
    `adapt_input`, and initialises itself: `zero_init` is not read. `blocks`, `width`, `unshuffle` and `residual_scale` are
    those of `UpscalingTrunk`, for the trunks of super-resolution alone; what the weights state of them holds, and another
    value is an error. Trunks for clips (`CLIPS`) read RGB and have one output stride; `inflate` is that of `inflated`, for
    those that are inflated, which take their 2-D network's weights too. Raises WeightsError.
    """
    name = name and named(name)
    found = _found(name, weights, stride_in, weights_key)
    wanted = name or named(found.arch if found else "")  # of weights to inflate, `arch` is that of the 2-D network
    settings = {"blocks": blocks, "width": width, "unshuffle": unshuffle, "residual_scale": residual_scale}
    if said := settings_problem(wanted, {**settings, "inflate": inflate}):
        raise WeightsError(said)
    if wanted in SUPER_RESOLUTION or wanted in CLIPS:
        _refuse_others(wanted, adapt_input, in_channels=in_channels, output_stride=output_stride, stride_in=stride_in)
        rest = (norm, checkpointing, zero_init)
        if wanted in CLIPS:
            return _of_clips(wanted, found, stride_in, inflate, *rest).freeze(frozen)
        return _of_super_resolution(wanted, found, settings, *rest).freeze(frozen)
    if wanted.startswith(TIMM):
        other = {"stride_in": None if stride_in == "3x3" else stride_in}
        _refuse(wanted, "networks of timm lack it", checkpointing=checkpointing, adapt_input=adapt_input, **other)
        return _of_timm(wanted, found, in_channels, output_stride, norm, frozen)
    if wanted in others():
        return _of_others(wanted, found, in_channels, output_stride, norm, checkpointing, zero_init).freeze(frozen)
    stride_in = (found.stride_in if found else stride_in) or "3x3"
    trunk = resnet(
        wanted, in_channels=in_channels, output_stride=output_stride, stride_in=stride_in, norm=norm, frozen=frozen,
        checkpointing=checkpointing, zero_init=zero_init,
    )  # fmt: skip
    if found:
        trunk.report = load(found, trunk, adapt_input=adapt_input)
        trunk.preprocessing, trunk.classes = for_channels(found.preprocessing, in_channels), found.classes
    else:
        trunk.preprocessing = for_channels(Preprocessing(), in_channels)
    return trunk


def _found(name: str | None, weights: "str | Path | Weights | None", stride_in: str | None, key: str) -> Weights | None:
    """Read the weights that were given, if any, and compare what they say with what was asked for."""
    if name and name.startswith(SPANDREL):
        raise WeightsError(f"backbone={name}: {NO_TRAINING}")
    if weights is None or weights == "none":
        if name is None:
            raise WeightsError(f"backbone: give a name ({', '.join(architectures())}) or weights")
        return None
    if isinstance(weights, Weights):
        return _agree(weights, name, stride_in)
    if name is not None:
        _row(name)  # a wrong name is refused before anything is read or downloaded
    return read_weights(weights, arch=name, stride_in=stride_in, key=key)


def _refuse(name: str, why: str, **settings: Any) -> None:
    """Raise WeightsError for settings that were given, and that the network would not read."""
    if given := [f"{key}={value}" for key, value in settings.items() if value]:
        raise WeightsError(f"{name}: {', '.join(given)}: {why}; leave it out")


def _refuse_others(name: str, adapt_input: bool, **given: Any) -> None:
    """Refuse what trunks of super-resolution and of clips have not; those that are inflated have a `stride_in`."""
    usual = {"in_channels": (3,), "output_stride": (32,), "stride_in": (None, "3x3", "1x1" if flat_of(name) else None)}
    other = {key: value for key, value in given.items() if value not in usual[key]}
    why = "this trunk has stride 1, and reads RGB" if name in SUPER_RESOLUTION else "this trunk is for clips of RGB"
    _refuse(name, why, adapt_input=adapt_input, **other)


def _of_timm(
    name: str, weights: Weights | None, in_channels: int, output_stride: int, norm: str, frozen: int
) -> TimmTrunk:
    trunk = TimmTrunk(name, in_channels, output_stride, norm)
    if weights:
        trunk.report = load(weights, trunk)
        trunk.preprocessing, trunk.classes = weights.preprocessing, weights.classes
    trunk.preprocessing = for_channels(trunk.preprocessing, in_channels)
    return trunk.freeze(frozen)


def _of_super_resolution(
    name: str, weights: Weights | None, settings: dict[str, Any], norm: str, checkpointing: bool, zero_init: bool
) -> UpscalingTrunk:
    if weights:
        settings = agreed(settings, settings_in(weights.info, weights.source), weights.source)
    options = {"norm": norm, "checkpointing": checkpointing, "zero_init": zero_init}
    trunk = UpscalingTrunk(name, **settings, **options)
    if weights:
        trunk.report = load(weights, trunk)
        trunk.preprocessing, trunk.classes = weights.preprocessing, weights.classes
    return trunk


def _of_clips(
    name: str,
    weights: Weights | None,
    stride_in: str | None,
    inflate: str | None,
    norm: str,
    checkpointing: bool,
    zero_init: bool,
) -> Any:
    """Build a trunk for clips, of a 2-D one where it is inflated, and load its weights."""
    if flat := flat_of(name):
        settings: dict[str, Any] = {"inflate": inflate}
        if weights:
            settings = agreed(settings, settings_in(weights.info, weights.source), weights.source)
        stride_in = (weights.stride_in if weights else stride_in) or "3x3"
        with torch.device("meta"):  # its geometry alone is used
            made = resnet(flat, stride_in=stride_in)
        trunk = inflated(made, settings.get("inflate") or INFLATE[0], norm_layer(norm, clips=True))
    else:
        trunk = clip_trunk(name, norm)
    trunk.arch, trunk.norm, trunk.checkpointing = name, norm, checkpointing
    initialise(trunk, zero_init)
    trunk.preprocessing = usual_preprocessing(name)
    if weights:
        trunk.report = load(weights, trunk)
        trunk.preprocessing, trunk.classes = weights.preprocessing, weights.classes
    return trunk


def _of_others(
    name: str,
    weights: Weights | None,
    in_channels: int,
    output_stride: int,
    norm: str,
    checkpointing: bool,
    zero_init: bool,
) -> Any:
    """Build a plug-in's backbone, load its weights, and set the attributes that others read of it."""
    make = load_named(others()[name])
    given = {"in_channels": in_channels, "output_stride": output_stride, "norm": norm, "checkpointing": checkpointing,
             "zero_init": zero_init}  # fmt: skip
    takes = inspect.signature(make).parameters
    if "checkpointing" not in takes:
        _refuse(name, "this backbone does not take it", checkpointing=checkpointing)
    trunk = make(**{key: value for key, value in given.items() if key in takes})
    if lacking := [a for a in STATED if not hasattr(trunk, a)]:
        raise WeightsError(f"the backbone {name} lacks {', '.join(lacking)} (backbones/contract.py says what they are)")
    trunk.arch, trunk.report, trunk.classes = name, load(weights, trunk) if weights else None, None
    if weights:
        trunk.preprocessing, trunk.classes = weights.preprocessing, weights.classes
    return trunk


def resnet(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    stride_in: str = "3x3",
    norm: str = "batch",
    frozen: int = 0,
    checkpointing: bool = False,
    zero_init: bool = True,
) -> ResNet:
    """Build a trunk with random weights (He et al. 2015, fan-out).

    `output_stride` (32, 16, 8) is the stride of `c5`: beyond it, strides become dilations, such that the dilated
    network's maps hold the strided one's at every 2nd or 4th place. `stride_in` says where a bottleneck strides: "3x3"
    (torchvision) or "1x1" (the original). `norm` is a policy of `norm_layer`; `frozen` counts frozen stages (0..5);
    `checkpointing` recomputes each block in the backward pass to save memory. `zero_init` starts each block's last norm
    at zero (Goyal et al. 2017, section 5.1), except where norms are frozen: such a branch would stay dead.

    Raises WeightsError for an unknown value.
    """
    row = _row(name)
    _check(name, in_channels, output_stride, stride_in, norm, frozen)
    layer = norm_layer(norm)
    stem = nn.Sequential(OrderedDict(conv1=conv(in_channels, 64, 7, 2), bn1=layer(64), relu=nn.ReLU(inplace=True)))
    trunk = ResNet(stem, _stages(row, layer, output_stride, stride_in), nn.MaxPool2d(3, 2, 1))
    trunk.arch, trunk.stride_in, trunk.norm, trunk.checkpointing = name, stride_in, norm, checkpointing
    initialise(trunk, zero_init)
    return trunk.freeze(frozen)


def for_channels(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Fit mean and std to another number of channels: their mean for one channel, else repeated in turn."""
    mean, std = preprocessing.mean, preprocessing.std
    if channels == len(mean):
        return preprocessing
    if channels == 1:
        return replace(preprocessing, mean=(sum(mean) / len(mean),), std=(sum(std) / len(std),))
    turns = [i % len(mean) for i in range(channels)]
    return replace(preprocessing, mean=tuple(mean[i] for i in turns), std=tuple(std[i] for i in turns))


def _stages(row: dict, layer: Norm, output_stride: int, stride_in: str) -> list[nn.Sequential]:
    block = BasicBlock
    if row["block"] == "bottleneck":
        options = {"groups": row["groups"], "width_per_group": row["width_per_group"], "stride_in": stride_in}
        block = partial(Bottleneck, **options)
    stages, channels, net_stride, dilation = [], 64, 4, 1
    for number, count in enumerate(row["layers"]):
        planes, stride, before = 64 * 2**number, 1 if number == 0 else 2, dilation
        if net_stride * stride > output_stride:
            dilation, stride = dilation * stride, 1
        net_stride *= stride
        first = block(channels, planes, layer, stride=stride, dilations=(before, dilation))
        channels = first.out_channels
        rest = [block(channels, planes, layer, dilations=(dilation, dilation)) for _ in range(count - 1)]
        stages.append(nn.Sequential(first, *rest))
    return stages


def _row(name: str) -> dict:
    if name.startswith(TIMM) or name in others() or name in SUPER_RESOLUTION or name in CLIPS:
        return {}
    if name not in ARCHITECTURES:
        near = get_close_matches(name, architectures(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WeightsError(f"no architecture {name!r}; {hint}There are: {', '.join(architectures())}")
    return ARCHITECTURES[name]


def _check(name: str, in_channels: int, output_stride: int, stride_in: str, norm: str, frozen: int) -> None:
    problems = []
    if not isinstance(in_channels, int) or in_channels < 1:
        problems.append(f"in_channels={in_channels}: expected a whole number of at least 1")
    if output_stride not in OUTPUT_STRIDES:
        problems.append(f"output_stride={output_stride}: expected one of {', '.join(map(str, OUTPUT_STRIDES))}")
    if stride_in not in STRIDE_IN:
        problems.append(f"stride_in={stride_in}: expected one of {', '.join(STRIDE_IN)}")
    elif stride_in == "1x1" and ARCHITECTURES[name]["block"] == "basic":
        problems.append(f"stride_in=1x1: {name} has basic blocks, which have no 1x1 convolution to stride in")
    if norm not in NORMS:
        problems.append(f"norm={norm}: expected one of {', '.join(NORMS)}")
    if frozen not in range(6):
        problems.append(f"frozen={frozen}: expected 0 (nothing), 1 (the stem), ... 5 (all)")
    if problems:
        raise WeightsError("; ".join(problems))


def _agree(weights: Weights, arch: str | None, stride_in: str | None) -> Weights:
    if arch not in (None, weights.arch) and flat_of(arch) != weights.arch:
        raise WeightsError(f"{weights.source}: weights of {weights.arch}, where {arch} was asked for")
    if stride_in in (None, weights.stride_in):
        return weights
    if "stride_in" in weights.info.get("assumed", {}):
        assumed = {key: said for key, said in weights.info["assumed"].items() if key != "stride_in"}
        return replace(weights, stride_in=stride_in, info={**weights.info, "assumed": assumed})
    raise WeightsError(f"{weights.source}: stride_in={weights.stride_in}, where {stride_in} was asked for")
