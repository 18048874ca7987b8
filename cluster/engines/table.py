"""The engines that there are: a name, where what makes one and its options stand. Imports no torch."""

from dataclasses import dataclass

from trunkline.ground.names import load_named

from ..config import EngineOptions, Launch

_HERE = "trunkline.cluster.engines"


@dataclass(frozen=True)
class Row:
    """Tells where an engine stands.

    make     `module:function`, called with its options and the names of the parameters' prefixes that may be without a
             gradient in an update: gives a function from (module, losses, learning, machine, workers) to the engine
    options  `module:Class` of what this engine alone is told, an EngineOptions; imports no torch
    about    what it is, in a few words
    divides  whether it takes the weights of the module apart: what evaluates is copied before
    """

    make: str
    options: str | type[EngineOptions]
    about: str
    divides: bool = False


ENGINES = {
    "torch": Row(f"{_HERE}.torch_engine:making", EngineOptions, about="torch alone as the engine"),
    "deepspeed": Row(
        f"{_HERE}.zero:making",
        f"{_HERE}.zero_options:ZeroOptions",
        about="DeepSpeed as the engine; the rounding of zero=2 and zero=3 is part of the result",
        divides=True,
    ),
}
UNASKED = "torch"
"""The engine where none is asked for."""


def options() -> dict[str, type[EngineOptions]]:
    """Load the class of each engine's own options."""
    return {name: load_named(row.options) for name, row in ENGINES.items()}


def asked(launch: Launch) -> dict[str, str]:
    """List the engines that the launch asks for, each with the setting that asks for it; a launch can have one at most."""
    return {name: setting for name, own in launch.engines.items() if (setting := own.asked())}


def engine_of(launch: Launch) -> tuple[Row, EngineOptions]:
    """Return the row and the options of the launch's engine."""
    name = next(iter(asked(launch)), UNASKED)
    return ENGINES[name], launch.engines.get(name, EngineOptions())
