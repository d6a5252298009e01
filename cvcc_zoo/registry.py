"""The models by name with their exact parameter counts, and checks of names and options that suggest corrections."""

import difflib
import functools
import importlib
import inspect
import re
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
"""A name with its options, as plain data: `{"name": "SGD", "lr": 0.1}`."""

LONGEST_NAME = 200  # characters
MISSPELT = 0.75  # difflib's ratio from which on a name is another one with a typing error
CLOSE = 0.55  # difflib's ratio: names below it are not suggested, such as resnet20 for mobilenet_v2


@dataclass(frozen=True)
class Entry:
    """A named model: a family with some options, and its parameters with 10 classes and 3x32x32 images."""

    name: str
    family: type
    summary: str
    parameters: int
    fixed: dict[str, Any]
    """Options of the family that belong to the name."""
    defaults: dict[str, Any]
    """Options whose defaults differ from those of the family."""

    @property
    def options(self) -> dict[str, Any]:
        """All options that differ from the defaults of the family."""
        return self.fixed | self.defaults


ENTRIES: dict[str, Entry] = {}
ALIASES: dict[str, str] = {}
FAMILIES: dict[str, type] = {}
"""All model families by class name; a checkpoint can only name one of these."""


def register_family(family: type) -> None:
    """Register a class under its name. Raises ValueError if another class has the name."""
    known = FAMILIES.get(family.__name__)
    if known is not None and known.__module__ != family.__module__:
        raise ValueError(
            f"the family name {family.__name__} is taken by {known.__module__}.{family.__name__}, and checkpoints "
            f"need unique names; rename the class in {family.__module__}"
        )
    FAMILIES[family.__name__] = family


