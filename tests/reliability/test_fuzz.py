"""Any combination of options trains two steps with a finite loss, or is refused by a message of ours."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lightning import Trainer

import cvcc_zoo
from cvcc_zoo.__main__ import meant_for_users
from cvcc_zoo.data.augment.build import AUGMENTATIONS, PRESETS
from cvcc_zoo.data.whitening import METHODS
from cvcc_zoo.losses import LOSSES
from cvcc_zoo.models.initialisation import INITS
from cvcc_zoo.models.layers import ACTIVATIONS, NORMS
from cvcc_zoo.optim.build import OPTIMIZERS
from cvcc_zoo.optim.schedules import LR_SCHEDULERS
from cvcc_zoo.registry import FAMILIES
from tests.conftest import write_images

SEVERAL = ("Compose", "Probability")  # they hold others
ODD: tuple[Any, ...] = (0, 1, -1, 0.5, 1e-3, 1e30, -0.1, 7, math.nan, math.inf, "", "none", [], None)
SETTINGS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    derandomize=True,
    database=None,
)


def often(*good: Any) -> st.SearchStrategy[Any]:
    """One of these values, and now and then an odd one."""
    return st.sampled_from([*good * (24 // len(good)), *ODD[:: len(ODD) // 2]]) | st.sampled_from(good)


def named(names: Iterable[str], **options: Sequence[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A name with some options; the odd one does not have them."""
    some = st.fixed_dictionaries({}, optional={key: often(*values) for key, values in options.items()})
    bare = st.builds(lambda name: {"name": name}, st.sampled_from(sorted(names)))
    return bare | bare | st.builds(lambda name, more: {"name": name, **more}, st.sampled_from(sorted(names)), some)


PARTS = st.fixed_dictionaries(
    {}, optional={"norm": often(*NORMS), "init": often(*INITS), "activation": often(*ACTIVATIONS)}
)
FEATURES = named(["HOG", "Patches"], cell=[2, 4], orientations=[4, 9], filters=[4, 8], size=[3], pool=[1, 2])
OF_NUMBERS = named(["PCA", "Standardize"], components=[3, 0.9], whiten=[True, False])
LINEAR = st.fixed_dictionaries(
    {}, optional={"features": often(None) | st.lists(FEATURES | OF_NUMBERS, max_size=3),
                  "ridge": often(None, 0, 10.0, "leave_one_out", {"name": "validation", "grid": [1, 10]})},
)  # fmt: skip


