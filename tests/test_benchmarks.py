"""The benchmark's page says what was measured, and its targets are judged as they read."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.report import GPU, Found, Row, draw_curves, draw_ratios, page, save
from benchmarks.run import INTRODUCTION, TOPICS, main, texts
from benchmarks.turns import Turns
from tests.conftest import MakeFolder

DOCS = Path(__file__).parents[1] / "docs"


def test_of_a_rate_more_is_better_and_of_all_else_less() -> None:
    assert Row("", "images/s", 30.0, "other", 20.0).ratio == pytest.approx(1.5)
    assert Row("", "s", 20.0, "other", 30.0).ratio == pytest.approx(1.5)
    assert Row("", "s", 20.0).ratio is None


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("", "images/s", 30.0, "other", 20.0, least=1.5), True),
        (Row("", "images/s", 29.0, "other", 20.0, least=1.5), False),
        (Row("", "ms", 0.8, limit=0.8), True),
        (Row("", "ms", 0.81, limit=0.8), False),
        (Row("", "%", 90.1, limit=90.0), True),
        (Row("", "%", 89.9, limit=90.0), False),
        (Row("", "s", 1.0, "other", 2.0), None),
    ],
)
def test_a_target_is_judged_in_the_direction_of_its_unit(row: Row, reached: bool | None) -> None:
    assert row.reached is reached
    assert ("missed" in row.cells()[-1]) is (reached is False)


def test_a_topic_replaces_its_own_numbers_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    save(file, "startup", {"about": "then"}, Found([Row("a", "s", 1.0)]))
    save(file, "memory", {"about": "now"}, Found([Row("b", "MB", 2.0)]))
    content = save(file, "startup", {"about": "now"}, Found([Row("c", "s", 3.0, "x", 6.0, least=3.0)]))
    assert json.loads(file.read_text()) == json.loads(json.dumps(content))
    shown = page(content, {"memory": "Memory.\n\nOf a process.", "startup": "Start."}, "# Speed")
    assert shown.index("## Memory") < shown.index("Of a process.") < shown.index("## Start")
    assert "| c | s | 3 | x: 6 | 2.00x | 3x | **missed** |" in shown and "| a |" not in shown


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    rows = [Row("a", "s", 1.0, "x", 2.0, least=1.5), Row("b", "s", 1.0), Row("c", "s", 1.0, "x", 0.5)]
    content = save(tmp_path / "found.json", "startup", {"about": ""}, Found(rows))
    draw_ratios(content, tmp_path / "ratios.png")
    draw_curves({"images": {"x": [1.0, 10.0], "measured": [2.0, 2.1], "expected": [2.0, 2.0]}}, tmp_path / "curves.png")
    assert (tmp_path / "ratios.png").stat().st_size > 5000 and (tmp_path / "curves.png").stat().st_size > 5000


def test_the_page_is_made_of_the_numbers_beside_it() -> None:
    content = json.loads((DOCS / "performance.json").read_text())
    assert {topic.removesuffix(GPU) for topic in content} <= set(TOPICS)
    assert (DOCS / "performance.md").read_text() == page(content, texts(), INTRODUCTION)


def test_of_two_that_take_turns_one_works_and_waiting_is_not_counted(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def work(name: str) -> tuple[float, float]:
        with Turns(tmp_path / "turns", length=0.05) as turns:
            start = time.perf_counter()
            for _ in range(20):
                turns.next()
                seen.append((name, "from"))
                time.sleep(0.01)
                seen.append((name, "to"))
            return time.perf_counter() - start, turns.waited

    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        worked = [whole - waited for whole, waited in pool.map(work, "ab")]
    assert sum(worked) < time.perf_counter() - start and min(worked) >= 0.2
    assert all(here[0] == there[0] for here, there in zip(seen[::2], seen[1::2], strict=True))
    assert sum(here[0] != there[0] for here, there in pairwise(seen)) >= 4


def test_an_unknown_topic_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only=startup,speed"])
    assert "there is no topic speed; choose from training" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_runs_and_writes_its_part_of_the_page(topic: str, make_folder: MakeFolder, tmp_path: Path) -> None:
    if topic == "inference":
        pytest.importorskip("onnxruntime")
    classes = [f"class{number}" for number in range(10)]  # as many as the published models have
    data = ["--dataset=folder", f"--root={make_folder(size=32, classes=classes)}"]
    assert main([f"--only={topic}", "--small", "--repeats=1", "--threads=1", f"--docs={tmp_path}", *data]) == 0
    content = json.loads((tmp_path / "performance.json").read_text())
    assert content[topic]["rows"] and (tmp_path / "pictures" / "performance.png").is_file()
    assert (tmp_path / "performance.md").read_text() == page(content, texts(), INTRODUCTION)
