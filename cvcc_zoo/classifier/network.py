"""Network: parts, one after the other, and a classifier; the networks of all families are built this way."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

from cvcc_zoo.internals.torch import changes_forward, has_hooks

T = TypeVar("T")
FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: nn.Conv1d,
    nn.BatchNorm2d: nn.Conv2d,
    nn.BatchNorm3d: nn.Conv3d,
}
"""The norms that `fold_norms` folds, and into which convolutions."""


class NoClassifier(nn.Identity):
    """The identity in place of a classifier, so that a network returns features (N, in_features)."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features


def inputs_of(classifier: nn.Module) -> int:
    """Return the number of inputs of a classifier, which may be a Sequential with dropout before its linear layer.

    Raises ValueError if none of its layers says how many it takes.
    """
    for layer in classifier.modules():
        if isinstance(count := getattr(layer, "in_features", None), int):
            return count
    raise ValueError(f"the classifier {type(classifier).__name__} does not say its in_features; give it this attribute")


def called(module: nn.Module, call: Callable[[], Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return what `call` returns, and the input and output of each call of `module` within it."""
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    handle: RemovableHandle = module.register_forward_hook(remember)
    try:
        return call(), seen
    finally:
        handle.remove()


def meta_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the meta device, where nothing is computed, with its tensors of any kind.

    `Module.to` leaves tensors that are neither parameters nor buffers where they are, and networks of users have some.
    """
    copied = copy.deepcopy(network).to("meta")
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, value.to("meta"))
    return copied


def zero_images(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return black images (N, C, H, W), floats in the precision and on the device of the network's weights."""
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let attention be matrix products, as on the meta device: in the faster kernels of a CPU they are not counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def counted(network: nn.Module, shape: tuple[int, ...], count: Callable[[nn.Module, Tensor], T]) -> T:
    """Return the `count` of a copy of a network and black images (N, C, H, W), without drawing random numbers.

    Both are on the meta device, unless the network cannot run there, because it reads values or makes CPU tensors.
    """
    images = zero_images(network, shape)
    with torch.random.fork_rng(devices=[]), plain_attention():
        try:
            return count(meta_copy(network), images.to("meta"))
        except Exception:  # networks raise errors of all kinds; the second time, they are those of the network
            return count(copy.deepcopy(network), images)


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

    # The methods by which networks of timm are used: https://huggingface.co/docs/timm/feature_extraction

    @property
    def num_features(self) -> int:
        """Channels of the output of the last part."""
        return inputs_of(self.fc)

    @property
    def head_hidden_size(self) -> int:
        """Number of inputs of the classifier."""
        return inputs_of(self.fc)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the output of the last part."""
        return self.features(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of the output of the last part; with `pre_logits` the inputs of the classifier."""
        logits, seen = called(self.fc, lambda: self.classify(x))
        return seen[-1][0] if pre_logits else logits

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.fc


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode for a while; afterwards each submodule has its own mode again."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a faster copy of a network in evaluation mode, whose outputs are the same except for rounding.

    Batch norms are folded into the convolutions before them: in evaluation mode, both together are one convolution.
    torch.fx finds the pairs. A norm stays if it or its convolution is used in several places, or has hooks, as with
    spectral norm, or a `forward` of its own. So does one after a linear layer, whose outputs may be in another axis
    than the channels of the norm. A network that cannot be traced, because it has hooks or a `forward` of its own, or
    because its control flow depends on values, keeps all norms. The copy shares no tensors with the network.
    """
    network = copy.deepcopy(network).eval()
    if changes_forward(network):  # torch.fx traces `forward` of its class
        return network
    try:
        traced = fx.symbolic_trace(network)
    except Exception:  # networks that cannot be traced raise errors of all kinds
        return network
    names = [(node.op, str(node.target)) for node in traced.graph.nodes]
    uses = Counter(name for op, name in names if op == "call_module")
    uses += Counter(name.rpartition(".")[0] for op, name in names if op == "get_attr")  # of a weight or bias alone
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node):
            continue
        module: Any = traced.get_submodule(node.target)
        name = str(before.target)
        if type(module) is not nn.Identity or changes_forward(module):  # which may be between the two
            if before.op != "call_module" or not len(before.users) == uses[name] == uses[node.target] == 1:
                continue
            layer: Any = traced.get_submodule(name)
            if not _fold(layer, module):
                continue
            traced.set_submodule(name, fuse_conv_bn_eval(layer, module))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval()


def _fold(layer: nn.Module, norm: nn.Module) -> bool:
    """Return whether a norm is a batch norm with statistics, and the layer before it a convolution."""
    known = type(layer) is FOLDED.get(type(norm)) and getattr(norm, "running_mean", None) is not None
    return known and not any(has_hooks(each) or changes_forward(each) for each in (layer, norm))
