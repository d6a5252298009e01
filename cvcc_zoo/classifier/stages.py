"""A network in parts: what each gives, which of them are trained; and what is set from images before that."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Self

import torch
from lightning import LightningModule
from torch import Tensor, nn

from cvcc_zoo.classifier.folding import fold_norms
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.patches import IMAGES, first_convolution, whiten_patches
from cvcc_zoo.data.pixels import PixelCheck, check_images
from cvcc_zoo.data.whitening import Whitening, make_whitening

LSUV_IMAGES = 256  # the paper takes a batch: https://arxiv.org/abs/1511.06422


class Unscripted(nn.Module):
    """A module that torch.jit.script does not take, and says so; torch.jit.trace does."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first: https://github.com/pytorch/pytorch/pull/45645."""
        raise ValueError(
            f"torch.jit.script does not take {type(self).__name__}, and TorchScript is deprecated; use "
            "torch.export.export or `cvcc-zoo export`, or torch.jit.trace(model.eval(), images) where it has to be that"
        )


class Network(Unscripted):
    """Parts, one after the other, then a classifier `fc`: images (N, C, H, W) to logits (N, num_classes).

    A family's network is one of these; a network of your own may be any module, but then it has no features, and
    nothing of it can be frozen by number.
    """

    fc: nn.Linear
    parts: list[list[str]]
    """Names of the modules of each part, in order; `fc` belongs to none."""
    from_images: Callable[[nn.Module, Tensor], None] | None = None
    """What sets weights from whitened training images (N, C, H, W), as long as that is left to do."""

    def features(self, x: Tensor) -> list[Tensor]:
        """What each part gives; where there is no part, the pixels."""
        raise NotImplementedError

    def classify(self, x: Tensor) -> Tensor:
        """The logits of what the last part gives."""
        logits: Tensor = self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classify(self.features(x)[-1])

    def depth(self, name: str) -> int:
        """The part that a parameter or module belongs to, by its name; len(parts) for the classifier."""
        for number, names in enumerate(self.parts):
            if any(name == own or name.startswith(f"{own}.") for own in names):
                return number
        return len(self.parts)


