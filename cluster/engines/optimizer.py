"""Optimizers from timm's factory, and their state by parameter name."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import EngineError
from trunkline.ground.names import nearest

from ..checkpoint import SAME, Parts
from ..config import Optimizer

FUSED = ("sgd", "nesterov", "momentum", "adam", "adamw", "adagrad")
"""Optimizers that have a fused form, also behind `lookahead_`."""

_GROUP = "#group"  # tensors that an optimizer keeps for a whole group stand under this name and the group's number


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """Build an optimizer over the trainable parameters in two groups: weights, and norms and biases (no decay, no L1).

    Norms and biases are the parameters of at most one dimension. Each multiple of the rate in `rates` has two groups of
    its own. Raises EngineError where nothing can be trained; with the nearest names, where timm does not know the
    optimizer; where it refuses its options or keeps state that a checkpoint cannot hold; and where `rates` names no
    part of a parameter's name.
    """
    from timm.optim._optim_factory import create_optimizer_v2, list_optimizers

    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    multiple = multiples([n for n, _ in model.named_parameters()], config.rates)
    groups = [
        {"params": own, "lr": config.lr * factor, "weight_decay": decay}
        for factor in sorted({1.0, *multiple.values()})
        for decay, wide in ((config.weight_decay, True), (0.0, False))
        if (own := [p for n, p in trainable if multiple[n] == factor and (p.ndim > 1) == wide])
    ]
    if not groups:
        raise EngineError("nothing to train: every parameter is frozen; freeze fewer stages or choose another mode")
    if not isinstance(fused := config.options.get("fused", False), bool):
        raise EngineError(f"optimizer.options.fused={fused}: expected true or false")
    name = "momentum" if config.name == "sgd" and not config.momentum else config.name  # Nesterov's needs a momentum
    momentum = {} if "momentum" in config.options else {"momentum": config.momentum}
    try:
        optimizer = create_optimizer_v2(
            groups, opt=name, lr=config.lr, weight_decay=config.weight_decay, **momentum, **config.options
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if config.name not in list_optimizers():
            from difflib import get_close_matches

            known = [str(n) for n in list_optimizers()]
            near = get_close_matches(config.name, known, 3)
            hint = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(known)}"
            raise EngineError(f"optimizer.name={config.name!r} is not an optimizer of timm's factory; {hint}") from None
        if refused := [k for k in config.options if f"unexpected keyword argument '{k}'" in str(error)]:
            known = f"; {', '.join(FUSED)} do" if refused == ["fused"] else ""
            raise EngineError(f"optimizer.options.{refused[0]}: {config.name} takes no such option{known}") from None
        raise EngineError(f"optimizer {config.name!r} does not take these settings: {error}") from None
    unread = [k for k in config.options if k not in optimizer.param_groups[0]]
    if unread:
        takes = ", ".join(
            k for k in optimizer.param_groups[0] if k not in ("params", "lr", "weight_decay", "initial_lr")
        )
        raise EngineError(f"optimizer.options.{unread[0]}: {config.name} takes no such option; it takes {takes}")
    if set(optimizer.state_dict()) - {"state", "param_groups"}:
        raise EngineError(f"optimizer.name={config.name}: keeps state that a checkpoint cannot hold; choose another")
    return optimizer


def multiples(names: list[str], rates: Mapping[str, float]) -> dict[str, float]:
    """Compute each parameter's multiple of the rate: the product of those whose key is a dotted part of its name.

    Raises EngineError where a key is no part of any name.
    """
    parts = {n: set(n.split(".")) for n in names}
    known = set().union(*parts.values())
    if unknown := [key for key in rates if key not in known]:
        words = sorted(p for p in known if not p.isdigit())
        raise EngineError(
            f"optimizer.rates.{unknown[0]}: no parameter has this part in its name{nearest(unknown[0], words)}; there are "
            f"{', '.join(words)}"
        )
    return {n: math.prod(v for key, v in rates.items() if key in parts[n]) for n in names}


def try_optimizer(config: Optimizer) -> None:
    """Build the optimizer for a tensor or two and let it step once. Raises EngineError where it cannot be used here."""
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, replace(config, rates={}))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    try:
        optimizer.step()
    except Exception as error:
        raise EngineError(
            f"optimizer.name={config.name}: cannot be used with these settings ({str(error).splitlines()[0]}); choose another"
        ) from None


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """List the names of each group's parameters, in the optimizer's order."""
    name = {id(p): n for n, p in model.named_parameters()}
    return [[name[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Collect the optimizer's state: tensors under `parameter|entry`, and everything else as plain data."""
    tensors: dict[str, Tensor] = {}
    packed = optimizer.state_dict()  # an optimizer that wraps another (lookahead) tells its state only here
    index = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    plain: dict[str, Any] = {"groups": [], "entries": {}}
    for number, (group, names) in enumerate(zip(optimizer.param_groups, names_of(model, optimizer), strict=True)):
        tensors |= {f"{_GROUP}{number}|{k}": v for k, v in group.items() if torch.is_tensor(v)}  # LAMB counts there
        plain["groups"].append({"names": names, **{k: v for k, v in group.items() if k != "params" and is_plain(v)}})
        for parameter, name in zip(group["params"], names, strict=True):
            for entry, value in packed["state"].get(index[id(parameter)], {}).items():
                if torch.is_tensor(value):
                    tensors[f"{name}|{entry}"] = value
                else:
                    plain["entries"].setdefault(name, {})[entry] = value
    return tensors, plain