@functools.cache
def family_options(family: type) -> Mapping[str, inspect.Parameter]:
    """Return the options of a family's constructor by name, including those of its base classes."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(inspect.getmro(family)):
        found |= inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: parameter for name, parameter in found.items() if parameter.kind in kinds and name != "self"}


def register(
    name: str,
    family: type,
    summary: str,
    *,
    parameters: int,
    alias: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    **fixed: Any,
) -> None:
    """Register a model, a family with some options, under a name and an optional alias.

    `parameters` is the exact count for 10 classes and 3x32x32 images, which a test checks. The options `fixed` belong
    to the name; those in `defaults` can be changed. A class that is defined anew, as in a notebook, keeps its names.
    Raises ValueError for another name that is taken or is no word, for what is no family, and for options it lacks.
    """
    if not (isinstance(family, type) and FAMILIES.get(family.__name__) is family):
        raise ValueError(f"{name}: {family!r} is not a model family; derive a class from cvcc_zoo.ImageClassifier")
    if not isinstance(parameters, int):
        raise ValueError(f"{name}: parameters is its exact count for 10 classes and 3x32x32 images, not {parameters!r}")
    check_known(f"option of {family.__name__}", family_options(family), *fixed, *(defaults or {}))
    for new in (name, *([] if alias is None else [alias])):
        if not re.fullmatch(r"[A-Za-z][\w-]*", new):
            raise ValueError(f"{new!r} is not a name of a model; write it with letters, digits, _ and - alone")
        if (taken := as_typed(new, [*ENTRIES, *ALIASES])) is not None:
            first = find(taken)
            if first.name != name or first.family is family or first.family.__name__ != family.__name__:
                holder = f"{first.family.__name__} ({first.summary})"
                raise ValueError(f"the model name {new!r} is taken by a {holder}; rename one")
    ENTRIES[name] = Entry(name, family, summary, parameters, fixed, dict(defaults or {}))
    if alias:
        ALIASES[alias] = name


def find(name: str) -> Entry:
    """Return the entry of a model by name or alias, as people type them. Raises ValueError with the nearest names."""
    name = pick("model", name, [*ENTRIES, *ALIASES], "`cvcc-zoo list` shows all models")
    return ENTRIES[ALIASES.get(name, name)]


def as_typed(name: Any, known: Iterable[str]) -> str | None:
    """Return the known name that matches, ignoring case, "-", "_" and spaces; None unless exactly one matches."""
    known = list(known)
    if name in known:
        return str(name)
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return None
    matches = [candidate for candidate in known if _simplified(candidate) == _simplified(name)]
    return matches[0] if len(matches) == 1 else None


def _simplified(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).casefold()


def pick(kind: str, name: Any, known: Collection[str], hint: str = "") -> str:
    """Return the known name that somebody typed. Raises ValueError with the nearest names."""
    if (found := as_typed(name, known)) is None:
        raise unknown(kind, name, known, hint)
    return found


def check_known(kind: str, known: Collection[str], *names: Any, hint: str = "") -> None:
    """Raise ValueError, with the nearest names, for the first of `names` that is not known exactly as it is written."""
    for name in names:
        if name not in list(known):  # a list, because a name may be unhashable
            raise unknown(kind, name, known, hint)


def closest(name: str, known: Iterable[str], cutoff: float = MISSPELT) -> list[str]:
    """Return the three nearest of the known names whose difflib ratio to this one is `cutoff` or more."""
    return difflib.get_close_matches(name[:LONGEST_NAME], list(known), n=3, cutoff=cutoff)


def unknown(kind: str, name: Any, known: Iterable[str], hint: str = "") -> ValueError:
    """Return the error for an unknown name, or for a value that is not a name; it suggests the nearest names."""
    known = sorted(known)
    shown = f"known are: {', '.join(known[:30]) or 'none'}{', ...' if len(known) > 30 else ''}"
    if not isinstance(name, str):
        return ValueError(f"a {kind} has a name, not {reprlib.repr(name)}; {shown}")
    if len(name) > LONGEST_NAME:  # comparing a long text with every name would take minutes
        return ValueError(f"no {kind} named {name[:LONGEST_NAME]!r}...; {shown}")
    lower = {candidate.lower(): candidate for candidate in known}
    near = [lower[match] for match in closest(name.lower(), lower, CLOSE)]
    near += [candidate for candidate in known if name and name.lower() in candidate.lower() and candidate not in near]
    advice = f"did you mean {' or '.join(near[:3])}?" if near else shown
    return ValueError(f"no {kind} named {name!r}; {advice}{f' ({hint})' if hint else ''}")


def as_spec(kind: str, value: str | Mapping[str, Any]) -> Spec:
    """Return `"SGD"` or `{"name": "SGD", "lr": 0.1}` as a dict with the key `name`; accepts class_path and init_args.

    Raises ValueError for anything else, for options beside `class_path` and `init_args`, and if there is no name.
    """
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind} is a name or {{name: ..., option: value}}, not {value!r}")
    spec = dict(value)
    if "class_path" in spec:
        if beside := [key for key in spec if key not in ("class_path", "init_args")]:
            raise ValueError(
                f"{kind} has {beside[0]} beside class_path, where it is lost; write {{name: {spec['class_path']}, "
                f"{beside[0]}: ...}}"
            )
        arguments = spec.get("init_args") or {}
        if not isinstance(arguments, Mapping):
            raise ValueError(f"init_args of {kind} are options by name, {{option: value}}, not {arguments!r}")
        spec = {"name": spec["class_path"], **arguments}
    if isinstance(spec.get("name"), bool):  # YAML reads no, off, false, yes, on and true without quotes as these
        instead = "null for none" if kind == "lr_scheduler" else "leave it out"
        raise ValueError(f"no {kind} is named {str(spec['name']).lower()}; write the name of one, or {instead}")
    if not isinstance(spec.get("name"), str):
        raise ValueError(f"{kind} {spec} has no name; write it like {{name: ..., option: value}}")
    return spec


class NotImportedError(ValueError):
    """A file names a class or function of a module that is not imported; only its user may decide to import it."""


def check_options(
    kind: str, function: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()
) -> None:
    """Raise ValueError, with the nearest names, if `function` does not take an option or lacks a required one.

    `skip` names the parameters that the caller gives itself.
    """
    skip = set(skip)
    parameters = {k: p for k, p in inspect.signature(function).parameters.items() if k not in skip}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        check_known(f"option of {kind}", parameters, *options)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [k for k, p in parameters.items() if p.kind in kinds and p.default is p.empty and k not in options]
    if missing:
        raise ValueError(f"{kind} needs the option {' and '.join(missing)}")


def import_class(kind: str, path: str, base: type | None) -> Any:
    """Return the class, or without `base` anything, at an import path that a user gives; its module is imported.

    Raises ValueError if there is none or if it is not a subclass of `base`.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no {kind} at the import path {path!r}: {error}") from None
    return _subclass(kind, path, found, base)


def needed(module: str, what: str, extra: str) -> Any:
    """Import a module of an extra. Raises ValueError, which says what to install, if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {module.partition('.')[0]}: pip install 'cvcc_zoo[{extra}]'") from error


def already_imported(path: str) -> Any:
    """Return what a dotted import path names in a module that is imported already, or None."""
    module, _, name = path.rpartition(".")
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def imported_class(kind: str, path: str, base: type | None) -> Any:
    """Return the same at an import path that may come from a file, only from an already imported module.

    Raises ValueError if there is none, and says which module to import, or if it is not a subclass of `base`.
    """
    if (found := already_imported(path)) is None:
        raise ValueError(
            f"no {kind} at the import path {path!r} in the modules imported so far, and no others are imported for it, "
            f"because it may come from a file; if you trust it, `import {(module := path.rpartition('.')[0])}` first "
            f"(cvcc-zoo --import={module} ...), or choose another {kind}"
        )
    return _subclass(kind, path, found, base)


def _subclass(kind: str, path: str, found: Any, base: type | None) -> Any:
    if base is not None and not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"{path} is not a valid {kind}: make it a subclass of {base.__module__}.{base.__qualname__}")
    return found
