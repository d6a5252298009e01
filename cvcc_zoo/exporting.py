"""A trained model as one file that runs without this package: ONNX, or torch.export's program.

The program takes raw images, uint8 (N, in_channels, image_size, image_size) of any N, and gives logits, float32
(N, num_classes): the whitening is inside. Every file is read back and run before it gets its name.
"""

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.files import whole_file
from cvcc_zoo.trained import Trained

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
BATCHES = (1, 7, 56)  # a program that only takes the batch size of its example fails on one of them
TOLERANCE = 1e-3  # of the largest logit; the families differ by 3e-6 of it at most
TRACE = "pkg.torch.onnx.stack_trace"  # lines and folders of the machine that exported


@dataclass(frozen=True)
class Agreement:
    """How far logits of the program are from those of the model, and how large the model's are at most."""

    difference: float
    largest: float
    same_classes: bool


def export(trained: Trained, path: Path, format: str, images: Tensor) -> Agreement:
    """Write the program to `path` and run it on images, uint8 (64, C, H, W), in batches of 1, 7 and 56.

    Raises ValueError where a package is missing or the program does not agree with the model; then nothing is written.
    """
    assert len(images) == sum(BATCHES)
    to_bytes, to_program = {"onnx": (_to_onnx, _from_onnx), "torch_export": (_to_torch, _from_torch)}[format]
    model = trained.model.cpu().eval()
    with torch.no_grad():
        expected = model(images)
        data = to_bytes(model, images[:2], trained.labels())
        with whole_file(path) as file:
            file.write(data)
            file.flush()
            program = to_program(Path(file.name).read_bytes())
            found = torch.cat([program(batch) for batch in torch.split(images, list(BATCHES))])
            agreement = Agreement(
                difference=float((found - expected).abs().max()),
                largest=float(expected.abs().max()),
                same_classes=torch.equal(found.argmax(1), expected.argmax(1)),
            )
            if not (agreement.difference <= TOLERANCE * agreement.largest and agreement.same_classes):
                raise ValueError(
                    f"the exported program does not agree with {trained.name}: its logits differ by up to "
                    f"{agreement.difference:.2g} of {agreement.largest:.2g}, "
                    f"the classes {'do not' if agreement.same_classes else 'do, too'}; nothing was written. "
                    "Try another --format, or another version of torch"
                )
    return agreement


def _to_onnx(model: ImageClassifier, example: Tensor, labels: dict[str, str]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _needed(package)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.pop(TRACE, None)
    program.model.metadata_props.update(labels)
    data: bytes = program.model_proto.SerializeToString()
    return data


def _from_onnx(data: bytes) -> Callable[[Tensor], Tensor]:
    session = _needed("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError("export to ONNX needs `pip install 'cvcc_zoo[onnx]'`") from error


def _to_torch(model: ImageClassifier, example: Tensor, labels: dict[str, str]) -> bytes:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=labels)
    return file.getvalue()


def _from_torch(data: bytes) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(data)).module()
    return program
