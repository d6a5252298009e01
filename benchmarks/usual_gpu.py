"""The script that a careful user would write for a GPU without this package: torchvision, PIL, DataLoader, Lightning.

`python -m benchmarks.usual_gpu --model=resnet20 --epochs=4 --dataset=folder --root=IMAGES`: like `benchmarks/usual.py`,
with what PyTorch's performance guide recommends (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html):
eight persistent workers that prefetch four batches each; pinned memory, which Lightning copies without blocking;
channels_last, bfloat16, TF32, cuDNN's search for the fastest algorithms, the fused AdamW, full batches only, and
metrics and a progress bar that do not wait for the GPU in every step. It does not compile. Without a GPU it runs on the
CPU, so that it can be tried there.
"""

import tempfile
import warnings

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.usual import UsualModule, dataset, parser, prepare

WORKERS, PREFETCHED = 8, 4
EVERY = 20  # steps between two updates of the progress bar


class CarefulModule(UsualModule):
    """The usual module with images in channels_last and the fused AdamW."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__(network.to(memory_format=torch.channels_last), num_classes)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)  # checks wait for the GPU

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Convert the images to channels_last."""
        images, labels = batch
        return images.contiguous(memory_format=torch.channels_last), labels

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the fused AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


def main() -> None:
    """Train the network."""
    options = parser(__doc__).parse_args()
    warnings.filterwarnings("ignore")
    torch.set_float32_matmul_precision("high")
    network, num_classes, images, labels, callbacks = prepare(options)
    loader = DataLoader(
        dataset(images, labels, train=True),
        options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=True,
        prefetch_factor=PREFETCHED,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=options.epochs,
            limit_train_batches=options.batches or 1.0,
            default_root_dir=folder,
            precision="bf16-mixed",
            benchmark=True,
            callbacks=[*callbacks, TQDMProgressBar(EVERY)],
        )
        trainer.fit(CarefulModule(network, num_classes), loader)


if __name__ == "__main__":
    main()
