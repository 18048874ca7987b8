"""The engine against hand-written loops: the micro-batch rule, buffers, clipping, L1, decay, EMA, resume."""

import copy
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from trunkline.cluster.checkpoint import read_state, write_checkpoint
from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
from trunkline.cluster.engines.schedule import factor
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.ground.errors import EngineError
from trunkline.pipelines.recipe.fields import Evaluation
from trunkline.pipelines.training.loop import between

PLAIN = {"device": "cpu", "channels_last": False, "deterministic": True, "threads": 1}


@dataclass
class Piece:
    x: torch.Tensor
    y: torch.Tensor
    ids: list[str] = field(default_factory=lambda: ["a.jpg"])
    scale: float = 1.0

    def to(self, device):
        return self


def net(checkpointing=False):
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)]
    return Recomputed(layers) if checkpointing else nn.Sequential(*layers)


class Recomputed(nn.Sequential):
    def __init__(self, layers):
        super().__init__(*layers)

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return super().forward(x) if not self.training else checkpoint(super().forward, x, use_reentrant=False)


def loss(model, piece):
    return {"cross_entropy": nn.functional.cross_entropy(model(piece.x), piece.y)}


def pieces(count, size, dtype=torch.float32, seed=1):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count * size, 3, 8, 8, generator=g), torch.randint(0, 4, (count * size,), generator=g)
    return [Piece(a.to(dtype), b) for a, b in zip(x.split(size), y.split(size), strict=True)]


