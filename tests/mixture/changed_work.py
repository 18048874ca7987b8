"""Runs that go on with other tasks, each in a fork of a process that has scored nothing: prints what came of them as JSON."""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # noqa: F401 - the narrow network
import torch
from run_work import at_call, die, final, in_child

from trunkline.cluster.checkpoint import read_tensors
from trunkline.cluster.engines.torch_engine import TorchEngine
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.models.opened import bundle_of
from trunkline.pipelines.models.ready import Source, ready, tasks_of
from trunkline.pipelines.recipe.knobs import resolve

FILE = str(Path(__file__).parents[1] / "shared_tasks.py")
PLAIN = {"machine.threads": 1, "machine.loaders": 0, "machine.precision": "fp32", "machine.channels_last": False,
         "log.tensorboard": False, "checkpoints.updates": 2, "checkpoints.keep": 9, "shared": False,
         "optimizer.name": "adamw", "updates": 6}  # fmt: skip
TWO, THREE = ("classification", "boxes"), ("classification", "boxes", "some")


def resolved(names, **more):
    own = {"norms.some": "own"} if "some" in names else {}
    return resolve(FILE, {**PLAIN, "names": names, **own, **more})


def killed(run: Path, names, step: int) -> int:
    return in_child(resolved(names), run, lambda: at_call(TorchEngine, "_step", step, die))


def at(run: Path, update: int) -> dict[str, torch.Tensor]:
    return read_tensors(run / f"checkpoints/{update:06d}/model.safetensors")


def main(folder: Path) -> dict:
    one, two, lost = folder / "one", folder / "two", folder / "lost"
    told = {"began": killed(one, TWO, 3)}
    before = at(one, 2)
    shutil.copytree(one, two)
    shutil.copytree(one, lost)
    told["went on"] = in_child(resolved(THREE), one)
    told["killed again"] = [
        killed(two, THREE, 2),
        killed(two, THREE, 4),
    ]  # before a checkpoint with the task, and after
    told["resumed"] = in_child(resolved(THREE), two)
    a, b = final(one), final(two)
    told["differ"] = sorted(a.keys() ^ b.keys()) + [n for n in a if n in b and not torch.equal(a[n], b[n])]
    new = at(one, 6).keys() - before.keys()
    told["new"] = sorted({n.split(".")[1] for n in new if n.startswith("heads.")})
    told["new elsewhere"] = [n for n in new if not n.startswith("heads.") and ".statistics.some." not in n]
    counts = [n for n in new if n.endswith("statistics.some.num_batches_tracked")]
    told["batches"] = [[int(at(one, 4)[n]), int(before[n.replace(".statistics.some", "")])] for n in counts]
    told["moved"] = [n for n in at(one, 4) if "heads.some" in n and not torch.equal(at(one, 4)[n], at(one, 6)[n])] != []
    document = json.loads((one / "recipe.json").read_text())
    told["changes"] = document["changes"]
    told["notes"] = [m["text"] for line in (one / "metrics.jsonl").read_text().splitlines()
                     if (m := json.loads(line))["kind"] == "note"]  # fmt: skip
    state = json.loads((one / "checkpoints/000004/state.json").read_text())
    told["begun"] = state["begun"]
    told["taken out"] = [killed(lost, THREE, 4), in_child(resolved(TWO), lost)]
    told["left"] = sorted({n.split(".")[1] for n in at(lost, 6) if n.startswith("heads.")})
    told["over"] = in_child(resolved(THREE), lost)
    told["single"] = in_child(resolved(("boxes",)), one)
    return told | opened(one, lost)


def opened(one: Path, lost: Path) -> dict:
    """What checkpoints say from before a task came, and from before one went."""
    before = ready(Source(str(one), checkpoint="000002", tasks=("all",), device="cpu"))
    gone = ready(Source(str(lost), checkpoint="000004", task="some", device="cpu"))
    told = {"before": [*before.tasks], "gone": gone.origin}
    for name, run, at in (("not yet", one, "000002"), ("no more", lost, "last")):
        try:
            tasks_of(Source(str(run), checkpoint=at, task="some"))
        except RecipeError as error:
            told[name] = str(error)
    (lost / "checkpoints/last").write_text("000004")  # as a run that ended before a checkpoint without the task
    (lost / "weights.safetensors").unlink()
    told["begun from"] = [*bundle_of(lost).recipe.tasks]
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))))
