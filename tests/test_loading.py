"""Order, split and draws."""

import pickle
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from cvcc_zoo import ImageDataModule
from cvcc_zoo.data.augment import augment, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.images import Images, on_accelerator
from cvcc_zoo.data.loader import Augmented, Batch, Position, TensorLoader
from cvcc_zoo.data.split import stratified_split


def loader(count: int, batch_size: int, **options: Any) -> TensorLoader:
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


def test_in_a_loop_of_ones_own_each_iteration_is_the_next_epoch() -> None:
    training, epochs = loader(50, 10, shuffle_seed=0), []
    for epoch in range(3):
        expected = loader(50, 10, shuffle_seed=0)
        assert expected.sampler is not None
        expected.sampler.set_epoch(epoch)
        epochs.append(seen(training))
        assert epochs[-1] == seen(expected)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_new_loader_for_each_epoch_goes_on_with_the_next_one() -> None:
    again, new = (ImageDataModule("fashion-mini", batch_size=1000) for _ in range(2))
    for data in (again, new):
        data.setup("fit")
    same = again.train_dataloader()
    for epoch in range(3):
        made = new.train_dataloader()
        expected = [batch.samples for batch in same]
        assert all(map(torch.equal, [batch.samples for batch in made], expected)), epoch
    assert made.sampler is not None and made.sampler.epoch == 3
    assert not torch.equal(next(iter(made)).samples, expected[0])


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
    with pytest.raises(
        ValueError, match=r"the class 'pear' has 1 training image, too few .* none: --data.validation=0"
    ):
        stratified_split(torch.tensor([0, 0, 1]), 0.1, seed=0, classes=("apple", "pear"))


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


@pytest.mark.parametrize(("rank", "world_size", "done"), [(0, 1, 0), (0, 1, 3), (1, 2, 0)])
def test_batches_that_are_made_ahead_are_those_that_are_made_one_by_one(rank: int, world_size: int, done: int) -> None:
    """Of 23 images three batches of 5 and one; a resumed epoch begins in the middle of three."""
    images, samples = torch.arange(23 * 64 * 3, dtype=torch.int64).remainder(251).to(torch.uint8), torch.arange(23)
    augmentations = make_augmentations("strong")
    counted = []

    def change(batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        counted.append(len(batch.samples))
        return augment(augmentations, batch.images, batch.labels, Draws(5, epoch, batch.samples), 23)

    def epochs(numbers: int) -> list[Batch]:
        position = Position()
        position.epoch, position.batches = 1, done
        how: dict[str, Any] = {"rank": rank, "world_size": world_size, "position": position}
        made = TensorLoader(images.view(23, 3, 8, 8), samples, samples, 5, shuffle_seed=3, **how)
        made.make_ahead(change, numbers)
        assert made.sampler is not None
        batches = []
        for epoch in range(1, 4):
            made.sampler.set_epoch(epoch)
            batches += list(made)
        return batches

    alone, sizes = epochs(1), set(counted)
    counted.clear()
    together = epochs(3 * 5 * 3 * 64)
    assert max(counted) == 3 * max(sizes) and len(together) == len(alone) == 12 - done
    for ours, theirs in zip(together, alone, strict=True):
        assert isinstance(ours, Augmented) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_batch_is_images_and_labels_and_knows_its_samples_wherever_it_goes() -> None:
    batch = next(iter(loader(9, 4)))
    images, labels = batch
    assert images.shape == (4, 1, 2, 2) and labels.tolist() == [0, 1, 2, 3]
    for moved in (pickle.loads(pickle.dumps(batch)), move_data_to_device(batch, torch.device("cpu"))):
        assert type(moved) is Batch and torch.equal(moved.samples, batch.samples)
        assert torch.equal(moved.images, images) and torch.equal(moved[1], labels)


@pytest.mark.parametrize(("stage", "needed"), [("train", "fit"), ("val", "fit"), ("test", "test"), ("predict", "test")])
def test_a_loader_has_two_fields_after_the_setup_and_says_so_before(stage: str, needed: str) -> None:
    data = ImageDataModule()
    with pytest.raises(ValueError, match=rf"data\.prepare_data\(\) and data\.setup\('{needed}'\) first"):
        getattr(data, f"{stage}_dataloader")()
    data.prepare_data()
    data.setup(needed)
    images, labels = next(iter(getattr(data, f"{stage}_dataloader")()))
    assert images.shape == (128, 1, 28, 28) and labels.shape == (128,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_made_there_and_are_the_same() -> None:
    data = Images(torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2), torch.arange(10))
    kept: dict[int, Images] = {}
    there = on_accelerator(data, torch.device("cuda", 0), kept)
    assert on_accelerator(data, torch.device("cuda", 0), kept) is there and not data.images.is_cuda
    assert there.images.is_cuda and there.labels.is_cuda
    here = TensorLoader(data.images, data.labels, torch.arange(10), 3, shuffle_seed=1)
    for ours, theirs in zip(
        here, TensorLoader(there.images, there.labels, torch.arange(10), 3, shuffle_seed=1), strict=True
    ):
        assert all(tensor.is_cuda for tensor in theirs)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(ours, theirs, strict=True))
