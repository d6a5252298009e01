"""What people bring from elsewhere: numbers of NumPy, their own data sets, images of other shapes."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from cvcc_zoo import ImageDataModule, Linear, create, list_models, load
from cvcc_zoo.__main__ import main, refuse_empty
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_strategy
from cvcc_zoo.files.own import write_whole
from cvcc_zoo.kinds import check_kinds
from cvcc_zoo.registry import ENTRIES, family_options, register

QUIET: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def fit(model: ImageClassifier, *data: Any) -> Trainer:
    trainer = Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, enable_checkpointing=False, **QUIET)
    trainer.fit(model, *data)
    return trainer


KEPT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"num_classes": np.int64(10), "image_size": np.uint8(8)}, {"num_classes": 10, "image_size": 8}),
    ({"optimizer": {"name": "SGD", "lr": torch.tensor(0.5)}}, {"optimizer": {"name": "SGD", "lr": 0.5}}),
    (
        {"optimizer": {"name": "Adam", "betas": (np.float64(0.5), 0.75)}},
        {"optimizer": {"name": "Adam", "betas": (0.5, 0.75)}},
    ),
    ({"loss": {"name": "hinge", "l2": np.float32(0.5)}}, {"loss": {"name": "hinge", "l2": 0.5}}),
    (
        {"whitening": {"name": "pca", "components": np.int64(5), "eps": torch.tensor(0.5)}},
        {"whitening": {"name": "pca", "components": 5, "eps": 0.5}},
    ),
    (
        {"features": [{"name": "HOG", "cell": np.int64(2)}], "whitening": "none"},
        {"features": [{"name": "HOG", "cell": 2}]},
    ),
]


@pytest.mark.parametrize(("options", "kept"), KEPT, ids=["sizes", "tensor", "pair", "loss", "whitening", "features"])
def test_numbers_of_numpy_and_torch_are_kept_as_numbers_that_a_checkpoint_can_hold(
    options: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    model = create("linear", **{"in_channels": 1, "image_size": 8, **options})
    fit(model, ImageDataModule("fashion-mini", image_size=8)).save_checkpoint(tmp_path / "a.ckpt")
    found = load(tmp_path / "a.ckpt").hparams
    assert {name: found[name] for name in kept} == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": "10"}, "num_classes must be a whole number, got '10'"),
        ({"in_channels": 3.0}, "in_channels must be a whole number, got 3.0"),
        ({"freeze": True}, "freeze must be a whole number, got True"),
        ({"optimizer": {"name": "SGD", "lr": torch.ones(3)}}, "not plain data: they have an object of type Tensor"),
        ({"lr_scheduler": {"name": "LambdaLR", "lr_lambda": len}}, "they have an object of type builtin_function"),
    ],
)
def test_what_no_checkpoint_can_hold_is_told_before_the_training(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        create("linear", **options)


@pytest.mark.parametrize("size", [64.0, "64", None])
def test_a_batch_is_of_a_whole_number_of_images(size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size must be a whole number, got"):
        ImageDataModule("fashion-mini", batch_size=size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": (32, 32)}, "image_size must be a whole number, got (32, 32)"),
        ({"image_size": "32"}, "image_size must be a whole number, got '32'"),
        ({"in_channels": True}, "in_channels must be a whole number, got True"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"split_seed": 0.5}, "split_seed must be a whole number, got 0.5"),
        ({"max_pixels": None}, "max_pixels must be a whole number, got None"),
        ({"validation": None}, "validation must be a share of the images in [0, 1), got None"),
        ({"augmentations": None}, "augmentations are none, light, standard, strong, or a list of"),
        ({"background": (0, 0, 0)}, "background is a colour such as white or '#808080', not (0, 0, 0)"),
        ({"whitening": 1}, "whitening is a name or {name: ..., option: value}, not 1"),
        ({"whitening": False}, "whitening is a name or {name: ..., option: value}, not False"),
        ({"whitening": {"name": "zca", "eps": "0.1"}}, "whitening: eps must be a number, got '0.1'"),
        ({"whitening": {"name": "zca", "eps": float("inf")}}, "must be at least 0, got inf"),
        ({"root": 3.5}, "root is the path of a folder, got 3.5"),
        ({"test": "0.2"}, "test must be a number, got '0.2'"),
        ({"follow_links": "false"}, "follow_links must be True or False, got 'false'"),
        ({"classes": 3.5}, "classes must be a list of names in the order of their labels, got 3.5"),
        ({"classes": {"cat"}}, "classes must be a list of names in the order of their labels, got {'cat'}"),
        ({"progressive_resizing": {"a": 0.5}}, "sizes must be 8 to 27 pixels, below the 28 of the images; got a"),
        ({"progressive_resizing": {16: "x"}}, "shares of the epochs must be in (0, 1); got x for 16 pixels"),
        ({"augmentations": {"name": "Cutout", "size": 2.5}}, "Cutout: size must be a whole number, got 2.5"),
        ({"augmentations": {"name": "ColorJitter", "contrast": float("inf")}}, "must be at least 0, got inf"),
        ({"augmentations": {"name": "MixUp", "alpha": float("inf")}}, "must be above 0, got inf"),
    ],
)
def test_options_of_the_data_of_another_type_are_told_in_words(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ImageDataModule("fashion-mini", **options)


@pytest.mark.parametrize("names", [[b"cat", b"dog"], np.array([b"cat", b"dog"]), ("cat", "dog")])
def test_names_of_classes_may_be_bytes(names: Any) -> None:
    pixels, labels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8), np.array([0, 1, 0, 1])
    assert ImageDataModule(train=(pixels, labels), classes=names).classes == ("cat", "dog")


NUMBERS = (int, float, bool, int | None, float | None, Sequence[int])
OF_MODELS = [
    (family, name)
    for family in sorted({entry.family for entry in ENTRIES.values()}, key=lambda each: each.__name__)
    for name, parameter in family_options(family).items()
    if parameter.annotation in NUMBERS
]


@pytest.mark.parametrize(("family", "name"), OF_MODELS, ids=[f"{f.__name__}-{name}" for f, name in OF_MODELS])
def test_no_option_of_a_model_that_is_a_number_may_be_something_else(family: type, name: str) -> None:
    default = family_options(family)[name].default
    values: list[Any] = ["x", ["x"], {}, (1 + 2j), int, torch.ones(2), None if default is not None else True]
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be (a|True or) .*, got {re.escape(repr(value))}"):
            family(**{name: value})


def test_kinds_that_are_not_numbers_are_left_to_those_who_use_them() -> None:
    def function(a: Annotated[int, []], b: str, c: "int", d: Optional[int] = None, e: int = None) -> None:  # type: ignore[assignment]  # noqa: UP045, RUF013
        pass

    parameters = inspect.signature(function).parameters
    check_kinds(parameters, {"a": "x", "b": 1, "c": "x", "d": np.int64(3), "e": None})
    with pytest.raises(ValueError, match=r"^mine: d must be a whole number, got 'x'"):
        check_kinds(parameters, {"d": "x"}, "mine: ")


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("linear", {"whitening": ""}, "no whitening named ''"),
        ("linear", {"features": 0}, "features is a list of names, like [HOG, PCA], not 0"),
        ("fcnn", {"norm": ["batch"]}, "a norm has a name, not ['batch']"),
        ("fcnn", {"activation": {}}, "a activation has a name, not {}"),
        ("cnn_fast", {"patch_whitening": float("inf")}, "must be at least 0, got inf"),
    ],
)
def test_options_of_models_of_another_kind_are_told_in_words(model: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        create(model, **options)


@pytest.mark.filterwarnings("ignore:Attribute 'loss' is an instance")
def test_a_loss_is_given_as_its_class_or_function_and_not_as_an_object() -> None:
    said = "loss must be a name, a dict with a name, a class, a function or a functools.partial, not CrossEntropyLoss"
    with pytest.raises(ValueError, match=said):
        create("linear", loss=torch.nn.CrossEntropyLoss())
    for loss in (torch.nn.CrossEntropyLoss, torch.nn.functional.cross_entropy):
        scores, labels = torch.randn(4, 10), torch.arange(4)
        assert torch.equal(
            create("linear", loss=loss).loss(scores, labels), torch.nn.functional.cross_entropy(scores, labels)
        )


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 8, 8), "a single image is a batch of one: images[None]"),
        (torch.zeros(2, 8, 8, 3), "channels come before height and width: images.permute(0, 3, 1, 2)"),
        (torch.zeros(8, 8, 3), "images.permute(2, 0, 1)[None]"),
        (torch.zeros(2, 1, 8, 8), "convert the images to 3 channels"),
        (np.zeros((2, 3, 8, 8), np.uint8), "takes a tensor of images (N, 3, H, W), not ndarray"),
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2)), "a batch is a pair: images, labels = batch; "),
        (Image.new("RGB", (8, 8)), "not Image; torchvision.transforms.v2.functional.pil_to_tensor(image)[None]"),
    ],
)
def test_what_is_no_batch_of_images_is_answered_with_the_way_to_one(images: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        create("linear", whitening="none", image_size=8)(images)


class Own(Dataset[Any]):
    """A data set of one's own: the same images, with labels in some form."""

    def __init__(self, labels: Sequence[Any] | Tensor, names: tuple[str, ...] = ()) -> None:
        self.labels, self.names = labels, names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        pair = torch.full((1, 8, 8), index, dtype=torch.uint8), self.labels[index]
        return dict(zip(self.names, pair, strict=True)) if self.names else pair


