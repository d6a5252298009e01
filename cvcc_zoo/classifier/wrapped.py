"""Wrapped: a network of your own as a model, by its class, by a function that builds it, by its import path, or itself.

    model = ImageClassifier.wrap(Small, num_classes=10, image_size=32, width=16)    # a class; `width` is its option
    model = ImageClassifier.wrap("my_nets.Small", num_classes=10)                   # its import path
    model = ImageClassifier.wrap(Small(width=16), num_classes=10)                   # an object

The network takes whitened images (N, in_channels, image_size, image_size) and returns logits (N, num_classes). If its
class or function has parameters num_classes, in_channels (or in_chans) and image_size (or img_size), they are given.
Checkpoints save the import path and the options, and are loaded in any process that has imported the module. An object
cannot be saved in this way: `cvcc_zoo.load("runs/x", network=Small(width=16))` needs it again.

A checkpoint may come from others and must not run their code: a path in it is looked up only in modules that are
imported already, and must be that of a class of networks, or of a function that is annotated to return one.
"""

import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn

from cvcc_zoo.classifier.compatibility import check_logits
from cvcc_zoo.classifier.image_classifier import ImageClassifier
from cvcc_zoo.classifier.network import zero_images
from cvcc_zoo.kinds import plain_defaults
from cvcc_zoo.registry import LONGEST_NAME, NotImportedError, already_imported, check_options, closest, unknown

Builder = Callable[..., nn.Module]
SHAPES = {
    "num_classes": "num_classes",
    "in_channels": "in_channels",
    "in_chans": "in_channels",
    "image_size": "image_size",
    "img_size": "image_size",
}
"""Parameters of a network that it is given, and the option of the model that is their value."""
OURS = frozenset(inspect.signature(ImageClassifier.__init__).parameters) - {"self"}
_named_by_user: dict[str, Builder] = {}
"""Classes and functions that the user has named in this process, by import path."""


class Wrapped(ImageClassifier):
    """A network of your own, with whitening, loss, optimizer and schedule around it."""

    network_of_others = True

    def __init__(self, network: Any, network_options: dict[str, Any] | None = None, **options: Any) -> None:
        """Build the model; `options` are those of ImageClassifier, and others are added to `network_options`.

        Args:
            network: An nn.Module, a class of them, a function that returns one, or an import path of either; a path
                only from a module that is imported already.
            network_options: Options of the class or function.

        """
        if isinstance(network, functools.partial) and not network.args:
            network, network_options = network.func, {**network.keywords, **(network_options or {})}
        given = network
        builder, network = named(given)
        names, any_name = own_options(builder)
        options, network_options = split_options(shown_name(given), options, network_options, names, any_name=any_name)
        network_options = own_defaults(builder) | network_options
        super().__init__(**options)
        if builder is None and network_options:
            raise ValueError(
                f"the network is an object already, and takes no options: leave {', '.join(network_options)} out"
            )
        made = given if builder is None else self._built(builder, shown_name(given), network_options)
        if network is None:
            self.hparams["network_options"] = None  # they are part of the object
        check_logits(made, shown_name(given), self.num_classes, self.in_channels, self.image_size)
        self.network = made
        self.whitening.to(zero_images(made, (0,)).dtype)

    @classmethod
    def of_user(cls, network: Any, **options: Any) -> "Wrapped":
        """Return a model around a network that the user gives; the module of an import path is imported."""
        return cls(import_network(network)[1] if isinstance(network, str) else network, **options)

    @classmethod
    def model_name(cls, hparams: Mapping[str, Any]) -> str:
        """Return the name of the network's class or function in lower case."""
        path = hparams.get("network")
        return path.rpartition(".")[2].lower() if isinstance(path, str) else cls.__name__.lower()

    @classmethod
    def with_defaults(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyperparameters with the defaults of the network's own options, as far as its module is imported."""
        path, options = hparams.get("network"), hparams.get("network_options") or {}
        try:
            defaults = own_defaults(find_network(path)) if isinstance(path, str) else {}
            return {**hparams, "network_options": defaults | options}
        except (TypeError, ValueError):  # a module that is not imported, or a file with no options there
            return dict(hparams)

    def _built(self, builder: Builder, name: str, options: Mapping[str, Any]) -> nn.Module:
        parameters = inspect.signature(builder).parameters
        known = {key: getattr(self, option) for key, option in SHAPES.items() if key in parameters}
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):  # as in torchvision.models.resnet18
            known.setdefault("num_classes", self.num_classes)
        check_options(name, builder, options, skip=known)
        tuples = {key for key, p in parameters.items() if isinstance(p.default, tuple)}  # files have lists instead
        options = {key: tuple(v) if key in tuples and isinstance(v, list) else v for key, v in options.items()}
        try:
            network = builder(**{**known, **options})
        except TypeError as error:
            raise ValueError(f"{name} cannot be built with {dict(options)}: {error}; change its options") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"{name} must return an nn.Module, not {type(network).__name__}")
        return network


