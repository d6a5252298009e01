"""What the documentation says is so."""

import re
import subprocess
import sys
from pathlib import Path

import cvcc_zoo
from cvcc_zoo.registry import ENTRIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_map_has_a_line_for_every_file() -> None:
    listed = {line.split()[0] for line in README.split("## Map")[1].splitlines() if line.startswith("  ")}
    package = Path(cvcc_zoo.__file__).parent
    files = {path.name for path in package.rglob("*.py") if path.name != "__init__.py" and path.name != "make.py"}
    assert files <= listed
    assert {name for name in listed if name.endswith(".py")} <= files | {"__init__.py"}


def test_the_table_of_models_is_complete_and_right() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", README, flags=re.MULTILINE))
    assert rows == {name: f"{entry.parameters:,}" for name, entry in ENTRIES.items()}


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(pictures) == 2 and all((ROOT / picture).is_file() for picture in pictures)


def test_the_model_of_the_contributing_guide_works_as_it_stands(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[0]
    (tmp_path / "tiny.py").write_text(code)
    check = "import tiny, cvcc_zoo; m = cvcc_zoo.create('tiny16'); print(sum(p.numel() for p in m.parameters()))"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "602"), done.stderr