def own(*given: Any) -> ImageClassifier:
    model = create("linear", in_channels=1, image_size=8, whitening="none")
    fit(model, DataLoader(Own(*given), batch_size=10))
    return model


OWN_LOADER = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")


class OwnSteps(Linear):
    """A model with steps of its own, which count no images."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/mine", self.training_step(batch, batch_idx))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test/mine", self.training_step(batch, batch_idx))


def test_steps_of_ones_own_log_nothing_but_their_own_numbers() -> None:
    model = OwnSteps(in_channels=1, image_size=8)
    data = ImageDataModule("fashion-mini", image_size=8)
    short: Any = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, **QUIET}
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **short)
    trainer.fit(model, data)
    assert set(trainer.callback_metrics) == {"val/mine"}
    assert set(trainer.test(model, data, verbose=False)[0]) == {"test/mine"}


def test_an_optimizer_that_evaluates_a_batch_several_times_counts_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = {"name": "LBFGS", "lr": 0.5, "max_iter": 5}
    model = create("linear", in_channels=1, image_size=8, optimizer=solver)
    counted, evaluated, count, loss = list[int](), list[int](), model.metrics.count, model.training_loss

    def counting(stage: str, losses: Tensor, *others: Any) -> None:
        counted.append(len(losses))
        count(stage, losses, *others)

    def evaluating(batch: Any) -> Tensor:
        evaluated.append(len(batch[0]))
        return loss(batch)

    monkeypatch.setattr(model.metrics, "count", counting)
    monkeypatch.setattr(model, "training_loss", evaluating)
    fit(model, ImageDataModule("fashion-mini", image_size=8, batch_size=16))
    assert counted == [16, 16] and len(evaluated) > 4


class Stream(IterableDataset[Any]):
    """Four images, of which nobody knows the number."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(1, 8, 8, dtype=torch.uint8), label) for label in range(4)])


