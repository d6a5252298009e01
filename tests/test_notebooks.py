"""The notebooks are committed as they ran, and say what the course says and what is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """Its cells of a kind, with their text in one piece."""
    found = json.loads(path.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


def test_there_is_one_for_each_part_of_the_course() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, 9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_run_from_top_to_bottom_without_an_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert code[0]["source"].startswith("%matplotlib inline\n") and "CVCC_ZOO_FAST" in code[0]["source"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_shows_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"/(home|root|work|tmp|Users)/", re.sub(r'"image/png": "[^"]*"', "", text))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_compares_with_the_course_and_ends_with_two_exercises(path: Path) -> None:
    texts = [cell["source"] for cell in cells(path, "markdown")]
    assert texts[0].startswith(f"# {int(path.name[:2])}. ") and "| the course says | what is right |" in texts[0]
    assert re.search(r"[\u4e00-\u9fff]", texts[0])  # the course's terms
    exercises = texts[-1].partition("## Exercises\n")[2]
    assert re.findall(r"^(\d)\. ", exercises, flags=re.MULTILINE) == ["1", "2"]
