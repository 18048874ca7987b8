"""What an update asks of its device: the operations that an engine adds, and the places that read back.

Operations are those outside the losses, their backward and the optimizer's step. Each place that reads back would make
the host wait for a GPU.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trunkline.cluster.engines import turns

ROOT = Path(__file__).parents[2]
FOLDERS = ("backbones", "heads", "tasks", "cluster")
METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__")
READING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount", "equal",
              "is_nonzero", "nms", "repeat_interleave.Tensor")  # fmt: skip
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
    """Count the operations of one update of this worker, of all players where there are several.

    What puts the buffers of a player back that only looks on counts too, though it is within the losses.
    """
    counted = Operations()

    def away(function):
        def run(*args, **kwargs):
            with counted.looking_away():
                return function(*args, **kwargs)

        return run

    def copied(to, of, real=turns._copied):
        counted.found["put back"] += bool(to and counted.away)
        real(to, of)

    with pytest.MonkeyPatch.context() as patch:
        for one in getattr(engine, "engines", {"": engine}).values():
            patch.setattr(one, "losses", away(one.losses))
            patch.setattr(one.optimizer, "step", away(one.optimizer.step))
        patch.setattr(torch.Tensor, "backward", away(torch.Tensor.backward))
        patch.setattr(turns, "_copied", copied)
        with counted:
            engine.update(micro_batches)
    return counted.found


class Reads:
    """Count what reads back, by the function of ours that asks for it (`heads/dense.py: assign`), while it is entered.

    On a CPU, by the names of methods and operations that wait on a GPU, and by masks used as indices.
    """

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._methods, self._operations = _Methods(self), _Operations(self)

    def note(self) -> None:
        """Count the present place, once for a call of one inside another."""
        frame: Any = sys._getframe(2)
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in FOLDERS:
                name = frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
                self.found[f"{file.relative_to(ROOT).as_posix()}: {name}"] += 1
                return
            frame = frame.f_back
        self.found["elsewhere"] += 1

    def __enter__(self) -> "Reads":
        self._methods.__enter__()
        self._operations.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._operations.__exit__(*error)
        self._methods.__exit__(*error)


class _Methods(TorchFunctionMode):
    def __init__(self, reads: Reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in METHODS:
            self.reads.note()
            with torch._C.DisableTorchFunction():  # what it does inside is the same wait
                return _quiet(self.reads, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _quiet(reads: Reads, func: Any, args: Any, kwargs: Any) -> Any:
    before = reads.found.copy()
    result = func(*args, **kwargs)
    reads.found = before
    return result


class _Operations(TorchDispatchMode):
    def __init__(self, reads: Reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).split("::")[-1].split(".", 1)[-1] if "::" in str(func) else str(func).removeprefix("aten.")
        if name.split(".")[0] in READING or name in READING or _by_mask(name, args):
            self.reads.note()
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, args: Any) -> bool:
    """Say whether a mask is an index: how many elements it takes must be known."""
    if name.split(".")[0] not in ("index", "index_put", "index_put_") or len(args) < 2:
        return False
    masks = [i for i in args[1] if torch.is_tensor(i) and i.dtype in (torch.bool, torch.uint8)]
    filled = name.startswith("index_put") and torch.is_tensor(args[2]) and args[2].numel() == 1  # is a masked_fill
    return bool(masks) and not filled
