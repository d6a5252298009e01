"""Images as people have them, arrays and torch Datasets and their files, are trained on or refused with advice."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torchvision.transforms import v2

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.__main__ import main
from cvcc_zoo.data.classes import DIGITS, DIGITS_NOTE
from cvcc_zoo.data.decode import Tally
from cvcc_zoo.data.forms.arrays import array_file
from cvcc_zoo.data.forms.given import _kept
from cvcc_zoo.data.identity import identity_of
from cvcc_zoo.data.images import Images
from tests.conftest import QUICK, MakeFolder, message

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4
QUIET: Any = {"enable_progress_bar": False, "enable_model_summary": False}
TENSOR = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Pictures(Dataset[tuple[Any, int]]):
    """PIL images, changed by a transform."""

    classes = ("猫", "dog", "hen", "cow")

    def __init__(self, transform: Callable[[Image.Image], Any] = lambda image: image) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(PIXELS[number])), int(LABELS[number])


class Stream(IterableDataset[Any]):
    """A stream of nothing."""

    def __iter__(self) -> Iterator[Any]:
        return iter([])


def as_float(image: Image.Image) -> torch.Tensor:
    return v2.functional.to_dtype(v2.functional.to_image(image), torch.float32, scale=True)  # type: ignore[no-any-return]


FORMS: dict[str, Any] = {
    "(N, H, W, C)": (PIXELS, LABELS),
    "(N, C, H, W)": (PIXELS.transpose(0, 3, 1, 2), LABELS),
    "floats": (PIXELS / 255, LABELS),
    "labels (N, 1)": (PIXELS, LABELS.astype(np.uint8)[:, None]),
    "tensors": (TENSOR, torch.from_numpy(LABELS)),
    "bfloat16": ((TENSOR / 255).bfloat16(), LABELS),
    "PIL": Pictures(),
    "uint8 tensors": Pictures(v2.functional.to_image),
    "float tensors": Pictures(as_float),
    "half tensors": Pictures(lambda image: as_float(image).half()),
    "arrays one by one": Pictures(np.asarray),
    "a list": [(Image.fromarray(image), label) for image, label in zip(PIXELS, LABELS, strict=True)],
    "dicts": [{"image": image, "label": label} for image, label in zip(TENSOR, LABELS, strict=True)],
    "a subset of all": Subset(Pictures(), range(40)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels_and_labels(form: str) -> None:
    data = ImageDataModule(train=FORMS[form], validation=0)
    images, labels, _ = data.training_images()
    assert images.dtype == torch.uint8 and (images.int() - TENSOR.int()).abs().max() <= (form == "half tensors")
    assert labels.tolist() == LABELS.tolist() and data.num_classes == 4
    assert data.classes == (Pictures.classes if isinstance(FORMS[form], Pictures | Subset) else tuple("0123"))


def test_grey_images_have_one_channel_and_are_recoloured_when_asked() -> None:
    grey = PIXELS[..., 0]
    assert torch.equal(ImageDataModule(train=(grey, LABELS)).training_images()[0][:, 0], torch.from_numpy(grey))
    images = ImageDataModule(train=(grey, LABELS), in_channels=3, image_size=16).training_images()[0]
    assert images.shape == (40, 3, 16, 16)


def test_objects_are_shaped_like_the_files_of_a_folder(make_folder: MakeFolder) -> None:
    root = make_folder(size=9)
    for path in root.rglob("*.png"):
        Image.open(path).resize((12, 7)).save(path)
    options: Any = {"image_size": 8, "resize": "pad", "background": "red"}
    folder = ImageDataModule("folder", root=str(root), **options)
    train = [(Image.open(path), int(path.parent.name == "red")) for path in sorted((root / "train").rglob("*.png"))]
    arrays = [(np.asarray(image), label) for image, label in train]
    for given in (train, arrays):
        data = ImageDataModule(train=given, classes=["blue", "red"], **options)
        assert torch.equal(data.training_images()[0], folder.training_images()[0])
        assert identity_of(data, "train").sha256 == identity_of(folder, "train").sha256


def test_given_validation_images_are_used_and_others_come_from_the_training_images() -> None:
    data = ImageDataModule(train=(PIXELS, LABELS), val=(PIXELS[:8], LABELS[:8]), test=Pictures())
    data.setup("fit")
    data.setup("test")
    assert [data.count(stage) for stage in ("train", "val", "test")] == [40, 8, 40]
    data = ImageDataModule(train=(PIXELS, LABELS), validation=0.25)
    data.setup("fit")
    assert [data.count(stage) for stage in ("train", "val")] == [32, 8]
    with pytest.raises(ValueError, match=r"images has no test images; add some .*`fit --test=false` trains without"):
        data.setup("test")


def test_a_fold_beside_given_validation_images_is_refused() -> None:
    images = (np.zeros((8, 8, 8), dtype=np.uint8), [0, 1] * 4)
    with pytest.raises(ValueError, match="validation=1/2 holds out a fold of the training images, and val gives other"):
        ImageDataModule(train=images, val=images, validation="1/2")


def test_classes_called_0_to_9_are_digits_but_numbers_without_names_are_not() -> None:
    arrays = (PIXELS, np.arange(40) % 10)
    for classes, mirror, notes in ((None, True, ()), (DIGITS, False, (DIGITS_NOTE,)), (list("abcdefghij"), True, ())):
        data = ImageDataModule(train=arrays, classes=classes)  # type: ignore[arg-type]
        assert (data.dataset.mirror, data.dataset.notes) == (mirror, notes)
        assert [type(each).__name__ for each in data.augmentations] == ["RandomCrop"] + ["HorizontalFlip"] * mirror


def test_a_trainer_fits_and_tests_objects_which_are_no_hyperparameters(tmp_path: Path) -> None:
    data = ImageDataModule(train=Pictures(), test=(PIXELS, LABELS), batch_size=8)
    model = create("linear", num_classes=4, image_size=8)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, **QUIET)
    trainer.fit(model, data)
    assert model.classes == Pictures.classes and trainer.test(model, data, verbose=False)
    assert not {"train", "val", "test"} & data.options.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": Pictures(v2.RandomHorizontalFlip())}, r"\] changes each time it is read.*augmentations=\.\.\."),
        ({"train": Pictures(lambda i: as_float(i) * 2 - 1)}, r"train\[0\] has float values from -1 .*remove Normalize"),
        ({"train": (PIXELS.astype(float), LABELS)}, r"must be in \[0, 1\].*one factor for all images"),
        ({"train": (PIXELS.astype(int), LABELS)}, r"values of type int64; images are uint8.*one factor for all"),
        ({"train": (PIXELS[:, :3], LABELS)}, r"\(40, 3, 8, 3\), and the channels could be the first or the last"),
        ({"train": (PIXELS[..., :2], LABELS)}, r"\(40, 8, 8, 2\), and no side has .*whitening.fit.*networks.md"),
        ({"train": (np.zeros((40, 8, 8, 4), np.uint8), LABELS)}, r"4 channels could be bands.*\(mode RGBA\)"),
        ({"train": (np.zeros((40, 4, 8, 8), np.uint8), LABELS)}, "4 channels could be bands"),
        ({"train": (torch.zeros(40, 4, 8, 8), LABELS)}, "in a tensor .* 4 channels could be bands"),
        ({"train": [(torch.zeros(4, 8, 8), 0), (torch.zeros(4, 8, 8), 1)]}, r"\] is a tensor .* 4 channels could be"),
        ({"train": (torch.from_numpy(PIXELS), LABELS)}, r"of the shape \(40, 8, 8, 3\).*movedim\(-1, -3\)"),
        ({"train": (PIXELS[0, 0], LABELS)}, r"images of the shape \(8, 3\)"),
        ({"train": (PIXELS, LABELS[:9])}, "40 images and 9 labels"),
        ({"train": (PIXELS, np.eye(4)[LABELS])}, r"\(40, 4\).*labels.argmax\(1\); several labels"),
        ({"train": (PIXELS, LABELS / 1)}, "labels of type float64, which must be integers"),
        ({"train": (PIXELS, np.array(list("abcd"))[LABELS])}, r"numpy.unique\(labels, return_inverse=True\)"),
        ({"train": (PIXELS, LABELS + 1)}, r"train\[0\] has the label 1, but no image has the label 0; number"),
        ({"train": (PIXELS, LABELS * 10**12)}, r"train\[1\] has the label 1000000000000, but no image has the label 1"),
        ({"train": (PIXELS, LABELS - 1)}, r"train\[0\] has the label -1, but labels begin at 0"),
        ({"train": (PIXELS, LABELS), "classes": list("abcde")}, r"train has no images of class 4 \('e'\); add some"),
        ({"train": (PIXELS, LABELS), "classes": ["a", "b\x1b[2J", "c", "d"]}, r"train has 'b\\x1b\[2J' as .* class 1"),
        ({"train": (PIXELS, LABELS), "classes": ["a", "b", " ", "d"]}, "class 2, which is blank or has unprintable"),
        ({"train": (PIXELS, LABELS), "classes": ["a", "b", "c", "x" * 1001]}, "a name of 1,001 characters for class 3"),
        ({"train": (PIXELS, LABELS), "classes": list("abc")}, r"train\[3\] has the label 3, but there are 3 classes"),
        ({"train": (PIXELS, LABELS), "classes": list("abca")}, "at least two classes with different names"),
        ({"train": (PIXELS, LABELS * 0)}, "at least two classes"),
        ({"train": Pictures(), "classes": ["dog", "猫", "hen", "cow"]}, r"'dog' as class 1, and classes=.* as class 0"),
        ({"train": (PIXELS, LABELS), "val": (PIXELS, LABELS + 1)}, r"val\[3\] has the label 4"),
        ({"train": (PIXELS, LABELS), "val": (PIXELS, LABELS - 1)}, r"val\[0\] has the label -1"),
        ({"train": [(image, -1) for image in PIXELS]}, r"train\[0\] has the label -1; labels begin at 0"),
        ({"train": [(image, "cat") for image in PIXELS]}, r"the label 'cat', which is not an integer"),
        ({"train": [(PIXELS[0], 0), (PIXELS[0, :5], 1)]}, r"train\[1\] has 8x5 pixels.*--data.image_size=8"),
        ({"train": [(PIXELS[0, :5], 1)]}, r"train\[0\] has 8x5 pixels, and images must be square"),
        ({"train": [("cat.png", 1)]}, r"train\[0\] has a str as its image, not a PIL image, NumPy array or tensor"),
        ({"train": PIXELS}, r"train\[0\] is a ndarray, not a pair \(image, label\)"),
        ({"train": []}, "train has no images"),
        ({"dataset": Pictures()}, r"a dataset has a name, and not a Pictures; give images as train=\.\.\."),
        ({"train": "mine.npz"}, r"train is the name 'mine.npz'; files and names are .* dataset=\.\.\."),
        ({"train": {"image": PIXELS, "label": LABELS}}, "train is a dict; give a pair of arrays"),
        ({"train": (PIXELS, LABELS), "classes": {0: "a"}}, "classes must be a list of names"),
        ({"train": DataLoader(Pictures())}, "give its Dataset: train=loader.dataset"),
        ({"train": Stream()}, r"no length and no index.*list\(dataset\)"),
        ({"train": (PIXELS, LABELS), "max_pixels": 63}, "8x8 pixels, more than the limit of 63"),
        ({"val": (PIXELS, LABELS)}, r"give train=\.\.\. too"),
        ({"train": (PIXELS, LABELS), "dataset": "cifar10"}, r"from train=\.\.\. or from cifar10; give one"),
        ({"dataset": "fashion-mini", "classes": ["a", "b"]}, "fashion-mini names or numbers its own classes; leave"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused_with_advice(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**given).prepare_data()


# Files of arrays

TEST = {"test_images": PIXELS[:8], "test_labels": LABELS[:8, None]}
MEDMNIST = {"train_images": PIXELS, "train_labels": LABELS[:, None], "val_images": PIXELS, "val_labels": LABELS}
FILES: dict[str, dict[str, Any]] = {
    "medmnist": MEDMNIST | TEST,
    "keras": {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:8], "y_test": LABELS[:8]},
    "named": {"X_train": PIXELS, "Y_train": LABELS, "class_names": np.array(["猫", "b", "c", "d"])} | TEST,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_arrays_is_a_data_set(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / f"{name}.npz", **FILES[name])
    data = ImageDataModule(Path(f"{name}.npz"))  # type: ignore[arg-type]  # people do
    data.setup("fit")
    data.setup("test")
    assert torch.equal(data.training_images()[0], TENSOR) and data.dataset.title == name
    counts = [40, 40, 8] if name == "medmnist" else [36, 4, 8]
    assert [data.count(stage) for stage in ("train", "val", "test")] == counts
    assert data.classes == (("猫", "b", "c", "d") if name == "named" else tuple("0123"))


def test_files_of_one_array_each_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for key, array in FILES["keras"].items():
        np.save(tmp_path / "mine" / f"{key}.npy", array if array.ndim == 1 else array[..., 0])
    data = ImageDataModule("mine/x_train.npy", classes=list("abcd"))
    assert torch.equal(data.training_images()[0], TENSOR[:, :1]) and data.dataset.title == "mine"
    assert data.dataset.splits == ("train", "test") and data.classes == tuple("abcd")


def test_a_npy_file_that_is_named_in_another_case_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that ignores case lists it under its first name, and finds it under any."""
    np.save("X_train.npy", PIXELS)
    np.save("y_train.npy", LABELS)
    Path("x_train.npy").hardlink_to("X_train.npy")
    listed = [Path("X_train.npy"), Path("y_train.npy")]
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(listed))
    splits, _ = array_file(Path("x_train.npy"))
    assert np.array_equal(splits["train"].source.images, PIXELS)


