"""Images of an ImageDataModule for your own training loop under Lightning Fabric.

    train, val = dataloader(fabric, data, "train"), dataloader(fabric, data, "val")

`fabric.setup_dataloaders` only takes a DataLoader of torch. Our loader, which needs no workers, is not one, so this
module wraps it, and distributes the batches over the processes of Fabric.
"""

from collections.abc import Iterator
from typing import cast

from lightning import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cvcc_zoo.data.augment import augment
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.registry import check_known

STAGES = ("train", "val", "test")
Pair = tuple[Tensor, Tensor]


class Batches(IterableDataset[Pair]):
    """Images and labels on the device of Fabric; each iteration is the next epoch, also that of a new loader.

    Training images are shuffled and augmented as by the Trainer: both depend only on (seed, epoch, image).
    """

    def __init__(self, fabric: Fabric, data: ImageDataModule, loader: TensorLoader) -> None:
        self.fabric, self.data, self.loader = fabric, data, loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        data, sampler = self.data, self.loader.sampler
        epoch = sampler.epoch if sampler is not None else 0
        for batch in map(self.fabric.to_device, self.loader):
            images, labels = batch
            if sampler is not None:
                draws = Draws(data.seed, epoch, batch.samples)
                images, labels = augment(data.augmentations, images, labels, draws, data.num_classes)
            yield images, labels


def dataloader(fabric: Fabric, data: ImageDataModule, stage: str) -> DataLoader[Pair]:
    """Return a DataLoader, set up by Fabric, for the images of a stage: train, val or test.

    In training the processes share each step of `data.batch_size` images; otherwise they take whole batches in turn,
    and empty ones at the end. Raises ValueError for another stage, and for progressive resizing or cropping, which
    depend on the length of the training.
    """
    check_known("stage", STAGES, stage)
    if data.resolutions:
        raise ValueError("progressive_resizing and progressive_cropping need Lightning's Trainer; leave them out")
    with fabric.rank_zero_first():
        data.prepare_data()
    data.setup("test" if stage == "test" else "fit")
    own = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[stage]()
    loader = TensorLoader(
        own.images,
        own.labels,
        own.samples,
        data.batch_size,
        shuffle_seed=data.seed if stage == "train" else None,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        position=own.position,
        balanced=data.sampler == "balanced",
    )
    wrapped: DataLoader[Pair] = DataLoader(Batches(fabric, data, loader), batch_size=None)
    return cast(DataLoader[Pair], fabric.setup_dataloaders(wrapped, use_distributed_sampler=False))
