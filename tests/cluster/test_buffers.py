"""Buffers in an update: used in the backward, shared, constant; and what an update that failed leaves to the next."""

import copy

import pytest
import torch
from test_engine import engine, net, pieces, same
from torch import nn

from trunkline.ground.errors import EngineError


class Head(nn.Module):
    """A layer over what `parts` make of the picture, one after another."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        torch.manual_seed(1)
        self.parts, self.last = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), *parts), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.parts(x))


class Normed(nn.Module):
    """Divides by a running mean, which it moves first: the backward needs what the forward made of it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("size", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.size.lerp_(x.detach().abs().mean(), 0.5)
        return x / self.size


def test_the_backward_sees_the_buffers_that_its_forward_made():
    """The mean over micro-batches of each one's gradient and buffers, each from the update's first, as plain torch has them."""
    e = engine(Head(Normed()), average=0.0, lr=1.0, momentum=0.0, weight_decay=0.0)
    plain, batches = Head(Normed()), pieces(3, 4)
    first, made = copy.deepcopy(plain.state_dict()), []
    for piece in batches:
        plain.load_state_dict(first)
        nn.functional.cross_entropy(plain(piece.x), piece.y).backward()
        made.append(plain.parts[2].size.clone())
    plain.load_state_dict(first)
    e.update(batches)
    for ours, own in zip(e.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, own - own.grad / 3)
    torch.testing.assert_close(e.model.parts[2].size, torch.stack(made).mean())


class Fails(nn.Module):
    """Fails in the forward, or in the backward, when it is told to."""

    def __init__(self):
        super().__init__()
        self.when = ""

    def forward(self, x):
        if self.when == "forward":
            raise ArithmeticError
        x = x * 1.0
        if self.when == "backward" and x.requires_grad:
            x.register_hook(self.fail)
        return x

    def fail(self, gradient):
        raise ArithmeticError


@pytest.mark.parametrize("reduction", ["exact", "plain"])
@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("micro", [1, 3])
def test_an_update_that_failed_leaves_nothing_to_the_next(when, micro, reduction):
    """It fails in its last micro-batch, past a batch norm that has counted, and past layers that have gradients."""
    failing, other = (engine(Head(nn.BatchNorm1d(8), Fails(), nn.Linear(8, 8), nn.BatchNorm1d(8))) for _ in range(2))
    for e in (failing, other):
        e._gradients.exact = reduction == "exact"
        e.update(pieces(2, 4, seed=1))
    batches, fails = pieces(micro, 4, seed=2), failing.model.parts[3]
    batches[-1].to = lambda device: setattr(fails, "when", when) or batches[-1]
    with pytest.raises(ArithmeticError):
        failing.update(batches)
    fails.when = ""
    assert failing.updates == other.updates == 1
    for e in (failing, other):
        e.update(pieces(micro, 4, seed=3))
    assert same(failing.weights(), other.weights())
    assert int(failing.model.parts[2].num_batches_tracked) == 2


class Counts(nn.Module):
    """Counts its forwards in a buffer."""

    def __init__(self, buffer: torch.Tensor):
        super().__init__()
        self.register_buffer("count", buffer)

    def forward(self, x):
        if self.training:
            self.count += 1
        return x


@pytest.mark.parametrize("micro", [1, 3])
def test_a_buffer_of_two_modules_is_one_buffer(micro):
    a, b = torch.zeros(()), torch.zeros(2)
    both = Counts(a)
    both.register_buffer("other", b)  # joins the two before it
    e = engine(Head(Counts(a), Counts(b), nn.BatchNorm1d(8), both))
    e.update(pieces(micro, 4))
    _, _, one, two, _, both = e.model.parts
    assert one.count is both.count and two.count is both.other
    assert float(one.count) == 2.0 and two.count.tolist() == [1.0, 1.0]


class Constants(nn.Module):
    """Holds buffers of unusual types; `moves` one of them in every forward."""

    def __init__(self, moves: str = ""):
        super().__init__()
        self.moves = moves
        self.register_buffer("wide", torch.rand(1000, dtype=torch.float64))
        self.register_buffer("single", torch.rand(1000) * 1e-3)
        self.register_buffer("whole", torch.arange(10) + 2**50)
        self.register_buffer("yes", torch.tensor([True, False]))
        self.register_buffer("complex", torch.tensor([1 + 2j]))
        self.register_buffer("byte", torch.ones(3).to(torch.float8_e4m3fn))
        self.register_buffer("none", None)

    def forward(self, x):
        if self.moves:
            getattr(self, self.moves).mul_(2.0)
        return x


@pytest.mark.parametrize("micro", [1, 3, 7])
def test_a_constant_stays_what_it_is(micro):
    torch.manual_seed(0)
    e = engine(Head(Constants()))
    before = {n: b.clone() for n, b in e.model.named_buffers()}
    for u in range(3):
        e.update(pieces(micro, 4, seed=u))
    after = dict(e.model.named_buffers())
    assert len(after) == 6 and all(
        torch.equal(after[n].to(b.dtype).view(torch.uint8), b.view(torch.uint8)) for n, b in before.items()
    )
    assert torch.equal(after["parts.2.wide"], before["parts.2.wide"])
    assert torch.equal(after["parts.2.whole"], before["parts.2.whole"])


def test_a_buffer_without_a_mean_must_not_change():
    e = engine(Head(Constants("complex")))
    e.update(pieces(1, 4))
    with pytest.raises(EngineError, match=r"parts\.2\.complex changes in training, and torch\.complex64 has no mean"):
        e.update(pieces(2, 4))
    e = engine(Head(Constants("wide")))
    first = e.model.parts[2].wide.clone()
    e.update(pieces(2, 4))
    assert torch.equal(e.model.parts[2].wide, 2 * first)


def test_an_engine_whose_buffers_another_one_took_is_refused():
    model = net()
    first = engine(model)
    first.update(pieces(2, 4))
    first.close()
    second = engine(model)
    second.update(pieces(2, 4))
    assert int(model[1].num_batches_tracked) == 2
    with pytest.raises(EngineError, match=r"1\.running_mean and 2 more lie elsewhere .* one engine at a time"):
        first.update(pieces(2, 4))


@pytest.mark.parametrize("cores", [1, 64])
def test_sparse_gradients_are_summed_like_others(cores, monkeypatch):
    """A table's sparse gradient; with many cores torch adds, not numpy."""
    from trunkline.cluster.engines import sums

    monkeypatch.setattr(sums, "MANY_CORES", 64 // cores)

    class Table(nn.Module):
        def __init__(self, sparse: bool):
            super().__init__()
            torch.manual_seed(1)
            self.table = nn.EmbeddingBag(7, 4, sparse=sparse, mode="sum")

        def forward(self, x):
            return self.table((x.flatten(1) * 10).long().remainder(7))

    engines = [engine(Table(sparse)) for sparse in (True, False)]
    for e in engines:
        e.update(pieces(3, 4))
    for sparse, dense in zip(*(e.model.parameters() for e in engines), strict=True):
        torch.testing.assert_close(sparse, dense)