def load_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    plain: dict[str, Any],
    parts: Parts = SAME,
) -> None:
    """Put back what `optimizer_tensors` returned; parts of the model that are new begin without a state.

    Raises EngineError where the trained parameters are others.
    """
    now = names_of(model, optimizer)
    check_trained(now, plain, parts)
    tensors = {key: value for key, value in tensors.items() if not parts.is_gone(key)}
    number = {name: i for i, name in enumerate(n for group in now for n in group)}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    packed = optimizer.state_dict()
    for key, value in tensors.items():
        name, entry = key.rsplit("|", 1)
        if name.startswith(_GROUP):
            packed["param_groups"][int(name.removeprefix(_GROUP))][entry] = value
            continue
        state.setdefault(number[name], {})[entry] = _as_laid_out(value, parameters[number[name]])
    for name, entries in plain["entries"].items():
        if parts.is_gone(name):
            continue
        state.setdefault(number[name], {}).update(entries)
    for group, names in zip(packed["param_groups"], now, strict=True):
        if known := next((name for name in names if not parts.is_new(name)), ""):
            group.update(group_settings(plain, known))
    optimizer.load_state_dict({"state": state, "param_groups": packed["param_groups"]})


def check_trained(groups: list[list[str]], plain: dict[str, Any], parts: Parts = SAME) -> None:
    """Raise EngineError where the saved state is of other parameters than these groups hold, but for new and gone parts."""
    now = {n for g in groups for n in g if not parts.is_new(n)}
    differ = sorted(now ^ {n for g in plain["groups"] for n in g["names"] if not parts.is_gone(n)})
    if differ:
        raise EngineError(
            f"the checkpoint trained other parameters than this recipe does ({len(differ)} differ: "
            f"{', '.join(differ[:4])}…); what is frozen cannot change in mid-phase"
        )


def group_settings(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """Find the saved settings of the group that held a parameter, however the parameters were grouped then."""
    saved = next(group for group in plain["groups"] if name in group["names"])
    return {k: _tuples(v) for k, v in saved.items() if k != "names"}


def _as_laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Copy the value in its parameter's memory format, as the optimizer made it: a norm over it then has the same bits."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def is_plain(value: Any) -> bool:
    """Say whether JSON can hold the value."""
    return value is None or isinstance(value, (bool, int, float, str, list, tuple))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
