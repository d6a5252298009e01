"""Compare lists of class names.

Case, the Unicode form of accents and the separators between words do not matter: "Sea lion", "sea_lion" and "sea-lion"
are one class.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

SHOWN = 5  # names of each kind in a message
LISTED = 100  # classes in a table
LONGEST_CLASS = 1_000  # characters; a checkpoint with a longer name is refused
JOINERS = str.maketrans("", "", "\u200c\u200d")
"""Characters that have no width but belong to words of Persian and Malayalam, and join emoji."""
DIGITS = tuple("0123456789")
DIGITS_NOTE = (
    "the classes have the names 0 to 9, so the presets of --data.augmentations do not mirror images; if they are not "
    "digits: --data.augmentations='[RandomCrop, HorizontalFlip]'"
)
"""A note about data sets of the user whose classes are digits."""


def as_text(name: object) -> str:
    """Return the name of a class as text; arrays of the kind S and the files of CIFAR hold bytes."""
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def listed(names: object) -> list[object] | None:
    """Return names in order as a list: of a list, tuple, array, tensor or pandas Index; None for what has no order."""
    names = names.tolist() if hasattr(names, "tolist") else names
    if not isinstance(names, Iterable) or isinstance(names, str | bytes | Mapping | set | frozenset):
        return None
    return list(names)


def are_digits(names: Sequence[str]) -> bool:
    """Return whether the classes are 0 to 9, in any order."""
    return sorted(names) == list(DIGITS)


def is_printable(name: str) -> bool:
    """Return whether a terminal can show a name: it is not blank, and none of its characters moves the cursor."""
    return bool(name.strip()) and name.translate(JOINERS).isprintable()


def check_class_names(names: Sequence[str], place: str) -> None:
    """Raise ValueError for the first name that cannot be shown or saved; `place` is where the names were found."""
    for number, name in enumerate(names):
        if not is_printable(name):
            raise ValueError(
                f"{place} has {name!r} as the name of class {number}, which is blank or has unprintable characters; "
                "give other names as classes=[...] (--data.classes)"
            )
        if len(name) > LONGEST_CLASS:
            raise ValueError(
                f"{place} has a name of {len(name):,} characters for class {number}, and a model saves at most "
                f"{LONGEST_CLASS:,}; give shorter names as classes=[...] (--data.classes)"
            )


def plain_name(name: str) -> str:
    """Normalise a name for comparison: lower-case letters and digits of any script, with one "_" between words."""
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_") or name


def matching(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Return the index of each `given` class in `wanted`, or None if the two lists have different classes.

    Normalised names are compared if the exact names differ and the normalised ones are unique.
    """
    for form in (str, plain_name):
        mine, theirs = [form(name) for name in wanted], [form(name) for name in given]
        if sorted(mine) == sorted(theirs) and len(set(mine)) == len(mine):
            return [mine.index(name) for name in theirs]
    return None


def unique_places(names: Sequence[str], form: Callable[[str], str]) -> dict[str, int]:
    """Return the places of names by a form of them, without names that have the same form as another."""
    forms = [form(name) for name in names]
    counts = Counter(forms)
    return {name: place for place, name in enumerate(forms) if counts[name] == 1}


def _form_of(*lists: Sequence[str]) -> Callable[[str], str]:
    """Return how to compare names: normalised, unless two names of a list would then be the same."""
    return plain_name if all(len({*map(plain_name, names)}) == len(names) for names in lists) else str


def shared(wanted: Sequence[str], given: Sequence[str]) -> dict[int, int]:
    """Return the index in `wanted` of each of the `given` classes that both lists have, by its own index.

    Names are compared as `matching` compares them.
    """
    form = _form_of(wanted, given)
    places = {form(name): place for place, name in enumerate(wanted)}
    return {place: places[form(name)] for place, name in enumerate(given) if form(name) in places}


def places_of(wanted: Sequence[str], given: Sequence[str], title: str) -> list[int]:
    """Return `matching`. Raises ValueError if the data set called `title` has other classes."""
    if (places := matching(wanted, given)) is None:
        raise ValueError(f"{title} has other classes: {differences(wanted, given)}")
    return places


def check_same_classes(wanted: Sequence[str], given: Sequence[str], title: str) -> None:
    """Raise ValueError if the data set called `title` has other classes, or the same in another order."""
    places = matching(wanted, given)
    if tuple(given) == tuple(wanted) or places == list(range(len(wanted))):
        return
    how = differences(wanted, given) if places is None else f"they are in another order, {some(given)}"
    raise ValueError(
        f"the classes of {title} are not those of its training images: {how}; number the labels of both alike"
    )


def renamed(given: Sequence[str] | None, own: Sequence[str] | None, title: str) -> Sequence[str] | None:
    """Return the `given` names of the classes of a data set called `title`, or else its `own`, if there are any.

    Raises ValueError if one of its own is given at another place: images of one class would have the name of another.
    """
    if not given or own is None:
        return given or own
    form = _form_of(own)
    places = {form(name): place for place, name in enumerate(own)}
    for place, name in enumerate(given):
        if places.get(form(name), place) != place:
            raise ValueError(
                f"{title} has {name!r} as class {places[form(name)]}, and classes=[...] has it as class {place}; keep "
                f"the order of the labels, {some(own)}, or leave classes out"
            )
    return given


def pairs_of(wanted: Sequence[str], given: Sequence[str], places: Sequence[int]) -> str:
    """Return a table, one line per `given` class: its number and name, and those of the `wanted` class it matches."""
    width = max(map(len, given))
    lines = [
        f"  {number:>3} {name:<{width}} -> {place:>3} {wanted[place]}"
        for number, (name, place) in enumerate(zip(given, places, strict=True))
    ]
    more = [f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join(lines[:LISTED] + more)


def differences(wanted: Sequence[str], given: Sequence[str]) -> str:
    """Describe the names that only one of the two lists has."""
    form = _form_of(wanted, given)
    mine, theirs = ({form(name): name for name in names} for names in (wanted, given))
    missing = [name for key, name in mine.items() if key not in theirs]
    unknown = [name for key, name in theirs.items() if key not in mine]
    found = {"unexpected": unknown, "missing": missing}
    parts = [f"{some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in found.items() if names]
    return " and ".join(parts) or "their names do not tell them apart"


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
