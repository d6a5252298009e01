"""Evaluation and inference.

`cvcc-zoo evaluate` on all test images (norms folded, channels_last, inference mode), against a loop over whitened
batches of 256 in PyTorch's eager mode with its default layout, each in its own process, taking turns. The other tables
show the images per second of every engine that was tried, including whitening, in one process. Accuracies are those on
all test images: that of the card for float32, and measured for engines with lower precision. The int8 model is ONNX
Runtime's static quantisation, calibrated on training images. OpenVINO uses bfloat16 where the processor has it, except
in the row "float32".
"""

import functools
import io
import math
import multiprocessing
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import Found, Row, number
from benchmarks.sides import Settings
from benchmarks.usual import test_batches
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.cli.allocation import keep_freed_memory
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.export.program import export
from cvcc_zoo.printing import progress
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.timing import alternate, seconds, seconds_each
from cvcc_zoo.weights.card import find_card, read_card
from cvcc_zoo.zoo.creation import create
from cvcc_zoo.zoo.trained import Trained

MODELS = ("resnet20", "resnet18", "resnext29_32x4d")
LEAST_ONNX = {"resnet20": 4.0, "resnet18": 1.7, "resnext29_32x4d": 1.7}  # times eager at one image
LEAST_EVALUATE = 1.5
BATCHES = (1, 256)
PUBLISHED = ("resnet20", "resnext29_32x4d")
CALIBRATED = 512  # images
OURS = "folded, channels_last (`cvcc-zoo evaluate`)"
ROUNDED = ("ONNX Runtime, int8", "OpenVINO", "OpenVINO, int8")
"""Engines with a lower precision than float32."""
Engine = Callable[[Tensor], Tensor]


def model_of(name: str, data: ImageDataModule) -> ImageClassifier:
    """Return published weights, or random ones, which take as long, if there are none for such images and classes."""
    shape: Any = {"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size}
    published = create(f"{name}.cifar10").eval() if name in PUBLISHED else None
    if published and (published.classes, data.in_channels, data.image_size) == (tuple(data.classes), 3, 32):
        return published
    model = create(name, **shape)
    model.whitening = data.fit_whitening()
    return model.eval()


def turns(connection: Any, side: str, name: str, settings: Settings) -> None:
    """Evaluate on request in its own process, and answer with the seconds that it took."""
    progress.PATIENCE = math.inf  # bars of two processes would be drawn over each other
    torch.set_num_threads(settings.threads)
    data = ImageDataModule(settings.dataset, settings.root, batch_size=256)
    if side == "ours":
        keep_freed_memory()  # as the command does

        def work() -> None:
            scores(model, data)
    else:
        batches = list(test_batches(data, 256))

        def work() -> None:
            with torch.no_grad():
                for images, _ in batches:
                    model.network(images).argmax(1)

    model = model_of(name, data)
    work()
    while connection.recv():
        connection.send(seconds(work))


def evaluation(name: str, settings: Settings) -> Row:
    """Measure our evaluation against the loop."""
    context = multiprocessing.get_context("spawn")
    sides: dict[str, Callable[[], float]] = {}
    started = []
    for side in ("ours", "eager"):
        here, there = context.Pipe()
        process = context.Process(target=turns, args=(there, side, name, settings), daemon=True)
        process.start()
        there.close()  # or `recv` would wait for ever if the process dies
        started.append((here, process))

        def turn(here: Any = here) -> float:
            here.send(True)
            return float(here.recv())

        sides[side] = turn
    try:
        took = alternate(sides, max(3, settings.repeats))
    except (EOFError, OSError) as error:
        raise RuntimeError(f"a process that evaluates {name} has died; its error stands above") from error
    for end, process in started:
        end.send(False)
        process.join()
    data = ImageDataModule(settings.dataset, settings.root)
    data.prepare_data()
    data.setup("test")
    count = len(data.test_dataloader().images)
    rates = {side: count / each for side, each in took.items()}
    what = f"evaluate {name}, {count:,} images"
    return Row(what, "images/s", rates["ours"], "an eager loop", rates["eager"], least=LEAST_EVALUATE)


def engines(model: ImageClassifier, images: Tensor, folder: Path) -> dict[str, Engine]:
    """Return ways to run a model: functions from raw uint8 images to logits."""
    import onnxruntime

    path = folder / "model.onnx"
    trained = Trained("model", model, "", [str(number) for number in range(model.num_classes)], "", path)
    export(trained, path, "onnx", images[:64])
    found: dict[str, Engine] = {
        "eager": lambda x: model.network(model.whitening(x)),
        OURS: model.folded(),
        "torch.compile, frozen": compiled(model.folded()),
    }
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()

    def session(path: Path) -> Engine:
        made = onnxruntime.InferenceSession(path, threads, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(made.run(["logits"], {"images": x.numpy()})[0])

    found["ONNX Runtime"] = session(path)
    int8 = quantised(path, images[-CALIBRATED:])
    found["ONNX Runtime, int8"] = session(int8)
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed; its rows are left out")
        return found
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})

    def openvino_of(path: Path, **options: str) -> Engine:
        made = core.compile_model(core.read_model(io.BytesIO(path.read_bytes())), "CPU", options)
        return lambda x: torch.from_numpy(made([x.numpy()])[0])

    found["OpenVINO, float32"] = openvino_of(path, INFERENCE_PRECISION_HINT="f32")
    found["OpenVINO"] = openvino_of(path)
    found["OpenVINO, int8"] = openvino_of(int8)
    return found


