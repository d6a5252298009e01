"""Outputs of a trained network as features for another classifier."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network
from cvcc_zoo.classifier.whitened import WhitenedNetwork
from cvcc_zoo.data.whitening import Whitening
from cvcc_zoo.kinds import check_bounds, check_whole
from cvcc_zoo.registry import FAMILIES
from cvcc_zoo.weights.card import find_card, read
from cvcc_zoo.weights.fits import check_fits, check_hparams


class Pretrained(nn.Module):
    """Images (N, C, H, W), float in [0, 1], to the output (N, D) of a part of a published network; maps are averaged.

    It has its own whitening. It is not trained, and its norms keep their statistics.
    """

    whitening: Whitening
    network: Network

    def __init__(self, family: str, hparams: Mapping[str, Any], part: int = -1) -> None:
        """Build the network without its weights; `part` counts from 0, or negative from the end."""
        super().__init__()
        check_bounds(hparams, "Pretrained")  # the hyperparameters may come from a file
        model = FAMILIES[family](**hparams)
        assert isinstance(model, WhitenedNetwork)
        self.whitening, self.network, self.part = model.whitening, model.parted, part
        if not (parts := len(self.network.parts)):
            raise ValueError(f"Pretrained: a {family} of pixels has no parts, only a classifier; choose other weights")
        check_whole("Pretrained: part", part, -parts, parts - 1)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Pretrained":
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the part, averaged over pixels: (N, D)."""
        output = self.network.features(self.whitening(x))[self.part]
        return output.mean((2, 3)) if output.ndim == 4 else output


def read_pretrained(name: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return family and hyperparameters of published weights, and their tensors, for images of a shape (C, H, W).

    Raises ValueError for an unknown name, with the nearest ones, and for weights of other images.
    """
    path = find_card(name)
    card, tensors = read(path)
    check_hparams(path, card.family, card.hparams)
    _, state = check_fits(path, card.family, card.hparams, tensors)
    theirs = (card.hparams["in_channels"], *2 * (card.hparams["image_size"],))
    if theirs != shape:
        sizes = ["x".join(map(str, size)) for size in (theirs, shape)]
        raise ValueError(
            f"Pretrained: {name} takes images of {sizes[0]}, not {sizes[1]}; add "
            f"--data.image_size={theirs[1]} --data.in_channels={theirs[0]}"
        )
    if len(state["whitening.mean"].shape) > 1:
        raise ValueError(f"Pretrained: {name} whitens whole images; choose weights with standardize or none")
    kept = {key: value for key, value in state.items() if key.startswith(("whitening.", "network."))}
    return {"family": card.family, "hparams": card.hparams}, kept
