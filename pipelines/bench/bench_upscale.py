"""Super-resolution beside a plain PyTorch loop that makes the same forwards: prediction, pixels, and both players."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..runs.environment import environment
from .bench import Bench, as_usual, by_precision, positive

SCALE = 4
TASK = "super_resolution"


@dataclass
class Work:
    """The same squares for both sides: small `(N, 3, c, c)` and large `(N, 3, 4c, 4c)`, uint8; and the networks' size."""

    small: Any
    large: Any
    blocks: int
    width: int
    device: str


def bench_upscale(
    *, crop: int = 96, batch: int = 16, blocks: int = 16, width: int = 64, rounds: int = 7, device: str = "auto"
) -> Bench:
    """Measure MSRResNet x4 beside the same network in a plain loop: prediction, training by pixels and against a critic.

    Each is measured at equal settings (fp32) and with our defaults against theirs. Both sides have their batch on the device,
    and the same tensors and optimizers. In an update against a critic both make five forwards: the generator's, the critic's
    on what it made, and in the critic's turn the generator's again without gradients, and the critic's on real and on made ones.

    crop    the side of the large squares in pixels; divisible by 32
    batch   squares at once
    blocks, width  of the network; 16 and 64 as published
    """
    positive(crop=crop, batch=batch, blocks=blocks, width=width, rounds=rounds)
    import torch

    from trunkline.ground.errors import RecipeError

    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine

    if crop % 32:
        raise RecipeError(f"crop={crop}: expected a multiple of 32")
    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    torch.manual_seed(0)
    side = crop // SCALE
    work = Work(
        torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8),
        torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8), blocks, width, machine.device,
    )  # fmt: skip

    def apart(own: Any, other: Any) -> float:
        return float((own - other).abs().max())

    rows, equal = by_precision("upscale", machine, batch, rounds, lambda m: sides(work, m, False), apart)
    more, _ = by_precision("upscale, both players", machine, batch, rounds, lambda m: sides(work, m, True), apart)
    rows += [{**row, "name": f"both players, {row['name']}"} for row in more if row["name"].startswith("train")]
    settings = {"crop": crop, "batch": batch, "blocks": blocks, "width": width, "rounds": rounds}
    settings["largest difference at equal settings"] = equal
    return Bench(
        "upscale", rows, settings | {"threads": torch.get_num_threads(), "device": machine.device}, environment()
    )


def sides(work: Work, machine: Any, players: bool) -> tuple[Any, Any]:
    """Build our `predict` and `train` to call, and theirs, on copies of the same networks."""
    import torch

    from ...backbones import backbone
    from ...heads.model import Model
    from ...heads.super_resolution.critic import make_critic
    from ...heads.super_resolution.upscaling import UpscalingHead

    torch.manual_seed(0)
    trunk = backbone("msrresnet", blocks=work.blocks, width=work.width)
    head = UpscalingHead("msrresnet", trunk.channels, SCALE, preprocessing=trunk.preprocessing)
    critic = make_critic("vgg", work.large.shape[-1]) if players else None
    tensors = {k.removeprefix("backbone.").removeprefix(f"heads.{TASK}."): v.clone()
               for k, v in Model(trunk, {TASK: head}, trunk.preprocessing).state_dict().items()}  # fmt: skip
    theirs = _theirs(work, tensors, copy.deepcopy(critic))
    model = Model(trunk, {TASK: head}, trunk.preprocessing, {"critic": critic} if critic is not None else None)
    return _ours(work, model, machine), theirs


def _ours(work: Work, model: Any, machine: Any) -> dict[str, Callable[[], Any]]:
    import torch

    from ...cluster.config import Average, Learning, Optimizer, Schedule
    from ...cluster.engines.torch_engine import TorchEngine
    from ...cluster.engines.turns import TurnsEngine
    from ...heads.contract import Batch
    from ...heads.super_resolution.adversarial import Adversarial
    from ...heads.super_resolution.players import players_of
    from ...heads.super_resolution.upscaling import PictureLosses, picture_losses
    from ..evaluation.measure import apart, inference

    learning = Learning(Optimizer("adam", lr=1e-5, weight_decay=0.0), Schedule("constant"), Average(), 10**6, 100)
    against = Adversarial(weight=5e-3, pixel=1e-2) if model.beside else None

    def pixel(made: Any, truth: Any) -> Any:
        return picture_losses(made, truth, PictureLosses())

    players = players_of(model, TASK, against, pixel)
    engines = {name: TorchEngine(p.module, p.losses, learning, machine) for name, p in players.items()}
    engine: Any = TurnsEngine(players, engines, {}) if len(engines) > 1 else engines.popitem()[1]
    names = [str(i) for i in range(len(work.small))]
    batch = Batch(TASK, names, work.small, targets={"hr": work.large}).to(work.device)
    twin = apart(model)

    def predict() -> Any:
        with inference(twin, machine.precision, torch.device(work.device)):
            return twin.heads[TASK](twin.maps(batch), batch)

    return {"predict": predict, "train": lambda: float(engine.update([batch]).total)}


def _theirs(work: Work, tensors: dict[str, Any], critic: Any) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn import functional as F

    from .plain_upscale import PlainMSRResNet

    net = PlainMSRResNet(work.blocks, work.width).to(work.device)
    net.load_state_dict(tensors)
    critic = critic.to(work.device) if critic is not None else None
    optimizers = [torch.optim.Adam(m.parameters(), 1e-5) for m in (net, critic) if m is not None]
    small, large = work.small.to(work.device), work.large.to(work.device)

    def predict() -> Any:
        net.eval()
        with torch.inference_mode():
            return net(small / 255)

    def train() -> float:
        net.train()
        made, truth = net(small / 255), large / 255
        loss = F.l1_loss(made, truth)
        if critic is not None:
            critic.requires_grad_(False)
            loss = loss * 1e-2 + F.softplus(-critic(made)).mean() * 5e-3
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        if critic is not None:
            critic.requires_grad_(True)
            with torch.no_grad():
                made = net(small / 255)
            optimizers[1].zero_grad()
            F.softplus(-critic(truth)).mean().backward()
            F.softplus(critic(made)).mean().backward()
            optimizers[1].step()
        return float(loss.detach())

    return {"predict": as_usual(predict), "train": as_usual(train)}
