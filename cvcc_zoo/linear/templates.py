"""Templates: what a linear classifier looks for, an image for each class.

The whitening is linear too, and so are features like PCA. So the score of class k is s_k = <T_k, p> + c_k for raw
pixels p in [0, 1], and the template T_k is its gradient: W / std after standardisation, W M after a whitening with
matrix M. A network that is not linear has another gradient at every image, and no template.
"""

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier

PAIRS = 32  # of images, to see whether a model is linear
BEND = 1e-3  # share of the spread of the scores; linear models have 1e-6, all others of the package more than 0.2


def templates(model: ImageClassifier) -> Tensor:
    """The templates (num_classes, C, H, W): score per unit of a pixel in [0, 1]; the model goes to evaluation mode.

    `(template * image).sum()` and the score of a black image make the score of an image. Raises ValueError for a model
    that is not linear in the pixels, and before its whitening is fitted.
    """
    model.eval()
    _check_linear(model)
    shape = (model.num_classes, model.in_channels, model.image_size, model.image_size)
    with torch.enable_grad():
        black = torch.zeros(shape, device=model.device, requires_grad=True)  # one for each class
        (found,) = torch.autograd.grad(model(black).diagonal().sum(), black)
    return found


@torch.no_grad()
def _check_linear(model: ImageClassifier) -> None:
    """Half-way between two images lies half-way between their scores; random black and white pixels differ most."""
    shape = (2, PAIRS, model.in_channels, model.image_size, model.image_size)
    one, other = torch.randint(2, shape, generator=torch.Generator().manual_seed(0)).float().to(model.device)
    first, second, between = model(one), model(other), model((one + other) / 2)
    spread = float((first - second).abs().max())
    if not torch.allclose(between, (first + second) / 2, rtol=1e-5, atol=BEND * spread):
        raise ValueError(
            f"this {type(model).__name__} is not linear in the pixels, so what it looks for depends on the image; "
            "templates are of a linear model without features, or with PCA and Standardize alone, and a whitening "
            "without contrast normalisation"
        )
