"""Hugging Face `datasets`: their objects, parquet files and image folders, without a network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo import ImageDataModule
from cvcc_zoo.data.classes import DIGITS

datasets = pytest.importorskip("datasets")
NAMES = ["猫", "dog", "hen"]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def table(labels: Any = None, **columns: Any) -> Any:
    labels = [number % 3 for number in range(24)] if labels is None else labels
    made = datasets.Dataset.from_dict({"image": [Image.fromarray(each) for each in PIXELS], "label": labels, **columns})
    return made if isinstance(labels[0], str) else made.cast_column("label", datasets.ClassLabel(names=NAMES))


def check(data: ImageDataModule) -> None:
    data.prepare_data()
    images, labels, _ = data.training_images()
    assert torch.equal(images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert labels.tolist() == [number % 3 for number in range(24)]


def test_a_dataset_is_trained_on_with_its_class_names_and_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageDataModule(train=table(), test=table(), validation=0)
    check(data)
    assert data.classes == tuple(NAMES) and data.dataset.splits == ("train", "test")
    assert data.dataset.mirror
    monkeypatch.setattr("cvcc_zoo.data.forms.given._read", None)  # would fail if it was called
    check(ImageDataModule(train=table(), validation=0))


def test_the_digits_of_a_dataset_are_not_mirrored() -> None:
    labels = datasets.ClassLabel(names=list(DIGITS))
    made = table().cast_column("label", datasets.Value("int64"))
    assert not ImageDataModule(train=made.cast_column("label", labels)).dataset.mirror


def test_files_beside_a_dataset_are_decoded_anew_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"{number}.png" for number in range(24)]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels[::-1]).save(path)
    made = datasets.Dataset.from_dict({"image": paths, "label": [number % 3 for number in range(24)]})
    made = made.cast_column("image", datasets.Image())
    ImageDataModule(train=made, validation=0).prepare_data()
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    check(ImageDataModule(train=made, validation=0))
    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.data.forms.given._read", None)  # would fail if it was called
        check(ImageDataModule(train=made, validation=0))
    Path("23.png").unlink()
    assert len(ImageDataModule(train=made.select(range(23)), validation=0).training_images()[0]) == 23


def test_labels_that_are_text_are_numbered_as_in_train() -> None:
    data = ImageDataModule(train=table(["b", "a", "c"] * 8), val=table(["c"] * 24))
    assert data.classes == ("a", "b", "c") and data.training_images()[1][:3].tolist() == [1, 0, 2]
    assert data.val_dataloader().labels.tolist() == [2] * 24


def test_labels_that_are_text_are_numbered_anew_for_other_training_images() -> None:
    test = table(["cat", "bee"] * 12)
    for train, numbers in ((["bee", "cat"] * 12, [1, 0]), (["ant", "bee", "cat"] * 8, [2, 1])):
        data = ImageDataModule(train=table(train), test=test)
        data.prepare_data()
        data.setup("test")
        assert data.test_dataloader().labels.tolist() == numbers * 12


@pytest.mark.parametrize(
    ("classes", "names", "numbers"),
    [
        (["dog", "cat"], ("dog", "cat"), [1, 0]),  # the order of the user
        (["Dog", "Cat"], ("Dog", "Cat"), [1, 0]),
        (["Katze", "Hund"], ("Katze", "Hund"), [0, 1]),  # other names for the sorted ones
    ],
)
def test_labels_that_are_text_are_numbered_in_the_order_that_is_given(
    classes: list[str], names: tuple[str, ...], numbers: list[int]
) -> None:
    made = table(["cat", "dog"] * 12)
    made.to_parquet("pets.parquet")
    for given in ({"dataset": "hf:pets.parquet"}, {"train": made}):
        data = ImageDataModule(**given, classes=classes)
        data.prepare_data()
        assert data.classes == names and data.training_images()[1].tolist() == numbers * 12
    with pytest.raises(
        ValueError, match=r"train has 'dog' as class 1, and classes=\[...\] has it as class 0; keep the"
    ):
        ImageDataModule(train=made, classes=["dog", "bird"])
    with pytest.raises(ValueError, match="keep the order of the labels, '猫', 'dog', 'hen', or leave classes out"):
        ImageDataModule(train=table(), classes=["dog", "猫", "hen"])


@pytest.mark.parametrize("classes", [["cat", "dog", "hen"], ["Cat", "Dog", "Hen"]])
def test_text_in_another_split_has_the_numbers_of_the_classes_that_are_given(classes: list[str]) -> None:
    numbers = np.arange(24) % 3
    named = table().cast_column("label", datasets.Value("int64"))
    named = named.cast_column("label", datasets.ClassLabel(names=["cat", "dog", "hen"]))
    for train in ((PIXELS, numbers), named):
        data = ImageDataModule(train=train, test=table(["hen", "dog"] * 12), classes=classes)
        data.prepare_data()
        data.setup("test")
        assert data.test_dataloader().labels.tolist() == [2, 1] * 12
        with pytest.raises(ValueError, match="no class of val named 'cow'; known are: "):
            ImageDataModule(train=train, val=table(["cow", "dog"] * 12), classes=classes)
    with pytest.raises(ValueError, match="no class of val named 'CD4'"):  # which is neither of the first two
        ImageDataModule(train=(PIXELS, numbers), val=table(["CD4", "B"] * 12), classes=["CD4+", "CD4-", "B"])
    with pytest.raises(ValueError, match=r"test has labels that are text, such as 'dog', .*: classes=\[...\]"):
        ImageDataModule(train=(PIXELS, numbers), test=table(["hen", "dog"] * 12))
    with pytest.raises(ValueError, match=r"test has 'dog' as class 1, and classes=\[...\] has it as class 0; keep"):
        ImageDataModule(train=(PIXELS, numbers), test=named, classes=["dog", "cat", "hen"])


@pytest.mark.parametrize("form", ["train.parquet", "folder of parquet", "saved"])
def test_local_files_are_data_sets(form: str, tmp_path: Path) -> None:
    Path("mine").mkdir()
    if form == "saved":
        datasets.DatasetDict(train=table(), test=table()).save_to_disk("mine")
    else:
        table().to_parquet("mine/train.parquet")
        table().to_parquet("mine/test.parquet")
    data = ImageDataModule("hf:mine/train.parquet" if form == "train.parquet" else "hf:mine", validation=0)
    check(data)
    assert data.classes == tuple(NAMES) and ("test" in data.dataset.splits) == (form != "train.parquet")


@pytest.mark.parametrize("nothing", [-1, None])
def test_a_split_without_labels_is_left_out_and_that_is_said(nothing: int | None) -> None:
    whole, some = table(), table([nothing] * 23 + [2])
    datasets.DatasetDict(train=whole, validation=whole, test=table([nothing] * 24)).save_to_disk("secret")
    data = ImageDataModule("hf:secret")
    check(data)
    assert data.dataset.splits == ("train", "val")
    assert data.dataset.notes == ("test of hf:secret has no labels, so it is left out",)
    with pytest.raises(ValueError, match="secret has no test images; add some"):
        data.setup("test")
    with pytest.raises(ValueError, match=r"test\[0\] has (the label -1; labels begin at 0, so|no label; remove)"):
        ImageDataModule(train=whole, test=some).prepare_data()


def test_an_image_folder_is_read_by_the_library(colours: Path) -> None:
    data = ImageDataModule(f"hf:{colours}")
    data.setup("test")
    assert data.classes == ("blue", "red") and data.training_images()[0].shape == (40, 3, 8, 8)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: table().remove_columns("image"), "no column of the type Image among label"),
        (lambda: table(["a", "b"] * 12).rename_column("label", "kind"), "no column called label among image, kind"),
        (lambda: datasets.DatasetDict(train=table()), r"give its parts: train=splits\['train'\]"),
        (lambda: table().to_iterable_dataset(), "load it without streaming"),
        (lambda: table().with_transform(lambda rows: rows), r"has a transform.*call reset_format\(\)"),
        (lambda: table().select([]), "train has no images"),
        (lambda: table([-1] * 24), r"train\[0\] has the label -1"),
        (lambda: table(["a", "b", None] * 8), r"train has rows without a label; remove them with dataset.filter"),
    ],
)
def test_other_data_sets_are_refused_with_advice(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataModule(train=made()).prepare_data()


def test_the_labels_of_all_splits_name_the_same_classes() -> None:
    other = table().cast_column("label", datasets.Value("int64"))
    other = other.cast_column("label", datasets.ClassLabel(names=["dog", "猫", "hen"]))
    with pytest.raises(ValueError, match="the classes of val are not those of its training images: they are"):
        ImageDataModule(train=table(), val=other)


def test_a_name_without_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hf:owner/none cannot be loaded .*give a folder or a .parquet file"):
        ImageDataModule("hf:owner/none")
    Path("notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes.txt is not a .parquet or .arrow file"):
        ImageDataModule("hf:notes.txt")
