"""Two players by our engines, here and in worker processes, and by a plain loop that uses nothing of them."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from trunkline.backbones.contract import Preprocessing
from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.cluster.engines.turns import TurnsEngine
from trunkline.ground.keys import key
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.heads.super_resolution.adversarial import Adversarial
from trunkline.heads.super_resolution.critic import make_critic
from trunkline.heads.super_resolution.players import players_of

UPDATES, MICRO, CROP, TASK = 5, 2, 16, "upscaling"
RATES, EMA, EPS = (1e-3, 2e-3), 0.9, 1e-4  # of the generator and of the critic


@dataclass(frozen=True)
class Row:
    """One engine at one setting; `zero` None is TorchEngine."""

    zero: int | None = None
    norm: str = "batch"
    reuse: bool = False
    kind: str = "vanilla"
    precision: str = "fp32"
    clip: float = 0.0  # of the critic
    warmup: int = 0
    micro: int = MICRO

    def named(self, workers: int) -> str:
        words = (self.zero, self.norm, self.reuse, self.kind, self.precision, self.clip, self.warmup, self.micro)
        return "-".join(map(str, (*words, workers)))


class Trunk(nn.Module):
    """Stride 1, with batch norm, and with spectral norm besides where that is asked for."""

    def __init__(self, norm: str = "batch"):
        super().__init__()
        self.channels, self.strides, self.stages = {"c1": 8}, {"c1": 1}, 1
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        second = nn.Conv2d(8, 8, 3, padding=1)
        self.second = spectral_norm(second) if norm == "spectral" else second
        self.norm, self.act = nn.BatchNorm2d(8), nn.PReLU()

    def forward(self, images):
        x = self.act(self.first(images))
        return {"c1": x + self.norm(self.second(x))}


class Head(nn.Module):
    needs = ("c1",)

    def __init__(self, channels: int = 8):
        super().__init__()
        self.up, self.last, self.drop = (
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.Conv2d(8, 3, 3, padding=1),
            nn.Dropout(0.0),
        )

    def forward(self, features, batch):
        x = self.drop(F.relu(F.pixel_shuffle(self.up(features["c1"]), 2)))
        with torch.autocast(x.device.type, enabled=False):
            return self.last(x if x.dtype == torch.float64 else x.float()) + 0.5


def pixel(made, truth):
    return {"l1": (made - truth).abs().mean()}


def model_of(row: Row) -> Model:
    torch.manual_seed(3)
    model = Model(Trunk(row.norm), {TASK: Head()}, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
    model.beside["critic"] = make_critic("srgan", CROP, 4, row.norm)
    return model


def micro_batches(update: int, micro: int = MICRO) -> list[Batch]:
    g = torch.Generator().manual_seed(100 + update)
    made = []
    for m in range(micro):
        small, large = (
            torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=g) for side in (CROP // 2, CROP)
        )
        ids = [f"{update}-{m}-{i}" for i in range(4)]
        made.append(Batch(TASK, ids, small, targets={"hr": large}, key=key(update, m)))
    return made


def settings_of(row: Row) -> Adversarial:
    return Adversarial(row.kind, weight=0.1, pixel=0.5, reuse=row.reuse, warmup=row.warmup, norm=row.norm)


def engine_of(row: Row, workers, model: Model | None = None) -> TurnsEngine:
    model = model or model_of(row)
    players = players_of(model, TASK, settings_of(row), pixel)
    machine = Machine("cpu", row.precision, False, deterministic=True, threads=1, loaders=0)
    engines = {}
    for (name, player), rate in zip(players.items(), RATES, strict=True):
        clip = row.clip if name == "critic" else 0.0
        optimizer = Optimizer("adam", lr=rate, weight_decay=0.0, clip=clip, options={"eps": EPS})
        average = Average(EMA if name == "generator" else 0.0, warmup=False)
        learning = Learning(optimizer, Schedule("cosine" if name == "critic" else "constant"), average, UPDATES, 2)
        given = (player.module, player.losses, learning, machine, workers)
        if row.zero is None:
            engines[name] = TorchEngine(*given)
        else:
            from trunkline.cluster.engines.zero import DeepSpeedEngine, Zero

            engines[name] = DeepSpeedEngine(*given, Zero(row.zero))
    return TurnsEngine(players, engines, {})


def run(row: Row, workers, folder: Path, first: int = 0, last: int = UPDATES, begin: Path | None = None) -> list:
    """Updates `first` to `last`; everything that a checkpoint holds goes to `folder`. Return what was reported."""
    engine, told = engine_of(row, workers), []
    if begin:
        engine.load(begin, json.loads((begin / "state.json").read_text()))
    for update in range(first, last):
        everyones = micro_batches(update, row.micro)
        mine = list(workers.mine(everyones)) or [Batch(**{**vars(everyones[0]), "stand_in": True})]
        report = engine.update(mine)
        told.append(
            {"generator": report.numbers(), "critic": report.others["critic"].numbers(), "waited": report.waited}
        )
    if workers.leads:
        folder.mkdir(parents=True, exist_ok=True)
    state = engine.save(folder if workers.leads else None)
    if workers.leads:
        (folder / "state.json").write_text(json.dumps(state))
    engine.close()
    return told


def table(args, workers):
    """Rows in turn, in one set of processes."""
    torch.set_num_threads(1)
    for spec in args["rows"]:
        begin = Path(spec["begin"]) if spec.get("begin") else None
        row = Row(**spec["row"])
        run(row, workers, Path(spec["folder"]), spec.get("first", 0), spec.get("last", UPDATES), begin)
    return len(args["rows"])


# The plain loop


def buffers(module):
    return [b.detach().clone() for b in module.buffers()]


def put(module, values):
    for buffer, value in zip(module.buffers(), values, strict=True):
        buffer.data.copy_(value)


def mean(each):
    """The mean of what each micro-batch made of the buffers, which all began from the same."""
    found = [sum(b.double() for b in of) / len(of) for of in zip(*each, strict=True)]
    return [m if b.is_floating_point() else m.round() for m, b in zip(found, each[0], strict=True)]


def learns(module, learning):
    for p in module.parameters():
        p.requires_grad_(learning)


def still(module, values, call, *given):
    """A call that leaves the module's buffers as they were."""
    found = call(*given)
    put(module, values)
    return found