def test_the_npy_file_that_is_named_is_the_one_that_is_read() -> None:
    np.save("x_train.npy", PIXELS)
    np.save("y_train.npy", LABELS)
    np.save("x_train_augmented.npy", PIXELS)
    with pytest.raises(ValueError, match=r"the name of x_train_augmented.npy does not say what it holds; exp"):
        ImageDataModule("x_train_augmented.npy")
    Path("x_train.npy").rename("X_TRAIN.NPY")
    assert torch.equal(ImageDataModule("X_TRAIN.NPY").training_images()[0], TENSOR)
    np.save("train_images.npy", PIXELS)
    with pytest.raises(ValueError, match=r"has X_TRAIN and train_images for the same; remove one of them"):
        ImageDataModule("X_TRAIN.NPY")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"foo": PIXELS}, r"bad.npz has the arrays 'foo'; expected train_images and train_labels"),
        ({"x_train": PIXELS}, r"bad.npz has 'x_train', but no labels for it"),
        ({"x_train": PIXELS, "train_images": PIXELS, "y": LABELS}, "x_train and train_images for the same"),
        ({"x": np.array([{}], dtype=object), "y": LABELS}, r"bad.npz cannot be read .*allow_pickle=False"),
        ({"x": PIXELS, "y": LABELS + 1}, r"x of bad.npz\[0\] has the label 1, but no image has the label 0"),
    ],
)
def test_a_file_of_other_arrays_is_refused(arrays: dict[str, Any], message: str) -> None:
    np.savez("bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        ImageDataModule("bad.npz")


class Files(Pictures):
    """Pictures whose seventh is not there, or no picture."""

    def __init__(self, seventh: Any) -> None:
        super().__init__()
        self.seventh = seventh

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return (Image.open(self.seventh), 0) if number == 7 else super().__getitem__(number)


@pytest.mark.parametrize(
    ("seventh", "reason"),
    [
        ("nowhere.png", r"\[Errno 2\] No such file or directory: '.*nowhere.png'"),
        (BytesIO(b"no image"), "its format is not known"),
    ],
)
def test_an_image_that_its_data_set_cannot_open_is_named(seventh: Any, reason: str) -> None:
    data = ImageDataModule(train=Files(seventh), validation=0)
    with pytest.raises(
        ValueError, match=rf"train\[7\] is not an image that can be read \({reason}\); repair or remove it"
    ):
        data.prepare_data()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("猫", "dog", "cow"), "the classes of test are not those of its training images: 'hen' is missing"),
        (
            ("dog", "猫", "hen", "cow"),
            "they are in another order, 'dog', '猫', 'hen', 'cow'; number the labels",
        ),
    ],
)
def test_the_labels_of_all_splits_name_the_same_classes(classes: tuple[str, ...], said: str) -> None:
    other, same = Pictures(), Pictures()
    other.classes, same.classes = classes, ("猫", "Dog", "hen", "cow")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=said):
        ImageDataModule(train=Pictures(), test=other)
    assert ImageDataModule(train=Pictures(), test=same).classes == Pictures.classes
    assert ImageDataModule(train=Pictures(), test=other, classes=list("abcd")).classes == tuple("abcd")


