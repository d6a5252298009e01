"""Wrapper of the zoo's residual networks with the methods that timm calls."""

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices  # timm's own models import it from there too
from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network
from cvcc_zoo.zoo.creation import create

SIZE = 32  # image size in pixels of a network without weights
HEAD = "network.fc"
FIRST = "network.conv1"


class Blocks(nn.Sequential):
    """The blocks of a stage; with `checkpointing`, their activations are computed again in the backward pass."""

    checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the maps of the stage."""
        if self.checkpointing:
            x = checkpoint_seq(self, x)
        else:
            for block in self:
                x = block(x)
        return x


class ResidualNetwork(nn.Module):
    """A residual network with timm's interface: normalised images (N, in_chans, H, W) to logits (N, num_classes).

    With num_classes 0 it returns pooled features (N, num_features); with global_pool "" as well, maps (N, C, H, W).
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Create the network `name`; the parameters are those of timm's `create_model`.

        `drop_rate` is the share of the classifier's inputs that is set to zero in training, in [0, 1). `device` and
        `dtype` apply to all tensors; the defaults are torch's.
        """
        super().__init__()
        with nullcontext() if device is None else torch.device(device):
            network: Network = create(name, num_classes=max(num_classes, 2), in_channels=in_chans).parted
        if dtype is not None:
            network.to(dtype=dtype)
        for part in network.parts:
            for child in part:
                if isinstance(network.get_submodule(child), nn.Sequential):
                    setattr(network, child, Blocks(*network.get_submodule(child).children()))
        self.name, self.network, self.in_chans, self.drop_rate = name, network, in_chans, drop_rate
        self.num_features = self.head_hidden_size = network.fc.in_features
        self.feature_info = [dict(info) for info in parts(name)]
        self.last = len(network.parts) - 1  # index of the part whose maps are the features; pruning lowers it
        self.num_classes, self.global_pool = max(num_classes, 2), "avg"
        if (num_classes, global_pool) != (self.num_classes, self.global_pool):
            self.reset_classifier(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the maps (N, num_features, H', W') of the last stage that was not pruned."""
        return self.network.features(x)[self.last]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of these maps; with `pre_logits` the inputs of the classifier, (N, num_features)."""
        if self.global_pool:
            x = self.network.get_submodule("pool")(x)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, training=self.training)
        result: Tensor = x if pre_logits else self.network.fc(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last maps, and those of the parts in `indices`: a list, a number from the end, or None for all.

        `norm` has no effect, because the last norm of a WideResNet belongs to its last part. With `stop_early` the
        last maps are those of the last part in `indices`. Raises ValueError unless output_fmt is NCHW.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"these features are maps (N, C, H, W); give output_fmt='NCHW', got {output_fmt!r}")
        found = self.network.features(x)
        taken, last = feature_take_indices(len(found), indices)
        chosen = [found[index] for index in taken]
        return chosen if intermediates_only else (found[last if stop_early else self.last], chosen)

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the parts after the last of `indices`, and the classifier; return the indices counted from the start.

        If parts are removed, so is their classifier, even without `prune_head`.
        """
        taken, last = feature_take_indices(len(self.network.parts), indices)
        for part in self.network.parts[last + 1 :]:
            for child in part:
                setattr(self.network, child, nn.Identity().train(self.training))
        if prune_head or last < self.last:
            self.reset_classifier(0, "")
        if last < self.last:
            self.last, self.num_features = last, self.feature_info[last]["num_chs"]
            self.head_hidden_size = self.num_features
        return list(taken)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or an identity if there is no classifier."""
        classifier: nn.Module = self.network.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one; 0 classes remove it.

        `global_pool` is avg, or "" for maps, which excludes a classifier. By default the pooling does not change, but
        a classifier turns it on. Raises ValueError for other values.
        """
        kept = "avg" if num_classes else self.global_pool
        pool = kept if global_pool is None else global_pool
        if pool not in ("avg", "") or num_classes < 0 or (num_classes and not pool):
            raise ValueError(
                f"{self.name} takes global_pool='avg', or global_pool='' with num_classes=0 for its maps; "
                f"got global_pool={pool!r} with num_classes={num_classes}"
            )
        self.num_classes, self.global_pool = num_classes, pool
        fc: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.parameters())
            fc = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            nn.init.zeros_(fc.bias)
        self.network.add_module("fc", fc.train(self.training))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns that group parameter names by depth: by stage if `coarse`, otherwise by block."""
        block = r"^network\.layer(\d+)\." if coarse else r"^network\.layer(\d+)\.(\d+)\."
        return {"stem": r"^network\.(?:conv1|bn1)\.", "blocks": block}

    def no_weight_decay(self) -> set[str]:
        """Return an empty set; timm excludes norms and biases by itself."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save only the inputs of blocks for the backward pass: less memory for one more forward pass."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.checkpointing = enable

    def load_pretrained(self, card: str) -> None:
        """Load the published weights of a card, as `cvcc_zoo.create` does; timm calls this for `custom_load`.

        With another number of classes the classifier is fresh, and the first convolution is adapted to other channels.
        Raises FileNotFoundError or ValueError for missing or damaged files, and for any other difference.
        """
        classes: dict[str, Any] = {"num_classes": self.num_classes} if self.num_classes > 1 else {}
        given = create(self.name, pretrained=card, in_channels=self.in_chans, **classes).network.state_dict()
        own = self.network.state_dict()
        head = given if classes else own
        state = {key: tensor for key, tensor in given.items() if not key.startswith("fc.")}
        self.network.load_state_dict(state | {key: head[key] for key in head if key.startswith("fc.")})


@cache
def parts(name: str) -> list[dict[str, Any]]:
    """Return timm's feature_info: the channels of each part, the reduction of its maps, and its last module."""
    with torch.device("meta"):
        network: Network = create(name).parted
        maps = network.features(torch.empty(2, 3, SIZE, SIZE))
    modules = [f"network.{names[-1]}" for names in network.parts]
    return [
        {"num_chs": x.shape[1], "reduction": SIZE // x.shape[2], "module": module}
        for x, module in zip(maps, modules, strict=True)
    ]


def check_whole(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a file that timm itself read. Raises ValueError if more than classes and channels differ.

    If the number of classes differs, timm silently ignores tensors that do not fit.
    """
    own = model.state_dict()
    shapes = {
        name: own[name].shape == tensors[name].shape or name == f"{FIRST}.weight" for name in own if name in tensors
    }
    wrong = own.keys() ^ tensors.keys() | {name for name, same in shapes.items() if not same}
    wrong = {name for name in wrong if not name.startswith(f"{HEAD}.")}
    if wrong:
        raise ValueError(
            f"these are not the weights of this model: {', '.join(sorted(wrong)[:4])} differ; give other weights"
        )
    return tensors