def saying(kind, logits, real):
    """Logits that should say real, or made. The cross-entropy is written as a softplus, whose gradient has other last bits
    than that of `binary_cross_entropy_with_logits`."""
    if kind == "least_squares":
        return F.mse_loss(logits, torch.full_like(logits, float(real)))
    return F.softplus(-logits if real else logits).mean()


def opinions(kind, critic, made, truth):
    """The generator's loss."""
    if kind != "relativistic":
        return saying(kind, critic(made), True)
    with torch.no_grad():
        real = critic(truth)
    fake = critic(made)
    return saying(kind, real - fake.mean(), False) * 0.5 + saying(kind, fake - real.mean(), True) * 0.5


def judged(kind, critic, made, truth):
    """The critic's losses, in two forwards."""
    real, fake = critic(truth), critic(made)
    if kind != "relativistic":
        return saying(kind, real, True) + saying(kind, fake, False)
    return saying(kind, real - fake.mean(), True) * 0.5 + saying(kind, fake - real.mean(), False) * 0.5


def plain(row: Row, updates: int = UPDATES):
    """A loop as one would write it for two micro-batches; with fp16 each optimizer has a scaler of its own."""
    model = model_of(row)
    critic = model.beside["critic"]
    trunk, head = model.backbone.train(), model.heads[TASK].train()
    critic.train()
    generator_step = torch.optim.Adam(model.parameters(), lr=RATES[0], eps=EPS)
    critic_step = torch.optim.Adam(critic.parameters(), lr=RATES[1], eps=EPS)
    scalers = [torch.amp.GradScaler("cpu", enabled=row.precision == "fp16") for _ in range(2)]
    shadow = {n: t.detach().clone() for n, t in model.state_dict().items()}
    cast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(row.precision)

    def make(batch):
        return head(trunk((batch.images.float() / 255 - 0.5) / 0.5), batch)

    def judge(pictures):
        return critic(pictures).float()

    def cheaply():  # around all of a micro-batch's forward, as a weight is cast once then
        return torch.autocast("cpu", cast, enabled=cast is not None)

    def step(module, optimizer, scaler, clip):
        scaler.unscale_(optimizer)
        for p in module.parameters():
            p.grad /= row.micro
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return scaler.get_scale() >= before

    for update in range(updates):
        batches = micro_batches(update, row.micro)
        truths = [b.targets["hr"].float() / 255 for b in batches]
        own, others, fakes, after = buffers(model), buffers(critic), [], []
        learns(critic, False)
        for batch, truth in zip(batches, truths, strict=True):
            put(model, own)
            with cheaply():
                made = make(batch)
                after.append(buffers(model))
                fakes.append(made.detach())
                loss = 0.5 * (made - truth).abs().mean()
                loss = loss + 0.1 * opinions(row.kind, partial(still, critic, others, judge), made, truth)
            scalers[0].scale(loss).backward()
        learns(critic, True)
        put(model, mean(after))
        if step(model, generator_step, scalers[0], 0.0):
            for name, tensor in model.state_dict().items():
                shadow[name].copy_(shadow[name].lerp(tensor, 1 - EMA) if tensor.is_floating_point() else tensor)
        else:
            put(model, own)
        own, others, after = buffers(model), buffers(critic), []
        for m, (batch, truth) in enumerate(zip(batches, truths, strict=True)):
            put(critic, others)
            with cheaply():
                if not row.reuse:
                    with torch.no_grad():
                        fakes[m] = make(batch)
                    put(model, own)
                loss = judged(row.kind, judge, fakes[m], truth)
            after.append(buffers(critic))
            scalers[1].scale(loss).backward()
        put(critic, mean(after))
        for group in critic_step.param_groups:
            group["lr"] = (
                RATES[1] * (1 + torch.cos(torch.tensor(torch.pi * update / updates, dtype=torch.float64)).item()) / 2
            )
        if not step(critic, critic_step, scalers[1], row.clip):
            put(critic, others)
    return {"model": model.state_dict(), "ema": shadow, "critic/model": critic.state_dict()}, (
        generator_step,
        critic_step,
    )
