"""Entry points of torch.hub: `torch.hub.load("<owner>/<repository>", "resnet20", pretrained="cifar10")`.

One for each model of the zoo, and `create` for all of them. torch.hub shows whatever can be called here and has no
underscore in front, so only modules are imported.
"""

import typing

import cvcc_zoo.registry
import cvcc_zoo.zoo.catalogue
import cvcc_zoo.zoo.creation

dependencies = ["torch", "torchvision", "lightning", "torchmetrics", "safetensors", "rich"]  # torch.hub reads this


def create(name: str, pretrained: str | bool | None = None, **options: typing.Any) -> typing.Any:
    """A model by its name, as `cvcc_zoo.create` makes it: raw images, uint8 0..255 or float 0..1, to logits."""
    return cvcc_zoo.zoo.creation.create(name, pretrained=pretrained, **options)


def _entrypoint(name: str) -> typing.Any:
    def build(pretrained: str | bool | None = None, **options: typing.Any) -> typing.Any:
        return create(name, pretrained, **options)

    entry = cvcc_zoo.registry.find(name)
    family, _ = cvcc_zoo.zoo.catalogue.describe(name)
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""{family}: {entry.summary}

    {entry.parameters:,} parameters with 10 classes and 3x32x32 images. Raw images (N, in_channels, H, W), uint8 0..255
    or float 0..1, to logits (N, num_classes).

    Args:
        pretrained: The data set of published weights, like "cifar10", the path of their card, or True for those of
            cifar10, else for the only ones; None for fresh ones.
        options: num_classes, in_channels, image_size and the others of cvcc_zoo.{family}.

    """
    return build


globals().update({_name: _entrypoint(_name) for _name in cvcc_zoo.registry.ENTRIES})
