"""What happens inside a model, as images: the whitened image, feature maps, and what a prediction depends on."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor
from torchvision.utils import make_grid

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.data.pictures import pixels
from cvcc_zoo.models import Timm
from cvcc_zoo.plots import stretch
from cvcc_zoo.registry import needed

Picture = npt.NDArray[np.uint8]
SIDE = 256  # minimum side of a picture in pixels
MAPS = 16  # maximum number of maps shown for each stage
WINDOW, STRIDE = 6, 2  # pixels: the side of the hidden square, and the distance that it moves


def heatmap(model: ImageClassifier, image: Tensor, label: int) -> tuple[str, Tensor]:
    """Return the name of the method, and how much each pixel speaks for a class: float (H, W) in [0, 1].

    `image` is uint8 (1, C, H, W). Grad-CAM (https://arxiv.org/abs/1610.02391) weights the maps of the last part by the
    gradient of the class's score; occlusion hides a square and measures how much the score falls.
    """
    x = image.float() / 255
    maps = isinstance(model.network, Network) and bool(model.network.parts) and model.features(x)[-1].ndim == 4
    if maps:
        found = grad_cam(model, x, label)
    else:
        size = (image.shape[1], WINDOW, WINDOW)
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        occlusion = needed("captum.attr", "the demo", "demo").Occlusion(model)
        found = occlusion.attribute(
            x, target=label, sliding_window_shapes=size, strides=(image.shape[1], STRIDE, STRIDE), baselines=mean
        ).clamp(min=0)
    strength = found.detach()[0].mean(0)
    most = strength.max()
    return "Grad-CAM" if maps else "occlusion", strength / most if most > 0 else torch.zeros_like(strength)


def grad_cam(model: ImageClassifier, x: Tensor, label: int) -> Tensor:
    """Return the sum of the last part's maps, weighted by their mean gradients, and 0 where it is negative.

    From an image (1, C, H, W) to (1, 1, H, W).
    """
    maps = model.forward_features(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward_head(maps)[0, label], maps)
    found = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    return F.interpolate(found, x.shape[-2:], mode="bilinear")


def picture(image: Any) -> Picture:
    """Return an array (H, W, 1 or 3) in [0, 1] as a picture, enlarged by an integer factor."""
    factor = max(1, SIDE // image.shape[0])
    large = np.repeat(np.repeat(np.clip(image, 0, 1), factor, 0), factor, 1)
    return (np.broadcast_to(large, (*large.shape[:2], 3)) * 255).round().astype(np.uint8)


def whitened(model: ImageClassifier, image: Tensor) -> Picture | None:
    """Return the whitened image uint8 (1, C, H, W), stretched to [0, 1]; None if whitening changes its shape."""
    with torch.no_grad():
        x = model.whitening(image)
    return picture(stretch(pixels(x))[0]) if x.shape == image.shape else None


def overlay(image: Tensor, heat: Tensor) -> Picture:
    """Return an image uint8 (1, C, H, W) in grey under a heat map (H, W) in [0, 1]."""
    grey = np.broadcast_to(pixels(image)[0].mean(-1, keepdims=True), (*heat.shape, 3))
    colours = colormaps["inferno"](heat.numpy())[..., :3]
    share = 0.25 + 0.5 * heat.numpy()[..., None]
    return picture((1 - share) * grey + share * colours)


def stages(model: ImageClassifier, image: Tensor) -> list[tuple[Picture, str]]:
    """Return the first maps of each part of the network, each stretched separately, with number and size.

    There are none for a network of a user, which does not define its parts.
    """
    of_timm = isinstance(model, Timm) and hasattr(model.network, "forward_intermediates")
    if not (of_timm or isinstance(model.network, Network)):
        return []
    with torch.no_grad():
        found = model.features(image)
    return [
        (maps(each[0]), f"stage {number}: {each.shape[1]} maps of {each.shape[2]}x{each.shape[3]}")
        for number, each in enumerate(found, start=1)
        if each.ndim == 4
    ]


def maps(x: Tensor) -> Picture:
    """Return the first 16 maps (C, H, W) as one picture, in rows of four."""
    factor = max(1, SIDE // (4 * x.shape[-1]))
    large = x[:MAPS, None].float().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    sheet = make_grid(large, nrow=4, padding=4, normalize=True, scale_each=True, pad_value=1.0)
    return picture(sheet.permute(1, 2, 0).numpy())
