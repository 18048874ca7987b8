"""Balances of losses: beside their papers, and what they refuse; tasks that count nothing; passes of the trunk, counted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trunkline.cluster.checkpoint import read_tensors
from trunkline.cluster.engines.balance import Famo, GradientNorm
from trunkline.cluster.engines.turns import _of
from trunkline.cluster.workers import ALONE
from trunkline.ground.errors import EngineError, RecipeError
from trunkline.heads.contract import Batch, Player
from trunkline.heads.model import Model
from trunkline.pipelines import api
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.train import train

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "updates": 2}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.getbasetemp() / "balances"))
    torch.set_num_threads(1)


class Paper:
    """FAMO as published (Liu et al. 2023, algorithm 1): losses again after the step, on the same samples."""

    def __init__(self):
        self.x = self.first = self.second = torch.zeros(2, dtype=torch.float64)
        self.steps = 0

    def factors(self, losses: Tensor) -> Tensor:
        part = self.x.softmax(0) / losses
        return (part * 2 / part.sum()).float()

    def follow(self, before: Tensor, after: Tensor) -> None:
        z, fall = self.x.softmax(0), before.log() - after.log()
        gradient = z * (fall - (z * fall).sum()) + 0.01 * self.x
        self.steps += 1
        self.first, self.second = self.first.lerp(gradient, 0.1), self.second.lerp(gradient.square(), 0.001)
        scale = (self.second / (1 - 0.999**self.steps)).sqrt() + 1e-8
        self.x = self.x - 0.025 * (self.first / (1 - 0.9**self.steps)) / scale


def two_regressions(kind: str, seed: int, updates: int = 400) -> tuple[Tensor, float]:
    """Losses without noise of two regressions on one layer, one with targets ten times as large; the first one's share."""
    g = torch.Generator().manual_seed(seed)
    layer, near, far = (torch.randn(16, n, generator=g) * f for n, f in ((16, 0.25), (1, 1.0), (1, 10.0)))
    trunk, heads = nn.Linear(16, 16), nn.ModuleList([nn.Linear(16, 1), nn.Linear(16, 1)])
    parameters = [*trunk.parameters(), *heads.parameters()]
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=g) / 4)
    optimizer, famo, paper = torch.optim.SGD(parameters, lr=0.02), Famo(("a", "b")), Paper()

    def losses(x: Tensor, noise: float) -> Tensor:
        hidden = torch.tanh(x @ layer)
        found = []
        for head, weights, size in zip(heads, (near, far), (0.3, 3.0), strict=True):
            target = hidden @ weights + noise * size * torch.randn(
                len(x), 1, generator=torch.Generator().manual_seed(int(x[0, 0] * 1e6))
            )
            found.append((head(torch.tanh(trunk(x))) - target).square().mean())
        return torch.stack(found)

    for _ in range(updates):
        x = torch.randn(16, 16, generator=g)
        now = losses(x, 1.0)
        known = now.detach().double()
        factors = torch.stack([famo.factors()[n] for n in ("a", "b")]) if kind == "ours" else paper.factors(known)
        optimizer.zero_grad()
        ((torch.ones(2) if kind == "equal" else factors) * now).sum().backward()
        optimizer.step()
        famo.finish(1, {"a/loss": known[0], "b/loss": known[1]}, ALONE)
        with torch.no_grad():
            paper.follow(known, losses(x, 1.0).double())
    with torch.no_grad():
        left = losses(torch.randn(4000, 16, generator=torch.Generator().manual_seed(99)), 0.0)
    return left, float((famo._rows[0] if kind == "ours" else paper.x).softmax(0)[0])


def test_famo_needs_losses_above_0():
    famo = Famo(("a", "b"))
    with pytest.raises(EngineError, match=r"one is not above 0 \(b -1\); set another"):
        famo.finish(1, {"a/x": torch.tensor(2.0), "b/x": torch.tensor(-1.0)}, ALONE)
    with pytest.raises(EngineError, match=r"the task b had no loss in an update"):
        famo.finish(1, {"a/x": torch.tensor(2.0)}, ALONE)


def test_a_loss_that_famo_cannot_follow_never_stands_in_a_checkpoint():
    """A GPU is not waited for in the update; there the state itself is looked at when it is saved."""
    famo = Famo(("a", "b"))
    famo._rows = famo._rows.log()
    with pytest.raises(EngineError, match=r"one was not above 0; nothing was saved"):
        famo.state()


def test_a_players_own_micro_batches_are_a_mean_of_their_own():
    """Beside another task's micro-batch a task's has twice its weight for the model, and once for a critic."""
    player = Player(nn.Linear(1, 1), lambda model, batch: {}, tasks=("a",))
    mine = _of(player, [Batch("a", ["1"], scale=2.0), Batch("b", ["2"], scale=2.0)])
    assert [(b.task, b.scale) for b in mine] == [("a", 1.0)]


def test_famo_goes_on_from_what_a_checkpoint_kept():
    """With other tasks it begins anew."""
    losses = [
        {"a/x": torch.tensor(2.0 / n), "b/x": torch.tensor(3.0), "b/y": torch.tensor(1.0 * n)} for n in range(1, 7)
    ]
    famo = Famo(("a", "b"))
    for n, each in enumerate(losses):
        if n == 3:
            kept = json.loads(json.dumps(famo.state()))
        famo.finish(1, each, ALONE)
    again, other = Famo(("a", "b")), Famo(("a", "c"))
    again.load(kept)
    other.load(kept)
    assert again.state() == kept and again.factors() != {"a": 1.0, "b": 1.0}
    assert other.state() == Famo(("a", "c")).state()
    for each in losses[3:]:
        again.finish(1, each, ALONE)
    assert again.state() == famo.state() and again.factors() == famo.factors()


