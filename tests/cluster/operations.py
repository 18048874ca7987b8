"""What an engine adds to an update, in operations: those outside the losses, their backward and the optimizer's step."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASIDE = (
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "_record_function_enter_new",
    "_record_function_exit",
    "alias",
)


class Operations(TorchDispatchMode):
    """Count the operations by name while it is entered, except where it is told to look away."""

    def __init__(self):
        super().__init__()
        self.found: Counter[str] = Counter()
        self.away = 0

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        self.away += 1
        try:
            yield
        finally:
            self.away -= 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not self.away:
            self.found[func._schema.name.removeprefix("aten::")] += launches(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def launches(func: Any, args: Any, kwargs: Any) -> int:
    """Count what torch runs for one call: nothing for a view, once a tensor for a foreach call on mixed types."""
    name = func._schema.name.removeprefix("aten::").removeprefix("profiler::")
    views = [r for r in func._schema.returns if r.alias_info is not None and not r.alias_info.is_write]
    if views or name in ASIDE:
        return 0
    lists = [a for a in [*args, *kwargs.values()] if isinstance(a, (list, tuple)) and a and torch.is_tensor(a[0])]
    if name.startswith("_foreach_") and len({(t.dtype, t.device) for t in tree_leaves(lists)}) > 1:
        return max(map(len, lists))
    return 1


def of_an_update(engine: Any, micro_batches: list[Any]) -> Counter[str]:
    """Count the operations of one update of this worker."""
    counted = Operations()
    losses, step, backward = engine.losses, engine.optimizer.step, torch.Tensor.backward

    def away(function):
        def run(*args, **kwargs):
            with counted.looking_away():
                return function(*args, **kwargs)

        return run

    engine.losses, engine.optimizer.step, torch.Tensor.backward = away(losses), away(step), away(backward)
    try:
        with counted:
            engine.update(micro_batches)
    finally:
        engine.losses, engine.optimizer.step, torch.Tensor.backward = losses, step, backward
    return counted.found
