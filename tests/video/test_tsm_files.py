"""Files of TSM's authors and of mmaction2: read by their names, to the logits of the network that they were saved from."""

import json
import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from trunkline.backbones import read_weights
from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import WeightsError
from trunkline.heads.contract import Batch
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.build import from_weights
from trunkline.pipelines.recipe.fields import Network
from trunkline.tasks.video.options import Options

CLASSES = ("falls", "rises", "waits")


class Shift(nn.Module):
    """A convolution behind a shift of eighths over `frames` frames, as a module `net`."""

    def __init__(self, net: nn.Module, frames: int):
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, x):
        clips = x.reshape(-1, self.frames, *x.shape[1:])
        fold, nothing = x.shape[1] // 8, torch.zeros_like(clips[:, :1])
        ahead, behind = torch.cat([clips[:, 1:], nothing], 1), torch.cat([nothing, clips[:, :-1]], 1)
        parts = (ahead[:, :, :fold], behind[:, :, fold : 2 * fold], clips[:, :, 2 * fold :])
        return self.net(torch.cat(parts, 2).reshape(x.shape))


class Theirs(nn.Module):
    """TSN and TSM as their authors build them: torchvision's network, a layer `new_fc`, the mean of the frames' scores."""

    def __init__(self, arch: str, frames: int, shift: bool, classes: int):
        super().__init__()
        self.frames, self.base_model = frames, torchvision.models.get_model(arch)
        self.new_fc = nn.Linear(self.base_model.fc.in_features, classes)
        self.base_model.fc = nn.Identity()
        for stage in (1, 2, 3, 4) if shift else ():
            for block in getattr(self.base_model, f"layer{stage}"):
                block.conv1 = Shift(block.conv1, frames)
        for name, value in self.state_dict().items():
            if value.dim() == 1 and "new_fc" not in name:
                value.uniform_(*((0.5, 1.0) if name.endswith(("weight", "var")) else (-0.1, 0.1)))
        self.eval()

    def forward(self, clips):
        scores = self.new_fc(self.base_model(clips.transpose(1, 2).flatten(0, 1)))
        return scores.unflatten(0, (-1, self.frames)).mean(1)


def of_mmaction(name: str) -> str:
    """The name of a tensor in mmaction2, whose convolutions and norms stand in one module."""
    name = name.replace("base_model.", "backbone.").replace("new_fc.", "cls_head.fc_cls.")
    name = name.replace(".downsample.0.", ".downsample.conv.").replace(".downsample.1.", ".downsample.bn.")
    name = re.sub(r"\.bn(\d)\.", r".conv\1.bn.", name)
    return re.sub(r"\.conv(\d)\.(net\.)?weight", lambda m: f".conv{m[1]}.conv.{m[2] or ''}weight", name)


def saved(path, net: nn.Module, mmaction: bool = False, **more):
    """Save as each code does: under DataParallel's prefix with the epoch, or with meta."""
    tensors = net.state_dict() | more
    if mmaction:
        torch.save({"meta": {"epoch": 50}, "state_dict": {of_mmaction(n): t for n, t in tensors.items()}}, path)
    else:
        torch.save({"epoch": 50, "arch": "resnet18", "state_dict": {f"module.{n}": t for n, t in tensors.items()},
                    "best_prec1": 71.2}, path)  # fmt: skip
    return path


