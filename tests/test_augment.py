"""Augmentations: each agrees with torchvision, draws for every sample by itself, and stays in range."""

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, Precision
from scipy.stats import beta, kstest
from torch import Tensor
from torchvision.transforms.v2 import RandAugment as RandAugmentOfTorchvision
from torchvision.transforms.v2 import functional as tv

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.augment import (
    AUGMENTATIONS,
    PRESETS,
    AlternatingFlip,
    Augmentation,
    ColorJitter,
    Compose,
    CutMix,
    Cutout,
    GaussianBlur,
    HorizontalFlip,
    Mixing,
    MixUp,
    Pixelate,
    Probability,
    RandAugment,
    RandomCrop,
    RandomErasing,
    TrivialAugment,
    augment,
    colour,
    erasing,
    make_augmentations,
    policies,
)
from cvcc_zoo.data.augment import operations as op
from cvcc_zoo.data.augment.augmentation import as_uint8
from cvcc_zoo.data.augment.policies import WIDE
from cvcc_zoo.data.draws import _GOLDEN, Draws, _mix, mix_seed, seed_torch

OPTIONS: dict[str, dict[str, Any]] = {
    "Compose": {"augmentations": ["RandomCrop", "ColorJitter"]},
    "Probability": {"augmentation": "GaussianBlur"},
}
NAMES = [name for name in AUGMENTATIONS if name not in ("MixUp", "CutMix")]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Real images (64, 3, 16, 16) uint8 in made-up colours."""
    clothes, _, samples = ImageDataModule().training_images()
    grey = clothes[samples[:64], :, 6:22, 6:22].float()
    colours = torch.rand(64, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return (grey * colours + 40 * (1 - colours)).round().clamp(0, 255).to(torch.uint8)


def draws(count: int = 64, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(count))


def spec(name: str) -> dict[str, Any]:
    return {"name": name, **OPTIONS.get(name, {})}


def make(name: str) -> Augmentation:
    (module,) = make_augmentations([spec(name)])
    assert isinstance(module, Augmentation)
    return module


# Every augmentation


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_images_keep_shape_type_and_range(images: Tensor, name: str, channels: int, dtype: torch.dtype) -> None:
    given = (images[:, :channels] / 255).to(dtype) if dtype.is_floating_point else images[:, :channels]
    before = given.clone()
    changed = make(name)(given, draws())
    assert changed.shape == given.shape and changed.dtype == given.dtype
    assert changed.min() >= 0 and changed.max() <= (1 if dtype.is_floating_point else 255)
    assert torch.equal(given, before) and changed.data_ptr() != given.data_ptr()
    assert not torch.equal(changed, given)


@pytest.mark.parametrize("name", NAMES)
def test_uint8_and_float_images_are_changed_alike(images: Tensor, name: str) -> None:
    on_bytes, on_floats = make(name)(images, draws()).float(), 255 * make(name)(images / 255, draws())
    near = (on_bytes - on_floats).abs() <= 2.0
    assert near.float().mean() > 0.99  # posterize and equalize round at other places


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_white_stays_white_in_bytes(dtype: torch.dtype) -> None:
    assert as_uint8(torch.ones(1, dtype=dtype)).tolist() == [255]


@pytest.mark.parametrize("precision", [DoublePrecision(), HalfPrecision("bf16-true")], ids=["double", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_default_precision_of_torch_changes_bytes_by_rounding_alone(
    images: Tensor, name: str, precision: Precision
) -> None:
    expected = make(name)(images, draws()).float()
    with precision.forward_context():
        changed = make(name)(images, draws()).float()
    assert ((changed - expected).abs() <= 1).float().mean() > 0.99


@pytest.mark.parametrize("name", [*NAMES, "MixUp", "CutMix"])
def test_a_seed_repeats_and_two_seeds_or_epochs_differ(images: Tensor, name: str) -> None:
    labels = torch.arange(64) % 10

    def changed(seed: int, epoch: int) -> Tensor:
        return augment(make_augmentations([spec(name)]), images, labels, draws(seed=seed, epoch=epoch), 10)[0]

    assert torch.equal(changed(0, 0), changed(0, 0))
    assert not torch.equal(changed(0, 0), changed(1, 0)) and not torch.equal(changed(0, 0), changed(0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_changed_alike_in_any_batch(images: Tensor, name: str) -> None:
    part = torch.tensor([3, 60, 17])
    alone = make(name)(images[part], Draws(0, 0, part))
    among = make(name)(images, draws())[part]
    assert (alone.int() - among.int()).abs().max() <= 1  # a sum may round otherwise in another batch


@pytest.mark.parametrize("name", NAMES)
def test_the_images_of_a_batch_are_changed_each_in_its_own_way(images: Tensor, name: str) -> None:
    same = images[7:8].expand(64, -1, -1, -1).contiguous()
    distinct = {changed.numpy().tobytes() for changed in make(name)(same, draws())}
    assert len(distinct) >= (2 if "Flip" in name else 3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_are_modules_that_can_be_moved_copied_and_pickled(images: Tensor, name: str) -> None:
    (module,) = make_augmentations([spec(name)])
    again = pickle.loads(pickle.dumps(copy.deepcopy(module).to(torch.float64).eval()))
    labels = torch.arange(64) % 10
    first, second = (augment([m], images, labels, draws(), 10)[0] for m in (module, again))
    assert torch.allclose(first.float(), second.float(), atol=1e-5)


# Agreement with torchvision, for the same parameters


def each(change: Callable[..., Tensor], images: Tensor, values: Tensor) -> Tensor:
    return torch.stack([change(image, float(value)) for image, value in zip(images, values, strict=True)])


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (colour.adjust_brightness, tv.adjust_brightness, 0.0, 2.0),
        (colour.adjust_contrast, tv.adjust_contrast, 0.0, 2.0),
        (colour.adjust_saturation, tv.adjust_saturation, 0.0, 2.0),
        (colour.adjust_hue, tv.adjust_hue, -0.5, 0.5),
    ],
)
def test_colours_agree_with_torchvision(
    images: Tensor, ours: Callable[..., Tensor], theirs: Callable[..., Tensor], low: float, high: float
) -> None:
    factors = torch.linspace(low, high, 64)
    x = images / 255
    assert (ours(x, factors) - each(theirs, x, factors)).abs().max() < 1e-5
    rounded = (255 * ours(x, factors)).round() - each(theirs, images, factors).float()
    assert rounded.abs().max() <= 2


def test_the_hue_of_grey_pixels_and_all_six_sextants_agrees() -> None:
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 1.0])] * 3).view(27, 3, 1, 1)
    for shift in (-0.5, -0.1, 0.0, 0.3, 0.5):
        ours = colour.adjust_hue(colours, torch.full((27,), shift))
        assert torch.allclose(ours, tv.adjust_hue(colours, shift), atol=1e-5)


@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_blur_agrees_with_torchvision(images: Tensor, kernel_size: int) -> None:
    sigma = torch.linspace(0.1, 3, 64)
    theirs = each(lambda x, s: tv.gaussian_blur(x, [kernel_size] * 2, [s, s]), images / 255, sigma)
    assert torch.allclose(erasing.gaussian_blur(images / 255, kernel_size, sigma), theirs, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_pixelate_agrees_with_shrinking_and_enlarging(images: Tensor, size: int) -> None:
    x = images / 255
    small = tv.resize(x, [16 // size] * 2, interpolation=tv.InterpolationMode.BILINEAR, antialias=False)
    means = torch.nn.functional.interpolate(x, scale_factor=1 / size, mode="area")
    assert small.shape == means.shape
    enlarged = tv.resize(means, [16, 16], interpolation=tv.InterpolationMode.NEAREST)
    assert torch.allclose(erasing.pixelate(x, size), enlarged, atol=1e-6)


def test_blocks_at_the_edge_may_be_smaller() -> None:
    x = torch.arange(10.0).view(1, 1, 1, 10).expand(1, 1, 4, 10)
    assert erasing.pixelate(x, 4)[0, 0, 0].tolist() == [1.5] * 4 + [5.5] * 4 + [8.5] * 2


def test_erasing_agrees_with_torchvision(images: Tensor) -> None:
    changed = RandomErasing(probability=1.0, fill=0.0)(images, draws())
    for image, erased in zip(images, changed, strict=True):
        rows, columns = torch.where((image != erased).any(0))
        box = (
            int(rows.min()),
            int(columns.min()),
            int(rows.max() - rows.min()) + 1,
            int(columns.max() - columns.min()) + 1,
        )
        assert torch.equal(erased, tv.erase(image, *box, v=torch.zeros(3, 1, 1, dtype=torch.uint8)))


def affine(**given: Any) -> Callable[[Tensor, float], Tensor]:
    def change(image: Tensor, value: float) -> Tensor:
        options = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "center": [0, 0]}
        changed: Tensor = tv.affine(image, **{**options, **{name: f(value) for name, f in given.items()}})
        return changed

    return change


def degrees(slope: float) -> float:
    return float(torch.tensor(slope, dtype=torch.float64).atan().rad2deg())


@pytest.mark.parametrize(
    ("ours", "theirs", "most"),
    [
        (op.shear_x, affine(shear=lambda v: [degrees(v), 0.0]), 0.99),
        (op.shear_y, affine(shear=lambda v: [0.0, degrees(v)]), 0.99),
        (op.translate_x, affine(translate=lambda v: [int(v), 0]), 12.0),
        (op.translate_y, affine(translate=lambda v: [0, int(v)]), 12.0),
        (op.rotate, lambda image, v: tv.rotate(image, v), 135.0),
    ],
)
def test_moved_pixels_agree_with_torchvision(
    images: Tensor, ours: op.Operation, theirs: Callable[..., Tensor], most: float
) -> None:
    values = torch.linspace(-most, most, 64)
    agree = (ours(images, values) == each(theirs, images, values)).float().mean()
    assert agree > 0.99  # the rest lies exactly between two pixels


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize(
    ("ours", "theirs", "most"),
    [
        (op.shear_x, affine(shear=lambda v: [degrees(v), 0.0]), 0.5),
        (op.shear_y, affine(shear=lambda v: [0.0, degrees(v)]), 0.5),
        (op.rotate, lambda image, v: tv.rotate(image, v), 90.0),
    ],
)
def test_slopes_that_meet_the_borders_of_pixels_fall_to_the_pixel_of_torchvision(
    ours: op.Operation, theirs: Callable[..., Tensor], most: float, size: int
) -> None:
    values = most * torch.arange(-20, 21) / 20  # 0.2 a row, 45 degrees and the like
    pixels = torch.randint(1, 256, (len(values), 1, size, size), dtype=torch.uint8)
    assert (ours(pixels, values) == each(theirs, pixels, values)).float().mean() > 0.999


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (op.brightness, lambda image, v: tv.adjust_brightness(image, 1 + v), (-0.99, 0.99)),
        (op.color, lambda image, v: tv.adjust_saturation(image, 1 + v), (-0.99, 0.99)),
        (op.contrast, lambda image, v: tv.adjust_contrast(image, 1 + v), (-0.99, 0.99)),
        (op.sharpness, lambda image, v: tv.adjust_sharpness(image, 1 + v), (-0.99, 0.99)),
        (op.solarize, lambda image, v: tv.solarize(image, 255 * v), (0.0, 1.0)),
        (op.posterize, lambda image, v: tv.posterize(image, round(v)), (2.0, 8.0)),
        (op.autocontrast, lambda image, v: tv.autocontrast(image), (0.0, 0.0)),
        (op.equalize, lambda image, v: tv.equalize(image), (0.0, 0.0)),
    ],
)
def test_operations_agree_with_torchvision(
    images: Tensor, ours: op.Operation, theirs: Callable[..., Tensor], values: tuple[float, float]
) -> None:
    magnitudes = torch.linspace(*values, 64)
    assert (ours(images, magnitudes).int() - each(theirs, images, magnitudes).int()).abs().max() <= 2


# What is drawn


def test_crop_uses_all_81_places_and_each_shows_the_shifted_image() -> None:
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)
    count = 4000
    crops = RandomCrop(4)(image.expand(count, -1, -1, -1), draws(count))
    padded = torch.nn.functional.pad(image, [4] * 4)
    places = {(y, x): padded[0, :, y : y + 8, x : x + 8] for y in range(9) for x in range(9)}
    hits = {place: int((crops == window).flatten(1).all(1).sum()) for place, window in places.items()}
    assert sum(hits.values()) == count
    assert min(hits.values()) > 20 and max(hits.values()) < 85  # 49 expected


def test_crop_can_reflect_instead(images: Tensor) -> None:
    same = images[:1].expand(500, -1, -1, -1)
    padded = tv.pad(images[0].float(), [2], padding_mode="reflect").to(torch.uint8)
    places = {padded[:, y : y + 16, x : x + 16].numpy().tobytes() for y in range(5) for x in range(5)}
    found = {crop.contiguous().numpy().tobytes() for crop in RandomCrop(2, mode="reflect")(same, draws(500))}
    assert found == places


def test_flip_mirrors_half_of_the_images() -> None:
    images = torch.arange(32, dtype=torch.uint8).view(1, 1, 4, 8).expand(1000, -1, -1, -1)
    flipped = HorizontalFlip()(images, draws(1000))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert 440 < mirrored.sum() < 560


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs(images: Tensor) -> None:
    first, second, third = (AlternatingFlip()(images, draws(epoch=epoch)) for epoch in range(3))
    assert torch.equal(first, third) and torch.equal(first, second.flip(-1))
    assert 15 < (first == images).flatten(1).all(1).sum() < 49


def test_jitter_factors_are_uniform(images: Tensor) -> None:
    grey = torch.full((5000, 1, 2, 2), 0.4)
    factors = ColorJitter(brightness=0.5, contrast=0, saturation=0, hue=0)(grey, draws(5000))[:, 0, 0, 0] / 0.4
    assert kstest(factors.numpy(), "uniform", (0.5, 1.0)).pvalue > 0.01
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(5000, -1, -1, -1)
    turned = ColorJitter(brightness=0, contrast=0, saturation=0, hue=0.1)(red, draws(5000))
    shift = (turned[:, 1] - turned[:, 2]).flatten() / 6  # of the circle, while red stays the largest
    assert kstest(shift.numpy(), "uniform", (-0.1, 0.2)).pvalue > 0.01


def test_blur_widths_are_uniform() -> None:
    point = torch.zeros(5000, 1, 3, 3)
    point[:, :, 1, 1] = 1
    middle = GaussianBlur(3, (0.5, 1.0))(point, draws(5000))[:, 0, 1, 1].sqrt()  # 1 / (1 + 2 exp(-1 / 2 s^2))
    sigma = (-2 * ((1 / middle - 1) / 2).log()).rsqrt()
    assert kstest(sigma.numpy(), "uniform", (0.5, 0.5)).pvalue > 0.01


def test_pixelate_takes_each_size_equally_often_for_half_of_the_images(images: Tensor) -> None:
    x = (images[:1] / 255).expand(4000, -1, -1, -1)
    changed = Pixelate((2, 4))(x, draws(4000))
    for size, expected in ((2, 1000), (4, 1000)):
        hits = (changed == erasing.pixelate(x[:1], size)).flatten(1).all(1).sum()
        assert abs(int(hits) - expected) < 120  # 4 standard deviations


def test_cutout_hides_a_square_with_its_centre_anywhere() -> None:
    hidden = Cutout(4, fill=0.0)(torch.ones(6000, 1, 8, 8), draws(6000))[:, 0] == 0
    assert hidden.sum((1, 2)).max() == 16 and hidden.sum((1, 2)).min() == 4  # a quarter in a corner
    assert hidden[:, :, 4].any(1).float().mean().item() == pytest.approx(4 / 8, abs=0.03)
    assert hidden[:, :, 0].any(1).float().mean().item() == pytest.approx(3 / 8, abs=0.03)


def test_erased_boxes_have_the_areas_and_shapes_asked_for() -> None:
    images = torch.ones(4000, 1, 32, 32)
    hidden = (
        RandomErasing(probability=0.5, scale=(0.1, 0.2), ratio=(0.5, 2.0), fill=0.0)(images, draws(4000))[:, 0] == 0
    )
    erased = hidden.any(1).any(1)
    assert 1860 < erased.sum() < 2140
    rows, columns = hidden.any(2).sum(1)[erased].float(), hidden.any(1).sum(1)[erased].float()
    area = rows * columns / 1024
    assert area.min() > 0.08 and area.max() < 0.22 and area.mean().item() == pytest.approx(0.15, abs=0.005)
    assert (rows / columns).log().mean().abs() < 0.03
    assert (rows / columns).log().std().item() == pytest.approx(0.4, abs=0.03)  # log 2 / sqrt 3


def test_probability_changes_that_share_of_the_images(images: Tensor) -> None:
    same = images[:1].expand(2000, -1, -1, -1)
    changed = Probability(Cutout(8), 0.3)(same, draws(2000))
    share = (changed != same).flatten(1).any(1).float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.04)


def test_compose_applies_one_after_the_other_and_rounds_once(images: Tensor) -> None:
    parts = [RandomCrop(2), ColorJitter(), GaussianBlur()]
    d = draws()
    x = images / 255
    for part in parts:
        x = part(x, d)
    composed = Compose(parts)(images, draws())
    assert torch.equal(composed, (255 * x + 0.5).to(torch.uint8))


def test_trivial_augment_takes_every_operation_and_sign_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, float]] = []

    def spy(name: str) -> op.Operation:
        def record(images: Tensor, magnitudes: Tensor) -> Tensor:
            taken.extend((name, float(m)) for m in magnitudes)
            return images

        return record

    spied = {spy(o.__name__): limits for o, limits in WIDE.items()}
    monkeypatch.setattr(policies, "within", lambda *_: spied)
    TrivialAugment()(torch.zeros(14_000, 1, 1, 1), draws(14_000))
    assert len(taken) == 14_000
    for operation, (low, high, signed) in WIDE.items():
        values = torch.tensor([m for name, m in taken if name == operation.__name__])
        assert 870 < len(values) < 1130
        assert values.abs().max() == pytest.approx(max(low, high)) and values.abs().min() == min(low, high)
        assert len(values.abs().unique()) == (31 if low != high else 1)  # type: ignore[no-untyped-call]
        assert not signed or 0.43 < (values[values != 0] < 0).float().mean() < 0.57


@pytest.mark.parametrize("size", [8, 28, 32, 96])
def test_no_operation_of_trivial_augment_moves_an_image_out_of_the_picture(size: int) -> None:
    white = torch.full((1, 1, size, size), 255, dtype=torch.uint8)
    for operation, (_, high, signed) in policies.within(WIDE, size, size).items():
        if operation is not op.solarize:  # black is what white is inverted to
            for sign in (1, -1) if signed else (1,):
                kept = (operation(white, torch.tensor([sign * high])) > 0).float().mean()
                assert kept > 0.45, (operation.__name__, float(kept))
    farthest = policies.within(WIDE, size, size)[op.translate_x][1]
    assert farthest == min(32, size * 150 / 331)


def test_no_draw_of_strong_leaves_a_wholly_black_image() -> None:
    data = ImageDataModule(augmentations="strong")
    images, labels, samples = data.some_images(300)
    for epoch in range(3):
        made, _ = augment(data.augmentations[:-1], images, labels, Draws(0, epoch, samples), 10)  # Cutout is grey
        assert made.flatten(1).amax(1).min() > 0


def test_the_magnitudes_of_rand_augment_are_torchvision_s() -> None:
    ours, theirs = (inspect.signature(build).parameters for build in (RandAugment, RandAugmentOfTorchvision))
    assert ours["magnitude"].default == theirs["magnitude"].default
    assert theirs["num_magnitude_bins"].default == policies.BINS


def test_rand_augment_with_magnitude_0_hardly_changes_what_can_be_left(images: Tensor) -> None:
    calm, wild = (RandAugment(2, magnitude)(images, draws()) for magnitude in (0, 30))
    assert (calm == images).flatten(1).all(1).sum() > 30  # but for autocontrast and equalize
    assert (wild == images).flatten(1).all(1).sum() < 10


# Mixing


def mixed(mixing: Mixing, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Images that hold their number, and their labels, of two classes, mixed."""
    images = torch.zeros(count, 1, 16, 16)
    images[1::2] = 1
    labels = torch.nn.functional.one_hot(torch.arange(count) % 2, 2).float()
    changed: tuple[Tensor, Tensor] = mixing(images, labels, draws(count))
    return changed


