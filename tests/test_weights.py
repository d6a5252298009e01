"""Published weights: a file and its card belong together, and nothing else is read."""

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import resource
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from filelock import FileLock

from cvcc_zoo import create, load
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.weights.card import Card, change_card, find_card, list_cards, read, read_card, write, write_card
from cvcc_zoo.zoo.published import make_card


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for published weights; those of the package are not seen."""
    monkeypatch.setattr("cvcc_zoo.weights.card.PUBLISHED", tmp_path / "package")
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def trained(name: str = "resnet20", **options: Any) -> ImageClassifier:
    """A model whose every tensor differs from a fresh one's."""
    torch.manual_seed(0)
    model = create(name, image_size=8, num_classes=3, **options)
    state = model.state_dict()
    for tensor in state.values():
        inputs = tensor[0].numel() if tensor.ndim > 1 else 1
        tensor.copy_(
            (torch.rand(tensor.shape) + 0.5) / inputs if tensor.is_floating_point() else torch.ones_like(tensor)
        )
    model.load_state_dict(state)  # with statistics in it, the whitening is fitted
    return model.eval()


def card_of(model: ImageClassifier) -> Card:
    measured, training = {"test_accuracy": 0.5}, {"epochs": 3}
    words = {"dataset": "Pets", "license": "MIT"}
    return make_card(model, "pets", ["cat", "cow", "dog"], measured=measured, training=training, **words)


def published(home: Path, model: ImageClassifier | None = None, **options: Any) -> Path:
    model = model or trained()
    return write(home, card_of(model), model.state_dict(), **options)


IMAGES = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_weights_come_back_bit_for_bit_with_everything_that_the_card_says(home: Path) -> None:
    model = trained()
    path = published(home, model)
    assert path == find_card("resnet20.pets") and list_cards()["resnet20.pets"] == path
    card, tensors = read(path)
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())
    assert (card.family, card.parameters, card.classes) == ("ResNet", 272_019, ["cat", "cow", "dog"])
    assert (card.hparams["depth"], card.hparams["num_classes"], card.measured) == (20, 3, {"test_accuracy": 0.5})
    assert card.size == path.with_suffix(".safetensors").stat().st_size and len(card.sha256) == 64
    expected = model(IMAGES)
    ways: list[ImageClassifier] = [
        create("resnet20", pretrained="pets"),
        create("resnet20.pets"),
        create("resnet20", pretrained=path),
        load(path),
    ]
    for way in ways:
        assert not way.training and torch.equal(way(IMAGES), expected)


def test_options_that_the_weights_do_not_depend_on_can_be_chosen(home: Path) -> None:
    published(home)
    model = create("resnet20.pets", optimizer={"name": "Muon", "lr": 0.01}, loss="hinge")
    assert model.hparams["optimizer"] == {"name": "Muon", "lr": 0.01}
    assert torch.equal(model(IMAGES), create("resnet20.pets")(IMAGES))


def test_half_precision_halves_the_file_and_keeps_statistics(home: Path) -> None:
    model = trained()
    full = published(home, model).with_suffix(".safetensors").stat().st_size
    path = published(home, model, dtype=torch.float16)
    assert path.with_suffix(".safetensors").stat().st_size < 0.55 * full
    found = create("resnet20.pets")
    assert torch.equal(found.whitening.mean, model.whitening.mean)
    assert torch.equal(found.network.get_buffer("bn1.running_var"), model.network.get_buffer("bn1.running_var"))
    assert torch.allclose(found(IMAGES), model(IMAGES), rtol=1e-2)


