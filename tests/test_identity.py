"""A data set is known by its images and labels, whatever their order and whatever they were read from."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as tv_datasets

from benchmarks import known_images
from cvcc_zoo import ImageDataModule
from cvcc_zoo.__main__ import main
from cvcc_zoo.data import known
from cvcc_zoo.data.datasets import CIFAR10_CLASSES
from cvcc_zoo.data.identity import find_known, identity, identity_of, in_common, repeated, with_hashes
from cvcc_zoo.data.known import KNOWN, known_test_images
from cvcc_zoo.runs.written import read_summary
from tests.conftest import QUICK, MakeFolder
from tests.test_datasets import write_pickle

IMAGES = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 10


def test_an_identity_is_the_hash_of_the_sorted_hashes_of_images_with_their_labels() -> None:
    each = [
        hashlib.sha256(f"3x32x32:{label}:".encode() + image.numpy().tobytes()).digest()
        for image, label in zip(IMAGES, LABELS.tolist(), strict=True)
    ]
    found = identity(IMAGES, LABELS)
    assert found.sha256 == hashlib.sha256(b"".join(sorted(each))).hexdigest()
    assert found.hashes.tolist() == sorted(int.from_bytes(digest[:4], "big") for digest in each)


def test_order_does_not_matter_and_pixels_labels_and_shape_do() -> None:
    found = identity(IMAGES, LABELS)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert identity(IMAGES[order], LABELS[order]).sha256 == found.sha256
    assert identity(IMAGES[order], LABELS).sha256 != found.sha256
    changed = IMAGES.clone()
    changed[7, 0, 0, 0] ^= 1
    assert identity(changed, LABELS).sha256 != found.sha256
    assert identity(IMAGES.view(50, 3, 16, 64), LABELS).sha256 != found.sha256
    assert identity(IMAGES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), LABELS).sha256 == found.sha256
    assert in_common(identity(changed, LABELS), with_hashes(found)) == 49


def test_images_that_are_there_twice_are_counted_as_often_as_both_sets_hold_them() -> None:
    twice = identity(torch.cat([IMAGES[:2], IMAGES[:1]]), torch.cat([LABELS[:2], LABELS[:1]]))
    once = identity(IMAGES[:2], LABELS[:2])
    assert in_common(twice, with_hashes(once)) == in_common(once, with_hashes(twice)) == 2
    assert in_common(twice, with_hashes(twice)) == 3


def test_test_images_with_the_pixels_of_training_images_are_counted_under_any_label() -> None:
    train, test = identity(IMAGES[:30], LABELS[:30]), identity(IMAGES[20:], LABELS[20:].flip(0))
    assert repeated(test, train.pixels) == 10 and repeated(test, test.pixels) == 30
    assert repeated(identity(IMAGES[:30].view(30, 3, 16, 64), LABELS[:30]), train.pixels) == 0


def test_fit_says_how_many_test_images_are_also_training_images(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):  # red ones, two of them among the blue training images
        shutil.copy(
            colours / f"test/red/00{number}.png", colours / f"train/{('red', 'blue', 'blue')[number]}/9.{number}.png"
        )
    train = ["fit", "--model=linear", f"--data.root={colours}", *QUICK]
    assert main([*train, "--run=again"]) == 0
    assert caplog.text.count("3 of 12 test images are also training or validation images (the same pixels)") == 1
    assert read_summary(Path("again"))["data"]["test"]["in_training"] == 3
    caplog.clear()
    assert main(["fit", "--model=linear", "--data.image_size=8", *QUICK, "--run=mini"]) == 0
    assert "1,000 test images" in caplog.text and "also training" not in caplog.text
    assert read_summary(Path("mini"))["data"]["test"]["in_training"] == 0


def write_folder(root: Path) -> Path:
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(IMAGES, LABELS.tolist(), strict=True)):
            folder = root / split / CIFAR10_CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{(number * 7) % 50:02}.png")
    return root


def write_torchvision(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tv_datasets.CIFAR10
    content = {"data": IMAGES.view(50, 3072).numpy(), "labels": LABELS.tolist()}
    folder = root / source.base_folder
    monkeypatch.setattr(source, "train_list", [write_pickle(folder / "one", content)])
    monkeypatch.setattr(source, "test_list", [write_pickle(folder / "two", content)])
    filename, md5 = write_pickle(folder / "meta", {"label_names": list(CIFAR10_CLASSES)})
    monkeypatch.setattr(source, "meta", {"filename": filename, "key": "label_names", "md5": md5})
    return root


def test_a_folder_of_png_files_and_torchvisions_files_are_one_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ImageDataModule("folder", str(write_folder(tmp_path / "pictures")))
    files = ImageDataModule("cifar10", str(write_torchvision(tmp_path / "files", monkeypatch)))
    assert not torch.equal(folder.training_images()[0], files.training_images()[0])  # in another order
    assert identity_of(folder, "train").sha256 == identity_of(files, "train").sha256 == identity(IMAGES, LABELS).sha256
    assert identity_of(folder, "test").sha256 == identity_of(files, "test").sha256
    smaller = ImageDataModule("folder", str(tmp_path / "pictures"), image_size=16)
    assert identity_of(smaller, "test").sha256 != identity_of(folder, "test").sha256


def test_validation_images_and_batches_do_not_change_what_a_data_set_is(make_folder: MakeFolder) -> None:
    root = str(make_folder())
    found = {
        identity_of(ImageDataModule("folder", root, validation=v, batch_size=b), "train").sha256
        for v, b in ((0, 3), (0.5, 8))
    }
    assert len(found) == 1


def test_the_held_out_images_are_a_split_of_their_own(make_folder: MakeFolder) -> None:
    root = str(make_folder(val=3))
    own = identity_of(ImageDataModule("folder", root), "val")
    assert own.plain()["images"] == 6 and identity_of(ImageDataModule("folder", root, validation=0), "val").sha256 == (
        hashlib.sha256().hexdigest()
    )
    shutil.rmtree(make_folder("divided", val=3) / "val")
    data = ImageDataModule("folder", "divided", validation=0.25)
    images, labels, samples = data.validation_images()
    assert len(samples) == 10 and not set(samples.tolist()) & set(data.training_images()[2].tolist())
    found = identity_of(data, "val")
    assert found.sha256 == identity(images[samples], labels[samples]).sha256 != own.sha256
    train = identity_of(data, "train")
    assert set(found.hashes.tolist()) <= set(train.hashes.tolist()) and len(train.hashes) == 40


def test_the_known_data_sets_have_whole_lists_of_test_images() -> None:
    for each in KNOWN:
        hashes = known_test_images(each.test)
        assert hashes is not None and len(hashes) == 10_000 and (np.diff(hashes.astype(np.int64)) >= 0).all()
    assert known_test_images(KNOWN[0].train) is None and known_test_images("") is None


def test_the_lists_of_other_data_sets_stay_when_one_is_added(
    tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "test_images.npz"
    shutil.copy(Path(known.__file__).with_name(file.name), file)
    monkeypatch.setattr(known, "__file__", str(tmp_path / "__init__.py"))
    known_images.main([f"colours={colours}"])
    expected = identity_of(ImageDataModule("folder", str(colours)), "test").hashes
    with np.load(file) as found:
        assert set(found) == {"colours", *(each.tag for each in KNOWN)}
        assert found["colours"].tolist() == expected.tolist() and all(len(found[each.tag]) == 10_000 for each in KNOWN)


def test_fashion_mini_holds_a_thousand_test_images_of_fashion_mnist() -> None:
    (fashion,) = (each for each in KNOWN if each.title == "Fashion-MNIST")
    mini = identity_of(ImageDataModule(), "test")
    assert in_common(mini, {"sha256": fashion.test}) == 1_000
    assert mini.plain()["name"] is None and find_known(None, mini.sha256) is None


def test_a_data_set_is_known_by_all_splits_that_were_read() -> None:
    cifar10, cifar100 = KNOWN[:2]
    assert find_known(cifar10.train, cifar10.test) is find_known(cifar10.train, None) is find_known(None, cifar10.test)
    assert find_known(cifar10.train, cifar10.test) is cifar10
    assert find_known(cifar10.train, cifar100.test) is None and find_known(None, None) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "means"),
    [
        ("cifar10", [125.306918046875, 122.950394140625, 113.86538318359375]),
        ("cifar100", [129.30416560546874, 124.0699626953125, 112.43405005859375]),
    ],
)
def test_the_originals_are_known_by_name(tag: str, means: list[float]) -> None:
    """$CVCC_ZOO_ORIGINALS has an image folder or torchvision's files of each in a folder of its name."""
    if not (home := os.environ.get("CVCC_ZOO_ORIGINALS")):
        pytest.skip("needs the folder of the originals: $CVCC_ZOO_ORIGINALS")
    root = Path(home) / tag
    data = ImageDataModule("folder" if (root / "train").is_dir() else tag, str(root))
    found = find_known(identity_of(data, "train").sha256, identity_of(data, "test").sha256)
    assert found is not None and found.tag == tag and found in known.KNOWN
    images = data.training_images()[0].numpy().reshape(50_000, 3, -1)
    assert np.allclose(images.mean((0, 2), dtype=np.float64), means, rtol=0, atol=1e-9)
