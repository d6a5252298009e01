"""Make a model from a name: `create`, `load`, and `use_weights` for a model to be fine-tuned."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier import ImageClassifier, Wrapped
from cvcc_zoo.classifier.arguments import unknown_here
from cvcc_zoo.classifier.weighting import without_numbers
from cvcc_zoo.classifier.wrapped import import_network
from cvcc_zoo.data.classes import matching, shared
from cvcc_zoo.models import Timm
from cvcc_zoo.models.timm import PREFIX
from cvcc_zoo.registry import ENTRIES, FAMILIES, check_known, check_options, family_options
from cvcc_zoo.weights.checkpoint import Checkpoint, read_checkpoint
from cvcc_zoo.weights.fits import Weights, rebuilt
from cvcc_zoo.zoo.catalogue import names_of
from cvcc_zoo.zoo.names import Source, resolve, resolve_trained
from cvcc_zoo.zoo.published import Published, read_published
from cvcc_zoo.zoo.transfer import ADAPTABLE, transfer


def create(
    name: str | Path, *, pretrained: str | Path | bool | None = None, new_head: bool = False, **options: Any
) -> ImageClassifier:
    """Build a model or a family with fresh weights, or return a model with trained weights.

    `create("resnext29", num_classes=100)` builds a model, and `create("ResNet", depth=26)` a family with options of its
    own. Case, "-" and "_" in the name of a model do not matter. `create("timm.resnet18", stem="small")` builds a
    network of timm, and `create("my_nets.Small", width=16)` one of your own; they take their own options, too.

    `create("resnet20.cifar10")` has published weights and is in evaluation mode, like any other trained model that
    `cvcc_zoo.zoo.names` lists: a card, a repository of the Hugging Face Hub, a run folder or a checkpoint.
    `pretrained` chooses weights of a model: the data set that they were trained on (`create("resnet20",
    pretrained="cifar10")`), the path of their card, a run folder, a folder with exactly one card of the model, or
    True for its weights of cifar10 or else the only ones. For a network of timm it is a file or folder of timm's
    weights, or True for those in the caches of this machine.

    `options` are those of its family and of ImageClassifier (num_classes, in_channels, image_size, loss, optimizer,
    lr_scheduler, ...), except those that the name fixes. Trained weights can be used for other classes (with a new
    classifier, which `new_head` requests for the same number of classes; `freeze` is 0 then if not given),
    other input channels (the first convolution is adapted) and other image sizes (networks with global pooling).
    Everything else must fit.

    Raises ValueError for an unknown name or option, with the nearest names, for weights that do not fit, and for
    damaged files; FileNotFoundError for missing files.
    """
    source = resolve(name, pretrained)
    if source.trained:
        weights = read_weights(source)
        return _transferred(weights, options, new_head=new_head) if options or new_head else weights.model
    if source.kind == "timm" and pretrained:
        options["pretrained"] = pretrained if isinstance(pretrained, bool) else str(pretrained)
        model = fresh(source, options)
        if new_head:
            model.reset_classifier(model.num_classes)
        return model
    if new_head:
        raise ValueError("new_head=True replaces the classifier of pretrained weights; give pretrained=... too")
    return fresh(source, options)


def load(checkpoint: str | Path, *, network: Any = None) -> ImageClassifier:
    """Return a trained model by any name that `cvcc_zoo.zoo.names` lists, in evaluation mode.

    `network` is the network of a model that was made by `ImageClassifier.wrap` of an object, which no file can hold.

    For a run folder it is the model in best.ckpt, or else in last.ckpt. Only plain data and tensors are read, and only
    registered families are built: a file cannot run code or import a module, and memory is in proportion to its size
    (unless the constructor of a family of your own reads values of tensors; then its options decide on the memory).
    The import path of an optimizer in it is followed in training, and only if its module is already imported. Raises
    FileNotFoundError for a missing file, and ValueError for a file without a model of this package.
    """
    model: ImageClassifier = read_weights(resolve_trained(checkpoint), network).model
    return model


def read_weights(source: Source, network: Any = None) -> Published | Checkpoint:
    """Read the weights of a resolved name. Raises FileNotFoundError or ValueError, as `load` does."""
    assert source.path is not None, source
    if source.kind == "card":
        if network is not None:
            raise ValueError(f"{source.name} has its own network; leave network={network!r} out")
        return read_published(source.path, source.model)
    weights = read_checkpoint(source.path, network)
    if source.model is not None and source.model not in (found := names_of(weights.family, weights.hparams)):
        raise ValueError(f"{source.path} holds a {found[0]}, not a {source.model}")
    return weights


def use_weights(model: ImageClassifier, weights: Weights, classes: Sequence[str]) -> list[str] | None:
    """Put weights into a model to be trained on these classes.

    The classifier is new if the weights were trained on other classes: other names, or another number if a checkpoint
    has no names. Only what it computes for classes of the weights stays, and these are returned. Otherwise the model
    gets the classes in the order of the weights, and None is returned. Raises ValueError for weights that do not fit,
    and for class weights in the order of other classes.
    """
    if weights.classes:
        new = matching(weights.classes, classes) is None
    else:
        new = bool(weights.hparams["num_classes"] != model.num_classes)
    if not new and weights.classes:
        check_order(getattr(model.loss, "class_weights", None), weights.path, weights.classes, classes)
    if not model.chose_whitening or model.whitening.spec == "standardize":  # `transfer` refuses any other choice
        model.use_whitening(weights.hparams["whitening"])
    known = shared(weights.classes or (), classes) if new else {}
    keeps = transfer(model, weights, new_head=new, known=known)
    model.shaping, model.seen_images = weights.shaping, weights.seen_images
    model.classes = None if new else weights.classes
    model.temperature = 1.0 if new else weights.calibration.get("temperature", 1.0)
    return [classes[place] for place in known if keeps] if new else None


def check_order(weights: Any, name: Path, wanted: Sequence[str], given: Sequence[str]) -> None:
    """Raise ValueError if class weights are a list for the `given` classes, and those `wanted` have another order."""
    if isinstance(weights, list | tuple) and matching(wanted, given) != list(range(len(given))):
        by_name = json.dumps(dict(zip(given, weights, strict=True)), ensure_ascii=False)
        raise ValueError(
            f"class_weights has a number for each class, and the weights {name} have the classes in another order than "
            f"the images; give the numbers by name: --model.loss.class_weights={shlex.quote(by_name)}"
        )


def fresh(source: Source, options: Mapping[str, Any]) -> ImageClassifier:
    """Build a model or a family without weights of ours."""
    if source.kind == "timm":
        return Timm(source.name.removeprefix(PREFIX), **options)
    if source.kind == "import path":
        return family_or_network(source.name)(**options)
    family, fixed, defaults = source.name, dict[str, Any](), dict[str, Any]()
    if source.kind == "model":
        entry = ENTRIES[source.name]
        family, fixed, defaults = entry.family.__name__, entry.fixed, entry.defaults
    check_known(f"option of {source.name}", family_options(FAMILIES[family]), *options)
    if taken := fixed.keys() & options.keys():
        raise ValueError(
            f"the name {source.name} fixes the option {', '.join(sorted(taken))}; choose another model "
            f"(cvcc_zoo.list_models()), or build the family yourself: cvcc_zoo.{family}(...)"
        )
    whole = {**defaults, **fixed, **options}
    check_options(source.name, FAMILIES[family], whole)
    model: ImageClassifier = FAMILIES[family](**whole)
    return model


def family_or_network(path: str) -> Callable[..., ImageClassifier]:
    """Return what builds a model of the class or function at an import path, whose module is imported.

    Raises ValueError if there is none.
    """
    found, path = import_network(path)
    if isinstance(found, type) and issubclass(found, ImageClassifier):
        return found
    return partial(Wrapped, path)


def _transferred(weights: Weights, options: Mapping[str, Any], *, new_head: bool) -> ImageClassifier:
    """Build a model with trained weights whose options are changed, or whose classifier is to be new."""
    check_known(f"option of {weights.path.stem}", family_options(FAMILIES[weights.family]), *options)
    saved = weights.hparams
    fresh = new_head or options.get("num_classes", saved["num_classes"]) != saved["num_classes"]
    hparams = {**saved, **(_of_new_classes(weights) if fresh else {}), **options}
    for error in unknown_here(options).values():
        raise error
    model: ImageClassifier = rebuilt(weights.family, hparams)
    transfer(model, weights, new_head=new_head)
    model.shaping, model.seen_images = weights.shaping, weights.seen_images
    if not new_head and weights.classes and model.num_classes == len(weights.classes):
        model.classes = weights.classes
    if not fresh and "loss" not in options:
        model.chosen_class_weights = weights.class_weights
    if not new_head and all(model.hparams[name] == saved[name] for name in ADAPTABLE):
        model.temperature = weights.calibration.get("temperature", 1.0)
    return model.eval()


def _of_new_classes(weights: Weights) -> dict[str, Any]:
    """Return options for a new classifier: the loss without numbers of the old classes, and no part that is frozen."""
    hparams = weights.hparams
    unfrozen = {"freeze": 0} if "freeze" in hparams else {}
    return {"loss": without_numbers(hparams.get("loss", "cross_entropy"), weights.class_weights), **unfrozen}
