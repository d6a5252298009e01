"""The notebooks are committed as they ran, and say what the course says and what is right."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvcc_zoo.weights.card import PUBLISHED, read_card

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """Its cells of a kind, with their text in one piece."""
    found = json.loads(path.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


def test_there_is_one_for_each_part_of_the_course() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, 9)]


def check(rules: Callable[[Path], dict[str, bool]]) -> None:
    """All notebooks keep all rules; the failure lists every one that does not."""
    broken = [f"{path.name}: not {rule}" for path in NOTEBOOKS for rule, holds in rules(path).items() if not holds]
    assert not broken, "\n".join(broken)


def test_they_were_run_from_top_to_bottom_without_an_error() -> None:
    def rules(path: Path) -> dict[str, bool]:
        code = cells(path, "code")
        outputs = [output for cell in code for output in cell["outputs"]]
        first = code[0]["source"]
        return {
            "run in order": [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)),
            "without an error": not [output for output in outputs if output["output_type"] == "error"],
            "with a picture": any("image/png" in output.get("data", {}) for output in outputs),
            "inline": first.startswith("%matplotlib inline\n"),
            "quick with CVCC_ZOO_FAST": "CVCC_ZOO_FAST" in first,
        }

    check(rules)


def test_they_show_no_folder_of_a_machine() -> None:
    def rules(path: Path) -> dict[str, bool]:
        text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
        return {"without a folder": not re.search(r"/(home|root|work|tmp|Users)/", text)}

    check(rules)


def test_they_compare_with_the_course_and_end_with_two_exercises() -> None:
    def rules(path: Path) -> dict[str, bool]:
        texts = [cell["source"] for cell in cells(path, "markdown")]
        exercises = texts[-1].partition("## Exercises\n")[2]
        return {
            "numbered": texts[0].startswith(f"# {int(path.name[:2])}. "),
            "comparing with the course": "| the course says | what is right |" in texts[0],
            "with the course's terms": bool(re.search(r"[\u4e00-\u9fff]", texts[0])),
            "ending with two exercises": re.findall(r"^(\d)\. ", exercises, flags=re.MULTILINE) == ["1", "2"],
        }

    check(rules)


def test_they_describe_the_published_weights_as_their_cards_do() -> None:
    """Run notebooks 7 and 8 again after publishing weights."""
    listed = json.dumps(cells(NOTEBOOKS[7], "code")[0]["outputs"])
    words = re.sub(r"\s+", " ", cells(NOTEBOOKS[6], "markdown")[-1]["source"])
    told = re.findall(r"((?:`\w+`(?: and )?)+) for (\d+)", words)
    epochs = {name: int(count) for names, count in told for name in re.findall(r"`(\w+)`", names)}
    cards = {card.name: card for card in map(read_card, PUBLISHED.glob("*.json"))}
    for name, card in cards.items():
        where = f"{100 * card.measured['test_accuracy']:.2f} % of {card.tested_on}"
        note = "" if card.dataset == card.tested_on else f"; trained on {card.dataset}"
        assert f"{name:26s} {card.parameters:9,} parameters  {where}{note}\\n" in listed
    assert epochs == {name: cards[f"{name}.cifar10"].training["epochs"] for name in epochs} and "resnet56" in epochs


def test_contributing_lists_the_notebooks_that_show_published_weights() -> None:
    names = ["list_cards", *(f'"{path.stem}"' for path in PUBLISHED.glob("*.json"))]
    code = {path: "".join(cell["source"] for cell in cells(path, "code")) for path in NOTEBOOKS}
    numbers = [str(int(path.name[:2])) for path in NOTEBOOKS if any(name in code[path] for name in names)]
    asked = f"rerun notebooks {', '.join(numbers[:-1])} and {numbers[-1]}\n"
    assert asked in (FOLDER.parent / "CONTRIBUTING.md").read_text()
