"""Summaries and examples of the commands, for their help."""

import shutil
import textwrap
from dataclasses import dataclass

WIDTH = 14  # of the longest name


@dataclass(frozen=True)
class Command:
    """The summary of a command, and examples of how to call it."""

    what: str
    examples: tuple[str, ...]


GROUPS: dict[str, dict[str, Command]] = {
    "train": {
        "fit": Command(
            "train a model, test it, and write a run folder",
            (
                "cvcc-zoo fit                                       # a small CNN on the images in the package",
                "cvcc-zoo fit --config cifar10/resnet20             # a recipe, or a YAML file of your own",
                "cvcc-zoo fit --model=resnet20 --data.dataset=cifar10 --trainer.max_epochs=30",
                "cvcc-zoo fit --model=resnet20.cifar10 --data.root=my_images --data.image_size=32   # fine-tune",
                "cvcc-zoo fit --optimizer=Muon --optimizer.lr=0.02 --lr_scheduler=Cosine --lr_scheduler.warmup=0.1",
                "cvcc-zoo fit --config runs/resnet20-cifar10/config.yaml --ckpt_path=last   # resume",
                "cvcc-zoo fit --model.help=ResNeXt                  # the options of a family",
            ),
        ),
        "search": Command(
            "train with many values of some options, and see which are best on the validation images",
            (
                "cvcc-zoo search --folder=searches/linear --trials=20 --model=linear --trainer.max_epochs=3 "
                "--space='{optimizer.lr: {from: 1e-4, to: 1e-1, log: true}}'",
            ),
        ),
        "cross-validate": Command(
            "train on all folds of the training images but one, in turn, and predict the one left out",
            (
                "cvcc-zoo cross-validate --folder=cv/linear --folds=5 --model=linear --trainer.max_epochs=3",
                "cvcc-zoo cross-validate --folder=cv/my_images --model=resnet20 --data.root=my_images "
                "--data.image_size=32 --minutes=30",
            ),
        ),
        "find-lr": Command(
            "find a learning rate: train a few steps while it grows, and draw the loss",
            (
                "cvcc-zoo find-lr --model=resnet20 --data.dataset=cifar10 --optimizer=SGD --optimizer.momentum=0.9",
                "cvcc-zoo find-lr --config cifar10/resnet20 --output=lr.png",
            ),
        ),
        "train-zoo": Command(
            "train a folder of recipes within a time limit, and publish their weights",
            ("cvcc-zoo train-zoo --minutes=60 --recipes=cifar10 --only='[linear,resnet20]'",),
        ),
        "split": Command(
            "divide a folder of images into train, val and test, class by class, and find duplicates",
            (
                "cvcc-zoo split my_photos --output=my_images --val=0.1 --test=0.2",
                "cvcc-zoo split my_photos --output=my_images --group='(.*)_[0-9]+' --duplicates=together --copy",
            ),
        ),
        "recipes": Command(
            "show the recipes with accuracy, time and hardware, or print one of them",
            (
                "cvcc-zoo recipes",
                "cvcc-zoo recipes cifar10/resnet20 > my.yaml",
                "cvcc-zoo recipes cifar100",
            ),
        ),
        "publish": Command(
            "write the weights of a run as a file, and a card that says how they were trained and tested",
            ("cvcc-zoo publish runs/resnet20-cifar10", "cvcc-zoo publish runs/resnet20-my_images --tag=flowers"),
        ),
    },
    "use": {
        "predict": Command(
            "show the most probable classes of image files; with --run=... write those of the test images",
            (
                "cvcc-zoo predict resnet20.cifar10 my_pictures --top=3 --sheet=sheet.png",
                "cvcc-zoo predict runs/resnet20-my_images photo.jpg --output=predictions.csv",
                "cvcc-zoo predict resnet20.cifar10+cnn_fast.cifar10 photo.jpg   # the mean of two models",
                "cvcc-zoo predict --run=runs/resnet20-cifar10",
            ),
        ),
        "evaluate": Command(
            "measure weights on the test images, and compare published ones with their card",
            (
                "cvcc-zoo evaluate resnet20.cifar10 --data.dataset=cifar10",
                "cvcc-zoo evaluate resnet20.cifar10+cnn_fast.cifar10 --data.dataset=cifar10 --test_time_flip=true",
            ),
        ),
        "calibrate": Command(
            "calibrate the probabilities of a model: fit a temperature to its validation images",
            (
                "cvcc-zoo calibrate runs/resnet20-cifar10",
                "cvcc-zoo calibrate runs/resnet20-cifar10 --test=true   # see what it improves on the test images",
            ),
        ),
        "export": Command(
            "write a trained model as ONNX, torch.export or a web page that runs without this package",
            (
                "cvcc-zoo export resnet20.cifar10 --format=onnx",
                "cvcc-zoo export runs/resnet20-my_images --format=torch_export",
                "cvcc-zoo export resnet20.cifar10 --format=web      # open resnet20.cifar10-web/index.html",
            ),
        ),
        "demo": Command(
            "classify your own images with published models, in a browser",
            ("cvcc-zoo demo resnet20.cifar10 linear.cifar10",),
        ),
    },
    "measure and inspect": {
        "validate": Command(
            "measure a checkpoint on the validation images", ("cvcc-zoo validate --run=runs/resnet20-cifar10",)
        ),
        "test": Command(
            "measure a checkpoint on the test images",
            (
                "cvcc-zoo test --run=runs/resnet20-cifar10",
                "cvcc-zoo test --ckpt_path=runs/resnet20-cifar10/last.ckpt --data.dataset=cifar10",
            ),
        ),
        "report": Command(
            "write runs side by side as a page for the browser: leaderboard, curves, mistakes, calibration",
            ("cvcc-zoo report runs/*-cifar10* --output=report.html",),
        ),
        "list": Command(
            "show the models with parameters and multiply-accumulate operations, or the published weights",
            (
                "cvcc-zoo list 'resnext29*'",
                "cvcc-zoo list --pretrained --dataset=cifar10 --min-accuracy=0.8 --sort=accuracy",
            ),
        ),
        "describe": Command(
            "show the layers of models with receptive fields, or the signal and gradients block by block",
            ("cvcc-zoo describe resnet20", "cvcc-zoo describe plain56 resnet56 --statistics --output=depth.png"),
        ),
        "compare": Command(
            "show what models cost side by side: parameters, operations, memory, measured speed",
            (
                "cvcc-zoo compare resnet20 resnet56 'ResNeXt{cardinality: 2, base_width: 40}' --train",
                "cvcc-zoo compare resnet20 timm.resnet18 --sort=macs --csv=costs.csv",
            ),
        ),
        "optimizers": Command(
            "show the optimizers with the memory of their state and the time of a step",
            ("cvcc-zoo optimizers", "cvcc-zoo optimizers --model=resnet20"),
        ),
        "augmentations": Command(
            "draw images of a data set, and several augmentations of each",
            ("cvcc-zoo augmentations --data.dataset=cifar10 --data.augmentations=strong",),
        ),
        "whitening": Command(
            "draw images before and after whitening, its eigenvalues and filters",
            ("cvcc-zoo whitening --data.whitening=zca --data.whitening.eps=0.01",),
        ),
        "templates": Command(
            "draw the templates of linear classifiers, an image for each class", ("cvcc-zoo templates linear.cifar10",)
        ),
        "scores": Command(
            "draw the scores of test images, and the margins of the right class over the others",
            ("cvcc-zoo scores linear.cifar10 --data.dataset=cifar10",),
        ),
    },
    "your shell": {
        "completion": Command(
            "print a script that completes commands and options with the tab key",
            (
                "cvcc-zoo completion bash > ~/.local/share/bash-completion/completions/cvcc-zoo",
                "cvcc-zoo completion zsh > ~/.zfunc/_cvcc-zoo          # with fpath=(~/.zfunc $fpath) in ~/.zshrc",
            ),
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
FIRST = (
    COMMANDS["fit"].examples[:4],
    *((COMMANDS[name].examples[0],) for name in ("predict", "evaluate", "report", "compare")),
)


def overview() -> str:
    """Return the help of `cvcc-zoo`, whose summaries fit into the terminal; examples are not wrapped."""
    columns = min(120, shutil.get_terminal_size().columns)
    usage = "usage: cvcc-zoo [--import=MODULE] COMMAND [options]"
    lines = ["cvcc-zoo: a PyTorch Lightning model zoo for small images", "", usage]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, command in commands.items():
            indent = " " * (WIDTH + 3)
            lines.append(textwrap.fill(f"  {name:{WIDTH}s} {command.what}", columns, subsequent_indent=indent))
    lines += ["", "examples:", *(f"  {example}" for examples in FIRST for example in examples)]
    return "\n".join([*lines, "", "`cvcc-zoo COMMAND --help` shows all options of a command, and more examples."])


def with_examples(prog: str | None, text: str) -> str:
    """Append its examples to the help of a command; their lines are not wrapped, so that they can be copied."""
    name = (prog or "").rpartition(" ")[2]
    if name not in COMMANDS:
        return text
    examples = COMMANDS[name].examples
    return "\n".join([text.rstrip(), "", "examples:", *(f"  {example}" for example in examples), ""])
