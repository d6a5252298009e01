"""Intervals of accuracies: how far the accuracy on other images of the same kind may be from the measured one."""

import math

Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution: https://oeis.org/A220510


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, two fractions in [0, 1], from the number of images.

    It is the score interval of Wilson 1927, https://doi.org/10.2307/2276774, which unlike the normal approximation
    stays within [0, 1], and has a width for an accuracy of 100 %. It knows of the choice of test images only, not of
    the seed of the training. Raises ValueError unless 0 <= correct <= images and there are images.
    """
    if not 0 <= correct <= images or images < 1:
        raise ValueError(f"an interval needs images, of which 0 or more are correct; got {correct} of {images}")
    share, spread = correct / images, Z * Z / images
    centre = share + spread / 2
    margin = Z * math.sqrt((share * (1 - share) + spread / 4) / images)
    low, high = ((centre + sign * margin) / (1 + spread) for sign in (-1, 1))
    return (0.0 if correct == 0 else low), (1.0 if correct == images else high)  # exact, whatever the rounding


def with_interval(correct: int, images: int) -> str:
    """Return an accuracy in percent with its 95 % interval, such as `93.41 % (92.91 to 93.88)`."""
    low, high = wilson(correct, images)
    return f"{100 * correct / images:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
