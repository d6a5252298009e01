"""Data sets of torchvision beyond CIFAR and MNIST: the table, files in torchvision's formats, and downloads."""

import bz2
import inspect
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv_datasets

from benchmarks.datasets import PAGE, with_datasets
from cvcc_zoo import ImageDataModule
from cvcc_zoo.data.folder import ImageFolder
from cvcc_zoo.data.forms.fetch import fetch
from cvcc_zoo.data.forms.torchvision_sets import open_all
from cvcc_zoo.data.forms.torchvision_table import SAME, TABLE
from cvcc_zoo.runs.written import read_summary
from tests.conftest import Fit, message, write_images

ELSEWHERE = {  # a base class, no images of classes, a few images of each of thousands of classes, or 20 GB and more
    "VisionDataset", "DatasetFolder", "ImageFolder", "FakeData", "LSUN", "LSUNClass", "CocoCaptions", "CocoDetection",
    "MovingMNIST", "PhotoTour", "Omniglot", "SBU", "Flickr8k", "Flickr30k", "VOCSegmentation", "VOCDetection",
    "Cityscapes", "ImageNet", "CelebA", "WIDERFace", "SBDataset", "Kinetics", "HMDB51", "UCF101", "Places365", "Kitti",
    "INaturalist", "LFWPeople", "LFWPairs", "KittiFlow", "Sintel", "FlyingChairs", "FlyingThings3D", "HD1K",
    "CLEVRClassification", "Kitti2012Stereo", "Kitti2015Stereo", "CarlaStereo", "Middlebury2014Stereo", "CREStereo",
    "FallingThingsStereo", "SceneFlowStereo", "SintelStereo", "InStereo2k", "ETH3DStereo",
}  # fmt: skip


def test_every_class_of_torchvision_is_in_the_table_or_left_out_on_purpose() -> None:
    names = {name for name in tv_datasets.__all__ if inspect.isclass(getattr(tv_datasets, name))}
    assert names - ELSEWHERE == {entry.source for entry in TABLE.values()} | set(SAME)


@pytest.mark.parametrize("name", TABLE)
def test_torchvision_takes_the_options_in_the_table(name: str, tmp_path: Path) -> None:
    entry = TABLE[name]
    parameters = inspect.signature(getattr(tv_datasets, entry.source)).parameters
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for parts in entry.options.values():
        for part in parts:
            assert takes_more or part.keys() <= parameters.keys()
    assert entry.downloads == (("download" in parameters or takes_more) and entry.source != "StanfordCars")
    assert entry.counts.keys() == entry.options.keys() and "train" in entry.counts
    with pytest.raises((RuntimeError, FileNotFoundError)):  # a wrong split is a ValueError
        open_all(entry, tmp_path, download=False)


@pytest.mark.parametrize("name", TABLE)
def test_the_table_has_as_many_classes_as_torchvision(name: str) -> None:
    entry = TABLE[name]
    source = getattr(tv_datasets, entry.source)
    known = getattr(source, "classes", None) or getattr(source, "_WNID_TO_CLASS", None)
    if entry.source == "EMNIST":
        known = source.classes_split_dict[entry.options["train"][0]["split"]][entry.first_label :]
    assert entry.classes == len(known or entry.names or range(entry.classes))


def test_the_page_lists_the_table() -> None:
    page = PAGE.read_text()
    assert with_datasets(page) == page, "run python -m benchmarks.datasets"
    assert all(f"| `torchvision.{name}` |" in page for name in TABLE)


def small(monkeypatch: pytest.MonkeyPatch, name: str, **counts: int) -> None:
    monkeypatch.setitem(TABLE, name, replace(TABLE[name], counts=counts))  # type: ignore[arg-type]


def loaded(name: str, root: Path, **options: Any) -> tuple[ImageDataModule, torch.Tensor, torch.Tensor]:
    data = ImageDataModule(name, root=str(root), validation=0, **options)
    images, labels, _ = data.training_images()
    return data, images, labels


def write_usps(root: Path) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(0).integers(0, 3, (20, 256)) - 1.0  # -1, 0 or 1
    for name, rows in (("usps.bz2", pixels), ("usps.t.bz2", pixels[:10])):
        lines = [
            " ".join([str(n % 10 + 1), *(f"{i + 1}:{value}" for i, value in enumerate(row))])
            for n, row in enumerate(rows)
        ]
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    return pixels


