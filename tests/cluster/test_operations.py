"""What the engine adds to an update: a handful of operations, whatever the network and however many tensors it has."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from counting import Operations, of_an_update

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.backbones.video.frames import Frames
from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.balance import Famo, Fixed, GradientNorm, Uncertainty
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.engines.turns import TurnsEngine
from trunkline.cluster.launchers.local import run_local
from trunkline.cluster.launchers.worker import Job
from trunkline.cluster.workers import ALONE, Workers
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model, losses
from trunkline.heads.multilabel import MultiLabelHead
from trunkline.heads.one_stage import OneStageHead
from trunkline.heads.pixels.segmentation import SegmentationHead
from trunkline.heads.rcnn import RCNNHead
from trunkline.heads.super_resolution.adversarial import Adversarial
from trunkline.heads.super_resolution.critic import make_critic
from trunkline.heads.super_resolution.players import players_of
from trunkline.heads.super_resolution.upscaling import PictureLosses, UpscalingHead, picture_losses
from trunkline.heads.video.clip import clip_head

NETWORKS = ("resnet50", "deeplabv3plus", "mask_rcnn")
CLIPS = ("frames", "r3d_18")
TRUNKS = [
    "narrow",
    pytest.param("resnet50", marks=pytest.mark.slow),
]  # the numbers do not depend on how many tensors there are
SIZE = 64


def model_of(network: str, name: str) -> Model:
    torch.manual_seed(0)
    trunk = backbone(name, output_stride=16 if network == "deeplabv3plus" else 32)
    if network in CLIPS:
        trunk = Frames(trunk) if network == "frames" else trunk
        head = clip_head("average", trunk.channels, 5, time_strides=trunk.time_strides, reads=("c5",))
    elif network == "mask_rcnn":
        trunk = Pyramid(trunk, "pool", 32)
        head = RCNNHead(32, trunk.strides, 2, masks=True)
    elif network == "deeplabv3plus":
        head = SegmentationHead(network, trunk.channels, 3, output_stride=16)
    else:
        head = ClassificationHead(trunk.channels["c5"], 5)
    return Model(trunk, {"task": head}, Preprocessing())


def micro_batches(network: str, count: int) -> list[Batch]:
    if network in CLIPS:
        clips = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)
        targets = {"label": torch.tensor([1, 2]), "frames": torch.tensor([4, 3])}
        return [Batch("task", ["a", "b"], clips, targets=targets, key=at) for at in range(count)]
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    mask[0, 10:40, 10:40] = 1
    targets = {
        "resnet50": {"label": torch.tensor([1, 2])},
        "deeplabv3plus": {"mask": mask.expand(2, -1, -1)},
        "mask_rcnn": {"boxes": [torch.tensor([[10.0, 10, 40, 40]])], "labels": [torch.tensor([1])], "masks": [mask]},
    }[network]
    size = 1 if network == "mask_rcnn" else 2
    images = torch.randint(0, 256, (size, 3, SIZE, SIZE), dtype=torch.uint8)
    sizes = torch.tensor([[SIZE, SIZE]]) if network == "mask_rcnn" else None
    return [Batch("task", ["a", "b"][:size], images, sizes, targets, key=at) for at in range(count)]


def added(
    network: str, count: int, trunk: str, workers: Workers = ALONE, average: float = 0.0, **optimizer
) -> Counter[str]:
    """Count what an update of `count` micro-batches on this worker has besides losses, backward and step; not the first."""
    machine = Machine("cpu", "fp32", channels_last=False, deterministic=True, threads=1, loaders=0)
    learning = Learning(Optimizer("sgd", lr=1e-3, **optimizer), Schedule("constant"), Average(average), 10, 5)
    engine = TorchEngine(model_of(network, trunk), losses, learning, machine, workers)
    engine.update(micro_batches(network, min(count, 2)))
    found = +of_an_update(engine, micro_batches(network, count))
    engine.close()
    return found


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("network", NETWORKS)
def test_one_worker(network, trunk):
    one, four = added(network, 1, trunk), added(network, 4, trunk)
    assert one.total() <= 15 and four.total() <= 60, (one, four)


@pytest.mark.parametrize(("network", "trunk"), [("frames", "resnet18"), ("r3d_18", "r3d_18")])
def test_one_worker_with_clips(network, trunk):
    one, four = added(network, 1, trunk), added(network, 4, trunk)
    assert one.total() <= 15 and four.total() <= 60, (one, four)
    assert added(network, 1, trunk, average=0.9).total() <= one.total() + 3


@pytest.mark.parametrize(
    ("network", "trunk"),
    [("resnet50", "narrow"), *(pytest.param(n, "resnet50", marks=pytest.mark.slow) for n in NETWORKS)],
)
def test_an_average_adds_three_at_most(network, trunk):
    assert added(network, 1, trunk, average=0.9).total() <= added(network, 1, trunk).total() + 3


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_each_of_two_players(norm):
    """Besides, each convolution with a spectral norm of a critic that looks on has one copy, of the ten that it needs itself."""
    torch.manual_seed(0)
    trunk = backbone("msrresnet", blocks=2, width=8)
    head = UpscalingHead("msrresnet", trunk.channels, 4, preprocessing=trunk.preprocessing)
    critic = make_critic("vgg", 32, 4, norm)
    model = Model(trunk, {"task": head}, trunk.preprocessing, {"critic": critic})
    players = players_of(model, "task", Adversarial(), lambda made, truth: picture_losses(made, truth, PictureLosses()))
    machine = Machine("cpu", "fp32", channels_last=False, deterministic=True, threads=1, loaders=0)
    learning = Learning(Optimizer("adam", lr=1e-3), Schedule("constant"), Average(), 10, 5)
    engines = {name: TorchEngine(p.module, p.losses, learning, machine) for name, p in players.items()}
    engine = TurnsEngine(players, engines, {})
    images, large = (torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8) for side in (8, 32))
    batches = [Batch("task", ["a", "b"], images, targets={"hr": large}, key=at) for at in range(4)]
    engine.update(batches[:2])
    normed = sum(isinstance(m, torch.nn.Conv2d) for m in critic.modules()) if norm == "spectral" else 0
    for count in (1, 4):
        found = +of_an_update(engine, batches[:count])
        assert found.total() <= (2 * 15 + normed) * count, found
        assert found["put back"] == normed * count, found


def test_a_penalty_and_clipping_add_a_dozen_at_most():
    assert added("resnet50", 1, "narrow", l1=1e-4, clip=1.0).total() <= added("resnet50", 1, "narrow").total() + 12


def of_a_worker(args, workers):
    """Count on one of several workers, as a job."""
    torch.set_num_threads(1)
    return {network: dict(added(network, 2, args["trunk"], workers)) for network in NETWORKS}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_two_workers_of_two_micro_batches(trunk, tmp_path, monkeypatch):
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    found = run_local(Job("test_operations:of_a_worker", {"trunk": trunk}, 120.0), 2, tmp_path / "logs", 2)
    print(found)
    for network in NETWORKS:
        collectives = {name: n for name, n in found[network].items() if name.startswith("c10d")}
        assert collectives and sum(found[network].values()) - sum(collectives.values()) <= 60


SHARING = ("resnet50", "mask_rcnn", "labels")
A_HEAD = 12
"""What a further head on the same batch may add, for each micro-batch."""
BALANCES = {"fixed": 0, "uncertainty": 6, "gradient_norm": 40, "famo": 32}
"""What a balance may add to an update, for all its micro-batches and heads: sums of some numbers in fp64."""


def shared_batches(heads: tuple[str, ...], count: int) -> list[Batch]:
    """Micro-batches of one picture that all heads share."""
    batches = []
    for at in range(count):
        images = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
        targets = micro_batches("mask_rcnn", 1)[0].targets
        own = {
            "resnet50": {"label": torch.tensor([1])},
            "mask_rcnn": targets,
            "labels": {"labels": torch.tensor([[1, 0, -1]])},
        }
        sizes = torch.tensor([[SIZE, SIZE]])
        parts = tuple(Batch(name, ["a"], images, sizes, own[name], key=at) for name in heads)
        batches.append(Batch("+".join(heads), ["a"], images, sizes, key=at, parts=parts))
    return batches


def balanced(name: str, heads: tuple[str, ...], model: Model) -> Fixed:
    """Make a balance of these heads, which the model tells of its maps where it measures them."""
    if name == "gradient_norm":
        model.reading = made = GradientNorm(heads, dict.fromkeys(heads, 1.0))
        return made
    spreads = {head: torch.nn.Parameter(torch.zeros(1)) for head in heads}
    return {"fixed": Fixed(heads), "uncertainty": Uncertainty(heads, spreads), "famo": Famo(heads)}[name]


def added_by_sharing(heads: tuple[str, ...], balance: str) -> dict[int, int]:
    """Count what updates of 1 and 4 micro-batches have besides losses, backward and step, for heads on one pyramid."""
    torch.manual_seed(0)
    trunk = Pyramid(backbone("narrow"), "pool", 32)
    made = {
        "resnet50": lambda: ClassificationHead(trunk.channels["c5"], 5),
        "mask_rcnn": lambda: RCNNHead(32, trunk.strides, 2, masks=True),
        "labels": lambda: MultiLabelHead(trunk.channels["c5"], 3),
    }
    model = Model(trunk, {name: made[name]() for name in heads}, Preprocessing())
    machine = Machine("cpu", "fp32", channels_last=False, deterministic=True, threads=1, loaders=0)
    learning = Learning(Optimizer("sgd", lr=1e-3), Schedule("constant"), Average(), 10, 5)
    engine = TorchEngine(model, losses, learning, machine)
    engine.balance = balanced(balance, heads, model)
    engine.update(shared_batches(heads, 2))
    found = {count: (+of_an_update(engine, shared_batches(heads, count))).total() for count in (1, 4)}
    engine.close()
    return found


@pytest.mark.parametrize("balance", list(BALANCES))
def test_a_further_head_on_the_same_batch(balance):
    for heads in (1, len(SHARING)):
        for count, found in added_by_sharing(SHARING[:heads], balance).items():
            assert found <= (15 + A_HEAD * (heads - 1)) * count + BALANCES[balance], (heads, count, found)


def test_what_is_counted():
    """A view is nothing; a foreach call is one operation, or one for each tensor where types are mixed."""
    copy = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
    a, b, wide = torch.ones(3), torch.ones(2), [torch.ones(3).double(), torch.ones(2).double()]
    with Operations() as counted:
        copy([a, b], [a.detach(), b.view(2)])
        copy([a, b], wide)
        with counted.looking_away():
            a.add(1)
    assert +counted.found == Counter({"_foreach_copy_": 3})


@pytest.mark.parametrize("network", ["resnet50", "deeplabv3plus"])
@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_read_back_from_the_device(network, count):
    """On the `meta` device nothing can be read: what would wait for a GPU raises here."""
    machine = Machine("meta", "fp32", channels_last=False, deterministic=False, threads=1, loaders=0)
    learning = Learning(Optimizer("sgd", lr=1e-3, clip=1.0), Schedule("constant"), Average(0.9), 10, 5)
    engine = TorchEngine(model_of(network, "narrow").to("meta"), losses, learning, machine)
    report = engine.update(micro_batches(network, count))
    assert report.total.device.type == "meta"
    with pytest.raises(RuntimeError, match="meta tensor"):
        report.numbers()


def test_the_one_stage_heads_forward_reads_nothing_back():
    trunk = Pyramid(backbone("narrow"), "conv", 32)
    head = OneStageHead(32, trunk.strides, 2).to("meta")
    logits, *_ = head(trunk.to("meta")(torch.empty(1, 3, SIZE, SIZE, device="meta")))
    assert logits.device.type == "meta"
