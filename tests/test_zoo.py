from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from safetensors.torch import save_file

import cvcc_zoo
from cvcc_zoo import ImageDataModule, ResNet, create, list_models, load
from cvcc_zoo.classifier import ImageClassifier


def test_create_returns_a_lightning_module_of_the_family() -> None:
    model = create("resnet20", num_classes=7, in_channels=1)
    assert isinstance(model, ResNet) and model.hparams["depth"] == 20
    assert (model.num_classes, model.in_channels) == (7, 1)


def test_resnext29_is_an_alias() -> None:
    assert create("resnext29").hparams == create("resnext29_32x4d").hparams


def test_models_are_listed_by_pattern_in_order_of_size() -> None:
    assert list_models("resnet?*")[:3] == ["resnet20", "resnet32", "resnet44"]
    assert {"linear", "fcnn", "cnn", "resnext29", "wrn28_10"} <= set(list_models())
    assert list_models("nothing*") == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet21", {}, "no model named 'resnet21'; did you mean .*resnet20"),
        ("resnext_28", {}, "did you mean resnext29"),
        ("resnet20", {"classes": 5}, "no option of resnet20 named 'classes'; did you mean num_classes"),
        ("resnet20", {"depth": 32}, r"the name resnet20 fixes the option depth; .*cvcc_zoo.ResNet\("),
    ],
)
def test_wrong_names_and_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def trained(path: Path, optimizer: Any, **options: Any) -> ImageClassifier:
    """A small model after a few steps on the carried images."""
    data = ImageDataModule(batch_size=64, image_size=8)
    model = create("linear", num_classes=10, in_channels=1, image_size=8, optimizer=optimizer, **options)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=5, limit_val_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.save_checkpoint(path, weights_only=False)
    return model


@pytest.mark.parametrize(
    "optimizer",
    ["Adam", {"name": "SGD", "lr": 0.1}, torch.optim.AdamW, partial(torch.optim.SGD, lr=0.1, momentum=0.9)],
)
def test_training_in_python_takes_any_form_of_optimizer_and_its_checkpoint_is_plain_data(
    optimizer: object, tmp_path: Path
) -> None:
    model = trained(tmp_path / "a.ckpt", optimizer, lr_scheduler="OneCycleLR")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert isinstance(content["hyper_parameters"]["optimizer"], dict)
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(load(tmp_path / "a.ckpt")(images), model.eval()(images))


def test_a_trained_model_carries_the_whitening_of_its_training_images(tmp_path: Path) -> None:
    trained(tmp_path / "a.ckpt", "SGD")
    data = ImageDataModule(image_size=8)
    assert torch.equal(load(tmp_path / "a.ckpt").whitening.mean, data.fit_whitening().mean)


def test_a_model_that_was_loaded_trains_on_and_keeps_its_whitening(tmp_path: Path) -> None:
    trained(tmp_path / "a.ckpt", "SGD")
    model = load(tmp_path / "a.ckpt")
    model.whitening.mean.fill_(0.123)
    trainer = Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    before = model.network.get_parameter("fc.weight").clone()
    trainer.fit(model, ImageDataModule(image_size=8))
    assert model.training and model.whitening.mean.item() == pytest.approx(0.123)
    assert not torch.equal(before, model.network.get_parameter("fc.weight"))


def test_load_takes_a_run_folder(tmp_path: Path) -> None:
    trained(tmp_path / "last.ckpt", "SGD")
    assert load(tmp_path).hparams["image_size"] == 8


def test_loading_something_else_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none.ckpt"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError, match="is it a run folder"):
        load(tmp_path)
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text.ckpt cannot be read as a checkpoint"):
        load(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign.ckpt is not a checkpoint of this package"):
        load(tmp_path / "foreign.ckpt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "pickle.ckpt")
    with pytest.raises(ValueError, match=r"pickle.ckpt cannot be read as a checkpoint of plain data"):
        load(tmp_path / "pickle.ckpt")


def test_weights_of_others_are_refused_with_what_reads_them(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.ones(1)}
    torch.save({"net": state}, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    advice = r"peers\.load.* create\('timm\.NAME', pretrained=\.\.\."
    for name in ("new.pth", "old.th", "safe.safetensors"):
        with pytest.raises((FileNotFoundError, ValueError), match=advice):
            load(tmp_path / name)


def test_an_unknown_family_or_incomplete_weights_are_refused(tmp_path: Path) -> None:
    content = {"cvcc_zoo": {"family": "ResNat"}, "hyper_parameters": {}, "state_dict": {}}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"no model family named 'ResNat'; did you mean ResNet.*in Python: `import"):
        load(tmp_path / "a.ckpt")
    torch.save(content | {"cvcc_zoo": {"family": "Linear"}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="is not a complete Linear"):
        load(tmp_path / "a.ckpt")


def test_a_checkpoint_cannot_make_us_import_its_optimizer(tmp_path: Path) -> None:
    trained(tmp_path / "a.ckpt", "SGD")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    content["hyper_parameters"]["optimizer"] = {"name": "evil.Optimizer"}
    torch.save(content, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt").hparams["optimizer"]["name"] == "evil.Optimizer"


def test_the_public_names_are_there() -> None:
    for name in cvcc_zoo.__all__:
        assert getattr(cvcc_zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        cvcc_zoo.resnet  # noqa: B018


# Wrong images and labels


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of shape \(N, 3, H, W\), got \(2, 1, 32, 32\)"):
        create("resnet20", whitening="none")(torch.zeros(2, 1, 32, 32))


def test_a_linear_model_refuses_images_of_another_size() -> None:
    with pytest.raises(ValueError, match="built for images that give 3072 features, but these give 768"):
        create("linear", whitening="none")(torch.zeros(2, 3, 16, 16))


def fit(model: ImageClassifier, data: ImageDataModule) -> None:
    trainer = Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 5}, "the model has num_classes=5, but the images of fashion-mini have num_classes=10"),
        ({"in_channels": 3}, "in_channels=1; convert the images with --data.in_channels=3"),
        ({"image_size": 32}, "image_size=28; convert the images with --data.image_size=32"),
    ],
)
def test_data_of_another_kind_are_refused_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(create("linear", **{"in_channels": 1, "image_size": 28, **options}), ImageDataModule())


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label: int) -> None:
    model = create("linear", num_classes=3, in_channels=1, image_size=8, whitening="none")
    with pytest.raises(ValueError, match=r"labels must be in 0 .. 2 for 3 classes"):
        model.test_step((torch.zeros(2, 1, 8, 8), torch.tensor([0, label])), 0)


def test_a_loss_that_is_not_finite_stops_the_training_and_says_where() -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+ \(epoch 0, lr 1e\+30\)"):
        model = create("cnn_small", in_channels=1, image_size=28, optimizer={"name": "SGD", "lr": 1e30})
        fit(model, ImageDataModule())


def test_a_plateau_schedule_without_validation_images_is_refused() -> None:
    model = create("linear", in_channels=1, image_size=28, lr_scheduler="ReduceLROnPlateau")
    with pytest.raises(ValueError, match="watches val/loss, but there are no validation images"):
        fit(model, ImageDataModule(validation=0))


def test_a_schedule_needs_an_end() -> None:
    trainer = Trainer(max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model = create("linear", in_channels=1, image_size=28, lr_scheduler="OneCycleLR")
    with pytest.raises(ValueError, match=r"set --trainer\.max_epochs"):
        trainer.fit(model, ImageDataModule())
