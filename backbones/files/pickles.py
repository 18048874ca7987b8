"""A restricted reader of pickles: plain containers and descriptions of tensors come out. Nothing is imported or called.

The opcodes are read by the standard library's `pickletools` and carried out here, on names and records. A class or a
function that a pickle names stays a name; what would be made with it becomes an `Inert` record.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip
"""torch's classes of storages, with the type of their elements."""
BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int64": 8, "int32": 4,
    "int16": 2, "int8": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip
"""The types of elements that are read, with the bytes of one."""
UNREAD = {
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4,
    "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}  # fmt: skip
"""Classes of storages that are not read, with the bytes of one element."""
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's
_LARGEST_KEY = 1 << 63


@dataclass(frozen=True)
class Global:
    """A class or function by its name, and no more than the name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """An object that was not made: what it should be made of, its state, and its items if it is a kind of dictionary."""

    kind: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def named(self) -> str:
        """The name of its class or function."""
        return str(self.kind) if isinstance(self.kind, Global) else "unnamed"

    @property
    def attributes(self) -> dict[Any, Any]:
        """Its attributes, as far as the pickle says them in a dictionary, and its items."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return {**state, **self.items} if isinstance(state, dict) else self.items


@dataclass(frozen=True)
class StorageRef:
    """A storage elsewhere in the file: `count` elements from element `start` of the one called `key`."""

    key: str
    dtype: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class TensorRef:
    """A tensor that can be made of a storage: offset, sizes and strides in elements, checked against `storage.count`."""

    storage: StorageRef
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes, as of a tensor."""
        return self.size


def read_pickle(file: Any, storages: dict[str, int] | None = None) -> Any:
    """Read one pickle from a file that stands at its first byte; afterwards it stands behind the last.

    Into `storages` go the bytes of an element of each storage that it names, by key. Raises ValueError where it is
    damaged, or holds what this reader cannot follow.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, AssertionError) as error:
        raise ValueError(f"damaged, {type(error).__name__}: {error}") from error
    raise ValueError("it has no end")


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self, storages: dict[str, int]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise ValueError(f"it uses {name}, which files of tensors do not")

    def above_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("a mark is missing")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)


_MARK = object()
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8",
}  # fmt: skip
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "EMPTY_SET": list, "MARK": lambda: _MARK,
}  # fmt: skip


def _global(module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a name is no text")
    return Global(_OLD_MODULES.get(module, module), name)


def _put_items(target: Any, flat: list[Any]) -> None:
    """Put keys and values that follow one another into a dictionary; keys that are not plain are left out."""
    into = target.items if isinstance(target, Inert) else target
    if not isinstance(into, dict):
        return
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if isinstance(key, str | bytes | float | None) or (isinstance(key, int) and abs(key) < _LARGEST_KEY):
            into[key] = value


def _set_items(m: _Machine, flat: list[Any]) -> None:
    _put_items(m.stack[-1], flat)


def _append(m: _Machine, values: list[Any]) -> None:
    if isinstance(m.stack[-1], list):
        m.stack[-1].extend(values)


def _dict(m: _Machine, flat: list[Any]) -> None:
    found: dict[Any, Any] = {}
    _put_items(found, flat)
    m.push(found)


def _build(m: _Machine, state: Any) -> None:
    if isinstance(m.stack[-1], Inert):  # attributes of a dictionary or a tensor (metadata, hooks) say nothing here
        m.stack[-1].state = state


def _called(m: _Machine, parts: list[Any]) -> None:
    m.push(_made(parts[0], parts[1] if isinstance(parts[1], tuple) else ()))


def _memoize(m: _Machine, at: int) -> None:
    m.memo[at] = m.stack[-1]


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "POP": lambda m, a: m.stack.pop(),
    "POP_MARK": lambda m, a: m.above_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "LIST": lambda m, a: m.push(m.above_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.above_mark())),
    "FROZENSET": lambda m, a: m.push(m.above_mark()),
    "TUPLE1": lambda m, a: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, a: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, a: m.push(tuple(m.last(3))),
    "DICT": lambda m, a: _dict(m, m.above_mark()),
    "APPEND": lambda m, a: _append(m, m.last(1)),
    "APPENDS": lambda m, a: _append(m, m.above_mark()),
    "ADDITEMS": lambda m, a: _append(m, m.above_mark()),
    "SETITEM": lambda m, a: _set_items(m, m.last(2)),
    "SETITEMS": lambda m, a: _set_items(m, m.above_mark()),
    "BUILD": lambda m, a: _build(m, m.stack.pop()),
    "GLOBAL": lambda m, a: m.push(_global(*a.split(" ", 1))),
    "STACK_GLOBAL": lambda m, a: m.push(_global(*m.last(2))),
    "REDUCE": lambda m, a: _called(m, m.last(2)),
    "NEWOBJ": lambda m, a: _called(m, m.last(2)),
    "NEWOBJ_EX": lambda m, a: _called(m, m.last(3)),
    "OBJ": lambda m, a: m.push(Inert(*_first(m.above_mark()))),
    "INST": lambda m, a: m.push(Inert(_global(*a.split(" ", 1)), tuple(m.above_mark()))),
    "PUT": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "MEMOIZE": lambda m, a: _memoize(m, len(m.memo)),
    "GET": lambda m, a: m.push(m.memo[a]),
    "BINGET": lambda m, a: m.push(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.push(m.memo[a]),
    "PERSID": lambda m, a: m.push(Inert("persistent")),
    "BINPERSID": lambda m, a: m.push(_persistent(m.stack.pop(), m.storages)),
    "EXT1": lambda m, a: m.push(Inert("extension")),
    "EXT2": lambda m, a: m.push(Inert("extension")),
    "EXT4": lambda m, a: m.push(Inert("extension")),
}


