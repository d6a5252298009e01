"""Parameter groups of an optimizer: which parameters are decayed, which Muon updates, and how to print them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn


def param_groups(
    model: nn.Module, weight_decay: float, *, muon: bool = False, decay_norms_and_biases: bool = False
) -> list[dict[str, Any]]:
    """Split the trainable parameters of a model into groups `muon`, `decay`, `no_decay` and `excluded`, none empty.

    A parameter with one dimension (the scale and shift of a norm, a bias) is not decayed, because pulling it to zero
    does not make the function simpler. Large batches train better this way (BN at batch 4096: error 10.8 % -> 8.8 %,
    https://github.com/hysts/pytorch_image_classification). The papers of 2015 to 2017 decayed everything, as
    `decay_norms_and_biases` does. `excluded` are other parameters that the network does not want decayed: those of
    timm's method `no_weight_decay`, such as the tokens of a transformer.

    With `muon` the weights of all layers between the first and the last are in the group `muon`:
    https://kellerjordan.github.io/posts/muon/ also leaves the first and the last layer to AdamW. Raises ValueError if
    there are none.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = trainable.keys() & hidden_weights(model) if muon else set()
    if muon and not hidden:
        raise ValueError("Muon needs a trainable weight between the first and the last layer; choose AdamW here")
    excluded = _excluded(model) - hidden
    chosen: dict[str, list[nn.Parameter]] = {"muon": [], "decay": [], "no_decay": [], "excluded": []}
    for name, p in trainable.items():
        kind = "no_decay" if p.ndim <= 1 else "excluded" if name in excluded else "decay"
        chosen["muon" if name in hidden else kind].append(p)
    groups: list[dict[str, Any]] = [{"name": name, "params": params} for name, params in chosen.items()]
    for group in groups:
        decayed = group["name"] in ("muon", "decay") or decay_norms_and_biases
        group["weight_decay"] = weight_decay if decayed else 0.0
        if muon:
            group["use_muon"] = group["name"] == "muon"
    return [group for group in groups if group["params"]]


def _excluded(model: nn.Module) -> set[str]:
    """Return the names of the parameters that the patterns of timm's method `no_weight_decay` of the network match."""
    network: Any = getattr(model, "network", model)
    patterns = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    found = [name for name, _ in network.named_parameters() if any(fnmatchcase(name, each) for each in patterns)]
    return {name if network is model else f"network.{name}" for name in found}


def hidden_weights(model: nn.Module) -> list[str]:
    """Return the names of the weights of all layers between the first and the last, in the order of their definition.

    The last layer is the classifier, of one or several modules, if the network has timm's method `get_classifier`.
    Parameters of more than one dimension without `weight` in their names, such as the tokens and the position
    embedding of a transformer, belong to no layer; those of one number a row, such as the lengths that weight norm
    separates from the directions, are no matrices.
    """
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1 and p.numel() > len(p)}
    weights = {name: p for name, p in matrices.items() if "weight" in name}
    network: Any = getattr(model, "network", model)
    found = network.get_classifier() if hasattr(network, "get_classifier") else ()
    modules = found if isinstance(found, tuple | list | nn.ModuleList) else [found]
    last = {p for module in modules for p in module.parameters()} & {*weights.values()}
    last = last or {*list(weights.values())[-1:]}
    return [name for name, p in weights.items() if p not in last][1:]


def depth_of(name: str, parts: Sequence[Sequence[str]]) -> int:
    """Return the number of the part that a parameter belongs to; len(parts) for the classifier."""
    for number, names in enumerate(parts):
        if any(name == own or name.startswith(f"{own}.") for own in names):
            return number
    return len(parts)


def by_depth(groups: Sequence[Mapping[str, Any]], model: nn.Module, layer_decay: float) -> list[dict[str, Any]]:
    """Split the groups of an optimizer so that each part of the network has its own learning rate.

    The classifier keeps the rate of its group, each part before it has `layer_decay` times that of the next:
    discriminative fine-tuning, https://arxiv.org/abs/1801.06146 (section 3.2). Parameters of the model outside of its
    network have the rate of the classifier. Raises ValueError for a network that does not define its parts.
    """
    parts = getattr(model, "grouped", None)
    if parts is None:
        raise ValueError("layer_decay needs a model whose network defines its parts: cvcc_zoo.classifier.Network")
    depths = {p: depth_of(name, parts) for name, p in model.get_submodule("network").named_parameters()}
    deepest, split = len(parts), []
    for group in groups:
        kept = {key: group[key] for key in ("weight_decay", "use_muon") if key in group}
        for depth in sorted({depths.get(p, deepest) for p in group["params"]}):
            part = "fc" if depth == deepest else f"part {depth + 1}"
            name = f"{group['name']} of {part}" if "name" in group else part
            chosen = [p for p in group["params"] if depths.get(p, deepest) == depth]
            lr = group["lr"] * layer_decay ** (deepest - depth)
            split.append({"name": name, "params": chosen, "lr": lr, **kept})
    return split


def describe_groups(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> str:
    """Return the groups of an optimizer as text: a line with its options, then one for each parameter."""
    names = {p: name for name, p in model.named_parameters()}
    lines = []
    for index, group in enumerate(groups):
        options = ", ".join(f"{k} {group[k]:g}" for k in ("lr", "weight_decay") if k in group)
        count = sum(p.numel() for p in group["params"])
        lines.append(f"{group.get('name', f'group {index}')}: {count:,} parameters{f' ({options})' if options else ''}")
        lines += [f"  {names[p]} {tuple(p.shape)}" for p in group["params"]]
    return "\n".join(lines)
