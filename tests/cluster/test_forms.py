"""One call for all tensors gives the bits of a call for each; and what a fused optimizer changes."""

import platform
import resource

import pytest
import torch
from test_engine import engine, net, pieces, same
from torch import nn

from trunkline.cluster.checkpoint import read_state, write_checkpoint
from trunkline.cluster.config import Optimizer
from trunkline.cluster.engines.optimizer import FUSED, build_optimizer
from trunkline.cluster.engines.torch_engine import penalise
from trunkline.cluster.engines.tuning import Tuning, keep_memory
from trunkline.ground.errors import EngineError


def tensors(seed: int) -> list[nn.Parameter]:
    """Parameters of many sizes and both memory formats, with gradients; one has none."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(64, 3, 7, 7), (64, 64, 3, 3), (256, 64, 1, 1), (100, 256), (1, 7), (3, 0)]
    found = [nn.Parameter(torch.randn(s, generator=g)) for s in shapes]
    found[1].data = found[1].data.contiguous(memory_format=torch.channels_last)
    for p in found:
        p.grad = torch.randn(p.shape, generator=g).to(memory_format=torch.preserve_format) * 0.1
    found[2].data[::2] = 0.0  # whose sign is 0
    found[0].grad, found[3].grad = torch.zeros_like(found[0]), None
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_penalty_and_clipping_for_all_at_once_have_the_bits_of_one_after_another(seed):
    ours, plain = tensors(seed), tensors(seed)
    penalise(ours, 0.003)
    for p in plain:
        if p.grad is not None:
            p.grad.add_(p.detach().sign(), alpha=0.003)
    norms = [nn.utils.clip_grad_norm_(each, 0.5, foreach=form) for each, form in ((ours, True), (plain, False))]
    assert torch.equal(*norms) and norms[0] > 0.5
    for a, b in zip(ours, plain, strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_an_optimizer_without_a_fused_form_is_refused_with_those_that_have_one():
    for name in FUSED:
        build_optimizer(net(), Optimizer(name, options={"fused": True}))
    build_optimizer(net(), Optimizer("lookahead_adam", options={"fused": True}))
    with pytest.raises(
        EngineError, match=r"optimizer\.options\.fused: lamb takes no such option; sgd, nesterov, .* do"
    ):
        build_optimizer(net(), Optimizer("lamb", options={"fused": True}))


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_ends_near_the_other_and_goes_on_to_its_own_bits(name, tmp_path):
    """In twelve updates no weight is further from the default form's than a hundred-thousandth of the largest."""
    settings = {"name": name, "lr": 1e-2, "clip": 1.0, "weight_decay": 0.01, "average": 0.0}
    fused = {**settings, "options": {"fused": True}}
    plain, whole, first = engine(net(), **settings), engine(net(), **fused), engine(net(), **fused)
    for u in range(12):
        for e in (plain, whole) if u >= 6 else (plain, whole, first):
            e.update(pieces(2, 8, seed=u))
    folder = write_checkpoint(tmp_path, "000006", lambda f: {"engine": first.save(f)})
    second = engine(net(), **fused)
    second.load(folder, read_state(folder)["engine"])
    for u in range(6, 12):
        second.update(pieces(2, 8, seed=u))
    assert second.optimizer.param_groups[0]["fused"] is True
    assert same(whole.weights(), second.weights())
    largest = max(float(p.detach().abs().max()) for p in plain.model.parameters())
    for a, b in zip(plain.model.parameters(), whole.model.parameters(), strict=True):
        assert float((a - b).detach().abs().max()) < 1e-5 * largest


def test_an_optimizer_without_a_fused_form_says_what_it_takes():
    with pytest.raises(EngineError, match=r"lamb.*fused|fused.*lamb"):
        engine(net(), name="lamb", options={"fused": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fused": "no"}, r"optimizer.options.fused=no: expected true or false"),
        ({"fused": 1}, r"optimizer.options.fused=1: expected true or false"),
        ({"fused": True, "foreach": True}, r"'momentum' does not take these settings.*fused.*foreach"),
    ],
)
def test_a_wrong_form_is_one_clear_line(options, message):
    with pytest.raises(EngineError, match=message):
        engine(net(), name="momentum", options=options)


class Shaped:
    def __init__(self, task: str, side: int):
        self.task, self.images = task, torch.empty(2, 3, side, side, dtype=torch.uint8)


def test_kernels_are_tried_only_where_shapes_stay():
    tuning = Tuning(torch.device("cuda"), False)
    assert [tuning.fixed(Shaped("a", side)) for side in (8, 8, 8)] == [False, True, True]
    assert [tuning.fixed(Shaped("b", side)) for side in (16, 16)] == [False, True], "each task has its own shape"
    with tuning.of(Shaped("a", 8)):
        assert torch.backends.cudnn.benchmark is True
    assert torch.backends.cudnn.benchmark is False
    assert [tuning.fixed(Shaped("b", side)) for side in (24, 24, 16)] == [False] * 3, "it may change again"
    assert not tuning.fixed(Shaped("a", 8))
    for device, deterministic in (("cuda", True), ("cpu", False)):
        off = Tuning(torch.device(device), deterministic)
        assert not any(off.fixed(Shaped("a", 8)) for _ in range(3))


class Drift(nn.Module):
    """What a forward gives depends on how often it ran before, as with spectral norm."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(1.0))

    def forward(self, x):
        out = x * self.gain.clone()  # as spectral norm clones what its backward reads
        if self.training:
            self.gain.mul_(1.5)
        return out


class Drifting(nn.Module):
    def __init__(self, recompute: bool):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.last, self.recompute = (
            nn.Sequential(nn.Flatten(), Drift(), nn.Linear(192, 4)),
            Drift(),
            recompute,
        )

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return self.last(checkpoint(self.body, x, use_reentrant=False) if self.recompute else self.body(x))


@pytest.mark.parametrize("micro", [1, 3])
def test_a_recomputed_forward_begins_from_the_buffers_that_the_first_one_had(micro):
    plain, recomputed = engine(Drifting(False)), engine(Drifting(True))
    for u in range(3):
        for e in (plain, recomputed):
            e.update(pieces(micro, 4, seed=u))
    assert same(plain.weights(), recomputed.weights())
    assert float(plain.model.last.gain) == pytest.approx(1.5**3)


def test_parameters_of_mixed_types_are_summed():
    """A gradient in bf16 is one that numpy does not know."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.a, self.b = nn.Linear(192, 4), nn.Linear(4, 4).to(torch.bfloat16)

        def forward(self, x):
            return self.b(self.a(x.flatten(1)).to(torch.bfloat16)).float()

    e = engine(Mixed())
    for u in range(2):
        assert e.update(pieces(3, 4, seed=u)).numbers()["total"] > 0


def test_freed_memory_is_kept_for_the_next_update(monkeypatch):
    """Where glibc keeps it, a large tensor that is made again and again costs no page faults; the environment's word stands."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not keep_memory()
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    glibc = platform.libc_ver()[0] == "glibc"
    assert keep_memory() == glibc
    for _ in range(2):  # the first time round the memory is new
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(5_000_000)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert not glibc or faults < 20 * 5_000_000 * 4 / 4096 / 10
