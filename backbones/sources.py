"""Names of published weights: what torchvision's and timm's own metadata say of them. Imports either when asked."""

import math
import re
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from trunkline.ground.errors import WeightsError

from .contract import Preprocessing, WeightsSource
from .download import fetch
from .metadata import INTERPOLATIONS
from .table import ARCHITECTURES, PUBLISHED_CLIPS

_TORCHVISION = (*ARCHITECTURES, *PUBLISHED_CLIPS)


def find(name: str) -> WeightsSource:
    """Find the source of a name. Raises WeightsError, with the nearest names, where there is none.

    Known are torchvision's names (`resnet50`, `resnet50.IMAGENET1K_V1`, `ResNet50_Weights.DEFAULT`, `r3d_18`), timm's
    (`resnet50.a1_in1k`, `timm/resnet50.a1_in1k`), a repository of the Hugging Face hub in timm's format
    (`hf-hub:owner/name`, optionally `@revision`) and an address (`https://...`, optionally `#sha256=...`).
    """
    if "://" in name:
        return _from_address(name)
    if name.startswith("hf-hub:"):
        return _from_hub(name)
    arch, _, tag = name.removeprefix("timm/").partition(".")
    if name.startswith("timm/"):
        return _from_timm(name, arch, tag)
    if arch.endswith("_Weights"):
        return _from_enum(name, arch, tag)
    if arch in _TORCHVISION and (not tag or tag in _torchvision_tags(arch)):
        return _from_torchvision(name, arch, tag or "DEFAULT")
    return _from_timm(name, arch, tag)


def is_name(name: str) -> bool:
    """Say whether `find` knows this name."""
    try:
        find(name)
    except WeightsError:
        return False
    return True


@cache
def imagenet_classes() -> tuple[str, ...]:
    """List the 1000 names of ImageNet-1k, in the classifier's order, from torchvision's metadata."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def kinetics_classes() -> tuple[str, ...]:
    """List the 400 names of Kinetics-400, in the classifier's order, from torchvision's metadata."""
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def _from_address(name: str) -> WeightsSource:
    url, _, fragment = name.partition("#")
    digest = fragment.removeprefix("sha256=").lower()
    if fragment and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise WeightsError(f"{name}: expected #sha256= and 64 hex digits behind the address")
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and (digest or local)):
        raise WeightsError(f"{name}: expected https://..., or http:// with #sha256= and the file's hash")
    file = PurePosixPath(parts.path).name
    if not file:
        raise WeightsError(f"{name}: expected the address of a file of weights")
    # many addresses end in model.safetensors: a mark of the address keeps them apart in the cache
    return WeightsSource(name, url, f"{sha256(url.encode()).hexdigest()[:8]}--{file}", digest or _digest_in_name(file))


def _digest_in_name(file: str) -> str:
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    return found[1] if found else ""


def _from_enum(name: str, enum: str, tag: str) -> WeightsSource:
    for arch in _TORCHVISION:
        if type(_torchvision(arch)["DEFAULT"]).__name__ == enum:
            return _from_torchvision(name, arch, tag or "DEFAULT")
    raise _unknown(name)


def _from_torchvision(name: str, arch: str, tag: str) -> WeightsSource:
    if tag not in _torchvision_tags(arch):
        raise _unknown(name)
    weights = _torchvision(arch)[tag]
    published = weights.transforms()
    preprocessing = Preprocessing(
        mean=tuple(published.mean),
        std=tuple(published.std),
        size=published.crop_size[0],
        resize=published.resize_size[0],
        interpolation=published.interpolation.value,
        resize_width=published.resize_size[1] if arch in PUBLISHED_CLIPS else 0,
    )
    file = PurePosixPath(urlsplit(weights.url).path).name
    classes = tuple(weights.meta["categories"])
    return WeightsSource(name, weights.url, file, _digest_in_name(file), arch, "3x3", preprocessing, classes)


@cache
def _torchvision(arch: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    return dict(get_model_weights(arch).__members__)  # DEFAULT is among them, an alias


def _torchvision_tags(arch: str) -> tuple[str, ...]:
    return tuple(_torchvision(arch))


def _from_timm(name: str, arch: str, tag: str) -> WeightsSource:
    import timm

    if arch not in ARCHITECTURES:
        if timm.is_model(arch):
            raise WeightsError(
                f"{name}: timm's {arch} is another network than those here ({', '.join(ARCHITECTURES)}); its weights "
                "do not fit any of them"
            )
        raise _unknown(name)
    if tag and f"{arch}.{tag}" not in timm.list_pretrained(f"{arch}.*"):
        raise _unknown(name)
    config = timm.get_pretrained_cfg(f"{arch}.{tag}" if tag else arch)
    if config is None:
        raise _unknown(name)
    said = config.to_dict()
    known = (arch, "3x3", _timm_preprocessing(name, said), _timm_classes(said))
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        return WeightsSource(name, _hub_url(config.hf_hub_id, file), _hub_file(config.hf_hub_id, file), "", *known)
    url = str(config.url or "")
    file = PurePosixPath(urlsplit(url).path).name
    return WeightsSource(name, url, file, _digest_in_name(file), *known)


def _from_hub(name: str) -> WeightsSource:
    """Find the weights of a repository in timm's format: `config.json` beside `model.safetensors`."""
    import json

    repository, _, revision = name.removeprefix("hf-hub:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise WeightsError(f"{name}: expected hf-hub:owner/name")
    config = _hub_url(repository, "config.json", revision), _hub_file(repository, "config.json", revision)
    path = fetch(WeightsSource(name, *config))
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        arch, said = said["architecture"], {**said, **said.get("pretrained_cfg", {})}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{name}: {path} is not timm's config.json (architecture, pretrained_cfg)") from error
    if arch not in ARCHITECTURES:
        raise WeightsError(f"{name}: its architecture {arch!r} is none of {', '.join(ARCHITECTURES)}")
    file = "model.safetensors"
    url, kept = _hub_url(repository, file, revision), _hub_file(repository, file, revision)
    return WeightsSource(name, url, kept, "", arch, "3x3", _timm_preprocessing(name, said), _timm_classes(said))


def _hub_url(repository: str, file: str, revision: str = "") -> str:
    import os

    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, file, revision=revision or None, endpoint=os.environ.get("HF_ENDPOINT"))


