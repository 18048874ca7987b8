"""R3D-18, MC3-18 and R(2+1)D-18 against torchvision's own networks, with the same numbers in both, and their files."""

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from trunkline.backbones import backbone, read_weights, save_weights
from trunkline.backbones.settings import KINETICS
from trunkline.backbones.sources import find
from trunkline.backbones.weights import load
from trunkline.ground.errors import WeightsError

PARAMETERS = {
    "r3d_18": 33_371_472,
    "mc3_18": 11_695_440,
    "r2plus1d_18": 31_505_325,
}  # with 400 classes; torchvision's figures
CLIPS = (2, 3, 6, 32, 32)


def theirs_of(name: str, classes: int = 400) -> nn.Module:
    """torchvision's network with every number random, in a range that keeps maps near one."""
    torch.manual_seed(1)
    with torch.device("meta"):
        net = torchvision.models.get_model(name, weights=None, num_classes=classes)
    net = net.to_empty(device="cpu")
    for key, value in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.fill_(3)
        elif value.dim() > 1:
            bound = (6 / value[0].numel()) ** 0.5
            value.uniform_(-bound, bound)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        else:
            value.uniform_(*((0.2, 0.6) if key.endswith("weight") else (-0.1, 0.1)))
    return net


def maps_of(net: nn.Module, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    """The maps of torchvision's network under our names, taken from its own forward."""
    found = {}
    for at, name in enumerate(("stem", "layer1", "layer2", "layer3", "layer4"), start=1):
        getattr(net, name).register_forward_hook(lambda _m, _i, out, at=at: found.__setitem__(f"c{at}", out))
    found["logits"] = net(clips)
    return found


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs().max() / theirs.abs().max()).detach())


@pytest.fixture(scope="module", params=PARAMETERS)
def pair(request, tmp_path_factory):
    """A network of torchvision's, its state dict as a file, and ours with these weights."""
    theirs = theirs_of(request.param)
    file = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(theirs.state_dict(), file)
    weights = read_weights(file)
    return request.param, theirs, weights, backbone(weights=weights)


@pytest.mark.parametrize("training", [False, True])
def test_maps_logits_and_gradients_are_torchvisions(pair, training):
    _, theirs, weights, ours = pair
    for net in (theirs, ours):
        net.train(training).zero_grad()
    clips = torch.rand(CLIPS, generator=torch.Generator().manual_seed(2)) - 0.5
    expected, found = maps_of(theirs, clips), ours(clips)
    found["logits"] = F.linear(found["c5"].mean((2, 3, 4)), weights.tensors["fc.weight"], weights.tensors["fc.bias"])
    assert {key: apart(found[key], expected[key]) < 1e-5 for key in expected} == dict.fromkeys(expected, True)
    if not training:
        return
    for logits in (expected["logits"], found["logits"]):
        F.cross_entropy(logits, torch.tensor([3, 5])).backward()
    gradients = dict(ours.named_parameters())
    for key, parameter in theirs.named_parameters():
        if not key.startswith("fc."):
            assert apart(gradients[key].grad, parameter.grad) < 1e-4, (
                key
            )  # fp32 sums in another order, over the whole depth
    for key, buffer in theirs.named_buffers():
        assert torch.allclose(dict(ours.named_buffers())[key], buffer, rtol=1e-5, atol=1e-6), key


def test_the_architecture_is_read_from_the_tensors_and_the_rest_is_said(pair):
    name, _, weights, ours = pair
    assert ours.arch == name == weights.arch
    assert sum(p.numel() for p in ours.parameters()) + 512 * 400 + 400 == PARAMETERS[name]
    assert weights.preprocessing == KINETICS and ours.preprocessing == KINETICS
    assert weights.classes[:2] == ("abseiling", "air drumming") and len(weights.classes) == 400
    assert "Kinetics-400's classes" in str(ours.report) and "resize 128 x 171" in str(ours.report)
    assert ours.channels == {"c1": 64, "c2": 64, "c3": 128, "c4": 256, "c5": 512}
    assert ours.strides == {"c1": 2, "c2": 2, "c3": 4, "c4": 8, "c5": 16}
    steps = (1, 1, 1, 1, 1) if name == "mc3_18" else (1, 1, 2, 4, 8)
    assert tuple(ours.time_strides.values()) == steps


def test_names_and_shapes_are_torchvisions(pair):
    _, theirs, _, ours = pair
    own = {key: value.shape for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == own


@pytest.mark.parametrize("pair", ["mc3_18"], indirect=True)
def test_what_is_saved_loads_into_torchvision_strictly(pair, tmp_path):
    name, theirs, weights, ours = pair
    file = tmp_path / "published.safetensors"
    head = {key: weights.tensors[key] for key in ("fc.weight", "fc.bias")}
    save_weights(
        file, ours.state_dict() | head, arch=name, stride_in="3x3", classes=weights.classes, preprocessing=KINETICS
    )
    torchvision.models.get_model(name, weights=None).load_state_dict(load_file(file))
    again = read_weights(file)
    assert (again.arch, again.preprocessing, again.classes) == (name, KINETICS, weights.classes)
    assert "assumed" not in again.info
    classifier = nn.Linear(512, 400)
    assert load(again, ours, classifier).loaded == len(theirs.state_dict())
    assert torch.equal(classifier.weight, theirs.fc.weight)


def test_another_network_is_named(pair):
    name, _, weights, _ = pair
    other = next(n for n in PARAMETERS if n != name)
    with pytest.raises(WeightsError, match=f"weights of {name}, where {other} was asked for"):
        backbone(other, weights)
    with torch.device("meta"):
        trunk = backbone(other)
    with pytest.raises(
        WeightsError, match=f"does not fit: [^$]*these look like {name} weights, the network is {other}"
    ):
        load(weights, trunk)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_names_are_torchvisions(name):
    (published,) = {*torchvision.models.get_model_weights(name)}
    for called in (name, f"{name}.KINETICS400_V1", str(published).replace("KINETICS400_V1", "DEFAULT")):
        source = find(called)
        assert (source.url, source.arch, source.preprocessing) == (published.url, name, KINETICS)
        assert source.classes == tuple(published.meta["categories"]) and source.digest in published.url


def test_random_values_are_torchvisions_but_for_the_last_norm_of_a_block():
    """The same draws: convolutions by fan-out; `zero_init=False` leaves all norms at one."""
    trunk = backbone("r2plus1d_18", zero_init=False)
    for module in trunk.modules():
        if isinstance(module, nn.Conv3d):
            deviation = (
                2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1] * module.kernel_size[2])
            ) ** 0.5
            assert abs(float(module.weight.detach().std()) / deviation - 1) < 0.1
        elif isinstance(module, nn.BatchNorm3d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()
    trunk = backbone("mc3_18")
    assert trunk.layer3[1].conv2[1].weight.eq(0).all() and trunk.layer3[1].conv1[1].weight.eq(1).all()