def test_gradient_norm_makes_all_tasks_as_strong_where_they_leave_the_trunk():
    """A loss ten times as large gets a tenth of the factor; a task that was not there keeps its own."""
    balance = GradientNorm(("a", "b"), {"a": 1.0, "b": 1.0})
    balance.began(torch.device("cpu"))
    for number, (task, size) in enumerate((("a", 1.0), ("b", 10.0), ("b", 10.0))):
        map_ = torch.ones(4, 3, 2, 2, requires_grad=True)
        batch = Batch(task, list("1234"))
        maps = balance(batch, {"c5": map_})
        (balance.weigh(task, maps["c5"].mean() * size) * batch.scale).backward()
        balance.took(number, batch)
    balance.finish(3, {}, ALONE)
    a, b = (float(balance.factors()[n]) for n in ("a", "b"))
    assert a == pytest.approx(10 * b) and a + b == pytest.approx(2.0)
    before = balance.state()
    balance.finish(1, {}, ALONE)
    assert balance.state() == before
    again = GradientNorm(("b", "c"), {"b": 1.0, "c": 1.0})
    again.load(json.loads(json.dumps(before)))
    assert again.state()["b"] == before["b"] and again.state()["c"] == [0.0, 1.0]
    assert again.factors() == {"b": balance.factors()["b"], "c": 1.0} and balance.factors()["b"] != 1.0


def test_famo_an_update_late_beside_the_paper():
    """Both help the task whose loss is large and falls slowly, ours less: it hears of a fall through the samples' noise."""
    ours, papers, equal = ([two_regressions(kind, seed) for seed in range(7)] for kind in ("ours", "paper", "equal"))
    for (left, share), (papers_left, papers_share), (plain, _) in zip(ours, papers, equal, strict=True):
        assert share < 0.75 and papers_share < 0.4
        assert left[0] < plain[0] and papers_left[0] < plain[0], "what equal weights neglect"
    small, large = median_ratio(ours, papers).tolist()
    plain_small, plain_large = median_ratio(equal, papers).tolist()
    print(
        f"\nof the paper's losses: FAMO {small:.2f} and {large:.2f}, equal weights {plain_small:.2f} and {plain_large:.2f}"
    )
    assert (small, large) == pytest.approx((0.79, 1.44), rel=0.1), "as docs/joint.md says"
    assert (plain_small, plain_large) == pytest.approx((2.96, 1.23), rel=0.1)


def median_ratio(ones: list, others: list) -> Tensor:
    return torch.stack([left / other for (left, _), (other, _) in zip(ones, others, strict=True)]).median(0).values


def test_a_balance_that_no_gradient_reaches_is_refused(tmp_path):
    """Also of a phase that comes later."""
    resolved = resolve(FILE, {**PLAIN, "balance": "gradient_norm"})
    (first,) = resolved.recipe.phases
    later = replace(resolved.recipe, phases=(first, replace(first, name="heads", frozen=5, still=("pyramid",))))
    with pytest.raises(RecipeError, match=r"balance=gradient_norm: phases.1.frozen=5: .* no gradient reaches it"):
        train(replace(resolved, recipe=later), tmp_path / "run")


def test_a_task_that_reads_only_what_is_frozen_keeps_its_factor_and_is_named(tmp_path):
    resolved = resolve(FILE, {**PLAIN, "balance": "gradient_norm"})
    (phase,) = resolved.recipe.phases
    train(replace(resolved, recipe=replace(resolved.recipe, phases=(replace(phase, frozen=5),))), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    told = [line["text"] for line in lines if "reads only maps" in line.get("text", "")]
    said = (
        "balance=gradient_norm: phases.0.frozen=5: classification reads only maps that do not learn: its factor stays 1"
    )
    assert told == [said]
    factors = [line["measured"] for line in lines if line["kind"] == "train"][-1]
    assert factors["balance/classification"] == 1 != factors["balance/boxes"]


def weights_of(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / "checkpoints/000002/model.safetensors")


def test_a_task_of_weight_0_in_a_shared_batch_changes_no_bit_of_the_others(tmp_path):
    train(resolve(FILE, {**PLAIN, "loss_weights.some": 0}), tmp_path / "with")
    train(resolve(FILE, {**PLAIN, "names": ("classification", "boxes"), "shared": False}), tmp_path / "without")
    one, other = weights_of(tmp_path / "with"), weights_of(tmp_path / "without")
    assert [n for n in other if not torch.equal(one[n], other[n])] == []


@pytest.mark.parametrize(("shared", "passes"), [(True, 4), (False, 6)])
def test_a_shared_batch_goes_through_the_trunk_once(shared, passes, tmp_path, monkeypatch):
    seen, original = [], Model.maps

    def counted(self, batch):
        seen.extend([batch.task] * self.training)
        return original(self, batch)

    monkeypatch.setattr(Model, "maps", counted)
    train(resolve(FILE, {**PLAIN, "updates": 1, "shared": shared}), tmp_path / "run")
    assert len(seen) == passes and ("boxes+some" in seen) == shared


def test_show_tells_which_tasks_share_a_pass():
    origins = {key: origin for key, _, origin in api.show(FILE).rows}
    assert origins["shared_batch"].endswith("an update's passes of the trunk are of: classification, boxes+some")
