"""Whole pictures, fitted to a size: the pixels of a detector, masks that move with them, and what belongs to crops alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trunkline.backbones import backbone
from trunkline.backbones.contract import Preprocessing
from trunkline.backbones.pyramid import Pyramid
from trunkline.ground.errors import RecipeError
from trunkline.heads.contract import Batch
from trunkline.heads.model import Model
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.models.ready import changed_options
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.tasks.contract import Sample
from trunkline.tasks.detection.options import Options as BoxOptions
from trunkline.tasks.detection.task import Detection
from trunkline.tasks.images.fit import FitEvaluation, FitTraining, box_tensor
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.samples import PixelSamples
from trunkline.tasks.segmentation.task import Segmentation
from trunkline.tasks.segmentation.views import see

pytestmark = pytest.mark.usefixtures("one_core")
SIZES = [(50, 70), (70, 50), (50, 70), (33, 97), (97, 33), (50, 70), (140, 100), (64, 64)]  # heights and widths


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Black and white rectangles without any symmetry, `(H, W)` uint8."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 2, (3, 3)).astype(np.uint8) * 255
    cells[0], cells[2, 2] = (255, 0, 0), 255
    return np.array(Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Pictures of many sizes, each with its threshold as its mask."""
    folder = tmp_path_factory.mktemp("fit") / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for n, size in enumerate(SIZES):
            grey = picture(*size, n)
            Image.fromarray(grey).convert("RGB").save(folder / f"images/{split}/{n}.png")
            Image.fromarray(grey // 255).save(folder / f"masks/{split}/{n}.png")
    (folder / "classes.txt").write_text("black\nwhite\n")
    return folder


def task_of(data: Path, **changed) -> Segmentation:
    own = {"view": "fit", "size": 48, "longest": 96, **changed}
    return Segmentation(Options(data=str(data), format="pairs", **own), Preprocessing())


SETTINGS = ({}, {"longest": 60}, {"sizes": (32, 64), "photometric": True}, {"jitter": (0.3, 1.6), "flip": 1.0})


@pytest.mark.parametrize("settings", SETTINGS)
def test_its_pixels_are_a_detectors(pairs, settings):
    segmentation = task_of(pairs, **settings)
    detection = Detection(BoxOptions(**{"size": 48, "longest": 96, **settings}), Preprocessing())
    for training in (True, False):
        ours, theirs = segmentation.view(training), detection.view(training)
        assert (
            ours == theirs
            and hash(ours) == hash(theirs)
            and isinstance(ours, (FitTraining, FitEvaluation)[not training])
        )
        for sample in map(segmentation.samples("val").__getitem__, range(3)):
            torch.manual_seed(3)
            own = segmentation.transform(training)(sample)
            torch.manual_seed(3)
            boxes = {
                "boxes": box_tensor(torch.zeros(0, 4), sample.image.shape[-2:]),
                "labels": torch.zeros(0),
                "original": sample.image.shape[-2:],
            }
            other = detection.transform(training)(Sample("a", "a", sample.image, boxes))
            assert torch.equal(own.image, other.image)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_mask_moves_with_its_picture(pairs, settings):
    task, seen = task_of(pairs, **{**settings, "photometric": False}), []
    samples, change = task.samples("train"), task.transform(True)
    for n in range(16):
        torch.manual_seed(n)
        moved = change(samples[n % len(samples)])
        mask = moved.targets["mask"]
        assert type(mask) is torch.Tensor and mask.dtype == torch.uint8 and mask.shape == moved.image.shape[-2:]
        assert ((moved.image[0] >= 128) == mask).float().mean() > 0.93  # all but where rectangles meet
        torch.manual_seed(n)
        again = change(Sample("a", "a", samples[n % len(samples)].image, {}))
        assert torch.equal(again.image, moved.image)
        seen.append(bool(((moved.image[0].flip(-1) >= 128) == mask).float().mean() > 0.9))
    assert not any(seen)  # the check can fail: no picture looks like its mirror image


def test_batches_are_padded_with_void_and_masks_keep_their_size_in_evaluation(pairs):
    task = task_of(pairs, head="semantic_fpn", flip=0.0)
    assert task.padding == 64 and task_of(pairs, head="fcn", padding=1).padding == 1
    assert task_of(pairs, head="semantic_fpn", padding=48).padding == 96, "of the head's unit, 32, too"
    samples = [task.transform(True)(task.samples("train")[i]) for i in (0, 1)]
    batch = task.collate(samples)
    assert batch.images is not None and batch.images.shape == (2, 3, 128, 128)
    assert batch.sizes.tolist() == [[48, 67], [67, 48]] and batch.targets["mask"].shape == (2, 128, 128)
    for mask, sample in zip(batch.targets["mask"], samples, strict=True):
        height, width = sample.image.shape[-2:]
        assert torch.equal(mask[:height, :width], sample.targets["mask"])
        assert (mask[height:] == 255).all() and (mask[:, width:] == 255).all()
    assert task.targets(samples, 128, 160)["mask"].shape == (2, 128, 160)  # as another task's batch asks for
    seen = [task.transform(False)(task.samples("val")[i]) for i in (3, 4)]
    found = task.collate(seen)
    assert found.sizes.tolist() == [[32, 96], [96, 32]] and found.targets["original"].tolist() == [[33, 97], [97, 33]]
    assert [tuple(m.shape) for m in found.targets["mask"]] == [(33, 97), (97, 33)]
    assert {type(m) for m in found.targets["mask"]} == {torch.Tensor}
    assert "mask" not in task.collate([task.transform(False)(Sample("a", "a", seen[0].image))]).targets


def test_pictures_of_a_shape_go_together(pairs):
    def samples(**changed) -> PixelSamples:
        found = task_of(pairs, **changed).samples("train")
        assert isinstance(found, PixelSamples)
        return found

    assert samples().groups(True).tolist() == [w >= h for h, w in SIZES]
    assert samples(jitter=(0.5, 1.0)).groups(True) is None
    fitted = samples().groups(False).tolist()
    assert [(n >> 32, n & (1 << 32) - 1) for n in fitted[:4]] == [(48, 67), (67, 48), (48, 67), (32, 96)]
    own = samples(flips=True).groups(False).tolist()
    assert [(n >> 32, n & (1 << 32) - 1) for n in own] == SIZES
    assert not any("smaller than" in line for line in samples(size=400, longest=800).remarks())


@pytest.mark.parametrize("head", ["deeplabv3", "deeplabv3plus", "fcn", "unet", "fpn", "semantic_fpn"])
def test_every_head_learns_from_whole_pictures_and_sees_each_alone(pairs, head):
    if head in ("deeplabv3plus", "unet", "fpn"):
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    task = task_of(pairs, head=head)
    trunk = backbone("narrow", output_stride=16 if head.startswith("deeplab") else 32)
    trunk = Pyramid(trunk, "pool", 32) if head == "semantic_fpn" else trunk
    model = Model(trunk, {"segmentation": task.head(trunk)}, Preprocessing()).train()
    losses = model.losses(task.collate([task.transform(True)(task.samples("train")[i]) for i in (0, 1, 6)]))
    losses["segmentation/cross_entropy"].backward()
    assert losses["segmentation/cross_entropy"].isfinite()
    model.eval()
    seen = [task.transform(False)(task.samples("val")[i]) for i in (0, 2, 5)]  # one group
    with torch.inference_mode():
        together = task._logits(model, task.collate(seen))
        alone = [task._logits(model, task.collate([one]))[0] for one in seen]
        assert [p.labels.shape for p in task.infer(model, task.collate(seen))] == [(50, 70)] * 3
    for one, other in zip(together, alone, strict=True):
        assert one.std() > 0
        assert (one - other).abs().max() < 1e-5 * other.abs().max()  # rounding: kernels differ with the batch


def test_a_score_does_not_depend_on_the_batches(pairs, tmp_path):
    run, records = tmp_path / "run", []
    words = ["train", "segment", f"data={pairs}", "format=pairs", "head=semantic_fpn", "view=fit", "size=48", "batch=2"]
    more = [
        "weights=none",
        "backbone=narrow",
        "updates=24",
        "lr=0.05",
        "machine.threads=1",
        "machine.loaders=0",
        "log.tensorboard=false",
    ]
    assert main([*words, *more, "machine.precision=fp32", "longest=90", "--run", str(run)]) == 0
    for size in (1, 3, 8):
        assert main(["evaluate", str(run), f"batch={size}", f"out={tmp_path / f'{size}.jsonl'}", "loaders=0"]) == 0
        records.append([json.loads(line) for line in (tmp_path / f"{size}.jsonl").read_text().splitlines()])
    assert json.loads((run / "scores.json").read_text())["mIoU"] > 0.6  # it tells white from black
    assert len(records[0]) == len(SIZES) and records[0] == records[1] == records[2]


def test_views_of_a_picture_are_fitted_as_one_look_is():
    options = Options(view="fit", size=32, longest=64)
    for height, width in SIZES[:5]:
        image, shapes = torch.zeros(3, height, width, dtype=torch.uint8), []

        def logits(seen: torch.Tensor, shapes=shapes) -> torch.Tensor:
            shapes.append(tuple(seen.shape[-2:]))
            return torch.zeros(2, *seen.shape[-2:])

        one = Segmentation(options, Preprocessing()).transform(False)(Sample("a", "a", image))
        (found,) = see(image, logits, options)
        assert shapes == [tuple(one.image.shape[-2:])] and found[2].shape == (2, height, width)
    shapes.clear()
    list(see(image, logits, Options(view="fit", size=32, longest=40, tiles=64, overlap=0.0)))
    assert shapes[0] == (40, 20) and len(shapes) == 2  # windows of 64 x 33 and 33 x 33, each fitted
    assert Segmentation(Options(view="fit", size=32, flips=True), Preprocessing()).view(False) is None
    assert Segmentation(Options(), Preprocessing()).view(True) is None  # crops are shared with no other task


WRONG = [
    ({"view": "fit"}, "size=none: view=fit needs the pixels of the shorter side: set size=, as size=640"),
    ({"view": "fit", "size": "64", "crop": "96"}, "crop=96: view=fit sees whole pictures and cuts none; leave it out"),
    ({"view": "fit", "size": "64", "crop": "512"}, "crop=512: view=fit sees whole pictures and cuts none; leave it out"),
    ({"view": "fit", "size": "64", "short": "96"}, "short=96: view=fit sees whole pictures and cuts none; leave it out"),
    ({"view": "fit", "size": "64", "cat_max_ratio": "0.5"}, "cat_max_ratio=0.5: view=fit sees whole pictures"),
    ({"view": "fit", "size": "64", "sizes": "32,64", "jitter": "0.5,1"}, "sizes=32,64: jitter= says the size already"),
    ({"view": "fit", "size": "64", "jitter": "2,1"}, "jitter=2,1: expected two numbers above 0, the smaller one first"),
    ({"longest": "96"}, "longest=96: view=crop cuts squares from pictures; leave it out, or set view=fit"),
    ({"sizes": "32,64"}, "sizes=32,64: view=crop cuts squares from pictures; leave it out, or set view=fit"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_options_of_the_other_view_are_refused(settings, said):
    with pytest.raises(RecipeError) as error:
        resolve("segment", {"data": "nowhere", **settings})
    (problem,) = error.value.problems
    assert problem.startswith(f"tasks.segmentation.{said}")


def test_each_view_has_its_own_defaults():
    crop = resolve("segment", {"data": "d"}).recipe.tasks["segmentation"]
    assert (crop.view, crop.crop, crop.jitter, crop.size, crop.longest) == ("crop", 512, (0.5, 2.0), None, None)
    plain = Options()
    assert (plain.crop_side, plain.scale_jitter) == (512, (0.5, 2.0)) and Options(jitter=()).scale_jitter == ()
    fit = resolve("segment", {"data": "d", "view": "fit", "size": "640"}).recipe.tasks["segmentation"]
    assert (fit.crop, fit.scale_jitter, fit.fitted) == (None, (), (640, 1280))
    jittered = resolve("segment", {"data": "d", "view": "fit", "size": "64", "jitter": "0.5,2"}).recipe
    assert jittered.tasks["segmentation"].scale_jitter == (0.5, 2.0)
    smoke = resolve("segment", {"smoke": "true", "view": "fit"}).recipe.tasks["segmentation"]
    assert (smoke.crop, smoke.fitted) == (None, (64, 128))
    for name in ("voc-deeplab", "coco-voc"):
        assert resolve(name, {"data": "d"}).recipe.tasks["segmentation"].jitter == (0.5, 2.0)


def test_the_longer_side_follows_the_shorter_one():
    own = Options(view="fit", size=100, longest=150)
    assert changed_options("segmentation", own, {"size": "200"}).fitted == (200, 300)
    assert changed_options("segmentation", own, {"size": "200", "longest": "201"}).fitted == (200, 201)
    assert changed_options("segmentation", Options(view="fit", size=100), {"size": "200"}).fitted == (200, 400)
    assert changed_options("segmentation", Options(), {"size": "200"}).longest is None
    assert changed_options("segmentation", Options(), {"view": "fit", "size": "200"}).fitted == (200, 400)


def test_a_trunk_of_one_size_is_told_what_to_set():
    from trunkline.backbones.contract import Sizes

    trunk = backbone("narrow")
    trunk.sizes = Sizes(32, 32, 224)
    with torch.device("meta"):
        (said,) = Segmentation(Options(view="fit", size=200, head="fcn", padding=1), Preprocessing()).misfits(trunk)
    assert "segmentation sees pictures of up to 400 x 400" in said
    assert said.endswith("set size= and tasks.segmentation.longest= to at most 224")


def test_a_shared_batch_has_the_masks_of_one_draw(pairs):
    """As tasks that share pictures are changed: by `together`, each with its own targets."""
    task = task_of(pairs, jitter=(0.5, 1.5))
    sample = task.samples("train")[3]
    torch.manual_seed(1)
    image, (mine, other) = task.view(True).together(sample.image, [sample.targets, {"original": (33, 97)}])
    torch.manual_seed(1)
    alone = task.transform(True)(sample)
    assert torch.equal(image, alone.image) and torch.equal(mine["mask"], alone.targets["mask"])
    assert other == {"original": (33, 97)}
    batch = Batch("segmentation", ["a"], image[None], targets=task.targets([Sample("a", "a", image, mine)], 64, 64))
    assert batch.targets["mask"].shape == (1, 64, 64)
