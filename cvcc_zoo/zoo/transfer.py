"""Use weights for other classes, channels or image sizes: only what must be new is new; all else must fit exactly."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model
from cvcc_zoo.classifier.heads import classifier_names
from cvcc_zoo.classifier.patch_whitening import first_convolution
from cvcc_zoo.weights.fits import Weights, in_short, mismatches

ADAPTABLE = ("num_classes", "in_channels", "image_size")
"""Hyperparameters in which a model may differ from its weights."""


def transfer(
    model: ImageClassifier, weights: Weights, *, new_head: bool = False, known: Mapping[int, int] | None = None
) -> bool:
    """Put trained weights into a model whose `ADAPTABLE` hyperparameters may differ from theirs.

    The classifier keeps its fresh weights if the number of classes differs, or with `new_head`, except those of the
    `known` classes: class i of the model gets the weights of class known[i]. Returns whether it has any. For other
    input channels the first convolution is adapted, and the whitening is fitted when training starts. The model keeps
    its dtype. Raises ValueError, and says what differs, if anything else does not fit; then the model is not changed.
    """
    hparams, source = weights.hparams, str(weights.path)
    check_model(model, weights.family, hparams, but=ADAPTABLE)
    if all(model.hparams[name] == hparams[name] for name in ("in_channels", "image_size")):
        model.take_features(hparams)
    given, state = dict(weights.state), model.state_dict()
    fresh, of_classes = set[str](), set[str]()
    if new_head or model.num_classes != hparams["num_classes"]:
        heads = tuple(f"network.{name}." for name in classifier_names(model.network, model.num_classes))
        of_classes = {name for name in state if name.startswith(heads)}
        fresh |= of_classes
        if model.num_classes == 0:
            given = {name: tensor for name, tensor in given.items() if not name.startswith(heads)}
    if len(given) == len(state) and model.hparams.get("dropout") != hparams.get("dropout"):
        names = (name for name in weights.blank.state_dict() if name in given)
        given = {new: given[old] for old, new in zip(names, state, strict=True)}  # dropout moves numbers in FCNN
    if model.in_channels != hparams["in_channels"]:
        fresh |= {name for name in state if name.startswith("whitening.")} | ({"patches_whitened"} & state.keys())
        weight = _first_weight(model)
        if "patches_whitened" in state:
            fresh.add(weight)
        elif weight in given:
            given[weight] = adapt_channels(given[weight], model.in_channels)
    whitening = model.whitening
    if whitening.decorrelates and whitening.scope != "channel_values" and model.image_size != hparams["image_size"]:
        raise ValueError(
            f"the weights of {source} whiten whole images of {hparams['image_size']} pixels, not of "
            f"{model.image_size}; resize the images (--data.image_size={hparams['image_size']})"
        )
    _check(given, state, fresh, source)
    taken = {name: state[name] if name in fresh else given[name] for name in state}
    shapes = {name: (hparams["num_classes"], *state[name].shape[1:]) for name in of_classes}
    keeps = bool(known) and all(name in given and given[name].shape == shape for name, shape in shapes.items())
    if known and keeps:
        new, old = torch.tensor(list(known)), torch.tensor(list(known.values()))
        taken |= {name: state[name].index_copy(0, new, given[name][old].to(state[name])) for name in of_classes}
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in taken.items()})
    return keeps


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt a convolution's weight (out, C, kh, kw) to another number of channels, (out, in_channels, kh, kw).

    One channel gets the sum, so the output is that for C copies of a grey image; more channels repeat the weight in
    turn, scaled by C / in_channels. timm does the same.
    """
    own = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    turns = torch.arange(in_channels) % own
    return weight[:, turns] * (own / in_channels)


def _first_weight(model: ImageClassifier) -> str:
    convolution = first_convolution(model.network, model.in_channels, "other input channels need")
    return next(f"network.{name}.weight" for name, module in model.network.named_modules() if module is convolution)


def _check(given: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: set[str], source: str) -> None:
    """Raise ValueError, and say what differs, if the tensors do not fit the model."""
    # the statistics of an unfitted whitening are empty, so any shape fits them
    shapes = {
        name: tuple((tensor if tensor.numel() else given.get(name, tensor)).shape) for name, tensor in state.items()
    }
    if wrong := mismatches(given, shapes, fresh):
        raise ValueError(
            f"the weights of {source} do not fit: {in_short(wrong)}. "
            "Only classes and input channels may differ, and the image size for networks with global pooling"
        )