def network(name: str, **options: Sequence[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """A family or a model with these options, and with a norm, an initialisation and an activation."""
    shape = st.fixed_dictionaries({key: often(*values) for key, values in options.items()})
    return st.builds(lambda shape, parts: (name, {**shape, **parts}), shape, PARTS)


MODELS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.builds(lambda options: ("Linear", options), LINEAR),
    network("FCNN", hidden=[[], [3], [16, 8], [0], [-4]], dropout=[0, 0.2, 0.9]),
    network("cnn_small", dropout=[0, 0.3], pool=["max", "mean"]),
    network("ResNet", depth=[8], shortcut=["A", "B", "none"]),
    network("ResNeXt", depth=[11], cardinality=[4], base_width=[4]),
    network("WideResNet", depth=[10], width=[1]),
)
OPTIMIZER = named(
    OPTIMIZERS, lr=[1e-3, 0.1], weight_decay=[0, 1e-4], momentum=[0, 0.9], betas=[(0.9, 0.99)], eps=[1e-8],
    decay_norms_and_biases=[True, False], layer_decay=[1, 0.5], nesterov=[True, False],
)  # fmt: skip
SCHEDULE = named(
    LR_SCHEDULERS, warmup=[0.1, 0.5], gamma=[0.1], step_size=[1], peak=[0.2], interval=["step", "epoch"],
    monitor=["train/loss", "val/loss"], milestones=[[1]], T_max=[2],
)  # fmt: skip
AUGMENTATION = named(
    [name for name in AUGMENTATIONS if name not in SEVERAL],
    padding=[1, 4], size=[2, 8], probability=[0.5, 1], alpha=[0.2, 1], magnitude=[9], kernel_size=[3],
)  # fmt: skip
OPTIONS = st.fixed_dictionaries(
    {
        "model": MODELS,
        "optimizer": OPTIMIZER,
        "lr_scheduler": st.none() | SCHEDULE,
        "loss": named(LOSSES, label_smoothing=[0.1], margin=[1, 2], power=[1, 2], l2=[0, 1e-3]),
        "whitening": named(METHODS, eps=[1e-3, 0.1], scope=["all", "channel_values"], components=[3, 0.9]),
        "augmentations": st.sampled_from(sorted(PRESETS)) | st.lists(AUGMENTATION, max_size=3),
        "dataset": st.sampled_from(["fashion-mini", "colours", "grey"]),
        "image_size": often(None, None, 8, 9, 16),
        "in_channels": often(None, None, 1, 3),
        "batch_size": often(2, 5, 16, 64),
        "validation": often(0, 0.1, 0.5),
        "progressive_resizing": often(None, None, None, None, None, None, {8: 0.5}, {4: 0.5}),
        "progressive_cropping": often(None, None, None, None, None, None, {9: 0.5}, {8: 0.5}),
        "freeze": often(0, 0, 0, 0, 0, 0, 1, 2),
        "patch_whitening": often(None, None, None, None, None, None, 5e-4, 0.1),
        "accumulate_grad_batches": st.sampled_from([1, 2]),
    }
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Small image folders, and a folder of their own for what is cached."""
    made = {"colours": "RGB", "grey": "L"}
    root = tmp_path_factory.mktemp("images")
    for name, mode in made.items():
        for seed, colour in enumerate(("blue", "red", "green")):
            write_images(root / name / "train" / colour, 8, seed=seed, mode=mode)
            write_images(root / name / "test" / colour, 2, seed=seed + 10, mode=mode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVCC_ZOO_DATA", str(tmp_path_factory.mktemp("data-home")))
        yield {name: root / name for name in made}


def train(options: dict[str, Any], folders: dict[str, Path]) -> float:
    """Train two steps as `cvcc-zoo fit` does; the loss of the second."""
    options = dict(options)
    dataset, (name, shape) = options["dataset"], options["model"]
    data = cvcc_zoo.ImageDataModule(
        "fashion-mini" if dataset == "fashion-mini" else "folder",
        root=None if dataset == "fashion-mini" else str(folders[dataset]),
        **{key: options[key] for key in ("batch_size", "validation", "whitening", "augmentations", "image_size")},
        **{key: options[key] for key in ("in_channels", "progressive_resizing", "progressive_cropping")},
    )
    model_options = {key: options[key] for key in ("optimizer", "lr_scheduler", "loss", "freeze", "patch_whitening")}
    sizes = {"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size}
    whole = {**shape, **model_options, **sizes, "whitening": data.whitening}
    model = FAMILIES[name](**whole) if name in FAMILIES else cvcc_zoo.create(name, **whole)
    trainer = Trainer(
        max_epochs=2, limit_train_batches=2, limit_val_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", use_distributed_sampler=False,
        accumulate_grad_batches=options["accumulate_grad_batches"], log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, data)
    return float(trainer.callback_metrics["train/loss"])


def check(options: dict[str, Any], folders: dict[str, Path]) -> bool:
    """Whether it trained; raises what is neither a finite loss nor a message of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few images and the like
        try:
            loss = train(options, folders)
        except (ValueError, OSError, ArithmeticError) as error:
            message = meant_for_users(error)
            if message is None:
                raise
            assert message and "\n" not in message.strip()
            return False
    assert math.isfinite(loss)
    return True


def test_some_combinations_train_or_are_refused(folders: dict[str, Path]) -> None:
    trained: list[bool] = []

    @settings(SETTINGS, max_examples=20)
    @given(OPTIONS)
    def try_one(options: dict[str, Any]) -> None:
        trained.append(check(options, folders))

    try_one()
    assert True in trained and False in trained


@pytest.mark.slow
def test_many_combinations_train_or_are_refused(folders: dict[str, Path]) -> None:
    trained: list[bool] = []

    @settings(SETTINGS, max_examples=int(os.environ.get("FUZZ", "600")), derandomize=False)
    @given(OPTIONS)
    def try_one(options: dict[str, Any]) -> None:
        trained.append(check(options, folders))

    try_one()
    assert sum(trained) > len(trained) / 20
