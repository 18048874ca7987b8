"""The maps of fifty networks of timm: those that timm gives itself, by name, on square and on oblong pictures."""

from zlib import crc32

import pytest
import timm
import torch
from timm_families import CHANNELS_LAST, EIGHT, FIFTY, ONE_SIZE, OPTIONS, OWN_SIZE, TRANSFORMERS, facts
from torch.overrides import TorchFunctionMode

from trunkline.backbones import backbone, timm_trunk
from trunkline.backbones.timm_facts import facts_of

POOL = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))
RANDOM = {"normal_", "uniform_", "trunc_normal_", "erfinv_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"}


class Bare(TorchFunctionMode):
    """Leave new weights as memory happens to be: drawing them takes most of the time that a network takes."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def test_there_are_fifty_of_as_many_modules():
    modules = {name: timm.models.model_entrypoint(name).__module__ for name in FIFTY}
    assert len(FIFTY) == len(set(modules.values())) == 50
    assert len(TRANSFORMERS & set(FIFTY)) >= 12


@pytest.mark.parametrize("name", FIFTY)
def test_maps_are_timms(name, monkeypatch):
    monkeypatch.setattr(timm_trunk, "facts_of", lambda name, _: facts(name.removeprefix("timm:")))  # found below
    with Bare():
        trunk = backbone(f"timm:{name}")
        theirs = [timm.create_model(name, features_only=True)]
        theirs += [timm.create_model(name, features_only=True, **OPTIONS[name])] if name in OPTIONS else []
    state = {key: filled(key, value) for key, value in trunk.net.state_dict().items()}
    for net in (trunk.net, *theirs):
        net.load_state_dict(state)
    for size, net in zip(sizes(name), (theirs[0], theirs[-1]), strict=False):
        compare(name, trunk.eval(), net.eval(), size)


@pytest.mark.parametrize("name", [*EIGHT, "dla46x_c", "levit_128s"])
def test_what_is_found_of_a_network(name):
    assert facts_of(f"timm:{name}") == facts(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIFTY)
def test_what_is_found_of_every_network(name):
    assert facts_of(f"timm:{name}") == facts(name)


def compare(name, trunk, net, size):
    images = POOL[: 3 * size[0] * size[1]].view(1, 3, *size)
    with torch.inference_mode():
        found, expected = trunk(images), net(images)
    if name in CHANNELS_LAST:
        expected = [x.permute(0, 3, 1, 2) for x in expected]
    by_stride = dict(zip(net.feature_info.reduction(), expected, strict=True))  # of several with one stride the last
    assert {f"c{stride.bit_length() - 1}" for stride in by_stride} == found.keys() == trunk.channels.keys()
    for stride, x in by_stride.items():
        key = f"c{stride.bit_length() - 1}"
        assert trunk.strides[key] == stride and trunk.channels[key] == x.shape[1]
        assert torch.equal(found[key], x) and found[key].std() > 0, key


def sizes(name):
    if name in ONE_SIZE:
        return [(OWN_SIZE[name],) * 2]
    if name in OWN_SIZE:
        return [(OWN_SIZE[name],) * 2, (64, 96)]
    return [(96, 96), (96, 128)] if name == "inception_v3" else [(64, 64), (64, 96)]


def filled(key, value):
    """Weights that keep the maps finite, norms near the identity, and variances above zero."""
    if not value.is_floating_point():
        return value
    start, size = crc32(key.encode()) % 65521, value.numel()  # else equal shapes would have equal weights
    drawn = (POOL if start + size <= len(POOL) else POOL.repeat(-(-(start + size) // len(POOL))))[start : start + size]
    drawn = drawn.view(value.shape)
    if value.dim() > 1:
        return drawn / (value.numel() / len(value)) ** 0.5
    return 1 + 0.1 * drawn.clamp(-3, 3) if key.endswith(("weight", "var")) else 0.1 * drawn
