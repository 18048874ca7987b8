"""RoIAlign on a CPU has torchvision's numbers and gradients, for any boxes, and the same bits for a box in any company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign

from trunkline.heads.roi_align import RoIAlign

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


def maps(images: int, height: int, width: int, dtype=torch.float32, channels_last: bool = False) -> dict:
    form = torch.channels_last if channels_last else torch.contiguous_format
    shapes = {name: (images, 6, -(-height // s), -(-width // s)) for name, s in STRIDES.items()}
    drawn = {name: torch.randn(shape, dtype=dtype).contiguous(memory_format=form) for name, shape in shapes.items()}
    return {name: m.requires_grad_() for name, m in drawn.items()}


def boxes(count: int, height: int, width: int) -> torch.Tensor:
    """Inside, across the border, far outside, almost without size."""
    corner = (torch.rand(count, 2) * 1.6 - 0.3) * torch.tensor([width, height])
    return torch.cat([corner, corner + torch.rand(count, 2) * torch.rand(count, 1) ** 3 * 900], 1)


def both(count: list[int], height: int, width: int, size: int, channels_last: bool, seed: int):
    torch.manual_seed(seed)
    x = maps(len(count), height, width, torch.float64, channels_last)
    given = [boxes(n, height, width).double() for n in count]
    own = RoIAlign(STRIDES, size)
    theirs = MultiScaleRoIAlign([*STRIDES], size, 2)
    theirs.scales, theirs.map_levels = own.scales, own.map_levels
    results = []
    for pool in (own, theirs):
        found = pool(x, given, [(height, width)] * len(count))
        gradients = torch.autograd.grad((found * found).sum(), [*x.values()])
        results.append((found, gradients))
    return results


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([1, 7, 14]), st.booleans(), st.integers(0, 1 << 30),
)  # fmt: skip
def test_numbers_and_gradients_are_torchvisions(count, height, width, size, channels_last, seed):
    (own, own_gradients), (theirs, their_gradients) = both(count, height, width, size, channels_last, seed)
    assert own.shape == theirs.shape == (sum(count), 6, size, size)
    torch.testing.assert_close(own, theirs, atol=1e-9, rtol=1e-9)
    for a, b in zip(own_gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_box_has_its_bits_in_any_company():
    torch.manual_seed(0)
    x = maps(3, 128, 192)
    given = [boxes(40, 128, 192) for _ in range(3)]
    pool = RoIAlign(STRIDES, 7)
    together = pool(x, given, [(128, 192)] * 3).split(40)
    for n, own in enumerate(given):
        alone = pool({name: m[n : n + 1] for name, m in x.items()}, [own[7:9]], [(128, 192)])
        assert torch.equal(alone, together[n][7:9])


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_have_the_same_bits_every_time(threads):
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, given, pool = maps(2, 320, 320), [boxes(300, 320, 320) for _ in range(2)], RoIAlign(STRIDES, 7)
        found = [torch.autograd.grad(pool(x, given, [(320, 320)] * 2).square().sum(), [*x.values()]) for _ in range(3)]
        assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))
    finally:
        torch.set_num_threads(before)


def test_bf16_maps_are_read_at_full_places():
    torch.manual_seed(0)
    x = maps(1, 256, 256, torch.bfloat16)
    given = [boxes(30, 256, 256)]
    pool = RoIAlign(STRIDES, 7)
    found = pool(x, given, [(256, 256)])
    full = pool({name: m.float() for name, m in x.items()}, given, [(256, 256)])
    assert found.dtype == torch.bfloat16 and torch.equal(found, full.bfloat16())


def test_a_box_that_is_not_a_number_is_not_hidden():
    x = maps(1, 64, 64)
    given = torch.tensor([[float("nan")] * 4, [0.0, 0, 10, 10], [float("-inf"), 0, float("inf"), 10]])
    found = RoIAlign(STRIDES, 7)(x, [given], [(64, 64)])
    assert found[0].isnan().all() and found[1].isfinite().all()