class Staged(Unscripted, LightningModule):
    """Raw images through the whitening to a network, whose first parts can be frozen."""

    network: nn.Module
    whitening: Whitening
    patches_whitened: Tensor  # with patch_whitening: whether the first convolution is set
    in_channels: int
    image_size: int
    chose_whitening: bool
    hparams: Any
    _chosen_example: Any = None
    _resting = True  # whether the frozen parts are kept in evaluation mode
    channels_last = False  # convolutional families set it: 1.2 to 1.5 times faster training on a CPU

    def __init__(self) -> None:
        super().__init__()
        self._check_pixels = PixelCheck()

    def __setattr__(self, name: str, value: Any) -> None:
        """A network is frozen as `freeze` says as soon as it is there, for training loops of any kind."""
        super().__setattr__(name, value)
        if name == "network":
            for module in self._frozen():
                module.requires_grad_(False)

    def __dir__(self) -> list[str]:
        """Names that can be read now: torch.jit.trace reads all of them, and `trainer` is an error without one."""

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
        """Images for Lightning's summary; none before the whitening knows its statistics, when nothing can be run."""
        if self._chosen_example is not None or not self.whitening.fitted:
            return self._chosen_example
        return torch.zeros(1, self.in_channels, self.image_size, self.image_size, dtype=torch.uint8)

    @example_input_array.setter
    def example_input_array(self, example: Any) -> None:
        self._chosen_example = example

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes).

        Raises ValueError for images of another shape than (N, in_channels, H, W), of another type than uint8 or float,
        and for floats far outside of 0..1; floats below 0 or above 1 give a UserWarning, once.
        """
        logits: Tensor = self.network(self._whiten(images))
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """What each part of the network gives: (N, C, H, W) of the stages of a convolutional one, the stem's first."""
        return self.parted.features(self._whiten(images))

    def _whiten(self, images: Tensor) -> Tensor:
        check_images(images, self.in_channels)
        self._check_pixels(images)
        x: Tensor = self.whitening(images)  # below: the layout channels_last, under vmap, too
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if self.channels_last else x

    def folded(self) -> Self:
        """A copy to evaluate with, faster: norms are folded into convolutions, which changes logits by rounding.

        It shares the whitening with this model, and no weights.
        """
        network, twin = fold_norms(self.network), copy.copy(self)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        twin._modules = {**self._modules, "network": network}
        twin.training = False
        return twin

    def use_whitening(self, spec: str | dict[str, Any]) -> None:
        """Take a whitening by name or `{"name": ..., option: value}`, without statistics, instead of the one there."""
        self.whitening = make_whitening(spec, self.in_channels, self.image_size)
        self.hparams["whitening"] = self.whitening.spec

    def fit_whitening(self, data: ImageDataModule) -> None:
        """Measure the whitening on training images, unless that is done: the one that model or data chose.

        Raises ValueError where they chose different ones.
        """
        mine = self.whitening.spec if self.chose_whitening or self.whitening.fitted else None
        if mine is not None and data.whitening not in (None, mine):
            raise ValueError(
                f"the model has whitening={mine!r} and the data have whitening={data.whitening!r}; choose one of them, "
                "or leave that of the data out"
            )
        if not self.whitening.fitted:
            self.whitening = data.fit_whitening(mine, across_processes=True).to(self.weights_device)
            self.hparams["whitening"] = self.whitening.spec

    def check_sizes(self, sizes: Iterable[int]) -> None:
        """Raise ValueError if the whitening or the network does not take images of these heights and widths."""
        before = self.training
        self.eval()
        try:
            for size in sizes:
                self(torch.zeros(1, self.in_channels, size, size, device=self.weights_device))
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "progressive_resizing and progressive_cropping need a network that takes images of any size, and a "
                f"whitening of channels alone; with {size} pixels: {str(error).splitlines()[0]}"
            ) from error
        finally:
            self.train(before)

    def prepare(self, data: ImageDataModule | None) -> None:
        """Set what is learned from training images and not set yet: filters that whiten patches, then LSUV's scales.

        The filters are taken out of the training. Raises ValueError where there are no images to learn from.
        """
        eps, scale = self.hparams["patch_whitening"], getattr(self.network, "from_images", None)
        patches = eps is not None and not self.patches_whitened
        if data is None and (patches or scale):
            option = "patch_whitening" if patches else "init=lsuv"
            itself = "" if patches else ", or call cvcc_zoo.models.lsuv(model.network, model.whitening(images)) before"
            raise ValueError(f"{option} learns from training images: train with an ImageDataModule{itself}")
        if data is not None and patches:
            whiten_patches(self.network, self._some(data, IMAGES), eps)
            self.patches_whitened.fill_(True)
        if eps is not None:
            first_convolution(self.network, self.in_channels).weight.requires_grad_(False)
        if data is not None and scale:
            scale(self.network, self._some(data, LSUV_IMAGES))

    @property
    def weights_device(self) -> torch.device:
        """Where the weights are: in `setup` still on the CPU, while Lightning's `device` is the accelerator already."""
        return next(self.network.parameters()).device

    def _some(self, data: ImageDataModule, count: int) -> Tensor:
        """Whitened training images of evenly spread positions, `count` at most."""
        images, _, samples = data.training_images()
        return self._whiten(images[samples[:: max(1, len(samples) // count)][:count]].to(self.weights_device))

    @property
    def parted(self) -> Network:
        """The network as parts. Raises ValueError for a network of another kind."""
        if not isinstance(self.network, Network):
            raise ValueError(
                f"{type(self.network).__name__} does not say which parts it has; derive it from "
                "cvcc_zoo.classifier.Network"
            )
        return self.network

    def _frozen(self) -> list[nn.Module]:
        """The parts that are not trained, as the hyper-parameter `freeze` says. Raises ValueError for other numbers."""
        if not (count := self.hparams["freeze"]):
            return []
        parts = self.parted.parts
        if not 0 < count <= len(parts):
            names = ", ".join(f"{number + 1} ({' '.join(part)})" for number, part in enumerate(parts)) or "none"
            raise ValueError(f"freeze={count}: the parts of this network are {names}; freeze 0 to {len(parts)} of them")
        return [self.network.get_submodule(name) for names in parts[:count] for name in names]

    def on_fit_start(self) -> None:
        """Train mode also for a model that was loaded for evaluation."""
        self._resting = False  # until the training starts, before which Lightning warns of parts in evaluation mode
        self.train()

    def on_train_start(self) -> None:
        """The frozen parts are in evaluation mode again."""
        self._resting = True
        self.train()

    def train(self, mode: bool = True) -> "Staged":
        """Train mode but for the frozen parts, whose norms keep their statistics and whose units do not drop out."""
        super().train(mode)
        self._check_pixels.look = True
        if mode and self._resting:
            for module in self._frozen():
                module.eval()
        return self
