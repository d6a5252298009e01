"""Names of classes: whether two lists name the same classes, and in which order.

Case, accents' Unicode form and what stands between words do not matter: "Sea lion", "sea_lion" and "sea-lion" are one
class.
"""

import re
import unicodedata
from collections.abc import Sequence

SHOWN = 5  # names of each kind in a message
LISTED = 100  # classes in a table


def plain_name(name: str) -> str:
    """What is compared of a name: small letters, digits and signs of other scripts, with one "_" between words."""
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_") or name


def matching(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """For each of the `given` classes its place among the `wanted`; None if they are not the same classes.

    Names that only differ as described above match where that is no matter of choice.
    """
    for form in (str, plain_name):
        mine, theirs = [form(name) for name in wanted], [form(name) for name in given]
        if sorted(mine) == sorted(theirs) and len(set(mine)) == len(mine):
            return [mine.index(name) for name in theirs]
    return None


def places_of(wanted: Sequence[str], given: Sequence[str], title: str) -> list[int]:
    """`matching`. Raises ValueError if the given classes, of the data set with this title, are others."""
    if (places := matching(wanted, given)) is None:
        raise ValueError(f"the classes of {title} are others: {differences(wanted, given)}")
    return places


def pairs_of(wanted: Sequence[str], given: Sequence[str], places: Sequence[int]) -> str:
    """Which of the `given` classes was matched with which `wanted` one, a line for each, with their numbers."""
    width = max(map(len, given))
    lines = [
        f"  {number:>3} {name:<{width}} -> {place:>3} {wanted[place]}"
        for number, (name, place) in enumerate(zip(given, places, strict=True))
    ]
    more = [f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join(lines[:LISTED] + more)


def differences(wanted: Sequence[str], given: Sequence[str]) -> str:
    """Which names only one of two lists has, in words."""
    mine, theirs = ({plain_name(name): name for name in names} for names in (wanted, given))
    missing = [name for form, name in mine.items() if form not in theirs]
    unknown = [name for form, name in theirs.items() if form not in mine]
    found = {"not known there": unknown, "missing here": missing}
    parts = [f"{_some(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in found.items() if names]
    return " and ".join(parts) or "their names do not tell them apart"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
