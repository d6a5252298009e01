"""Heat maps of what a prediction depends on: Grad-CAM for networks with feature maps, otherwise occlusion (captum)."""

from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network

WINDOW, STRIDE = 6, 2  # pixels: the side of the hidden square, and the distance that it moves


def captum() -> Any:
    """Import captum's methods. Raises ValueError, which says what to install, if it is missing."""
    try:
        import captum.attr
    except ImportError as error:
        raise ValueError("the demo needs `pip install 'cvcc_zoo[demo]'`") from error
    return captum.attr


def heatmap(model: ImageClassifier, image: Tensor, label: int) -> tuple[str, Tensor]:
    """Return the name of the method, and how much each pixel speaks for a class: float (H, W) in [0, 1].

    `image` is uint8 (1, C, H, W). Grad-CAM (https://arxiv.org/abs/1610.02391) weights the maps of the last part by the
    gradient of the class's score; occlusion hides a square and measures how much the score falls.
    """
    network = model.network
    x = image.float() / 255
    maps = isinstance(network, Network) and bool(network.parts) and model.features(x)[-1].ndim == 4
    if maps:
        assert isinstance(network, Network)
        layer = network.get_submodule(network.parts[-1][-1])
        found = captum().LayerGradCam(model, layer).attribute(x, target=label, relu_attributions=True)
        found = captum().LayerAttribution.interpolate(found, tuple(image.shape[-2:]), "bilinear")
    else:
        size = (image.shape[1], WINDOW, WINDOW)
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        found = (
            captum()
            .Occlusion(model)
            .attribute(
                x, target=label, sliding_window_shapes=size, strides=(image.shape[1], STRIDE, STRIDE), baselines=mean
            )
        )
        found = found.clamp(min=0)
    strength = found.detach()[0].mean(0)
    most = strength.max()
    return "Grad-CAM" if maps else "occlusion", strength / most if most > 0 else torch.zeros_like(strength)
