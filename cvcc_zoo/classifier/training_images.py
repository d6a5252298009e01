"""What a checkpoint says about the images that its model was trained on, and whether today's images are the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.prediction import Predicting
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.identity import SEEN, TRAINED_ON, identity_of, is_identity, pixels_of, repeated, seen_in
from cvcc_zoo.data.images import Split
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.data.sources import place_of

RESTORING: dict[Split, tuple[str, str]] = {
    "train": ("training images", "restore them"),
    "val": (
        "validation images",
        "restore what chooses them (the names of folders and files, validation and split_seed)",
    ),
}
"""What the images are called, and what to do if they are not those of the checkpoint."""
DIVIDED_ANEW = "divided_anew"
"""The name of `Predicting.divided_anew` in a checkpoint, in what it says about the validation images, and a summary."""


def training_data(model: Predicting, data: ImageDataModule | None) -> dict[str, Any]:
    """Return, in plain data and a tensor, what a checkpoint saves about the images of training and calibration."""
    about: dict[str, Any] = {"classes": model.classes and list(model.classes), "shaping": {**model.shaping}}
    if model.temperature != 1:
        about["temperature"] = model.temperature
    if data is not None:
        identities = {split: identity_of(data, split).plain() for split in TRAINED_ON}
        identities["val"] |= {DIVIDED_ANEW: True} if model.divided_anew else {}
        about["data"] = {"title": data.dataset.title, **identities}
    if model.seen_images.size:
        about[SEEN] = torch.from_numpy(model.seen_images.view(np.int64))
    return about


def see_images(model: Predicting, data: ImageDataModule | None) -> None:
    """Add the images of a training to those that the model has seen, unless they are public.

    Those of a user's own may be divided anew.
    """
    if data is not None and not data.dataset.public:
        model.seen_images = pixels_of(data, model.seen_images)


def take_training_data(model: Predicting, about: Mapping[str, Any]) -> None:
    """Restore in a model what `training_data` saved about it."""
    model.classes = tuple(about["classes"]) if about.get("classes") else None
    model.temperature = about.get("temperature", 1.0)
    model.shaping = shaping_of(about.get("shaping", model.shaping))
    model.seen_images = seen_in(about)
    model.divided_anew = bool(_held_out(about).get(DIVIDED_ANEW))


def _held_out(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a checkpoint says about the images that its training held out; empty if it does not."""
    data = about.get("data")
    said = data.get("val") if isinstance(data, Mapping) else None
    return said if is_identity(said) else {}


def holds_out_others(about: Mapping[str, Any], data: ImageDataModule) -> bool:
    """Return whether the data hold out other images than the training of a checkpoint did."""
    before = _held_out(about)
    return bool(before) and before["sha256"] != identity_of(data, "val").sha256


def check_training_data(
    model: Predicting, about: Mapping[str, Any], data: ImageDataModule, *, goes_on: bool, allowed: bool
) -> None:
    """Raise ValueError if a checkpoint's model knows other classes than the images have.

    If training is resumed (`goes_on`), the training images must be the same too, and those that are held out for
    validation, unless others are `allowed`; then it says so if some of those held out may have been trained on.
    """
    check_classes(model, data)
    if not goes_on or "data" not in about:
        return
    if allowed:
        trained_on = np.concatenate([model.seen_images, identity_of(data, "train").pixels])
        if holds_out_others(about, data) and repeated(identity_of(data, "val"), trained_on):
            model.divided_anew = True
            rank_zero_info(
                f"Some validation images of {data.dataset.title} may have been training images before, and then "
                "val/accuracy is too high"
            )
        return
    record = about["data"] if isinstance(about["data"], Mapping) else {}
    for split in TRAINED_ON:
        (images, advice), before = RESTORING[split], record.get(split)
        if not is_identity(before):
            raise ValueError(f"the checkpoint's record of its {images} is incomplete; get the checkpoint again")
        now = identity_of(data, split).plain()
        if before["sha256"] != now["sha256"]:
            raise ValueError(
                f"the {images} are not those of the checkpoint: {before['images']:,} images then, with the sha256 "
                f"{before['sha256'][:12]}, and {now['images']:,} now, with {now['sha256'][:12]}; {advice}, or "
                "continue with these: --allow_changes=true (in Python model.allow_other_images = True)"
            )


