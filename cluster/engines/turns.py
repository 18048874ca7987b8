"""Players that learn in turns: an engine that holds one for each of them and gives each its turn in every update."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoint import SAME, Parts, check_tensors, read_tensors, write_tensors
from ..contract import Player, Report
from .torch_engine import TorchEngine


@contextlib.contextmanager
def still(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Keep these modules from learning: no gradient for them, and each forward leaves their buffers as they were.

    Batch norms that would only write their statistics have none meanwhile, which costs nothing; all other buffers are put
    back.
    """
    modules = list(modules)
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    parts = [part for module in modules for part in module.modules()]
    norms = [(part, dict(part._buffers)) for part in parts if _only_writes(part)]
    held = [(part, buffers, [torch.empty_like(b) for b in buffers]) for part in parts
            if not _only_writes(part) and (buffers := _saved(part))]  # fmt: skip
    _copied([b for *_, before in held for b in before], [b for _, buffers, _ in held for b in buffers])
    hooks = [
        part.register_forward_hook(lambda *_, to=buffers, of=before: _copied(to, of)) for part, buffers, before in held
    ]
    for part, statistics in norms:
        part._buffers.update(dict.fromkeys(statistics))
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
        for hook in hooks:
            hook.remove()
        for part, statistics in norms:
            part._buffers.update(statistics)


def _only_writes(part: nn.Module) -> bool:
    """Say whether a module computes the same without its buffers.

    SyncBatchNorm insists on them, and of a norm that can `take` another task's passes some may read them.
    """
    insists = isinstance(part, nn.SyncBatchNorm) or hasattr(part, "take")
    return isinstance(part, _BatchNorm) and part.training and not insists


def _saved(part: nn.Module) -> list[Tensor]:
    """Return a module's own buffers that a checkpoint holds; the others are constants."""
    return [b for name, b in part._buffers.items() if b is not None and name not in part._non_persistent_buffers_set]


def _copied(to: list[Tensor], of: list[Tensor]) -> None:
    """Copy all at once; through data, so that autograd does not count it as a change."""
    if to:
        torch._foreach_copy_([t.data for t in to], [t.data for t in of])  # pyright: ignore[reportPrivateImportUsage]


class TurnsEngine:
    """An engine of engines: `players` that play, in their order, and modules that only `rest` in this phase.

    Each player's micro-batches are those of its tasks; while it learns, all others are still. One that still waits has
    no turn. Of all, the norm of the gradient is reported. With fp16 each has a loss scale of its own: where one's
    gradients overflow, that one alone skips its turn. The first player's files are where a single player's would be;
    those of the others, and of modules that rest, are in a folder of their name.
    """

    def __init__(
        self, players: Mapping[str, Player], engines: Mapping[str, TorchEngine], rest: Mapping[str, nn.Module]
    ):
        self.players, self.engines, self.rest = dict(players), dict(engines), dict(rest)
        self.first = next(iter(self.engines))
        for engine in self.engines.values():
            engine.measures_norm = True

    @property
    def updates(self) -> int:
        """How many updates are done."""
        return self.engines[self.first].updates

    @property
    def machine(self) -> Any:
        """Where the players compute."""
        return self.engines[self.first].machine

    def update(self, micro_batches: Sequence[Any]) -> Report:
        """Give each player a turn over its own micro-batches; return the first one's report, with the others in it."""
        reports = {}
        for name, engine in self.engines.items():
            if engine.updates < self.players[name].waits:
                reports[name] = engine.wait()
                continue
            others = [p.module for n, p in self.players.items() if n != name]
            with still([*others, *self.rest.values()]):
                reports[name] = engine.update(_of(self.players[name], micro_batches))
        report = reports.pop(self.first)
        report.others = reports
        return report

    def save(self, folder: Path | None) -> dict[str, Any]:
        """Write what every player's engine writes, and the weights of modules that rest."""
        states = {}
        for name, engine in self.engines.items():
            states[name] = engine.save(self._place(folder, name))
        for name, module in self.rest.items():
            if place := self._place(folder, name):
                write_tensors(place / "model.safetensors", dict(module.state_dict()))
        return {**states.pop(self.first), "others": states}

    def load(self, folder: Path, state: dict[str, Any], parts: Parts = SAME) -> None:
        """Put back what `save` wrote and returned; `parts` of the first player are new since, or gone."""
        for name, engine in self.engines.items():
            own = state if name == self.first else state["others"][name]
            engine.load(folder if name == self.first else folder / name, own, parts if name == self.first else SAME)
        load_resting(self.rest, folder)

    def _place(self, folder: Path | None, name: str) -> Path | None:
        if folder is None or name == self.first:
            return folder
        (folder / name).mkdir(exist_ok=True)
        return folder / name

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Return the state dict of the first player."""
        return self.engines[self.first].weights(averaged)

    def close(self) -> None:
        """Let go of all players."""
        for engine in self.engines.values():
            engine.close()


def load_resting(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Load the saved weights of modules that rest, or of all players but the first."""
    for name, module in modules.items():
        saved = read_tensors(folder / name / "model.safetensors")
        check_tensors(folder / name, module.state_dict(), saved)
        module.load_state_dict(saved)


def _of(player: Player, micro_batches: Sequence[Any]) -> list[Any]:
    """List the player's micro-batches; where this worker has none of them, a stand-in."""
    if not player.tasks:
        return list(micro_batches)
    # the scale makes a mean over all tasks' micro-batches one over this task's, weighed: its engine sees no others
    own = [replace(b, scale=1.0) for b in micro_batches if b.task in player.tasks]
    return own or [replace(micro_batches[0], stand_in=True)]
