"""The parts of a network, from the images on, by which it is frozen and learning rates decay with depth."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from cvcc_zoo.classifier.heads import classifier_names
from cvcc_zoo.classifier.network import Network


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
