"""`cvcc-zoo predict`: image files get the classes that the model gives their pixels, as training would see them."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.commands.predict import Prediction
from cvcc_zoo.commands.predict import _csv as prediction_csv
from cvcc_zoo.commands.predict import main as predict
from cvcc_zoo.inspection.records import write_rows
from cvcc_zoo.runs.summary import write_predictions
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.published import make_card
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import QUICK, Fit, MakeFolder

CLASSES = ["T-shirt/top", "[red]", "$x^$"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> ImageClassifier:
    """What is published as linear.pets: 3 classes, 3x8x8."""
    return publish(home, in_channels=3)


def publish(home: Path, in_channels: int) -> ImageClassifier:
    torch.manual_seed(0)
    model = create("linear", num_classes=3, image_size=8, in_channels=in_channels)
    model.whitening.fit(torch.randint(0, 256, (20, in_channels, 8, 8), dtype=torch.uint8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    card = make_card(model, "pets", CLASSES, dataset="Pets", measured={}, training={}, license="MIT")
    write(home, card, model.state_dict())
    return model.eval()


def noise(width: int = 8, height: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def save(path: str, image: np.ndarray | Image.Image) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return Path(path)


def run(*arguments: str) -> dict[str, list[tuple[str, float]]]:
    """The predictions that the command writes, by file."""
    assert predict(["linear.pets", *arguments, "--output=out.json"]) == 0
    rows = json.loads(Path("out.json").read_text())
    return {row["file"]: [(cell["class"], cell["probability"]) for cell in row["top"]] for row in rows}


def expected(model: ImageClassifier, image: Image.Image) -> list[tuple[str, Any]]:
    """Of an image that has the model's size and channels."""
    pixels = torch.from_numpy(np.array(image)).reshape(8, 8, -1).permute(2, 0, 1)
    with torch.no_grad():
        best = model(pixels[None]).softmax(1)[0].topk(3)
    return [(CLASSES[i], pytest.approx(p, abs=1e-5)) for i, p in zip(best.indices, best.values.tolist(), strict=True)]


def test_files_of_any_size_and_mode_become_the_models_pixels(model: ImageClassifier) -> None:
    square, wide = Image.fromarray(noise()), Image.fromarray(noise(20, 12))
    grey, palette = Image.fromarray(noise(channels=1)), square.quantize(16)
    clear = Image.fromarray(np.dstack([noise(), noise(channels=1, seed=1)]))
    seen = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), clear).convert("RGB")
    turned = square.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 270 degrees to see it upright
    turned.save("turned.png", exif=exif)
    found = run(
        *(
            str(save(path, image))
            for path, image in {
                "square.png": square, "wide.bmp": wide, "grey.png": grey, "palette.png": palette, "clear.png": clear,
                "one.png": grey.convert("1"), "cmyk.tif": square.convert("CMYK"),
            }.items()
        ),
        "turned.png",
    )  # fmt: skip
    assert found == {
        "square.png": expected(model, square),
        "wide.bmp": expected(model, wide.resize((8, 8), Image.Resampling.BICUBIC)),
        "grey.png": expected(model, grey.convert("RGB")),
        "palette.png": expected(model, palette.convert("RGB")),
        "clear.png": expected(model, seen),
        "one.png": expected(model, grey.convert("1").convert("RGB")),
        "cmyk.tif": expected(model, square.convert("CMYK").convert("RGB")),
        "turned.png": expected(model, square),
    }


def test_a_larger_image_is_predicted_if_the_user_raises_the_limit(model: ImageClassifier) -> None:
    save("big.png", Image.new("1", (8000, 8001)))
    with pytest.raises(ValueError, match=r"raise the limit \(--data.max_pixels=...\)"):
        run("big.png")
    black = expected(model, Image.new("RGB", (8, 8)))
    assert run("big.png", "--data.max_pixels=64008000") == {"big.png": black}


def test_a_grey_model_sees_grey(home: Path) -> None:
    model = publish(home, in_channels=1)
    save("colour.png", noise())
    assert run("colour.png") == {"colour.png": expected(model, Image.fromarray(noise()).convert("L"))}


def test_a_run_predicts_what_its_test_predicts(fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear") == 0
    capsys.readouterr()
    assert predict(["runs/linear-colours", str(colours / "test"), "--output=out.csv"]) == 0
    data = ImageDataModule("folder", str(colours))
    data.prepare_data()
    data.setup("test")
    with torch.no_grad():
        shares = torch.cat([load("runs/linear-colours")(images).softmax(1) for images, _ in data.test_dataloader()])
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row["class_1"] for row in rows] == [("blue", "red")[int(share.argmax())] for share in shares]
    assert [float(row["probability_1"]) for row in rows] == pytest.approx(shares.max(1).values.tolist(), abs=1e-5)
    assert [Path(row["file"]).parent.name for row in rows] == 6 * ["blue"] + 6 * ["red"]
    assert "resized" not in capsys.readouterr().out