def named(network: Any) -> tuple[Builder | None, str | None]:
    """Return what builds a network and its import path, or None where there is none. Raises ValueError as `find` does.

    A class or function that has no import path, because it is local, counts as an object that it builds.
    """
    if isinstance(network, str):
        return find_network(network), network
    if isinstance(network, nn.Module) and not isinstance(network, ImageClassifier):
        return None, None
    if network is None:
        raise ValueError(
            "this model was made of a network that is an object, which no file can hold; give the object again: "
            "cvcc_zoo.load(..., network=Small())"
        )
    if isinstance(network, ImageClassifier) or (inspect.isclass(network) and issubclass(network, ImageClassifier)):
        raise ValueError(f"{shown_name(network)} is a model already, with whitening and optimizer; use it as it is")
    if not callable(network) or (inspect.isclass(network) and not issubclass(network, nn.Module)):
        raise ValueError(
            f"the network must be an nn.Module, a class of them, a function that returns one, or an import path, not "
            f"{network!r}"
        )
    path = f"{getattr(network, '__module__', '')}.{getattr(network, '__qualname__', '')}"
    if already_imported(path) is network:
        _named_by_user[path] = network
        return network, path
    return network, None


def import_network(path: str) -> tuple[Builder, str]:
    """Return the class or function at an import path that the user gives, and the path where it is defined.

    Its module is imported. Raises ValueError if there is none.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"an import path has a module and a name, such as my_nets.Small, not {path!r}")
    try:
        found = getattr(importlib.import_module(module), name, None)  # also what a module imports when it is used
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"no model at the import path {path!r}: {error}; start in the folder of the module, or install it"
        ) from None
    if found is None:
        raise ValueError(f"no model at the import path {path!r}: the module {module} has no such name")
    if not callable(found) or (inspect.isclass(found) and not issubclass(found, nn.Module)):
        raise ValueError(f"{path} is not a valid model: make it a subclass of torch.nn.Module, or a function")
    defined = f"{found.__module__}.{getattr(found, '__qualname__', '')}"
    path = defined if already_imported(defined) is found else path
    _named_by_user[path] = found
    return found, path


def find_network(path: str) -> Builder:
    """Return the class or function at an import path that may come from a file; no module is imported for it.

    Raises NotImportedError if its module is not imported, and ValueError if it has no such name, or if that is neither
    a class of networks nor a function that says that it returns one; the user may have named any function before.
    """
    if path in _named_by_user:
        return _named_by_user[path]
    module, found = path.rpartition(".")[0], already_imported(path) if len(path) <= LONGEST_NAME else None
    if found is None and module in sys.modules:
        raise ValueError(f"the module {module} has no network {path.rpartition('.')[2]!r}; was it renamed?")
    if found is None:
        module = module if re.fullmatch(r"[\w.]{1,99}", module) else "MODULE"  # because users copy the command
        raise NotImportedError(
            f"the module of the network {path[:LONGEST_NAME]!r} is not imported; if you trust it, start in its folder "
            f"with `cvcc-zoo --import={module} ...` (in Python: `import {module}` first, or cvcc_zoo.load(..., "
            "network=...))"
        )
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return found
    if not _returns_network(found, module):
        raise ValueError(
            f"{path} is not called, because the path may come from a file, and it is neither a class of networks nor a "
            "function that says `-> nn.Module`; add that, or give the network: cvcc_zoo.load(..., network=...)"
        )
    return found  # type: ignore[no-any-return]


def _returns_network(found: Any, module: str) -> bool:
    """Return whether a function is defined in this module, not in torch, and annotated to return a network."""
    if not inspect.isfunction(found) or found.__module__ != module or module.partition(".")[0] == "torch":
        return False
    try:
        returned = typing.get_type_hints(found).get("return")
    except Exception:  # annotations are any expressions
        return False
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def own_options(builder: Builder | None) -> tuple[set[str], bool]:
    """Return the names of the options of what builds a network, and whether it takes any other, too."""
    parameters = inspect.signature(builder).parameters.values() if builder else ()
    return {p.name for p in parameters}, any(p.kind is p.VAR_KEYWORD for p in parameters)


def own_defaults(builder: Builder | None) -> dict[str, Any]:
    """Return the plain defaults of the options of what builds a network, as its code may have others later."""
    found = plain_defaults(inspect.signature(builder).parameters) if builder else {}
    return {name: value for name, value in found.items() if name not in {*OURS, *SHAPES}}


def split_options(
    name: str,
    options: Mapping[str, Any],
    more: Mapping[str, Any] | None,
    networks: Collection[str] = (),
    of_family: Sequence[str] = (),
    *,
    any_name: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of ImageClassifier, and those of a network, which are the others and `more`.

    `networks` are names of the latter; with `any_name` there may be others, unless they look like a misspelt option of
    ours. Raises ValueError, with the nearest names, for an option that neither has; `of_family` are suggested, too.
    """
    known = {*OURS, *of_family}
    if not isinstance(more, Mapping | None):
        raise ValueError(f"network_options of {name} are options by name, {{option: value}}, not {more!r}")
    others = {**{key: value for key, value in options.items() if key not in OURS}, **(more or {})}
    for key in others:
        if key in known:
            raise ValueError(f"{key} is an option of the model, not of its network; give it outside of network_options")
        if key not in networks and (not any_name or closest(key, known)):
            raise unknown(f"option of {name}", key, {*known, *networks})
    return {key: value for key, value in options.items() if key in OURS}, others


def shown_name(network: Any) -> str:
    """Return how a network is called in messages."""
    return network if isinstance(network, str) else getattr(network, "__name__", type(network).__name__)
