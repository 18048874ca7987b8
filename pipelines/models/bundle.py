"""One file for all heads of a run: the model's own tensors, and what each task says of itself."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from trunkline.ground.errors import RecipeError, WeightsError

from ...backbones import read_weights
from ...backbones.saving import save_bundle
from ...backbones.weights import CLASSIFIER, Weights
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.options import belonging
from ...tasks.table import kind_of
from ..recipe.fields import Recipe
from ..recipe.plain import from_plain, to_plain
from .assembly import Facts, assemble, stated
from .publishing import write_published

SAID = "trunkline_tasks"
"""The key in a file's header that says which tasks it holds, and how it is put together again."""
ONLY_TRUNK = "trunk"
"""What `weights_key=` says where no head is to be taken, but the trunk and its pyramid alone."""


@dataclass
class Bundle:
    """All of a trained model of several tasks. `source` is where it is from, as people are told."""

    name: str
    recipe: Recipe
    facts: Facts
    tensors: dict[str, torch.Tensor]
    update: int
    source: str

    def of(self, task: str, **stated: Any) -> Weights:
        """Return the trunk and the head of one task, as its own file would hold them; `stated` is for `read_weights`."""
        tasks, model = self._model()
        with tempfile.TemporaryDirectory() as beside:
            file = Path(beside) / "weights.safetensors"
            write_published(
                file, self.name, self.recipe.network, tasks[task], model, self.facts, self.tensors, self.update
            )
            try:
                return replace(read_weights(file, **stated), source=f"{self.source}, task {task}")
            except WeightsError as error:
                raise WeightsError(str(error).replace(str(file), self.source)) from None

    def trunk(self) -> Weights:
        """Return the trunk without any head, with the statistics that tasks share; those of the first where none does."""
        shared = [task for task in self.recipe.tasks if self.recipe.norms.get(task) != "own"]
        found = self.of((shared or [*self.recipe.tasks])[0])
        info = {key: value for key, value in found.info.items() if key not in ("trunkline_task", "trunkline_options")}
        tensors = {name: tensor for name, tensor in found.tensors.items() if name not in CLASSIFIER}
        return replace(found, tensors=tensors, rest={}, classes=None, info=info, source=self.source)

    def _model(self) -> tuple[dict[str, Task], Model]:
        """Build the tasks and a model of this shape, once."""
        if "_made" not in self.__dict__:
            tasks, model, _ = assemble(self.recipe, facts=self.facts)
            if wrong := sorted(model.state_dict().keys() ^ self.tensors.keys()):
                raise WeightsError(
                    f"{self.source}: its tensors are not those of its tasks ({len(wrong)} differ: {wrong[0]} …)"
                )
            self.__dict__["_made"] = tasks, model
        return self.__dict__["_made"]

    def named(self, key: str) -> str:
        """Return the task that `weights_key=` names. Raises RecipeError where it is not here."""
        if key not in self.recipe.tasks:
            raise RecipeError(
                f"weights_key={key}: {self.source} holds the tasks {', '.join(self.recipe.tasks)}"
                f"; to begin a training from its trunk alone: {ONLY_TRUNK}"
            )
        return key

    def heads(self, tasks: Mapping[str, Any], key: str = "") -> dict[str, str]:
        """Find, for each task of another recipe (with its options), the task whose head it begins from; "": none is here.

        That is the one of its name and kind, or else the only one of its kind. `key` names one, for the tasks of its kind, or
        says that none is taken (ONLY_TRUNK). Raises RecipeError where `key` is not here or of no task's kind, and where a
        task could begin from several.
        """
        if key == ONLY_TRUNK:
            return dict.fromkeys(tasks, "")
        here = {own: kind_of(own, stored) for own, stored in self.recipe.tasks.items()}
        wanted = {name: kind_of(name, options) for name, options in tasks.items()}
        if key and here[self.named(key)] not in wanted.values():
            alike = ", ".join(own for own, kind in here.items() if kind in wanted.values())
            raise RecipeError(
                f"weights_key={key}: is a head of the task {here[key]} in {self.source}, and here is none "
                f"({', '.join(wanted)}); leave it out: the trunk is taken all the same"
                + (f"; or name {alike}" if alike else "")
            )
        found, problems = {}, []
        for name, kind in wanted.items():
            alike = [own for own, other in here.items() if other == kind]
            could = [key] if key in alike else alike
            if name in alike and name not in could:
                problems.append(
                    f"weights_key={key}: the task {name} could begin from {key}, which is named, or from {name}, as it is called "
                    f"in {self.source}: leave weights_key out, or call the task otherwise"
                )
            elif name not in could and len(could) > 1:
                say = (
                    "call the task as it is called there" if key else "say with weights_key= which, or call the task so"
                )
                problems.append(
                    f"weights={self.source}: holds several heads of the task {kind}, and {name} could begin from "
                    f"{' or '.join(could)}; {say}"
                )
            found[name] = name if name in could else next(iter(could), "")
        if problems:
            raise RecipeError(problems)
        return found

    def fill_pyramid(self, model: Model) -> None:
        """Copy the pyramid's tensors into a model that has one of the same shape."""
        own = model.state_dict()
        for name, tensor in self.tensors.items():
            if (
                ".fpn." in f".{name}"
                and name.startswith("backbone.")
                and name in own
                and own[name].shape == tensor.shape
            ):
                own[name].copy_(tensor)


def write_bundle(
    file: Path, name: str, recipe: Recipe, facts: Facts, tensors: Mapping[str, torch.Tensor], update: int
) -> None:
    """Write all of a model of several tasks as one file. What belongs to a data folder is left out of it."""
    tasks = {}
    for task, options in recipe.tasks.items():
        kind = type(options)
        away = {key: getattr(kind(), key) for key in ("data", *belonging(options, "data"))}
        tasks[task] = replace(options, **away)
    network = replace(recipe.network, weights="none", weights_key="")
    said = {
        "recipe": name,
        "update": update,
        "resolved": to_plain(Recipe(tasks, network, balance=recipe.balance, norms=recipe.norms)),
        "facts": asdict(facts),
    }
    save_bundle(file, tensors, facts.arch, facts.stride_in, stated(facts), {SAID: json.dumps(said)})


def read_bundle(file: Path) -> Bundle | None:
    """Read a file that `write_bundle` wrote; None for any other. Raises WeightsError where it is damaged."""
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(str(file), "pt") as stored:
            header = stored.metadata() or {}
            if SAID not in header:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        said = json.loads(header[SAID])
        recipe, facts = from_plain(said["resolved"]), Facts(**said["facts"])
    except SafetensorError:
        return None  # reading it says what is wrong with it
    except RecipeError as error:  # of a task that a plug-in brings
        raise RecipeError([f"{file}: {problem}" for problem in error.problems]) from None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{file}: its header is damaged ({error}); write it again, or take a task's own file"
        ) from None
    return Bundle(said["recipe"], recipe, facts, tensors, int(said["update"]), str(file))
