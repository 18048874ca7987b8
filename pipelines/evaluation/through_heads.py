"""Pictures as every head of a model sees them: each picture goes through the head of every task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.samples import Samples
from .measure import inference

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 4  # pictures


@dataclass(frozen=True)
class Seen:
    """What a task's head says of a picture: its drawing (RGB), or in words `why` there is none.

    `own`: whether the picture is one of the task's own, so that its drawing may say what is right.
    """

    task: str
    picture: "Image | None"
    own: bool
    why: str = ""


def takes_pictures(task: Task) -> bool:
    """Say whether the task's inputs are pictures, and no clips or features."""
    return task.inputs_are == Task.inputs_are


def through_heads(
    model: Model, tasks: Mapping[str, Task], samples: Mapping[str, Samples], precision: str, device: torch.device
) -> Iterator[tuple[str, list[Seen]]]:
    """Yield some pictures of these splits by their addresses, each with what every task's head says of it.

    They are taken from each task in turn; what is not of a task's own data it reads as `predict` reads files.
    """
    places = {name: _places(own) for name, own in samples.items()}
    for address in _chosen(places):
        found = []
        for name, task in tasks.items():
            place = places[name].get(address)
            own = None if place is None else (samples[name], place)
            found.append(_seen(model, name, task, address, own, precision, device))
        yield address, found


def _places(samples: Samples) -> dict[str, int]:
    """Find the first sample of each file, by its address."""
    found: dict[str, int] = {}
    for i in range(len(samples)):
        found.setdefault(str(samples.source(i)), i)
    return found


def _chosen(places: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Choose pictures by their addresses: in turn from each task's, of these from those that most tasks have."""
    few, candidates = -(-MOST // max(1, len(places))), []
    for own in places.values():
        shared = {address: sum(address in other for other in places.values()) for address in own}
        candidates.append([address for address, count in shared.items() if count == max(shared.values())])
    rounds = [[_spread(each, count) for each in candidates] for count in (few, MOST)]
    turns = [address for each in rounds for turn in zip_longest(*each) for address in turn if address is not None]
    return list(dict.fromkeys(turns))[:MOST]


def _spread(items: list[str], count: int) -> list[str]:
    """Take so many items, evenly spread."""
    return list(dict.fromkeys(items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count))) if items else []


def _seen(
    model: Model,
    name: str,
    task: Task,
    address: str,
    own: tuple[Samples, int] | None,
    precision: str,
    device: torch.device,
) -> Seen:
    try:
        sample = own[0][own[1]] if own else task.read(address)
        batch = task.collate([task.transform(False)(sample)]).to(device)
        with inference(model, precision, device):
            (prediction,) = task.infer(model, batch)
        sample = own[0][own[1]] if own else task.read(address)  # as it was read, whatever the transform did to it
        picture = task.draw(sample, prediction).convert("RGB")
    except Exception as error:  # whatever a task cannot take of another's data must not cost a run its report
        if own:
            raise
        return Seen(name, None, False, f"{type(error).__name__}: {error}")
    picture.thumbnail((640, 640))
    return Seen(name, picture, own is not None)
