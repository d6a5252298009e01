"""Network: parts, one after the other, and a classifier; the networks of all families are built this way."""

import copy
from collections.abc import Callable
from typing import NoReturn

from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse


class Unscripted(nn.Module):
    """A module that torch.jit.script refuses with a message that says what to use; torch.jit.trace takes it."""

    def __prepare_scriptable__(self) -> NoReturn:
        """Raise ValueError; torch.jit.script calls this first: https://github.com/pytorch/pytorch/pull/45645."""
        raise ValueError(
            f"torch.jit.script does not take {type(self).__name__}, and TorchScript is deprecated; use "
            "torch.export.export or `cvcc-zoo export`, or torch.jit.trace(model.eval(), images) if you need TorchScript"
        )


class Network(Unscripted):
    """Parts, one after the other, then a classifier `fc`: images (N, C, H, W) to logits (N, num_classes).

    A model of your own may have any module as its network, but then it has no features, and its parts cannot be frozen
    by number.
    """

    fc: nn.Linear
    parts: list[list[str]]
    """Names of the modules of each part, in order; `fc` belongs to none."""
    from_images: Callable[[nn.Module, Tensor], None] | None = None
    """Sets weights from whitened training images (N, C, H, W); None where there is nothing left to set."""

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the output of each part; the pixels if there is no part."""
        raise NotImplementedError

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of the output of the last part."""
        logits: Tensor = self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes)."""
        return self.classify(self.features(x)[-1])

    def depth(self, name: str) -> int:
        """Return the number of the part that a parameter or module belongs to; len(parts) for the classifier."""
        for number, names in enumerate(self.parts):
            if any(name == own or name.startswith(f"{own}.") for own in names):
                return number
        return len(self.parts)


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a faster copy of a network in evaluation mode, whose outputs are the same except for rounding.

    Batch norms are folded into the convolutions before them: in evaluation mode, both together are one convolution.
    torch.fx finds the pairs. A network that it cannot trace, because its control flow depends on values, keeps its
    norms. The copy shares no tensors with the network.
    """
    network = copy.deepcopy(network).eval()
    try:
        traced = fx.symbolic_trace(network)
    except Exception:  # networks that cannot be traced raise errors of all kinds
        return network
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(traced.get_submodule(node.target)) is nn.Identity:
            node.replace_all_uses_with(node.args[0])  # otherwise it separates a convolution from its norm
            traced.graph.erase_node(node)
    return fuse(traced, inplace=True, no_trace=True).eval()
