"""What the package publishes is whole, small, and in the README as it was measured."""

from pathlib import Path

import pytest
import torch

from benchmarks.leaderboard import HEADERS, with_leaderboard
from cvcc_zoo import load
from cvcc_zoo.registry import find
from cvcc_zoo.weights import PUBLISHED, read
from cvcc_zoo.zoo import complexity

ROOT = Path(__file__).parents[1]
CARDS = sorted(PUBLISHED.glob("*.json"))
LARGEST, ALL = 10e6, 45e6  # bytes


@pytest.mark.parametrize("page", HEADERS)
def test_the_leaderboard_is_that_of_the_cards(page: str) -> None:
    text = (ROOT / page).read_text()
    assert with_leaderboard(text, HEADERS[page]) == text
    assert all(f"| `{path.stem}` |" in text for path in CARDS)


def test_a_page_without_a_place_for_the_leaderboard_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one"):
        with_leaderboard("# A page", HEADERS["README.md"])


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
    assert measured["test_accuracy"] == measured["correct"] / measured["test_images"]
    assert card.training["tested"] == "the weights of the last step"
    assert card.training["recipe"]["data"]["validation"] == 0
    if card.training["recipe"]["data"]["dataset"] == "folder":
        assert "copy" in card.dataset
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