def _first(parts: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    return parts[0], tuple(parts[1:])


def _persistent(said: Any, storages: dict[str, int]) -> Any:
    """Read what torch puts in a storage's place: (storage, its class, key, device, number of elements, part of it)."""
    if isinstance(said, tuple) and len(said) > 1 and said[0] == "module":  # a class, with its source text beside
        return said[1]
    if not isinstance(said, tuple) or len(said) < 5 or said[0] != "storage" or not isinstance(said[1], Global):
        return Inert("persistent")
    name, key, count = said[1].name, said[2], said[4]
    if not isinstance(key, str) or not _whole(count):
        raise ValueError("a storage without a name or a size")
    dtype = STORAGES.get(name)
    storages[key] = BYTES[dtype] if dtype else UNREAD.get(name, 0)
    if dtype is None:
        return Inert(said[1])
    part = said[5] if len(said) > 5 else None
    _, start, length = part if isinstance(part, tuple) and len(part) == 3 else (key, 0, count)
    if not _whole(start, length) or start + length > count:
        raise ValueError("a part of a storage beyond it")
    return StorageRef(key, dtype, length, start)


def _whole(*numbers: Any) -> bool:
    return all(type(n) is int and 0 <= n < _LARGEST_KEY for n in numbers)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """Describe a tensor. Raises ValueError where it reaches beyond its storage, or repeats elements of it."""
    if not isinstance(storage, StorageRef):
        return Inert(Global("torch._utils", "_rebuild_tensor"), (storage,))
    return _checked(storage, storage.dtype, offset, size, stride, storage.count)


def _untyped_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """Describe a tensor on a storage of bytes; the type of its elements is the third of `rest`."""
    dtype = rest[2] if len(rest) > 2 else None
    name = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else ""
    if not isinstance(storage, StorageRef) or name not in BYTES:
        return Inert(Global("torch._utils", "_rebuild_tensor_v3"), (storage, dtype))
    return _checked(storage, name, offset, size, stride, storage.count // BYTES[name])


def _checked(storage: StorageRef, dtype: str, offset: Any, size: Any, stride: Any, held: int) -> TensorRef:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise ValueError("a tensor without sizes and strides")
    if not _whole(offset, *size, *stride):
        raise ValueError("a tensor whose sizes are no numbers")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count, last = count * length, last + max(0, length - 1) * step
    if count and (last >= held or count > held):
        raise ValueError(f"a tensor of sizes {size} beyond its storage of {held} elements")
    return TensorRef(storage, dtype, offset, size, stride)


def _ordered(*args: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    given = args[0] if args else ()
    pairs = given.items() if isinstance(given, dict) else given if isinstance(given, list | tuple) else ()
    for pair in pairs:
        if isinstance(pair, list | tuple) and len(pair) == 2:
            _put_items(found, list(pair))
    return found


def _first_argument(*args: Any) -> Any:
    return args[0]


def _of_type(function: Any, *rest: Any) -> Any:
    """Describe the plain tensor within one of a subclass, or with attributes."""
    made = _TENSORS.get(str(function))
    inner = next((part for part in rest if isinstance(part, tuple)), ())
    return made(*inner) if made else Inert(function, inner)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _untyped_tensor,
    "torch._utils._rebuild_parameter": _first_argument,
    "torch._utils._rebuild_parameter_with_state": _first_argument,
    "torch.nn.parameter.Parameter": _first_argument,
}
_KNOWN: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *args: {},
    "collections.Counter": _ordered,
    "torch.Size": _first_argument,
}
"""What is read in place of a call: these are functions of this file, on records of this file."""


def _made(kind: Any, args: tuple[Any, ...]) -> Any:
    name = str(kind) if isinstance(kind, Global) else ""
    if name == "copyreg._reconstructor" and args:  # what makes objects in the pickles of protocol 0 and 1
        return Inert(args[0])
    known = _KNOWN.get(name)
    return Inert(kind, args) if known is None or (not args and known is _first_argument) else known(*args)
