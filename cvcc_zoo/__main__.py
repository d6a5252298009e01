"""`cvcc-zoo` and `python -m cvcc_zoo`."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cvcc_zoo.allocation import keep_freed_memory
from cvcc_zoo.registry import unknown

COMMANDS = (
    "list", "describe", "compare", "optimizers", "publish", "evaluate", "export", "templates", "scores", "train-zoo",
    "search", "report", "demo",
)  # fmt: skip
PICTURES = ("augmentations", "whitening")
LIGHTNING = ("fit", "validate", "test", "predict")
HELP = """cvcc-zoo: a PyTorch Lightning model zoo for small images

usage: cvcc-zoo COMMAND [options]

  fit         train a model, test it, and write a run folder
  validate    measure a checkpoint on the validation images
  test        measure a checkpoint on the test images
  predict     show the most probable classes of image files; with --run=... write those of the test images
  publish     make a file of weights and a card of a run, measured from that file
  evaluate    measure published weights again, and say whether their card holds
  export      write a trained model as one file, ONNX or torch.export, that runs without this package
  templates   draw what linear classifiers look for, an image for each class
  scores      draw the scores of test images, and by how much the right class wins in all of them
  train-zoo   train a folder of recipes within a time, and publish their weights
  report      write runs side by side as a page for the browser: leaderboard, curves, mistakes, calibration
  demo        show what published models make of your own images, in a browser
  search      train with many values of some options, and see which are best on the validation images
  list        show the models with parameters and multiply-accumulate operations
  describe    show the layers of models with receptive fields, or the signal and gradients block by block
  compare     show what models cost side by side: parameters, operations, memory, measured speed
  optimizers  show the optimizers with the memory of their state and the time of a step
  augmentations, whitening
              draw what is done to the images of a data set

examples:
  cvcc-zoo fit                                                    a small CNN on the images that the package carries
  cvcc-zoo fit --model=resnet20 --data.dataset=cifar10 --trainer.max_epochs=30
  cvcc-zoo fit --config configs/cifar10/resnet20.yaml
  cvcc-zoo fit --model=cnn --data.dataset=folder --data.root=my_images --data.image_size=32
  cvcc-zoo fit --model=ResNeXt --model.cardinality=16 --optimizer=SGD --optimizer.lr=0.1 --lr_scheduler=OneCycleLR
  cvcc-zoo fit --optimizer=Muon --optimizer.lr=0.02 --lr_scheduler=QuarterCosine --lr_scheduler.warmup=0.1
  cvcc-zoo test --run=runs/resnet20-cifar10
  cvcc-zoo publish runs/resnet20-cifar10
  cvcc-zoo evaluate resnet20.cifar10 --data.dataset=cifar10
  cvcc-zoo predict resnet20.cifar10 my_pictures --top=3 --sheet=sheet.png
  cvcc-zoo export resnet20.cifar10 --format=onnx
  cvcc-zoo templates linear.cifar10
  cvcc-zoo scores linear.cifar10 --data.dataset=cifar10
  cvcc-zoo train-zoo --minutes=60 --recipes=configs/cifar10 --only=[linear,resnet20]
  cvcc-zoo search --folder=searches/linear --space='{optimizer.lr: {from: 1e-4, to: 1e-1, log: true}}' --model=linear
  cvcc-zoo report runs/* --output=report.html
  cvcc-zoo demo resnet20.cifar10 linear.cifar10
  cvcc-zoo augmentations --data.dataset=cifar10 --data.augmentations=strong
  cvcc-zoo describe plain56 resnet56 --statistics --output=depth.png
  cvcc-zoo compare resnet20 resnet56 'ResNeXt{cardinality: 2, base_width: 40}' --train
  cvcc-zoo list 'resnext29*'

`cvcc-zoo COMMAND --help` shows all options of a command."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 after a message that says what to do, 128 + that of a signal."""
    args = list(sys.argv[1:] if args is None else args)
    keep_freed_memory()
    try:
        code = run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `cvcc-zoo list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE
    except (ValueError, OSError, ArithmeticError) as error:
        message = meant_for_users(error)
        if message is None:
            raise
        print(f"cvcc-zoo: error: {message}", file=sys.stderr)
        return 2


def run(args: list[str]) -> int:
    """Choose the command; what it needs is imported only then."""
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    of_files = args[0] == "predict" and len(args) > 1 and not args[1].startswith("-")
    if args[0] in COMMANDS or of_files:
        module = importlib.import_module(f"cvcc_zoo.commands.{args[0].replace('-', '_')}")
        command: Callable[[list[str]], int] = module.main
        return command(args[1:])
    if args[0] in PICTURES:
        from cvcc_zoo.commands.look import main as look

        return look(args[0], args[1:])
    if args[0] not in LIGHTNING:
        raise unknown("command", args[0], [*LIGHTNING, *PICTURES, *COMMANDS], "`cvcc-zoo --help` shows what they do")
    from cvcc_zoo.cli import main as lightning
    from cvcc_zoo.runs import StoppedError

    try:
        return lightning(args)
    except StoppedError as stop:
        print(f"cvcc-zoo: {stop}", file=sys.stderr)
        return stop.code


def meant_for_users(error: BaseException | None) -> str | None:
    """The message of the error, or of its cause, that a line of this package raised; None if none of them was."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if frames and Path(frames[-1].filename).is_relative_to(Path(__file__).parent):
            return str(error)
        error = error.__cause__
    return None


if __name__ == "__main__":
    sys.exit(main())
