"""Before its first step a model learns from the training images: its whitening, and weights that are set from them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.classifier.whitened import WhitenedNetwork
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.patch_whitening import IMAGES, first_convolution, whiten_patches

LSUV_IMAGES = 256  # the paper takes a batch: https://arxiv.org/abs/1511.06422


class SetFromImages(WhitenedNetwork):
    """A model whose whitening is measured, and some of whose weights may be set, on training images."""

    chose_whitening: bool
    patches_whitened: Tensor  # bool, with patch_whitening: whether the first convolution is set

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load weights; a first convolution that whitens patches stays frozen, in loops of any kind."""
        found = super().load_state_dict(*args, **options)
        if self.hparams["patch_whitening"] is not None and not self.patches_whitened.is_meta and self.patches_whitened:
            first_convolution(self.network, self.in_channels).weight.requires_grad_(False)
        return found

    def fit_whitening(self, data: ImageDataModule) -> None:
        """Measure the whitening that model or data chose on the training images, unless it has statistics.

        Raises ValueError if they chose different ones.
        """
        mine = self.whitening.spec if self.chose_whitening or self.whitening.fitted else None
        if mine is not None and data.whitening not in (None, mine):
            raise ValueError(
                f"the model has whitening={mine!r} and the data have whitening={data.whitening!r}; choose one of them "
                "for both, or leave out that of the data"
            )
        if not self.whitening.fitted:
            self.whitening = data.fit_whitening(mine, across_processes=True).to(self.weights_device)
            self.hparams["whitening"] = self.whitening.spec

    def check_sizes(self, sizes: Iterable[int]) -> None:
        """Raise ValueError if whitening or network does not take images of these heights and widths, in pixels."""
        before = self.training
        self.eval()
        try:
            for size in sizes:
                self(torch.zeros(1, self.in_channels, size, size, device=self.weights_device))
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "progressive_resizing and progressive_cropping need a network that takes images of any size, and a "
                f"whitening that does not depend on the position of a pixel; with {size} pixels: "
                f"{str(error).splitlines()[0]}"
            ) from error
        finally:
            self.train(before)

    def prepare(self, data: ImageDataModule | None) -> None:
        """Set what is learned from images and not set yet: filters that whiten patches (then frozen), LSUV's scales.

        Raises ValueError if there are no images to learn from.
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

    def _some(self, data: ImageDataModule, count: int) -> Tensor:
        """Return whitened training images (N, C, H, W) at evenly spread positions, at most `count`."""
        images, _, samples = data.training_images()
        return self._whiten(images[samples[:: max(1, len(samples) // count)][:count]].to(self.weights_device))
