"""Where large and small pictures lie, how they are joined, and the aligned squares that training sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.heads.super_resolution.adversarial import Adversarial, Perceptual
from trunkline.tasks.check import check
from trunkline.tasks.samples import Sample
from trunkline.tasks.super_resolution.options import Options
from trunkline.tasks.super_resolution.resize import shrunk
from trunkline.tasks.super_resolution.splits import read_split
from trunkline.tasks.super_resolution.transforms import EvalTransform, TrainTransform, jittered, small_part


def picture(file, width=64, height=48, seed=0, grey=False, bits=8):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(
        0, 2**bits, (height, width) if grey else (height, width, 3), np.uint8 if bits == 8 else np.uint16
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


def pairs(folder, large="HR", small="LRx4", end="", count=3):
    for n in range(count):
        hr = picture(folder / large / f"{n}.png", seed=n)
        (folder / small).mkdir(parents=True, exist_ok=True)
        Image.fromarray(shrunk(hr, 4)).save(folder / small / f"{n}{end}.png")
    return folder


def read(folder, split="val", **options):
    return read_split(Options(data=str(folder), **options), split)


@pytest.mark.parametrize(
    ("large", "small", "end", "split"),
    [
        ("HR", "LRx4", "", "val"),
        ("HR", "LRx4_mirror", "x4", "val"),
        ("val/HR", "val/LR", "", "val"),
        ("train/GT", "train/LQ", "_x4", "train"),
        ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X4", "x4", "train"),
        ("DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X4", "x4", "val"),
    ],
)
def test_pairs_are_found(tmp_path, large, small, end, split):
    found = read(pairs(tmp_path, large, small, end), split)
    assert len(found) == 3 and found.small_folder == small and found.id(0) == f"{large}/0.png"
    assert f"small pictures: {small}" in found.remarks()
    sample = EvalTransform(found.options)(found[0])
    assert sample.image.shape == (3, 12, 16) and sample.targets["hr"].shape == (3, 48, 64)


def test_small_pictures_are_made_where_there_are_none_or_that_is_said(tmp_path):
    pairs(tmp_path)
    made, given_ = (
        EvalTransform(o)(read(tmp_path, format=form)[1]).image for form in ("pictures", "pairs") for o in [Options()]
    )
    assert torch.equal(made, given_)
    assert "bicubic of the large ones, antialiased, border=mirror" in read(tmp_path, format="pictures").remarks()[-1]
    with pytest.raises(DataError, match=r"format=pairs: .* has no folder of small pictures beside it, such as LRx2"):
        read(tmp_path, format="pairs", scale=2)


def test_what_is_not_split_is_scored_whole_and_trained_on_with_a_share(tmp_path):
    for n in range(10):
        picture(tmp_path / f"t{n}.png", seed=n)
    assert len(read(tmp_path)) == 10
    with pytest.raises(DataError, match=r"is not split: give val=0\.1"):
        read(tmp_path, "train")
    for share in ("0.2", "0.5"):
        train, val = (
            {s.id(i) for i in range(len(s))} for s in (read(tmp_path, x, val=share) for x in ("train", "val"))
        )
        assert not train & val and len(train | val) == 10 and len(val) == 10 * float(share)
    for seed in range(3):
        names = (f"t{seed}", f"t{seed + 4}")
        both = {
            x: {
                read(tmp_path, x, val="0.3", together=("+".join(names),)).id(i)
                for i in range(len(read(tmp_path, x, val="0.3", together=("+".join(names),))))
            }
            for x in ("train", "val")
        }
        assert any({f"{n}.png" for n in names} <= ids for ids in both.values())
    with pytest.raises(DataError, match=r"together=t1\+x9: there is no picture x9"):
        read(tmp_path, val="0.3", together=("t1+x9",))


def test_pictures_that_are_named_with_a_common_one_stay_together(tmp_path):
    for n in range(12):
        picture(tmp_path / f"t{n}.png", seed=n)
    for said in (("t1+t10", "t10+t11"), ("t1+t10", "t3+t11", "t10+t3")):
        names = {f"{name}.png" for words in said for name in words.split("+")}
        for share in ("0.2", "0.35", "0.5", "0.7"):
            for split in ("train", "val"):
                found = read(tmp_path, split, val=share, together=said)
                assert {found.id(i) for i in range(len(found))} & names in (set(), names)


def named_without_a_share(folder):
    pairs(folder)
    return {"together": ("0+1",)}


def equal_sizes(folder):
    picture(folder / "a.png")
    return {"scale": 1}


def one_of_a_share(folder):
    picture(folder / "a.png")
    return {"val": "0.5"}


def all_together(folder):
    pairs(folder, count=2)
    return {"val": "0.5", "together": ("0+1",)}


@pytest.mark.parametrize(("made", "said"), [
    (named_without_a_share, r"together=0\+1: keeps pictures on one side of a share, and none is held out here"),
    (equal_sizes, r"scale=1: small pictures made of those in .* would equal them: give pairs"),
    (one_of_a_share, r"^there is 1 file: none would be left for training"),
    (all_together, r"^none would be for \w+: the groups are too few or too large"),
])  # fmt: skip
def test_options_that_do_not_go_with_the_data_are_refused(tmp_path, made, said):
    options = made(tmp_path)
    with pytest.raises(DataError, match=said):
        read(tmp_path, **options)


@pytest.mark.parametrize(("options", "said"), [
    ({"l1": 0.0}, "l1=0: mse and charbonnier are 0 too"),
    ({"format": "pictures", "train_lr": "LR"}, "train_lr=LR: names small pictures, and format=pictures makes them"),
    ({"val": "0.2", "val_lr": "LR"}, "val_lr=LR: val=0.2 is a share of one set, whose small pictures train_lr= names"),
    ({"perceptual": Perceptual("x.pth")}, "perceptual: counts in the updates against a critic alone"),
    ({"adversarial": Adversarial(weight=0.0, pixel=0.0)}, "adversarial.weight=0: adversarial.pixel is 0 too"),
    ({"adversarial": Adversarial(weight=0.0, pixel=0.0), "perceptual": Perceptual("x.pth", weight=0.0)}, "weight=0: "),
])  # fmt: skip
def test_options_of_which_one_is_not_read_or_nothing_is_learnt_are_told(options, said):
    (line,) = Options(**options).problems()
    assert said in line


def test_options_that_go_together_are_none():
    for options in ({"l1": 0.0, "charbonnier": 1.0}, {"adversarial": Adversarial(pixel=0.0)}, {"val_lr": "LR"},
                    {"adversarial": Adversarial(weight=0.0, pixel=0.0), "perceptual": Perceptual("x.pth")}):  # fmt: skip
        assert Options(**options).problems() == []


def test_what_is_left_out_or_unlike_is_counted(tmp_path):
    pairs(tmp_path, small="LRx3")
    for name in ("b.gif", "a.GIF", "notes.txt"):
        (tmp_path / "HR" / name).write_bytes(b"GIF89a")
    found = read(tmp_path).remarks()
    assert "2 files of other kinds are left out: a.GIF, b.gif" in found
    assert found[-1].endswith("border=mirror; LRx3 is left out at scale=4")
    told = [e["what"] for e in check(tmp_path, task="super_resolution", loaders=0, progress=False).oddities]
    assert "2 files of other kinds are left out: a.GIF, b.gif" in told
    pairs(tmp_path)
    small = np.asarray(Image.open(tmp_path / "LRx4/0.png").convert("L"))
    Image.fromarray(small).save(tmp_path / "LRx4/0.png")
    Image.fromarray(small.astype(np.uint16) * 257).save(tmp_path / "LRx4/1.png")
    found = read(tmp_path).remarks()
    assert "2 pairs of 3: the small picture is grey, the large one in colour" in found
    assert "1 pair of 3: the small picture is of 16 bits, the large one of 8 bits" in found
    assert found[-1] == "small pictures: LRx4"


def test_a_folder_of_other_kinds_alone_says_so(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"holds no picture that is read: 1 file of other kinds is left out: a\.gif"):
        read(tmp_path)


def two_sets(folder):
    pairs(folder)
    pairs(folder, small="LRx4_mirror")


def half(folder):
    (pairs(folder) / "LRx4/1.png").unlink()


def other_half(folder):
    (pairs(folder) / "HR/1.png").unlink()


def other_scale(folder):
    Image.new("RGB", (32, 24)).save(pairs(folder) / "LRx4/1.png")


def small_side(folder):
    picture(folder / "a.png", 64, 31)


def two_small(folder):
    picture(pairs(folder) / "LRx4/1x4.png", 16, 12)


WRONG = {
    "several sets of small pictures fit scale=4: give one of val_lr=LRx4, val_lr=LRx4_mirror": two_sets,
    "HR/1.png: has no small picture in": half,
    "LRx4/1.png: has no large picture in": other_half,
    "is 64 x 48 pixels, and": other_scale,
    "is 64 x 31 pixels; expected sides of at least 8 x scale, 32": small_side,
    "may both be of one picture; leave one": two_small,
    "holds no picture": lambda folder: None,
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_data_is_told_by_name(tmp_path, said):
    WRONG[said](tmp_path)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert said in str(caught.value)
    assert any(
        said in entry["what"] for entry in check(tmp_path, task="super_resolution", loaders=0, progress=False).problems
    )


def test_pictures_that_are_too_small_can_be_left_out(tmp_path):
    small_side(tmp_path)
    picture(tmp_path / "b.png")
    found = read(tmp_path, on_bad_sample="skip")
    assert len(found) == 1 and "a.png" in found.excluded


def test_a_look_at_the_whole_folder(tmp_path):
    pairs(tmp_path)
    found = check(tmp_path, task="super_resolution", loaders=0, progress=False)
    assert found.ok and found.counts == {"all": {"pictures": 3}} and found.modes == {"RGB, 8 bits": 3}
    (tmp_path / "HR/2.png").write_bytes(b"no picture")
    assert [e["file"] for e in check(tmp_path, task="super_resolution", loaders=0, progress=False).problems] == [
        "HR/2.png"
    ]


def test_training_remarks_where_it_sees_little_or_too_much_of_a_picture(tmp_path):
    picture(tmp_path / "train/a.png", 300, 300)
    picture(tmp_path / "train/b.png", 280, 280)
    (tmp_path / "val").mkdir()
    notes = read(tmp_path, "train", crop=32).notes
    assert len(notes) == 1 and "pictures of 0.1 megapixels are decoded for 1 square of 32 pixels each" in notes[0]
    assert "crops=4" in notes[0] and not read(tmp_path, "train", crop=32, crops=4).notes
    picture(tmp_path / "train/c.png", 40, 300)
    assert read(tmp_path, "train").notes == ("1 picture of 3 smaller than crop=96: padded by reflection",)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([2, 3, 4]),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from(["mirror", "replicate"]),
    st.booleans(),
)
def test_a_part_is_what_it_is_in_the_whole(scale, top, left, border, deep):
    rng, kind = np.random.default_rng(top * 31 + left), np.uint16 if deep else np.uint8
    large = rng.integers(0, np.iinfo(kind).max, (30 * scale, 29 * scale, 3), kind, endpoint=True)
    whole = shrunk(large, scale, border)
    part = small_part(large, top, left, 8, Options(scale=scale, border=border, crop=8 * scale))
    assert np.array_equal(part, whole[top : top + 8, left : left + 8])


@pytest.mark.parametrize("given_", [True, False])
@pytest.mark.parametrize("size", [(200, 120), (40, 120), (33, 35)])
def test_squares_of_large_and_small_are_aligned(size, given_):
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (*size, 3), np.uint8)
    cut = large[: size[0] // 4 * 4, : size[1] // 4 * 4]
    targets = {"lr": torch.from_numpy(shrunk(cut, 4)).permute(2, 0, 1)} if given_ else {}
    torch.manual_seed(0)
    sample = Sample("a", "a", torch.from_numpy(large).permute(2, 0, 1), targets)
    found = TrainTransform(Options(crop=48, crops=30))(sample)
    assert found.image.shape == (30, 3, 12, 12) and found.targets["hr"].shape == (30, 3, 48, 48)
    assert len({one.numpy().tobytes() for one in found.image}) > 7
    for small, big in zip(found.image, found.targets["hr"], strict=True):
        again = shrunk(big.permute(1, 2, 0).numpy(), 4)[3:-3, 3:-3].astype(int)
        assert (
            np.abs(again - small.permute(1, 2, 0).numpy()[3:-3, 3:-3]).max() <= 1
        )  # beyond the kernel's reach of the cut


def test_a_resized_picture_is_one_of_its_own():
    """Factors are spread over the range; what is seen of small pixels is what our shrinking makes of the large ones."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(200)[:, None] / 3) * np.sin(np.arange(260) / 3)
    large = (127 + 100 * waves[:, :, None] + rng.integers(0, 9, 3)).astype(np.uint8)
    options = Options(crop=48, crops=30, jitter=(0.5, 1.0))
    torch.manual_seed(0)
    shapes = [jittered(large, options) for _ in range(40)]
    assert all(min(one.shape[:2]) >= 48 and one.shape[0] % 4 == 0 == one.shape[1] % 4 for one in shapes)
    energy = [float(np.abs(np.diff(one.astype(float), axis=1)).mean()) for one in shapes]
    whole = float(np.abs(np.diff(large.astype(float), axis=1)).mean())
    assert 1.6 * whole < max(energy) < 2.1 * whole and min(energy) < 1.15 * whole  # waves become up to twice as short
    found = TrainTransform(options)(Sample("a", "a", torch.from_numpy(large).permute(2, 0, 1)))
    assert found.image.shape == (30, 3, 12, 12) and found.targets["hr"].shape == (30, 3, 48, 48)
    for small, big in zip(found.image, found.targets["hr"], strict=True):
        again = shrunk(big.permute(1, 2, 0).numpy(), 4)[3:-3, 3:-3].astype(int)
        assert np.abs(again - small.permute(1, 2, 0).numpy()[3:-3, 3:-3]).max() <= 1
    tiny = large[:50, :60]
    assert min(jittered(tiny, options).shape[:2]) == 48 and jittered(tiny, Options(crop=96, jitter=(0.5, 1))) is tiny
    assert jittered(large, Options()) is large


def test_pairs_are_not_resized_and_that_is_said(tmp_path):
    pairs(tmp_path / "train")
    pairs(tmp_path / "val")
    assert (
        "small pictures are given, so jitter=0.5,1 resizes none"
        in read(tmp_path, "train", jitter=(0.5, 1.0), crop=32).notes
    )
    assert not read(tmp_path, "train", jitter=(0.5, 1.0), crop=32, format="pictures").notes


def test_sixteen_bits_and_grey_go_in_as_fractions_and_three_channels():
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 64, 1), np.uint16)
    sample = EvalTransform(Options())(Sample("a", "a", torch.from_numpy(pixels).permute(2, 0, 1)))
    assert sample.image.dtype == torch.float32 and sample.image.shape == (3, 16, 16)
    expected = shrunk(pixels, 4)[:, :, 0] / 257
    assert np.abs(sample.image[0].numpy() - expected).max() < 1e-4 and torch.equal(sample.image[0], sample.image[2])
    assert sample.targets["kind"].tolist() == [1, 16] and sample.targets["hr"].dtype == torch.uint16