def test_names_of_classes_may_be_bytes_and_joined_emoji() -> None:
    names = ["a", "é", "👨\u200d👩\u200d👧", "ल्\u200dल"]
    np.savez("bytes.npz", x=PIXELS, y=LABELS, class_names=np.array([name.encode() for name in names]))
    assert ImageDataModule("bytes.npz").classes == tuple(names)


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        ([0, 1, 2, 3], "0123"),
        ([b"a", b"b", b"c", b"d"], "abcd"),
        ([("a", "x"), ("b",), ("c", "y"), ("d",)], "abcd"),
        (np.array(list("abcd")), "abcd"),
        (np.array([b"a", b"b", b"c", b"d"]), "abcd"),
        (torch.arange(4) + 3, "3456"),
    ],
)
def test_names_in_a_dataset_may_be_numbers_bytes_and_synonyms(names: Any, texts: str) -> None:
    pictures = Pictures()
    pictures.classes = names
    assert ImageDataModule(train=pictures, test=pictures).classes == tuple(texts)


def test_names_in_an_array_or_an_index_are_those_of_a_list() -> None:
    pandas = pytest.importorskip("pandas", reason="comes with the extra hf")
    given: list[Any] = [np.array(list("abcd")), pandas.Index(list("abcd")), np.array([b"a", b"b", b"c", b"d"])]
    for names in given:
        assert ImageDataModule(train=(PIXELS, LABELS), classes=names).classes == tuple("abcd")
        pictures, other = Pictures(), Pictures()
        pictures.classes, other.classes = names, names[:3]
        assert ImageDataModule(train=pictures).classes == tuple("abcd")
        with pytest.raises(ValueError, match="the classes of val are not those of its training images: 'd' is missing"):
            ImageDataModule(train=pictures, val=other)
    assert ImageDataModule(train=(PIXELS, LABELS), classes=torch.arange(3, 7)).classes == tuple("3456")  # type: ignore[arg-type]


