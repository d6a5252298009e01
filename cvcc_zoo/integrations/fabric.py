"""The images of an ImageDataModule in a training loop of one's own under Lightning Fabric.

    train, val = dataloader(fabric, data, "train"), dataloader(fabric, data, "val")

`fabric.setup_dataloaders` takes torch's DataLoader alone, and ours is none: it needs no workers. So this wraps one, for
the processes of Fabric.
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
from cvcc_zoo.registry import unknown

STAGES = ("train", "val", "test")
Pair = tuple[Tensor, Tensor]


class Batches(IterableDataset[Pair]):
    """Images and labels on the device of Fabric, an epoch for each time that they are gone through.

    Those of the training are shuffled and augmented, as by the Trainer: both are functions of (seed, epoch, image).
    """

    def __init__(self, fabric: Fabric, data: ImageDataModule, loader: TensorLoader) -> None:
        self.fabric, self.data, self.loader, self.epoch = fabric, data, loader, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        epoch, data, sampler = self.epoch, self.data, self.loader.sampler
        self.epoch += 1
        if sampler is not None:
            sampler.set_epoch(epoch)
        for batch in map(self.fabric.to_device, self.loader):
            images, labels = batch
            if sampler is not None:
                draws = Draws(data.seed, epoch, batch.samples)
                images, labels = augment(data.augmentations, images, labels, draws, data.num_classes)
            yield images, labels


def dataloader(fabric: Fabric, data: ImageDataModule, stage: str) -> DataLoader[Pair]:
    """What `fabric.setup_dataloaders` makes of the images of a stage: train, val or test.

    `data.batch_size` images are a step of all processes together, each of which takes its share; of what is not trained
    on, each takes whole batches in turn, and in the end empty ones. Raises ValueError for another stage, and for
    smaller images first, which need to know how long the training is.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
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
    )
    wrapped: DataLoader[Pair] = DataLoader(Batches(fabric, data, loader), batch_size=None)
    return cast(DataLoader[Pair], fabric.setup_dataloaders(wrapped, use_distributed_sampler=False))
