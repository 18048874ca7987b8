"""From a phase to its engine: one player's, or one that gives several their turns."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_model
from trunkline.ground.names import load_named

from ...cluster.config import Learning
from ...cluster.contract import Engine, Losses
from ...cluster.engines.balance import Famo, Fixed, GradientNorm, Uncertainty
from ...cluster.engines.memory_format import place
from ...cluster.engines.table import engine_of
from ...cluster.engines.turns import TurnsEngine
from ...heads.contract import Player
from ...heads.model import spread_of
from ..recipe.fields import Phase, learning_tasks
from .session import Session


def make_engine(session: Session, phase: Phase, total: int, per_epoch: int) -> Engine:
    """Make the engine of a phase of `total` updates that the launch names.

    Raises RecipeError where it cannot train the phase's players in turns.
    """
    machine = session.recipe.machine
    if phase.cached:  # only the head is left: waking a second thread costs more time than it saves
        machine = replace(machine, threads=1)
    players = playing(session, phase)
    rest = {name: m for name, m in session.model.beside.items() if all(p.module is not m for p in players.values())}
    row, own = engine_of(session.launch)
    session.watches = {name: player.watch for name, player in players.items()}
    in_turns = len(players) > 1 or bool(rest)
    if in_turns and (why := own.several(tuple(dict.fromkeys([*players, *session.model.beside])))):
        raise RecipeError(why)
    if row.divides:
        place(session.model, machine.device, machine.channels_last is True)  # as where it is copied later
        session.apart_from()  # while the weights are whole
    units = session.model.units() if len(session.parts) > 1 else ()
    make = load_named(row.make)(own, units)
    engines: dict[str, Any] = {}
    for number, (name, player) in enumerate(players.items()):
        learning = _learning(session, phase, name if number else "", total, per_epoch)
        engines[name] = make(player.module, player.losses, learning, machine, session.workers)
    balance(session, engines, in_turns)
    if not in_turns:
        return engines.popitem()[1]
    for module in rest.values():
        module.to(torch.device(machine.device))
    return TurnsEngine(players, engines, rest)


def balance(session: Session, engines: Mapping[str, Any], in_turns: bool) -> None:
    """Give the model's engine what balances the losses of the tasks that learn. Raises RecipeError where it cannot."""
    recipe, model = session.recipe, session.model
    tasks, given = learning_tasks(recipe), f"balance={recipe.balance}"
    model.reading = None
    if recipe.balance == "fixed":
        return
    if in_turns:
        others = ", ".join(list(engines)[1:]) or "another network"
        raise RecipeError(f"{given}: weighs the model's losses, and here {others} learns beside it: set balance=fixed")
    if recipe.balance == "uncertainty":
        made: Fixed = Uncertainty(tasks, {task: spread_of(model, task) for task in tasks})
    elif recipe.balance == "famo":
        made = Famo(tasks)
    else:
        made = model.reading = GradientNorm(tasks, {task: recipe.loss_weights.get(task, 1.0) for task in tasks})
    (engine,) = engines.values()
    made.began(engine.device)
    engine.balance = made


def playing(session: Session, phase: Phase) -> dict[str, Player]:
    """Find who learns in the phase, by name and in the order of their turns.

    Several tasks share the model, which is the first player of each; a task's other players take its micro-batches alone.
    Raises RecipeError where the phase names an unknown player or leaves out the first.
    """
    found: dict[str, Player] = {}
    models: dict[str, Player] = {}  # by task: the model, as the task has it play
    for name, part in session.parts.items():
        players = part.task.players(session.model, phase.players)
        first, *others = players
        models[name] = players[first]
        found.setdefault(first, players[first])
        only = (name,) if part.folder else ()
        for other in others:
            own = players[other]
            found[other] = replace(own, losses=keyed(other, own.losses), tasks=only)
    found[next(iter(found))] = together(session.model, models)
    if unknown := [name for name in phase.players if name not in found]:
        raise RecipeError(
            f"phases.{session.progress.phase}.players={','.join(unknown)}: there is no such player; there are {', '.join(found)}"
        )
    if len(session.parts) == 1 and len(found) == 1:
        return found
    wanted = phase.players or tuple(found)
    if next(iter(found)) not in wanted:
        raise RecipeError(
            f"phases.{session.progress.phase}.players: {next(iter(found))} must be among them, whose weights are the result"
        )
    return {name: player for name, player in found.items() if name in wanted}


def together(model: nn.Module, players: Mapping[str, Player]) -> Player:
    """Make one player of the model, of those that it is by task. Raises RecipeError where one of them is to wait for longer."""
    waits = {name: player.waits for name, player in players.items()}
    if len(set(waits.values())) > 1:
        raise RecipeError(
            f"the model cannot wait for one task and learn another ({', '.join(f'{n}: {w}' for n, w in waits.items())} "
            "updates): set the warm-up of each to 0"
        )
    watches = [player.watch for player in players.values() if player.watch]

    def watch(update: int, numbers: Mapping[str, float]) -> list[str]:
        return [line for each in watches for line in each(update, numbers)]

    losses = losses_by_task({name: player.losses for name, player in players.items()})
    return Player(model, losses, (), next(iter(waits.values())), watch if watches else None)


def losses_by_task(losses: Mapping[str, Losses]) -> Losses:
    """Make one function of the losses that takes those of each micro-batch's own task.

    Tasks that share a batch have the same function, which computes the losses of all: `shared_problems` (`sharing.py`)
    refuses those whose players are their own.
    """

    def of(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return losses[batch.parts[0].task if batch.parts else batch.task](model, batch)

    return of


def keyed(player: str, losses: Losses) -> Losses:
    """Wrap losses so that all that is random in them comes from the micro-batch's key and the player's name."""

    def of(module: nn.Module, batch: Any) -> dict[str, Tensor]:
        device = next(module.parameters()).device.type
        seed_model(key(batch.key, player), device)
        return losses(module, batch)

    return of


def _learning(session: Session, phase: Phase, player: str, total: int, per_epoch: int) -> Learning:
    """Find how a player learns: as the recipe says for its name, else as it says for the model."""
    own: Any = session.recipe.players.get(player, session.recipe)
    optimizer = replace(own.optimizer, lr=own.optimizer.lr * phase.rate) if phase.rate != 1 else own.optimizer
    return Learning(optimizer, own.schedule, own.average, total, per_epoch)
