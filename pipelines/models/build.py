"""From a recipe, or from what a checkpoint says, to a task and a model."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import DataError, RecipeError, WeightsError
from trunkline.ground.keys import key, seed_model
from trunkline.ground.names import load_named

from ...backbones import backbone, read_weights
from ...backbones.contract import STATED, Preprocessing, within
from ...backbones.pyramid import Pyramid
from ...backbones.settings import usual_preprocessing
from ...backbones.sources import is_name
from ...backbones.table import SETTINGS, wrappers
from ...backbones.video.names import published_names
from ...backbones.weights import CLASSIFIER, Weights, save_weights
from ...cluster import checkpoint
from ...heads.contract import HEAD
from ...heads.model import Model
from ...tasks.contract import Published, Task, check_has, forgotten
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe
from ..recipe.plain import from_plain
from ..runs.run import STATE, Run
from .foreign import from_spandrel, is_foreign


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


def weights_of(
    source: str | Path, arch: str | None = None, stride_in: str | None = None, key: str = ""
) -> Weights | None:
    """Read the weights that `weights=` names: a file, a published name or a run's folder; None for `none`.

    Of a run that has not ended, its last checkpoint's are taken, and `source` says so. Raises RecipeError for a folder without
    weights, WeightsError for weights that cannot be used.
    """
    if str(source) == "none":
        return None
    folder = folder_of(source)
    if folder is not None and not Run(folder).weights.is_file():
        return saved_so_far(Run(folder), arch=arch, stride_in=stride_in, key=key)
    return read_weights(Run(folder).weights if folder else source, arch=arch, stride_in=stride_in, key=key)


def folder_of(source: str | Path) -> Path | None:
    """Return the folder that is meant; None for a file or a published name. Raises RecipeError for a run of folds."""
    path = Path(source)
    if not path.is_dir():
        return None
    Run(path).refuse_folds()
    return path if Run(path).exists() or Run(path).weights.is_file() or not is_name(str(source)) else None


def make_task(name: str, options: Any, preprocessing: Preprocessing, facts: dict[str, Any] | None = None) -> Task:
    """Make the task `name` of the table."""
    return task_class(name)(options, preprocessing, facts)


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


def build(recipe: Recipe, facts: Facts | None = None) -> tuple[dict[str, Task], Model, Facts]:
    """Build the tasks and the model of a recipe, and return them with their facts.

    The weights are random or those of `network.weights`; with `facts` the model is ready for a checkpoint's tensors.
    """
    network = recipe.network
    weights = None if facts else _begun_from(network)
    preprocessing = stated(facts) if facts else weights.preprocessing if weights else untrained(network)
    tasks = {
        name: make_task(name, options, preprocessing, facts.tasks[name] if facts else None)
        for name, options in recipe.tasks.items()
    }
    for task in tasks.values():  # read class names from the data, in the tasks' order, before any network is built
        _ = task.facts
    seed_model(key(recipe.seed, "init"))
    trunk = make_trunk(network, weights, facts)
    heads, beside = {}, {}
    for name, task in tasks.items():
        seed_model(key(recipe.seed, "init", name))
        heads[name] = make_head(task, trunk, weights)
        seed_model(key(recipe.seed, "init", name, "beside"))
        beside |= task.beside()
    first = next(iter(tasks.values()))
    model = Model(trunk, heads, first.preprocessing, beside)
    loaded = str(trunk.report) if weights else "random weights"
    own = {name: task.facts for name, task in tasks.items()}
    said = (trunk.arch, trunk.stride_in, asdict(preprocessing), own, loaded, settings_of(trunk))
    return tasks, model, facts or Facts(*said)


def _begun_from(network: Network) -> Weights | None:
    """Read the weights that training begins from. What is wrong with them is told of the key `weights`."""
    try:
        return weights_of(network.weights, network.backbone, network.stride_in, network.weights_key)
    except (WeightsError, RecipeError) as error:
        said = str(error)
        raise type(error)(f"weights={said}" if said.startswith(network.weights) else said) from None


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


def from_weights(
    source: str | Path, network: Network, choose: Callable[[str, dict[str, Any]], Any], classes: tuple[str, ...] = ()
) -> tuple[Recipe, Task, Model, Facts]:
    """Build a model exactly as a weights file holds it. `choose` makes a task's options from what the file says of them.

    `classes` are names for a head without any, in the order of its outputs; without them the data's are taken. Raises
    RecipeError where no task finds its head in the file, or where names and outputs are not as many.
    """
    if is_foreign(source):
        recipe, task, model, said = from_spandrel(str(source), choose, make_task)
        return recipe, task, model, Facts(**said)
    weights = weights_of(source, network.backbone, network.stride_in, network.weights_key)
    held = held_by(source, weights)
    assert weights is not None
    options, remark = choose(held.task, held.said.options), ""
    if held.nameless or classes:
        names, remark = _class_names(source, held, weights, options, classes)
        weights = replace(weights, classes=names)
        held = held_by(source, weights)
    said, info = held.said, weights.info
    task = make_task(held.task, options, weights.preprocessing, said.facts)
    network = replace(
        network,
        output_stride=int(info.get("trunkline_output_stride", said.network.get("output_stride", 32))),  # pyright: ignore
        norm=info.get("trunkline_norm", said.network.get("norm", "batch")),
        pyramid=info.get("trunkline_pyramid", said.network.get("pyramid", "none")),
        wrapper=info.get("trunkline_wrapper", "none"),
    )
    trunk = make_trunk(network, weights, None)
    model = Model(trunk, {task.name: make_head(task, trunk, weights)}, task.preprocessing)
    _check_classifier(source, weights, model.heads[task.name])
    loaded = "; ".join(filter(None, [str(trunk.report), remark]))
    facts = Facts(trunk.arch, trunk.stride_in, asdict(weights.preprocessing), {task.name: task.facts}, loaded,
                  settings_of(trunk))  # fmt: skip
    return Recipe({task.name: options}, network), task, model, facts


def _check_classifier(source: str | Path, weights: Weights, head: Any) -> None:
    """Raise RecipeError where a file's classifier does not fit its trunk, so that a random one would predict."""
    given = {name: tuple(t.shape) for name in CLASSIFIER if (t := weights.tensors.get(name)) is not None}
    own = {f"fc.{n}": tuple(t.shape) for n, t in head.fc.state_dict().items()} if given and hasattr(head, "fc") else {}
    if wrong := [f"{name} is {' x '.join(map(str, shape))}, expected {' x '.join(map(str, own[name]))}"
                 for name, shape in given.items() if name in own and own[name] != shape]:  # fmt: skip
        raise RecipeError(f"{source}: its classifier does not fit its trunk: {'; '.join(wrong)}")