def _hub_file(repository: str, file: str, revision: str = "") -> str:
    return "--".join(filter(None, [*repository.split("/"), revision.replace("/", "-"), file]))


def _timm_preprocessing(name: str, said: dict[str, Any]) -> Preprocessing:
    """Convert timm's evaluation transform at its training size: shorter side floor(size / crop_pct), central crop."""
    size, interpolation = said.get("input_size", (3, 224, 224))[-1], said.get("interpolation", "bicubic")
    if interpolation not in INTERPOLATIONS:
        raise WeightsError(f"{name}: interpolation={interpolation!r} is none of {', '.join(INTERPOLATIONS)}")
    resize = math.floor(size / said.get("crop_pct", 0.875))
    default = Preprocessing()
    mean, std = tuple(said.get("mean", default.mean)), tuple(said.get("std", default.std))
    return Preprocessing(mean, std, size, resize, interpolation)


def _timm_classes(said: dict[str, Any]) -> tuple[str, ...] | None:
    names = said.get("label_names")
    if isinstance(names, (list, tuple)) and names:
        return tuple(map(str, names))
    return None


def _unknown(name: str) -> WeightsError:
    import timm

    known = [str(weights) for arch in _TORCHVISION for weights in _torchvision(arch).values()]
    known += [f"{arch}.{tag}" for arch in _TORCHVISION for tag in _torchvision_tags(arch)]
    known += [tagged for arch in ARCHITECTURES for tagged in timm.list_pretrained(f"{arch}.*")] + list(_TORCHVISION)
    near = get_close_matches(name.removeprefix("timm/"), dict.fromkeys(known), 3, 0.5)
    hint = f"nearest: {', '.join(near)}. " if near else ""
    return WeightsError(
        f"{name}: neither a file here nor a name of torchvision's or timm's weights for these networks. {hint}Give a "
        "file of safetensors or of torch.save, a name such as resnet50.IMAGENET1K_V2 or resnet50.a1_in1k, hf-hub:owner/name, "
        "or https://..."
    )
