"""The parts of a model, put together from a recipe and what its weights or its checkpoint say."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_model
from trunkline.ground.names import load_named

from ...backbones import backbone
from ...backbones.contract import STATED, Preprocessing, within
from ...backbones.norm import per_task
from ...backbones.pyramid import Pyramid
from ...backbones.settings import usual_preprocessing
from ...backbones.table import SETTINGS, wrappers
from ...backbones.weights import LoadReport, Weights
from ...heads.contract import HEAD
from ...heads.model import Model, add_spreads
from ...tasks.contract import Task, check_has, forgotten
from ...tasks.table import kind_of
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says so that its network can be built without the weights that the run began from.

    settings  of a trunk of super-resolution (blocks, width and so on), or of an inflated one
    """

    arch: str
    stride_in: str
    preprocessing: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    loaded: str = "random weights"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ready:
    """A model with its task, in evaluation mode on its device, and where it came from."""

    model: Model
    task: Task
    recipe: Recipe
    facts: Facts
    origin: dict[str, Any]  # source, checkpoint, update, weights (raw or ema)
    tasks: dict[str, Task] = field(default_factory=dict)  # all of a run's; `task` is one of them

    @property
    def options(self) -> Any:
        """The task's options."""
        return self.recipe.tasks[self.task.name]

    def of(self, name: str) -> "Ready":
        """Return the same model with another task of its run."""
        return replace(self, task=self.tasks[name], origin={**self.origin, "task": name})


def make_task(name: str, options: Any, preprocessing: Preprocessing, facts: dict[str, Any] | None = None) -> Task:
    """Make the task that a recipe calls `name`, of the kind that its options are of."""
    task = task_class(kind_of(name, options))(options, preprocessing, facts)
    task.name = name
    return task


def task_class(name: str) -> type[Task]:
    """Load the class of a task. Raises RecipeError naming the methods and attributes that it lacks."""
    kind = load_named(known_tasks()[name])
    if missing := forgotten(kind):
        raise RecipeError(f"the task {name} ({kind.__module__}.{kind.__qualname__}) lacks {', '.join(missing)}")
    return kind


def make_head(task: Task, trunk: Any, weights: Weights | None) -> Any:
    """Make a task's head. Raises RecipeError where it lacks a part of the contract, or reads maps that the trunk lacks."""
    head = task.head(trunk, weights)
    check_has(head, f"the head of the task {task.name}", HEAD)
    if absent := [name for name in head.needs if name not in trunk.channels]:
        raise RecipeError(
            f"the head of the task {task.name} needs the maps {', '.join(absent)}; this trunk has {', '.join(trunk.channels)}"
        )
    return head


def assemble(
    recipe: Recipe,
    weights: Weights | None = None,
    facts: Facts | None = None,
    own: Mapping[str, Weights] | None = None,
) -> tuple[dict[str, Task], Model, Facts]:
    """Make the tasks and the model of a recipe, and return them with their facts.

    What no weights fill is random; with `facts` the model is ready for a checkpoint's tensors. `own` are the weights, by task,
    that heads begin from where they are not those of the trunk.
    """
    network = recipe.network
    preprocessing = stated(facts) if facts else weights.preprocessing if weights else untrained(network)
    tasks = {
        name: make_task(name, options, preprocessing, facts.tasks.get(name) if facts else None)
        for name, options in recipe.tasks.items()
    }
    for task in tasks.values():  # read class names from the data, in the tasks' order, before any network is built
        _ = task.facts
    seed_model(key(recipe.seed, "init"))
    trunk = make_trunk(network, weights, facts)
    begun = {name: buffer.clone() for name, buffer in trunk.named_buffers()} if own else {}
    heads, beside = {}, {}
    told = [str(trunk.report)] if own is not None else []
    for name, task in tasks.items():
        seed_model(key(recipe.seed, "init", name))
        if own is not None:
            within(trunk).report = LoadReport(0, 0)  # what is noted in it now is of this head
        heads[name] = make_head(task, trunk, (own or {}).get(name, weights))
        if own is not None:
            told.append(f"{name}: {(within(trunk).report.note or 'its head') if name in own else 'a new head'}")
        seed_model(key(recipe.seed, "init", name, "beside"))
        beside |= task.beside()
    if begun:  # what a head is filled from brings a trunk, which may have a task's own statistics
        trunk.load_state_dict(begun, strict=False)
    per_task(within(trunk), recipe.norms)
    first = next(iter(tasks.values()))
    model = Model(trunk, heads, first.preprocessing, beside)
    if recipe.balance == "uncertainty":
        add_spreads(model)
    loaded = "; ".join(told) or (str(trunk.report) if weights else "random weights")
    known = {name: task.facts for name, task in tasks.items()}
    said = (trunk.arch, trunk.stride_in, asdict(preprocessing), known, loaded, settings_of(trunk))
    return tasks, model, replace(facts, tasks=known) if facts else Facts(*said)


def untrained(network: Network) -> Preprocessing:
    """Return what input is normalised by where no weights say it: ImageNet's numbers, or a network's own."""
    return usual_preprocessing(network.backbone or "")


def settings_of(trunk: Any) -> dict[str, Any]:
    """Return the settings that travel with a trunk's weights: of those of super-resolution and of inflated ones."""
    return dict(getattr(within(trunk), "settings", {}))


def stated(facts: Facts) -> Preprocessing:
    """Read the preprocessing that a checkpoint states; JSON's lists become tuples."""
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.preprocessing.items()}
    return Preprocessing(**said)


def make_trunk(network: Network, weights: Weights | None, facts: Facts | None) -> Any:
    """Build the trunk that the recipe asks for; where it leaves architecture or stride open, the weights say them."""
    name = facts.arch if facts else network.backbone or (weights.arch if weights else None)
    stride_in = facts.stride_in if facts else network.stride_in
    settings = {name: getattr(network, name) for name in SETTINGS} | (facts.settings if facts else {})
    trunk = backbone(
        name,
        weights=weights,
        output_stride=network.output_stride,
        norm=network.norm,
        checkpointing=network.checkpointing,
        zero_init=network.zero_init,
        stride_in=stride_in,
        **settings,
    )
    trunk = trunk if network.pyramid == "none" else Pyramid(trunk, network.pyramid)
    if network.wrapper == "none":
        return trunk
    wrapped = load_named(wrappers()[network.wrapper])(trunk)
    check_has(wrapped, f"the wrapper {network.wrapper}", (*STATED, "arch"))
    return wrapped