def compiled(model: Any) -> Engine:
    """Compile the network with its weights as constants; it is compiled for each batch size."""
    import torch._inductor.config as inductor

    made: Any = torch.compile(model.network, dynamic=False)

    def run(images: Tensor) -> Tensor:
        with inductor.patch(freezing=True):
            x = model.whitening(images).contiguous(memory_format=torch.channels_last)
            logits: Tensor = made(x)
            return logits

    return run


def quantised(path: Path, images: Tensor) -> Path:
    """Write the same model with int8 weights and activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        """Batches of 64."""

        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images, 64))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    prepared, target = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, prepared)
    quantize_static(
        prepared,
        target,
        Images(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
    )
    return target


def compare(name: str, settings: Settings) -> tuple[Row, list[list[str]]]:
    """Return the row of ONNX for one image, and the table of all engines."""
    data = ImageDataModule(settings.dataset, settings.root)
    model = model_of(name, data)
    images, _, samples = data.training_images()
    data.prepare_data()
    data.setup("test")
    test = data.test_dataloader()
    least = 0.02 if settings.small else 0.4
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        chosen = torch.cat([test.images[:256], images[samples[:CALIBRATED]]])
        found = engines(model, chosen, Path(folder))
        rates: dict[str, dict[int, float]] = {engine: {} for engine in found}
        for size in BATCHES:
            batch = test.images[:size].contiguous()
            works = {engine: functools.partial(run, batch) for engine, run in found.items()}
            for work in works.values():
                work()
            timed = {engine: functools.partial(seconds_each, work, least) for engine, work in works.items()}
            for engine, took in alternate(timed, max(3, settings.repeats)).items():
                rates[engine][size] = size / took
        right = {engine: "" for engine in found}
        if model.classes is not None and not settings.small:  # published weights
            right[OURS] = f"{100 * float(read_card(find_card(f'{name}.cifar10')).measured['test_accuracy']):.2f} %"
            for engine in filter(found.get, ROUNDED):
                correct = sum(
                    int((found[engine](part).argmax(1) == labels).sum())
                    for part, labels in zip(torch.split(test.images, 250), torch.split(test.labels, 250), strict=True)
                )
                right[engine] = f"{100 * correct / len(test.labels):.2f} %"
    columns = [f"{what}, batch of {size}" for what in ("images/s", "ratio") for size in BATCHES]
    table = [[name, *columns, "test accuracy"]]
    for engine in found:
        own = [rates[engine][size] for size in BATCHES]
        ratios = [f"{rate / rates['eager'][size]:.2f}x" for rate, size in zip(own, BATCHES, strict=True)]
        table.append([engine, *map(number, own), *ratios, right[engine]])
    one = {engine: rate[1] for engine, rate in rates.items()}
    what, least = f"exported {name}, one image", LEAST_ONNX[name]
    return Row(what, "images/s", one["ONNX Runtime"], "eager", one["eager"], least=least), table


def measure(settings: Settings) -> Found:
    """Return rows and a table for each model."""
    warnings.filterwarnings("ignore")
    rows, tables = [evaluation("resnet20", settings)], []
    for name in MODELS:
        row, table = compare(name, settings)
        rows.append(row)
        tables.append(table)
    return Found(rows, tables)
