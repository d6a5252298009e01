"""Intervals of accuracies: how far the accuracy on other images of the same kind may be from the measured one."""

from scipy.stats import binomtest


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, two fractions in [0, 1], from the number of images.

    It is the score interval of Wilson 1927, https://doi.org/10.2307/2276774, which unlike the normal approximation
    stays within [0, 1], and has a width for an accuracy of 100 %. It knows of the choice of test images only, not of
    the seed of the training. Raises ValueError unless 0 <= correct <= images and there are images.
    """
    if not 0 <= correct <= images or images < 1:
        raise ValueError(f"an interval needs images, of which 0 or more are correct; got {correct} of {images}")
    found = binomtest(correct, images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def with_interval(correct: int, images: int) -> str:
    """Return an accuracy in percent with its 95 % interval, such as `93.41 % (92.91 to 93.88)`."""
    low, high = wilson(correct, images)
    return f"{100 * correct / images:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