class Streamed(ImageDataModule):
    """A DataModule with training images of one's own."""

    def train_dataloader(self) -> Any:
        """Return a loader without a length."""
        return DataLoader(Stream(), batch_size=2)


def test_a_stream_of_images_can_be_saved(tmp_path: Path) -> None:
    model = create("linear", in_channels=1, image_size=8)
    trainer = Trainer(max_epochs=2, limit_val_batches=0, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, Streamed("fashion-mini", image_size=8))
    saved = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=True)
    assert saved["Streamed"]["batches"] == 0 and saved["global_step"] == 4


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_would_lose_what_a_model_learns_are_refused(strategy: str) -> None:
    trainer = Trainer(devices=2, strategy=strategy, **QUIET)
    with pytest.raises(ValueError, match=r"return nothing but weights.*use strategy='ddp' in a script, or one device"):
        check_strategy(trainer)
    check_strategy(Trainer(devices=2, strategy="ddp", **QUIET))


@OWN_LOADER
def test_labels_of_any_whole_numbers_are_labels() -> None:
    weights = []
    for kind in (torch.int64, torch.int32, torch.uint8, torch.int16):
        torch.manual_seed(0)
        weights.append(own(torch.arange(20).remainder(10).to(kind)).network.get_parameter("fc.weight"))
    assert all(torch.equal(each, weights[0]) for each in weights)


