"""Order, split, draws, augmentation and whitening."""

import pytest
import torch

from cvcc_zoo.data.augment import HorizontalFlip, RandomCrop, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.data.split import stratified_split
from cvcc_zoo.data.whitening import Whitening


def loader(count: int, batch_size: int, **options: int) -> TensorLoader:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return TensorLoader(images, torch.arange(count), torch.arange(count), batch_size, **options)


def seen(loader: TensorLoader) -> list[int]:
    return [label for batch in loader for label in batch.labels.tolist()]


def test_evaluation_sees_every_image_exactly_once() -> None:
    evaluation = loader(103, 10)
    assert seen(evaluation) == list(range(103)) and len(evaluation) == len(list(evaluation)) == 11


def test_training_batches_are_of_equal_size_and_hold_no_image_twice() -> None:
    training = loader(103, 10, shuffle_seed=0)
    order = seen(training)
    assert len(order) == len(set(order)) == 100 and len(training) == 10


def test_a_training_set_smaller_than_a_batch_is_one_batch() -> None:
    assert sorted(seen(loader(7, 10, shuffle_seed=0))) == list(range(7))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        training = loader(50, 10, shuffle_seed=seed)
        assert training.sampler is not None
        training.sampler.set_epoch(epoch)
        return seen(training)

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_several_processes_share_each_global_batch() -> None:
    whole = loader(40, 10, shuffle_seed=1)
    parts = [loader(40, 10, shuffle_seed=1, rank=rank, world_size=3) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch.labels.tolist()) == sorted(x for share in shares for x in share.labels.tolist())


def test_the_split_takes_the_same_share_of_every_class() -> None:
    labels = torch.arange(4).repeat_interleave(torch.tensor([10, 20, 30, 45]))
    kept, held_out = stratified_split(labels, 0.2, seed=0)
    assert labels[held_out].bincount().tolist() == [2, 4, 6, 9]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(105))
    again, other = stratified_split(labels, 0.2, seed=0)[1], stratified_split(labels, 0.2, seed=1)[1]
    assert torch.equal(held_out, again) and not torch.equal(held_out, other)


def test_no_share_trains_on_everything() -> None:
    kept, held_out = stratified_split(torch.zeros(9, dtype=torch.int64), 0, seed=0)
    assert len(kept) == 9 and len(held_out) == 0


def test_a_class_too_small_to_split_is_refused() -> None:
    with pytest.raises(ValueError, match="class 1 has 1 training image, too few"):
        stratified_split(torch.tensor([0, 0, 1]), 0.1, seed=0)


def test_draws_are_uniform_and_independent_between_samples_epochs_and_calls() -> None:
    draws = Draws(0, 0, torch.arange(100_000))
    first, second = draws.uniform(), draws.uniform()
    other = Draws(0, 1, torch.arange(100_000)).uniform()
    for values in (first, second, other):
        assert values.min() >= 0 and values.max() < 1
        assert torch.histc(values, 10, 0, 1).sub(10_000).abs().max() < 400  # 4 standard deviations
    for pair in ((first, second), (first, other), (first[1:], first[:-1])):
        assert torch.corrcoef(torch.stack(pair))[0, 1].abs() < 0.013


def test_the_draws_of_a_sample_do_not_depend_on_its_batch() -> None:
    alone, among = Draws(3, 5, torch.tensor([7])), Draws(3, 5, torch.tensor([1, 7, 9]))
    assert alone.uniform()[0] == among.uniform()[1] and alone.integers(1000)[0] == among.integers(1000)[1]


def test_crop_uses_all_81_places_and_each_shows_the_shifted_image() -> None:
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)
    count = 4000
    crops = RandomCrop(4)(image.expand(count, -1, -1, -1), Draws(0, 0, torch.arange(count)))
    padded = torch.nn.functional.pad(image, [4] * 4)
    places = {(y, x): padded[0, :, y : y + 8, x : x + 8] for y in range(9) for x in range(9)}
    hits = {place: int((crops == window).flatten(1).all(1).sum()) for place, window in places.items()}
    assert sum(hits.values()) == count
    assert min(hits.values()) > 20 and max(hits.values()) < 85  # 49 expected


def test_flip_mirrors_half_of_the_images() -> None:
    images = torch.arange(32, dtype=torch.uint8).view(1, 1, 4, 8).expand(1000, -1, -1, -1)
    flipped = HorizontalFlip()(images, Draws(0, 0, torch.arange(1000)))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert 440 < mirrored.sum() < 560


def test_digits_are_not_mirrored_by_the_preset() -> None:
    assert [type(m).__name__ for m in make_augmentations("standard")] == ["RandomCrop", "HorizontalFlip"]
    assert [type(m).__name__ for m in make_augmentations("standard", mirror=False)] == ["RandomCrop"]
    assert make_augmentations("none") == []


def test_augmentations_are_chosen_by_name_with_options() -> None:
    crop, flip = make_augmentations([{"name": "RandomCrop", "padding": 2}, "HorizontalFlip"])
    assert isinstance(crop, RandomCrop) and crop.padding == 2 and isinstance(flip, HorizontalFlip)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("strongest", "no augmentation preset named 'strongest'"),
        (["RandomCrp"], "no augmentation named 'RandomCrp'; did you mean RandomCrop"),
        ([{"name": "RandomCrop", "pad": 4}], "no option of augmentation RandomCrop named 'pad'; did you mean padding"),
        ([{"name": "RandomCrop", "padding": 0}], "padding of at least 1 pixel"),
        ([{"name": "HorizontalFlip", "probability": 2}], r"probability must be in \[0, 1\]"),
    ],
)
def test_wrong_augmentations_are_refused(chosen: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_augmentations(chosen)


def test_whitened_training_images_have_mean_0_and_variance_1() -> None:
    images = torch.randint(30, 200, (50, 3, 8, 8), dtype=torch.uint8)
    x = Whitening("standardize", 3).fit(images)(images).double()
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(x.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_the_statistics_are_bitwise_the_same_in_any_order_and_chunking() -> None:
    images = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8)
    first = Whitening("standardize", 3).fit(images)
    second = Whitening("standardize", 3).fit(images.flip(0), torch.randperm(100), chunk=7)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)


def test_only_the_chosen_samples_count() -> None:
    images = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    chosen = torch.arange(0, 100, 3)
    first, second = Whitening("standardize", 1).fit(images, chosen), Whitening("standardize", 1).fit(images[chosen])
    assert torch.equal(first.mean, second.mean)


def test_uint8_and_float_images_are_the_same_to_the_model() -> None:
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    whitening = Whitening("standardize", 3).fit(images)
    assert torch.allclose(whitening(images), whitening(images.float() / 255), atol=1e-6)


def test_a_constant_channel_is_only_centred() -> None:
    images = torch.full((4, 1, 8, 8), 51, dtype=torch.uint8)
    assert torch.allclose(Whitening("standardize", 1).fit(images)(images), torch.zeros(4, 1, 8, 8), atol=1e-7)


def test_whitening_keeps_its_statistics_in_the_state_dict() -> None:
    fitted = Whitening("standardize", 1).fit(torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8))
    fresh = Whitening("standardize", 1)
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.fitted and torch.equal(fresh.mean, fitted.mean)


def test_whitening_before_it_was_fitted_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"no statistics yet\. Load trained weights"):
        Whitening("standardize", 3)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("images", [torch.zeros(4, 3, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.uint8)])
def test_whitening_is_fitted_on_uint8_images_of_its_channels(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 images of shape \(N, 3, H, W\)"):
        Whitening("standardize", 3).fit(images)
