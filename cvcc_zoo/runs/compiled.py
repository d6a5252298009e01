"""Compiling the network for training: fewer, larger kernels.

It pays off if it saves more time than compiling takes. On two cores with torch 2.14, resnet20 takes 20 s to compile,
and a step of 128 images 118 ms instead of 153 in channels_last (1.30 times as fast): it pays off after 570 steps, one
and a half epochs of CIFAR-10. On a CPU it needs a C++ compiler and changes the rounding, so it is not the default:
`--trainer.callbacks+=Compile` turns it on. `cvcc-zoo train-zoo` compiles on a GPU.

On a GPU the kernels are replayed as CUDA graphs, without which a small network waits for their launches: a step of
wrn16_4 with 128 images in bfloat16 (forward and backward pass, H200, eight other processes at the same time) took
22.7 ms without compiling, 9.3 compiled and 4.9 with graphs, after 26 and 14 s.

Validation and test run uncompiled: they are a small part of a run, and each would need kernels of its own, for full
batches and for the last one. With progressive resizing each image size has its own kernels.

Torch compiles a function at most eight times, and all families share one `forward`. So the end of a training makes it
forget all that this process compiled; what else you compiled is compiled again at its next call.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.registry import unknown

OWN_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes that make CUDA graphs of the network."""
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Compile(Callback):
    """Compile the network in place with `torch.compile`; names of parameters and checkpoints do not change."""

    def __init__(self, mode: str | None = None) -> None:
        """`mode` is torch's: default, reduce-overhead (CUDA graphs), max-autotune, max-autotune-no-cudagraphs.

        None means reduce-overhead on a GPU, and default elsewhere and within the graphs of StepGraph.
        """
        if mode is not None and mode not in MODES:
            raise unknown("mode of Compile", mode, MODES)
        self.mode = mode
        self.within_graph = False
        self.own: Callable[..., Any] | None = None
        self.compiled: Callable[..., Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the network; torch compiles it at the first batch."""
        network = pl_module.get_submodule("network")
        self.own = vars(network).get("forward")
        graphs = pl_module.device.type == "cuda" and not self.within_graph
        mode = self.mode or ("reduce-overhead" if graphs else "default")
        self.compiled = torch.compile(network.forward, mode=mode, dynamic=False)
        network.forward = self.compiled

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch to the uncompiled network."""
        self._restore(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch back to the compiled network."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self.compiled is not None:
            pl_module.get_submodule("network").forward = self.compiled

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the network's own `forward`, so that the next network is compiled too."""
        self._restore(pl_module)
        torch.compiler.reset()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the network's own `forward`, so that the next network is compiled too."""
        self._restore(pl_module)
        torch.compiler.reset()

    def _restore(self, model: LightningModule) -> None:
        """Restore the network's own `forward`: that of its class, or one that was set on the network itself."""
        network = model.get_submodule("network")
        if self.compiled is not None and vars(network).get("forward") is self.compiled:
            del network.forward
            if self.own is not None:
                network.forward = self.own
