"""A card and its file of weights cannot run code, fill the memory, or lead to other files."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.files.download import fetch
from cvcc_zoo.weights.card import read, write
from cvcc_zoo.zoo.published import read_published
from tests.reliability.hostile_helpers import CALL, answer, nothing_acts, safetensors  # noqa: F401  acts by itself
from tests.test_weights import card_of, change, home, published, trained  # noqa: F401  home is a fixture


def replace_weights(card: Path, data: bytes) -> None:
    """Another file, with a card that fits it."""
    card.with_suffix(".safetensors").write_bytes(data)
    change(card, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def small(home: Path, **options: Any) -> Path:  # noqa: F811
    return published(home, trained("linear", **options))


def with_hparams(path: Path, **changed: Any) -> None:
    change(path, hparams=json.loads(path.read_text())["hparams"] | changed)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../../linear.pets"}, "is the card of ../../linear.pets; rename it back"),
        ({"name": "/etc/linear.pets"}, "is the card of /etc/linear.pets; rename it back"),
        ({"name": "\x1b[2Jx"}, r"is the card of \x1b[2Jx; rename"),
        ({"size": -1}, "size is -1, not a count"),
        ({"size": 10**30}, "size is 1000000000000000000000000000000, not a count"),
        ({"parameters": True}, "parameters is True, not of type int"),
        ({"macs": 1.5}, "macs is 1.5, not of type int"),
        ({"macs": float("nan")}, "NaN is not valid JSON"),
        ({"macs": float("inf")}, "Infinity is not valid JSON"),
        ({"measured": {"test_accuracy": float("-inf")}}, "-Infinity is not valid JSON"),
        ({"measured": {"test_accuracy": 1e400}}, "is not valid JSON"),
        ({"measured": {"test_accuracy": "[red]"}}, "measured.test_accuracy is '[red]'"),
        ({"measured": {"correct": -5}}, "measured.correct is -5"),
        ({"measured": {"test_set": "CIFAR-10"}}, "measured.test_set is 'CIFAR-10', which is not a test set"),
        ({"measured": {"test_set": {"sha256": 1, "name": None, "images": 3}}}, "which is not a test set"),
        ({"measured": {"test_set": {"sha256": "0", "name": None}}}, "which is not a test set"),
        ({"measured": {"calibration": {"temperature": 0}}}, "is {'temperature': 0}, without a valid temperature"),
        ({"measured": {"calibration": [1.5]}}, "is [1.5], without a valid temperature"),
        ({"classes": [1, 2, 3]}, "a class is 1, but classes are names"),
        ({"classes": ["cat"]}, "names 1 classes, not 3"),
        ({"family": "evil_module.Optimizer"}, "no model family named 'evil_module.Optimizer'"),
        ({"family": "x" * 10**6}, "no model family named 'xxx"),
        ({"hparams": {}}, "its hparams have no num_classes"),
        ({"hparams": {"num_classes": 3, "whitening": CALL}}, "have 'class_path'"),
        ({"hparams": {"optimizer": {"inner": CALL}}}, "have 'class_path'"),
        ({"hparams": {"_instantiator": "evil_module.build"}}, "named '_instantiator'"),
        ({"hparams": {"augmentations": [CALL]}}, "named 'augmentations'"),
    ],
)
def test_a_hostile_card_is_refused_in_words(
    home: Path,  # noqa: F811
    values: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = small(home)
    change(path, **values)
    for way in (lambda: create("linear.pets"), lambda: load(path), lambda: read_published(path)):
        with pytest.raises(ValueError, match=r"linear\.pets|model family") as caught:
            way()
        assert message in str(caught.value)
    assert message in answer(capsys, "predict", str(path), "a.png")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_classes": 10**9}, "num_classes is 1000000000, but files may have"),
        ({"num_classes": 5_000}, "is (3, 192), not (5000, 192)"),
        ({"image_size": 10**6}, "image_size is 1000000, but files may have"),
        ({"in_channels": 10**6}, "is not a complete Linear"),
        ({"in_channels": -1}, "in_channels must be at least 1"),
        ({"image_size": "8"}, "image_size is '8'"),
        ({"whitening": 5}, "is not a complete Linear"),
        ({"whitening": {"name": "zca", "eps": "much"}}, "is not a complete Linear"),
        ({"optimizer": {"name": "SGD", "lr": [[[[[[[[[[[1]]]]]]]]]]]}}, "10 levels deep"),
        ({"optimizer": None}, "optimizer must be a name"),
        ({"freeze": 2**70}, "a number of 71 bits"),
    ],
)
def test_hyper_parameters_that_are_not_those_of_the_weights_are_refused(
    home: Path,  # noqa: F811
    changed: dict[str, Any],
    message: str,
) -> None:
    path = small(home)
    with_hparams(path, **changed)
    with pytest.raises(ValueError) as caught:
        load(path)
    assert message in str(caught.value) and "linear.pets.json" in str(caught.value)


def test_a_card_is_bounded_in_depth_and_size(home: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    path = small(home)
    path.write_text('{"a":' * 100_000)
    assert "is not a card: maximum recursion depth" in answer(capsys, "evaluate", str(path))
    path.write_bytes(b"\xff\xfe")
    assert "is not a card" in answer(capsys, "evaluate", str(path))
    path.write_bytes(bytes(33 << 20))
    assert "is not a card: it has more than 33,554,432 bytes" in answer(capsys, "list", "--pretrained")


HEADER = {"network.fc.weight": {"dtype": "F32", "shape": [3, 192], "data_offsets": [0, 2304]}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (safetensors(2**60, encoded=b"{}"), "has no readable tensors"),
        (safetensors(HEADER, bytes(100)), "has no readable tensors"),
        (
            safetensors({"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}),
            "has no readable tensors",
        ),
        (safetensors({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "has no readable tensors"),
        (
            safetensors({"a": {"dtype": "evil_module", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
            "has no readable tensors",
        ),
        (safetensors(HEADER, bytes(2304)), "'network.fc.bias' is missing"),
        (
            safetensors({"a": {"dtype": "F32", "shape": [0, 10**15], "data_offsets": [0, 0]}}),
            "fc.bias' is missing, and",
        ),
        (b"", "has no readable tensors"),
    ],
)
def test_hostile_files_of_weights_are_refused_even_with_a_card_that_fits(
    home: Path,  # noqa: F811
    data: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = small(home)
    replace_weights(path, data)
    assert message in answer(capsys, "predict", str(path), "a.png")


def test_a_file_of_weights_larger_than_its_card_says_is_not_read(home: Path) -> None:  # noqa: F811
    path = small(home)
    os.truncate(path.with_suffix(".safetensors"), 10**13)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"it has 10,000,000,000,000 bytes, not .* get it again"):
        read(path)


@pytest.mark.parametrize("wrong", ["mean", "matrix", "spectrum"])
def test_statistics_of_a_whitening_have_the_size_of_its_images(home: Path, wrong: str) -> None:  # noqa: F811
    model = trained("linear", whitening={"name": "zca", "eps": 0.1, "scope": "channel_values"})
    model.whitening.fit(torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8))
    state = model.state_dict()
    path = write(home, card_of(model), state)
    assert load(path).whitening.fitted
    state[f"whitening.{wrong}"] = torch.zeros(7, 7, 7)
    with pytest.raises(ValueError, match=rf"'whitening.{wrong}' is \(7, 7, 7\), not \(1, "):
        load(write(home, card_of(model), state))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/etc/hostname", "is not the address of a file"),
        ("../../linear.pets.safetensors", "is not the address of a file"),
        ("ftp://x.org/a", "is not the address of a file"),
        ("http://x.org/a b\r\nHost: y", "is not the address of a file"),
        ("hf://../../evil", "the Hub has hf://owner/name"),
        ("hf://me/zoo/../../evil", "the Hub has hf://owner/name"),
        ("hf://me/zoo?x=", "the Hub has hf://owner/name"),
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(home: Path, url: str, message: str) -> None:  # noqa: F811
    path = small(home)
    path.with_suffix(".safetensors").unlink()
    change(path, url=url)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_local_file_is_not_copied_and_a_huge_one_not_asked_for(home: Path, tmp_path: Path) -> None:  # noqa: F811
    path = small(home)
    path.with_suffix(".safetensors").unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(json.loads(path.read_text())["size"]))
    change(path, url=secret.as_uri())
    with pytest.raises(ValueError, match=r"is not the file that was asked for: .* nothing was saved"):
        load(path)
    assert sorted(file.name for file in home.glob("[!.]*")) == ["linear.pets.json"]
    change(path, size=10**15)
    with pytest.raises(ValueError, match="more than 4,294,967,296 are not downloaded"):
        load(path)


def test_the_token_of_the_hub_is_not_sent_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def asked(_: Any, request: Any, timeout: float) -> Any:
        sent.append((request.full_url, request.get_header("Authorization")))
        raise ConnectionError("no network")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", asked)
    monkeypatch.setenv("HF_TOKEN", "secret")
    for url in ("hf://me/zoo", "http://huggingface.co/a", "https://huggingface.co@x.org/a"):
        with pytest.raises(ValueError, match="cannot be downloaded"):
            fetch(url, tmp_path / "a", "0" * 64, 1)
    assert [token for _, token in sent] == ["Bearer secret", None, None]
    assert sent[0][0] == "https://huggingface.co/me/zoo/resolve/main/a"


@pytest.mark.parametrize("tag", ["../../evil", "/etc/evil"])
def test_a_tag_does_not_lead_out_of_the_folder(home: Path, tag: str) -> None:  # noqa: F811
    model = trained("linear")
    card = card_of(model)
    with pytest.raises(ValueError, match="is not a file name; choose a tag without folders"):
        write(home, type(card)(**{**vars(card), "name": f"linear.{tag}"}), model.state_dict())
    assert not home.exists()


def test_what_a_card_says_is_printed_as_it_is(
    home: Path,  # noqa: F811
    colours: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split in ("train", "test"):
        shutil.copytree(colours / split / "red", colours / split / "c")
        (colours / split / "red").rename(colours / split / "[b]")
        (colours / split / "blue").rename(colours / split / "[i]")
    path = small(home)
    change(path, dataset="[/red] [link=x]", classes=["[b]", "[i]", "c"])
    assert main(["evaluate", str(path), "--data.dataset=folder", f"--data.root={colours}"]) == 1
    printed = capsys.readouterr().out
    assert "trained on [/red] [link=x]," in printed
    change(path, classes=["[b]", "[/]", "c"])
    assert main(["evaluate", str(path), "--data.dataset=folder", f"--data.root={colours}"]) == 2
    assert "'[i]' is unexpected and '[/]' is missing" in capsys.readouterr().err
