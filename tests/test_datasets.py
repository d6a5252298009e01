"""Data sets: the carried one, torchvision's formats, image folders, and what each says when something is wrong."""

import gzip
import hashlib
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv_datasets

from cvcc_zoo import ImageDataModule
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.folder import image_folder
from cvcc_zoo.data.images import data_home, mapped, reshape, share
from cvcc_zoo.data.shaping import Shaping
from tests.conftest import MakeFolder
from tests.reliability.processes import ran


def test_fashion_mini_is_balanced_and_real() -> None:
    data = ImageDataModule(validation=0)
    images, labels, samples = data.training_images()
    data.setup("test")
    test = data.test_dataloader()
    assert images.shape == (6000, 1, 28, 28) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == [600] * 10 and len(samples) == 6000
    assert test.labels.bincount().tolist() == [100] * 10
    assert 70 < images.float().mean() < 76  # 72.9 over the full training set


def test_validation_and_test_images_are_never_trained_on() -> None:
    data = ImageDataModule(validation=0.2)
    _, _, trained = data.training_images()
    val = data.val_dataloader()
    assert len(val.samples) == 1200 and not set(val.samples.tolist()) & set(trained.tolist())
    assert {x for batch in data.train_dataloader() for x in batch.samples.tolist()} <= set(trained.tolist())


