"""What ZeRO divides among workers, put together and divided again: weights, averages and optimizer state.

Every function here is called by all workers.
"""

from typing import Any

import torch
from torch import Tensor

from .optimizer import check_trained, group_settings, is_plain

Named = dict[str, Any]  # parameters, to which DeepSpeed has given attributes of its own


def live(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what this worker keeps of each tensor: its part of a weight in stage 3, the whole elsewhere."""
    return {n: getattr(t, "ds_tensor", t) for n, t in tensors.items()}


def whole(p: Any, own: Tensor | None = None) -> Tensor:
    """Put a weight of stage 3 together from all workers' parts; with `own`, what was made of this worker's part."""
    if not hasattr(p, "ds_tensor"):
        return p.detach() if own is None else own
    mine: Tensor = p.ds_tensor.detach() if own is None else own
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, mine.contiguous())
    return torch.cat([t.flatten() for t in parts])[: p.ds_numel].view(p.ds_shape)


def part(p: Any, value: Tensor) -> Tensor:
    """Cut this worker's part, padded, from a value in a weight's shape; outside stage 3 return the whole."""
    if not hasattr(p, "ds_tensor"):
        return value
    size, rank = p.ds_tensor.ds_numel, torch.distributed.get_rank()
    flat = torch.zeros(size * torch.distributed.get_world_size(), dtype=value.dtype, device=p.ds_tensor.device)
    flat[: value.numel()] = value.flatten()
    return flat[rank * size : (rank + 1) * size]


def _flats(sharded: Any) -> list[Tensor]:
    """List this worker's parts of each group, as the inner optimizer knows them."""
    three = hasattr(sharded, "fp32_partitioned_groups_flat")
    return sharded.fp32_partitioned_groups_flat if three else sharded.single_partition_of_fp32_groups


def _link(sharded: Any) -> None:
    """Link the state of all groups: in stages 1 and 2 DeepSpeed links only that of the first group that steps."""
    if hasattr(sharded, "_lazy_init_hp_params_optimizer_state"):
        sharded._hp_optimizer_states_linked = False
        sharded._lazy_init_hp_params_optimizer_state()


def gather_state(
    sharded: Any, inner: torch.optim.Optimizer, named: Named, groups: list[list[str]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Gather the whole optimizer state by parameter, in the form of `optimizer_tensors`."""
    flats = _flats(sharded)
    assert len(flats) == len(groups)
    if any(inner.state.get(flat) for flat in flats):
        _link(sharded)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {"groups": [], "entries": {}}
    for flat, names, group in zip(flats, groups, sharded.param_groups, strict=True):
        settings = {k: v for k, v in group.items() if k not in ("params", "number") and is_plain(v)}
        plain["groups"].append({"names": names, **settings})
        state = inner.state.get(flat, {})
        for entry in sorted(state):
            value = state[entry]
            for name in names:
                if not torch.is_tensor(value):
                    plain["entries"].setdefault(name, {})[entry] = value
                elif value.numel() != flat.numel():
                    tensors[f"{name}|{entry}"] = value
                else:
                    tensors[f"{name}|{entry}"] = _full(named[name], entry)
    return tensors, plain


def _full(p: Any, entry: str) -> Tensor:
    from deepspeed.utils import safe_get_full_optimizer_state

    full = safe_get_full_optimizer_state(p, entry)
    assert full is not None
    return full.detach().clone().view(_shape(p))


def scatter_state(
    sharded: Any,
    inner: torch.optim.Optimizer,
    named: Named,
    groups: list[list[str]],
    tensors: dict[str, Tensor],
    plain: dict[str, Any],
) -> None:
    """Divide what `gather_state` or `optimizer_tensors` gave. Raises EngineError where other parameters were trained."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    check_trained(groups, plain)
    flats = _flats(sharded)
    entries: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, entry = key.rsplit("|", 1)
        entries.setdefault(name, {})[entry] = value
    for flat, names, group in zip(flats, groups, sharded.param_groups, strict=True):
        group.update(group_settings(plain, names[0]))
        state: dict[str, Any] = {}
        for name in names:
            state |= plain["entries"].get(name, {})
            for entry, value in entries.get(name, {}).items():
                divided = value.shape == _shape(named[name]) and entry != "step"
                state[entry] = torch.zeros_like(flat) if divided else value.to(_home(inner, flat)).clone()
        if state:
            inner.state[flat] = state
    if not entries:
        return
    _link(sharded)
    for name in (n for names in groups for n in names):
        p = named[name]
        for entry, value in entries.get(name, {}).items():
            if value.shape != _shape(p) or entry == "step":
                continue
            if hasattr(p, "ds_tensor"):
                safe_set_local_optimizer_state(p, part(p, value), entry)
            else:
                safe_set_full_optimizer_state(p, value.to(p.device).contiguous(), entry)


def release(engine: Any, weights: dict[str, Tensor], named: Named) -> None:
    """Take a model back from DeepSpeed, with whole weights of its own and without hooks."""
    weights = {n: weights[n].detach().clone() for n in named}
    engine.destroy()
    for name, p in named.items():
        p.data = weights[name]
        for attribute in [a for a in vars(p) if a.startswith(("ds_", "_hp_", "_z3_", "_index_in", "_zero_"))]:
            delattr(p, attribute)


def _shape(p: Any) -> torch.Size:
    return getattr(p, "ds_shape", p.shape)


def _home(inner: torch.optim.Optimizer, flat: Tensor) -> torch.device:
    """Find where an optimizer keeps its step count: on the CPU, unless it is capturable or fused."""
    settings = inner.param_groups[0]
    return flat.device if settings.get("capturable") or settings.get("fused") else torch.device("cpu")
