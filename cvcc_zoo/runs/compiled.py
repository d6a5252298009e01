"""Compile the network for the training: fewer, larger kernels, once they are made.

When it pays: what it takes must be less than what it spares. On two cores with torch 2.14 resnet20 takes 20 s to
compile, and a step of 128 images 118 ms in place of 153 in channels_last (1.30 times as fast): it pays after 570 steps,
one and a half epochs of CIFAR-10. On a CPU it needs a C++ compiler, and it rounds otherwise than without, so it is not
chosen for you there: `--trainer.callbacks+=Compile` does. `cvcc-zoo train-zoo` compiles on a GPU.
"""

from lightning import Callback, LightningModule, Trainer
from torch import nn


class Compile(Callback):
    """`torch.compile` of the network in place: names of parameters, checkpoints and results stay as they are."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile; it happens at the first batch."""
        network = pl_module.get_submodule("network")
        assert isinstance(network, nn.Module)
        network.compile()
