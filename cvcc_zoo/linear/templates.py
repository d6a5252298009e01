"""Templates of a linear classifier: for each class, the image that it looks for.

Whitening and features such as PCA are also linear. So the score of class k is s_k = <T_k, p> + c_k for raw pixels p in
[0, 1], and the template T_k is its gradient: W / std after standardisation, W M after whitening with a matrix M. A
network that is not linear has a different gradient at every image, and so no templates.
"""

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import evaluating

PAIRS = 32  # of images, to test whether a model is linear
BEND = 1e-3  # share of the spread of the scores; linear models reach 1e-6, all others in the package more than 0.2


def templates(model: ImageClassifier) -> Tensor:
    """Return the templates (num_classes, C, H, W), in score per unit of a pixel in [0, 1].

    The score of an image, not divided by the model's temperature, is `(template * image).sum()` plus the score of a
    black image. Raises ValueError for a model that is not linear in the pixels, or whose whitening is not fitted.
    """
    shape = (model.num_classes, model.in_channels, model.image_size, model.image_size)
    with evaluating(model), torch.enable_grad():
        _check_linear(model)
        black = torch.zeros(shape, device=model.device, requires_grad=True)  # one for each class
        (gradient,) = torch.autograd.grad(model.uncalibrated(model(black)).diagonal().sum(), black)
    return gradient


@torch.no_grad()
def _check_linear(model: ImageClassifier) -> None:
    """Raise ValueError unless the scores of the mean of two images are the mean of their scores.

    Images of random black and white pixels differ most.
    """
    shape = (2, PAIRS, model.in_channels, model.image_size, model.image_size)
    one, other = torch.randint(2, shape, generator=torch.Generator().manual_seed(0)).float().to(model.device)
    first, second, between = model(one), model(other), model((one + other) / 2)
    spread = float((first - second).abs().max())
    if not torch.allclose(between, (first + second) / 2, rtol=1e-5, atol=BEND * spread):
        raise ValueError(
            f"this {type(model).__name__} is not linear in the pixels, so it has no templates; use a linear model "
            "without features, or with only PCA and Standardize, and a whitening without contrast normalisation"
        )