@OWN_LOADER
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((torch.zeros(20, 1, dtype=torch.int64),), "labels must have the shape (N,), got (10, 1); give labels[:, 0]"),
        ((torch.eye(20, 10, dtype=torch.int64),), "got (10, 10); give labels.argmax(1) if they are one-hot"),
        ((torch.zeros(20, dtype=torch.int64), ("image", "label")), "not one with image, label"),
        ((torch.zeros(20),), "got (10,); if they are numbers of classes, give labels.long()"),
        ((torch.zeros(20, 1),), "got (10, 1); if they are numbers of classes, give labels[:, 0].long()"),
        ((["cat"] * 20,), "the labels of a batch must be a tensor, not a tuple; let the data set return the number"),
    ],
)
def test_batches_that_are_no_images_and_labels_are_answered_in_words(given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        own(*given)


@OWN_LOADER
@pytest.mark.parametrize("count", [5, 20])
def test_a_classifier_for_another_number_of_classes_is_answered_with_how_to_replace_it(count: int) -> None:
    model = create("linear", in_channels=1, image_size=8, whitening="none")
    model.network.fc = torch.nn.Linear(64, count)
    loader: Any = DataLoader(Own(torch.arange(20).remainder(10)), batch_size=10)
    words = rf"has 10 classes, but its network returns \(10, {count}\), not .*: model.reset_classifier\({count}\)"
    with pytest.raises(ValueError, match=words):
        fit(model, loader)


@OWN_LOADER
def test_several_loaders_at_once_are_answered_in_words() -> None:
    loader: Any = DataLoader(Own(torch.zeros(20, dtype=torch.int64)), batch_size=10)
    with pytest.raises(ValueError, match=r"the images of a batch must be a tensor, not a list; .* give one loader"):
        fit(create("linear", in_channels=1, image_size=8, whitening="none"), [loader, loader])


@OWN_LOADER
def test_a_test_with_soft_labels_counts_each_image_once() -> None:
    model, labels = create("linear", in_channels=1, image_size=8, whitening="none"), torch.arange(20).remainder(10)
    found = []
    for given in (labels, 0.9 * torch.eye(10)[labels] + 0.01):
        Trainer(**QUIET).test(model, DataLoader(Own(given), batch_size=10), verbose=False)
        found.append(model.test_confusion)
    assert torch.equal(found[0], found[1]) and found[0].sum() == 20


@OWN_LOADER
def test_images_alone_are_predicted_and_never_taken_for_labels() -> None:
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    model = create("linear", in_channels=1, image_size=8, whitening="none").eval()
    expected = model(images).softmax(1)
    for alone in (images, TensorDataset(images)):
        loader: Any = DataLoader(alone, batch_size=2)  # type: ignore[arg-type]
        found = Trainer(**QUIET).predict(model, loader)
        assert found is not None and torch.allclose(torch.cat([*found]), expected)
    named: Any = DataLoader([{"pixels": image} for image in images])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a batch must be a pair \(images, labels\), not one with pixels"):
        Trainer(**QUIET).predict(model, named)
    with pytest.raises(ValueError, match=r"a batch must be a pair \(images, labels\), not one of images alone"):
        Trainer(**QUIET).test(model, DataLoader(images, batch_size=2), verbose=False)  # type: ignore[arg-type]


def test_a_data_module_is_set_up_for_a_training_unless_it_is_told_otherwise() -> None:
    data = ImageDataModule("fashion-mini", image_size=8)
    data.prepare_data()
    data.setup()
    assert len(data.train_dataloader()) == 42 and len(data.val_dataloader()) == 5
    with pytest.raises(ValueError, match=r"call data.prepare_data\(\) and data.setup\('test'\) first"):
        data.test_dataloader()


@pytest.mark.parametrize("limit", [3, 0.25])
def test_a_part_of_the_images_that_are_tested_is_of_all_classes(limit: float, colours: Path) -> None:
    """A folder begins with all images of its first class; predictions are in its order nevertheless."""
    data = ImageDataModule(root=str(colours), batch_size=1, validation=0.5)
    model = create("linear", num_classes=2, image_size=8, whitening="none")
    trainer = Trainer(limit_val_batches=limit, limit_test_batches=limit, limit_predict_batches=limit, **QUIET)
    for run in (trainer.validate, trainer.test):
        run(model, data, verbose=False)
        loader: Any = trainer.val_dataloaders or trainer.test_dataloaders
        labels = [int(labels) for _, (_, labels) in zip(range(3), loader, strict=False)]
        assert set(labels) == {0, 1}
        assert labels == [int(labels) for _, (_, labels) in zip(range(3), loader, strict=False)]
    trainer.predict(model, data)
    loader = trainer.predict_dataloaders
    assert [int(labels) for _, labels in loader] == [0] * 6 + [1] * 6


@pytest.mark.parametrize("name", [None, 5, "x/y.json", "../x", "runs/x"])
def test_what_is_no_name_of_a_model_is_told_in_one_line(name: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(name))) as told:
        create(name)
    assert "\n" not in str(told.value)


