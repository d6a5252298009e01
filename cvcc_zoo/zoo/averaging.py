"""The average of trained models with the same classes: `A+B+C` is the mean of their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier.flipping import Flipped
from cvcc_zoo.data.classes import differences, matching, plain_name
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.forms.torchvision_table import TABLE
from cvcc_zoo.files.own import expanded
from cvcc_zoo.registry import as_typed
from cvcc_zoo.timing import default_device
from cvcc_zoo.weights.card import list_cards
from cvcc_zoo.zoo.names import told_apart
from cvcc_zoo.zoo.trained import Trained, find_trained

PLUS = "+"
UNMIRRORED = {"mnist", "svhn", *(plain_name(name) for name, entry in TABLE.items() if not entry.mirror)}
"""Known data sets in which a mirrored image may belong to another class."""


@dataclass(frozen=True)
class Average:
    """One trained model, or several that are averaged; with `flip` each also looks at the mirror images."""

    members: tuple[Trained, ...]
    flip: bool = False

    @property
    def name(self) -> str:
        """The names of the models, joined by plus signs."""
        return PLUS.join(member.name for member in self.members)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the first model."""
        return self.members[0].classes

    @property
    def dataset(self) -> str:
        """The training data of all models, in words; empty if they differ or are unknown."""
        return self.members[0].dataset if len({member.dataset for member in self.members}) == 1 else ""

    def decoding(self) -> Decoding:
        """Return options that decode image files as in training; they are the same for all models."""
        return self.members[0].model.decoding()

    def image_options(self, dataset: str | None = None) -> dict[str, Any]:
        """Return options of an ImageDataModule for images of the first model, as `Trained.image_options` does."""
        return self.members[0].image_options(dataset)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the mean probabilities (N, num_classes) of images, computed on a GPU if there is one."""
        device = default_device()
        shares = []
        for member in self.members:
            model: nn.Module = member.model.to(device)
            logits = (Flipped(model) if self.flip else model)(images.to(device))
            shares.append(logits.float().softmax(1).cpu())
        return self.mean(shares)

    def mean(self, shares: Sequence[Tensor]) -> Tensor:
        """Return the mean of the models' probabilities, each (N, num_classes) in the order of its own classes."""
        total = torch.zeros_like(shares[0])
        for member, own in zip(self.members, shares, strict=True):
            total[:, matching(self.classes, member.classes)] += own
        return total / len(shares)


def find_average(name: str, *, flip: bool = False) -> Average:
    """Return the models that a name lists: `resnet20.cifar10`, or several joined by plus signs.

    The path of a run or file and the name of a card may contain plus signs. Models of the same name are named as they
    are given. Raises ValueError if the models have other classes than the first one or take other images, and with
    `flip` for known data sets such as MNIST, whose mirror images may belong to other classes; and as `find_trained`
    does.
    """
    names = names_in(name)
    if not all(names):
        raise ValueError(f"{name} lacks a name beside a plus sign; write A+B to average two models")
    found = [find_trained(each) for each in names]
    apart = told_apart([each.name for each in found], names)
    first, *others = found = [replace(each, name=name) for each, name in zip(found, apart, strict=True)]
    for other in others:
        if matching(first.classes, other.classes) is None:
            raise ValueError(
                f"{other.name} has other classes than {first.name}: {differences(first.classes, other.classes)}; only "
                "models with the same classes can be averaged"
            )
        if other.model.decoding() != first.model.decoding():
            raise ValueError(
                f"{other.name} takes {_taken(other)}, but {first.name} takes {_taken(first)}; only models that take "
                "the same images can be averaged"
            )
    if flip and any(plain_name(member.dataset) in UNMIRRORED for member in found):
        raise ValueError(
            "mirrored digits, letters and traffic signs are others, so their flip helps no prediction; leave it out"
        )
    return Average(tuple(found), flip)


def names_in(name: str) -> list[str]:
    """Return the names that plus signs join; a path that exists or a card is one name, whatever it contains."""
    parts, names = name.split(PLUS), list[str]()
    while parts:
        count = next((n for n in range(len(parts), 1, -1) if _is_one(PLUS.join(parts[:n]))), 1)
        names.append(PLUS.join(parts[:count]))
        parts = parts[count:]
    return names


def _is_one(name: str) -> bool:
    try:
        return expanded(name).exists() or as_typed(name, list_cards()) is not None
    except OSError:  # too long for a path
        return False


def _taken(trained: Trained) -> str:
    size = trained.model.image_size
    made = "resized by {resize} on {background}".format_map(trained.model.shaping)
    return f"{trained.model.in_channels}x{size}x{size} images {made}"
