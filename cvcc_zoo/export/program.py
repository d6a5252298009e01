"""Export of a trained model to one file that runs without this package: ONNX, or a program of torch.export.

The program maps raw images, uint8 (N, in_channels, image_size, image_size), to logits, float32 (N, num_classes); the
whitening is inside. N is unlimited in ONNX, and at most `max_batch` in a program of torch.export, because ExecuTorch
plans its memory for that. With `dynamic_size` an ONNX program takes images of any height and width.

The traced example consists of zeros and is contiguous: torch.export saves the example with its whole storage, and
compilers assume that every input has its strides. Each file is read back and run before it gets its final name.
"""

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cvcc_zoo.classifier.flipping import Flipped
from cvcc_zoo.files.own import whole_file
from cvcc_zoo.printing import first_line
from cvcc_zoo.registry import needed
from cvcc_zoo.zoo.trained import Trained

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
MAX_BATCH = 1024  # ExecuTorch plans memory for this many images: 70 MB for each map of 16 channels of 32x32 pixels
BATCHES = (1, 7, 56)  # a program that only takes the batch size of its example fails on one of them
TOLERANCE = 1e-3  # relative to the largest logit; the families differ by at most 3e-6 of it
ADVICE = "nothing was written. Try another --format, or another version of torch"
TRACE = "pkg.torch.onnx.stack_trace"  # source lines and paths of the machine that exported


@dataclass(frozen=True)
class Agreement:
    """The largest difference between the logits of program and model, and the model's largest logit."""

    difference: float
    largest: float
    same_classes: bool


def export(
    trained: Trained,
    path: Path,
    format: str,
    images: Tensor,
    *,
    max_batch: int = MAX_BATCH,
    dynamic_size: bool = False,
    flip: bool = False,
) -> Agreement:
    """Write the program to `path`, and compare it with the model on images, uint8 (64, C, H, W).

    They come in batches of 1, 7 and 56, and with `dynamic_size` also with black borders. With `flip` the program
    returns the mean of the logits of each image and its mirror image. Raises ValueError, and writes
    nothing, if a package is missing, `dynamic_size` is given for a model of one image size, the program cannot be made
    or run, or it does not agree with the model.
    """
    assert len(images) == sum(BATCHES)
    plain = copy.copy(trained.model.cpu().float().eval())
    plain.channels_last = False  # a memory format for training that ExecuTorch's kernels refuse
    model: nn.Module = Flipped(plain).eval() if flip else plain
    channels, size = plain.in_channels, plain.image_size
    example = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    batches = [*torch.split(images, list(BATCHES))]
    labels = trained.labels()
    labels["output"] += ", the mean of those of the image and of its mirror image" if flip else ""
    with torch.no_grad(), _refused(f"{trained.name} cannot be exported to {format}"):
        if format == "onnx":
            if dynamic_size:
                batches += [pad(batches[-1], (0, 1, 2, 0)), pad(batches[0], (8, 0, 3, 0))]
                _check_any_size(trained, batches)
                labels["input"] = f"uint8 (N, {channels}, H, W), 0..255, trained on {size}x{size}"
            data = _to_onnx(model, example, labels, dynamic_size=dynamic_size)
        else:
            labels["input"] += f", N up to {max_batch}"
            data = _to_torch(model, example, labels, max_batch)
        with whole_file(path) as file:
            file.write(data)
            file.flush()
            program = {"onnx": _from_onnx, "torch_export": _from_torch}[format](Path(file.name).read_bytes())
            parts = [batch for given in batches for batch in torch.split(given, max_batch)]
            expected = torch.cat([model(batch) for batch in parts])
            found = torch.cat([program(batch) for batch in parts])
            if found.shape != expected.shape:
                raise RuntimeError(f"logits {tuple(found.shape)}, not {tuple(expected.shape)}")
            agreement = Agreement(
                difference=float((found - expected).abs().max()),
                largest=float(expected.abs().max()),
                same_classes=torch.equal(found.argmax(1), expected.argmax(1)),
            )
            if not (agreement.difference <= TOLERANCE * agreement.largest and agreement.same_classes):
                raise ValueError(
                    f"the exported program does not agree with {trained.name}: its logits differ by up to "
                    f"{agreement.difference:.2g} of {agreement.largest:.2g}, "
                    f"{'but' if agreement.same_classes else 'and'} the predicted classes "
                    f"{'agree' if agreement.same_classes else 'differ'}; " + ADVICE
                )
    return agreement


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Raise a ValueError for any error of torch and of ONNX Runtime, which is often hundreds of lines long."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{what} ({first_line(error.__cause__ or error)}); {ADVICE}") from error


def _check_any_size(trained: Trained, batches: list[Tensor]) -> None:
    try:
        for batch in batches:
            trained.model(batch[:1])
    except (ValueError, RuntimeError, AssertionError) as error:  # timm asserts shapes
        raise ValueError(
            "images of any height and width need global pooling and a whitening that depends on the channel only, but "
            f"{trained.name} takes images of one size ({first_line(error)}); leave --dynamic_size out"
        ) from error


def _to_onnx(model: nn.Module, example: Tensor, labels: dict[str, str], *, dynamic_size: bool) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, "export to ONNX", "onnx")
    shape = {0: "batch"}
    if dynamic_size:
        shape |= {2: "height", 3: "width"}
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        dynamic_shapes=(shape,),
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
    session = needed("onnxruntime", "export to ONNX", "onnx").InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _to_torch(model: nn.Module, example: Tensor, labels: dict[str, str], max_batch: int) -> bytes:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", max=max_batch)},))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=labels)
    return file.getvalue()


def _from_torch(data: bytes) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(data)).module()
    return program
