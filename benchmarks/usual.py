"""The script that one would write without this package: torchvision's transforms on PIL images, DataLoader, Lightning.

`python -m benchmarks.usual --model=resnet20 --epochs=1 --dataset=folder --root=IMAGES`: the same network, batch and
augmentation as `cvcc-zoo fit`, with everything else as the libraries have it by default. The images are decoded before,
as torchvision's CIFAR10 has them.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.zoo.creation import create

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
AUGMENTED = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
AS_TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


class PILImages(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does: an array to a PIL image to a transformed tensor."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.labels = images.movedim(1, -1).contiguous().numpy(), labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class UsualModule(LightningModule):
    """A LightningModule as the tutorials have it: loss and accuracy are logged in every step."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", self.accuracy, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Torch chooses how it runs."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def batches(images: Tensor, labels: Tensor, batch_size: int, *, train: bool) -> DataLoader[tuple[Tensor, int]]:
    """Two workers; shuffled and augmented to train on."""
    chain = transforms.Compose([*(AUGMENTED if train else []), *AS_TENSOR])
    return DataLoader(
        PILImages(images, labels, chain), batch_size, shuffle=train, num_workers=2, persistent_workers=True
    )


def test_batches(data: ImageDataModule, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Whitened float32 images and labels from memory, without any work between batches."""
    data.prepare_data()
    data.setup("test")
    loader = data.test_dataloader()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    for start in range(0, len(loader.images), batch_size):
        part = slice(start, start + batch_size)
        yield (loader.images[part].float() / 255 - mean) / std, loader.labels[part]


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batches", type=int, help="of an epoch; all by default")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    data = ImageDataModule(options.dataset, options.root, validation=0)
    images, labels, _ = data.training_images()
    network = create(options.model, num_classes=data.num_classes).network
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=options.epochs,
            limit_train_batches=options.batches or 1.0,
            default_root_dir=folder,
            accelerator="cpu",
        )
        loader = batches(images, labels, options.batch_size, train=True)
        trainer.fit(UsualModule(network, data.num_classes), loader)


if __name__ == "__main__":
    main()
