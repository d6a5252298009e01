"""Compile the network for the training: on a GPU fewer, larger kernels; on a CPU it seldom pays."""

from lightning import Callback, LightningModule, Trainer
from torch import nn


class Compile(Callback):
    """`torch.compile` of the network in place: names of parameters, checkpoints and results stay as they are."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile; it happens at the first batch."""
        network = pl_module.get_submodule("network")
        assert isinstance(network, nn.Module)
        network.compile()
