"""Features and classifier of a model, under the names and with the meanings of timm.

https://huggingface.co/docs/timm/feature_extraction describes them. A network that has these methods itself, as those of
timm and of this package do, is asked. In any other one, the classifier is the last linear layer with `num_classes`
outputs, and the features are its inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.classifier.network import Network, NoClassifier, called, inputs_of
from cvcc_zoo.classifier.weighting import without_numbers
from cvcc_zoo.classifier.whitened import WhitenedNetwork
from cvcc_zoo.kinds import check_whole
from cvcc_zoo.losses import Loss, make_loss

METHODS = ("forward_features", "forward_head", "get_classifier", "reset_classifier")


class Headed(WhitenedNetwork):
    """A model whose features can be used without its classifier, and whose classifier can be replaced."""

    num_classes: int
    metrics: StageMetrics
    classes: tuple[str, ...] | None
    loss: Loss
    chosen_class_weights: Any = None  # the class weights that were chosen, before training made them numbers

    def __setattr__(self, name: str, value: Any) -> None:
        """Remove the classifier of a new network if the model is built with num_classes=0."""
        super().__setattr__(name, value)
        if name == "network" and self.hparams["num_classes"] == 0:
            self.reset_classifier(0)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the maps (N, num_features, H', W') or vectors of raw images before they are pooled.

        For a network that does not define them, they are the inputs of its classifier.
        """
        return network_features(self.network, self._whiten(images), self.num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of what `forward_features` returned, as `forward` does: calibrated in evaluation.

        With `pre_logits` they are the inputs of the classifier, (N, head_hidden_size).
        """
        network: Any = self.network
        if is_headed(network):
            found: Tensor = network.forward_head(features, pre_logits=pre_logits)
        else:
            found = features if pre_logits else plain_classifier(network, self.num_classes)(features)
        return found if pre_logits else self.calibrated(found)

    def get_classifier(self) -> nn.Module:
        """Return the module that computes the logits, without the temperature; an identity if the model has none."""
        network: Any = self.network
        classifier: nn.Module = (
            network.get_classifier() if is_headed(network) else plain_classifier(network, self.num_classes)
        )
        return classifier

    @property
    def num_features(self) -> int:
        """Channels of what `forward_features` returns."""
        network: Any = self.network
        return int(getattr(network, "num_features", 0) or self.head_hidden_size)

    @property
    def head_hidden_size(self) -> int:
        """Number of inputs of the classifier."""
        network: Any = self.network
        if is_headed(network):
            return int(getattr(network, "head_hidden_size", None) or network.num_features)
        return int(plain_classifier(network, self.num_classes).in_features)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one, with the initial weights of a new model, or else those of nn.Linear.

        With 0 classes the model returns features (N, head_hidden_size). The classes of the model have no names until it
        is trained again; its temperature is 1, and class weights other than "balanced" leave its loss, because they
        belong to the old classes. Build a new optimizer afterwards. Raises ValueError for a single class, and for a
        network whose classifier is not known.
        """
        check_whole("num_classes", num_classes)
        if num_classes < 0 or num_classes == 1:
            raise ValueError(f"num_classes must be at least 2, or 0 for features, got {num_classes}")
        hparams = {**self.hparams, "num_classes": num_classes}
        hparams["loss"] = without_numbers(hparams["loss"], self.chosen_class_weights)
        network: Any = self.network
        like = next(self.network.parameters(), self.whitening.mean)
        given = self.hparams.get("network", network) is None  # as an object, which cannot be built again
        if isinstance(network, Network) and not (given and num_classes):
            family: Any = type(self)
            new: Any = family.rebuilt(hparams).network.fc if num_classes else _none_like(network.fc)
            network.fc = new
        elif is_headed(network) and not isinstance(network, Network):
            network.reset_classifier(num_classes)
        else:
            name = classifier_names(network, self.num_classes)[-1]
            old: Any = network.get_submodule(name)
            new = nn.Linear(inputs_of(old), num_classes, bias=_biased(old)) if num_classes else _none_like(old)
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, new)
        self.num_classes = num_classes
        for name in classifier_names(network, num_classes):
            network.get_submodule(name).to(like.device, like.dtype).train(self.training)
        self.hparams.update(hparams)
        self.chosen_class_weights, ours = None, isinstance(self.loss, Loss)
        if ours:
            self.loss = make_loss(hparams["loss"])
        self.classes, self.temperature = None, 1.0
        self._modules.pop("_confusion", None)
        with torch.device("cpu"):
            self.metrics = StageMetrics(max(num_classes, 2), weighted=ours and self.loss.class_weights is not None).to(
                like.device
            )

    def check_head(self) -> None:
        """Raise ValueError if the model has no classifier."""
        if self.num_classes == 0:
            raise ValueError(
                "this model has no classifier (num_classes=0) and returns features; call model(images) for them, or "
                "model.reset_classifier(num_classes) before it is trained or tested"
            )


def is_headed(network: nn.Module) -> bool:
    """Return whether a network has timm's methods for features and classifier."""
    return isinstance(network, Network) or all(callable(getattr(network, name, None)) for name in METHODS)


def network_features(network: Any, x: Tensor, num_classes: int) -> Tensor:
    """Return the features of whitened images (N, C, H, W), before pooling if the network says so."""
    if is_headed(network):
        features: Tensor = network.forward_features(x)
        return features
    logits, seen = called(plain_classifier(network, num_classes), lambda: network(x))
    if len(seen) != 1 or seen[0][1] is not logits:
        raise ValueError(
            f"the logits of {type(network).__name__} are not the output of its last linear layer, so its features are "
            f"not known; give it the methods {', '.join(METHODS)}"
        )
    return seen[0][0]


def plain_classifier(network: nn.Module, num_classes: int) -> Any:
    """Return the last linear layer with `num_classes` outputs, or what replaced it. Raises ValueError without one."""
    return network.get_submodule(classifier_names(network, num_classes)[-1])


def classifier_names(network: Any, num_classes: int) -> list[str]:
    """Return the names of the modules that compute the logits: usually one, and several if logits are averaged."""
    if is_headed(network):
        found = network.get_classifier()
        wanted = list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]
        return [name for name, module in network.named_modules() if any(module is each for each in wanted)]
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, NoClassifier) or (isinstance(module, nn.Linear) and module.out_features == num_classes)
    ]
    if not names:
        raise ValueError(
            f"{type(network).__name__} has no linear layer with {num_classes} outputs, so its classifier is not known; "
            f"give it the methods {', '.join(METHODS)}"
        )
    return names[-1:]


def _none_like(classifier: Any) -> NoClassifier:
    return NoClassifier(inputs_of(classifier))


def _biased(classifier: Any) -> bool:
    return getattr(classifier, "bias", classifier) is not None
