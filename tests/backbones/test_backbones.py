"""Trunks against torchvision's and timm's own networks, with the same numbers in both."""

from collections import OrderedDict
from copy import deepcopy

import pytest
import timm
import torch
import torchvision
from torch import nn

from trunkline.backbones import ARCHITECTURES, BasicBlock, Bottleneck, ResNet, backbone, resnet
from trunkline.backbones.contract import Backbone
from trunkline.backbones.norm import FrozenBatchNorm2d
from trunkline.backbones.weights import Weights, load
from trunkline.ground.errors import WeightsError

# With a classifier of 1000 classes; the publishers' own figures.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomise(net: nn.Module) -> nn.Module:
    """Every number random, in a range that keeps a deep network's maps near one."""
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(3)
        elif value.dim() > 1:
            bound = (6 / value[0].numel()) ** 0.5
            value.uniform_(-bound, bound)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("weight"):
            value.uniform_(0.2, 0.6)
        else:
            value.uniform_(-0.1, 0.1)
    return net


def empty(build, *args, **kwargs) -> nn.Module:
    """Built without the cost of initialising it."""
    with torch.device("meta"):
        net = build(*args, **kwargs)
    return net.to_empty(device="cpu")


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the output's scale."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def stages(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """A torchvision network's maps under our names."""
    x = net.relu(net.bn1(net.conv1(images)))
    maps = {"c1": x}
    x = net.maxpool(x)
    for i in (1, 2, 3, 4):
        x = maps[f"c{i + 1}"] = getattr(net, f"layer{i}")(x)
    return maps


def twin(trunk: nn.Module, theirs: nn.Module) -> None:
    """Put the trunk's numbers into another library's network; only its classifier may be without."""
    left = theirs.load_state_dict(trunk.state_dict(), strict=False)
    assert not left.unexpected_keys and set(left.missing_keys) <= {"fc.weight", "fc.bias"}


def settings(net: nn.Module) -> dict[str, tuple]:
    """What a network's layers are, by their names, without their numbers."""
    said = {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            said[name] = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        elif isinstance(layer, nn.BatchNorm2d):
            said[name] = (layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    return said


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_has_torchvisions_layers(arch, monkeypatch):
    with torch.device("meta"):
        theirs, ours = getattr(torchvision.models, arch)(), resnet(arch)
        fc = nn.Linear(theirs.fc.in_features, 1000)
        images = torch.empty(2, 3, 64, 64)
    parameters = sum(p.numel() for p in [*ours.parameters(), *fc.parameters()])
    assert parameters == PARAMETERS[arch] == sum(p.numel() for p in theirs.parameters())
    tensors = {**ours.state_dict(), "fc.weight": fc.weight, "fc.bias": fc.bias}
    assert {n: v.shape for n, v in tensors.items()} == {n: v.shape for n, v in theirs.state_dict().items()}
    assert settings(ours) == settings(theirs)
    monkeypatch.setattr(
        "torch.nn.functional.batch_norm", lambda x, *_: x
    )  # slow without numbers, and no shape's business
    maps, expected = ours(images), stages(theirs, images)
    assert maps.keys() == expected.keys()
    for name, value in expected.items():
        assert maps[name].shape == value.shape
        assert maps[name].shape[1] == ours.channels[name] and 64 // maps[name].shape[2] == ours.strides[name]


def compare(arch: str, depth: int | None = None) -> None:
    """Compare with torchvision's network, whole or with at most `depth` blocks a stage in both."""
    theirs, ours = empty(getattr(torchvision.models, arch)), empty(resnet, arch)
    for net in (theirs, ours):
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            del layer[depth or len(layer) :]
    randomise(theirs)
    fc = empty(nn.Linear, theirs.fc.in_features, 1000)
    tensors = theirs.state_dict()
    report = load(Weights(tensors, arch), ours, fc)
    assert report.loaded == report.total == len(tensors)
    images = torch.randn(2, 3, 64, 64)
    for training in (False, True):
        ours.train(training), theirs.train(training)
        with torch.no_grad():
            maps, expected, logits = ours(images), stages(theirs, images), None
            logits = fc(maps["c5"].mean((2, 3)))
            expected_logits = theirs.fc(theirs.avgpool(expected["c5"]).flatten(1))
        assert expected_logits.std() > 1e-3 and expected["c5"].std() > 1e-3  # otherwise the comparison says nothing
        assert apart(logits, expected_logits) < 1e-5
        for name, value in expected.items():
            assert apart(maps[name], value) < 1e-5, name
            assert maps[name].shape[1] == ours.channels[name] and 64 // maps[name].shape[2] == ours.strides[name]
    for name, value in ours.state_dict().items():  # the statistics moved alike
        assert torch.allclose(value, tensors[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ("arch", "depth"), [("resnet18", None), ("resnet50", None), ("resnext50_32x4d", 1), ("wide_resnet50_2", 1)]
)
def test_every_kind_of_block_computes_what_torchvisions_does(arch, depth):
    """The others are more of the same blocks, or wider ones."""
    compare(arch, depth)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_torchvisions(arch):
    compare(arch)


@pytest.mark.parametrize("output_stride, replace", [(16, [False, False, True]), (8, [False, True, True])])
def test_dilated_bottlenecks_are_torchvisions(output_stride, replace):
    ours = randomise(empty(resnet, "resnet50", output_stride=output_stride)).eval()
    theirs = empty(torchvision.models.resnet50, replace_stride_with_dilation=replace).eval()
    twin(ours, theirs)
    images = torch.randn(1, 3, 96, 80)
    with torch.no_grad():
        maps, expected = ours(images), stages(theirs, images)
    assert ours.strides["c5"] == output_stride and maps["c5"].shape[2] == 96 // output_stride
    assert all(apart(maps[name], expected[name]) < 1e-5 for name in expected)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("arch", ["resnet18", "resnext50_32x4d"])
def test_dilated_networks_are_timms(arch, output_stride):
    ours = randomise(empty(resnet, arch, output_stride=output_stride)).eval()
    theirs = empty(timm.create_model, arch, output_stride=output_stride).eval()
    twin(ours, theirs)
    images = torch.randn(1, 3, 96, 80)
    with torch.no_grad():
        assert apart(ours(images)["c5"], theirs.forward_features(images)) < 1e-5


@pytest.mark.parametrize("arch, stride_in", [("resnet18", "3x3"), ("resnet50", "3x3"), ("resnet50", "1x1")])
def test_strided_and_dilated_agree_on_the_sampled_grid(arch, stride_in):
    strided = randomise(empty(resnet, arch, stride_in=stride_in)).eval()
    images = torch.randn(1, 3, 96, 67)  # sides that are no multiple of 32, where borders would show
    with torch.no_grad():
        coarse = strided(images)
    for output_stride in (16, 8):
        dilated = empty(resnet, arch, stride_in=stride_in, output_stride=output_stride).eval()
        dilated.load_state_dict(strided.state_dict())
        with torch.no_grad():
            fine = dilated(images)
        for name in ("c4", "c5"):
            step = strided.strides[name] // dilated.strides[name]
            assert apart(fine[name][:, :, ::step, ::step], coarse[name]) < 1e-4, (output_stride, name)


def test_the_original_stride_is_in_the_first_1x1():
    ours = randomise(empty(resnet, "resnet50", stride_in="1x1")).eval()
    theirs = empty(torchvision.models.resnet50).eval()
    twin(ours, theirs)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert apart(ours(images)["c5"], stages(theirs, images)["c5"]) > 1e-2  # the same weights, another function
        for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        assert apart(ours(images)["c5"], stages(theirs, images)["c5"]) < 1e-5


def test_initialisation_is_he_fan_out_with_zero_last_norms():
    trunk = resnet("resnet18")
    for name in ("layer1.0.conv1", "layer4.1.conv2"):
        weight = trunk.get_submodule(name).weight
        expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5  # std of He et al. 2015, eq. 14
        assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not trunk.layer3[1].bn2.weight.any() and bool((trunk.layer3[1].bn1.weight == 1).all())
    x = torch.rand(2, 64, 8, 8)
    assert torch.equal(trunk.layer1(x), x)  # a block that begins as the identity
    assert bool((resnet("resnet18", zero_init=False).layer3[1].bn2.weight == 1).all())
    assert bool((resnet("resnet18", norm="frozen").layer3[1].bn2.weight == 1).all())


def test_frozen_norms_do_not_move_and_are_eval_batch_norm():
    batch = randomise(resnet("resnet18")).eval()
    frozen = resnet("resnet18", norm="frozen").train()
    frozen.load_state_dict(batch.state_dict())
    before = {name: value.clone() for name, value in frozen.named_buffers()}
    images = torch.randn(2, 3, 64, 64)
    maps = frozen(images)
    with torch.no_grad():
        expected = batch(images)
    assert all(torch.equal(maps[name], expected[name]) for name in maps)
    maps["c5"].sum().backward()
    torch.optim.SGD(frozen.parameters(), 1.0, weight_decay=0.1).step()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert all(torch.equal(value, before[name]) for name, value in frozen.named_buffers())
    doubled = frozen.double()(images.double())["c5"]
    assert doubled.dtype == torch.float64


def test_group_norm_has_no_statistics():
    trunk = resnet("resnet18", norm="group", zero_init=False).eval()
    assert not list(trunk.buffers()) and trunk.bn1.num_groups == 32
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(trunk(images)["c5"][:1], trunk(images[:1])["c5"], atol=1e-5)


def test_sync_norm_is_refused_where_torch_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    with pytest.raises(WeightsError, match=r"norm=sync.*norm=batch"):
        resnet("resnet18", norm="sync")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trunk = resnet("resnet18", norm="sync")
    assert isinstance(trunk.bn1, nn.SyncBatchNorm)
    assert trunk.state_dict().keys() == resnet("resnet18").state_dict().keys()


@pytest.mark.parametrize("frozen", range(6))
def test_frozen_stages_stay_frozen(frozen):
    trunk = resnet("resnet18", frozen=frozen).train(False).train()
    assert trunk.frozen == frozen
    before = {name: value.clone() for name, value in trunk.named_buffers() if "running" in name}
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    held = {name for part in parts[:frozen] for name in part}
    for name, parameter in trunk.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in held), name
    trunk(torch.randn(2, 3, 64, 64))
    for name, value in trunk.named_buffers():
        if "running" in name:
            assert torch.equal(value, before[name]) == (name.split(".")[0] in held), name


def test_freezing_sets_exactly_what_it_says():
    trunk = resnet("resnet18", frozen=4)
    trunk.freeze(1)
    assert trunk.layer1[0].bn1.training and not trunk.bn1.training
    assert all(p.requires_grad for p in trunk.layer1.parameters())
    trunk.eval()
    assert not trunk.freeze(0).layer1.training  # in eval mode, thawing does not start training
    copied = deepcopy(trunk.freeze(2)).train()
    assert copied.frozen == 2 and not copied.layer1[0].bn1.training and copied.layer2[0].bn1.training
    with pytest.raises(WeightsError, match=r"frozen=6: expected 0"):
        trunk.freeze(6)


@pytest.mark.parametrize("frozen", [0, 2])
def test_checkpointing_changes_memory_and_nothing_else(frozen):
    images = torch.randn(2, 3, 64, 64)
    plain = resnet("resnet18", zero_init=False, frozen=frozen).train()
    saving = resnet("resnet18", checkpointing=True, frozen=frozen).train()
    saving.load_state_dict(plain.state_dict())
    kept = {}
    for trunk in (plain, saving):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            loss = sum(value.square().mean() for value in trunk(images).values())
        kept[trunk] = sum(sizes)
        loss.backward()
    gradients = dict(saving.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, gradients[name].grad), name
        else:
            assert gradients[name].grad is None
    statistics = saving.state_dict()
    for name, value in plain.state_dict().items():  # what was computed twice counts once
        assert torch.equal(value, statistics[name]), name
    assert kept[saving] < 0.7 * kept[plain]


def test_other_input_channels():
    trunk = resnet("resnet18", in_channels=5)
    assert trunk.eval()(torch.randn(1, 5, 32, 32))["c1"].shape == (1, 64, 16, 16)
    assert len(backbone("resnet18", in_channels=5).preprocessing.mean) == 5
    assert backbone("resnet18", in_channels=1).preprocessing.mean == pytest.approx((0.449,))


def small() -> ResNet:
    """A trunk from parts of one's own: a 3x3 stem without a pool, two stages."""
    stem = nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 8, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(8), relu=nn.ReLU())
    )
    first = nn.Sequential(BasicBlock(8, 8, nn.BatchNorm2d), BasicBlock(8, 8, nn.BatchNorm2d))
    return ResNet(stem, [first, nn.Sequential(Bottleneck(8, 4, nn.BatchNorm2d, stride=2))])