def test_help_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == overview


def test_a_file_that_cannot_be_written_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"sheet\.png") as told:
        write_whole(tmp_path / "file" / "sheet.png", b"")
    assert "unfinished" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "--data.root="], "--data.root has no value; give it one, or"),
        (["fit", "--run", "", "--model=linear"], "--run has no value"),
        (["split", "", "there"], "an argument is empty"),
        (["cross-validate", "--folder=", "--model=linear"], "--folder has no value"),
    ],
)
def test_an_empty_variable_of_the_shell_is_no_current_folder(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2 and said in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_a_name_of_a_logger_may_be_empty() -> None:
    refuse_empty(["--trainer.logger=CSVLogger", "--trainer.logger.name=", "--trainer.logger.version", ""])


def test_the_home_of_an_unknown_user_is_a_folder_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError, match="the image folder ~nobody_at_all/images does not exist in"):
        ImageDataModule(root="~nobody_at_all/images")


def test_an_empty_root_is_refused_in_python_as_well() -> None:
    for option in ("dataset", "root"):
        with pytest.raises(ValueError, match=f"{option} is an empty text"):
            ImageDataModule(**dict[str, Any]({option: ""})).setup("fit")


def test_options_in_braces_are_answered_with_the_way_to_write_them() -> None:
    with pytest.raises(ValueError, match=r"write --model=ResNet --model.depth=..., or create\('ResNet', depth=...\)"):
        create("ResNet{depth: 20}")


def test_a_loss_that_replaces_ours_is_answered_with_where_it_belongs() -> None:
    model = create("linear", in_channels=1, image_size=28)
    setattr(model, "loss", torch.nn.CrossEntropyLoss())  # noqa: B010  # of another type
    with pytest.raises(ValueError, match=r"`loss` of Linear is a CrossEntropyLoss; .* in the method `training_loss`"):
        Trainer(max_epochs=1, **QUIET).fit(model, ImageDataModule("fashion-mini"))


def test_a_model_is_registered_with_the_count_of_its_parameters() -> None:
    missing: Any = None
    with pytest.raises(ValueError, match="parameters is its exact count for 10 classes and 3x32x32 images, not None"):
        register("uncounted", Linear, "a model of unknown size", parameters=missing)
    assert "uncounted" not in list_models()
