"""An exported file gives the model's logits without this package, and nothing is written that does not."""

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import cvcc_zoo
from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.commands.export import main as export
from cvcc_zoo.data.datasets import FashionMini
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.images import reshape
from cvcc_zoo.export import program
from cvcc_zoo.export.images import images_to_check
from cvcc_zoo.registry import FAMILIES
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.published import make_card
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import Fit, MakeFolder

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def images(size: int = 8, channels: int = 3) -> torch.Tensor:
    test = FashionMini().load("test")
    assert test is not None
    return reshape(test.images[::50], size, 1).expand(-1, channels, -1, -1)


def published(home: Path, name: str, **options: Any) -> tuple[str, ImageClassifier]:
    """A model by its name or family, with statistics of images and norms that have seen some; its name is *.pets."""
    torch.manual_seed(0)
    options = {"image_size": 8, "num_classes": 3, **options}
    model = FAMILIES[name](**options) if name in FAMILIES else create(name, **options)
    pixels = images(model.image_size, model.in_channels)
    model.whitening.fit(pixels)
    if "features" in options:
        cast(Any, model.network).extract.fit(lambda: [model.whitening(pixels)])
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # a linear classifier starts at zero
        model.train()(pixels)
    classes = ["cat", "cow", "dog"]
    card = make_card(model, "pets", classes, dataset="Pets (small)", measured={}, training={}, license="MIT")
    write(home, card, model.state_dict())
    return card.name, model.eval()


def onnx_logits(path: Path, batch: torch.Tensor) -> torch.Tensor:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0])


def torch_logits(path: Path, batch: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = torch.export.load(io.BytesIO(path.read_bytes())).module()(batch)
    return logits


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {"whitening": {"name": "zca", "eps": 0.01}}),
    ("fcnn", {"in_channels": 1, "whitening": {"name": "pca", "scope": "pixels_per_channel", "eps": 0.01}}),
    ("CNN", {"channels": [8, 8], "whitening": {"name": "zca", "eps": 0.1, "contrast": "coates"}}),
    ("ResNet", {"depth": 8, "shortcut": "A", "whitening": {"name": "zca", "scope": "channel_values", "eps": 0.01}}),
    ("WideResNet", {"depth": 10, "width": 1, "whitening": "none"}),
    ("ResNet", {"depth": 8, "norm": "none", "init": "fixup", "activation": "silu", "pool": "max"}),
    ("ResNet", {"depth": 8, "norm": "group", "shortcut": "none"}),
    ("ResNeXt", {"depth": 11, "cardinality": 2, "image_size": 12}),
    (
        "linear",
        {"whitening": "none", "features": [{"name": "HOG", "orientations": 12}, {"name": "PCA", "components": 4}]},
    ),
]
FEATURES: dict[str, Any] = {"whitening": "none", "features": [{"name": "Patches", "filters": 8}, "Standardize"]}
FEW = ("linear", "CNN", "ResNeXt")  # the others are slow
NAMED = ("linear", "fcnn", "cnn_small", "resnet20", "wrn16_4", "resnext20_16x4d")


def some(models: list[tuple[str, dict[str, Any]]], few: Sequence[str]) -> list[Any]:
    """All of these, of which those that are not among a few are slow."""
    marks = [() if name in few else pytest.mark.slow for name, _ in models]
    return [pytest.param(*model, id=model[0], marks=mark) for model, mark in zip(models, marks, strict=True)]


