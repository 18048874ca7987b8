"""From a recipe, or from a weights file, to a task and a model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError, RecipeError, WeightsError

from ...backbones.norm import begin_statistics
from ...backbones.weights import CLASSIFIER, Weights
from ...heads.model import Model
from ...tasks.contract import Published, Task
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe
from .assembly import Facts, assemble, make_head, make_task, make_trunk, settings_of, task_class
from .bundle import ONLY_TRUNK
from .foreign import from_spandrel, is_foreign
from .opened import bundle_of, weights_of


def build(recipe: Recipe, facts: Facts | None = None) -> tuple[dict[str, Task], Model, Facts]:
    """Build the tasks and the model of a recipe, and return them with their facts.

    The weights are random or those of `network.weights`; with `facts` the model is ready for a checkpoint's tensors.
    """
    if facts:
        return assemble(recipe, None, facts)
    network = recipe.network
    if network.weights == "none" or (bundle := bundle_of(network.weights)) is None or len(bundle.recipe.tasks) < 2:
        return assemble(recipe, _begun_from(network))
    heads = bundle.heads(recipe.tasks, network.weights_key)
    try:
        made = assemble(
            recipe, bundle.trunk(), None, {name: bundle.of(found) for name, found in heads.items() if found}
        )
    except WeightsError as error:
        raise WeightsError(
            f"{error}\n  To take its trunk and pyramid alone, with new heads: network.weights_key={ONLY_TRUNK}"
        ) from None
    bundle.fill_pyramid(made[1])
    for name, found in heads.items():
        if found:  # a task that has statistics of its own in both goes on with them, others with the trunk's
            begin_statistics(made[1], name, bundle.tensors, found)
    lost = [n for n, of in heads.items() if bundle.recipe.norms.get(of) == "own" and recipe.norms.get(n) != "own"]
    loaded = "; ".join([made[2].loaded, *map(_without_its_statistics, lost)])
    return *made[:2], replace(made[2], loaded=loaded)


def _without_its_statistics(name: str) -> str:
    return (
        f"{name}: the statistics that it has for itself there are left out, so that it says something else; "
        f"norms.{name}=own with network.norm=batch takes them"
    )


def _begun_from(network: Network) -> Weights | None:
    """Read the weights that training begins from. What is wrong with them is told of the key `weights`."""
    try:
        return weights_of(network.weights, network.backbone, network.stride_in, network.weights_key)
    except (WeightsError, RecipeError) as error:
        said = str(error)
        raise type(error)(f"weights={said}" if said.startswith(network.weights) else said) from None


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