def test_usps_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "USPS", train=20, test=10)
    pixels = write_usps(tmp_path)
    data, images, labels = loaded("torchvision.USPS", tmp_path)
    assert images.shape == (20, 1, 16, 16) and labels.tolist() == [n % 10 for n in range(20)]
    assert torch.equal(images[3].flatten(), torch.from_numpy((pixels[3] + 1) / 2 * 255).to(torch.uint8))
    data.setup("test")
    assert data.count("test") == 10 and data.dataset.title == "usps" and not data.dataset.mirror
    assert data.classes == tuple("0123456789") and data.dataset.notes == ()


def test_nothing_is_said_of_test_images_of_a_published_data_set_that_are_training_images(
    tmp_path: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small(monkeypatch, "USPS", train=20, test=10)
    write_usps(tmp_path)
    options = ["--data.dataset=torchvision.USPS", f"--data.root={tmp_path}", "--data.validation=0", "--model=linear"]
    assert fit(*options, "--run=run") == 0
    assert read_summary(Path("run"))["data"]["test"]["in_training"] == 10
    assert "10 test images of 10 classes" in caplog.text and "duplicates=together" not in caplog.text


def test_damaged_files_are_not_said_to_be_missing(tmp_path: Path) -> None:
    write_usps(tmp_path)
    (tmp_path / "usps.bz2").write_bytes((tmp_path / "usps.bz2").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"the files of torchvision.USPS in .* are damaged .*remove them"):
        ImageDataModule("torchvision.USPS", root=str(tmp_path))


def write_idx_files(folder: Path, names: tuple[str, str, str, str], count: int, classes: range) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = np.resize(np.array(classes), count).astype(np.uint8)
    for name, content in zip(names, (pixels, labels, pixels, labels), strict=True):
        header = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, ">i4").tobytes()
        (folder / name).write_bytes(header + content.tobytes())


def test_kmnist_is_read(tmp_path: Path) -> None:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    write_idx_files(tmp_path / "KMNIST" / "raw", names, 30, range(10))
    data, images, labels = loaded("torchvision.KMNIST", tmp_path)
    assert data.classes[:2] == ("o", "ki") and images.shape == (30, 1, 28, 28) and labels[9] == 9
    assert "KMNIST has 60,000 train images, but 30 are in" in data.dataset.notes[0]


def test_the_letters_of_emnist_are_numbered_from_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "EMNIST.letters", train=52, test=52)
    names = [f"emnist-letters-{s}-{w}-ubyte" for s in ("train", "test") for w in ("images-idx3", "labels-idx1")]
    write_idx_files(tmp_path / "EMNIST" / "raw", (names[0], names[1], names[2], names[3]), 52, range(1, 27))
    data, _, labels = loaded("torchvision.emnist.letters", tmp_path)
    assert data.num_classes == 26 and data.classes[0] == "a" and labels[:3].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"EMNIST is several data sets; choose torchvision\.EMNIST\.balanced or"):
        ImageDataModule("torchvision.EMNIST")


def test_the_extra_images_of_svhn_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "SVHN.extra", train=50, test=20)
    splits, generator = {}, np.random.default_rng(0)
    for split, count in (("train", 20), ("extra", 30), ("test", 20)):
        path = tmp_path / f"{split}_32x32.mat"
        pixels = generator.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
        savemat(path, {"X": pixels, "y": (np.arange(count) % 10 + 1)[:, None]})
        splits[split] = ["http://nowhere", path.name, None]
    monkeypatch.setattr(tv_datasets.SVHN, "split_list", splits)
    data, images, labels = loaded("torchvision.SVHN.extra", tmp_path)
    assert images.shape == (50, 3, 32, 32) and len(data.dataset.splits) == 2 and labels[9] == 0


def write_eurosat(root: Path) -> None:
    for seed, name in enumerate(("Forest", "Río", "海")):
        write_images(root / "eurosat" / "2750" / name, 10, seed, suffix="jpg")


def test_a_set_of_files_is_split_and_decoded_like_a_folder(
    tmp_path: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, "EuroSAT", train=30)
    write_eurosat(tmp_path / "tv")
    data, images, _ = loaded("torchvision.EuroSAT", tmp_path / "tv", image_size=16, in_channels=1)
    assert isinstance(data.dataset, ImageFolder) and images.shape == (27, 1, 16, 16)
    assert data.classes == ("Forest", "Río", "海") and "3 of 30 images are held out" in data.dataset.notes[0]
    assert data.dataset.public and data.dataset.splits == ("train", "test")
    with pytest.raises(ValueError, match="no test images"):
        ImageDataModule("torchvision.EuroSAT", root=str(tmp_path / "tv"), test=0.0).setup("test")
    options = ["--data.dataset=torchvision.EuroSAT", f"--data.root={tmp_path / 'tv'}", "--model=linear"]
    assert fit(*options, "--trainer.max_epochs=1") == 0
    assert Path("runs/linear-eurosat/summary.json").is_file()