def test_the_packages_own_weights_come_first(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(home)
    own = published(tmp_path / "package")
    monkeypatch.setattr("cvcc_zoo.weights.card.PUBLISHED", tmp_path / "package")
    assert find_card("resnet20.pets") == own


def test_rows_of_numbers_are_one_line_and_words_with_brackets_are_kept(home: Path) -> None:
    path = published(home)
    table = {"confusion": [[1, 2], [3, 4]]}
    card = dataclasses.replace(read_card(path), classes=["[ 1 ]", "b", "c"], measured=table)
    write_card(path, card)
    assert read_card(path) == card and "[1, 2],\n" in path.read_text()


def test_a_write_that_fails_leaves_what_was_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = published(home)
    before = path.with_suffix(".safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        published(home, trained("resnet32"))
    with pytest.raises(OSError, match="No space left"):
        published(home)
    assert path.with_suffix(".safetensors").read_bytes() == before
    assert sorted(file.name for file in home.iterdir()) == ["resnet20.pets.json", "resnet20.pets.safetensors"]


def test_a_card_that_does_not_fit_on_the_disk_leaves_earlier_weights_with_theirs(home: Path) -> None:
    path, limits = published(home), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = read_card(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(home, dataclasses.replace(before, license="long" * 3000), {"fc.weight": torch.zeros(3)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read(path)[0] == before and len(list(home.iterdir())) == 2


def add(path: Path, name: str) -> None:
    """Add an entry about the training to a card."""
    change_card(
        path, read_card(path).sha256, lambda card: dataclasses.replace(card, training=card.training | {name: 1})
    )


def test_two_changes_of_a_card_at_once_are_both_made(home: Path) -> None:
    path = published(home)
    other = Thread(target=add, args=(path, "second"))

    def slowly(card: Card) -> Card:
        other.start()
        other.join(0.3)  # it waits for the end of this change
        return dataclasses.replace(card, training=card.training | {"first": 1})

    change_card(path, read_card(path).sha256, slowly)
    other.join()
    assert read_card(path).training == {"epochs": 3, "first": 1, "second": 1} and len(list(home.iterdir())) == 2


def test_a_card_is_changed_on_a_disk_that_cannot_lock_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock) -> None:
        Path(lock.lock_file).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = published(home)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    add(path, "first")
    assert "first" in read_card(path).training and len(list(home.iterdir())) == 2


# Wrong and hostile files


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def test_a_flipped_bit_is_found(home: Path) -> None:
    path = published(home)
    file = path.with_suffix(".safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"is not the file that its card describes: .* get it again"):
        create("resnet20.pets")


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_file_is_found(home: Path, size: int) -> None:
    file = published(home).with_suffix(".safetensors")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match="is not the file that its card describes"):
        create("resnet20.pets")


def test_a_pickle_in_place_of_the_weights_is_not_run(home: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = published(home)
    data = pickle.dumps(Hostile())
    path.with_suffix(".safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is not the file"):
        create("resnet20.pets")
    change(path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))  # even with a card that fits
    with pytest.raises(Exception, match=r"(?i)header"):
        create("resnet20.pets")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sha256": "0" * 64}, "is not the file that its card describes"),
        ({"family": "Resnet"}, "no model family named 'Resnet'; did you mean ResNet"),
        ({"hparams": {"depth": 20, "_instantiator": "os.system"}}, "no option of ResNet in .* named '_instantiator'"),
        ({"hparams": {"depth": 32, "shortcut": "B"}}, "is the card of a resnet32, not of a resnet20"),
        ({"hparams": {"depth": 20, "shortcut": "B", "loss": {"class_path": "os.system"}}}, "system"),
        ({"name": "../resnet20.pets"}, "is the card of ../resnet20.pets; rename it back"),
        ({"parameters": "many"}, "parameters is 'many', not of type int"),
        ({"classes": "cat"}, "classes is 'cat', not of type list"),
        ({"more": 1}, "is not a complete card"),
    ],
)
def test_a_card_that_is_not_right_is_refused(home: Path, values: dict[str, Any], message: str) -> None:
    change(published(home), **values)
    with pytest.raises(ValueError, match=message):
        create("resnet20.pets")


def test_files_that_are_missing_or_no_cards(home: Path, tmp_path: Path) -> None:
    path = published(home)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="only their card; put the file beside it"):
        create("resnet20.pets")
    path.write_text("{")
    with pytest.raises(ValueError, match="is not a card"):
        read_card(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a complete card"):
        read_card(path)
    with pytest.raises(FileNotFoundError, match="there is no card"):
        load(tmp_path / "nothing.json")


def test_unknown_weights_are_answered_with_the_nearest(home: Path) -> None:
    published(home)
    with pytest.raises(ValueError, match=r"no published weight named 'resnet20.pet'; did you mean resnet20.pets"):
        create("resnet20", pretrained="pet")
    with pytest.raises(ValueError, match=r"no model named 'resnet21.pets'; did you mean resnet20.pets"):
        create("resnet21.pets")
    with pytest.raises(ValueError, match="already names its weights"):
        create("resnet20.pets", pretrained="cifar10")
    with pytest.raises(ValueError, match=r"put resnet32.pets.json and resnet32.pets.safetensors into"):
        create("resnet32.pets")


def test_weights_for_another_shape_are_refused(home: Path) -> None:
    published(home)
    with pytest.raises(ValueError, match="it has shortcut='B', but this one has shortcut='A'"):
        create("resnet20.pets", shortcut="A")