@dataclass(frozen=True)
class Held:
    """The head in a file: of which task, and what the file says of it.

    nameless   how many classes it tells apart, where the file has no names for them; `said` has numbers in their place
    guessed    whether the names that it has are known by their number alone (ImageNet's, COCO's, VOC's)
    """

    task: str
    said: Published
    nameless: int = 0
    guessed: bool = False


def held_by(source: str | Path, weights: Weights | None) -> Held:
    """Find the task whose head a file holds, and what the file says of it. Raises RecipeError where no task knows the head."""
    kinds = {name: task_class(name) for name in known_tasks()}
    named = weights.info.get("trunkline_task") if weights else None
    if named and named not in kinds:
        raise RecipeError(
            f"{source}: holds a head of the task {named}, unknown here; give its recipe file, plugin=FILE"
        )
    for name, kind in kinds.items():
        if weights and named in (None, name) and (said := kind.reads(weights)) is not None:
            guessed = weights.classes is None or "classes" in weights.info.get("assumed", {})
            return Held(name, said, guessed=guessed and not named)
    for name, kind in kinds.items():
        if weights and weights.classes is None and not named and (count := kind.outputs(weights)):
            numbers = tuple(map(str, range(count)))
            if (said := kind.reads(replace(weights, classes=numbers))) is not None:
                return Held(name, said, nameless=count)
    raise RecipeError(_no_head(source, weights, list(kinds)))


def _no_head(source: str | Path, weights: Weights | None, kinds: list[str]) -> str:
    if weights and (kind := weights.info.get("kind")):
        return f"{source}: is {kind}, of which only the trunk is read here: give it as weights= of a recipe"
    beside = f" ({aside} stands beside it)" if weights and (aside := weights.info.get("left aside")) else ""
    return (
        f"{source}: holds a trunk and no head that a task knows ({', '.join(kinds)}){beside}; give a run's folder, the file of "
        "a classifier, or of a detector or segmenter of torchvision's kind; weights= of a recipe takes the trunk"
    )