def test_a_trunk_takes_built_parts():
    trunk = small().freeze(2)
    assert trunk.channels == {"c1": 8, "c2": 8, "c3": 16} and trunk.strides == {"c1": 1, "c2": 1, "c3": 2}
    maps = trunk(torch.randn(2, 3, 16, 16))
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "c1": (8, 16, 16),
        "c2": (8, 16, 16),
        "c3": (16, 8, 8),
    }
    assert {name.split(".")[0] for name in trunk.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    assert not trunk.layer1[0].bn1.training and trunk.layer2[0].bn1.training


def test_a_trunk_is_a_plain_module():
    trunk = small().eval()
    assert isinstance(trunk, Backbone)
    images = torch.randn(1, 3, 32, 32)
    expected = trunk(images)
    compiled = torch.compile(trunk, backend="aot_eager")(images)
    assert all(torch.allclose(compiled[name], expected[name], atol=1e-5) for name in expected)
    frozen = FrozenBatchNorm2d(4)
    assert frozen.state_dict().keys() == nn.BatchNorm2d(4).state_dict().keys()


def test_checkpointing_compiles():
    trunk = small()
    plain = deepcopy(trunk)
    trunk.checkpointing = True
    images = torch.randn(2, 3, 32, 32)
    torch.compile(trunk, backend="aot_eager")(images)["c3"].square().mean().backward()
    plain(images)["c3"].square().mean().backward()
    assert apart(trunk.conv1.weight.grad, plain.conv1.weight.grad) < 1e-4
    assert int(trunk.layer1[0].bn1.num_batches_tracked) == 1
    assert torch.allclose(trunk.layer2[0].bn2.running_var, plain.layer2[0].bn2.running_var, rtol=1e-4)


def test_wrong_options_are_told_together():
    with pytest.raises(WeightsError, match=r"did you mean resnet50\?"):
        resnet("resnet5O")
    with pytest.raises(WeightsError, match=r"output_stride=4.*stride_in=2x2") as told:
        resnet("resnet50", in_channels=0, output_stride=4, stride_in="2x2")
    assert "in_channels=0" in str(told.value)
    with pytest.raises(WeightsError, match=r"norm=layer: expected one of batch.*frozen=6: expected 0"):
        resnet("resnet50", norm="layer", frozen=6)
    with pytest.raises(WeightsError, match=r"resnet18 has basic blocks"):
        resnet("resnet18", stride_in="1x1")
    with pytest.raises(WeightsError, match=r"give a name"):
        backbone()
