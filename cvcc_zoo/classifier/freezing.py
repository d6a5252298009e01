"""The parts of a network, from the images on: learning rates decay with their depth, and the first can be frozen.

Then neither their weights nor the statistics of their norms change.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from torch import nn

from cvcc_zoo.classifier.compatibility import BATCH_NORMS
from cvcc_zoo.classifier.heads import classifier_names
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.classifier.whitened import WhitenedNetwork
from cvcc_zoo.internals.averages import measures_norms_again


class PartlyFrozen(WhitenedNetwork):
    """A model whose hyperparameter `freeze` says how many parts, counted from the images, are not trained."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Freeze a network as soon as it is set, so that this holds in any training loop."""
        super().__setattr__(name, value)
        if name == "network":
            for frozen in self._frozen():
                frozen.requires_grad_(False)

    @property
    def grouped(self) -> list[list[str]]:
        """Names of the modules of each part of the network, by which it is frozen and learning rates decay."""
        return parts_of(self.network, self.hparams["num_classes"])

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        """Return what is not trained. Raises ValueError if the network does not have that many parts."""
        if not (count := self.hparams["freeze"]):
            return []
        parts = self.grouped
        if not 0 < count <= len(parts):
            known = ", ".join(f"{number + 1} ({' '.join(part)})" for number, part in enumerate(parts)) or "none"
            raise ValueError(f"freeze={count}: the parts of this network are {known}; freeze 0 to {len(parts)} of them")
        parameters = dict(self.network.named_parameters())
        chosen = [name for part in parts[:count] for name in part]
        return [parameters[name] if name in parameters else self.network.get_submodule(name) for name in chosen]

    def on_fit_start(self) -> None:
        """Set a model or network that came in evaluation mode to train mode; in others, submodules keep their modes.

        Frozen parts are in train mode until the training starts: Lightning warns of modules in evaluation mode then.
        Raises ValueError for an average that would reset the statistics of frozen norms, and never measure them.
        """
        if measures_norms_again(self.trainer) and any(isinstance(each, BATCH_NORMS) for each in self._frozen_modules()):
            raise ValueError(
                "StochasticWeightAveraging resets the statistics of all batch norms and measures them again, but "
                f"freeze={self.hparams['freeze']} keeps those of the frozen parts; use cvcc_zoo.runs.EMA, or freeze=0"
            )
        if not (self.training and self.network.training):
            self.train()
        self._set_frozen(training=True)

    def on_train_start(self) -> None:
        """Set the frozen parts to evaluation mode again, and the rest to train mode in a trial of Lightning's Tuner."""
        super().on_train_start()
        if not self.training:
            self.train()
        self._set_frozen(training=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave frozen parts in evaluation mode: without dropout, and their norms do not change."""
        super().train(mode)
        if mode:
            self._set_frozen(training=False)
        return self

    def _frozen_modules(self) -> Iterator[nn.Module]:
        for frozen in self._frozen():
            if isinstance(frozen, nn.Module):
                yield from frozen.modules()

    def _set_frozen(self, *, training: bool) -> None:
        for frozen in self._frozen():
            if isinstance(frozen, nn.Module):
                frozen.train(training)


def parts_of(network: nn.Module, num_classes: int) -> list[list[str]]:
    """Return the names of the modules (or single parameters) of each part, in order; the classifier belongs to none.

    They are the parts of a `Network`, or those of timm's `group_matcher`, which has stages. Raises ValueError for a
    network that has neither.
    """
    if isinstance(network, Network):
        return network.parts
    matcher = getattr(network, "group_matcher", None)
    if not callable(matcher):
        raise ValueError(
            f"{type(network).__name__} does not define its parts, which freeze and layer_decay need: leave these out, "
            "or derive it from cvcc_zoo.classifier.Network or give it timm's method group_matcher"
        )
    from timm.models import group_parameters  # takes a second

    groups: dict[int, list[str]] = group_parameters(network, matcher(coarse=True))
    heads = tuple(f"{name}." for name in classifier_names(network, num_classes))
    numbers = {name: number for number in groups for name in groups[number]}
    last = {numbers[name] for name in numbers if name.startswith(heads)}
    kept = [number for number in sorted(groups) if number not in last]
    return [list(_largest(network, "", numbers, number)) for number in kept]


def _largest(module: nn.Module, path: str, numbers: Mapping[str, int], number: int) -> Iterator[str]:
    """Yield the names of the largest modules whose parameters all belong to a group, and of other parameters in it."""
    prefix = f"{path}." if path else ""
    inside = {numbers.get(prefix + name) for name, _ in module.named_parameters()}
    if path and inside == {number}:
        yield path
    elif number in inside:
        own: Any = module.named_parameters(recurse=False)
        yield from (prefix + name for name, _ in own if numbers.get(prefix + name) == number)
        for name, child in module.named_children():
            yield from _largest(child, prefix + name, numbers, number)
