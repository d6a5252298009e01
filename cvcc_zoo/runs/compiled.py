"""Compile the network for the training: fewer, larger kernels, once they are made.

When it pays: what it takes must be less than what it spares. On two cores with torch 2.14 resnet20 takes 20 s to
compile, and a step of 128 images 118 ms in place of 153 in channels_last (1.30 times as fast): it pays after 570 steps,
one and a half epochs of CIFAR-10. On a CPU it needs a C++ compiler, and it rounds otherwise than without, so it is not
chosen for you there: `--trainer.callbacks+=Compile` does. `cvcc-zoo train-zoo` compiles on a GPU.

Validation and test run uncompiled: they are a small part of a training, and each would wait for kernels of its own, for
whole batches and for the last one. A size of images that comes later, by progressive resizing, has its own kernels.
"""

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from cvcc_zoo.registry import unknown

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Compile(Callback):
    """`torch.compile` of the network in place: names of parameters, checkpoints and results stay as they are."""

    def __init__(self, mode: str = "default") -> None:
        """`mode` is torch's: default, reduce-overhead (CUDA graphs), max-autotune, max-autotune-no-cudagraphs.

        CUDA graphs spare the launches of the kernels, and pay where a GPU waits for them: with small networks.
        """
        if mode not in MODES:
            raise unknown("mode of Compile", mode, MODES)
        self.mode = mode

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile; it happens at the first batch."""
        network = _network(pl_module)
        self.compiled = torch.compile(network.forward, mode=self.mode, dynamic=False)
        network.forward = self.compiled

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on without."""
        vars(_network(pl_module)).pop("forward", None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the compiled network again."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            _network(pl_module).forward = self.compiled

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As it was."""
        vars(_network(pl_module)).pop("forward", None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As it was."""
        vars(_network(pl_module)).pop("forward", None)


def _network(model: LightningModule) -> nn.Module:
    network = model.get_submodule("network")
    assert isinstance(network, nn.Module)
    return network