@pytest.mark.parametrize("mmaction", [False, True])
@pytest.mark.parametrize(("arch", "shift"), [("resnet18", True), ("resnet50", True), ("resnet18", False)])
def test_logits_are_those_of_the_published_network(tmp_path, arch, shift, mmaction):
    torch.manual_seed(0)
    net = Theirs(arch, 4, shift, len(CLASSES))
    file = saved(tmp_path / "file.pth", net, mmaction)
    choose = lambda task, options: Options(**{**options, "frames": 4}) if task == "action" else pytest.fail(task)  # noqa: E731
    recipe, task, model, facts = from_weights(file, Network(), choose, CLASSES)
    assert (recipe.network.wrapper, facts.arch) == ("tsm" if shift else "frames", arch)
    assert task.preprocessing == Preprocessing() and task.classes == CLASSES
    clips = torch.randint(0, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (Preprocessing().mean, Preprocessing().std))
    with torch.inference_mode():
        expected = net((clips / 255 - mean) / std).softmax(1)
        found = model.eval().predict(Batch("action", ["a", "b"], clips, targets={"frames": torch.tensor([4, 4])}))
    np.testing.assert_allclose(np.stack([p.probabilities for p in found]), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-4


def test_what_the_file_does_not_say_is_assumed_aloud(tmp_path):
    net = Theirs("resnet18", 8, True, 400)
    weights = read_weights(saved(tmp_path / "k400.pth", net))
    assert weights.classes[:2] == ("abseiling", "air drumming") and weights.over_time
    assert "TSM's names with the temporal shift" in weights.info["found"]
    assert {"frames", "shift", "classes"} <= weights.info["assumed"].keys()
    weights = read_weights(saved(tmp_path / "mm.pth", net, mmaction=True))
    assert "mmaction2's names with the temporal shift" in weights.info["found"]
    plain = torchvision.models.resnet18(num_classes=400)
    torch.save(plain.state_dict(), tmp_path / "photo.pth")
    weights = read_weights(tmp_path / "photo.pth")
    assert not weights.over_time and weights.classes is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("layer2.0.", "layer2.0.block.", "has non-local blocks"),
        ("layer1.0.conv1.net.", "layer1.0.net.conv1.", "shifts whole blocks"),
        ("layer2.", "layer2.net.", "pools over time within"),
        ("layer3.1.conv1.net.", "layer3.1.conv1.", "shifts 7 of its 8 blocks, where 8 are shifted here"),
    ],
)
def test_other_networks_of_that_code_are_refused(tmp_path, old, new, told):
    state = {f"module.{n}".replace(old, new): t for n, t in Theirs("resnet18", 8, True, 3).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=told):
        read_weights(tmp_path / "other.pth")


def test_recognisers_over_time_of_mmaction2_are_not_taken_for_frames(tmp_path):
    net = Theirs("resnet18", 8, False, 3)
    state = {of_mmaction(n): t[:, :, None] if t.ndim == 4 else t for n, t in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "slow.pth")
    with pytest.raises(WeightsError, match="no architecture can be read"):
        read_weights(tmp_path / "slow.pth")


def test_commands_take_such_a_file(tmp_path, capsys):
    """Predict with it, and train on from it with its classifier."""
    torch.manual_seed(0)
    file = str(saved(tmp_path / "file.pth", Theirs("resnet18", 4, True, len(CLASSES))))
    for name in CLASSES:
        for split in ("train", "val"):
            (tmp_path / "data" / split / name / "0").mkdir(parents=True)
            for i in range(5):
                pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / "0" / f"{i}.png")
    data = str(tmp_path / "data")
    out = str(tmp_path / "out")
    assert (
        main(["predict", file, f"{data}/val", f"classes={','.join(CLASSES)}", "frames=4", "size=32", f"out={out}"]) == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(line["label"] in CLASSES for line in lines)
    capsys.readouterr()
    views = ["sampling=stride", "stride=2", "frames=4", "clips=2", "crops=3", "size=32", "resize=32", "loaders=0"]
    assert main(["evaluate", file, f"data={data}", f"classes={','.join(CLASSES)}", *views, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["samples"] == 3 and "clips of 8 frames, one of each of 8 equal parts" in told.err
    assert main(["evaluate", file, f"data={data}", "stride=2"]) == 2
    assert "stride=2: is read with sampling=stride" in capsys.readouterr().err
    settings = [f"data={data}", f"weights={file}", "shift=true", "frames=4", "size=32", "batch=3", "updates=1"]
    assert main(["train", "action", *settings, "machine.loaders=0", "--run", str(tmp_path / "run")]) == 0
    assert "TSM's names with the temporal shift" in "".join(capsys.readouterr())
