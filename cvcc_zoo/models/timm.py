"""Timm: any network of timm, https://github.com/huggingface/pytorch-image-models, as a model.

Its name here is that of timm after "timm.": `create("timm.mobilenetv3_small_100")`, `--model=timm.resnet18`. timm is
imported only when such a model is asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_logits
from cvcc_zoo.classifier.wrapped import split_options
from cvcc_zoo.models.stems import STEMS, make_small, patches_of
from cvcc_zoo.models.timm_weights import Normalisation, normalisation_of, pretrained_options, weights_file
from cvcc_zoo.registry import as_typed, check_known, unknown

PREFIX = "timm."
OWN = ("stem", "pretrained")
REFUSED = (
    "num_classes", "in_chans", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable",
    "exportable", "no_jit", "features_only", "out_indices",
)  # fmt: skip
"""Options of timm.create_model that the model sets, or that would read files or return no classifier."""


class Timm(ImageClassifier):
    """A network of timm, with the whitening inside and any optimizer and schedule."""

    network_of_others = True

    def __init__(
        self,
        network: str,
        stem: str = "standard",
        pretrained: bool | str = False,
        network_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier, and others are added to `network_options`.

        Raises ValueError for impossible values, and FileNotFoundError for missing weights.

        Args:
            network: Name in timm: resnet18, or resnet18.a1_in1k for the weights of this name.
            stem: standard, or small for images of 32 to 96 pixels: a first convolution of 3x3 pixels and stride 1,
                without pooling after it; for vision transformers patches of an eighth of the image.
            pretrained: The path of a file or folder of timm's weights, or true for those in the caches of this machine;
                nothing is downloaded. The whitening becomes the mean and the standard deviation of these weights: those
                of the config.json beside the file or of the options of timm's train.py in it, or else of timm.
            network_options: Options of timm.create_model, such as drop_rate or drop_path_rate.

        """
        name = timm_name(network)
        weights = None if pretrained in (False, None) else weights_file(name, pretrained)
        network, pretrained = name, False  # a checkpoint has its own weights
        options, network_options = split_options(
            f"{PREFIX}{name}", options, network_options, of_family=OWN, any_name=True
        )
        super().__init__(**options)
        check_known("stem", STEMS, stem)
        sizes = {"num_classes": self.num_classes, "in_channels": self.in_channels, "image_size": self.image_size}
        made = built(name, stem, network_options, weights, **sizes)
        advice = "" if stem == "small" else ", or stem=small (--model.stem=small) if the network has one"
        check_logits(made, PREFIX + name, **sizes, advice=advice)
        config = vars(made)["default_cfg"]
        self.channels_last = not config.get("fixed_input_size")  # transformers gain nothing
        if weights is not None:
            self._use(normalisation_of(config, self.in_channels), chosen=options.get("whitening"))
        self.network = made

    @classmethod
    def model_name(cls, hparams: Mapping[str, Any]) -> str:
        """Return the name of the model, without that of pretrained weights: timm.resnet18."""
        return PREFIX + str(hparams.get("network")).partition(".")[0]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps of the stages, as timm's `forward_intermediates` does. Raises ValueError if it is missing."""
        network: Any = self.network
        if not hasattr(network, "forward_intermediates"):
            raise ValueError(f"{self.model_name(self.hparams)} does not give maps; use model.forward_features(images)")
        maps: list[Tensor] = network.forward_intermediates(self._whiten(images), intermediates_only=True)
        return maps

    def _use(self, normalisation: Normalisation, chosen: Any) -> None:
        """Set the statistics of the whitening. Raises ValueError if the user chose another whitening."""
        if chosen not in (None, "standardize"):
            raise ValueError(f"these weights expect whitening=standardize, not {chosen!r}; leave the whitening out")
        self.whitening.load_state_dict(normalisation)


def timm_name(name: Any) -> str:
    """Return the name of a network in timm as it is typed, with the tag of its weights if it has one.

    Raises ValueError, with the nearest names, if timm has no such network or no such weights.
    """
    import timm  # takes a second

    architecture, dot, tag = str(name).partition(".")
    known = timm.list_models()
    if (found := as_typed(architecture, known)) is None:
        raise unknown("model of timm", architecture if isinstance(name, str) else name, known)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(found)]
    if dot and tag not in tags:
        raise unknown(f"weights of timm.{found}", tag, tags)
    return found + dot + tag


def built(
    name: str,
    stem: str,
    options: Mapping[str, Any],
    weights: Path | None,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
) -> nn.Module:
    """Build a network of timm, with the weights of a file if there is one.

    Their classifier is replaced by a fresh one if they have other classes. Raises ValueError for options or a stem that
    the network does not allow, and for the weights of another network.
    """
    import timm  # takes a second

    for key in options:
        if key in REFUSED:
            raise ValueError(f"{key} is not an option of {PREFIX}{name} here; leave it out of network_options")
    config = timm.get_pretrained_cfg(name)
    whole = {"num_classes": num_classes, "in_chans": in_channels, **options}
    if config is not None and config.fixed_input_size:
        whole.setdefault("img_size", image_size)
        if stem == "small" and "patch_size" not in options:
            whole["patch_size"] = patches_of(name, image_size)
    given = {} if weights is None else pretrained_options(name, weights)
    try:
        network: nn.Module = timm.create_model(name, **{**whole, **given})
    except Exception as error:  # timm's networks raise errors of all kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        if weights is not None and not isinstance(error, TypeError):
            raise ValueError(f"{weights} has not the weights of {PREFIX}{name}: {reason[:300]}") from error
        if isinstance(error, TypeError) and "patch_size" in whole.keys() - options.keys():
            raise ValueError(
                f"stem=small is not defined for {PREFIX}{name}, whose patches are fixed; leave it out"
            ) from error
        raise ValueError(
            f"timm cannot build {name} with {dict(options)} for images of {image_size} pixels: {reason}; change the "
            "options or the image size"
        ) from error
    vars(network)["default_cfg"].pop("state_dict", None)
    news = []
    if weights is not None and (resets := given["num_classes"] != num_classes):
        cast(Any, network).reset_classifier(num_classes)
    if stem == "small" and "patch_size" not in whole and make_small(network, name):
        news.append("first convolution")
    if weights is not None:
        news += ["classifier"] if resets else []
        rank_zero_info(f"Starts from the weights {weights}" + (f", with a new {' and '.join(news)}" if news else ""))
    return network


def own_size(name: str) -> dict[str, int]:
    """Return the classes, channels and pixels for which timm's weights of a network are made, by name of the option."""
    import timm  # takes a second

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return {}
    channels, size, _ = config.input_size
    return {"num_classes": config.num_classes, "in_channels": channels, "image_size": size}
