"""The parts of a network, from the images on, by which it is frozen and learning rates decay with depth."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from cvcc_zoo.classifier.heads import classifier_names
from cvcc_zoo.classifier.network import Network, depth_of


class Parts(Protocol):
    """A network whose parts are known."""

    @property
    def parts(self) -> list[list[str]]:
        """Names of the modules (or single parameters) of each part, in order; the classifier belongs to none."""

    def depth(self, name: str) -> int:
        """Return the number of the part that a parameter belongs to; len(parts) for the classifier."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of the network by name."""


@dataclass(frozen=True)
class GroupedParts:
    """The parts of a network that is not a `Network`."""

    network: nn.Module
    parts: list[list[str]]

    def depth(self, name: str) -> int:
        """Return the number of the part that a parameter belongs to; len(parts) for the classifier."""
        return depth_of(name, self.parts)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of the network by name."""
        return self.network.named_parameters()


def parts_of(network: nn.Module, num_classes: int) -> Parts:
    """Return a network with its parts: its own, or those of timm's `group_matcher`, which has stages.

    Raises ValueError for a network that has neither.
    """
    if isinstance(network, Network):
        return network
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
    return GroupedParts(network, [list(_largest(network, "", numbers, number)) for number in kept])


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
