"""Weights that were trained for other classes, channels or sizes: what must be new is new, all else fits exactly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model
from cvcc_zoo.data.patches import first_convolution

ADAPTABLE = ("num_classes", "in_channels", "image_size")
"""Hyper-parameters in which a model may differ from the weights that it takes."""


def transfer(
    model: ImageClassifier,
    tensors: Mapping[str, Tensor],
    family: str | None,
    hparams: Mapping[str, Any],
    source: str,
    *,
    new_head: bool = False,
) -> None:
    """Put the tensors of a model with these family and hyper-parameters into another one.

    The classifier `fc` keeps its fresh weights if the number of classes differs, or with `new_head`. With other input
    channels the first convolution is adapted, and the whitening takes its statistics when the training starts. The
    model keeps its type of numbers. Raises ValueError, and says what differs, for anything else that does not fit; then
    the model is as it was.
    """
    check_model(model, family, hparams, but=ADAPTABLE)
    given, state = dict(tensors), model.state_dict()
    fresh: set[str] = set()
    if new_head or model.num_classes != hparams["num_classes"]:
        fresh |= {name for name in state if name.startswith("network.fc.")}
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
            f"the weights of {source} whiten images of {hparams['image_size']} pixels as a whole, not of "
            f"{model.image_size}; resize the images (--data.image_size={hparams['image_size']})"
        )
    _check(given, state, fresh, source)
    taken = {name: state[name] if name in fresh else given[name] for name in state}
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in taken.items()})


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """A convolution's weight (out, C, kh, kw) for images of other channels (out, in_channels, kh, kw).

    One channel gets the sum, so that a grey image gives what it gave in C equal channels; more channels get the
    weight in turn, scaled by C / in_channels. timm does the same.
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
    wrong = [f"{name} is missing" for name in state if name not in given and name not in fresh]
    wrong += [f"{name} has no place" for name in given if name not in state]
    wrong += [
        f"{name} is {tuple(given[name].shape)} in the weights and {tuple(state[name].shape)} in the model"
        for name in state
        if name in given and name not in fresh and given[name].shape != state[name].shape
        if state[name].numel()  # the statistics of a whitening have no size before they are known
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(
            f"the weights of {source} do not fit: {'; '.join(wrong[:4])}{more}. "
            "Classes and input channels may differ, and the image size of networks with global pooling"
        )
