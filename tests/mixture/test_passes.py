"""Which heads share a pass of the trunk in evaluation: those that see the same pixels, each with the pictures of its own."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from trunkline.backbones.contract import Preprocessing
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.pipelines.evaluation.together import in_passes, passes


class Sums(nn.Module):
    """A trunk whose one map is each picture's sum."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.seen.append(len(x))
        return {"c5": x.sum((1, 2, 3)) * self.weight}


def pictures(*numbers: int, side: int = 4) -> Tensor:
    return torch.stack([torch.full((3, side, side), number, dtype=torch.uint8) for number in numbers])


def batch(task: str, images: Tensor) -> Batch:
    return Batch(task, [str(n) for n in range(len(images))], images)


def sums(batches: dict[str, tuple[list[int], Batch]]) -> tuple[dict[str, list[int]], list[int]]:
    """What each head reads of the maps, and how many pictures each pass of the trunk has."""
    trunk = Sums()
    model = Model(trunk, {}, Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3)).eval()

    def read(_: str, own: Batch) -> list[int]:
        maps = model.maps(own) if own.features is None else own.features
        assert own.images is not None and len(own) == len(own.images) == len(maps["c5"])
        return [round(float(v)) for v in maps["c5"]]

    with torch.inference_mode():
        return in_passes(model, passes(batches), read), trunk.seen


def test_heads_of_the_same_pixels_share_a_pass_and_each_reads_its_own_pictures():
    """b labels one picture of a's, c one of them and one more: three pictures go through the trunk, once."""
    each = {
        "a": ([0, 1], batch("a", pictures(1, 2))),
        "b": ([1], batch("b", pictures(2))),
        "c": ([1, 2], batch("c", pictures(2, 3))),
    }
    found, seen = sums(each)
    assert found == {"a": [48, 96], "b": [96], "c": [96, 144]} and seen == [3]


def test_heads_that_see_other_pixels_have_passes_of_their_own():
    """Brighter ones, larger ones, others of the same size that are padded, and no picture in common."""
    one = batch("a", pictures(1, 2))
    for other in (pictures(1, 9), pictures(1, 2, side=6)):
        found, seen = sums({"a": ([0, 1], one), "b": ([0, 1], batch("b", other))})
        assert found["a"] == [48, 96] and found["b"] == [int(p.sum()) for p in other] and seen == [2, 2]
    sizes = torch.tensor([[4, 4], [4, 3]])
    made = passes({"a": ([0, 1], one), "b": ([0, 1], replace(one, task="b", sizes=sizes))})
    assert [len(part.parts) for part in made.parts] == [1, 1]
    assert len(passes({"a": ([0, 1], one), "b": ([2, 3], replace(one, task="b"))}).parts) == 2