def test_folders_are_searched_sorted_and_what_is_no_image_is_counted(
    model: ImageClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("pets/b/[red]2.png", "pets/b/1.jpg", "pets/a.png", "pets/.hidden/x.png", "pets/.x.png"):
        save(path, noise(9 if path.endswith("1.jpg") else 8, 8))
    Path("pets/notes.txt").write_text("cats")
    Path("pets/empty.png").touch()
    save("one.png", noise())
    assert list(run("one.png", "pets")) == ["one.png", "pets/a.png", "pets/b/1.jpg", "pets/b/[red]2.png"]
    printed = capsys.readouterr().out
    assert "1 of 4 images were resized to 8x8" in printed
    assert "2 of 6 files are not images and were skipped: pets/empty.png, pets/notes.txt" in printed
    assert "pets/b/[red]2.png" in printed and "[red] 0." in printed  # not taken for colours
    assert "written to out.json" in printed


def test_links_to_folders_are_followed_and_each_folder_is_read_once(model: ImageClassifier) -> None:
    for path in ("pets/a/1.png", "pets/z/2.png", "away/3.png", "away/in/4.png"):
        save(path, noise())
    for link, target in {"pets/a/same": "../z", "pets/far": "../away", "away/in/back": "../../pets/a"}.items():
        Path(link).symlink_to(target)
    assert list(run("pets")) == ["pets/a/1.png", "pets/far/3.png", "pets/far/in/4.png", "pets/z/2.png"]
    Path("away/in/up").symlink_to("..")
    with pytest.raises(ValueError, match=r"pets/far/in/up is a link to .*/away, which contains it; remove the link"):
        run("pets")


def test_more_images_than_a_batch_and_a_sheet_hold(
    model: ImageClassifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cvcc_zoo.commands.predict.BATCH", 30)
    monkeypatch.setattr("cvcc_zoo.commands.predict.ON_SHEET", 9)  # a row of eight, and one more
    images = {f"many/{number:02}.png": Image.fromarray(noise(seed=number)) for number in range(70)}
    for path, image in images.items():
        save(path, image)
    found = run("many", "--sheet=sheet.png", "--top=1")
    assert found == {path: expected(model, image)[:1] for path, image in images.items()}
    assert "the sheet has the first 9 of 70 images" in capsys.readouterr().out
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 1000 and sheet.height > 300
    run("many/00.png", "--sheet=sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.width < 300


def test_a_reader_that_stops_reading_gets_the_files_whole(
    model: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", noise())
    for words, file in {
        ("predict", "linear.pets", "a.png", "--output=out.csv"): "out.csv",
        ("describe", "linear", "--json=layers.json"): "layers.json",
        ("compare", "linear", "--batch_size=2", "--repeats=1", "--csv=costs.csv"): "costs.csv",
    }.items():
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", closed)
            assert main([*words]) == 128 + 13  # SIGPIPE
        assert Path(file).stat().st_size > 40


@pytest.fixture
def bad_files(model: ImageClassifier) -> None:
    save("good/a.png", noise())
    save("cut/a.png", noise())
    data = save("cut/b.jpg", noise(100, 100)).read_bytes()
    Path("cut/b.jpg").write_bytes(data[: len(data) // 2])
    save("deep.tif", Image.fromarray(np.full((8, 8), 4000, dtype=np.float32)))
    Path("none").mkdir()
    Path("none/notes.txt").write_text("cats")
    shutil.copy("none/notes.txt", "notes.png")


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["linear.pet", "good"], "no published weight named 'linear.pet'; did you mean linear.pets"),
        (["linear.pets", "good", "gone.png"], "there is no image or folder gone.png"),
        (["linear.pets", "notes.png"], "notes.png is not an image that can be read (not one of PNG"),
        (["linear.pets", "cut/b.jpg"], "cut/b.jpg is not an image that can be read"),
        (
            ["linear.pets", "deep.tif"],
            "deep.tif has more than 16 bits per pixel (mode F); scale the values to 0..255 with one",
        ),
        (["linear.pets", "none"], "there are no images in none"),
        (["linear.pets", "good", "--top=4"], "linear.pets has 3 classes; choose --top=1 to 3, not 4"),
        (["linear.pets", "good", "--top=0"], "choose --top=1 to 3, not 0"),
        (["linear.pets", "good", "--sheet=sheet.jpg"], "sheet.jpg must end in .png"),
        (["linear.pets", "good", "--output=out.xml"], "out.xml must end in .csv or .json"),
        (["linear.pets", "good", "--output=away/out.csv"], "the folder away does not exist; create it"),
    ],
)
def test_wrong_input_is_answered_with_advice_and_nothing_is_written(arguments: list[str], advice: str) -> None:
    before = set(Path().rglob("*"))
    targets = [] if "--output" in str(arguments) else ["--output=out.csv"]
    targets += [] if "--sheet" in str(arguments) else ["--sheet=sheet.png"]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        predict([*arguments, *targets])
    assert advice in str(error.value)
    assert set(Path().rglob("*")) == before


@pytest.mark.usefixtures("bad_files")
def test_what_can_be_read_is_predicted_and_the_rest_is_named(
    model: ImageClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(["linear.pets", "cut", "notes.png", "deep.tif", "--output=out.json", "--sheet=sheet.png"]) == 1
    assert [row["file"] for row in json.loads(Path("out.json").read_text())] == ["cut/a.png"]
    printed = capsys.readouterr()
    assert "resized" not in printed.out  # only the broken image has another size
    told = printed.err.splitlines()
    assert len(told) == 3 and all(line.startswith("cvcc-zoo: not predicted: ") for line in told)
    assert {line.split()[3] for line in told} == {"notes.png", "deep.tif", "cut/b.jpg"}


def test_a_run_predicts_photos_in_the_way_that_it_was_trained_on_them(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(size=12)
    wide = Image.fromarray(noise(24, 12))
    wide.putalpha(Image.fromarray(noise(24, 12, channels=1, seed=1)))
    wide.save(root / "train/blue/wide.png")
    options = ["--data.image_size=12", "--data.resize=crop", "--data.background=black", "--model=linear"]
    assert main(["fit", f"--data.root={root}", *options, *QUICK]) == 0
    data = ImageDataModule(root=str(root), image_size=12, resize="crop", background="black")
    trained_on = data.training_images()[0][20]
    flat = Image.alpha_composite(Image.new("RGBA", (24, 12), "black"), wide).convert("RGB")
    assert torch.equal(trained_on, torch.from_numpy(np.array(flat)[:, 6:18]).permute(2, 0, 1))
    for name in ("runs/linear-colours", "runs/linear-colours/last.ckpt"):
        assert np.array_equal(find_trained(name).model.decoding()(root / "train/blue/wide.png"), trained_on.numpy())
    pictures = find_trained("runs/linear-colours").labels()["pictures"]
    assert "crop to a square by Pillow's bicubic filter; black behind" in pictures


def test_a_model_of_other_channels_is_refused(home: Path) -> None:
    publish(home, in_channels=2)
    save("a.png", noise())
    with pytest.raises(ValueError, match=r"image files have 1 or 3 channels, and linear.pets takes 2"):
        predict(["linear.pets", "a.png"])


@pytest.mark.parametrize("arguments", [[], ["linear.pets"], ["linear.pets", "a.png", "--tpo=3"]])
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        predict(arguments)
    assert stop.value.code == 2 and "cvcc-zoo: error: " in capsys.readouterr().err


def test_a_class_name_with_commas_and_quotes_survives_the_predictions_of_a_run(tmp_path: Path) -> None:
    names = ['say "cheese", please', "two\nlines"]
    batch = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([0, 1])
    data: Any = SimpleNamespace(classes=names, dataset=SimpleNamespace(title="p"))
    write_predictions(tmp_path, [batch], data)
    with (tmp_path / "predictions-p.csv").open(newline="") as file:
        rows = [*csv.reader(file)]
    assert rows[1:] == [["0", names[0], names[1], "0.750000"], ["1", names[1], names[0], "0.500000"]]


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1"]


def test_no_spreadsheet_calculates_the_name_of_a_class_or_a_file(tmp_path: Path) -> None:
    """Numbers stay numbers: a spreadsheet does nothing else with them."""
    names = [*FORMULAS, "-5", "a=b"]
    expected = [*(f"'{name}" for name in FORMULAS), "-5", "a=b"]
    data: Any = SimpleNamespace(classes=names, dataset=SimpleNamespace(title="p"))
    write_predictions(tmp_path, [(torch.eye(len(names)), torch.arange(len(names)))], data)
    write_rows(tmp_path / "rows.csv", [{"model": name, "-x": -0.5} for name in names])
    written = prediction_csv([Prediction(Path(name), [(name, 0.5)]) for name in names])
    (tmp_path / "files.csv").write_bytes(written)

    def column(name: str, number: int) -> list[str]:
        with (tmp_path / name).open(newline="") as file:
            return [row[number] for row in [*csv.reader(file)][1:]]

    assert column("predictions-p.csv", 1) == column("predictions-p.csv", 2) == column("rows.csv", 0) == expected
    assert column("files.csv", 0) == column("files.csv", 1) == expected
    assert set(column("rows.csv", 1)) == {"-0.5"}


OTHER_FORMATS = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "Heic": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "PSD": b"8BPS\0\x01", "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
}  # fmt: skip


def test_photos_of_other_formats_are_not_skipped(model: ImageClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    save("phone/a.png", noise())
    for name, start in OTHER_FORMATS.items():
        Path("phone", name).write_bytes(start + bytes(500))
    for name, start in (("damaged.avif", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif"), ("a.mov", b"\0\0\0\x14ftypqt  ")):
        Path("phone", name).write_bytes(start + bytes(500))
    assert predict(["linear.pets", "phone", "--output=out.json"]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 files are not images and were skipped: phone/a.mov, phone/damaged.avif" in printed.out
    told = printed.err.splitlines()
    assert len(told) == 5 and [row["file"] for row in json.loads(Path("out.json").read_text())] == ["phone/a.png"]
    for name in OTHER_FORMATS:
        reason = f"(its format is {name.upper()}); convert it to JPEG or PNG"
        assert f"cvcc-zoo: not predicted: phone/{name} is not an image that can be read {reason}" in told
