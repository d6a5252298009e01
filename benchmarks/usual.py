"""The script that one would write without this package: torchvision's transforms on PIL images, DataLoader, Lightning.

`python -m benchmarks.usual --model=resnet20 --epochs=1 --dataset=folder --root=IMAGES`: the same network, batch and
augmentation as `cvcc-zoo fit`, with everything else as the libraries have it by default, on a CPU. The images are
decoded before, as torchvision's CIFAR10 has them. For a GPU one would write `benchmarks/usual_gpu.py`.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms

from benchmarks.clocks import Steady
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.zoo.creation import create

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10
NORMALISATION = {3: (MEAN, STD), 1: ((0.2860,), (0.3530,))}  # by channels; grey is Fashion-MNIST


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images as in torchvision.datasets.CIFAR10: an array becomes a PIL image, and then a transformed tensor."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        pixels = images.movedim(1, -1).contiguous().numpy()
        self.pixels, self.labels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels, labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class UsualModule(LightningModule):
    """A LightningModule as in the tutorials: loss and accuracy are logged in every step."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", self.accuracy, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with torch's default implementation."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def dataset(images: Tensor, labels: Tensor, *, train: bool) -> PILImages:
    """Return the images (N, C, H, W) as a data set, augmented for training."""
    augmented = [transforms.RandomCrop(images.shape[-1], padding=4), transforms.RandomHorizontalFlip()]
    as_tensor = [transforms.ToTensor(), transforms.Normalize(*NORMALISATION[images.shape[1]])]
    return PILImages(images, labels, transforms.Compose([*(augmented if train else []), *as_tensor]))


def batches(images: Tensor, labels: Tensor, batch_size: int, *, train: bool) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader with two workers, shuffled and augmented for training."""
    pixels = dataset(images, labels, train=train)
    return DataLoader(pixels, batch_size, shuffle=train, num_workers=2, persistent_workers=True)


def test_batches(data: ImageDataModule, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whitened float32 images and labels from memory, without any work between batches."""
    data.prepare_data()
    data.setup("test")
    loader = data.test_dataloader()
    channels = loader.images.shape[1]
    mean, std = (torch.tensor(values).view(1, channels, 1, 1) for values in NORMALISATION[channels])
    for start in range(0, len(loader.images), batch_size):
        part = slice(start, start + batch_size)
        yield (loader.images[part].float() / 255 - mean) / std, loader.labels[part]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the script's options."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="resnet20")
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batches", type=int, help="of an epoch; all by default")
    made.add_argument("--batch_size", type=int, default=128)
    made.add_argument("--dataset", default="cifar10")
    made.add_argument("--root")
    made.add_argument("--steady", help="write the seconds of all epochs but the first to this file")
    return made


def prepare(options: argparse.Namespace) -> tuple[nn.Module, int, Tensor, Tensor, list[Callback]]:
    """Return the network, the number of its classes, the training images and labels, and the callbacks."""
    data = ImageDataModule(options.dataset, options.root, validation=0)
    images, labels, _ = data.training_images()
    channels, size = data.in_channels, data.image_size
    model: Any = create(options.model, num_classes=data.num_classes, in_channels=channels, image_size=size)
    return model.network, data.num_classes, images, labels, [Steady(options.steady)] if options.steady else []


def main() -> None:
    """Train the network."""
    options = parser(__doc__).parse_args()
    warnings.filterwarnings("ignore")
    network, num_classes, images, labels, callbacks = prepare(options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=options.epochs,
            limit_train_batches=options.batches or 1.0,
            default_root_dir=folder,
            accelerator="cpu",
            callbacks=callbacks,
        )
        trainer.fit(UsualModule(network, num_classes), batches(images, labels, options.batch_size, train=True))


if __name__ == "__main__":
    main()
