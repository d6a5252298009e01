"""What the package publishes is whole, small, and in the README as it was measured."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from benchmarks.leaderboard import AIMS, ELSEWHERE, ENGLISH, KINDS, PAGES, recipe_of, robustness, row, with_tables
from cvcc_zoo import load
from cvcc_zoo.data.corruptions import CORRUPTIONS
from cvcc_zoo.data.known import KNOWN
from cvcc_zoo.registry import find
from cvcc_zoo.weights.card import PUBLISHED, read, read_card
from cvcc_zoo.zoo.catalogue import complexity

ROOT = Path(__file__).parents[1]
CARDS = sorted(PUBLISHED.glob("*.json"))
LARGEST, ALL = 25e6, 95e6  # bytes


@pytest.mark.parametrize("page", PAGES)
def test_the_leaderboards_are_those_of_the_cards(page: str) -> None:
    text = (ROOT / page).read_text()
    assert with_tables(text, PAGES[page]) == text
    names = {path.stem for path in CARDS}
    if page == "docs/recipes.md":
        names = {recipe_of(read_card(path)) for path in CARDS}
    elif page == "docs/weights.md":
        names = {path.stem for path in CARDS if path.stem.endswith(".cifar10")}
    assert all(f"| `{name}`" in text for name in names)


def test_the_mean_under_corruption_is_that_of_its_kinds() -> None:
    assert sorted(name for names in KINDS.values() for name in names) == sorted(CORRUPTIONS)
    for line in robustness(ENGLISH).splitlines()[2:]:
        if line.startswith("|"):
            _, mean, *kinds = [float(share) for share in re.findall(r"([\d.]+) %", line)]
            assert len(kinds) == len(KINDS) and sum(kinds) / len(kinds) == pytest.approx(mean, abs=0.011)


def test_a_line_of_the_leaderboard_has_what_a_card_says() -> None:
    card = read_card(PUBLISHED / "resnet20.cifar10.json")
    seeds = {"0": 0.92, "1": 0.93, "2": 0.94}
    changed = dataclasses.replace(
        card,
        measured=card.measured | {"test_accuracy": 0.9234, "top5_accuracy": 0.998, "corruptions": {"mean": 0.701}},
        training=card.training | {"test_accuracy_of_seeds": seeds},
        macs=40_813_184,
        size=1_108_400,
    )
    assert row(changed)[1:] == [
        "92.34 %", "93.00 ± 1.00 %", "99.80 %", "70.10 %", "94.03 %", "94.10 %", "272,474", "40.81 M", "1.11"
    ]  # fmt: skip
    two = dataclasses.replace(changed, training=card.training | {"test_accuracy_of_seeds": {"0": 0.92, "1": 0.93}})
    assert row(two)[2] == "-"  # the column says "three seeds"


def test_weights_are_listed_with_the_recipe_that_trained_them() -> None:
    card = read_card(PUBLISHED / "resnet20.cifar10.json")
    assert recipe_of(card) == "cifar10/resnet20"
    short = dataclasses.replace(card, training=card.training | {"epochs": 3})
    with pytest.raises(ValueError, match=r"no recipe trains resnet20.cifar10 as its card says: 3 epochs with \{"):
        recipe_of(short)


def test_what_is_published_elsewhere_and_aimed_at_are_percents_of_registered_models() -> None:
    for name, value in [*ELSEWHERE.items(), *AIMS.items()]:
        model, _, tag = name.partition(".")
        assert find(model).name == model and tag in ("cifar10", "cifar100") and 10 < value < 100


def test_a_page_without_a_place_for_the_leaderboard_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for a table"):
        with_tables("# A page", ENGLISH)
    with pytest.raises(ValueError, match="has one <!-- leaderboard"):
        with_tables("<!-- leaderboard: python -m benchmarks.leaderboard -->", ENGLISH)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_published_weights_are_whole(path: Path) -> None:
    card, tensors = read(path)
    model = load(path)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert (complexity(model).parameters, complexity(model).macs) == (card.parameters, card.macs)
    assert find(card.name.partition(".")[0]) and len(card.classes) == model.num_classes
    measured = card.measured
    confusion = torch.tensor(measured["confusion"])
    assert int(confusion.trace()) == measured["correct"] and int(confusion.sum()) == measured["test_images"] == 10_000
    assert card.dataset == card.tested_on == {known.tag: known.title for known in KNOWN}[card.name.partition(".")[2]]
    assert measured["test_accuracy"] == measured["correct"] / measured["test_images"]
    assert card.training["tested"] == "the weights of the last step"
    assert card.training["recipe"]["data"]["validation"] == 0
    assert measured["test_set"]["name"] == {known.tag: known.title for known in KNOWN}[card.name.partition(".")[2]]
    assert measured["test_set"]["sha256"] in {known.test for known in KNOWN}
    assert ("top5_accuracy" in measured) == (len(card.classes) >= 20)
    assert list(measured["per_class"]) == card.classes
    assert 0 < measured["mirrored_accuracy"] < 1 and measured["images_per_second"] > 0 and measured["hardware"]
    assert card.license and "/" not in str(card.training["recipe"]["trainer"])
    logits = model(
        torch.randint(0, 256, (2, model.in_channels, 32, 32), dtype=torch.uint8)[
            ..., : model.image_size, : model.image_size
        ]
    )
    assert logits.shape == (2, len(card.classes)) and torch.isfinite(logits).all()


def test_the_files_are_small_and_none_stands_alone() -> None:
    files = sorted(PUBLISHED.glob("*.safetensors"))
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) <= LARGEST and sum(sizes) <= ALL
    assert [file.stem for file in files] == [path.stem for path in CARDS]