def test_statistics_come_from_the_training_images_only() -> None:
    data = ImageDataModule(validation=0.5)
    images, _, samples = data.training_images()
    assert data.fit_whitening().mean.item() == pytest.approx(images[samples].double().mean().item() / 255, abs=1e-7)


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[str, str]:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    data = gzip.compress(header + array.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.name, hashlib.md5(data).hexdigest()


@pytest.mark.parametrize(("name", "source"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_mnist_files_of_an_offline_machine_are_read(
    name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources, arrays = [], {}
    for split, count in (("train", 40), ("t10k", 20)):
        arrays[split] = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        digits = (np.arange(count) % 10).astype(np.uint8)
        for what, content in (("images-idx3", arrays[split]), ("labels-idx1", digits)):
            resources.append(write_idx(tmp_path / source / "raw" / f"{split}-{what}-ubyte.gz", content))
    monkeypatch.setattr(getattr(tv_datasets, source), "resources", resources)
    data = ImageDataModule(name, root=str(tmp_path), validation=0)
    images, labels, _ = data.training_images()
    assert torch.equal(images[:, 0], torch.from_numpy(arrays["train"])) and labels[:3].tolist() == [0, 1, 2]
    data.setup("test")
    assert len(data.test_dataloader().labels) == 20


def write_pickle(path: Path, content: dict[str, Any]) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.mark.parametrize(("name", "classes", "key"), [("cifar10", 10, "labels"), ("cifar100", 100, "fine_labels")])
def test_cifar_files_are_read(
    name: str, classes: int, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = getattr(tv_datasets, name.upper())
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3072)).astype(np.uint8)
    content = {"data": pixels, key: [n % classes for n in range(200)]}
    folder = tmp_path / source.base_folder
    monkeypatch.setattr(source, "train_list", [write_pickle(folder / "one", content)])
    monkeypatch.setattr(source, "test_list", [write_pickle(folder / "two", content)])
    names = source.meta["key"]
    filename, md5 = write_pickle(folder / "meta", {names: [str(n) for n in range(classes)]})
    monkeypatch.setattr(source, "meta", {"filename": filename, "key": names, "md5": md5})
    data = ImageDataModule(name, root=str(tmp_path), validation=0)
    images, labels, _ = data.training_images()
    assert torch.equal(images, torch.from_numpy(pixels).view(-1, 3, 32, 32))
    assert labels.tolist() == content[key]
    assert data.num_classes == classes == len(set(data.classes))


def test_svhn_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {}
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 30)).astype(np.uint8)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": (np.arange(30) % 10 + 1)[:, None]})
        splits[split] = [f"http://nowhere/{path.name}", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(tv_datasets.SVHN, "split_list", splits)
    images, labels, _ = ImageDataModule("svhn", root=str(tmp_path), validation=0).training_images()
    assert torch.equal(images[4], torch.from_numpy(pixels[..., 4]).permute(2, 0, 1))
    assert labels[9] == 0  # the file calls the digit 0 "10"


RESIDENT = """
import sys, torch
from pathlib import Path
from cvcc_zoo.data.images import share
made = torch.zeros(64 << 20, dtype=torch.uint8).random_(generator=torch.Generator().manual_seed(0)).view(-1, 1, 64, 64)
images = share(made, "random")
del made
status = Path("/proc/self/status").read_text().splitlines()
before = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
total = int(images.sum())
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) - before, total)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_shared_images_take_no_memory_of_a_process_own() -> None:
    (grown, total), (_, again) = (map(int, ran(RESIDENT).split()) for _ in range(2))
    assert grown < 16 << 10 and total == again  # kilobytes
    (file,) = (Path(os.environ["CVCC_ZOO_DATA"]) / "decoded").iterdir()
    assert file.stat().st_size == 64 << 20


def test_shared_images_are_those_that_were_given_also_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(share(images, "a"), images) and torch.equal(share(images, "a"), images)
    other = images.clone()
    other[0, 0, 0, 0] ^= 1
    assert torch.equal(share(other, "a"), other)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CVCC_ZOO_DATA", str(tmp_path / "file"))
    assert torch.equal(share(images, "b"), images)


def test_images_in_a_file_that_cannot_be_read_have_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mapped(tmp_path / "nowhere", (2, 3, 4, 4))

    def refuse(path: Path, *given: Any, **named: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    share(images, "a")
    monkeypatch.setattr(Path, "open", refuse)  # the file is that of another user
    assert share(images, "a") is images


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_without_a_network_the_message_names_file_and_place(name: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        ImageDataModule(name, root=str(tmp_path / "data")).prepare_data()
    assert file in str(caught.value) and str(tmp_path / "data") in str(caught.value)
    assert not (tmp_path / "data").exists()
    with pytest.raises(FileNotFoundError, match=r"call prepare_data\(\), which downloads it, before setup\(\)"):
        ImageDataModule(name, root=str(tmp_path / "data")).setup()
    (tmp_path / "data" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "train" / "test").write_text("a file with the name of one in CIFAR-100")
    with pytest.raises(FileNotFoundError, match=r"looks like a folder of images: --data.dataset=folder reads it"):
        ImageDataModule(name, root=str(tmp_path / "data")).prepare_data()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_2"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_damaged_file_is_not_said_to_be_missing(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"has a wrong checksum.*remove it") as caught:
        ImageDataModule(name, root=str(tmp_path)).prepare_data()
    place = tmp_path / file
    assert f"{place.parent}: {place.name} has a wrong" in str(caught.value) and place.read_bytes() == b"half of it"
    if name == "mnist":
        (place.parent / "t10k-images-idx3-ubyte.gz").write_bytes(b"half of it")
        with pytest.raises(ValueError, match="have wrong checksums, so they are damaged or incomplete; remove them"):
            ImageDataModule(name, root=str(tmp_path)).prepare_data()


@pytest.mark.parametrize(
    ("name", "place", "depth"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_2", 1),
        ("cifar100", "cifar-100-python/train", 1),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz", 2),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte", 2),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte", 1),
    ],
)
def test_a_root_that_is_the_inner_folder(name: str, place: str, depth: int, tmp_path: Path) -> None:
    """It downloaded the images anew into a folder within the one that has them."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(b"")
    inner = tmp_path.joinpath(*Path(place).parts[:depth])
    with pytest.raises(ValueError, match="is in the wrong folder; the root is the folder above") as caught:
        ImageDataModule(name, root=str(inner)).prepare_data()
    assert str(caught.value).endswith(f"--data.root={tmp_path}")


@pytest.mark.usefixtures("offline")
def test_files_beside_the_folder_from_which_they_are_read(tmp_path: Path) -> None:
    """As Debian packs Fashion-MNIST; another file that only has the name of one of CIFAR-100 is none of it."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match=r"are read from .*FashionMNIST/raw: put them there, or into FashionMNIST/raw"):
        ImageDataModule("fashion_mnist", root=str(tmp_path)).prepare_data()
    (tmp_path / "train").write_text("a script")
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        ImageDataModule("cifar100", root=str(tmp_path)).prepare_data()


# Image folders


def test_a_folder_is_read_as_it_is(colours: Path) -> None:
    data = ImageDataModule("folder", root=str(colours))
    assert (data.classes, data.num_classes, data.in_channels, data.image_size) == (("blue", "red"), 2, 3, 8)
    data.prepare_data()
    images, labels, _ = data.training_images()
    assert images.shape == (40, 3, 8, 8) and labels.bincount().tolist() == [20, 20]
    first = np.asarray(Image.open(colours / "train" / "blue" / "000.png"))
    assert torch.equal(images[0], torch.from_numpy(first.copy()).permute(2, 0, 1))


def test_a_root_alone_is_an_image_folder(colours: Path) -> None:
    assert ImageDataModule(root=str(colours)).classes == ("blue", "red")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        ImageDataModule(root="nowhere")


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded() -> list[Path]:
        return sorted((tmp_path / "data-home" / "decoded").glob("*.uint8"))

    image_folder(colours).prepare()
    before = decoded()
    assert len(before) == 2
    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.data.folder.decode_all", None)  # would fail if it was called
        image_folder(colours).prepare()
        image_folder(Path(os.path.relpath(colours))).prepare()
        patch.chdir(colours / "test")
        image_folder(Path("..")).prepare()
    changed = colours / "train" / "red" / "003.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(changed)
    images = image_folder(colours).load("train")
    assert images is not None and images.images[23, :, 0, 0].tolist() == [1, 2, 3]
    assert len(decoded()) == 2 and decoded() != before  # the outdated cache is gone


def test_what_was_prepared_is_not_looked_at_again_unless_it_is_gone(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = image_folder(colours)
    found.prepare()
    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.data.folder.fingerprint", None)  # would fail if it was called
        before = found.load("train")
    for path in (data_home() / "decoded").iterdir():
        path.unlink()
    after = found.load("train")
    assert before is not None and after is not None and torch.equal(before.images, after.images)


def test_files_below_a_class_are_in_the_order_of_their_paths(colours: Path) -> None:
    """Each level by name: the order of the images, and with it every training, depends on it."""
    for name in ("0/b.png", "0/a/z.png", "0-1.png", "b.png", "010/z.png"):
        target = colours / "train" / "blue" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(target)
    files = [path for path, label in image_folder(colours).files["train"] if label == 0]
    assert len(files) == 25 and files == [str(path) for path in sorted(Path(path) for path in files)]
    assert files != sorted(files)


def test_a_folders_own_val_is_its_validation_set(make_folder: MakeFolder) -> None:
    data = ImageDataModule("folder", root=str(make_folder(val=4)))
    _, _, samples = data.training_images()
    val = data.val_dataloader()
    assert len(val.samples) == 8 and len(samples) == 40


def test_images_are_resized_and_recoloured_when_asked(make_folder: MakeFolder) -> None:
    data = ImageDataModule("folder", root=str(make_folder(size=12)), image_size=8, in_channels=1)
    images, _, _ = data.training_images()
    assert images.shape == (40, 1, 8, 8)
    mini = ImageDataModule(image_size=32, in_channels=3)
    assert mini.training_images()[0].shape == (6000, 3, 32, 32) and mini.image_size == 32


@pytest.mark.parametrize("size", [7, 18, 40])
def test_images_of_a_set_are_resized_and_made_grey_as_files_are(size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 18, 18, 3)).astype(np.uint8)
    pictures, images = [Image.fromarray(each) for each in noise], torch.from_numpy(noise).permute(0, 3, 1, 2)
    for channels in (3, 1):
        decoding = Decoding(size, channels, same_size=False, grey_only=False)
        expected = np.stack([decoding.pixels("an image", picture) for picture in pictures])
        found = reshape(images, size, channels)
        off = np.abs(found.numpy().astype(int) - expected)
        assert found.dtype == torch.uint8 and off.max() <= (size != 18) * 2 and (off > 0).mean() < 0.02


def test_a_grey_image_among_coloured_ones_is_taken_as_colour(colours: Path) -> None:
    Image.new("L", (8, 8), 77).save(colours / "train" / "blue" / "zz.png")
    images = image_folder(colours).load("train")
    assert images is not None and images.images[20, :, 0, 0].tolist() == [77, 77, 77]


def remove_class(root: Path, split: str) -> None:
    for path in (root / split / "red").iterdir():
        path.unlink()
    (root / split / "red").rmdir()


def spoil_missing(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def spoil_empty(root: Path) -> None:
    for split in ("train", "test"):
        (root / split).rename(root.with_name(f"elsewhere-{split}"))


def spoil_class_folder(root: Path) -> None:
    (root / "train" / "green").mkdir()


def spoil_test_class(root: Path) -> None:
    remove_class(root, "test")


def spoil_train_class(root: Path) -> None:
    remove_class(root, "train")
    (root / "train" / "pink").mkdir()
    Image.new("RGB", (8, 8)).save(root / "train" / "pink" / "a.png")


def spoil_text(root: Path) -> None:
    (root / "train" / "blue" / "notes.txt").write_text("no image")


def spoil_truncated(root: Path) -> None:
    path = root / "test" / "red" / "002.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_size(root: Path) -> None:
    Image.new("RGB", (9, 8)).save(root / "train" / "red" / "007.png")


def spoil_deep(root: Path) -> None:
    path = root / "train" / "red" / "007.png"
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(path, "TIFF")


def spoil_stray(root: Path) -> None:
    (root / "train" / "labels.csv").write_text("a,b")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, r"colours does not exist; expected train/<class>/<image>"),
        (spoil_empty, r"colours has no folder 'train'; expected train/<class>"),
        (spoil_class_folder, r"class folder .*green has no images; add some or remove"),
        (spoil_test_class, r"class 'red' is in .*train but not in .*test"),
        (spoil_train_class, r"class 'pink' is in .*train but not in .*test"),
        (spoil_text, r"notes.txt is not an image that can be read"),
        (spoil_truncated, r"test/red/002.png is not an image that can be read"),
        (spoil_size, r"007.png has 9x8 pixels, but the first training image has 8x8.*--data.image_size=8"),
        (spoil_deep, r"007.png has more than 16 bits"),
        (spoil_stray, r"labels.csv is a file, where only class folders belong"),
    ],
)
def test_a_spoilt_folder_is_refused_with_path_and_advice(spoil: Any, message: str, colours: Path) -> None:
    spoil(colours)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ImageDataModule("folder", root=str(colours)).prepare_data()
    assert not list(Path.cwd().glob("data-home/decoded/.*"))  # no half-written cache


def test_colour_among_grey_images_is_not_lost_silently(make_folder: MakeFolder) -> None:
    root = make_folder(mode="L")
    Image.new("RGB", (8, 8), (9, 8, 7)).save(root / "train" / "red" / "010.png")
    with pytest.raises(ValueError, match=r"010.png is in colour .*--data.in_channels=3"):
        image_folder(root).prepare()
    images = image_folder(root, Shaping(in_channels=3)).load("train")
    assert images is not None and images.images[30, :, 0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "cifar11"}, "no dataset named 'cifar11'; did you mean cifar10"),
        ({"dataset": "folder"}, "needs the folder of the images: --data.root"),
        ({"dataset": "fashion-mini", "root": "mine"}, "for the images of that folder choose --data.dataset=folder"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"validation": 1.0}, r"validation must be a share .* in \[0, 1\)"),
        ({"whitening": "standardise"}, "no whitening named 'standardise'; did you mean standardize"),
        ({"in_channels": 4}, "in_channels must be 1"),
        ({"image_size": 0}, "image_size must be at least 1 pixel"),
    ],
)
def test_wrong_options_of_the_data_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**options)
