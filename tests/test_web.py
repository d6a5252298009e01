"""The page for the browser gives the probabilities of `predict`, without a server, and holds names as text."""

import base64
import csv
import gzip
import io
import json
import math
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo import create
from cvcc_zoo.__main__ import main
from cvcc_zoo.commands import export as command
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.export import web
from cvcc_zoo.export.web import PARTS, Runtime, find_runtime, write_page
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.published import make_card
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import message

RUNTIME = Runtime(b"var ort = {};", b"export default 1;", b"\0asm")
PAD = {"data": {"resize": "pad", "background": "#336699"}}
CROP = {"data": {"resize": "crop", "background": "white"}}


def published(home: Path, classes: list[str], recipe: dict[str, Any], **options: Any) -> str:
    """A small model whose logits depend on the image, as published weights."""
    model = create("linear", num_classes=len(classes), **options)
    for parameter in model.network.parameters():
        parameter.data.normal_(std=0.02)
    shape = (2, model.in_channels, model.image_size, model.image_size)
    model.whitening.fit(torch.arange(math.prod(shape)).remainder(256).to(torch.uint8).reshape(shape))
    card = make_card(model, "pets", classes, dataset="Pets", measured={}, training={"recipe": recipe}, license="MIT")
    write(home, card, model.state_dict())
    return card.name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def element(page: str, name: str) -> str:
    """The text of an element by its id."""
    found = re.search(rf'id="{name}">(.*?)</', page, re.DOTALL)
    assert found
    return found[1]


def test_the_page_holds_program_runtime_and_names_that_cannot_end_its_script(home: Path, tmp_path: Path) -> None:
    classes = ["</script><script>alert(1)</script>", "<b>犬</b>", "@model@"]
    name = published(home, classes, PAD, image_size=8)
    page = write_page(find_trained(name), b"the program", tmp_path, RUNTIME).read_text()
    assert gzip.decompress(base64.b64decode(element(page, "model"))) == b"the program"
    assert gzip.decompress(base64.b64decode(element(page, "wasm"))) == RUNTIME.wasm
    card = json.loads(element(page, "card"))
    assert card["classes"] == classes and card["background"] == [0x33, 0x66, 0x99] and card["resize"] == "pad"
    assert "<script>var ort = {};</script>" in page and "alert(1)</script>" not in page


def test_the_page_asks_for_nothing_from_a_network() -> None:
    texts = [Path(web.__file__).with_name(f"web.{kind}").read_text() for kind in ("html", "js")]
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"]*", "".join(texts))
    assert addresses == ["https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters"]


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            file.addfile(entry, io.BytesIO(name.encode()))
    return path