def test_files_that_are_missing_or_no_arrays_are_refused() -> None:
    Path("text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text.npz cannot be read \(it is not a NumPy file\)"):
        ImageDataModule("text.npz")
    with pytest.raises(FileNotFoundError, match=r"there is no file none.npy"):
        ImageDataModule("none.npy")
    with pytest.raises(
        ValueError, match=r"text.npz takes no root, but got .*; for .* that folder choose --data.dataset=folder, or"
    ):
        ImageDataModule("text.npz", root="here")


def test_images_in_a_cache_that_cannot_be_read_are_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *given: Any, **named: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    made = Images(TENSOR.contiguous(), torch.from_numpy(LABELS))
    assert _kept("a", TENSOR.shape, "a", lambda: (made, Tally())) is not made
    monkeypatch.setattr(Path, "open", refuse)  # the file is that of another user
    assert _kept("a", TENSOR.shape, "a", lambda: (made, Tally())) is made


def test_what_a_user_should_know_about_images_is_told_again_when_they_come_from_the_cache(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, tally = Images(TENSOR.contiguous(), torch.from_numpy(LABELS)), Tally()
    tally.images = tally.several = 40
    for told in (0, 1):
        _kept("a", TENSOR.shape, "mine-train", lambda: (made, tally))
        assert caplog.text.count("mine-train: 40 of 40 images have several frames or pages") == told


def test_the_command_line_trains_on_a_file_and_evaluates_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("mine.npz", **FILES["keras"])
    np.savez("untested.npz", x=PIXELS, y=LABELS)
    options = ["fit", "--model=linear", *QUICK, "--data.image_size=16", "--data.classes=[a, b, c, d]"]
    assert "untested has no test images" in message(capsys, [*options, "--data.dataset=untested.npz"])
    assert "no option named 'data.train'" in message(capsys, ["fit", "--data.train=x"])
    assert "data.test takes a number, not abc" in message(capsys, ["fit", "--data.test=abc"])
    assert main([*options, "--data.dataset=untested.npz", "--test=false"]) == 0
    assert main([*options, "--data.dataset=mine.npz"]) == 0 and main(["evaluate", "runs/linear-mine"]) == 0
