"""torch.compile: the same function, whatever hooks an engine has on the model."""

import shutil
from dataclasses import replace

import pytest

from trunkline.cluster.checkpoint import read_tensors
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.training.train import train


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++ on a CPU")
def test_a_compiled_run_of_two_phases_and_micro_batches_has_the_weights_of_an_eager_one(scenes, tmp_path):
    given = {"data": str(scenes), "smoke": True, "micro_batch": 4, "machine.precision": "fp64", "ema": 0.9,
             "tasks.classification.dropout": 0.2, "log.tensorboard": False}  # fmt: skip
    found = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        resolved = resolve("transfer", {**given, "machine.compile": compiled})
        phase = replace(resolved.recipe.phases[0], updates=3)
        recipe = replace(resolved.recipe, phases=(replace(phase, frozen=2), phase))
        run = train(replace(resolved, recipe=recipe), tmp_path / name)
        folder = run.checkpoints / (run.checkpoints / "last").read_text()
        found[name] = {f"{part} {n}": t.double() for part in ("model", "ema", "optimizer")
                       for n, t in read_tensors(folder / f"{part}.safetensors").items()}  # fmt: skip
    assert found["eager"].keys() == found["compiled"].keys()
    for name, tensor in found["eager"].items():
        assert (tensor - found["compiled"][name]).abs().max() <= 1e-7 * max(1e-3, tensor.abs().max()), name