def test_the_runtime_comes_from_a_package_or_its_archive(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    for name in PARTS.values():
        (tmp_path / "dist" / name).write_text(name)
    expected = Runtime(**{part: name.encode() for part, name in PARTS.items()})
    assert find_runtime(str(tmp_path)) == expected
    assert find_runtime(str(archive(tmp_path / "it.tgz", *PARTS.values()))) == expected


def test_a_runtime_that_is_not_there_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"it has no dist/ort.wasm.min.js; give the folder that `npm install"):
        find_runtime(str(tmp_path))
    with pytest.raises(ValueError, match=r"is not the file of `npm pack onnxruntime-web`"):
        find_runtime(str(archive(tmp_path / "half.tgz", PARTS["script"])))
    (tmp_path / "no.tgz").write_text("not an archive")
    with pytest.raises(ValueError, match=r"^\S+ is not the file of `npm pack onnxruntime-web` \(.*\); pack it again$"):
        find_runtime(str(tmp_path / "no.tgz"))
    monkeypatch.setattr("cvcc_zoo.export.web.shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=r"there is no npm to get it; `npm pack onnxruntime-web` writes it where"):
        find_runtime()
    monkeypatch.setattr("cvcc_zoo.export.web.shutil.which", lambda name: name)
    failed = SimpleNamespace(returncode=1, stderr="npm error network\n timeout")
    monkeypatch.setattr("cvcc_zoo.export.web.subprocess.run", lambda *args, **options: failed)
    with pytest.raises(ValueError, match=r"npm cannot get onnxruntime-web .* \(npm error network timeout\); `npm pack"):
        find_runtime()


def run_script(acts: str) -> Any:
    """Return what `acts` set `found` to, after the script of a page for two classes and 8x8 pixels is loaded."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    texts = dict.fromkeys(("module", "wasm", "model"), packed(b"1"))
    shape = {"size": 8, "channels": 3, "resize": "squash", "background": [0, 0, 0]}
    texts["card"] = json.dumps({"name": "", "dataset": "", "classes": ["a", "b"], **shape})
    given = "".join(f"document.getElementById('{name}').textContent = {json.dumps(texts[name])};" for name in texts)
    page = (web.HERE / "web.js").read_text()
    acts = f"await ready; let found; {acts}; console.log(JSON.stringify(found));"
    script = f"{Path(__file__).with_name('browser.js').read_text()}{given}{{ {page} ;(async () => {{ {acts} }})(); }}"
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data)).decode()


def test_an_error_of_the_model_is_told_for_drawings_and_the_camera_too() -> None:
    fails = "answers.push(() => Promise.reject(new Error('no memory')));"
    for act in ('$("board").listeners.pointerup()', '$("take").onclick()'):
        found = run_script(f'{fails} {act}; await settled(); found = $("message").textContent')
        assert found == "The image cannot be classified: no memory"


def test_a_wiped_drawing_gets_no_classes_any_more() -> None:
    late = "let answer; answers.push(() => new Promise((resolve) => (answer = resolve)));"
    drawn = '$("board").listeners.pointerup(); await settled();'
    told = 'answer({ logits: { data: [0, 1] } }); await settled(); found = $("top").children.length'
    assert run_script(f"{late} {drawn} {told}") == 2
    assert run_script(f'{late} {drawn} $("clear").onclick(); {told}') == 0


def test_a_camera_that_is_asked_for_again_is_stopped_first() -> None:
    twice = '$("camera").onclick(); await settled(); $("camera").onclick(); await settled();'
    assert run_script(f"{twice} found = streams.map((each) => each.live)") == [False, True]


def test_a_runtime_that_would_end_its_script_is_refused(home: Path, tmp_path: Path) -> None:
    trained = find_trained(published(home, ["a", "b"], PAD, image_size=8))
    with pytest.raises(ValueError, match=r"cannot be put into a page; use onnxruntime-web@"):
        write_page(trained, b"", tmp_path, Runtime(b"'</script>'", b"", b""))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--format=onnx", "--runtime=package"], "--runtime is for --format=web"),
        (["--format=web", "--output=mine"], "mine exists and is not the folder of a page"),
        (["--format=web", "--output=own"], "own exists and is not the folder of a page"),
        (["--format=web", "--output=no/where"], "the folder no does not exist"),
        (["--format=web", "--dynamic_size=true"], "--dynamic_size=true is for --format=onnx"),
        (["--format=web", "--max_batch=4"], "--max_batch is for --format=torch_export"),
        (["--format=web", "--runtime=nowhere"], "nowhere is not the npm package onnxruntime-web"),
    ],
)
def test_what_does_not_fit_a_page_is_refused(
    home: Path, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = published(home, ["a", "b"], PAD, image_size=8)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("dear diary")
    Path("own").mkdir()
    Path("own/model.onnx").write_text("a program of my own")
    assert expected in message(capsys, ["export", name, *more])
    assert not Path(f"{name}-web").exists() and Path("mine/notes.txt").read_text() == "dear diary"
    assert Path("own/model.onnx").read_text() == "a program of my own"


def test_a_page_that_cannot_be_made_leaves_no_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = published(home, ["a", "b"], PAD, image_size=8)
    monkeypatch.setattr(command, "find_runtime", lambda given: RUNTIME)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'cvcc_zoo[onnx]'" in message(capsys, ["export", name, "--format=web"])
    assert not Path(f"{name}-web").exists()


def test_a_page_that_fails_leaves_the_one_before_with_its_program(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = published(home, ["a", "b"], PAD, image_size=8)
    Path("site").mkdir()
    for file in ("index.html", "model.onnx"):
        Path("site", file).write_text("before")
    monkeypatch.setattr(command, "find_runtime", lambda given: Runtime(b"'</script>'", b"", b""))
    assert "cannot be put into a page" in message(capsys, ["export", name, "--format=web", "--output=site"])
    assert {file.name: file.read_text() for file in Path("site").iterdir()} == {
        "index.html": "before",
        "model.onnx": "before",
    }


def pictures() -> list[Path]:
    """A colour photograph in the forms that people have: PNG, JPEG, turned, transparent, grey, wide, small."""
    colours = ImageDataModule().some_images(3)[0][:, 0].permute(1, 2, 0).numpy()
    small = Image.fromarray(np.ascontiguousarray(colours))
    large = small.resize((431, 277), Image.Resampling.BICUBIC)
    upright = Image.Exif()
    upright[0x0112] = 6
    clear = large.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.where(np.arange(431) < 150, 0, 255).astype(np.uint8), (277, 1))))
    for name, image in {"small": small, "large": large, "clear": clear, "grey": large.convert("L")}.items():
        image.save(f"{name}.png")
    large.resize((900, 120)).save("wide.webp", lossless=True)
    large.save("photo.jpg", quality=95)
    large.save("turned.jpg", quality=95, exif=upright)
    return [
        Path(name)
        for name in ("small.png", "large.png", "clear.png", "grey.png", "wide.webp", "photo.jpg", "turned.jpg")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "channels"), [({}, 3), (PAD, 3), (CROP, 3), (PAD, 1)])
def test_a_browser_gives_the_probabilities_of_predict(home: Path, recipe: dict[str, Any], channels: int) -> None:
    selenium = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver and shutil.which("npm")):
        pytest.skip("needs chromium, chromedriver and npm")
    name = published(home, [f"<i>{number}" for number in range(6)], recipe, in_channels=channels)
    assert main(["export", name, "--format=web", "--output=page"]) == 0
    files = pictures()
    assert main(["predict", name, *map(str, files), "--output=expected.csv"]) == 0
    with Path("expected.csv").open() as table:
        expected = {row["file"]: row for row in csv.DictReader(table)}
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(option)
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        browser.get(Path("page/index.html").absolute().as_uri())
        for file in [*files, *files[:1]]:  # the first one again
            before = browser.execute_script("return shown")
            browser.find_element("id", "file").send_keys(str(file.absolute()))
            deadline = time.monotonic() + 60
            while browser.execute_script("return shown") == before or browser.find_element("id", "message").text:
                assert time.monotonic() < deadline, browser.find_element("id", "message").text
                time.sleep(0.05)
            found = browser.find_elements("css selector", "#top li")
            row = expected[str(file)]
            tolerance = 5e-3 if file.suffix == ".jpg" else 1e-3  # decoders of JPEG differ by a value or two
            for rank, item in enumerate(found[:2], start=1):
                assert item.find_element("tag name", "b").text == row[f"class_{rank}"]
                share = float(item.get_attribute("data-probability"))
                assert share == pytest.approx(float(row[f"probability_{rank}"]), abs=tolerance)
        Path("broken.png").write_bytes(b"no image")
        browser.find_element("id", "file").send_keys(str(Path("broken.png").absolute()))
        time.sleep(1)
        assert "cannot read broken.png as an image" in browser.find_element("id", "message").text
        assert not browser.get_log("browser")
    finally:
        browser.quit()