def engine(model, precision="fp32", total=6, average=0.9, schedule=None, **optimizer):
    machine = Machine(precision=precision, **PLAIN)
    config = Optimizer(**{"lr": 0.05, **optimizer})
    learning = Learning(config, schedule or Schedule("cosine"), Average(average), total, 3)
    return TorchEngine(model, loss, learning, machine)


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_an_update_is_the_mean_over_micro_batches_of_each_ones_own_gradient(micro):
    """Against a loop written out by hand, in fp64, with Nesterov momentum, decay, L1, clipping and the moving average."""
    lr, decay, l1, clip = 0.05, 1e-2, 1e-3, 0.5
    ours = engine(net(), "fp64", weight_decay=decay, l1=l1, clip=clip)
    model = net().double()
    velocity, average, steps = {}, None, 0
    average = {k: v.clone() for k, v in model.state_dict().items()}
    for u in range(4):
        batches = pieces(micro, 16 // micro, torch.float64, seed=u)
        ours.update(batches)
        first = {n: b.clone() for n, b in model.named_buffers()}
        grads = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
        seen = {n: [] for n in first}
        for piece in batches:
            with torch.no_grad():
                for n, b in model.named_buffers():
                    b.copy_(first[n])
            total = nn.functional.cross_entropy(model(piece.x), piece.y)
            for (n, _), g in zip(
                model.named_parameters(), torch.autograd.grad(total, list(model.parameters())), strict=True
            ):
                grads[n] += g / micro
            for n, b in model.named_buffers():
                seen[n].append(b.double().clone())
        with torch.no_grad():
            for n, b in model.named_buffers():
                b.copy_(torch.stack(seen[n]).mean(0))
            weights = {n for n, p in model.named_parameters() if p.ndim > 1}
            for n, p in model.named_parameters():
                grads[n] += l1 * p.sign() if n in weights else 0
            norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
            rate = lr * (1 + math.cos(math.pi * u / 6)) / 2
            for n, p in model.named_parameters():
                g = grads[n] * min(1.0, clip / (norm + 1e-6)) + (decay * p if n in weights else 0)
                velocity[n] = g if n not in velocity else 0.9 * velocity[n] + g
                p -= rate * (g + 0.9 * velocity[n])
            d = min(0.9, (1 + steps) / (10 + steps))
            steps += 1
            for n, v in model.state_dict().items():
                average[n] = d * average[n] + (1 - d) * v if v.is_floating_point() else v.clone()
    for n, v in model.state_dict().items():
        assert torch.allclose(ours.weights()[n].double(), v.double(), rtol=0, atol=1e-10), n
        assert torch.allclose(ours.weights(averaged=True)[n].double(), average[n].double(), rtol=0, atol=1e-10), n


def test_the_order_of_micro_batches_changes_no_bit():
    forward, backward = engine(net(), clip=1.0), engine(net(), clip=1.0)
    for u in range(6):
        batches = pieces(8, 2, seed=u)
        forward.update(batches)
        backward.update(batches[::-1])
    assert same(forward.weights(), backward.weights())
    assert same(forward.weights(averaged=True), backward.weights(averaged=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_micro_batch_is_a_plain_torch_loop_to_the_last_bit(precision):
    ours, model = engine(net(), precision, weight_decay=0.01, schedule=Schedule("constant")), net()
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
              {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    for u in range(5):
        (piece,) = pieces(1, 16, seed=u)
        ours.update([piece])
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = nn.functional.cross_entropy(model(piece.x), piece.y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert same(ours.weights(), model.state_dict())


@pytest.mark.parametrize("micro", [1, 4])
def test_a_recomputed_forward_does_not_count_twice_in_statistics(micro):
    plain, recomputed = engine(net()), engine(net(checkpointing=True))
    for u in range(3):
        for e in (plain, recomputed):
            e.update(pieces(micro, 16 // micro, seed=u))
    assert same(plain.weights(), recomputed.weights())
    assert int(plain.weights()["1.num_batches_tracked"]) == 3


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(4, 4)
        self.a = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
        self.b = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    def forward(self, x, which):
        return getattr(self, which)(self.trunk(x))


def test_a_head_without_a_micro_batch_is_not_moved():
    """Not by momentum, not by weight decay, and its statistics stay; the one that ran in one of two gets its own mean."""
    e = engine(TwoHeads(), weight_decay=0.1)
    x = torch.randn(8, 4)

    def losses(model, piece):
        return {"l": model(piece.x, piece.y).square().mean()}

    e.losses = losses
    e.update([Piece(x, "a"), Piece(x, "b")])  # type: ignore[arg-type]
    before = copy.deepcopy(e.weights())
    e.update([Piece(x, "a"), Piece(x, "a")])  # type: ignore[arg-type]
    after = e.weights()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("b."))
    assert not torch.equal(before["a.0.weight"], after["a.0.weight"])
    assert int(after["a.1.num_batches_tracked"]) == 2 and int(after["b.1.num_batches_tracked"]) == 1


@pytest.mark.parametrize(
    "name", ["sgd", "adamw", "lamb", "rmsproptf", "adafactor", "lion", "sgdp", "nadamw", "lookahead_adamw"]
)
def test_a_checkpoint_goes_on_bit_for_bit(name, tmp_path):
    whole, first = engine(net(), name=name, lr=1e-3), engine(net(), name=name, lr=1e-3)
    for u in range(6):
        whole.update(pieces(2, 8, seed=u))
    for u in range(3):
        first.update(pieces(2, 8, seed=u))
    folder = write_checkpoint(tmp_path, "000003", lambda f: {"engine": first.save(f)})
    second = engine(net(), name=name, lr=1e-3)
    second.load(folder, read_state(folder)["engine"])
    for u in range(3, 6):
        second.update(pieces(2, 8, seed=u))
    assert same(whole.weights(), second.weights()) and same(whole.weights(True), second.weights(True))


def test_state_comes_back_in_its_parameters_memory_format(tmp_path):
    """A norm over a tensor adds in the order of its memory: LAMB's trust ratio would have other bits."""

    def fresh():
        machine = Machine(precision="fp32", **{**PLAIN, "channels_last": True})
        config = Optimizer(name="lamb", lr=0.01)
        return TorchEngine(net(), loss, Learning(config, Schedule("constant"), Average(0), 6, 3), machine)

    whole, second = fresh(), fresh()
    for u in range(3):
        whole.update(pieces(2, 8, seed=u))
    folder = write_checkpoint(tmp_path, "000003", lambda f: {"engine": whole.save(f)})
    second.load(folder, read_state(folder)["engine"])
    assert second.model[0].weight.stride() == (27, 1, 9, 3)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        averages = [e.optimizer.state[p]["exp_avg"] for e, p in ((whole, one), (second, other))]
        assert averages[0].stride() == averages[1].stride()
    for u in range(3, 6):
        for e in (whole, second):
            e.update(pieces(2, 8, seed=u))
    assert same(whole.weights(), second.weights())


def test_an_update_whose_fp16_gradients_overflow_moves_nothing():
    ours = engine(net(), "fp16")
    ours.update(pieces(2, 4))
    before, average = copy.deepcopy(ours.weights()), copy.deepcopy(ours.weights(averaged=True))
    scale = ours.scaler.get_scale()
    ours.losses = lambda m, p: {"huge": 1e30 * loss(m, p)["cross_entropy"]}
    report = ours.update(pieces(2, 4, seed=2))
    ours.losses = loss
    assert report.skipped and ours.scaler.get_scale() < scale and ours.updates == 2
    assert same(before, ours.weights()) and same(average, ours.weights(averaged=True))
    assert not ours.update(pieces(2, 4, seed=3)).skipped
    assert not same(before, ours.weights())


def test_a_reports_numbers_are_its_tensors():
    ours = engine(net(), clip=0.1)
    ours.losses = lambda m, p: {**loss(m, p), "other": m[0].weight.pow(2).sum()}
    report = ours.update(pieces(2, 4))
    numbers = report.numbers()
    assert list(numbers) == ["cross_entropy", "other", "grad_norm", "total", "own"]
    assert numbers["total"] == pytest.approx(numbers["cross_entropy"] + numbers["other"], rel=1e-12)
    assert numbers["grad_norm"] == float(report.grad_norm) > 0.1


def test_a_loss_that_is_not_finite_names_its_samples():
    piece = pieces(1, 4)[0]
    piece.x[0, 0, 0, 0] = float("nan")
    model = engine(net())
    before = copy.deepcopy(model.weights())
    with pytest.raises(EngineError, match=r"update 0 is not finite.*a\.jpg.*optimizer\.lr"):
        model.update([piece])
    parameters = {n for n, _ in model.model.named_parameters()}
    assert all(torch.equal(before[n], model.weights()[n]) for n in parameters)


def test_rates_are_multiples_of_the_rate_by_a_part_of_a_name():
    ours, model = engine(net(), average=0.0, schedule=Schedule("constant"), rates={"4": 10.0, "bias": 0.5}), net()
    rates = {"0.weight": 0.05, "1.weight": 0.05, "1.bias": 0.025, "4.weight": 0.5, "4.bias": 0.25}
    decayed = {n for n, p in model.named_parameters() if p.ndim > 1}
    groups = [
        {"params": [p], "lr": rates[n], "weight_decay": 1e-4 * (n in decayed)} for n, p in model.named_parameters()
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    for u in range(3):
        (piece,) = pieces(1, 16, seed=u)
        assert ours.update([piece]).lr == 0.05
        optimizer.zero_grad()
        loss(model, piece)["cross_entropy"].backward()
        optimizer.step()
    assert all(torch.allclose(ours.weights()[n], v) for n, v in model.state_dict().items())
    with pytest.raises(EngineError, match=r"optimizer.rates.heads: .* there are bias, weight"):
        engine(net(), rates={"heads": 10.0})


def test_an_unknown_optimizer_names_the_nearest():
    with pytest.raises(EngineError, match=r"'adamww'.*adamw"):
        engine(net(), name="adamww")
    with pytest.raises(EngineError, match=r"optimizer\.options\.nonsense: sgd takes no such option"):
        engine(net(), options={"nonsense": 3})


def test_a_checkpoint_of_another_model_says_where_it_differs(tmp_path):
    folder = write_checkpoint(tmp_path, "000000", lambda f: {"engine": engine(net()).save(f)})
    torch.manual_seed(0)
    other = engine(nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8)))
    with pytest.raises(EngineError, match=r"another model.*0\.bias is not in the checkpoint"):
        other.load(folder, read_state(folder)["engine"])


def test_schedules_against_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    cases = {
        Schedule("cosine"): lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        Schedule("step", step=2): lambda o: torch.optim.lr_scheduler.StepLR(o, 8, 0.1),
        Schedule("multistep", milestones=(1, 3)): lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [4, 12], 0.1),
        Schedule("polynomial", power=0.9): lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 20, 0.9),
        Schedule("constant"): lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
    }
    for schedule, make in cases.items():
        optimizer = torch.optim.SGD([parameter], 1.0)
        scheduler = make(optimizer)
        for update in range(20):
            assert factor(schedule, update, 20, 4) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
            optimizer.step()
            scheduler.step()


def test_warmup_rises_to_the_full_rate_and_one_cycle_peaks():
    warm = [factor(Schedule("constant", warmup=2, warmup_from=0.1), u, 20, 4) for u in range(12)]
    assert warm[0] == pytest.approx(0.1) and warm[8:] == [1.0] * 4 and warm == sorted(warm)
    cycle = [factor(Schedule("one_cycle"), u, 100, 10) for u in range(100)]
    assert max(cycle) == pytest.approx(1.0) and cycle.index(max(cycle)) == 30 and cycle[-1] < 0.01 < cycle[0]


def test_lengths_may_be_shares_of_the_run():
    shares = Schedule("multistep", unit="run", warmup=0.1, milestones=(0.5, 0.75))
    epochs = Schedule("multistep", warmup=0.5, milestones=(2.5, 3.75))
    for per_epoch in (2, 8, 1000):  # of which a run of 40 updates may be a part only
        assert [factor(shares, u, 40, per_epoch) for u in range(40)] == [factor(epochs, u, 40, 8) for u in range(40)]


@pytest.mark.parametrize(
    ("every", "times", "per_epoch", "length", "step"),
    [
        (1, 0, 8, 96, 8),
        (1, 6, 8, 96, 16),
        (1, 6, 2, 160, 27),
        (1, 6, 500, 160, 500),
        (0, 6, 8, 96, 96),
        (2, 20, 8, 96, 16),
    ],
)
def test_evaluations_are_spread_over_a_phase(every, times, per_epoch, length, step):
    assert between(Evaluation(every, times=times), per_epoch, length) == step


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    e = engine(net())
    e.update(pieces(1, 8))
    write_checkpoint(tmp_path, "000001", lambda f: {"engine": e.save(f)})
    with torch.no_grad():
        e.model[0].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(EngineError, match=r"not finite.*nothing was saved"):
        write_checkpoint(tmp_path, "000002", lambda f: {"engine": e.save(f)})
    assert [p.name for p in tmp_path.glob("[0-9]*")] == ["000001"]


def test_an_optimizer_whose_state_cannot_be_kept_is_refused():
    with pytest.raises(EngineError, match=r"kron.*keeps state"):
        engine(net(), name="kron")


def test_checkpoints_are_in_the_order_of_their_numbers_and_what_is_broken_goes(tmp_path):
    """Also beyond a million updates, whose names are longer."""
    from trunkline.cluster.checkpoint import find, prune

    for number in (999998, 999999, 1000000, 1000001):
        write_checkpoint(tmp_path, f"{number:06d}", lambda folder: {"engine": {}})
    (tmp_path / "000008").mkdir()
    (tmp_path / "000008/model.safetensors").touch()
    prune(tmp_path, 2)
    assert {p.name for p in tmp_path.iterdir()} == {"1000000", "1000001", "last"}
    (tmp_path / "last").unlink()
    assert find(tmp_path) == "1000001"