def test_images_without_a_loader_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "Caltech101", train=20)
    for seed, name in enumerate(("BACKGROUND_Google", "ant", "bee")):
        folder = tmp_path / "caltech101" / "101_ObjectCategories" / name
        write_images(folder, 10, seed, size=9, suffix="jpg")
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"image_{number + 1:04}.jpg")
    data, images, labels = loaded("torchvision.Caltech101", tmp_path, image_size=8)
    assert data.classes == ("ant", "bee") and images.shape == (18, 3, 8, 8) and labels.bincount().tolist() == [9, 9]
    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.data.forms.given._read", None)  # would fail if it was called
        again = loaded("torchvision.Caltech101", tmp_path, image_size=8)[1]
    assert torch.equal(images, again)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(
        tmp_path / "caltech101" / "101_ObjectCategories" / "ant" / "image_0001.jpg"
    )
    assert not torch.equal(images, loaded("torchvision.Caltech101", tmp_path, image_size=8)[1])


def test_names_of_torchvision_for_sets_with_short_names_mean_those(capsys: pytest.CaptureFixture[str]) -> None:
    assert ImageDataModule("torchvision.FashionMNIST").dataset.title == "fashion_mnist"
    said = message(capsys, ["fit", "--data.dataset=torchvision.EuroSatt"])
    assert "no torchvision data set named 'EuroSatt'; did you mean EuroSAT" in said


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_message_says_how_to_get_a_set(tmp_path: Path) -> None:
    for name in ("EuroSAT", "USPS", "STL10", "OxfordIIITPet", "Caltech256", "SEMEION", "GTSRB"):
        with pytest.raises(FileNotFoundError, match=r"could not be downloaded .Network is unreachable") as caught:
            ImageDataModule(f"torchvision.{name}", root=str(tmp_path / "data"))
        assert f"copy its files to {tmp_path / 'data' / TABLE[name].folder}" in str(caught.value)
        assert not (tmp_path / "data").exists()
    with pytest.raises(FileNotFoundError, match="torchvision cannot download it: get its files"):
        ImageDataModule("torchvision.FER2013", root=str(tmp_path / "data"))


def test_a_download_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "EuroSAT", train=30)
    write_eurosat(tmp_path / "made")
    archive, breaks = tmp_path / "EuroSAT.zip", [True]
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "made").rglob("*.jpg")):
            file.write(path, path.relative_to(tmp_path / "made" / "eurosat"))

    def download(url: str, download_root: str, md5: str) -> None:
        with zipfile.ZipFile(archive) as file:
            file.extractall(download_root, file.namelist()[: 5 if breaks[0] else None])
        if breaks[0]:
            raise ConnectionResetError("the server went away")

    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", download)
    root = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match="the server went away"):
        ImageDataModule("torchvision.EuroSAT", root=str(root))
    assert not root.exists()
    (root / ".download-killed").mkdir(parents=True)  # of a process that was killed
    breaks[0] = False
    assert loaded("torchvision.EuroSAT", root)[1].shape == (27, 3, 8, 8)
    assert [path.name for path in root.iterdir()] == ["eurosat"]
    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", None)
    assert loaded("torchvision.EuroSAT", root)[1].shape == (27, 3, 8, 8)


@pytest.mark.parametrize("refused", [["symlink_to"], ["symlink_to", "hardlink_to"]])
def test_a_disk_without_links_takes_downloads(
    refused: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in refused:
        monkeypatch.setattr(Path, name, refuse)
    (tmp_path / "archive.zip").write_text("here")
    found: list[bool] = []

    def download(folder: Path) -> None:
        found.append((folder / "archive.zip").is_file())
        (folder / "images").mkdir()

    fetch("torchvision.Any", tmp_path, "images", "get it", download, (tmp_path / "images").stat)
    assert found == [len(refused) == 1] and (tmp_path / "images").is_dir()
    assert (tmp_path / "archive.zip").read_text() == "here"
