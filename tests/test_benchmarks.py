"""The benchmark's page says what was measured, and its targets are judged as they read."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_training, inference, lightning_cost, quick, rates, run, timm_script
from benchmarks.page import CPU, TOPICS, Content, page, place, places, write_page
from benchmarks.rates import Rates, length
from benchmarks.report import Found, Row, draw_curves, draw_ratios, save
from benchmarks.run import main
from benchmarks.sides import Settings
from benchmarks.turns import Turns
from cvcc_zoo import create
from cvcc_zoo.printing import progress
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


def measured(machine: str, date: str, **limits: float) -> dict[str, object]:
    return {"machine": machine, "versions": "torch 2", "limits": limits, "date": date}


def test_a_topic_replaces_its_own_numbers_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    save(file, "startup", measured("A", "1"), Found([Row("a", "s", 1.0)]))
    save(file, "memory", measured("A", "2"), Found([Row("b", "MB", 2.0)]))
    content = save(file, "startup", measured("A", "3"), Found([Row("c", "s", 3.0, "x", 6.0, least=3.0)]))
    assert json.loads(file.read_text()) == json.loads(json.dumps(content))
    shown = page(content)
    assert "| c | s | 3 | x: 6 | 2.00x | 3x | **missed** |" in shown and "| b |" in shown and "| a |" not in shown


def test_a_machine_has_one_table_with_versions_limits_and_dates(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    save(file, "startup", measured("A", "2026-01-02", copies=9.0), Found([Row("a", "s", 1.0)]))
    save(file, "network_share_gpu", measured("B", "2026-01-05"), Found([Row("b", "%", 1.0)]))
    content = save(file, "memory", measured("A", "2026-01-01", copies=7.0), Found([Row("c", "MB", 1.0)]))
    shown = page(content)
    assert shown.count("### A\n") == shown.count("### B\n") == 1
    assert "*torch 2; copies 7 to 9 GB/s; 2026-01-01 to 2026-01-02*" in shown and "*torch 2; 2026-01-05*" in shown
    first, second = shown.index("### A\n"), shown.index("### B\n")
    assert first < shown.index("| a |") < shown.index("| c |") < second < shown.index("| b |")


def test_the_numbers_of_several_machines_stand_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    curve = {"images": {"x": [1.0, 10.0], "measured": [2.0, 2.1]}}
    for machine, each, missing in [("A", 1.0, ["x", "y"]), ("B", 2.0, ["x"]), ("A", 3.0, ["x", "z"])]:
        row = Row("a", "s", each, "other", 6.0)
        content = save(file, "training", measured(machine, "1"), Found([row], [], curve, missing))
    shown = page(content)
    assert shown.index("### B\n") < shown.index("| a | s | 2 | other: 6 | 3.00x |")
    assert shown.index("### A\n") < shown.index("| a | s | 3 | other: 6 | 2.00x |") and "| a | s | 1 |" not in shown
    assert "- training on a CPU: 2.0 to 3.0 times" in shown
    listed = shown.partition("## Not measured yet")[2].partition("## How")[0]
    assert "# Training on a CPU: x\n" in listed and not any(f"a CPU: {one}" in listed for one in "yz")
    write_page(content, tmp_path)
    for picture in ("pictures/training.png", "pictures/training-2.png"):
        assert (tmp_path / picture).is_file() and f"({picture})" in shown


def test_what_is_not_measured_is_listed_with_its_command(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    content: Content = {}
    for key, (topic, *_) in places().items():
        missing = ["the engines"] if topic == "inference" else []
        if key not in ("gpu_training/resnet18-512", "network_share_gpu"):
            content = save(file, key, measured("A", "1"), Found([], missing=missing))
    listed = page(content).partition("## Not measured yet")[2].partition("## How")[0]
    commands = [line for line in listed.splitlines() if line.startswith("python -m benchmarks.run")]
    assert [command.split()[3:5] for command in commands] == [
        ["--only=gpu_training", "--lines=resnet18-512"],
        ["--only=network_share", "--dataset=folder"],
        ["--only=inference", "--dataset=folder"],
    ]
    assert "# Evaluation and inference: the engines\n" in listed and "training step on a GPU\n" in listed


def test_columns_without_values_are_left_out(tmp_path: Path) -> None:
    table = [["", "speed", "accuracy"], ["eager", "1", ""], ["", "2", ""]]
    content = save(tmp_path / "found.json", "inference", measured("A", "1"), Found([], [table]))
    assert "|  | speed |\n|---|---:|\n| eager | 1 |\n|  | 2 |\n" in page(content)


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    rows = [Row("a", "s", 1.0, "x", 2.0, least=1.5), Row("b", "s", 1.0), Row("c", "s", 1.0, "x", 0.5)]
    content = save(tmp_path / "found.json", "startup", measured("A", "1"), Found(rows))
    draw_ratios(content["startup"], tmp_path / "ratios.png")
    draw_curves({"images": {"x": [1.0, 10.0], "measured": [2.0, 2.1], "expected": [2.0, 2.0]}}, tmp_path / "curves.png")
    assert (tmp_path / "ratios.png").stat().st_size > 5000 and (tmp_path / "curves.png").stat().st_size > 5000


def test_the_page_is_made_of_the_numbers_beside_it() -> None:
    content = json.loads((DOCS / "performance.json").read_text())
    assert set(content) <= set(places())
    assert (DOCS / "performance.md").read_text() == page(content)


def test_a_training_run_is_as_long_as_wanted_in_at_least_two_epochs() -> None:
    few, many = length(6_000, 150_000, 128), length(50_000, 12_000, 128)
    assert (few.epochs, few.batches, few.limited) == (25, 46, False)
    assert (many.epochs, many.batches, many.limited) == (2, 46, True) and many.images == 2 * 46 * 128
    with pytest.raises(ValueError, match="fewer than a batch of 128; use more images"):
        length(100, 12_000, 128)


def test_a_rate_is_the_median_of_runs_that_take_turns() -> None:
    called: list[str] = []

    def side(name: str, values: list[float]) -> Rates:
        called.append(name)
        value = values[called.count(name) - 1]
        return Rates(value, 10 * value, 100 * value)

    sides = {"a": lambda: side("a", [3.0, 1.0, 2.0]), "b": lambda: side("b", [4.0, 6.0, 5.0])}
    assert rates.in_turns(sides, 3) == {"a": Rates(2.0, 20.0, 200.0), "b": Rates(5.0, 50.0, 500.0)}
    assert "".join(called) == "ababab"


LOG = """
Train: 0 [   0/390 (  0%)]  Loss: 2.30 (2.30)  Time: 9.000s,   14.22/s  (9.000s,   14.22/s)  LR: 1.000e-03  Data: 1 (1)
Train: 1 [   0/390 (  0%)]  Loss: 2.30 (2.30)  Time: 1.000s,  128.00/s  (1.000s,  128.00/s)  LR: 1.000e-03  Data: 1 (1)
Train: 1 [ 389/390 (100%)]  Loss: 1.30 (1.50)  Time: 0.010s, 12800.00/s  (0.020s, 6400.00/s)  LR: 1e-03  Data: 0 (0)
Train: 2 [ 389/390 (100%)]  Loss: 1.30 (1.50)  Time: 0.010s, 12800.00/s  (0.040s, 3200.00/s)  LR: 1e-03  Data: 0 (0)
"""


def test_the_rate_of_timms_script_is_that_of_all_epochs_but_the_first() -> None:
    assert timm_script.steady_rate(LOG) == pytest.approx(2 / (1 / 6400 + 1 / 3200))
    with pytest.raises(RuntimeError, match="no rates of a second epoch"):
        timm_script.steady_rate(LOG[:150])


def test_a_line_on_a_gpu_is_compared_with_both_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_training, "ours", lambda *args: Rates(2.0, 80.0 if len(args) == 5 else 40.0, 1.0))
    monkeypatch.setattr(gpu_training, "theirs", lambda *args: Rates(1.0, 10.0, 1.0))
    monkeypatch.setattr(gpu_training, "train", lambda *args: Rates(1.0, 20.0, 1.0))
    settings = Settings("folder", None, 1, 1, timm_train=Path("train.py"))
    rows = gpu_training.compare(gpu_training.Line("resnet20", 512), settings, 50_000)
    assert [(row.against, row.ratio, row.reached) for row in rows] == [
        ("the usual script", 8.0, True), ("the usual script", 2.0, None), ("timm's train.py", 4.0, None),
        ("the usual script", 4.0, None), ("the usual script", 2.0, None), ("timm's train.py", 2.0, None),
    ]  # fmt: skip


def test_quick_prints_a_table_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[Row("a", "s", 1.0, limit=2.0)], [Row("b", "images/s", 3.0, "x", 2.0, least=2.0), Row("c", "s", 1.0)]]
    seen: list[Settings] = []

    def measure(settings: Settings) -> list[list[Row]]:
        seen.append(settings)
        return rows

    monkeypatch.setattr(quick, "measure", measure)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.4, 0.4, 0.4))
    monkeypatch.setattr(run, "write_page", lambda *args: pytest.fail("writes"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["--quick"]) == 0 and not list(Path().iterdir())
    shown = capsys.readouterr().out
    assert "1 of 2 targets are reached." in shown and "1.50x" in shown and "missed" in shown
    assert (seen[0].dataset, seen[0].repeats) == ("fashion-mini", 1)
    assert "Other programs" not in shown
    monkeypatch.setattr(os, "getloadavg", lambda: (3.2, 0.4, 0.4))
    assert main(["--quick", f"--root={colours}", "--repeats=2"]) == 0
    before, _, after = capsys.readouterr().out.partition("┏")
    assert "Other programs had 3 busy threads in the last minute" in before and "; stop them first" in before
    assert "Other programs had 3 busy threads at the start" in after and ": measure again without them" in after
    assert (seen[1].dataset, seen[1].repeats) == ("folder", 2)


def test_numbers_carry_the_threads_with_which_they_were_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, wanted = torch.get_num_threads(), torch.get_num_threads() + 1
    seen: list[int] = []

    def fake(*args: object) -> dict[str, float]:
        seen.append(torch.get_num_threads())
        return {"ours": 2.0, "bare": 1.0}

    monkeypatch.setattr(run, "limits", fake)
    monkeypatch.setattr(lightning_cost, "alternate", fake)
    monkeypatch.setattr("benchmarks.startup.measure", lambda settings: Found([Row("a", "s", fake()["ours"])]))
    monkeypatch.setattr(run, "write_page", lambda *args: None)
    options = ["--dataset=fashion-mini", f"--threads={wanted}", f"--docs={tmp_path}"]
    assert main(["--only=lightning_cost,startup", *options]) == 0
    content = json.loads((tmp_path / "performance.json").read_text())
    machines = [content[topic][0]["machine"] for topic in ("lightning_cost", "startup")]
    assert all(f", {wanted} threads, " in machine for machine in machines)
    assert set(seen) == {wanted} and torch.get_num_threads() == before


def test_freed_memory_is_kept_before_any_topic_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: seen.append("kept"))
    monkeypatch.setattr(run, "measure_all", lambda *args: seen.append("all"))
    monkeypatch.setattr(run, "measure_quickly", lambda *args: seen.append("quick"))
    assert main(["--only=startup", f"--docs={tmp_path}"]) == 0 and main(["--quick"]) == 0
    assert seen == ["kept", "all", "kept", "quick"]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only=startup,speed"], "there is no topic speed; choose from training"),
        (["--lines=resnet20"], "there is no line resnet20; choose from resnet20-128"),
        (["--quick", "--only=startup"], "--quick chooses its own topics and only prints them; leave out --only"),
        (["--timm_train=train.py", "--quick"], "there is no file train.py; `git clone https://github.com/huggingface/"),
        (["--only=startup", "--lines=resnet20-128"], "training on a GPU, which --only leaves out; leave them out"),
        (
            ["--only=startup", "--small"],
            "the numbers of --small mean nothing; name another folder for them with --docs",
        ),
        (["--only=startup", "--repeats=0"], "--repeats and --threads must be at least 1"),
        (["--quick", "--root=nowhere"], "the image folder nowhere does not exist in "),
    ],
)
def test_wrong_options_are_refused(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "measure_quickly", lambda *args: pytest.fail("measures"))
    monkeypatch.setattr(run, "measure_all", lambda *args: pytest.fail("measures"))
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("more", [[], ["--timm_train=nowhere/train.py"]])
def test_training_on_a_gpu_without_one_is_refused(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only=gpu_training", *more])
    assert "gpu_training needs a GPU that torch can use; add --small to try it on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize("side", ["ours", "eager"])
def test_the_processes_that_evaluate_draw_no_bars(
    side: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PATIENCE", "EVERY"):
        monkeypatch.setattr(progress, name, 0.0)  # everything would be shown
    monkeypatch.setattr(inference, "keep_freed_memory", lambda: True)
    waiting = [True, False]
    connection = SimpleNamespace(recv=lambda: waiting.pop(0), send=float)
    inference.turns(connection, side, "linear", Settings("fashion-mini", None, 1, torch.get_num_threads()))
    assert not waiting and capsys.readouterr().err == ""


@pytest.fixture
def small(make_folder: MakeFolder) -> list[str]:
    classes = create("resnet20.cifar10").classes  # so that published weights are measured
    data = ["--dataset=folder", f"--root={make_folder(size=32, classes=classes)}"]
    return ["--small", "--repeats=1", "--threads=1", *data]


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_runs_and_writes_its_part_of_the_page(topic: str, small: list[str], tmp_path: Path) -> None:
    if topic == "inference":
        pytest.importorskip("onnxruntime")
    if topic == "gpu_training" and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    line = ["--lines=resnet20-128"] if topic == "gpu_training" else []
    assert main([f"--only={topic}", *line, f"--docs={tmp_path}", *small]) == 0
    content = json.loads((tmp_path / "performance.json").read_text())
    device = CPU if CPU in TOPICS[topic] and not torch.cuda.is_available() else TOPICS[topic][-1]
    key = place(topic, device, "resnet20-128" if topic == "gpu_training" else "")
    assert content[key][0]["rows"] and (tmp_path / "pictures" / "performance.png").is_file()
    assert (tmp_path / "performance.md").read_text() == page(content)


@pytest.mark.slow
def test_quick_measures_each_of_its_topics(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", *small]) == 0
    table = capsys.readouterr().out.partition("┏")[2]
    for what in (
        "cvcc-zoo --help",
        "fit linear",
        "fit resnet20: peak memory",
        "augmentations: none",
        "evaluate resnet20",
    ):
        assert what in table
