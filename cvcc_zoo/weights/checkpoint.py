"""Read the model in a checkpoint of this package: only plain data and tensors, no code that could run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from torch import nn

from cvcc_zoo.data.classes import LONGEST_CLASS
from cvcc_zoo.data.identity import TRAINED_ON, is_identity, seen_in
from cvcc_zoo.data.images import Split
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.files.own import expanded
from cvcc_zoo.files.plain import load_plain, read_yaml
from cvcc_zoo.losses import check_class_weights
from cvcc_zoo.registry import FAMILIES
from cvcc_zoo.weights.card import check_calibration
from cvcc_zoo.weights.fits import Weights, check_fits, check_hparams

OLD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The first bytes of what torch wrote before 1.6, as in the weights of many collections: its magic number, pickled."""
FOREIGN = (
    "weights of pytorch-cifar and similar collections are read by cvcc_zoo.integrations.peers.load, which also finds "
    "the shortcut of a ResNet (A or B), those of timm by create('timm.NAME', pretrained=...), and a state_dict of a "
    "model of this package by model.load_state_dict"
)


@dataclass(frozen=True)
class Checkpoint(Weights):
    """The weights in a checkpoint, and what it says about the training run that wrote it."""

    config: str | None = None  # of the run, in YAML
    dataset: str = ""  # the training data, in words; empty if unknown
    ended: bool = False  # whether training was completed
    has_best: bool = False  # whether it is a best.ckpt, or one was written before it
    metrics: Any = None  # a fingerprint of the metrics that were logged before it; None if unknown
    images: dict[Split, dict[str, Any]] = field(default_factory=dict)  # identities of TRAINED_ON, if it has them

    @property
    def settings(self) -> dict[str, Any]:
        """The config as plain data; empty if there is none. Raises ValueError for one that no run has written."""
        settings = read_yaml(self.config, f"the config in {self.path}") if self.config else None
        return settings if isinstance(settings, dict) else {}


def read_checkpoint(checkpoint: str | Path, network: Any = None) -> Checkpoint:
    """Read a checkpoint file, or the best.ckpt or else last.ckpt of a run folder. Raises as `load` does.

    `network` replaces the network that a checkpoint of a wrapped network names, or cannot name.

    Checks that the tensors fit the family with its hyperparameters, by name and shape. An import path in the
    hyperparameters, such as that of an optimizer, is not followed.
    """
    path = expanded(checkpoint)
    if path.is_dir():
        found = [path / name for name in ("best.ckpt", "last.ckpt") if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"the folder {path} has no best.ckpt or last.ckpt; is it a run folder? A folder of timm's weights is "
                f"read by create('timm.NAME', pretrained={str(path)!r})"
            )
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; runs write runs/<model>-<dataset>/best.ckpt")
    with path.open("rb") as file:
        older = file.read(len(OLD)) == OLD and not is_zipfile(file)
    content: Any = None if older else load_plain(path)
    about = content.get("cvcc_zoo") if isinstance(content, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("family"), str):
        raise ValueError(f"{path} is not a checkpoint of this package: it does not name a model family; {FOREIGN}")
    for part in ("hyper_parameters", "state_dict"):
        if not isinstance(content.get(part), dict):
            raise ValueError(f"{path} is not a complete checkpoint: it has no {part}; get it again")
    family, hparams = about["family"], dict(content["hyper_parameters"])
    check_hparams(path, family, hparams)
    if network is not None:
        if not takes_network(family):
            raise ValueError(f"{path} has its own network, a {family}; leave network={network!r} out")
        hparams["network"] = network
        if isinstance(network, nn.Module):
            hparams["network_options"] = None  # they were those of the class that it replaces
    blank, state = check_fits(path, family, hparams, content["state_dict"], _if_replaced(path, family))
    callbacks = content.get("callbacks")
    run = callbacks.get("RunFolder") if isinstance(callbacks, dict) else None
    run = run if isinstance(run, dict) else {}
    best = _has_best(callbacks) if isinstance(callbacks, dict) else False
    classes, data = about.get("classes"), about.get("data")
    if classes is not None:
        check_names(path, classes, content["hyper_parameters"])
    data = data if isinstance(data, dict) else {}
    title = data.get("title")
    calibration = {key: about[key] for key in ("temperature", "fitted_on") if key in about}
    check_calibration(calibration, f"{path} is not a complete checkpoint: its calibration")
    check_class_weights(about.get("class_weights"), None)
    return Checkpoint(
        path,
        family,
        hparams,
        state,
        tuple(classes) if classes is not None else None,
        blank,
        config=run.get("config"),
        dataset=title if isinstance(title, str) else "",
        ended=bool(run.get("ended")),
        has_best=best,
        metrics=run.get("metrics"),
        shaping=shaping_of(about.get("shaping")),
        seen_images=seen_in(about),
        images={split: data[split] for split in TRAINED_ON if is_identity(data.get(split))},
        calibration=calibration,
        class_weights=about.get("class_weights"),
    )


def takes_network(family: str) -> bool:
    """Return whether a family is a model around a network that the user gives."""
    return hasattr(FAMILIES[family], "of_user")


def _if_replaced(path: Path, family: str) -> str:
    """Return what to do about a network of which a part, such as the classifier, was replaced after it was built."""
    if takes_network(family):
        way = f"give it as it was trained: cvcc_zoo.load({str(path)!r}, network=...)"
    else:
        way = (
            "replace it in a model with the same options too, and give that the weights: "
            f"model.load_state_dict(torch.load({str(path)!r}, weights_only=True)['state_dict'])"
        )
    return f"Get it again; or if a part of its network was replaced, {way}"


def _has_best(callbacks: dict[Any, Any]) -> bool:
    """Return True if the state of BestCheckpoint, whose key contains its options, names a file."""
    states = [state for key, state in callbacks.items() if str(key).startswith("BestCheckpoint")]
    return any(isinstance(state, dict) and bool(state.get("best_model_path")) for state in states)


def check_names(path: Path, classes: Any, hparams: dict[str, Any]) -> None:
    """Raise ValueError unless `classes` is a list with a name for each class of the model."""
    names = isinstance(classes, list) and all(isinstance(name, str) and len(name) <= LONGEST_CLASS for name in classes)
    if not names or len(classes) != hparams.get("num_classes"):
        raise ValueError(f"{path} does not name the {hparams.get('num_classes')} classes of its model; get it again")
