"""The two players of super-resolution: a generator, which is the model, and a critic beside it.

An update is the generator's turn, then the critic's. In the generator's turn the critic is called but does not learn; in
the critic's turn pictures are made new by the generator as it is now, without gradients and in train mode. The engine of
players (`cluster/engines/turns.py`) keeps whoever has no turn still: no gradient, and each forward leaves its buffers as
they were.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trunkline.ground.errors import EngineError
from trunkline.ground.keys import key, seed_model
from trunkline.ground.measured import MEASURED

from ..contract import Batch, Player
from ..model import Model
from .adversarial import Adversarial, accuracies, critic_losses, generator_loss

Pixel = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""From what was made and the truth, `(N, 3, H, W)` in 0..1, to named losses, which are scalars."""

FLAT = 1e-4  # a range of outputs, in units of 0..1, below which they are constant
LEVEL = 1 / 255
RIGHT = 500  # updates on end in which a critic is always right before it is remarked

ALWAYS_RIGHT = (
    f"the critic was always right for {RIGHT} updates on end: it may be too strong for the generator to learn from it. A lower "
    "learning rate of the critic, norm=spectral or a smaller width of it, or a larger pixel weight may help"
)


def players_of(
    model: Model,
    task: str,
    settings: Adversarial | None,
    pixel: Pixel,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    playing: tuple[str, ...] = (),
) -> dict[str, Player]:
    """Say who learns, in the order of turns: `generator`, and `critic` where there is one beside the model.

    `playing` are the players of a phase (empty: all). Where the critic is not among them, the generator learns from
    `pixel` alone, at its full weight. Else its losses are `pixel` times `settings.pixel`, `perceptual` as it is, and the
    critic's opinion times `settings.weight`. Micro-batches have `images` uint8 and `targets["hr"]` `(N, 3, H, W)` uint8;
    the task's head gives pictures `(N, 3, H, W)` in 0..1 from the maps.

    The pictures that `settings.reuse` keeps from turn to turn lie on the device, one tensor a micro-batch.
    """
    critic = model.beside.get("critic")
    against = settings if critic is not None and (not playing or "critic" in playing) else None
    losses = _Losses(model, task, against, pixel, perceptual, critic)
    maps = getattr(perceptual, "network", None) if against else None
    generator = Player(
        model, losses.of_generator, waits=against.warmup if against else 0, watch=watch_outputs(task),
        uses=() if maps is None else (maps,),
    )  # fmt: skip
    if critic is None:
        return {"generator": generator}
    return {"generator": generator, "critic": Player(critic, losses.of_critic, watch=WatchCritic())}


class _Losses:
    """The losses of both players of one task, and what was made for one turn and is kept for the other."""

    def __init__(
        self,
        model: Model,
        task: str,
        against: Adversarial | None,
        pixel: Pixel,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None,
        critic: nn.Module | None,
    ):
        self.model, self.task, self.against = model, task, against
        self.pixel, self.perceptual, self.critic = pixel, perceptual, critic
        self._kept: dict[int, Tensor] = {}  # by a micro-batch's key; only between the turns of an update

    def _make(self, batch: Batch) -> Tensor:
        """Make the pictures of a micro-batch; what is random in that comes from its key, in either turn."""
        device = self.model.mean.device.type
        seed_model(key(batch.key, "trunk"), device)
        features = self.model.maps(batch)
        seed_model(key(batch.key, self.task), device)
        return _precise(self.model.heads[self.task](features, batch))

    def _truth(self, batch: Batch, made: Tensor) -> Tensor:
        """Convert the true pictures to 0..1. Raises EngineError where they are of another size than what was made."""
        truth = batch.targets["hr"]
        if truth.shape != made.shape:
            raise EngineError(
                f"the generator made pictures of {tuple(made.shape)}, and the true ones are {tuple(truth.shape)}: the scale of "
                "the network and of the data must agree"
            )
        if self.model.channels_last:
            truth = truth.contiguous(memory_format=torch.channels_last)
        return truth.to(made.dtype) / 255

    def of_generator(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the generator's losses, and the ranges of what it made and of the truth."""
        made, settings = self._make(batch), self.against
        truth = self._truth(batch, made)
        weight = settings.pixel if settings else 1.0
        named = {}
        if weight:
            named = {n: loss if weight == 1.0 else loss * weight for n, loss in self.pixel(made, truth).items()}
        if settings:
            assert self.critic is not None
            if self.perceptual:
                named["perceptual"] = self.perceptual(made, truth)
            real = None
            if settings.kind == "relativistic":
                with torch.no_grad():
                    real = _precise(self.critic(truth))
            named["adversarial"] = generator_loss(settings.kind, _precise(self.critic(made)), real) * settings.weight
            if settings.reuse:
                self._kept[batch.key] = made.detach()
        ranges = {"range": _range(made.detach()), "range_of_truth": _range(truth)}
        return {f"{self.task}/{n}": loss for n, loss in named.items()} | {
            f"{MEASURED}{self.task}/{n}": value for n, value in ranges.items()
        }

    def of_critic(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Compute the critic's losses of real and of made pictures, in two forwards, and how many it tells right."""
        assert self.against is not None
        made = self._kept.pop(batch.key, None)
        if made is None:  # the usual order, and where the generator waits
            with torch.no_grad():
                made = self._make(batch)
        real, fake = _precise(module(self._truth(batch, made))), _precise(module(made))
        named = critic_losses(self.against.kind, real, fake)
        right = accuracies(self.against.kind, real.detach(), fake.detach())
        return {f"critic/{n}": loss for n, loss in named.items()} | {
            f"{MEASURED}critic/accuracy_{n}": share for n, share in right.items()
        }


def _precise(numbers: Tensor) -> Tensor:
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def _range(pictures: Tensor) -> Tensor:
    low, high = torch.aminmax(pictures)
    return high - low


def watch_outputs(task: str) -> Callable[[int, Mapping[str, float]], list[str]]:
    """Make what stops a run whose generator makes one colour and nothing else (its losses say what is not finite)."""

    def watch(update: int, numbers: Mapping[str, float]) -> list[str]:
        made, truth = numbers.get(f"{task}/range", 1.0), numbers.get(f"{task}/range_of_truth", 0.0)
        if made < FLAT and truth >= LEVEL:
            raise EngineError(
                f"in update {update} all that the generator made is one constant colour: its values are {made:.1e} of 0..1 "
                f"apart, those of the true pictures {truth:.2g}. Go on from an earlier checkpoint, or begin again, with a lower "
                "optimizer.lr, optimizer.clip=1, a smaller weight of the critic or a larger one of the pixels; the last "
                "good checkpoint stays"
            )
        return []

    return watch


class WatchCritic:
    """Remarks a critic that was right about every picture in `RIGHT` updates on end."""

    def __init__(self) -> None:
        self.right = 0

    def __call__(self, update: int, numbers: Mapping[str, float]) -> list[str]:
        """Count the update; return the remark when there are enough of them."""
        always = all(numbers.get(f"critic/accuracy_{kind}") == 1.0 for kind in ("real", "fake"))
        self.right = self.right + 1 if always else 0
        return [ALWAYS_RIGHT] if self.right == RIGHT else []