def tell_of_known_validation(
    model: Predicting, weights: str, images: Mapping[Split, Any], shape: Mapping[str, Any], data: ImageDataModule
) -> None:
    """Say so, and remember it, if a training holds out images on which its first weights were trained or chosen.

    `images` are the identities of the images of these weights, by which public ones are known, and `shape` is how they
    became pixels. In another shape, images are not recognised, and it says so if they may be the same.
    """
    held_out, title, seen = identity_of(data, "val"), data.dataset.title, model.seen_images
    train, val = (before if is_identity(before := images.get(split)) else {} for split in TRAINED_ON)
    if not held_out.pixels.size or (val.get("sha256") == held_out.sha256 and not val.get(DIVIDED_ANEW)):
        return  # nothing is held out, or the same images were before
    now = identity_of(data, "train")
    perhaps = not data.dataset.public if seen.size else train.get("images") == len(now.pixels)
    if train.get("sha256") == now.sha256:
        seen = np.concatenate([seen, now.pixels])
    if count := repeated(held_out, seen):
        model.divided_anew = True
        rank_zero_info(
            f"{count:,} of {len(held_out.pixels):,} validation images of {title} were training or validation images of "
            f"{weights}, so val/accuracy is too high"
        )
    elif perhaps and (others := _other_shape(shape, data)):
        rank_zero_info(
            f"Whether images of {title} were images of {weights} is not known, because these had {others}; if "
            "validation or test images were, their accuracy is too high"
        )


def _other_shape(shape: Mapping[str, Any], data: ImageDataModule) -> str:
    """Return in what the shape of earlier images differs from that of the data, such as "image_size=32, not 64"."""
    now = {"image_size": data.image_size, "in_channels": data.in_channels, **shaping_of(data.options)}
    return ", ".join(f"{name}={shape[name]}, not {value}" for name, value in now.items() if shape[name] != value)


def check_trained_on(name: object, images: Mapping[Split, Mapping[str, Any]], data: ImageDataModule) -> None:
    """Raise ValueError if the training images are known not to be those that `name` was trained on."""
    if "train" in images and identity_of(data, "train").sha256 != images["train"]["sha256"]:
        raise ValueError(
            f"{data.dataset.title} does not have the images that {name} was trained on; restore them, or give their "
            "folder: --data.root=..."
        )


def check_held_out(name: object, images: Mapping[Split, Mapping[str, Any]], data: ImageDataModule, advice: str) -> None:
    """Raise ValueError, with advice, if the training `name` held out images, and the data hold out others.

    Also raise it if it held out others before, because it may have been trained on those of today. If it is not known
    what it held out, the training images must be the same.
    """
    if images.get("val", {}).get(DIVIDED_ANEW):
        raise ValueError(
            f"{name} may have been trained on some of its validation images: they were others before it was resumed, "
            "or the weights that it started from knew some of them. A temperature that is fitted to training images "
            "makes a model too confident; train anew, without these weights or with the images held out that they held "
            "out"
        )
    if "val" in images and identity_of(data, "val").sha256 == images["val"]["sha256"]:
        return
    check_trained_on(name, images, data)
    if "val" in images:
        raise ValueError(
            f"{data.dataset.title} holds out other images than the training of {name} did, which was on some of these; "
            f"restore the names of its folders and files, {advice}"
        )


def other_images(
    name: str,
    model: Predicting,
    data: ImageDataModule,
    trained_on: Any,
    images: Mapping[Split, Mapping[str, Any]],
    split: Split = "test",
) -> str:
    """Return a warning if the images in the place of those of a run are known not to be those of the run.

    `trained_on` are the options of the run's ImageDataModule, and `images` the identities of its images; each is empty
    if unknown. If the validation images are evaluated (`split` "val"), they must be those that the run held out, and if
    the test images are, none of them may be among those that the model has seen, in any place; where these are unknown,
    the training images must be the same. Raises ValueError as `check_classes` does.
    """
    here = isinstance(trained_on, Mapping) and bool(trained_on) and place_of(trained_on) == place_of(data.options)
    compared = split if split == "val" and split in images else "train"
    record = images.get(compared, {})
    counted = split == "test" and model.seen_images.size > 0
    by_place = here and bool(record) and (data.dataset.public or not counted)
    if not (counted or by_place):
        return ""
    check_classes(model, data)  # the labels in the model's order, because the identity depends on them
    if counted and (count := repeated(test := identity_of(data, "test"), model.seen_images)):
        return (
            f"{count:,} of {len(test.pixels):,} test images of {data.dataset.title} were training or validation images "
            f"of {name}, so the accuracy is too high"
        )
    if by_place and split == "val" and record.get(DIVIDED_ANEW):
        return (
            f"{name} may have been trained on some of its validation images (they were others before it was resumed, "
            "or the weights that it started from knew some of them); then the accuracy is too high"
        )
    if not by_place or identity_of(data, compared).sha256 == record["sha256"]:
        return ""
    if compared == "val":
        return (
            f"{name} held out other images for validation than {data.dataset.title} does now, so some of these may be "
            "training images, and the accuracy is too high then"
        )
    return (
        f"{name} was trained on other images than {data.dataset.title} has now; if its test images are held out of the "
        "same folder, some of them were training images, and the accuracy is too high"
    )
