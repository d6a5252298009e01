"""A training step as a function of fixed tensors, which is recorded once and then replayed.

A replay runs without Python: it reads and writes the same tensors as the step that was recorded. So what changes from
step to step (images, labels, learning rates, the weight of an average) is first copied into these tensors, and metrics,
which start each epoch with new tensors, get the recorded ones back.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from lightning import Trainer
from torch import Tensor
from torchmetrics import Metric

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.optim.capture import set_rates, without_python_numbers
from cvcc_zoo.printing import first_line
from cvcc_zoo.runs.ema import EMA

WARM_UP = 3
"""Steps before the recording, in which libraries and optimizers set themselves up, which cannot be recorded.

https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture takes three, too.
"""

Step = Callable[[], Tensor]


class Recorder(Protocol):
    """Records what a function does on a device."""

    number: torch.dtype
    """The type in which the optimizers' kernels take a learning rate from the device."""

    def warm_up(self, step: Step) -> Tensor:
        """Run a step under the conditions of a recording."""

    def record(self, step: Step) -> tuple[Callable[[], None], Tensor]:
        """Record a step without running it; return a function that runs it, and where its result will be."""

    def wait(self) -> None:
        """Wait until all replays are done, so that recordings can be freed."""


class CudaGraphs:
    """CUDA graphs of steps, in which a replay draws random numbers from the current state of the generator.

    Warm-up and recording use a stream of their own, as torch's documentation of CUDA graphs requires.
    """

    number = torch.float32

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, step: Step) -> Tensor:
        """Run a step on the stream of the recordings."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = step()
        current.wait_stream(self.stream)
        return result

    def record(self, step: Step) -> tuple[Callable[[], None], Tensor]:
        """Record a step; threads that load data may use CUDA meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
        ):
            result = step()
        return graph.replay, result

    def wait(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self.device)


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaGraphs}
"""Recorders of steps, by type of device."""


class StaticStep:
    """A training step of a model on batches of one shape: from the loss to the optimizer, the metrics, and an EMA."""

    def __init__(
        self, trainer: Trainer, model: ImageClassifier, images: Tensor, labels: Tensor, recorder: Recorder
    ) -> None:
        self.trainer, self.model, self.recorder = trainer, model, recorder
        self.optimizer = trainer.optimizers[0]
        self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.rates = [self._number() for _ in self.optimizer.param_groups]
        self.averages = [(each, self._number()) for each in callbacks_of(trainer) if isinstance(each, EMA)]
        self.steps = 0
        self._replay: Callable[[], None] | None = None
        self._loss = self._number()
        self._counts: list[tuple[Metric, str, Any]] = []

    def _number(self) -> Tensor:
        return torch.zeros((), dtype=self.recorder.number, device=self.model.device)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step on a batch, and return its loss, which the next step overwrites."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        set_rates(self.optimizer, self.rates)
        for average, share in self.averages:
            share.fill_(average.share(self.trainer.global_step))
        self.steps += 1
        if self.steps <= WARM_UP:
            loss = self.recorder.warm_up(self._run)
        else:
            if self._replay is None:
                self._record()
            assert self._replay is not None
            self._restore_counts()
            self._replay()
            loss = self._loss
        for average, _ in self.averages:
            average.moved = True
        return loss

    def _run(self) -> Tensor:
        """Do what Lightning does in a step, on the images, labels and rates in the fixed tensors."""
        trainer, model, optimizer = self.trainer, self.model, self.optimizer
        model.reads_values = False
        try:
            with trainer.precision_plugin.train_step_context():
                loss = model.training_loss((self.images, self.labels))
            model.backward(loss)
            with without_python_numbers(optimizer, self.rates):
                model.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
                optimizer.step()
        finally:
            del model.reads_values
        optimizer.zero_grad()  # so that the recording owns the memory of the gradients
        for average, share in self.averages:
            average.move(model, share)
        return loss.detach()

    def _record(self) -> None:
        self._counts = [
            (metric, name, value)
            for metric in self.model.metrics.of("train").values()
            for name, value in metric.metric_state.items()
        ]
        try:
            self._replay, self._loss = self.recorder.record(self._run)
        except RuntimeError as error:
            raise RuntimeError(
                f"this training step cannot be recorded ({first_line(error)}); leave out the callback "
                "StepGraph, or change the part of the model that waits for the device"
            ) from error

    def _restore_counts(self) -> None:
        """Let metrics count in the tensors of the recording again; at the start of an epoch they take new ones."""
        for metric, name, value in self._counts:
            if getattr(metric, name) is not value:
                if not metric.update_called:  # torchmetrics would warn that nothing was counted
                    metric.update(torch.zeros(0, device=value.device))
                value.copy_(getattr(metric, name))
                setattr(metric, name, value)