@pytest.mark.parametrize(("name", "options"), some(MODELS, FEW))
def test_every_family_is_exported_to_onnx_with_its_whitening(
    name: str, options: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    check_exported(*published(home, name, **options), "onnx", capsys)


@pytest.mark.parametrize(("name", "options"), [*MODELS[1:3], ("linear", FEATURES)], ids=["fcnn", "CNN", "features"])
def test_a_family_is_exported_to_torch_with_its_whitening(
    name: str, options: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_exported(*published(home, name, **options), "torch_export", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("whitening", ["standardize", "zca"])
@pytest.mark.parametrize("name", NAMED)
def test_models_of_every_family_are_exported_at_full_size(
    name: str, whitening: str, format: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec: Any = {"name": "zca", "eps": 0.1} if whitening == "zca" else whitening
    check_exported(*published(home, name, image_size=32, whitening=spec), format, capsys)


def check_exported(name: str, model: ImageClassifier, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([name, f"--format={format}"]) == 0
    size, channels = model.image_size, model.in_channels
    printed = capsys.readouterr().out
    assert f"1, 7 and 56 test images of fashion-mini as {channels}x{size}x{size}: the same classes" in printed
    path = Path(f"{name}{FORMATS[format]}")
    assert f"written to {path}" in printed
    run = onnx_logits if format == "onnx" else torch_logits
    for count in (1, 3, 11):
        batch = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
        found, expected = run(path, batch), model(batch)
        assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_file_knows_its_labels_but_not_the_machine(home: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    published(home, "linear")
    for format in FORMATS:
        assert export(["linear.pets", f"--format={format}", *(["--max_batch=64"] if format != "onnx" else [])]) == 0
    about = {
        "name": "linear.pets",
        "model": "linear",
        "dataset": "Pets (small)",
        "classes": json.dumps(["cat", "cow", "dog"]),
        "sha256": hashlib.sha256((home / "linear.pets.safetensors").read_bytes()).hexdigest(),
        "input": "uint8 (N, 3, 8, 8), 0..255, N up to 64",
        "pictures": "turned upright by EXIF; squash to a square by Pillow's bicubic filter; white behind transparency",
        "output": "logits, float32 (N, 3)",
    }
    session = onnxruntime.InferenceSession("linear.pets.onnx", providers=["CPUExecutionProvider"])
    of_onnx = {**about, "input": "uint8 (N, 3, 8, 8), 0..255"}
    assert session.get_modelmeta().custom_metadata_map == of_onnx
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("images", ["batch", 3, 8, 8], "tensor(uint8)")
    ]
    found = dict.fromkeys(about, "")
    torch.export.load("linear.pets.pt2", extra_files=found)
    assert {key: bytes(value).decode() if isinstance(value, bytes) else value for key, value in found.items()} == about
    package = str(Path(cvcc_zoo.__file__).parent).encode()
    for ending in FORMATS.values():
        assert package not in Path(f"linear.pets{ending}").read_bytes()
    assert sorted(path.name for path in Path().glob("*pets*")) == ["linear.pets.onnx", "linear.pets.pt2"]


@pytest.mark.parametrize(("channels", "format"), [(1, "torch_export"), (3, "torch_export"), (3, "onnx")])
def test_no_image_that_a_program_was_checked_on_is_in_its_file(channels: int, format: str, home: Path) -> None:
    """Test images of fashion-mini are grey and 28x28: for three channels they are made anew, for one a view."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    published(home, "linear", in_channels=channels, image_size=28)
    export(["linear.pets", f"--format={format}"])
    path = Path(f"linear.pets{FORMATS[format]}")
    data = path.read_bytes()
    test = FashionMini().load("test")
    assert test is not None
    middles = test.images[:, :, 14].flatten(1)
    assert not any(bytes(row.tolist()) in data for row in middles if row.count_nonzero() > 14)
    if format == "torch_export":
        inputs = torch.export.load(path).example_inputs
        assert inputs is not None
        (example,), _ = inputs
        assert not example.any() and example.untyped_storage().nbytes() == 2 * channels * 28 * 28


def test_a_checkpoint_holds_no_image_that_it_was_trained_on(fit: Fit, colours: Path) -> None:
    options = ["--data.whitening=zca", "--data.whitening.eps=0.1"]
    assert fit("--model=CNN", "--model.channels=[8]", "--model.patch_whitening=0.01", *options) == 0
    pixels = [np.asarray(Image.open(path)) for path in colours.rglob("*.png")]
    for file in Path("runs").rglob("*.ckpt"):
        data = file.read_bytes()
        for image in pixels:
            for layout in (image, image.transpose(2, 0, 1)):
                assert layout.tobytes() not in data
                assert layout.astype(np.float32).tobytes() not in data
                assert (layout / np.float32(255)).astype(np.float32).tobytes() not in data


def test_a_torch_program_takes_batches_up_to_the_largest_and_strides_of_a_usual_image(home: Path) -> None:
    published(home, "CNN", channels=[8])
    export(["cnn.pets", "--format=torch_export", "--max_batch=5"])
    program = torch.export.load("cnn.pets.pt2")
    assert [int(limits.upper) for limits in program.range_constraints.values()] == [5]
    for node in program.graph.nodes:
        if isinstance(value := node.meta.get("val"), torch.Tensor):
            assert value.is_contiguous()
    run = program.module()
    run(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises((AssertionError, RuntimeError), match="5"):
        run(torch.zeros(6, 3, 8, 8, dtype=torch.uint8))


COMPILED = """
import sys, torch
sys.modules["cvcc_zoo"] = None
images, logits = torch.load("pair.pt")
program = torch.export.load("cnn.pets.pt2")
package = torch._inductor.aoti_compile_and_package(program, package_path="compiled.pt2")
run = torch._inductor.aoti_load_package(package)
for count in (1, 3, 16):
    torch.testing.assert_close(run(images[:count]), logits[:count], rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_a_torch_program_compiled_ahead_of_time_gives_the_same_logits_without_this_package(home: Path) -> None:
    _, model = published(home, "CNN", channels=[8], image_size=8)
    export(["cnn.pets", "--format=torch_export"])
    batch = images()[:16].contiguous()  # AOTInductor takes strides on trust
    torch.save((batch, model(batch).detach()), "pair.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True, timeout=500)


@pytest.mark.slow
def test_executorch_runs_a_torch_program_with_any_batch_up_to_the_largest(home: Path) -> None:
    exir = pytest.importorskip("executorch.exir")
    _, model = published(home, "ResNet", depth=8)
    export(["resnet.pets", "--format=torch_export", "--max_batch=20"])
    lowered = exir.to_edge_transform_and_lower(torch.export.load("resnet.pets.pt2")).to_executorch()
    program = pytest.importorskip("executorch.runtime").Runtime.get().load_program(lowered.buffer)
    batch = images()[:20]
    for count in (2, 20):
        (found,) = program.load_method("forward").execute([batch[:count].contiguous()])
        torch.testing.assert_close(found, model(batch[:count]), rtol=1e-4, atol=1e-4)


GLOBAL: list[tuple[str, dict[str, Any]]] = [
    ("CNN", {"channels": [8, 8], "global_pool": "max"}),
    ("ResNet", {"depth": 8, "shortcut": "A", "whitening": {"name": "zca", "scope": "channel_values", "eps": 0.01}}),
    ("ResNeXt", {"depth": 11, "cardinality": 2, "pool": "max"}),
    ("WideResNet", {"depth": 10, "width": 1, "whitening": "none"}),
]


@pytest.mark.parametrize(("name", "options"), some(GLOBAL, ["CNN"]))
def test_a_network_with_global_pooling_takes_any_height_and_width_in_onnx(
    name: str, options: dict[str, Any], home: Path
) -> None:
    pytest.importorskip("onnxruntime")
    name, model = published(home, name, **options)
    assert export([name, "--dynamic_size=true"]) == 0
    assert b"uint8 (N, 3, H, W), 0..255, trained on 8x8" in Path(f"{name}.onnx").read_bytes()
    for shape in ((1, 3, 8, 8), (2, 3, 9, 17), (3, 3, 32, 24)):
        batch = torch.randint(0, 256, shape, dtype=torch.uint8)
        assert torch.allclose(onnx_logits(Path(f"{name}.onnx"), batch), model(batch), rtol=1e-4, atol=1e-4)


def test_a_network_that_asserts_the_size_of_images_is_told(home: Path) -> None:
    name, _ = published(home, "timm.test_vit", image_size=32)
    with pytest.raises(ValueError, match=r"takes images of one size \(.*\); leave --dynamic_size out"):
        export([name, "--dynamic_size=true"])


def test_a_run_is_exported_with_the_classes_of_its_data(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear") == 0
    run = Path("runs/linear-colours")
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    assert export([str(run), "--format=torch_export", "--output=red.pt2", *data]) == 0
    assert "test images of colours as 3x8x8" in capsys.readouterr().out  # 12 images, some more than once
    trained = find_trained(str(run))
    assert (trained.name, trained.dataset, trained.classes) == ("linear-colours", "colours", ["blue", "red"])
    assert trained.sha256 == hashlib.sha256((run / "best.ckpt").read_bytes()).hexdigest()
    assert find_trained(str(run / "best.ckpt")).labels() == trained.labels()
    (run / "last.ckpt").rename("alone.ckpt")
    alone = find_trained("alone.ckpt")
    assert (alone.name, alone.dataset, alone.classes) == ("alone", "colours", ["blue", "red"])
    shutil.rmtree(colours)
    assert find_trained(str(run)).labels() == trained.labels()
    (run / "config.yaml").unlink()
    assert find_trained(str(run)).classes == ["blue", "red"]


def test_the_file_of_a_run_is_checked_on_images_of_the_run(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear") == 0
    file = [str(Path("runs/linear-colours")), "--format=torch_export", "--output=red.pt2"]
    assert export(file) == 0
    assert "1, 7 and 56 test images of colours as 3x8x8" in capsys.readouterr().out
    trained = find_trained(file[0])
    test = ImageDataModule("folder", str(colours)).dataset.load("test")
    assert test is not None
    given, own = (
        {image.numpy().tobytes() for image in images}
        for images in (images_to_check(trained, None, None).images, test.images)
    )
    same = given == own  # pytest would take minutes to show how they differ
    assert same and len(own) == 12
    shutil.rmtree(colours / "test")
    assert images_to_check(trained, None, None).title == "validation images of colours"
    assert images_to_check(trained, "fashion-mini", None).title == "test images of fashion-mini"
    fetched = dataclasses.replace(trained, data={"dataset": "torchvision.STL10"})
    assert "give it as --data.dataset=torchvision.STL10" in images_to_check(fetched, None, None).note
    shutil.rmtree(colours)
    assert export(file) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "56 test images of fashion-mini" in printed and "the images of its run cannot be read (" in printed


def test_a_model_of_other_channels_is_checked_on_random_values(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, model = published(home, "linear", in_channels=2)
    assert export([name, "--format=torch_export"]) == 0
    assert "1, 7 and 56 images of random values as 2x8x8: the same classes" in capsys.readouterr().out
    batch = torch.randint(0, 256, (3, 2, 8, 8), dtype=torch.uint8)
    assert torch.allclose(torch_logits(Path("linear.pets.pt2"), batch), model(batch), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"1 or 3 channels, and linear.pets takes 2; leave --data.dataset and --data"):
        export([name, "--data.dataset=fashion-mini"])


def test_given_images_are_prepared_as_in_the_run_and_their_links_are_followed(
    home: Path, make_folder: MakeFolder
) -> None:
    published(home, "linear")
    shaping = {"resize": "crop", "background": "white"}
    of_run = {"dataset": None, "root": "gone", "follow_links": False, **shaping}
    trained = dataclasses.replace(find_trained("linear.pets"), data=of_run)
    trained.model.shaping = shaping
    away, linked = make_folder("away"), Path("linked")
    linked.mkdir()
    for split in ("train", "test"):
        (linked / split).symlink_to(away / split)
        for path in (away / split).rglob("*.png"):
            Image.effect_noise((24, 12), 100).convert("RGB").save(path)
    decoding = Decoding(8, 3, same_size=False, grey_only=False, resize="crop")
    expected = {decoding(path).tobytes() for path in (away / "test").rglob("*.png")}
    for run in (trained, dataclasses.replace(trained, data={})):
        for dataset in (None, "folder"):
            found = images_to_check(run, dataset, "linked")
            same = {image.numpy().tobytes() for image in found.images} == expected
            assert same and found.title == "test images of linked"


def test_classes_whose_names_a_checkpoint_does_not_know_are_called_by_their_numbers(fit: Fit) -> None:
    assert fit("--model=linear") == 0
    content = torch.load("runs/linear-colours/best.ckpt", weights_only=True)
    for name in ("classes", "data"):
        del content["cvcc_zoo"][name]
    torch.save(content, "alone.ckpt")
    assert find_trained("alone.ckpt").classes == ["0", "1"]


def test_the_labels_of_a_grey_model_have_the_formula_of_grey(home: Path) -> None:
    published(home, "linear", in_channels=1)
    colour = Image.new("RGB", (8, 8), (200, 100, 50))
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert (Decoding(8, 1, same_size=True, grey_only=False).pixels("it", colour) == grey).all()
    assert find_trained("linear.pets").labels()["pictures"].endswith("; grey is 0.299 R + 0.587 G + 0.114 B")


def test_the_path_of_a_card_is_a_name_too(home: Path) -> None:
    published(home, "linear")
    assert find_trained(str(home / "linear.pets.json")).labels() == find_trained("linear.pets").labels()


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda logits: logits + 0.1, "its logits differ by up to 0.1 of"),
        (lambda logits: -logits, "and the predicted classes differ; nothing was written"),
        (lambda logits: logits * torch.nan, "differ by up to nan"),
        (
            lambda logits: logits[:1],
            r"cannot be exported to torch_export \(logits \(3, 3\), not \(64, 3\)\); nothing was",
        ),
    ],
)
def test_a_program_that_does_not_agree_is_not_kept(
    wrong: Any, advice: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(home, "linear")
    Path("linear.pets.pt2").write_bytes(b"what was there")
    read = program._from_torch
    monkeypatch.setattr(program, "_from_torch", lambda data: lambda batch: wrong(read(data)(batch)))
    with pytest.raises(ValueError, match=advice):
        export(["linear.pets", "--format=torch_export"])
    assert Path("linear.pets.pt2").read_bytes() == b"what was there"
    assert not list(Path().glob(".linear*"))


def test_an_error_of_torch_is_one_line_with_advice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(home, "linear")

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("no such operator:\n" + 500 * "trace\n")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(
        ValueError, match=r"linear.pets cannot be exported to torch_export \(no such operator\); .* --format, "
    ):
        export(["linear.pets", "--format=torch_export"])


def test_a_file_that_is_replaced_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(home, "linear")
    told = []
    for _ in range(2):
        export(["linear.pets", "--format=torch_export"])
        told.append("; it replaces the file that was there" in capsys.readouterr().out)
    assert told == [False, True]


def test_onnx_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(home, "linear")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"export to ONNX needs onnx\w*: pip install 'cvcc_zoo\[onnx\]'"):
        export(["linear.pets"])
    assert not list(Path().glob("*.onnx"))


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["linear.pet"], "no published weight named 'linear.pet'; did you mean linear.pets"),
        (["runs/nothing"], "there is no checkpoint runs/nothing"),
        (["nothing.json"], "there is no card nothing.json"),
        (["linear.pets", "--output=model.pt2"], "--format=onnx ends in .onnx; choose another --output than model.pt2"),
        (["linear.pets", "--output=away/model.onnx"], "the folder away does not exist"),
        (["nothing.at.all", "--output=model.pt2"], "ends in .onnx; choose another --output than model.pt2"),
        (["linear.pets", "--dynamic_size=true"], "linear.pets takes images of one size (the model was built for"),
        (["linear.pets", "--dynamic_size=true", "--format=torch_export"], "--dynamic_size=true is for --format=onnx"),
        (["linear.pets", "--max_batch=8"], "--max_batch is for --format=torch_export, and at least 2"),
        (["linear.pets", "--max_batch=1", "--format=torch_export"], "and at least 2"),
        (["linear.pets", "--data.dataset=cifar"], "no dataset named 'cifar'; did you mean cifar10"),
    ],
)
def test_wrong_input_is_answered_with_advice(arguments: list[str], advice: str, home: Path) -> None:
    published(home, "linear")
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        export(arguments)
    assert advice in str(error.value)


@pytest.mark.parametrize("arguments", [["linear.pets", "--format=tflite"], [], ["linear.pets", "--outptu=x"]])
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        export(arguments)
    assert stop.value.code == 2 and "cvcc-zoo: error: " in capsys.readouterr().err