def _class_names(
    source: str | Path, held: Held, weights: Weights, options: Any, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Find names for the outputs of a head that has none, and say where they are from.

    Raises RecipeError where there are none, or another number of them, and where the file has names of its own.
    """
    count = held.nameless or task_class(held.task).outputs(weights) or len(weights.classes or ())
    if classes and not (held.nameless or held.guessed):
        raise RecipeError(f"classes={','.join(classes)}: {source} names its {count} classes itself; leave classes= out")
    if not classes and not options.data:
        raise RecipeError(
            f"{source}: tells {count} classes apart and has no names for them: add classes=NAME,NAME,… with {count} names in "
            "the order of its outputs; evaluate takes the names of data=FOLDER"
        )
    names = classes or _names_in(make_task(held.task, options, weights.preprocessing))
    origin = "as given" if classes else f"as {options.data} has them"
    if len(names) != count:
        raise RecipeError(
            f"{source}: tells {count} classes apart, and there are {len(names)} names, {origin} ({', '.join(names[:20])}); "
            "it can be used with the classes that it was trained on alone: classes= gives their names"
        )
    if not all(name.strip() for name in names):
        raise RecipeError(f"classes={','.join(names)}: one of the names is empty")
    if again := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"classes: {', '.join(again)} stands there twice; every class needs a name of its own")
    return names, f"classes by position, {origin}: {', '.join(names[:20])}{', …' if count > 20 else ''}"


def _names_in(task: Task) -> tuple[str, ...]:
    """Read the class names of a task's data: of its training split, or else of the other."""
    try:
        return task.classes
    except DataError as error:
        try:
            return tuple(task.samples("val").classes)
        except DataError:
            raise error from None


def published(model: Model, tensors: dict[str, torch.Tensor], task: str) -> dict[str, torch.Tensor]:
    """Rename the tensors of the trunk and of the task's head as others read them: to torchvision's names, also on a pyramid.

    Where the head has no use for the pyramid, its tensors are left out. Of a trunk frame by frame they are the 2-D trunk's.
    """
    head: Any = model.heads[task]
    inside, around = "backbone.", model.backbone
    while getattr(around, "transparent", False):  # a wrapper without tensors, as that of frames
        inside, around = f"{inside}body.", around.get_submodule("body")
    bare = isinstance(around, Pyramid) and not needs_pyramid(model, task)
    inside += "body." if bare else ""
    wraps = within(around) is not around
    prefix = "backbone." if wraps and not bare else getattr(head, "trunk", "backbone.")
    trunk = {prefix + name.removeprefix(inside): t for name, t in tensors.items() if name.startswith(inside)}
    start = f"heads.{task}."
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return published_names(within(model.backbone).arch, trunk | head.published(own))


def needs_pyramid(model: Model, task: str) -> bool:
    """Say whether there is a pyramid around the trunk and the task's head reads its maps."""
    pyramid = isinstance(model.backbone, Pyramid)
    return pyramid and any(name in model.backbone.levels for name in model.heads[task].needs)  # type: ignore[union-attr]


def write_published(
    file: Path,
    recipe: str,
    network: Network,
    task: Task,
    model: Model,
    facts: Facts,
    tensors: dict[str, torch.Tensor],
    update: int,
) -> None:
    """Write the trunk and the task's head as one file of published weights; `recipe` is the recipe's name."""
    info = {
        "trunkline_recipe": recipe,
        "trunkline_update": str(update),
        "trunkline_output_stride": str(network.output_stride),
        "trunkline_norm": network.norm,
        "trunkline_pyramid": network.pyramid if needs_pyramid(model, task.name) else "none",
        "trunkline_task": task.name,
        **({} if network.wrapper == "none" else {"trunkline_wrapper": network.wrapper}),
        **{f"trunkline_{name}": str(value) for name, value in settings_of(model.backbone).items()},
        **task.stated(),
    }
    save_weights(
        file, published(model, tensors, task.name), arch=facts.arch, stride_in=facts.stride_in,
        classes=task.facts.get("classes"), preprocessing=task.preprocessing, info=info,
    )  # fmt: skip


def saved_so_far(run: Run, **stated: Any) -> Weights:
    """Read from a run without published weights what its last checkpoint holds, averaged weights where there are any.

    It is written to a file beside first, so that both kinds are read alike; `stated` is for `read_weights`. `source` says
    which checkpoint it is. Raises RecipeError where nothing is saved yet, and where a run has several tasks.
    """
    known = checkpoint.find(run.checkpoints) if run.checkpoints.is_dir() else None
    if not run.exists() or not known:
        what = (
            "a run that has saved nothing yet: let it go on, and stop it after a checkpoint"
            if run.exists()
            else "no run"
        )
        raise RecipeError(
            f"{run.path}: that folder holds no weights.safetensors; give a finished run's folder or a file (it is {what})"
        )
    said = run.recipe
    recipe = from_plain(said["resolved"])
    if len(recipe.tasks) > 1:
        raise RecipeError(
            f"{run.path}: that run has the tasks {', '.join(recipe.tasks)}: give one of the files that it has at its end, as "
            f"{run.published(next(iter(recipe.tasks)))}"
        )
    folder = run.checkpoints / known
    state = checkpoint.read_state(folder, *STATE)
    facts = Facts(**state["facts"])
    tasks, model, _ = build(recipe, facts)
    averaged = (folder / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(folder / ("ema.safetensors" if averaged else "model.safetensors"))
    checkpoint.check_tensors(folder, model.state_dict(), tensors)
    (task,) = tasks.values()
    with tempfile.TemporaryDirectory() as beside:
        file = Path(beside) / run.weights.name
        write_published(file, said["recipe"], recipe.network, task, model, facts, tensors, state["update"])
        kind = "averaged" if averaged else "raw"
        source = f"{run.path} (not ended: the {kind} weights of its checkpoint {known})"
        try:
            return replace(read_weights(file, **stated), source=source)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(file), source)) from None
