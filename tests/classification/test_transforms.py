"""Training's crop and evaluation's pixels, against torchvision's own on the same pictures."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as published
from torchvision.transforms import v2

from trunkline.backbones.contract import Preprocessing
from trunkline.tasks.classification.options import Options
from trunkline.tasks.classification.transforms import EvalTransform, eval_transform, train_transform
from trunkline.tasks.contract import Sample
from trunkline.tasks.images.decode import read_image

DATA = os.environ.get("TRUNKLINE_TEST_DATA", "")
SIZES = [(37, 53), (53, 37), (256, 256), (255, 341), (224, 500), (1, 1), (3, 400), (600, 411), (257, 256)]


def picture(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(height * 1000 + width).integers(0, 256, (9, 11, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def sample(image: Image.Image) -> Sample:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return Sample("x", Path("x"), pixels, {"label": 1})


def published_eval(image: Image.Image, p: Preprocessing) -> torch.Tensor:
    mode = published.InterpolationMode(p.interpolation)
    steps = [published.Resize(p.resize, mode), published.CenterCrop(p.size), published.PILToTensor()]
    return published.Compose(steps)(image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "p",
    [
        Preprocessing(),
        Preprocessing(size=224, resize=232),
        Preprocessing(size=160, resize=183, interpolation="bicubic"),
        Preprocessing(size=65, resize=64),  # a crop larger than the picture is padded
    ],
)
def test_evaluation_is_the_published_transform_to_the_pixel(size, p):
    image = picture(*size)
    given = sample(image)
    out = eval_transform(p)(given)
    assert out.image.dtype == torch.uint8 and out.image.shape == (3, p.size, p.size)
    assert torch.equal(out.image, published_eval(image, p))
    assert out.targets == {"label": 1} and given.image.shape == (3, *size)


@pytest.mark.skipif(not DATA, reason="TRUNKLINE_TEST_DATA is unset: real photos are not at hand")
def test_evaluation_on_real_photos_from_file_to_pixel():
    files = sorted(Path(DATA, "hymenoptera", "val").rglob("*.jpg"))[::8]
    files += sorted(Path(DATA, "medical").rglob("*.png"))
    for file in files:
        with Image.open(file) as image:
            expected = published_eval(image.convert("RGB"), Preprocessing())
        out = eval_transform(Preprocessing())(Sample(file.name, file, read_image(file)))
        assert torch.equal(out.image, expected), file


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_training_is_torchvisions_crop_and_flip_under_the_same_seed(size, interpolation):
    given = sample(picture(*size))
    p = Preprocessing(interpolation=interpolation)
    ours = train_transform(p, Options(size=96, scale=(0.2, 0.9), ratio=(0.5, 2.0), flip=0.5))
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(
                96, (0.2, 0.9), (0.5, 2.0), published.InterpolationMode(interpolation), antialias=True
            ),
            v2.RandomHorizontalFlip(0.5),
        ]
    )
    flat = given.image.contiguous()
    outs = []
    for seed in range(12):
        torch.manual_seed(seed)
        out = ours(given).image
        torch.manual_seed(seed)
        assert torch.equal(out, theirs(flat))
        assert out.dtype == torch.uint8 and out.shape == (3, 96, 96)
        outs.append(out)
    if min(size) > 3:
        assert not all(torch.equal(out, outs[0]) for out in outs)


def test_training_draws_from_torchs_generator_alone_and_survives_a_pickle():
    given = sample(picture(255, 341))
    transform = train_transform(Preprocessing(), Options())
    again = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(5)
    first = transform(given).image
    np.random.seed(1)
    torch.manual_seed(5)
    assert torch.equal(again(given).image, first)


def test_flip_follows_its_chance():
    given = sample(picture(64, 64))
    whole = {"size": 64, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    never = train_transform(Preprocessing(), Options(**whole, flip=0.0))
    always = train_transform(Preprocessing(), Options(**whole, flip=1.0))
    assert torch.equal(never(given).image, given.image)
    assert torch.equal(always(given).image, given.image.flip(-1))


def test_without_augmentation_training_sees_the_evaluation_crop():
    given = sample(picture(255, 341))
    plain = train_transform(Preprocessing(), Options(augment=False, size=112))
    assert isinstance(plain, EvalTransform)
    assert torch.equal(plain(given).image, eval_transform(Preprocessing().at(112))(given).image)