@pytest.mark.parametrize("mixing", [MixUp(0.4), CutMix(0.4), MixUp(1.0, 0.5)])
def test_labels_are_mixed_in_the_proportion_of_the_pixels(mixing: Mixing) -> None:
    images, labels = mixed(mixing)
    assert torch.allclose(labels[:, 1], images.mean((1, 2, 3)), atol=1e-5)
    assert torch.allclose(labels.sum(1), torch.ones(4000))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_shares_follow_the_beta_distribution(alpha: float) -> None:
    _, labels = mixed(MixUp(alpha))
    assert kstest(labels[::2, 0].numpy(), beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_takes_one_box_from_the_partner() -> None:
    images, _ = mixed(CutMix(1.0))
    inside = images[::2, 0]
    rows, columns = inside.amax(2).sum(1), inside.amax(1).sum(1)
    assert torch.equal(rows * columns, inside.sum((1, 2)))
    assert len((rows * columns).unique()) > 40  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("mixing", [MixUp, CutMix])
def test_a_probability_leaves_the_others_alone(mixing: type[MixUp]) -> None:
    _, labels = mixed(mixing(1.0, probability=0.25))
    share = (labels.amax(1) < 1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.04)


def test_labels_stay_as_they_are_unless_something_mixes(images: Tensor) -> None:
    labels = torch.arange(64) % 10
    assert augment(make_augmentations("strong"), images, labels, draws(), 10)[1] is labels
    assert augment(make_augmentations(["MixUp"]), images, labels, draws(), 10)[1].shape == (64, 10)


# Chosen by name


def test_digits_are_not_mirrored_by_the_presets() -> None:
    assert [type(m).__name__ for m in make_augmentations("standard")] == ["RandomCrop", "HorizontalFlip"]
    for preset in PRESETS:
        names = [type(m).__name__ for m in make_augmentations(preset, mirror=False)]
        assert "HorizontalFlip" not in names and len(names) >= (preset != "none")
    assert make_augmentations("none") == []
    for mirror, names in ((True, ["RandomCrop", "HorizontalFlip"]), (False, ["RandomCrop"])):
        (outer,) = make_augmentations({"name": "Compose", "augmentations": ["light"]}, mirror=mirror)
        assert isinstance(outer, Compose) and [type(m).__name__ for m in outer.augmentations] == names
    (outer,) = make_augmentations({"name": "Probability", "augmentation": "standard"}, mirror=False)
    assert isinstance(outer, Probability) and isinstance(outer.augmentation, RandomCrop)
    (outer,) = make_augmentations({"name": "Compose", "augmentations": ["HorizontalFlip"]}, mirror=False)
    assert isinstance(outer, Compose) and isinstance(outer.augmentations[0], HorizontalFlip)  # asked for


def test_augmentations_are_chosen_by_name_with_options() -> None:
    crop, flip = make_augmentations([{"name": "RandomCrop", "padding": 2}, "HorizontalFlip"])
    assert isinstance(crop, RandomCrop) and crop.padding == 2 and isinstance(flip, HorizontalFlip)


def test_a_list_may_start_from_a_preset_and_hold_augmentations_in_others() -> None:
    rest = {"name": "Probability", "augmentation": {"name": "Cutout", "size": 4}, "probability": 0.1}
    crop, flip, outer = make_augmentations(["standard", rest])
    assert isinstance(crop, RandomCrop) and isinstance(flip, HorizontalFlip)
    assert isinstance(outer, Probability) and isinstance(outer.augmentation, Cutout) and outer.augmentation.size == 4
    assert make_augmentations([crop])[0] is crop


def test_a_users_own_augmentation_is_found_by_its_import_path() -> None:
    (cutout,) = make_augmentations([{"name": "cvcc_zoo.data.augment.erasing.Cutout", "size": 3}])
    assert isinstance(cutout, Cutout) and cutout.size == 3


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("strongest", "no augmentation named 'strongest'; did you mean strong"),
        (["RandomCrp"], "no augmentation named 'RandomCrp'; did you mean RandomCrop"),
        ([{"name": "RandomCrop", "pad": 4}], "no option of augmentation RandomCrop named 'pad'; did you mean padding"),
        ([{"name": "RandomCrop", "padding": 0}], "padding of at least 1 pixel"),
        (
            [{"name": "RandomCrop", "padding": "much"}],
            "augmentation RandomCrop: padding must be a whole number, got .much.",
        ),
        ([{"name": "RandomCrop", "mode": "mirror"}], "no padding mode of RandomCrop named 'mirror'"),
        ([{"name": "HorizontalFlip", "probability": 2}], r"probability must be in \[0, 1\]"),
        ([{"name": "Pixelate", "probability": -0.1}], r"probability must be in \[0, 1\]"),
        ([{"name": "Pixelate", "block_sizes": [1]}], "block_sizes must be at least 2 pixels"),
        ([{"name": "MixUp", "probability": 1.1}], r"probability must be in \[0, 1\]"),
        ([{"name": "MixUp", "alpha": 0}], "alpha of the Beta distribution must be above 0"),
        (
            [{"name": "Probability", "augmentation": "MixUp"}],
            "MixUp also changes labels and cannot be inside Probability",
        ),
        ([{"name": "Probability"}], "needs the option augmentation"),
        ([{"name": "ColorJitter", "hue": 0.6}], r"hue must be a share of the colour circle in \[0, 0.5\], got 0.6"),
        ([{"name": "GaussianBlur", "kernel_size": 4}], "must be odd and at least 3 pixels"),
        ([{"name": "GaussianBlur", "sigma": [2, 1]}], "sigma must be a smallest and a largest value"),
        (
            [{"name": "GaussianBlur", "sigma": 1.0}],
            "sigma must be a smallest and a largest value of at least 0.001, got 1.0",
        ),
        ([{"name": "ColorJitter", "contrast": -1}], "contrast, the largest change of a factor, must be at least 0"),
        ([{"name": "Cutout", "fill": 128}], r"fill must be a grey level in \[0, 1\], got 128"),
        ([{"name": "Cutout", "size": 0}], "size must be at least 1 pixel"),
        ([{"name": "RandomErasing", "scale": [0.5, 2]}], r"scale must be a smallest and a largest value in \[0, 1\]"),
        ([{"name": "RandAugment", "magnitude": 31}], r"a step in 0 .. 30, got 31"),
        ([3], "an augmentation is a name or"),
        (["torch.nn.Identity"], "torch.nn.Identity is not an augmentation: make it a subclass of"),
        (["nowhere.Invert"], "no augmentation at the import path 'nowhere.Invert'"),
        ([{"name": "TrivialAugment", "magnitude": 3}], "no option of augmentation TrivialAugment named 'magnitude'"),
    ],
)
def test_wrong_augmentations_are_refused(chosen: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_augmentations(chosen)


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (RandomCrop(16), "a crop could miss the image; choose a padding below 16"),
        (Cutout(17), "a square of 17 pixels is larger than the images"),
        (GaussianBlur(33), "choose a kernel_size below 32"),
        (Pixelate((17,)), "blocks of 17 pixels are larger than the images"),
    ],
)
def test_what_is_larger_than_the_images_is_refused(images: Tensor, augmentation: Augmentation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augmentation(images, draws())


def test_other_types_and_channels_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 or float in"):
        RandomCrop()(images.int(), draws())
    with pytest.raises(ValueError, match="images with 1 or 3 channels, got 2"):
        ColorJitter()(images[:, :2], draws())


def test_each_image_needs_its_own_draws(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"64 images need draws for as many samples, got the shape \(1,\)"):
        augment(make_augmentations("standard"), images, torch.zeros(64, dtype=torch.long), draws(1), 10)


def test_seeds_are_those_of_splitmix64_on_64_bits() -> None:
    for numbers in ((0,), (1, 2, 3, 4), (-1, 2**33, 7), (2**62, -5)):
        state = torch.zeros(1, dtype=torch.int64)
        for number in numbers:
            state = _mix(state + (torch.tensor([number]) + 1) * _GOLDEN)
        assert mix_seed(*numbers) == int(state) & 0xFFFFFFFF


def test_seeding_gives_the_numbers_of_torchs_own() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    seed_torch(5, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
