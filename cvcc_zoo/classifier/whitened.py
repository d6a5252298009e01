"""Raw images to logits: the whitening, then the network. Nothing here knows how a model is trained."""

import copy
import inspect
import math
from typing import Any, Self

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network, Unscripted, fold_norms
from cvcc_zoo.data.pixels import PixelCheck, check_images
from cvcc_zoo.data.whitening import Whitening, make_whitening


class WhitenedNetwork(Unscripted, LightningModule):
    """A network that takes raw images and whitens them itself, so that its weights carry their own preprocessing."""

    network: nn.Module
    whitening: Whitening
    in_channels: int
    image_size: int
    hparams: Any
    channels_last = False  # convolutional families set it: 1.2 to 1.5 times faster training on a CPU
    reads_values = True
    """False while a CUDA graph records a training step: nothing may be read back from the device then."""
    _chosen_example: Any = None
    _temperature = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.check_pixels = PixelCheck()

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise ValueError for a module or parameter that a method or property of the same name would hide."""
        known = getattr(type(self), name, None)
        kind = "property" if isinstance(known, property) else "method" if inspect.isroutine(known) else None
        if kind is not None and isinstance(value, nn.Module | nn.Parameter):
            raise ValueError(
                f"{type(self).__name__} has a {kind} `{name}`, which would hide the {type(value).__name__}; give it "
                "another name"
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """List the names that can be read now: torch.jit.trace reads them all, and without a Trainer some raise."""

        def unreadable(name: str) -> bool:
            try:
                getattr(self, name)
            except Exception:  # whatever a property raises
                return True
            return False

        properties = {name for name in dir(type(self)) if isinstance(getattr(type(self), name), property)}
        return [name for name in super().__dir__() if name not in properties or not unreadable(name)]  # type: ignore[no-untyped-call]

    @property
    def example_input_array(self) -> Any:
        """Images for Lightning's summary; None while the whitening has no statistics, when nothing can run."""
        if self._chosen_example is not None or not self.whitening.fitted:
            return self._chosen_example
        return torch.zeros(1, self.in_channels, self.image_size, self.image_size, dtype=torch.uint8)

    @example_input_array.setter
    def example_input_array(self, example: Any) -> None:
        self._chosen_example = example

    @property
    def temperature(self) -> float:
        """The number by which the logits are divided in evaluation, so that their softmax is calibrated.

        It is fitted to trained weights (`cvcc-zoo calibrate`) and saved with them in checkpoints and published files,
        but not in a state_dict; training sets it back to 1. It does not change which class has the highest score.
        Raises ValueError unless it is a finite number above 0.
        """
        return self._temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(f"a temperature must be a finite number above 0, got {temperature!r}")
        self._temperature = float(temperature)

    def uncalibrated(self, logits: Tensor) -> Tensor:
        """Return logits of `forward` as the network gives them, which is what a loss compares with the labels."""
        return logits if self.training or self.temperature == 1 else logits * self.temperature

    def calibrated(self, logits: Tensor) -> Tensor:
        """Return what the network gives as logits divided by the temperature in evaluation, with at least 32 bits."""
        if self.training or self.temperature == 1:
            return logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature  # 16 bits would round

    def on_train_start(self) -> None:
        """Set the temperature to 1, and check pixels again."""
        super().on_train_start()
        self.forget_temperature()
        self.check_pixels.look = True

    def forget_temperature(self) -> None:
        """Say that the temperature becomes 1, as it belongs to the weights from before training."""
        if self.temperature != 1:
            rank_zero_info(
                f"The temperature {self.temperature:g}, which calibrates the weights from before, becomes 1. A "
                "temperature of your own, such as that of a distillation, needs another name than `temperature`."
            )
            self.temperature = 1.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes), in evaluation divided by the `temperature`, with at least 32 bits then.

        Raises ValueError for images of another shape than (N, in_channels, H, W), of another type than uint8 or float,
        and for floats far outside of 0..1; floats below 0 or above 1 give a UserWarning, once.
        """
        return self.calibrated(self.network(self._whiten(images)))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the output of each part: (N, C, H, W) of the stages of a convolutional network, the stem first."""
        return self.parted.features(self._whiten(images))

    def _whiten(self, images: Tensor) -> Tensor:
        check_images(images, self.in_channels)
        if self.reads_values:
            self.check_pixels(images)
        x: Tensor = self.whitening(images)
        # .contiguous(memory_format=torch.channels_last) does the same, but not under vmap.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if self.channels_last else x

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training or evaluation, and check the pixels of the next images again."""
        super().train(mode)
        self.check_pixels.look = True
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the steps of a StepGraph, which are those of this model and not of a copy."""
        return {name: value for name, value in super().__getstate__().items() if name != "optimizer_step"}

    def folded(self) -> Self:
        """Return a faster copy for evaluation: norms are folded into convolutions, which changes logits by rounding.

        It shares the whitening with this model, and no weights.
        """
        network = fold_norms(self.network)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        twin = copy.deepcopy(self, {id(self.network): network, id(self.whitening): self.whitening})
        twin.training = False
        return twin

    def use_whitening(self, spec: str | dict[str, Any]) -> None:
        """Replace the whitening by another one, without statistics: a name or `{"name": ..., option: value}`."""
        self.whitening = make_whitening(spec, self.in_channels, self.image_size).to(self.whitening.mean)
        self.hparams["whitening"] = self.whitening.spec

    @property
    def weights_device(self) -> torch.device:
        """Where the weights are: in `setup` still on the CPU, while Lightning's `device` is the accelerator already."""
        return next(self.network.parameters(), self.whitening.mean).device

    @property
    def parted(self) -> Network:
        """The network, if it has parts. Raises ValueError if it is another kind of module."""
        if not isinstance(self.network, Network):
            raise ValueError(
                f"{type(self.network).__name__} does not define its parts; derive it from cvcc_zoo.classifier.Network"
            )
        return self.network
