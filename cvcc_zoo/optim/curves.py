"""Learning-rate schedules in closed form: the factor on the optimizer's rate at `t` of `total` steps (or epochs).

`t` counts from 0 to total - 1. A rate depends on `t` alone, not on the rate before it: a resumed training run has
exactly the same rates, and rounding errors do not add up.

`Step`           alpha^floor(t / every): the course's step decay
`MultiStep`      alpha^(milestones reached): the step decay of He et al. 2015 (arXiv 1512.03385, section 4.2)
`QuarterCosine`  cos(pi t / (2 total)): the course's cosine decay, which starts flat and ends steepest
`Cosine`         (1 + cos(pi t / total)) / 2, its square: flat at both ends (Loshchilov & Hutter 2016, arXiv 1608.03983)
`Linear`         a triangle: up to 1 at the share `peak` of training, then down to 0
`OneCycle`       torch's OneCycleLR: from 1/25 up by half a cosine, then down to 4e-6 (Smith & Topin, arXiv 1708.07120)
`WSD`            constant, then linear to 0 in the last share `decay` (warm-up, stable, decay; arXiv 2404.06395)

A warm-up comes before a schedule: the schedule and its shares are those of the steps after it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Callable[..., float]


def step(t: float, total: float, *, every: float, alpha: float = 0.1) -> float:
    """Multiply the rate by `alpha` every so many epochs (or steps)."""
    return float(alpha ** (t // every))


def multi_step(t: float, total: float, *, milestones: Sequence[float], alpha: float = 0.1) -> float:
    """Multiply the rate by `alpha` at each milestone: a share of training below 1, otherwise an epoch (or step)."""
    return float(alpha ** sum(t >= (round(each * total) if each < 1 else each) for each in milestones))


def quarter_cosine(t: float, total: float) -> float:
    """Return the first quarter of a cosine; the last of `total` values, sin(pi / (2 total)), is small but not zero."""
    return math.cos(math.pi / 2 * t / total)


def cosine(t: float, total: float) -> float:
    """Return half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * t / total)) / 2


def linear(t: float, total: float, *, peak: float = 0.0) -> float:
    """Return a straight line up to 1 at the share `peak` of training, then one down to 0."""
    done = t / total
    if done < peak:
        return done / peak
    return (1 - done) / (1 - peak)


def one_cycle(t: float, total: float, *, peak: float = 0.3) -> float:
    """Return half a cosine from 1/25 up to 1 at the share `peak`, then another down to 4e-6 at the last step."""
    start, end = 0.04, 4e-6  # torch's defaults: 1 / div_factor, and that divided by final_div_factor
    top = peak * total - 1
    if t <= top and top > 0:
        return 1 + (start - 1) * (1 + math.cos(math.pi * t / top)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (t - top) / (total - 1 - top))) / 2


def wsd(t: float, total: float, *, decay: float = 0.2) -> float:
    """Return 1 until the last share `decay` of training, then a straight line down to 0."""
    return min(1.0, (1 - t / total) / decay)


CURVES: dict[str, Curve] = {
    "Step": step,
    "MultiStep": multi_step,
    "QuarterCosine": quarter_cosine,
    "Cosine": cosine,
    "Linear": linear,
    "OneCycle": one_cycle,
    "WSD": wsd,
}
SHARES = ("peak", "decay")
"""Options that are a share of training (after a warm-up), in [0, 1)."""


def check_warmup(name: str, warmup: float, options: Mapping[str, Any]) -> None:
    """Raise ValueError for a warm-up before a schedule that rises."""
    if warmup and (name == "OneCycle" or options.get("peak", 0) > 0):
        raise ValueError("it rises to its peak by itself, and would fall again after a warm-up; leave warmup out")


def make_factor(name: str, total: int, warmup: float = 0.0, **options: Any) -> Callable[[int], float]:
    """Return a function of the step `t`: a linear warm-up, then the curve over the rest of training.

    `warmup` is a share of training if it is below 1, otherwise a number of steps (or epochs). At step t of W warm-up
    steps the factor is (t + 1) / (W + 1), so that no step is wasted at a rate of zero. After the end the factor stays
    that of the last step. Raises ValueError for options out of range, and for a warm-up before a schedule that rises.
    """
    check_warmup(name, warmup, options)
    if warmup < 0 or warmup >= total > 0:
        raise ValueError(f"a warm-up of {warmup} does not fit into a training run of {total}; give a share below 1")
    for option in SHARES:
        if option in options and not 0 <= options[option] < 1:
            raise ValueError(f"{option} must be a share of training in [0, 1), got {options[option]}")
    if name == "WSD" and options.get("decay") == 0:
        raise ValueError("the decay of WSD must be above 0")
    if name == "Step" and not options["every"] > 0:
        raise ValueError(f"Step needs every above 0 (epochs or steps), got {options['every']}")
    if not all(each > 0 for each in options.get("milestones", ())):
        raise ValueError(f"milestones must be above 0 (shares, epochs or steps), got {options['milestones']}")
    before = min(round(warmup * total), max(total - 1, 0)) if warmup < 1 else int(warmup)
    rest = max(total - before, 1)
    return partial(_factor, CURVES[name], before, rest, options)  # a local function could not be pickled


def _factor(curve: Curve, before: int, rest: int, options: Mapping[str, Any], t: int) -> float:
    """Return the factor at step `t`, with a warm-up of `before` steps and a curve over the `rest`."""
    if t < before:
        return (t + 1) / (before + 1)
    return curve(min(t - before, rest - 1), rest, **options)


def plot_schedules(schedules: Mapping[str, Mapping[str, Any]], total: int = 1000) -> "Figure":
    """Draw the factors of schedules, given as `{title: {"name": ..., option: value}}`, over `total` training steps."""
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for title, spec in schedules.items():
        options = {key: value for key, value in spec.items() if key != "name"}
        factor = make_factor(spec["name"], total, **options)
        axes.plot([t / total for t in range(total)], [factor(t) for t in range(total)], label=title)
    axes.set(xlabel="share of training", ylabel="factor on the learning rate", xlim=(0, 1), ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure
