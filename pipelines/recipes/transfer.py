"""Transfer of published weights to your own class folders."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...cluster.config import Average, Optimizer, Schedule
from ...tasks.classification.options import Options
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe

# mode: (stages frozen, maps cached, epochs, batch, learning rate)
_MODES = {
    "full": (0, False, 8, 16, 0.005),
    "last": (4, False, 8, 16, 0.01),
    "probe": (5, True, 100, 32, 0.01),
    "append": (5, True, 100, 32, 0.01),
}


def transfer(
    data: str = "",
    weights: str = "resnet50",
    weights_key: str = "",
    backbone: str | None = None,
    mode: Literal["full", "last", "probe", "append"] = "full",
    size: int | None = None,
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    micro_batch: int | Literal["auto", "all"] = "all",
    lr: float | None = None,
    seed: int = 0,
    val: float = 0.0,
    group: str = "",
    folds: int | Literal["groups"] = 0,
    format: Literal["auto", "folders", "csv"] = "auto",
    on_bad_sample: Literal["stop", "skip"] = "stop",
    strict: bool = False,
    depth: str = "",
    ema: float = 0.0,
    smoke: bool = False,
) -> Recipe:
    """Fine-tune published weights on a folder of classes.

    data           a folder with train/CLASS/ and val/CLASS/, or CLASS/ alone together with val=0.2
    format         what says the classes: folders (their names), csv (a table: train.csv and val.csv, or one with val=0.2);
                   auto: the one that is there
    group          what stays on one side: an expression that is searched in the paths, as group=/(p\\d+)_, or a table's column
    folds          divide all samples (train/ and val/ too) into so many folds and validate each once; groups: one a group
    weights        a file of safetensors or torch.save, a published name (resnet50, resnet50.a1_in1k), another run, or none
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    mode           full: all parameters; last: the last stage and the classifier; probe: a new classifier on cached
                   features; append: one more layer on top of the kept classifier
    size           side of the crop in pixels; by default the weights' own
    epochs         or updates: how long
    batch          samples an update; micro_batch divides it and gives the same update in less memory
    on_bad_sample  stop at files that are not pictures, or skip them and list them in the report
    strict         take everything that would be mended in the data as a mistake
    depth          how pictures of more than 8 bits a channel are read: full, or LOW:HIGH, as 0:4095
    smoke          a tiny run of seconds on generated pictures, to see that everything works

    Expect on hymenoptera (244 + 153 photos of ants and bees, ImageNet ResNet-50, two CPU cores with bf16), all run here, on
    two machines: probe 0.941 top-1 and append 0.948 to 0.954 in half a minute each; full with size=160 0.909 to 0.935 over
    three seeds in under three minutes each.
    """
    frozen, cached, own_epochs, own_batch, own_lr = _MODES[mode]
    if epochs is not None and updates is not None:
        raise RecipeError(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if smoke:  # settings that are given stay; only defaults shrink
        data, size, batch = data or "demo:smoke", size or 32, batch if batch is not None else 8
        if weights == "resnet50":
            weights, backbone = "none", backbone or "resnet18"
        if epochs is None and updates is None:
            updates = 2
        if mode == "append" and weights == "none":
            mode = "probe"
    if not data:
        raise RecipeError("data= is missing: give a folder with train/CLASS/ and val/CLASS/, or CLASS/ with val=0.2")
    if weights == "none" and mode == "append":
        raise RecipeError("mode=append keeps the weights' own classifier: weights=none has none")
    return Recipe(
        tasks={
            "classification": Options(
                data=data,
                format=format,
                val=val,
                group=group,
                folds=folds,
                on_bad_sample=on_bad_sample,
                strict=strict,
                depth=depth,
                size=size,
                augment=not cached,
                append=mode == "append",
            )
        },
        network=Network(
            backbone=backbone or ("resnet50" if weights == "none" else None), weights=weights, weights_key=weights_key
        ),
        batch=Batches(own_batch if batch is None else batch, micro_batch),
        phases=(
            Phase(
                name=mode,
                epochs=own_epochs if epochs is None and updates is None else epochs,
                updates=updates,
                frozen=frozen,
                cached=cached,
            ),
        ),
        optimizer=Optimizer("sgd", lr=own_lr if lr is None else lr, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("cosine"),
        average=Average(ema),
        evaluation=Evaluation(every=10 if cached else 1),
        seed=seed,
    )
